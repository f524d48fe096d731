"""``GET /v1/audit``: filters, pages, and whose entries are seen."""

import pytest

from st_controller.domain.policy.reach import Reach
from st_controller.services import audit_reading
from st_controller.services.actor import Actor
from st_controller.services.audit_reading import AuditFilter
from st_controller.services.memberships import put
from st_controller.store.schema import Membership, Organisation, Team, User

ALL = "admin.audit"


@pytest.fixture
def entries(platform_db, admin_headers):
    """Entries of people in two organisations, of a worker and of the controller itself."""
    with platform_db.write() as tx:
        for actor, action, target in (
            ("user:anna", "job.submitted", "job_1"),
            ("user:ben", "job_submitted", "job_2"),
            ("user:cleo", "job.cancelled", "job_1"),
            ("worker:w1", "attempt.claimed", "att_1"),
            ("scheduler", "job.queued", "job_1"),
        ):
            tx.audit(actor, action, target, n=1)
    with platform_db.write() as tx:
        now = tx.now
        tx.session.add_all(
            [Organisation(slug="other", name="Other", time_zone="UTC", created_at=now)]
        )
        tx.session.flush()
        tx.session.add_all(
            [
                Team(org="other", slug="default", name="D", created_at=now),
                Team(org="default", slug="red", name="Red", created_at=now),
            ]
        )
        tx.session.flush()
        for name, org in (("anna", "default"), ("ben", "default"), ("cleo", "other")):
            tx.session.add(
                User(
                    id=f"usr_{name}",
                    username=name,
                    password_hash="!",
                    role="lead",
                    org=org,
                    team="default",
                    created_at=now,
                    disabled_at=None,
                )
            )
        tx.session.flush()
        tx.session.add(Membership(user_id="usr_anna", org="default", team="red"))


def reader(reach: Reach, *teams: str) -> Actor:
    return Actor(
        user_id="usr_x",
        username="x",
        permissions=frozenset({ALL}),
        org="default",
        team="default",
        teams=frozenset(teams),
        role="r",
        rank=50,
        widest=reach,
    )


@pytest.fixture
def get(app_client, admin_headers, entries):
    def get(**parameters):
        reply = app_client.get("/v1/audit", params=parameters, headers=admin_headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    return get


def seen(found) -> list[str]:
    known = ("user:anna", "user:ben", "user:cleo", "worker:w1", "scheduler")
    return [item["actor"] for item in found["items"] if item["actor"] in known]


def test_entries_come_newest_first_with_all_their_fields(get, clock):
    found = get()
    assert seen(found) == ["scheduler", "worker:w1", "user:cleo", "user:ben", "user:anna"]
    first = found["items"][0]
    assert first["details"] == {"n": 1}
    assert (first["action"], first["target"], first["place"]) == ("job.queued", "job_1", None)
    assert {item["action"] for item in found["items"]} > {"user.created", "api_key.created"}


def test_filters_narrow_and_an_underscore_is_only_that(get):
    assert seen(get(target="job_1")) == ["scheduler", "user:cleo", "user:anna"]
    assert seen(get(actor="user:*", action="job.*")) == ["user:cleo", "user:anna"]
    assert seen(get(action="job_submitted")) == ["user:ben"]
    assert seen(get(actor="%")) == []
    assert seen(get(since="2999-01-01T00:00:00Z")) == []
    assert len(seen(get(until="2999-01-01T00:00:00Z"))) == 5


def test_pages_follow_one_another(get):
    first = get(limit=2, action="*.*")
    second = get(limit=2, action="*.*", cursor=first["next_cursor"])
    ids = [item["id"] for item in first["items"] + second["items"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 4
    assert get(limit=500)["next_cursor"] is None


@pytest.mark.parametrize("wrong", [{"cursor": "x"}, {"cursor": "9" * 30}, {"since": "today"}])
def test_nonsense_is_named(app_client, admin_headers, wrong):
    reply = app_client.get("/v1/audit", params=wrong, headers=admin_headers)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == next(iter(wrong))


@pytest.mark.parametrize(
    ("who", "names"),
    [
        (reader(Reach.SYSTEM), {"anna", "ben", "cleo", "root"}),
        (reader(Reach.ORG), {"anna", "ben"}),
        (reader(Reach.TEAM, "red"), {"anna"}),
        (reader(Reach.TEAM), set()),
        (reader(Reach.OWN), set()),
    ],
)
def test_one_sees_what_people_within_ones_reach_did(platform_db, entries, who, names):
    with platform_db.read() as session:
        found, _ = audit_reading.page(session, who, AuditFilter(), before=None, limit=100)
    people = {item.actor for item in found}
    if who.widest is not Reach.SYSTEM:
        assert all(actor.startswith("user:") for actor in people)
    assert {actor.removeprefix("user:") for actor in people if actor.startswith("user:")} == names


def test_what_one_did_elsewhere_is_not_told_where_one_went(platform_db, entries, clock):
    clock.advance(1)
    with platform_db.write() as tx:
        cleo = tx.session.get(User, "usr_cleo")
        put(tx, cleo, "default", "red", "console")
        tx.audit("user:cleo", "job.submitted", "job_9")
    with platform_db.read() as session:
        found, _ = audit_reading.page(
            session, reader(Reach.ORG), AuditFilter(actor="user:cleo"), before=None, limit=9
        )
    assert [item.target for item in found] == ["job_9"]

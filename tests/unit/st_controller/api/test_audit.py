"""``GET /v1/audit``: filters, pages, and whose entries are seen."""

from datetime import timedelta

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


def test_what_is_rare_is_sought_a_stretch_at_a_time(get, monkeypatch):
    monkeypatch.setattr(audit_reading, "LOOK", 3)
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = get(actor="user:anna", **({"cursor": cursor} if cursor else {}))
        found, cursor, pages = found + page["items"], page["next_cursor"], pages + 1
    assert [item["target"] for item in found] == ["job_1"]
    assert pages > 1
    assert len(get(target="job_1")["items"]) == 3  # an index leads there


def test_the_ends_of_the_log_are_not_sought_in_all_of_it(entries, platform_db):
    with platform_db.read() as session:
        asked = f"EXPLAIN QUERY PLAN {audit_reading._ENDS.compile(session.connection())}"
        plan = [row[3] for row in session.connection().exec_driver_sql(asked)]
    assert sum(line.startswith("SEARCH audit_entries") for line in plan) == 2
    assert not [line for line in plan if line.startswith("SCAN audit_entries")]


def test_a_time_is_sought_by_halves_and_nothing_of_it_is_left_out(get, platform_db, clock):
    for number in range(40):
        clock.advance(3600)
        with platform_db.write() as tx:
            tx.audit("user:dora", "job.held", f"job_{number}")
    now = clock()
    late = get(since=f"{now - timedelta(hours=2, minutes=30):%Y-%m-%dT%H:%M:%SZ}")
    assert [item["target"] for item in late["items"]] == ["job_39", "job_38", "job_37"]
    begin, end = now - timedelta(hours=20), now - timedelta(hours=18)
    among = get(
        actor="user:dora",
        since=f"{begin:%Y-%m-%dT%H:%M:%SZ}",
        until=f"{end:%Y-%m-%dT%H:%M:%SZ}",
    )
    assert [item["target"] for item in among["items"]] == ["job_20", "job_19"]
    with platform_db.read() as session:
        numbers = audit_reading._numbers(session, AuditFilter(since=begin, until=end))
    assert numbers[1] - numbers[0] == 4  # an hour more at either end


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

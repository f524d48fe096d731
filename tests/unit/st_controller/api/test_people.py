"""Organisations, teams, users, roles and grants by the API: who may, and what comes of it."""

import pytest
from people_steps import People

from st_controller.domain.policy.permissions import PERMISSIONS
from st_controller.domain.policy.roles import OF_THE_SYSTEM
from st_controller.store.schema import AuditEntry

DIRECTOR = {
    "slug": "director",
    "name": "Director",
    "permissions": sorted(PERMISSIONS.keys() - OF_THE_SYSTEM - {"job.command"}),
    "reach": "org",
    "rank": 80,
}


@pytest.fixture
def people(app_client, admin_headers):
    made = People(app_client, admin_headers)
    made.org("acme", "vision", "audio")
    made.org("beta", "vision")
    made.must("POST", "roles", DIRECTOR)
    made.dia = made.user("dia", "director", "acme", "vision")
    made.lea = made.user("lea", "lead", "acme", "vision")
    made.user("ann", "researcher", "acme", "vision", "audio")
    made.user("ben", "researcher", "beta", "vision")
    return made


def code(reply):
    return reply.status_code, reply.json().get("code") if reply.content else None


def slugs(people, path, headers, key="slug"):
    return [item[key] for item in people.must("GET", path, headers=headers)["items"]]


# Organisations


def test_an_organisation_is_made_changed_disabled_and_enabled(people):
    made = people.must("POST", "orgs", {"slug": "gamma", "name": "G", "time_zone": "Asia/Tokyo"})
    assert (made["teams"], made["users"], made["disabled"]) == (1, 0, False)
    changed = people.must("PATCH", "orgs/gamma", {"time_zone": "Europe/Berlin"})
    assert (changed["name"], changed["time_zone"]) == ("G", "Europe/Berlin")
    assert people.ask("PATCH", "orgs/gamma", {"time_zone": "Mars/Base"}).status_code == 422
    assert people.ask("POST", "orgs", {"slug": "gamma", "name": "G"}).status_code == 409
    assert people.ask("POST", "orgs", {"slug": "all", "name": "G"}).status_code == 409
    assert code(people.ask("DELETE", "orgs/default")) == (409, "own_organisation")
    assert people.ask("GET", "auth/me", headers=people.lea).status_code == 200
    assert people.must("DELETE", "orgs/acme")["disabled"]
    assert people.ask("GET", "auth/me", headers=people.lea).status_code == 401
    people.must("POST", "orgs/acme/enable")
    assert people.ask("GET", "auth/me", headers=people.lea).status_code == 200


def test_an_organisation_is_seen_by_its_own(people):
    assert slugs(people, "orgs", people.admin) == ["acme", "beta", "default"]
    assert slugs(people, "orgs", people.dia) == ["acme"]
    assert slugs(people, "orgs", people.lea) == ["acme"]
    for other in ("beta", "nowhere"):
        assert people.ask("DELETE", f"orgs/{other}", headers=people.dia).status_code == 403
        for method, body in (("GET", None), ("PATCH", {"name": "x"})):
            reply = people.ask(method, f"orgs/{other}", body, people.dia)
            assert reply.status_code == 404, (method, other)
            assert reply.json()["detail"] == f"there is no organisation '{other}'"
    assert people.must("PATCH", "orgs/acme", {"name": "A"}, people.dia)["name"] == "A"
    found = slugs(people, "orgs/acme/members", people.dia, "username")
    assert found == ["ann", "dia", "lea"]
    assert people.ask("GET", "orgs/beta/members", headers=people.dia).status_code == 404


def test_a_user_is_taken_into_an_organisation_by_who_sees_both(people):
    body = {"team": "vision"}
    assert people.ask("PUT", "orgs/acme/members/ben", body, people.dia).status_code == 404
    assert people.ask("PUT", "orgs/beta/members/ann", body, people.dia).status_code == 404
    assert people.ask("PUT", "orgs/acme/members/ben", {"team": "x"}).status_code == 422
    moved = people.must("PUT", "orgs/acme/members/ben", body)
    assert (moved["org"], moved["teams"]) == ("acme", ["vision"])
    assert people.must("PUT", "orgs/acme/members/ben", {"team": "audio"})["team"] == "audio"


# Teams


def test_a_lead_looks_after_their_own_teams_alone(people):
    assert slugs(people, "teams", people.lea) == ["vision"]
    assert slugs(people, "teams", people.dia) == ["audio", "default", "vision"]
    assert slugs(people, "teams?org=beta", people.dia) == []
    assert people.must("PATCH", "teams/acme/vision", {"name": "Eyes"}, people.lea)["name"] == "Eyes"
    for path in ("teams/acme/audio", "teams/beta/vision", "teams/acme/nowhere"):
        for method, rest, body in (
            ("GET", "", None),
            ("PATCH", "", {"name": "x"}),
            ("GET", "/members", None),
            ("PUT", "/members/ann", None),
            ("DELETE", "/members/ann", None),
        ):
            reply = people.ask(method, path + rest, body, people.lea)
            assert reply.status_code == 404, (method, path + rest)
            assert path.removeprefix("teams/") in reply.json()["detail"]
    assert people.ask("POST", "teams", {"slug": "mine"}, people.lea).status_code == 403
    assert people.ask("DELETE", "teams/acme/vision", headers=people.lea).status_code == 403


def test_people_come_into_a_team_and_go(people):
    people.user("abe", "researcher", "acme", "default")
    people.must("PUT", "teams/acme/vision/members/abe", headers=people.lea)
    assert "abe" in slugs(people, "teams/acme/vision/members", people.lea, "username")
    assert people.ask("PUT", "teams/acme/vision/members/ben", headers=people.lea).status_code == 404
    people.must("DELETE", "teams/acme/vision/members/ann", headers=people.lea)
    ann = people.must("GET", "users/ann")
    assert (ann["team"], ann["teams"]) == ("audio", ["audio"])
    refused = people.ask("DELETE", "teams/acme/vision/members/lea", headers=people.lea)
    assert code(refused) == (409, "only_team")
    assert people.ask("DELETE", "teams/acme/vision/members/ann").status_code == 404


def test_a_team_is_archived_once_nobody_submits_as_it(people):
    assert code(people.ask("DELETE", "teams/acme/vision")) == (409, "team_in_use")
    people.must("POST", "teams", {"slug": "old"}, people.dia)
    people.must("PUT", "teams/acme/old/members/ann")
    assert people.must("DELETE", "teams/acme/old")["archived"]
    assert people.ask("PUT", "teams/acme/old/members/lea").status_code == 422
    assert people.ask("POST", "teams", {"slug": "old"}, people.dia).status_code == 409
    assert people.ask("PATCH", "users/ann", {"team": "old"}).status_code == 422


# Users


def test_users_are_made_in_the_own_organisation_under_names_of_its_own(people):
    def make(headers, **body):
        return people.ask("POST", "users", {"username": "new@acme", **body}, headers)

    assert make(people.lea).status_code == 403
    made = make(people.dia, role="lead", team="audio")
    assert made.status_code == 201
    assert (made.json()["org"], made.json()["team"]) == ("acme", "audio")
    assert code(make(people.dia)) == (422, "name_taken")
    # A name that exists elsewhere is refused like one that does not.
    taken, free = (make(people.dia, username=name) for name in ("ben", "nobody-has-this"))
    assert taken.status_code == free.status_code == 422
    told = [reply.text.replace("nobody-has-this", "ben") for reply in (taken, free)]
    assert told[0] == told[1]
    assert "@acme" in told[0]
    assert make(people.dia, username="x@beta").status_code == 422
    assert make(people.admin, username="x@beta").status_code == 422
    assert make(people.dia, org="beta").status_code == 404
    assert make(people.dia, username="y@acme", team="nowhere").status_code == 422


def test_users_are_seen_as_far_as_the_role_reaches(people):
    assert slugs(people, "users", people.dia, "username") == ["ann", "dia", "lea"]
    assert slugs(people, "users?team=audio", people.dia, "username") == ["ann"]
    assert slugs(people, "users?org=beta", people.dia, "username") == []
    assert "ben" in slugs(people, "users", people.admin, "username")
    for name in ("ben", "nobody"):
        for method, rest, body in (
            ("GET", "", None),
            ("PATCH", "", {"disabled": True}),
            ("PUT", "/grants/job.submit", {"effect": "deny"}),
            ("DELETE", "/grants/job.submit", None),
            ("GET", "/api-keys", None),
            ("DELETE", "/api-keys/key_1", None),
        ):
            reply = people.ask(method, f"users/{name}{rest}", body, people.dia)
            assert (reply.status_code, reply.json()["detail"]) == (
                404,
                f"there is no user '{name}'",
            )
    assert people.ask("GET", "users", headers=people.lea).status_code == 403


def test_lists_of_users_come_in_pages(people):
    first = people.must("GET", "users?limit=2")
    rest = people.must("GET", f"users?limit=10&cursor={first['next_cursor']}")
    names = [item["username"] for page in (first, rest) for item in page["items"]]
    assert names == ["ann", "ben", "dia", "lea", "root"]


def test_a_change_holds_at_once(people):
    ann = people.key("ann")
    assert people.ask("GET", "queue", headers=ann).status_code == 200
    people.must("PUT", "users/ann/grants/queue.view", {"effect": "deny"}, people.dia)
    assert people.ask("GET", "queue", headers=ann).status_code == 403
    people.must("DELETE", "users/ann/grants/queue.view", headers=people.dia)
    assert people.ask("GET", "queue", headers=ann).status_code == 200
    people.must("PATCH", "users/ann", {"role": "viewer"}, people.dia)
    assert people.ask("GET", "queue", headers=ann).status_code == 403
    people.must("PATCH", "users/ann", {"disabled": True}, people.dia)
    assert people.ask("GET", "auth/me", headers=ann).status_code == 401
    people.must("PATCH", "users/ann", {"disabled": False, "role": "lead"}, people.dia)
    assert slugs(people, "teams", ann) == ["audio", "vision"]
    people.must("DELETE", "teams/acme/audio/members/ann", headers=people.dia)
    assert slugs(people, "teams", ann) == ["vision"]


def test_nobody_gives_what_they_lack_or_touches_who_outranks_them(people):
    def refused(method, path, body, headers=people.dia):
        reply = people.ask(method, path, body, headers)
        assert reply.status_code == 403, reply.text

    refused("PATCH", "users/ann", {"role": "admin"})
    refused("PUT", "users/ann/grants/job.command", {"effect": "allow"})
    refused("POST", "roles", {**DIRECTOR, "slug": "x"})
    wide = {**DIRECTOR, "slug": "x", "permissions": ["admin.workers"]}
    assert people.ask("POST", "roles", wide).json()["errors"][0]["field"] == "permissions"
    people.must("PUT", "orgs/acme/members/root", {"team": "vision"})
    refused("PATCH", "users/root", {"disabled": True})
    refused("PATCH", "users/root", {"role": "viewer"})
    refused("PUT", "users/root/grants/job.submit", {"effect": "deny"})
    # A denial is lifted by who has the permission, and nobody lifts their own.
    people.must("PUT", "users/dia/grants/worker.view", {"effect": "deny"})
    refused("DELETE", "users/dia/grants/worker.view", None)
    refused("PUT", "users/dia/grants/worker.view", {"effect": "allow"})
    # A key gives no more than it may do itself.
    narrow = people.key("root", scopes=["admin.users", "admin.levels"])
    refused("PATCH", "users/ann", {"role": "lead"}, narrow)
    refused("POST", "roles", {**DIRECTOR, "slug": "x"}, narrow)
    assert people.ask("PATCH", "users/ann", {"role": "wizard"}).status_code == 422


def test_the_last_admin_stays_one(people):
    for body in ({"role": "viewer"}, {"disabled": True}):
        assert code(people.ask("PATCH", "users/root", body)) == (409, "last_admin")
    deny = {"effect": "deny"}
    assert code(people.ask("PUT", "users/root/grants/admin.users", deny)) == (409, "last_admin")
    people.must("PATCH", "users/ben", {"role": "admin"})
    assert people.must("PATCH", "users/root", {"disabled": True})["disabled"]


def test_a_grant_that_would_have_no_effect_is_refused(people):
    reply = people.ask("PUT", "users/ann/grants/job.view.all", {"effect": "allow"})
    assert reply.status_code == 422
    assert "reaches only their own" in reply.json()["detail"]
    assert people.ask("PUT", "users/ann/grants/job.fly", {"effect": "deny"}).status_code == 422
    found = people.must("PUT", "users/lea/grants/job.cancel.all", {"effect": "allow"})
    assert found["allowed"] == ["job.cancel.all"]
    assert "job.cancel.all" in found["permissions"]
    assert found["reach"] == "team"


def test_keys_of_others_are_seen_and_ended(people):
    ann = people.key("ann")
    (key, *_) = people.must("GET", "users/ann/api-keys", headers=people.dia)["items"]
    people.must("DELETE", f"users/ann/api-keys/{key['id']}", headers=people.dia)
    assert people.ask("GET", "auth/me", headers=ann).status_code == 401
    again = people.ask("DELETE", f"users/ann/api-keys/{key['id']}", headers=people.dia)
    assert again.status_code == 404


# Roles


def test_a_role_is_made_given_changed_and_removed(people):
    role = {"slug": "annotator", "name": "A", "permissions": ["dataset.view", "api.access"]}
    made = people.must("POST", "roles", role)
    assert (made["reach"], made["rank"], made["built_in"]) == ("own", 10, False)
    assert people.ask("POST", "roles", role).status_code == 409
    assert people.ask("POST", "roles", {**role, "slug": "admin"}).status_code == 409
    wrong = people.ask("POST", "roles", {**role, "slug": "y", "permissions": ["job.fly"]})
    assert wrong.json()["errors"][0]["field"] == "permissions"
    people.must("PATCH", "users/ann", {"role": "annotator"})
    ann = people.key("ann")
    assert people.ask("GET", "workers", headers=ann).status_code == 403
    people.must("PUT", "roles/annotator", {**role, "permissions": ["worker.view", "api.access"]})
    assert people.ask("GET", "workers", headers=ann).status_code == 200
    assert people.ask("GET", "datasets", headers=ann).status_code == 403
    assert code(people.ask("DELETE", "roles/annotator")) == (409, "role_in_use")
    people.must("PATCH", "users/ann", {"role": "viewer"})
    people.must("DELETE", "roles/annotator")
    assert people.ask("DELETE", "roles/annotator").status_code == 404
    for method in ("PUT", "DELETE"):
        body = {**role, "slug": "viewer"} if method == "PUT" else None
        assert code(people.ask(method, "roles/viewer", body)) == (409, "built_in")
    assert people.ask("PUT", "roles/director", role).status_code == 422


def test_roles_are_listed_with_who_has_them_as_far_as_one_reaches(people):
    def users(headers):
        items = people.must("GET", "roles", headers=headers)["items"]
        return {item["slug"]: item["users"] for item in items}

    assert users(people.admin) == {
        "viewer": 0, "researcher": 2, "lead": 1, "director": 1, "admin": 1,
    }  # fmt: skip
    assert users(people.dia)["researcher"] == 1
    assert people.ask("GET", "roles", headers=people.lea).status_code == 403


def test_every_change_leaves_its_entry(people):
    people.must("PATCH", "orgs/acme", {"name": "A"}, people.dia)
    people.must("PATCH", "teams/acme/vision", {"name": "V"}, people.lea)
    people.must("PUT", "users/ann/grants/job.submit", {"effect": "deny"}, people.dia)
    with people.db.read() as session:
        entries = session.query(AuditEntry).order_by(AuditEntry.seq).all()
    told = [(entry.actor, entry.action, entry.details) for entry in entries[-3:]]
    assert told == [
        (
            "user:dia",
            "org.changed",
            {
                "before": {"name": "Acme", "time_zone": "UTC"},
                "after": {"name": "A", "time_zone": "UTC"},
            },
        ),
        ("user:lea", "team.renamed", {"before": "vision", "after": "V"}),
        (
            "user:dia",
            "user.permission_set",
            {"permission": "job.submit", "before": None, "after": "deny"},
        ),
    ]
    assert {"org.created", "team.created", "user.created", "role.created", "team.joined"} <= {
        entry.action for entry in entries
    }

import pytest

from st_controller.services.known_credentials import BELIEVED
from st_controller.store.transaction import CREDENTIALS


def bearer(reply):
    return {"Authorization": f"Bearer {reply.json()['key']}"}


def permissions(client, headers):
    return set(client.get("/v1/auth/me", headers=headers).json()["permissions"])


def test_a_key_has_its_owners_permissions(app_client, admin_headers, new_key):
    assert permissions(app_client, bearer(new_key())) == permissions(app_client, admin_headers)


def test_scopes_take_away(app_client, new_key):
    key = bearer(new_key(scopes=["job.submit", "job.view.own"]))
    assert permissions(app_client, key) == {"job.submit", "job.view.own"}
    assert app_client.get("/v1/join-tokens", headers=key).json()["code"] == "not_permitted"


def test_a_key_cannot_make_a_stronger_key(app_client, new_key):
    weak = bearer(new_key(scopes=["api.keys.own", "job.view.own"]))
    for scopes in (None, ["api.keys.own", "job.view.own", "admin.workers"]):
        child = bearer(new_key(headers=weak, scopes=scopes))
        assert permissions(app_client, child) == {"api.keys.own", "job.view.own"}


def test_scopes_never_exceed_the_role(app_client, platform_db, new_key):
    from st_controller.domain.policy.roles import ROLE_PERMISSIONS, Role
    from st_controller.store.schema import User

    key = bearer(new_key(scopes=["job.view.own", "admin.workers"]))
    with platform_db.write() as transaction:
        transaction.session.query(User).update({"role": Role.RESEARCHER.value})
    assert permissions(app_client, key) == {"job.view.own"} & ROLE_PERMISSIONS[Role.RESEARCHER]


def test_keys_are_for_those_who_may_use_the_api(app_client, platform_db, new_key):
    from st_controller.store.schema import User

    key = bearer(new_key(scopes=["job.view.own"]))
    with platform_db.write() as transaction:
        transaction.session.query(User).update({"role": "viewer"})
        transaction.wake(CREDENTIALS)
    reply = app_client.get("/v1/jobs", headers=key)
    assert reply.status_code == 403
    assert "api.access" in reply.json()["detail"]


def test_an_unknown_scope_is_refused_with_the_known_ones(new_key):
    reply = new_key(scopes=["job.fly"])
    assert reply.status_code == 422
    assert reply.json()["code"] == "unknown_scope"
    assert reply.json()["errors"][0]["field"] == "scopes"
    assert "job.submit" in reply.json()["hint"]


def test_an_expired_key_opens_nothing(app_client, new_key, clock):
    key = bearer(new_key(expires_in_days=1))
    clock.advance(86_399)
    assert app_client.get("/v1/auth/me", headers=key).status_code == 200
    clock.advance(1)
    assert app_client.get("/v1/auth/me", headers=key).status_code == 401


def test_a_child_key_ends_with_its_parent(new_key):
    parent = new_key(expires_in_days=1)
    child = new_key(headers=bearer(parent), expires_in_days=30)
    assert child.json()["expires_at"] == parent.json()["expires_at"]


def test_a_revoked_key_opens_nothing(app_client, admin_headers, new_key):
    made = new_key()
    path = f"/v1/api-keys/{made.json()['id']}"
    assert app_client.delete(path, headers=admin_headers).status_code == 204
    assert app_client.get("/v1/auth/me", headers=bearer(made)).status_code == 401
    assert app_client.delete(path, headers=admin_headers).status_code == 404


def test_a_key_that_was_used_a_moment_ago_is_refused_as_soon_as_it_is_revoked(
    app_client, admin_headers, new_key
):
    made = new_key()
    assert app_client.get("/v1/auth/me", headers=bearer(made)).status_code == 200
    app_client.delete(f"/v1/api-keys/{made.json()['id']}", headers=admin_headers)
    assert app_client.get("/v1/auth/me", headers=bearer(made)).status_code == 401


@pytest.mark.parametrize("told", [True, False])
def test_a_key_that_another_process_revoked_is_refused_when_told_or_within_seconds(
    app_client, platform_db, new_key, clock, told
):
    from st_controller.store.schema import ApiKey

    made = new_key()
    assert app_client.get("/v1/auth/me", headers=bearer(made)).status_code == 200
    with platform_db.write() as transaction:
        transaction.session.query(ApiKey).update({"revoked_at": clock()})
    if told:
        app_client.app.state.platform.hub.ring(frozenset({CREDENTIALS}))
    else:
        clock.advance(BELIEVED.total_seconds())
    assert app_client.get("/v1/auth/me", headers=bearer(made)).status_code == 401


def test_a_key_is_no_session_and_a_session_no_key(app_client, new_key):
    from st_controller.api.dependencies import cookie_name

    cookie = cookie_name(app_client.app.state.platform)
    key = new_key().json()["key"]
    app_client.cookies.set(cookie, key)
    assert app_client.get("/v1/auth/me").status_code == 401
    app_client.cookies.clear()
    login = {"username": "root", "password": "correct horse battery"}
    assert app_client.post("/v1/auth/login", json=login).status_code == 200
    session = app_client.cookies[cookie]
    assert app_client.get("/v1/auth/me").status_code == 200
    headers = {"Authorization": f"Bearer {session}"}
    app_client.cookies.clear()
    assert app_client.get("/v1/auth/me", headers=headers).status_code == 401


def test_a_disabled_owner_has_no_keys(app_client, platform_db, admin_headers, clock):
    from st_controller.store.schema import User

    with platform_db.write() as transaction:
        transaction.session.query(User).update({"disabled_at": clock()})
    assert app_client.get("/v1/auth/me", headers=admin_headers).status_code == 401


def test_the_list_shows_no_secret_and_comes_in_pages(app_client, admin_headers, new_key):
    secrets = [new_key(name=f"key {n}").json()["key"] for n in range(3)]
    first = app_client.get("/v1/api-keys?limit=2", headers=admin_headers)
    cursor = first.json()["next_cursor"]
    second = app_client.get(f"/v1/api-keys?limit=2&cursor={cursor}", headers=admin_headers)
    names = [key["name"] for page in (first, second) for key in page.json()["items"]]
    assert sorted(names) == ["first key", "key 0", "key 1", "key 2"]
    assert second.json()["next_cursor"] is None
    assert not any(secret in first.text + second.text for secret in secrets)


def test_use_is_noted_at_most_once_a_minute(app_client, admin_headers, clock):
    def used():
        reply = app_client.get("/v1/api-keys", headers=admin_headers)
        return reply.json()["items"][0]["last_used_at"]

    first = used()
    clock.advance(59)
    assert used() == first
    clock.advance(BELIEVED.total_seconds())  # so long it is not looked up again
    assert used() > first


def test_changes_are_audited(app_client, platform_db, admin_headers, new_key):
    from st_controller.store.schema import AuditEntry

    made = new_key().json()
    app_client.delete(f"/v1/api-keys/{made['id']}", headers=admin_headers)
    with platform_db.read() as session:
        entries = session.query(AuditEntry).filter(AuditEntry.target == made["id"]).all()
    told = [(entry.actor, entry.action) for entry in entries]
    assert told == [("user:root", "api_key.created"), ("user:root", "api_key.revoked")]
    assert made["key"] not in str([entry.details for entry in entries])


def test_a_key_that_is_bound_to_addresses_is_refused_elsewhere(app_client, new_key):
    made = new_key(addresses=["192.0.2.7", "2001:db8::1/32"])
    assert made.status_code == 201
    assert made.json()["addresses"] == ["192.0.2.7/32", "2001:db8::/32"]
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    refused = app_client.get("/v1/auth/me", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "address_not_allowed")
    for wrong in (["somewhere"], [], ["10.0.0.0/40"]):
        assert new_key(addresses=wrong).status_code == 422


def test_a_bound_key_makes_no_wider_one(platform_db, admin_headers):
    import dataclasses

    from st_controller.errors import InvalidRequest
    from st_controller.services import identity
    from st_controller.services.api_keys import create_key
    from st_shared.protocol.resources import ApiKeyRequest

    key = admin_headers["Authorization"].removeprefix("Bearer ")
    with platform_db.read() as session:
        caller, _ = identity.caller_by_api_key(session, key, platform_db.clock())
    bound = dataclasses.replace(caller, addresses=("192.0.2.0/24",))
    assert bound.may_come_from("192.0.2.9")
    assert bound.may_come_from("::ffff:192.0.2.9")
    assert not bound.may_come_from("192.0.3.9")
    assert not bound.may_come_from("2001:db8::1")
    for asked, given in ((None, ["192.0.2.0/24"]), (["192.0.2.8"], ["192.0.2.8/32"])):
        with platform_db.write() as tx:
            made = create_key(tx, bound, ApiKeyRequest(name="k", addresses=asked))
        assert made.addresses == given
    for wider in (["192.0.0.0/16"], ["::/0"]):
        with pytest.raises(InvalidRequest, match="wider"), platform_db.write() as tx:
            create_key(tx, bound, ApiKeyRequest(name="k", addresses=wider))


def test_a_mistyped_key_is_told_without_a_look_up(app_client, admin_headers, platform_db):
    from sqlalchemy import event

    asked = []
    event.listen(platform_db.engine, "before_cursor_execute", lambda *a: asked.append(a[2]))
    key = admin_headers["Authorization"]
    reply = app_client.get("/v1/auth/me", headers={"Authorization": key[:-1] + "!"})
    assert (reply.status_code, reply.json()["code"]) == (401, "mistyped_key")
    assert asked == []

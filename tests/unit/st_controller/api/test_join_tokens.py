import pytest

from st_controller.errors import NotSignedIn
from st_controller.services.join_tokens import token_in_force


@pytest.fixture
def made(app_client, admin_headers):
    body = {"uses": 2, "expires_in_seconds": 120, "labels": {"region": "eu"}}
    reply = app_client.post("/v1/join-tokens", json=body, headers=admin_headers)
    assert reply.status_code == 201
    return reply.json()


def test_a_token_is_shown_once(app_client, admin_headers, made):
    assert made["token"].startswith("stj_")
    listed = app_client.get("/v1/join-tokens", headers=admin_headers)
    assert [item["id"] for item in listed.json()["items"]] == [made["id"]]
    assert listed.json()["items"][0]["uses_left"] == 2
    assert made["token"] not in listed.text


def use(db, secret):
    with db.write() as transaction:
        token_in_force(transaction, secret).uses_left -= 1


def test_it_serves_so_many_workers(platform_db, made):
    use(platform_db, made["token"])
    use(platform_db, made["token"])
    with pytest.raises(NotSignedIn, match="used up"):
        use(platform_db, made["token"])


def test_it_expires(platform_db, made, clock):
    clock.advance(120)
    with pytest.raises(NotSignedIn):
        use(platform_db, made["token"])


def test_it_can_be_revoked(app_client, platform_db, admin_headers, made):
    path = f"/v1/join-tokens/{made['id']}"
    assert app_client.delete(path, headers=admin_headers).status_code == 204
    assert app_client.delete(path, headers=admin_headers).status_code == 404
    with pytest.raises(NotSignedIn):
        use(platform_db, made["token"])


def test_a_typo_costs_no_query(platform_db, made):
    with pytest.raises(NotSignedIn):
        use(platform_db, made["token"][:-1])


def test_it_opens_nothing_but_registration(app_client, made):
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert app_client.get("/v1/join-tokens", headers=headers).status_code == 401
    reply = app_client.post("/v1/worker/heartbeat", json={}, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (401, "bad_worker_credential")


def test_only_operators_make_them(app_client, new_key):
    weak = {"Authorization": f"Bearer {new_key(scopes=['job.submit']).json()['key']}"}
    reply = app_client.post("/v1/join-tokens", json={}, headers=weak)
    assert (reply.status_code, reply.json()["code"]) == (403, "not_permitted")

"""What an admin does about how others sign in: accounts of pipelines, resets, signing out."""

import pytest

PASSWORD, NEW = "correct horse battery", "another good password"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def call(app_client, admin_headers):
    def call(method, path, headers=admin_headers, **body):
        app_client.cookies.clear()
        return app_client.request(method, f"/v1/{path}", json=body, headers=headers)

    return call


@pytest.fixture
def key_of(call):
    """Makes a user without password and a key of theirs."""

    def make(name, role="researcher", **wanted):
        assert call("POST", "users", username=name, role=role).status_code == 201
        made = call("POST", f"users/{name}/api-keys", name="nightly", **wanted)
        assert made.status_code == 201, made.text
        return {"Authorization": f"Bearer {made.json()['key']}"}

    return make


def test_a_pipeline_has_keys_alone(app_client, call, key_of):
    headers = key_of("pipeline", scopes=["job.submit", "job.view.own"])
    me = app_client.get("/v1/auth/me", headers=headers).json()
    assert (me["username"], me["permissions"]) == ("pipeline", ["job.submit", "job.view.own"])
    assert call("GET", "jobs", headers=headers).status_code == 200
    assert call("GET", "queue", headers=headers).status_code == 403
    refused = app_client.post(
        "/v1/auth/login", json={"username": "pipeline", "password": "!"}, headers=SAME_SITE
    )
    assert refused.status_code == 401
    (listed,) = call("GET", "users/pipeline/api-keys").json()["items"]
    call("DELETE", f"users/pipeline/api-keys/{listed['id']}")
    assert call("GET", "jobs", headers=headers).status_code == 401


def test_a_person_makes_keys_themself(call):
    call("POST", "users", username="anna", password=PASSWORD)
    refused = call("POST", "users/anna/api-keys", name="k")
    assert (refused.status_code, refused.json()["code"]) == (409, "makes_own_keys")
    call("POST", "users", username="bot")
    assert call("POST", "users/bot/api-keys", name="k", scopes=["fly"]).status_code == 422
    assert call("POST", "users/nobody/api-keys", name="k").status_code == 404


def test_an_invited_person_chooses_the_password(app_client, call):
    call("POST", "users", username="anna")
    told = call("POST", "users/anna/reset-token").json()
    assert told["username"] == "anna"
    body = {"token": told["token"], "new": NEW}
    assert app_client.post("/v1/auth/reset", json=body, headers=SAME_SITE).status_code == 204
    login = {"username": "anna", "password": NEW}
    signed_in = app_client.post("/v1/auth/login", json=login, headers=SAME_SITE)
    assert signed_in.status_code == 200
    cookie = {"Cookie": signed_in.headers["set-cookie"].partition(";")[0]}
    assert call("GET", "auth/me", headers=cookie).status_code == 200
    assert call("POST", "users/anna/sessions:end").json() == {"count": 1}
    assert call("GET", "auth/me", headers=cookie).status_code == 401


def test_nobody_opens_the_account_of_somebody_who_may_do_more(call, key_of):
    """Else a reset would be a way up; also where the rank is the same."""
    permissions = ["admin.users", "api.access"]
    call("POST", "roles", slug="helpdesk", name="H", permissions=permissions, reach="system",
         rank=60)  # fmt: skip
    helpdesk = key_of("help", "helpdesk")
    call("POST", "users", username="anna")
    refusals = {
        "users/root/reset-token": "outranks you",
        "users/anna/reset-token": "anna may do what you may not",
        "users/anna/api-keys": "anna may do what you may not",
    }
    for path, why in refusals.items():
        body = {"name": "k"} if path.endswith("keys") else {}
        refused = call("POST", path, headers=helpdesk, **body)
        assert refused.status_code == 403, path
        assert why in refused.text
    call("POST", "users", username="vera", role="viewer")
    for permission in ("config.view", "dataset.view", "job.view.own", "worker.view"):
        call("PUT", f"users/vera/grants/{permission}", effect="deny")
    found = call("POST", "users/vera/reset-token", headers=helpdesk)
    assert found.status_code == 201, found.text

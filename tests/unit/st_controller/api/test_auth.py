import pytest

PASSWORD = "correct horse battery"
SETUP = {"username": "root", "password": PASSWORD}


def setup(client, token):
    return client.post("/v1/auth/setup", json={"token": token, **SETUP})


def login(client, password=PASSWORD, username="root"):
    return client.post("/v1/auth/login", json={"username": username, "password": password})


def test_the_setup_token_works_once(app_client, settings):
    token = app_client.app.state.setup_token
    assert (settings.data_dir / "setup-token").read_text() == f"{token}\n"
    first = setup(app_client, token)
    assert first.status_code == 201
    assert first.json()["key"].startswith("st_")
    assert not (settings.data_dir / "setup-token").exists()
    again = setup(app_client, token)
    assert (again.status_code, again.json()["code"]) == (409, "already_set_up")


def test_a_wrong_setup_token_is_refused_and_uses_nothing_up(app_client):
    wrong = setup(app_client, "stu_wrong")
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong_setup_token")
    assert setup(app_client, app_client.app.state.setup_token).status_code == 201


def test_guessing_setup_tokens_is_throttled(app_client):
    codes = [setup(app_client, "stu_wrong").status_code for _ in range(11)]
    assert codes == [403] * 10 + [429]


def test_a_short_password_is_refused_by_name(app_client):
    body = {"token": "t", "username": "root", "password": "short"}
    reply = app_client.post("/v1/auth/setup", json=body)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == ["password"]
    assert "short" not in reply.text


def test_login_gives_a_cookie_that_scripts_cannot_read(app_client, admin_headers):
    reply = login(app_client)
    assert reply.json()["username"] == "root"
    cookie = reply.headers["set-cookie"]
    for part in ("st_session=sts_", "HttpOnly", "SameSite=lax", "Path=/"):
        assert part in cookie
    assert app_client.get("/v1/auth/me").json()["via"] == "session"


def test_over_tls_the_cookie_is_bound_to_the_host(settings, clock):
    from fastapi.testclient import TestClient

    from st_controller.app import create_app

    secure = settings.model_copy(update={"public_url": "https://st.example"})
    app = create_app(secure, clock=clock, dispatch=False)
    with TestClient(app, base_url="https://st.example") as client:
        setup(client, app.state.setup_token)
        reply = login(client)
    assert reply.headers["set-cookie"].startswith("__Host-st_session=")
    assert "Secure" in reply.headers["set-cookie"]
    assert "max-age" in reply.headers["strict-transport-security"]


@pytest.mark.parametrize("username", ["root", "nobody"])
def test_wrong_password_and_unknown_user_get_the_same_answer(app_client, admin_headers, username):
    reply = login(app_client, "wrong password", username)
    assert reply.status_code == 401
    assert reply.json()["code"] == "wrong_password"
    assert "set-cookie" not in reply.headers


def test_logins_are_throttled_by_name(app_client, admin_headers, clock):
    codes = [login(app_client, "wrong password").status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    blocked = login(app_client)
    assert blocked.json()["code"] == "too_many_logins"
    assert blocked.headers["retry-after"] == "60"
    assert login(app_client, "wrong password", "somebody-else").status_code == 401
    clock.advance(60)
    assert login(app_client).status_code == 200


def test_a_session_ends_by_logout(browser):
    reply = browser.post("/v1/auth/logout", headers={"Sec-Fetch-Site": "same-origin"})
    assert reply.status_code == 204
    assert browser.get("/v1/auth/me").status_code == 401


def test_a_stolen_cookie_is_worth_nothing_after_logout(browser):
    token = browser.cookies["st_session"]
    browser.post("/v1/auth/logout", headers={"Sec-Fetch-Site": "same-origin"})
    browser.cookies.set("st_session", token)
    assert browser.get("/v1/auth/me").status_code == 401


def test_a_session_ends_by_time(browser, clock, settings):
    clock.advance(settings.session_lifetime.total_seconds() - 1)
    assert browser.get("/v1/auth/me").status_code == 200
    clock.advance(1)
    assert browser.get("/v1/auth/me").status_code == 401


def test_me_lists_the_permissions(app_client, admin_headers):
    me = app_client.get("/v1/auth/me", headers=admin_headers).json()
    assert (me["username"], me["role"], me["via"]) == ("root", "admin", "api_key")
    assert "admin.workers" in me["permissions"]


@pytest.mark.parametrize("value", ["", "Basic abc", "Bearer", "Bearer st_typo", "Bearer sts_x"])
def test_what_is_no_key_opens_nothing(app_client, admin_headers, value):
    reply = app_client.get("/v1/auth/me", headers={"Authorization": value})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"

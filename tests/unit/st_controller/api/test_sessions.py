"""Sessions of browsers: tokens that change, devices that are listed and signed out."""

import pytest
from sqlalchemy import select

from st_controller.store.schema import AuditEntry, Session

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
PASSWORD = "correct horse battery"
QUARTER = 15 * 60


def me(client, token):
    client.cookies.clear()
    return client.get("/v1/auth/me", headers={"Cookie": f"st_session={token}"})


def given(reply) -> str | None:
    """The token that an answer brought."""
    cookie = reply.headers.get("set-cookie")
    return cookie.partition("st_session=")[2].partition(";")[0] if cookie else None


def audited(db, action) -> list[str]:
    with db.read() as session:
        query = select(AuditEntry.target).where(AuditEntry.action == action)
        return list(session.scalars(query))


@pytest.fixture
def token(browser) -> str:
    return browser.cookies["st_session"]


def test_a_token_is_exchanged_while_it_is_used(app_client, token, clock, platform_db):
    assert given(me(app_client, token)) is None
    clock.advance(QUARTER)
    fresh = given(me(app_client, token))
    assert fresh not in (None, token)
    clock.advance(3)
    # Lost answers: the old one goes on, and no second successor is made at once.
    assert (me(app_client, token).status_code, given(me(app_client, token))) == (200, None)
    assert me(app_client, fresh).status_code == 200
    clock.advance(30)
    assert me(app_client, token).status_code == 200  # requests that were under way
    clock.advance(60)
    assert me(app_client, fresh).status_code == 200
    assert audited(platform_db, "session.token_reused") == []


def test_a_successor_that_got_lost_is_made_anew(app_client, token, clock):
    clock.advance(QUARTER)
    lost = given(me(app_client, token))
    clock.advance(61)
    again = given(me(app_client, token))
    assert again not in (None, lost, token)
    assert me(app_client, again).status_code == 200
    assert me(app_client, lost).status_code == 401


def test_a_token_that_is_shown_after_its_successor_ends_the_session(
    app_client, token, clock, platform_db
):
    clock.advance(QUARTER)
    fresh = given(me(app_client, token))
    assert me(app_client, fresh).status_code == 200
    clock.advance(61)
    assert me(app_client, token).status_code == 401
    assert me(app_client, fresh).status_code == 401
    assert len(audited(platform_db, "session.token_reused")) == 1


def test_the_end_of_a_session_does_not_move(app_client, token, clock, settings):
    clock.advance(settings.session_lifetime.total_seconds() - 5)
    reply = me(app_client, token)
    assert "Max-Age=5;" in reply.headers["set-cookie"]
    clock.advance(5)
    assert me(app_client, given(reply)).status_code == 401


def sign_in(client, agent):
    client.cookies.clear()
    reply = client.post(
        "/v1/auth/login",
        json={"username": "root", "password": PASSWORD},
        headers={**SAME_SITE, "User-Agent": agent},
    )
    return {"Cookie": f"st_session={given(reply)}", **SAME_SITE}


def test_devices_are_listed_and_signed_out(app_client, admin_headers, clock):
    phone = sign_in(app_client, "Phone")
    clock.advance(5)
    laptop = sign_in(app_client, "Laptop" * 100)
    app_client.cookies.clear()
    items = app_client.get("/v1/auth/sessions", headers=laptop).json()["items"]
    assert [(item["agent"][:6], item["current"]) for item in items] == [
        ("Laptop", True),
        ("Phone", False),
    ]
    assert items[0]["address"] == "testclient"
    ended = app_client.delete(f"/v1/auth/sessions/{items[1]['id']}", headers=laptop)
    assert ended.status_code == 204
    assert app_client.get("/v1/auth/me", headers=phone).status_code == 401
    assert app_client.delete("/v1/auth/sessions/ses_none", headers=laptop).status_code == 404
    tablet = sign_in(app_client, "Tablet")
    app_client.cookies.clear()
    done = app_client.post("/v1/auth/sessions:end-others", headers=laptop)
    assert done.json() == {"count": 1}
    assert app_client.get("/v1/auth/me", headers=tablet).status_code == 401
    assert app_client.get("/v1/auth/me", headers=laptop).status_code == 200


def test_no_key_touches_sessions(app_client, admin_headers):
    for method, path in (
        ("GET", "sessions"),
        ("DELETE", "sessions/x"),
        ("POST", "sessions:end-others"),
    ):
        reply = app_client.request(method, f"/v1/auth/{path}", headers=admin_headers)
        assert (reply.status_code, reply.json()["code"]) == (403, "needs_session")


def test_no_page_of_another_site_touches_sessions(browser):
    other = {"Sec-Fetch-Site": "cross-site"}
    assert browser.post("/v1/auth/sessions:end-others", headers=other).status_code == 403
    assert browser.delete("/v1/auth/sessions/x").status_code == 403


def test_whoever_does_not_get_in_is_noted(app_client, admin_headers, platform_db):
    body = {"username": "nobody", "password": "wrong password"}
    assert app_client.post("/v1/auth/login", json=body).status_code == 401
    assert audited(platform_db, "session.refused") == ["nobody"]
    with platform_db.read() as session:
        assert session.scalar(select(Session.id)) is None


def test_a_forwarded_address_does_not_help_a_guesser(app_client, admin_headers):
    def attempt(number, username):
        return app_client.post(
            "/v1/auth/login",
            json={"username": username, "password": "wrong password"},
            headers={"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.0.{number}"},
        ).status_code

    assert [attempt(n, "root") for n in range(11)] == [401] * 10 + [429]
    # Under ever new names, the address is what counts: thirty tries, of which twelve are gone.
    assert [attempt(n, f"user{n}") for n in range(20)] == [401] * 18 + [429] * 2

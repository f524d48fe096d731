"""Changing a password, and choosing one with an admin's token."""

import pytest
from sqlalchemy import select

from st_controller.services import account_passwords
from st_controller.store.schema import User

PASSWORD, NEW = "correct horse battery", "another good password"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


def login(client, password):
    client.cookies.clear()
    body = {"username": "root", "password": password}
    return client.post("/v1/auth/login", json=body, headers=SAME_SITE).status_code


def reset(client, token, new=NEW):
    body = {"token": token, "new": new}
    reply = client.post("/v1/auth/reset", json=body, headers=SAME_SITE)
    return reply.status_code


@pytest.fixture
def offer(platform_db, admin_headers):
    """A token that resets the password of ``root``."""

    def offer(*, clears_second_factor=False):
        with platform_db.write() as tx:
            user = tx.session.scalar(select(User).where(User.username == "root"))
            told = account_passwords.offer_reset(
                tx, user, "console", clears_second_factor=clears_second_factor
            )
        return told.token

    return offer


def test_a_password_is_changed_by_whoever_knows_it(browser):
    def change(**body):
        return browser.post("/v1/auth/password", json=body, headers=SAME_SITE)

    wrong = change(password="wrong password", new=NEW)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "password")
    assert change(password=PASSWORD, new="short").status_code == 422
    assert change(password=PASSWORD, new=NEW).status_code == 204
    assert browser.get("/v1/auth/me").status_code == 200  # this browser stays signed in
    assert (login(browser, PASSWORD), login(browser, NEW)) == (401, 200)


def test_another_browser_is_signed_out_by_a_new_password(browser):
    other = browser.cookies["st_session"]
    assert login(browser, PASSWORD) == 200
    body = {"password": PASSWORD, "new": NEW}
    assert browser.post("/v1/auth/password", json=body, headers=SAME_SITE).status_code == 204
    browser.cookies.clear()
    headers = {"Cookie": f"st_session={other}"}
    assert browser.get("/v1/auth/me", headers=headers).status_code == 401


def test_a_token_chooses_a_password_once(browser, offer):
    token = offer()
    assert token.startswith("str_")
    assert reset(browser, token[:-1]) == 403
    assert reset(browser, token) == 204
    assert browser.get("/v1/auth/me").status_code == 401  # all are signed out
    assert reset(browser, token, "yet another password") == 403
    assert (login(browser, PASSWORD), login(browser, NEW)) == (401, 200)


def test_a_newer_token_voids_an_older_one_and_a_day_both(app_client, offer, clock):
    older, newer = offer(), offer()
    assert reset(app_client, older) == 403
    clock.advance(24 * 3600)
    assert reset(app_client, newer) == 403


def test_guessing_tokens_is_throttled(app_client, admin_headers):
    assert [reset(app_client, "str_x") for _ in range(11)] == [403] * 10 + [429]


def test_a_token_can_clear_the_second_factor(browser, offer, clock):
    import pyotp

    told = browser.post(
        "/v1/auth/second-factor", json={"password": PASSWORD}, headers=SAME_SITE
    ).json()
    code = pyotp.TOTP(told["secret"]).at(clock())
    body = {"code": code}
    path = "/v1/auth/second-factor/confirm"
    assert browser.post(path, json=body, headers=SAME_SITE).status_code == 200
    assert reset(browser, offer()) == 204
    assert login(browser, NEW) == 401
    assert reset(browser, offer(clears_second_factor=True)) == 204
    assert login(browser, NEW) == 200

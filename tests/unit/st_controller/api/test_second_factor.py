"""Codes beside the password: switched on by showing one, each counts once, recovery included."""

from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import text

PASSWORD = "correct horse battery"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
PATH = "/v1/auth/second-factor"


@pytest.fixture
def send(browser):
    """Sends as a page of the dashboard does."""

    def send(path, **body):
        return browser.post(path, json=body, headers=SAME_SITE)

    return send


def now(totp, clock, steps=0) -> str:
    return totp.at(clock() + timedelta(seconds=30 * steps))


@pytest.fixture
def factor(send, clock):
    """An authenticator in force, and the recovery codes."""
    told = send(PATH, password=PASSWORD)
    assert told.status_code == 200, told.text
    assert told.json()["uri"].startswith("otpauth://totp/st-fleet:root?secret=")
    totp = pyotp.TOTP(told.json()["secret"])
    confirmed = send(f"{PATH}/confirm", code=now(totp, clock))
    assert confirmed.status_code == 200, confirmed.text
    clock.advance(60)
    return totp, confirmed.json()["codes"]


def login(client, **more):
    client.cookies.clear()
    body = {"username": "root", "password": PASSWORD, **more}
    reply = client.post("/v1/auth/login", json=body, headers=SAME_SITE)
    return reply.status_code, reply.json().get("code")


def test_a_code_is_asked_for_and_counts_once(app_client, factor, clock):
    totp, _ = factor
    assert login(app_client) == (401, "second_factor_needed")
    assert login(app_client, code="000000") == (401, "wrong_second_factor")
    assert login(app_client, password="wrong password", code=now(totp, clock)) == (
        401,
        "wrong_password",
    )
    code = now(totp, clock)
    assert login(app_client, code=f"{code[:3]} {code[3:]}") == (200, None)
    assert login(app_client, code=code) == (401, "wrong_second_factor")


@pytest.mark.parametrize(("steps", "status"), [(-2, 401), (-1, 200), (1, 200), (2, 401)])
def test_the_clock_of_an_authenticator_may_be_off_by_a_step(
    app_client, factor, clock, steps, status
):
    clock.advance(120)
    assert login(app_client, code=now(factor[0], clock, steps))[0] == status


def test_older_codes_are_void_once_a_newer_one_was_taken(app_client, factor, clock):
    clock.advance(120)
    assert login(app_client, code=now(factor[0], clock, 1))[0] == 200
    assert login(app_client, code=now(factor[0], clock))[0] == 401


def test_a_recovery_code_opens_once(app_client, factor):
    codes = factor[1]
    assert len(set(codes)) == 10
    assert login(app_client, code=codes[3].upper())[0] == 200
    assert login(app_client, code=codes[3])[0] == 401
    assert login(app_client, code=codes[4].replace("-", ""))[0] == 200
    shown = app_client.get(PATH).json()
    assert (shown["on"], shown["recovery_codes"]) == (True, 8)


def test_it_is_not_asked_for_until_a_code_was_shown(app_client, send, clock):
    told = send(PATH, password=PASSWORD).json()
    assert send(f"{PATH}/confirm", code="000000").json()["code"] == "wrong_second_factor"
    assert app_client.get(PATH).json() == {"on": False, "since": None, "recovery_codes": 0}
    again = send(PATH, password=PASSWORD).json()
    assert again["secret"] != told["secret"]
    assert login(app_client) == (200, None)


def test_password_and_code_are_needed_to_remove_it(app_client, send, factor, clock):
    totp, codes = factor
    assert send(PATH, password=PASSWORD).json()["code"] == "second_factor_on"
    for wrong in (
        {"password": "wrong password", "code": codes[0]},
        {"password": PASSWORD, "code": "000000"},
    ):
        assert send(f"{PATH}/remove", **wrong).status_code == 422
    assert send(f"{PATH}/remove", password=PASSWORD, code=now(totp, clock)).status_code == 204
    assert login(app_client) == (200, None)
    assert app_client.get(PATH).json()["recovery_codes"] == 0


def test_no_key_touches_it(app_client, admin_headers):
    for method, path in (
        ("GET", ""),
        ("POST", ""),
        ("POST", "/confirm"),
        ("POST", "/remove"),
    ):
        body = {"password": PASSWORD, "code": "123456"} if method == "POST" else None
        reply = app_client.request(method, PATH + path, json=body, headers=admin_headers)
        assert reply.status_code in {403, 422}, path
    reply = app_client.post("/v1/auth/password", json={}, headers=admin_headers)
    assert reply.json()["code"] in {"needs_session", "invalid_request"}


def test_the_database_holds_no_secret_of_it(platform_db, factor):
    totp, codes = factor
    with platform_db.read() as session:
        for table in ("second_factors", "recovery_codes", "audit_entries"):
            rows = repr([tuple(row) for row in session.execute(text(f"SELECT * FROM {table}"))])
            assert totp.secret not in rows
            assert not any(code in rows or code.replace("-", "") in rows for code in codes)

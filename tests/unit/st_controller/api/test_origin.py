"""Requests that other sites make a browser send are refused."""

import pytest

KEY = {"name": "from a page"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_cookie_from_elsewhere_changes_nothing(browser, headers):
    reply = browser.post("/v1/api-keys", json=KEY, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (403, "cross_site")
    assert [key["name"] for key in browser.get("/v1/api-keys").json()["items"]] == ["first key"]


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://testserver"}]
)
def test_our_own_pages_may(browser, headers):
    assert browser.post("/v1/api-keys", json=KEY, headers=headers).status_code == 201


def test_reading_needs_no_origin(browser):
    assert browser.get("/v1/auth/me").status_code == 200


def test_a_key_needs_no_origin(browser, admin_headers):
    browser.cookies.clear()
    assert browser.post("/v1/api-keys", json=KEY, headers=admin_headers).status_code == 201


def test_another_site_cannot_sign_a_browser_in(app_client, admin_headers):
    reply = app_client.post(
        "/v1/auth/login",
        json={"username": "root", "password": "correct horse battery"},
        headers={"Sec-Fetch-Site": "cross-site"},
    )
    assert reply.json()["code"] == "cross_site"

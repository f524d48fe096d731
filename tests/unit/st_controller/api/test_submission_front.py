"""Submissions by key are answered in front of the framework, as their route would."""

import json

import pytest

from st_controller.api import jobs as jobs_api
from st_controller.api import submissions

JOBS = "/v1/jobs"
NOOP = {"name": "job", "noop": {"seconds": 0}}
LONG = {"Content-Encoding": "identity"}
"""Whatever has such a header goes the long way, and means the same."""


@pytest.fixture
def post(app_client, admin_headers):
    """Submits as the admin: ``post(content, **headers)``; text goes out as it stands."""
    shown = {"Content-Type": "application/json"} | admin_headers

    def send(body=NOOP, path=JOBS, **headers):
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        return app_client.post(path, content=content, headers=shown | headers)

    assert send().status_code == 201  # from now on the key is known
    return send


@pytest.fixture
def no_route(monkeypatch):
    """The route cannot answer."""

    def fails(*_):
        raise AssertionError("the long way was taken")

    for name in ("encoded", "rules_of"):
        monkeypatch.setattr(jobs_api, name, fails)


def told(reply):
    """The answer, but for what is different of every job."""
    body, headers = reply.json(), dict(reply.headers)
    for varies in ("x-request-id", "location"):
        headers.pop(varies, None)
    if "id" in body:
        assert reply.headers["location"] == f"{JOBS}/{body.pop('id')}"
    return reply.status_code, headers, body


BODIES = [
    NOOP,
    {**NOOP, "priority": "high", "not_before": "2030-01-01T00:00:00Z", "resources": {"slots": 2}},
    {**NOOP, "after": ["job_none"]},
    {**NOOP, "team": "nobodys"},
    {**NOOP, "config": "none"},
    {**NOOP, "config": None},
    {"name": "c", "command": {"run": "true"}},
    {"name": "n", "noop": {"seconds": -1}, "nope": 1},
    "",
    "[]",
    "7",
    "{nonsense",
    '{"name": "n", "noop": {"seconds": NaN}}',
    '{"name": "a\\u0000b", "noop": {}}',
    '{"name": "\\ud800", "noop": {}}',
    b'\xff\xfe{"name": 1}',
    '{"name": "twice", "name": "job", "noop": {"seconds": 0}}',
    '{"name": "n", "noop": ' + "[" * 5000 + "]" * 5000 + "}",
]


def test_both_ways_say_the_same(post):
    for body in BODIES:
        short, long = post(body), post(body, **LONG)
        assert told(short) == told(long), body
        assert short.headers["x-request-id"] != long.headers["x-request-id"]


def test_both_ways_know_each_others_keys(post):
    short = post(**{"Idempotency-Key": "k"})
    long = post(**{"Idempotency-Key": "k"}, **LONG)
    again = post(**{"Idempotency-Key": "k"})
    assert [reply.status_code for reply in (short, long, again)] == [201, 200, 200]
    assert short.json()["id"] == long.json()["id"] == again.json()["id"]
    other = {**NOOP, "name": "other"}
    answers = [post(other, **{"Idempotency-Key": "k"}, **way) for way in ({}, LONG)]
    assert told(answers[0]) == told(answers[1])
    assert answers[0].json()["code"] == "idempotency_mismatch"


def test_a_bad_idempotency_key_is_refused_with_the_words_of_the_route(post):
    for key in ("", " ", "a b", "k" * 201, b"\xe9"):
        short, long = (post(**{"Idempotency-Key": key}, **way) for way in ({}, LONG))
        assert told(short) == told(long)
        assert (short.status_code, short.json()["errors"][0]["field"]) == (422, "idempotency-key")
    assert post(**{"Idempotency-Key": "k" * 200}).status_code == 201


def test_what_is_known_and_plain_takes_the_short_way(post, no_route):
    assert post().status_code == 201
    assert post({"name": "n"}).status_code == 422
    assert post(**LONG).status_code == 500


def test_what_is_unusual_takes_the_long_way(post, no_route, app_client, admin_headers):
    for path, body, headers in (
        (JOBS, {**NOOP, "name": "n" * submissions.SMALL}, {}),
        (f"{JOBS}?x=1", NOOP, {}),
        (JOBS, {**NOOP, "config": "none"}, {}),
        (JOBS, NOOP, {"Content-Type": "application/json; charset=utf-8"}),
    ):
        assert post(body, path, **headers).status_code == 500, path
    assert post(NOOP, f"{JOBS}?x=%00").json()["code"] == "invalid_request"
    pieces = iter([json.dumps(NOOP).encode()])  # of a length that is not announced
    typed = admin_headers | {"Content-Type": "application/json"}
    assert app_client.post(JOBS, content=pieces, headers=typed).status_code == 500


def test_who_may_not_submit_is_refused_however_well_known(post, app_client, new_key):
    def shows(secret):
        return {"Authorization": f"Bearer {secret}"}

    def tries(headers):
        replies = [post(**headers, **way) for way in ({}, {}, LONG)]
        assert told(replies[0]) == told(replies[1]) == told(replies[2])
        return replies[0].status_code, replies[0].json()["code"]

    assert tries(shows("st_unknown")) == (401, "mistyped_key")
    assert tries({"Authorization": "Basic abc"}) == (401, "not_signed_in")
    narrow = new_key(scopes=["job.view.own"]).json()["key"]
    assert app_client.get(JOBS, headers=shows(narrow)).status_code == 200  # it is known
    assert tries(shows(narrow)) == (403, "not_permitted")
    elsewhere = new_key(addresses=["192.0.2.0/24"]).json()
    assert tries(shows(elsewhere["key"])) == (403, "address_not_allowed")


def test_a_revoked_key_submits_nothing(post, app_client, admin_headers, new_key):
    made = new_key().json()
    shown = {"Authorization": f"Bearer {made['key']}"}
    assert [post(**shown).status_code for _ in range(2)] == [201, 201]
    assert app_client.delete(f"/v1/api-keys/{made['id']}", headers=admin_headers).status_code == 204
    assert post(**shown).status_code == 401


def test_a_browser_takes_the_long_way_and_other_sites_submit_nothing(browser, no_route):
    same = {"Sec-Fetch-Site": "same-origin"}
    assert browser.post(JOBS, json=NOOP, headers=same).status_code == 500
    other = browser.post(JOBS, json=NOOP, headers={"Sec-Fetch-Site": "cross-site"})
    assert other.status_code == 403


def test_they_are_counted_under_the_name_of_the_route(app_client, admin_headers, post):
    post(**LONG)
    figures = app_client.get("/metrics", headers=admin_headers).text
    labels = f'method="POST",route="{JOBS}",status="201"'
    (line,) = [each for each in figures.splitlines() if f"request_seconds_count{{{labels}" in each]
    assert float(line.rpartition(" ")[2]) == 2

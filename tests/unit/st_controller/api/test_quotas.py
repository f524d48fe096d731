"""Quotas, prices and use by the API, as far as somebody reaches."""

import pytest


@pytest.fixture
def api(app_client, admin_headers):
    def call(method, path, body=None, headers=admin_headers):
        return app_client.request(method, f"/v1/{path}", json=body, headers=headers)

    return call


def wanted(path="default", kind="cost_monthly", amount="100", **more):
    return {"path": path, "kind": kind, "amount": amount, **more}


JOB = {"name": "n", "noop": {}, "expected_time": "1h"}


def test_a_quota_is_set_seen_used_and_removed(api):
    assert api("POST", "prices", {"amount": "6.5"}).status_code == 201
    made = api("PUT", "quotas", wanted()).json()
    assert made == {"id": made["id"], **wanted(), "role": None, "action": "block"}
    assert api("POST", "jobs", JOB).status_code == 201

    seen = api("GET", "quotas/usage").json()
    assert seen["path"] == "default/default/root"
    (quota,) = seen["quotas"]
    assert [quota[name] for name in ("used", "held", "left")] == ["0", "6.5", "93.5"]
    assert quota["renews_at"] == "2026-02-01T00:00:00Z"
    assert quota["runs_out_at"] is None

    changed = api("PUT", "quotas", wanted(amount=7)).json()
    assert (changed["id"], changed["amount"]) == (made["id"], "7")
    refused = api("POST", "jobs", JOB)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "0.5 left, 6.5 asked for" in refused.json()["detail"]

    assert api("DELETE", f"quotas/{made['id']}").status_code == 204
    assert api("POST", "jobs", JOB).status_code == 201
    assert api("GET", "quotas").json()["items"] == []


def test_a_role_gives_each_of_its_users_a_limit(api):
    body = wanted(kind="submissions_per_day", amount="1", role="admin")
    made = api("PUT", "quotas", body).json()
    assert made == {"id": made["id"], **body, "action": "block"}
    assert api("POST", "jobs", JOB).status_code == 201
    (shown,) = api("GET", "quotas/usage").json()["quotas"]
    assert (shown["role"], shown["used"], shown["left"]) == ("admin", "1", "0")
    checked = api("POST", "jobs:check", JOB).json()
    assert checked["verdict"] == "no"
    refused = api("POST", "jobs", JOB)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    unknown = api("PUT", "quotas", {**body, "role": "amdin"})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "role")


def test_what_a_job_would_cost_is_told_before_it_is_submitted(api):
    api("POST", "prices", {"amount": "6.5"})
    api("PUT", "quotas", wanted(amount=3))
    checked = api("POST", "jobs:check", JOB).json()
    (step,) = [step for step in checked["steps"] if step["step"] == "quotas"]
    assert (checked["verdict"], step["verdict"]) == ("no", "no")
    assert "3 left, 6.5 asked for" in step["notes"][0]
    assert step["notes"][1] == "It is expected to cost 6.5 at most."
    assert api("GET", "quotas/usage").json()["quotas"][0]["held"] == "0"


def test_mistakes_name_the_field(api):
    for body, field in (
        (wanted(amount="1.0000001"), "amount"),
        (wanted(path="No Such"), "path"),
        (wanted(kind="running_jobs", amount="0.5"), "amount"),
        (wanted(amount="-1"), "amount"),
        (wanted(kind="gold"), "kind"),
    ):
        reply = api("PUT", "quotas", body)
        assert reply.status_code == 422, reply.text
        assert [error["field"] for error in reply.json()["errors"]] == [field]
    early = {"amount": 1, "since": "0001-01-01T00:00:00+14:00"}
    assert api("POST", "prices", early).status_code == 422
    assert api("PUT", "quotas", wanted(path="nowhere")).status_code == 404
    assert api("DELETE", "quotas/none").status_code == 404
    assert api("DELETE", "prices/none").status_code == 404
    assert api("PUT", "orgs/default/quotas", wanted(path="other")).status_code == 422


def test_prices_are_listed_and_removed(api):
    api("POST", "prices", {"accelerator": "h100*", "amount": "5.49", "since": "2027-01-01T00:00Z"})
    (price,) = api("GET", "prices").json()["items"]
    assert (price["accelerator"], price["amount"]) == ("h100*", "5.49")
    assert api("DELETE", f"prices/{price['id']}").status_code == 204
    assert api("GET", "prices").json()["items"] == []

"""Rules, approvals and checks over HTTP: statuses, fields, who may."""

import pytest
from pydantic import ValidationError

from st_shared.protocol.policy_approvals import ApprovalRuleRequest
from st_shared.protocol.policy_rules import ResourceRuleRequest

NOOP = {"name": "job", "noop": {"seconds": 0}}
DENY = {"resource": "family", "pattern": "noop", "effect": "deny"}
ASK = {"name": "ask", "condition": "family", "pattern": "noop", "approver": "lead"}


@pytest.fixture
def api(app_client, admin_headers):
    def send(method, path, body=None, headers=admin_headers):
        return app_client.request(method, f"/v1/{path}", json=body, headers=headers)

    return send


def test_the_life_of_a_resource_rule(api):
    assert api("POST", "resource-rules", {**DENY, "effect": "maybe"}).status_code == 422
    made = api("POST", "resource-rules", DENY)
    assert made.status_code == 201, made.text
    path = f"resource-rules/{made.json()['id']}"
    refused = api("POST", "jobs", NOOP)
    assert (refused.status_code, refused.json()["code"]) == (403, "denied_by_rule")
    assert refused.json()["errors"][0]["field"] == "noop"
    checked = api("POST", "jobs:check", NOOP).json()
    assert checked["verdict"] == "no"
    changed = api("PUT", path, {**DENY, "pattern": "other"})
    assert changed.json()["pattern"] == "other"
    assert api("POST", "jobs", NOOP).status_code == 201
    assert [rule["id"] for rule in api("GET", "resource-rules").json()["items"]] == [
        made.json()["id"]
    ]
    assert api("DELETE", path).status_code == 204
    assert api("DELETE", path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {**DENY, "subject": "ann"},
        {**DENY, "subject_kind": "user"},
        {**DENY, "subject_kind": "team", "subject": "no-slash"},
        {**DENY, "subject_kind": "team", "subject": "a/b", "org": "c"},
        {**DENY, "resource": "accelerator", "pattern": "a|b"},
        {**DENY, "resource": "output"},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(body):
    with pytest.raises(ValidationError):
        ResourceRuleRequest.model_validate(body)


@pytest.mark.parametrize(
    "body",
    [
        {**ASK, "amount": 3},
        {**ASK, "condition": "cost_over"},
        {**ASK, "condition": "first_job"},
        {**ASK, "pattern": None},
        {**ASK, "condition": "provider", "pattern": "!x"},
        {**ASK, "quorum": 0},
    ],
)
def test_an_approval_rule_that_makes_no_sense_is_refused(body):
    with pytest.raises(ValidationError):
        ApprovalRuleRequest.model_validate(body)


def test_the_life_of_an_approval_rule(api):
    made = api("POST", "approval-rules", ASK)
    assert made.status_code == 201, made.text
    assert (made.json()["amount"], made.json()["pattern"]) == (None, "noop")
    path = f"approval-rules/{made.json()['id']}"
    assert api("PUT", path, {**ASK, "quorum": 2}).json()["quorum"] == 2
    assert len(api("GET", "approval-rules").json()["items"]) == 1
    assert api("DELETE", path).status_code == 204
    assert api("GET", "approval-rules").json()["items"] == []


def test_many_are_decided_each_on_its_own(api):
    body = {"ids": ["apr_none", "job_none"], "decision": "approve"}
    answer = api("POST", "approvals:decide", body)
    assert answer.status_code == 200
    assert [result["problem"]["status"] for result in answer.json()["results"]] == [404, 404]


def test_a_rejection_says_why(api):
    refused = api("POST", "approvals/apr_none/decision", {"decision": "reject", "reason": " "})
    assert refused.status_code == 422
    assert api("GET", "approvals/apr_none").status_code == 404
    assert api("GET", "approvals", None).json()["items"] == []


def test_a_key_without_the_scope_decides_nothing(api, new_key):
    headers = {"Authorization": f"Bearer {new_key(scopes=['job.view.own']).json()['key']}"}
    said = {"decision": "approve"}
    assert api("POST", "approvals/apr_x/decision", said, headers).status_code == 403
    assert api("POST", "approvals:decide", {**said, "ids": ["x"]}, headers).status_code == 403
    assert api("POST", "approval-rules", ASK, headers).status_code == 403
    assert api("POST", "resource-rules", DENY, headers).status_code == 403

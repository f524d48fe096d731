"""Every writing route, once, with success: each leaves an audit entry in the name of who asked.

The story below is told to one application. A writing route that has no part in it, and is not in
``NOT_AUDITED`` with a reason, fails the test: give it a step.
"""

import hashlib
import re

import pyotp
import pytest
from audited import NOT_AUDITED, is_exempt
from sqlalchemy import select

from st_controller.api.dependencies import declared_access
from st_controller.store.schema import AuditEntry

PASSWORD, NEW = "correct horse battery", "another good password"
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
NOOP = {"name": "job", "noop": {"seconds": 0}}
ASK = {"name": "ask", "condition": "family", "pattern": "noop", "approver": "lead"}
RULE = {"resource": "family", "pattern": "none", "effect": "deny"}
ROLE = {"slug": "guest", "name": "Guest", "permissions": ["job.view.own"], "reach": "own"}
INVENTORY = {
    "hostname": "h",
    "slots": [{"index": 0, "accelerator": "cpu", "memory_gb": 8}],
    "cpus": 4,
    "memory_gb": 8,
    "disk_free_gb": 50,
    "platform": "Linux",
}


class Story:
    """Asks as somebody, and looks whether that was noted."""

    def __init__(self, client, admin) -> None:
        self.client, self.admin = client, admin
        self.db = client.app.state.platform.db
        self.walked: set[tuple[str, str]] = set()
        self.routes = [
            (method, path, re.compile(re.sub(r"{\w+:path}", ".+", re.sub(r"{\w+}", "[^/]+", path))))
            for method, path, _ in declared_access(client.app)
            if method not in {"GET", "HEAD", "OPTIONS"}
        ]

    def __call__(self, method, path, body=None, *, headers=None, by="user:root"):
        before = self._newest()
        self.client.cookies.clear()
        reply = self.client.request(method, f"/v1/{path}", json=body, headers=headers or self.admin)
        assert reply.is_success, (method, path, reply.text)
        route = next(
            (known, template)
            for known, template, pattern in self.routes
            if known == method and pattern.fullmatch(f"/v1/{path}")
        )
        actors = {entry.actor for entry in self._after(before)}
        assert by in actors, f"{route} left no audit entry of {by}, only {actors}"
        self.walked.add(route)
        return reply.json() if reply.content else reply

    def unwalked(self) -> set[tuple[str, str]]:
        return {
            (method, path)
            for method, path, _ in self.routes
            if (method, path) not in self.walked and not is_exempt(path)
        }

    def _newest(self) -> int:
        entries = self._after(0)
        return entries[-1].seq if entries else 0

    def _after(self, seq) -> list[AuditEntry]:
        query = select(AuditEntry).where(AuditEntry.seq > seq).order_by(AuditEntry.seq)
        with self.db.read() as session:
            return list(session.scalars(query))


def browser(story, username="root", password=PASSWORD, **more):
    """Headers of a browser in which somebody signs in."""
    body = {"username": username, "password": password, **more}
    story.client.cookies.clear()
    reply = story.client.post("/v1/auth/login", json=body, headers=SAME_SITE)
    assert reply.is_success, reply.text
    story.client.cookies.clear()
    return {"Cookie": reply.headers["set-cookie"].partition(";")[0], **SAME_SITE}


@pytest.fixture
def story(app_client, admin_headers):
    told = Story(app_client, admin_headers)
    told.walked.add(("POST", "/v1/auth/setup"))  # by which the admin came to be
    return told


def test_every_writing_route_leaves_an_entry(story, clock):
    people(story)
    jobs(story)
    rules(story)
    limits(story)
    things(story)
    workers(story)
    signing_in(story, clock)
    assert story.unwalked() == set()


def people(story) -> None:
    story("POST", "orgs", {"slug": "acme", "name": "Acme"})
    story("PATCH", "orgs/acme", {"name": "Acme & Co"})
    story("DELETE", "orgs/acme")
    story("POST", "orgs/acme/enable")
    story("POST", "teams", {"org": "default", "slug": "red", "name": "Red"})
    story("PATCH", "teams/default/red", {"name": "Crimson"})
    story("POST", "roles", ROLE)
    story("PUT", "roles/guest", ROLE | {"name": "G"})
    story("POST", "users", {"username": "anna", "role": "lead"})
    story("PATCH", "users/anna", {"role": "researcher"})
    story("PUT", "teams/default/red/members/anna")
    story("DELETE", "teams/default/red/members/anna")
    story("DELETE", "teams/default/red")
    story("PUT", "users/anna/grants/job.command", {"effect": "deny"})
    story("DELETE", "users/anna/grants/job.command")
    story("POST", "users", {"username": "otto", "org": "acme"})
    story("PUT", "orgs/default/members/otto", {"team": "default"})
    story("DELETE", "roles/guest")


def jobs(story) -> None:
    job = f"jobs/{story('POST', 'jobs', NOOP)['id']}"
    story("POST", f"{job}/priority", {"priority": "low"})
    story("POST", f"{job}/cancel")
    story("POST", f"{job}/retry")
    story("POST", f"{job}/cancel")
    story("DELETE", job)
    story("POST", "jobs:batch", {"jobs": [NOOP]})
    array = story("POST", "job-arrays", {"spec": NOOP, "list": [{"noop.seconds": 1}]})["id"]
    story("PATCH", f"job-arrays/{array}", {"max_running": 1})
    story("POST", f"job-arrays/{array}/cancel")


def rules(story) -> None:
    story("PUT", "queue/policy", {"ageing_interval": 61})
    story("PUT", "queue/shares/default", {"weight": 2})
    story("PATCH", "queue/shares/default", {"weight": 3})
    story("DELETE", "queue/shares/default")
    rule = story("POST", "resource-rules", RULE)["id"]
    story("PUT", f"resource-rules/{rule}", RULE | {"pattern": "other"})
    story("DELETE", f"resource-rules/{rule}")
    rule = story("POST", "approval-rules", ASK)["id"]
    story("PUT", f"approval-rules/{rule}", ASK | {"quorum": 1})
    anna = story("POST", "users/anna/api-keys", {"name": "k"})
    headers = {"Authorization": f"Bearer {anna['key']}"}
    held = story("POST", "jobs", NOOP, headers=headers, by="user:anna")["id"]
    story("POST", f"approvals/{held}/decision", {"decision": "reject", "reason": "no"})
    story("DELETE", f"approval-rules/{rule}")
    story("DELETE", f"users/anna/api-keys/{anna['id']}")


def limits(story) -> None:
    price = story("POST", "prices", {"amount": "2"})["id"]
    story("DELETE", f"prices/{price}")
    wanted = {"path": "default", "kind": "running_jobs", "amount": "9"}
    quota = story("PUT", "quotas", wanted)["id"]
    story("DELETE", f"quotas/{quota}")
    quota = story("PUT", "orgs/default/quotas", wanted | {"amount": "8"})["id"]
    story("DELETE", f"orgs/default/quotas/{quota}")
    team = "orgs/default/teams/default/quotas"
    quota = story("PUT", team, wanted | {"path": "default/default", "amount": "7"})["id"]
    story("DELETE", f"{team}/{quota}")


def things(story) -> None:
    key = story("POST", "api-keys", {"name": "k"})
    story("DELETE", f"api-keys/{key['id']}")
    for path in ("secrets/hub", "shared-secrets/hub"):
        story("PUT", path, {"value": "hf_something"})
        story("DELETE", path)
    story("POST", "configs", {"name": "base", "document": NOOP})
    story("PUT", "configs/base", {"document": NOOP | {"priority": "low"}})
    story("DELETE", "configs/base")
    dataset(story)


def dataset(story) -> None:
    content = b"an archive"
    digest = hashlib.sha256(content).hexdigest()
    archive = {"size": len(content), "sha256": digest}
    body = {"name": "digits", "digest": digest, "samples": 1, "archives": [archive]}
    reply = story.client.post("/v1/datasets", json=body, headers=story.admin)
    assert reply.is_success, reply.text
    (ticket,) = reply.json()["tickets"]
    stored = story.client.put(ticket["url"], content=content, headers=ticket["headers"])
    assert stored.is_success, stored.text
    story("POST", "datasets/digits/complete", {"digest": digest})


def workers(story) -> None:
    def join(name):
        token = story("POST", "join-tokens", {"uses": 1, "expires_in_seconds": 600})
        body = {"name": name, "agent_version": "1", "inventory": INVENTORY}
        headers = {"Authorization": f"Bearer {token['token']}"}
        reply = story.client.post("/v1/worker/register", json=body, headers=headers)
        assert reply.is_success, reply.text
        return f"workers/{reply.json()['worker_id']}", token["id"]

    worker, token = join("w1")
    story("DELETE", f"join-tokens/{token}")
    for order in ("cordon", "drain", "activate", "rotate", "collect-garbage"):
        story("POST", f"{worker}/{order}")
    story("PATCH", f"{worker}/labels", {"set": {"pool": "a"}})
    story("POST", "workers:collect-garbage")
    story("POST", f"{worker}/retire")
    story("DELETE", worker)
    story("POST", f"{join('w2')[0]}/revoke")


def signing_in(story, clock) -> None:
    login = {"username": "root", "password": PASSWORD}
    story("POST", "auth/login", login, headers=SAME_SITE)
    here = browser(story)
    (other,) = [
        item["id"]
        for item in story.client.get("/v1/auth/sessions", headers=here).json()["items"]
        if not item["current"]
    ]
    story("DELETE", f"auth/sessions/{other}", headers=here)
    browser(story)
    story("POST", "auth/sessions:end-others", headers=here)
    told = story("POST", "auth/second-factor", {"password": PASSWORD}, headers=here)
    code = {"code": pyotp.TOTP(told["secret"]).at(clock())}
    (spare, *_) = story("POST", "auth/second-factor/confirm", code, headers=here)["codes"]
    proof = {"password": PASSWORD, "code": spare}
    story("POST", "auth/second-factor/remove", proof, headers=here)
    story("POST", "auth/password", {"password": PASSWORD, "new": NEW}, headers=here)
    token = story("POST", "users/anna/reset-token", {})["token"]
    reset = {"token": token, "new": NEW}
    story("POST", "auth/reset", reset, headers=SAME_SITE, by="user:anna")
    browser(story, "anna", NEW)
    story("POST", "users/anna/sessions:end")


def test_what_is_not_audited_is_a_decision(story):
    """Each exception stands for a route that exists, and says why."""
    for pattern, why in NOT_AUDITED.items():
        assert any(re.fullmatch(pattern, path) for _, path, _ in story.routes), pattern
        assert len(why) > 20

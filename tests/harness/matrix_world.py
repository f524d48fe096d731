"""Two organisations with one of everything, and requests for each operation of the API.

Every role has somebody in acme/vision who made things of their own. Beside them stand tamsin in
acme/sonar, another team, and otto in zulu/vision, another organisation. Nothing that is asked of
this world changes it: transactions are undone when they are about to be committed.
"""

import hashlib
import re
from contextlib import contextmanager
from dataclasses import dataclass

from people_steps import People

from st_controller.domain.policy.permissions import PERMISSIONS
from st_controller.domain.policy.roles import OF_THE_SYSTEM
from st_controller.store.schema import ApiKey, Dataset, JoinToken, User, Worker

ROLES = ("viewer", "researcher", "lead", "director", "admin")
"""The built-in roles, and one for an admin of an organisation."""
PLACES = ("own", "team", "org")
"""Whose a thing is: the caller's, another team's, another organisation's."""
WORDS = {"team": ("tamsin", "sonar"), "org": ("otto", "zulu")}
"""What gives away, in an answer, that it tells of another team or organisation."""
TRAINING = {"model": {"family": "pixel_dit"}, "datasets": [{"path": "/d"}], "steps": 1}
NOOP = {"name": "n", "noop": {}}


@dataclass
class Things:
    """What one person has: values for the places in paths."""

    org: str
    team: str
    username: str
    values: dict[str, str]


class Undone(Exception):
    """Ends a transaction that was about to be committed."""


class MatrixWorld:
    """The world; ``answer`` says what an operation gives to a role, asked about a place."""

    def __init__(self, client, admin_headers) -> None:
        self.people = People(client, admin_headers)
        self.client, self.db = client, client.app.state.platform.db
        self._make_tenants()
        names = [(f"{role}-self", "acme", "vision") for role in ROLES]
        names += [("tamsin", "acme", "sonar"), ("otto", "zulu", "vision")]
        self.things = {name: self._make_things(name, org, team) for name, org, team in names}
        self.keys = {role: self._give(role) for role in ROLES}
        for each in self.things.values():
            path = f"{each.org}/{each.team}/{each.username}"
            quota = {"path": f"{each.org}/{each.team}", **_QUOTA}
            each.values["quota_id"] = self.people.must("PUT", "quotas", quota)["id"]
            self.people.must("PUT", f"queue/shares/{path}", {"weight": 2})
            self.people.must(
                "PUT", f"users/{each.username}/grants/worker.view", {"effect": "allow"}
            )
        self._shared = self._make_shared()
        self._freeze()

    def answer(self, method: str, path: str, role: str, place: str) -> str:
        """``y`` permitted, ``n`` refused, ``0`` does not exist, ``?`` none of these."""
        things = self._of(role, place)
        url = re.sub(r"\{(\w+)\}", lambda found: self.value(path, found[1], things), path)
        body = BODIES.get((method, path))
        body = body(things) if callable(body) else body
        reply = self.send(method, url, role, body)
        if path == "/v1/approvals:decide" and reply.status_code == 200:
            problem = reply.json()["results"][0]["problem"]
            return letter(problem["status"] if problem else 200)
        return letter(reply.status_code)

    def listed(self, path: str, role: str) -> str:
        """Of a list: for each place whether its things are in the answer (``y`` or ``-``)."""
        reply = self.send("GET", path, role)
        if reply.status_code != 200:
            return letter(reply.status_code) * len(PLACES)
        words = {"own": (f"{role}-self", "acme", "vision"), **WORDS}
        return "".join("y" if any(w in reply.text for w in words[p]) else "-" for p in PLACES)

    def send(self, method: str, url: str, role: str, body: object = None):
        """A request that is not watched for its audit entry, which is undone with the rest."""
        client = self.client
        return type(client).request(client, method, url, json=body, headers=self.keys[role])

    def _make_tenants(self) -> None:
        self.people.org("acme", "vision", "sonar")
        self.people.org("zulu", "vision")
        director = {
            "slug": "director",
            "name": "Director",
            "permissions": sorted(PERMISSIONS.keys() - OF_THE_SYSTEM),
            "reach": "org",
            "rank": 80,
        }
        self.people.must("POST", "roles", director)
        for org in ("acme", "zulu"):
            rule = {"name": org, "org": org, "condition": "family", "pattern": "pixel_dit"}
            self.people.must("POST", "approval-rules", rule)

    def _make_things(self, name: str, org: str, team: str) -> Things:
        """A person, while still a researcher, and one of everything that they can make."""
        key = self.people.user(name, "researcher", org, team)
        make = lambda path, body: self.people.must("POST", path, body, key)  # noqa: E731
        job = make("jobs", {"name": f"job-of-{name}", "noop": {}})
        waits = make("jobs", {"name": f"waits-{name}", "training": TRAINING})
        swept = {"spec": {"name": f"array-{name}", "noop": {}}, "list": [{"noop.seconds": 1}]}
        array = make("job-arrays", swept)
        make("configs", {"name": f"config-{name}", "document": {"priority": "low"}})
        self.people.must(
            "PUT",
            f"secrets/secret-{name}",
            {"value": "correct horse"},
            key,
        )
        with self.db.write() as tx:
            user = tx.session.query(User).filter(User.username == name).one()
            digest = hashlib.sha256(name.encode()).hexdigest()
            tx.session.add(
                Dataset(
                    id=f"dts_{name}",
                    org=org,
                    name=f"data-{name}",
                    digest=digest,
                    samples=1,
                    archives=[],
                    room=0,
                    created_by=user.id,
                    created_at=tx.now,
                    stored_at=tx.now,
                    current=True,
                )
            )
            (held,) = tx.session.query(ApiKey.id).filter(ApiKey.user_id == user.id).one()
        return Things(
            org,
            team,
            name,
            {
                "job_id": job["id"],
                "ref": waits["id"],
                "array_id": array["id"],
                "key_id": held,
                "digest": digest,
            },
        )

    def _give(self, role: str) -> dict[str, str]:
        """Make somebody what the role says; keys of a viewer need a permission of their own."""
        name = f"{role}-self"
        if role != "researcher":
            self.people.must("PATCH", f"users/{name}", {"role": role})
        if role == "viewer":
            self.people.must("PUT", f"users/{name}/grants/api.access", {"effect": "allow"})
        return self.people.key(name)

    def _make_shared(self) -> dict[str, str]:
        rules = self.people.must("GET", "approval-rules")["items"]
        found = {f"approval-{rule['org']}": rule["id"] for rule in rules}
        for org in ("acme", "zulu"):
            rule = {"org": org, "resource": "family", "pattern": "zz*", "effect": "deny"}
            found[f"resource-{org}"] = self.people.must("POST", "resource-rules", rule)["id"]
            secret = {"value": "correct horse"}
            if org == "acme":
                self.people.must("PUT", "shared-secrets/shared", secret, self.keys["director"])
        token = self.people.must("POST", "join-tokens", {})
        found["token_id"] = token["id"]
        found["price_id"] = self.people.must("POST", "prices", {"amount": "1"})["id"]
        role = {"slug": "spare", "name": "S", "permissions": []}
        self.people.must("POST", "roles", role)
        with self.db.write() as tx:
            tx.session.get(JoinToken, token["id"]).uses_left = 5
            tx.session.add(
                Worker(
                    id="wrk_1",
                    name="shared",
                    credential_hash="0" * 64,
                    credential_at=tx.now,
                    observed="online",
                    desired="active",
                    set_labels={},
                    own_labels={},
                    joined_at=tx.now,
                    last_heartbeat_at=tx.now,
                    usage=None,
                    ephemeral=False,
                    one_job=False,
                    inventory=INVENTORY,
                    agent_version="1",
                )
            )
        return found

    def _of(self, role: str, place: str) -> Things:
        return self.things[{"own": f"{role}-self", "team": "tamsin", "org": "otto"}[place]]

    def value(self, path: str, name: str, things: Things) -> str:
        """What stands at a place of a path."""
        if name in things.values:
            return things.values[name]
        fixed = {
            "worker_id": "wrk_1",
            "attempt_id": "att_1",
            "permission": "worker.view",
            "role": "spare",
            "session_id": "ses_1",
            "key": "jobs/x",
            "token_id": self._shared["token_id"],
            "price_id": self._shared["price_id"],
            "path": f"{things.org}/{things.team}/{things.username}",
            "org": things.org,
            "team": things.team,
            "username": things.username,
        }
        if name == "rule_id":
            kind = "approval" if "approval" in path else "resource"
            return self._shared[f"{kind}-{things.org}"]
        if name == "name":
            return _named(path, things)
        return fixed[name]

    def _freeze(self) -> None:
        """From here on nothing is committed."""
        commit = self.db.write

        @contextmanager
        def write(**options):
            try:
                with commit(**options) as tx:
                    yield tx
                    tx.settle(None)
                    raise Undone  # noqa: TRY301 - what undoes a transaction is an exception
            except Undone:
                pass

        self.db.write = write


INVENTORY = {
    "hostname": "h",
    "slots": [{"index": 0, "accelerator": "cpu", "memory_gb": 8}],
    "cpus": 2,
    "memory_gb": 8,
    "disk_free_gb": 10,
    "platform": "linux",
}


def letter(status: int) -> str:
    """A status as the table has it: a conflict was permitted, and stood against by the facts."""
    if status < 300 or status == 409:
        return "y"
    return {401: "u", 403: "n", 404: "0"}.get(status, "?")


def _named(path: str, things: Things) -> str:
    if "shared-secrets" in path:
        return "shared"
    if "secrets" in path:
        return f"secret-{things.username}"
    kind = "config" if "configs" in path else "data"
    return f"{kind}-{things.username}"


def _share(things):
    return {"weight": 2}


_RULE = {"org": None, "resource": "family", "pattern": "yy*", "effect": "deny"}
_APPROVAL = {"name": "x", "condition": "family", "pattern": "yy*"}
_QUOTA = {"kind": "running_jobs", "amount": "1000", "action": "warn"}
_SECRET = {"value": "correct horse battery"}

BODIES = {
    ("POST", "/v1/jobs"): NOOP,
    ("POST", "/v1/jobs:batch"): {"jobs": [NOOP]},
    ("POST", "/v1/jobs:check"): NOOP,
    ("POST", "/v1/job-arrays"): {"spec": NOOP, "list": [{"noop.seconds": 1}]},
    ("PATCH", "/v1/job-arrays/{array_id}"): {"max_running": 1},
    ("POST", "/v1/jobs/{job_id}/priority"): {"priority": "low"},
    ("POST", "/v1/api-keys"): {"name": "k"},
    ("POST", "/v1/join-tokens"): {},
    ("PATCH", "/v1/workers/{worker_id}/labels"): {"set": {"a": "b"}},
    ("PUT", "/v1/queue/policy"): {},
    ("PUT", "/v1/queue/shares/{path}"): _share,
    ("PATCH", "/v1/queue/shares/{path}"): _share,
    ("POST", "/v1/approvals/{ref}/decision"): {"decision": "approve"},
    ("POST", "/v1/approvals:decide"): lambda t: {"decision": "approve", "ids": [t.values["ref"]]},
    ("POST", "/v1/approval-rules"): lambda t: {**_APPROVAL, "org": t.org},
    ("PUT", "/v1/approval-rules/{rule_id}"): lambda t: {**_APPROVAL, "org": t.org},
    ("POST", "/v1/resource-rules"): lambda t: {**_RULE, "org": t.org},
    ("PUT", "/v1/resource-rules/{rule_id}"): lambda t: {**_RULE, "org": t.org},
    ("POST", "/v1/datasets"): {
        "name": "new", "digest": "0" * 64, "samples": 1,
        "archives": [{"size": 1, "sha256": "0" * 64}],
    },
    ("POST", "/v1/datasets/{name}/complete"): lambda t: {"digest": t.values["digest"]},
    ("POST", "/v1/configs"): {"name": "new", "document": {}},
    ("PUT", "/v1/configs/{name}"): {"document": {}},
    ("POST", "/v1/orgs"): {"slug": "new", "name": "New"},
    ("PATCH", "/v1/orgs/{org}"): {"name": "New"},
    ("PUT", "/v1/orgs/{org}/members/{username}"): lambda t: {"team": t.team},
    ("POST", "/v1/teams"): lambda t: {"slug": "new", "org": t.org},
    ("PATCH", "/v1/teams/{org}/{team}"): {"name": "New"},
    ("POST", "/v1/users"): lambda t: {"username": f"new@{t.org}", "org": t.org, "team": t.team},
    ("PATCH", "/v1/users/{username}"): {"role": "viewer"},
    ("PUT", "/v1/users/{username}/grants/{permission}"): {"effect": "deny"},
    ("POST", "/v1/roles"): {"slug": "new", "name": "N", "permissions": []},
    ("POST", "/v1/users/{username}/api-keys"): {"name": "k"},
    ("POST", "/v1/users/{username}/reset-token"): {},
    ("PUT", "/v1/roles/{role}"): {"slug": "spare", "name": "N", "permissions": []},
    ("PUT", "/v1/quotas"): lambda t: {"path": f"{t.org}/{t.team}", **_QUOTA},
    ("PUT", "/v1/orgs/{org}/quotas"): lambda t: {"path": t.org, **_QUOTA},
    ("PUT", "/v1/orgs/{org}/teams/{team}/quotas"): lambda t: {
        "path": f"{t.org}/{t.team}/{t.username}", **_QUOTA,
    },
    ("POST", "/v1/prices"): {"amount": "2"},
    ("PUT", "/v1/secrets/{name}"): _SECRET,
    ("PUT", "/v1/shared-secrets/{name}"): _SECRET,
}  # fmt: skip
"""Bodies that are sound, for operations that take one."""

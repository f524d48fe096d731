"""A database with many organisations, teams, users and rules, and people who submit there."""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import func, insert, select

from st_controller.app import create_app
from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind
from st_controller.services import rights, submission
from st_controller.services.actor import Actor
from st_controller.services.policy import book
from st_controller.settings import Settings
from st_controller.store import migrate
from st_controller.store.database import Database
from st_controller.store.schema import (
    ApiKey,
    ApprovalRule,
    Job,
    Membership,
    Organisation,
    PriceRow,
    QuotaCounter,
    QuotaRow,
    ResourceRule,
    Team,
    User,
)
from st_shared.clock import utc_now
from st_shared.ids import new_id
from st_shared.protocol.states import JobState

ORGS, TEAMS, USERS = 10, 20, 5000
"""Organisations, teams of each, users in all."""
RULES = 1000
_APPROVALS, _QUOTAS, _PRICES = 200, 200, 10
"""Of the rules so many say who has to agree, what may be used, and what it costs."""
_ROLES = ("viewer", "researcher", "lead", "admin")
_RESOURCES = {
    "accelerator": ("b200*", "gb300*", "mi355*"),
    "provider": ("spot-*", "elsewhere-*"),
    "dataset": ("/data/secret/*", "medical-*", "/home/*"),
    "family": ("wan*", "flux*", "ace_step"),
    "config": ("legacy-*", "huge-*"),
}
"""What is denied; ordinary jobs ask for none of it."""
_CONDITIONS = (
    {"condition": "accelerator", "amount": 0, "pattern": "b200*"},
    {"condition": "slot_hours_over", "amount": 10_000, "pattern": ""},
    {"condition": "cost_over", "amount": 10**12, "pattern": ""},
    {"condition": "family", "amount": 0, "pattern": "wan*"},
    {"condition": "jobs_per_day_over", "amount": 500, "pattern": ""},
    {"condition": "role", "amount": 0, "pattern": "viewer"},
)


class World:
    """One of them, on SQLite, with the application that serves it; nothing is placed."""

    def __init__(self, folder: Path, rules: int) -> None:
        self.app = create_app(Settings(data_dir=folder), dispatch=False)
        self.db: Database = self.app.state.platform.db
        migrate.upgrade(self.db)
        self._users = self._people()
        self._keys: dict[int, str] = {}
        if rules:
            self._rules(rules)

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def actor(self, number: int) -> Actor:
        """A user, as the look-up of a credential gives them."""
        chosen = rights.rights_query().where(User.id == self._users[number]["id"])
        with self.db.read() as session:
            held = rights.rights_of(session.execute(chosen).all())
        if held is None:
            raise LookupError(f"user {number} may not sign in")
        return rights.actor(held)

    def key(self, number: int) -> str:
        """An API key of a user."""
        known = self._keys.get(number)
        if known is None:
            known = self._keys[number] = secrets.new_secret(SecretKind.API_KEY)
            with self.db.write() as tx:
                tx.session.add(
                    ApiKey(
                        id=new_id("key"),
                        user_id=self._users[number]["id"],
                        name="benchmark",
                        prefix=secrets.shown_prefix(known),
                        key_hash=secrets.digest(known),
                        scopes=None,
                        created_at=tx.now,
                        expires_at=None,
                        last_used_at=tx.now,
                        revoked_at=None,
                    )
                )
        return known

    async def post(self, number: int, body: bytes) -> None:
        """``POST /v1/jobs`` as the application is given it by its server."""
        headers = {
            "host": "benchmark", "content-type": "application/json",
            "content-length": str(len(body)), "authorization": f"Bearer {self.key(number)}",
        }  # fmt: skip
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "query_string": b"",
            "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        answers: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        await self.app(scope, receive, send)
        if answers[0]["status"] != 201:
            raise RuntimeError(f"the job was refused: {answers}")

    def submit_as(self, actor: Actor, document: Mapping[str, Any]) -> None:
        """What a controller does for a job file once it knows who sends it."""
        draft = submission.check(actor, document, submission.NOTHING_MORE)
        with self.db.write(places_events=True) as tx:
            submission.enqueue(tx, actor, draft)

    def waiting(self) -> float:
        """Part of the jobs that wait for approval."""
        waits = Job.state == JobState.AWAITING_APPROVAL
        with self.db.read() as session:
            jobs = session.scalar(select(func.count()).select_from(Job)) or 1
            return (session.scalar(select(func.count()).where(waits)) or 0) / jobs

    def _people(self) -> list[dict[str, Any]]:
        now = utc_now()
        orgs = [f"org-{number}" for number in range(ORGS)]
        teams = [(org, f"team-{number}") for org, number in product(orgs, range(TEAMS))]
        users = [
            {
                "id": new_id("usr"), "username": f"user-{number}", "password_hash": "x",
                "role": "researcher", "org": teams[number % len(teams)][0],
                "team": teams[number % len(teams)][1], "created_at": now, "disabled_at": None,
            }
            for number in range(USERS)
        ]  # fmt: skip
        named = [{"slug": org, "name": org, "time_zone": "UTC", "created_at": now} for org in orgs]
        members = [{"user_id": u["id"], "org": u["org"], "team": u["team"]} for u in users]
        with self.db.write() as tx:
            execute = tx.session.execute
            execute(insert(Organisation), named)
            execute(
                insert(Team),
                [{"org": o, "slug": t, "name": t, "created_at": now} for o, t in teams],
            )
            execute(insert(User), users)
            execute(insert(Membership), members)
        return users

    def _rules(self, count: int) -> None:
        random = Random(1)
        others = _APPROVALS + _QUOTAS + _PRICES
        quotas = self._quotas(random)
        counters = [
            {
                "path": row["path"],
                "kind": row["kind"],
                "period": "",
                "used": 0,
                "held": 0,
                "made_at": utc_now(),
            }
            for row in quotas
        ]
        with self.db.write() as tx:
            execute = tx.session.execute
            execute(
                insert(ResourceRule), [self._resource_rule(random) for _ in range(count - others)]
            )
            execute(insert(ApprovalRule), [self._approval_rule(random) for _ in range(_APPROVALS)])
            execute(insert(QuotaRow), quotas)
            execute(insert(QuotaCounter), counters)
            execute(insert(PriceRow), list(_prices()))
            book.changed(tx)

    def _quotas(self, random: Random) -> list[dict[str, Any]]:
        """One of each organisation, then of teams and users; none is ever reached."""
        users = random.sample(self._users, _QUOTAS)
        paths = [f"org-{number}" for number in range(ORGS)]
        paths += sorted({f"{user['org']}/{user['team']}" for user in users})
        paths += [f"{user['org']}/{user['team']}/{user['username']}" for user in users]
        kinds = {1: "cost_monthly", 2: "slot_hours_monthly", 3: "cost_daily"}
        return [
            {
                "id": new_id("quo"), "path": path, "kind": kinds[len(path.split("/"))],
                "action": "block", "amount": 10**15, "role": "",
            }
            for path in paths[:_QUOTAS]
        ]  # fmt: skip

    def _resource_rule(self, random: Random) -> dict[str, Any]:
        user = random.choice(self._users)
        kind = random.choice(("everyone", "role", "team", "user"))
        subject = {
            "everyone": "",
            "role": random.choice(_ROLES),
            "team": f"{user['org']}/{user['team']}",
            "user": user["username"],
        }[kind]
        resource = random.choice(sorted(_RESOURCES))
        return {
            "id": new_id("rul"), "org": user["org"], "subject_kind": kind, "subject": subject,
            "resource": resource, "pattern": random.choice(_RESOURCES[resource]), "effect": "deny",
            "note": "", "created_by": user["id"], "changed_at": utc_now(),
        }  # fmt: skip

    def _approval_rule(self, random: Random) -> dict[str, Any]:
        user = random.choice(self._users)
        return {
            "id": new_id("apl"), "name": "rule", "org": user["org"], "exempt_roles": ["admin"],
            "exempt_users": [], "approver": "lead", "quorum": 1, "expires_after": 86_400.0,
            "priority": 0, "enabled": True, "created_by": user["id"], "changed_at": utc_now(),
            **random.choice(_CONDITIONS),
        }  # fmt: skip


def _prices() -> Iterator[dict[str, Any]]:
    for number in range(_PRICES):
        accelerator = ("*", "a100*", "h100*", "b200*", "mi355*")[number % 5]
        provider = ("*", "spot-*")[number // 5]
        yield {
            "id": new_id("pri"), "accelerator": accelerator, "provider": provider,
            "micros": 1_000_000 * (number + 1), "since": utc_now(),
        }  # fmt: skip

"""A database with many organisations, teams, users and rules, and people who submit there."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import func, insert, select

from st_controller.services import rights, submission
from st_controller.services.actor import Actor
from st_controller.services.policy import book
from st_controller.store import migrate
from st_controller.store.database import Database
from st_controller.store.schema import (
    ApprovalRule,
    Job,
    Membership,
    Organisation,
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
_APPROVAL_PART = 0.2
"""Part of the rules that is about approvals."""
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
    """One of them, on SQLite."""

    def __init__(self, folder: Path, rules: int) -> None:
        folder.mkdir(parents=True)
        self.db = Database(f"sqlite:///{folder / 'db.sqlite'}")
        migrate.upgrade(self.db)
        self._users = self._people()
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

    def submit(self, number: int, document: Mapping[str, Any]) -> None:
        """Submit as one of the users."""
        self.submit_as(self.actor(number), document)

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
        approvals = int(count * _APPROVAL_PART)
        with self.db.write() as tx:
            rows = [self._resource_rule(random) for _ in range(count - approvals)]
            tx.session.execute(insert(ResourceRule), rows)
            tx.session.execute(
                insert(ApprovalRule), [self._approval_rule(random) for _ in range(approvals)]
            )
            book.changed(tx)

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

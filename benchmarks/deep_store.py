"""A store that has been in use for a month: filled past the controller, on either database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, product
from typing import Any

from sqlalchemy import insert, text

from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind
from st_controller.services import rights, submission
from st_controller.services.actor import Actor
from st_controller.store.bulk import insert_all
from st_controller.store.database import Database
from st_controller.store.schema import (
    ApiKey,
    Artifact,
    Attempt,
    AuditEntry,
    Charge,
    Job,
    JobArray,
    JobDependency,
    JobTransition,
    Membership,
    Organisation,
    OutboxEvent,
    Table,
    Team,
    User,
    Worker,
)
from st_shared.clock import utc_now
from st_shared.ids import new_id

ORGS, TEAMS, PEOPLE = 5, 6, 10
"""Organisations, teams of each, people of each team."""
ARRAY = 1000
"""Jobs of an array."""
AUDITED = ("job.submitted", "job.assigned", "job.running", "job.succeeded")
_SLICE = 2000
_SPEC = {
    "name": "run",
    "noop": {"seconds": 0},
    "resources": {"accelerator": "h100*"},
    "expected_time": "2h",
    "time_limit": "6h",
}
_DIGEST = "ab" * 32


@dataclass(frozen=True)
class Sizes:
    """How much there is of each."""

    queued: int = 100_000
    """Half of them in arrays."""
    dependents: int = 2_000
    """Of those that are queued so many wait for another."""
    running: int = 1_000
    ended: int = 200_000
    workers: int = 5_000
    """As many as jobs run are busy, the others are cordoned: nothing is placed."""


@dataclass(frozen=True)
class Known:
    """What callers ask for."""

    keys: Mapping[str, str]
    """API key by role: of a researcher, of a lead, and of an admin."""
    waiting: str
    last: str
    """The job that was submitted last."""
    running: str
    ended: str
    array: str
    worker: str
    first_day: str
    """The moment at which the first day of the month was over."""


class Filling:
    """Writes the rows, the oldest first."""

    def __init__(self, db: Database, sizes: Sizes) -> None:
        self._db, self._sizes = db, sizes
        self._now = utc_now()
        self._users = self._people()
        self._workers = [new_id("wrk") for _ in range(sizes.workers)]
        self._template = self._submit_one()

    def fill(self) -> Known:
        """All of it; statistics are fresh afterwards."""
        keys = {name: self._key(name) for name in ("researcher", "lead", "admin")}
        self._write(Worker, self._hosts())
        ended = self._ended()
        running = self._running()
        arrays, waiting = self._queued()
        with self._db.write() as tx:
            tx.session.execute(text("ANALYZE") if not self._db.is_sqlite else text("SELECT 1"))
        return Known(
            keys=keys,
            waiting=waiting[len(waiting) // 2],
            last=waiting[-1],
            running=running[0],
            ended=ended[-1],
            array=arrays[len(arrays) // 2],
            worker=self._workers[0],
            first_day=f"{self._now - timedelta(days=29):%Y-%m-%dT%H:%M:%SZ}",
        )

    def _write(self, table: type[Table], rows: Iterator[dict[str, Any]]) -> None:
        statement = insert(table)
        while part := list(islice(rows, _SLICE)):
            with self._db.write() as tx:
                insert_all(tx.session.connection(), statement, part)

    def _people(self) -> list[dict[str, Any]]:
        """Of every team; the first three are a researcher, a lead and an admin."""
        now = self._now
        orgs = [f"org-{number}" for number in range(ORGS)]
        teams = [(org, f"team-{number}") for org, number in product(orgs, range(TEAMS))]
        users = [
            {
                "id": new_id("usr"), "username": f"user-{index}", "password_hash": "x",
                "role": ("researcher", "lead", "admin")[index] if index < 3 else "researcher",
                "org": org, "team": team, "org_since": None, "created_at": now,
                "disabled_at": None,
            }
            for index, ((org, team), _) in enumerate(product(teams, range(PEOPLE)))
        ]  # fmt: skip
        with self._db.write() as tx:
            execute = tx.session.execute
            execute(
                insert(Organisation),
                [{"slug": org, "name": org, "time_zone": "UTC", "created_at": now} for org in orgs],
            )
            execute(
                insert(Team),
                [{"org": o, "slug": t, "name": t, "created_at": now} for o, t in teams],
            )
            execute(insert(User), users)
            execute(
                insert(Membership),
                [{"user_id": u["id"], "org": u["org"], "team": u["team"]} for u in users],
            )
        return users

    def _key(self, role: str) -> str:
        key = secrets.new_secret(SecretKind.API_KEY)
        user = next(user for user in self._users if user["role"] == role)
        with self._db.write() as tx:
            tx.session.add(
                ApiKey(
                    id=new_id("key"), user_id=user["id"], name="benchmark",
                    prefix=secrets.shown_prefix(key), key_hash=secrets.digest(key), scopes=None,
                    created_at=self._now, last_used_at=self._now, expires_at=None, revoked_at=None,
                )
            )  # fmt: skip
        return key

    def _submit_one(self) -> dict[str, Any]:
        """Every column of a job as it is really submitted."""
        chosen = rights.rights_query().where(User.id == self._users[0]["id"])
        with self._db.read() as session:
            held = rights.rights_of(session.execute(chosen).all())
        if held is None:
            raise LookupError("the first user may not sign in")
        who: Actor = rights.actor(held)
        draft = submission.check(who, _SPEC, submission.NOTHING_MORE)
        with self._db.write(places_events=True) as tx:
            made = submission.enqueue(tx, who, draft)
        if made.columns is None:
            raise RuntimeError("the job was not new")
        return made.columns

    def _job(self, number: int, at: datetime, **columns: Any) -> dict[str, Any]:
        user = self._users[number % len(self._users)]
        level = (10, 10, 10, 10, 10, 10, 0, 0, 0, 20)[number % 10]
        return {
            **self._template, "id": new_id("job"), "name": f"run-{number % 977}", "level": level,
            "priority": {0: "low", 10: "normal", 20: "high"}[level], "org": user["org"],
            "team": user["team"], "submitted_by": user["id"], "changed_at": at,
            "submitted_at": at, "queued_at": at, **columns,
        }  # fmt: skip

    def _write_jobs(self, jobs: list[dict[str, Any]], moves: tuple[str, ...]) -> None:
        """Jobs with what was noted of them as they moved: transitions, audit entries, events."""
        actor = {user["id"]: f"user:{user['username']}" for user in self._users}
        transitions: list[dict[str, Any]] = []
        entries: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        for job in jobs:
            at = job["submitted_at"]
            for version, state in enumerate(moves, start=1):
                transitions.append(
                    {"job_id": job["id"], "version": version, "state": state, "at": at,
                     "reason": None}
                )  # fmt: skip
                entries.append(
                    {"at": at, "actor": actor[job["submitted_by"]] if version == 1 else "system",
                     "action": AUDITED[version - 1], "target": job["id"], "details": {}}
                )  # fmt: skip
            if at > self._now - timedelta(days=1):
                body = {name: job[name] for name in ("submitted_by", "org", "team")}
                events.append(
                    {"topic": "jobs", "kind": "job", "body": {"job_id": job["id"], **body},
                     "created_at": at, "position": None}
                )  # fmt: skip
        parts: list[tuple[type[Table], list[dict[str, Any]]]] = [
            (Job, jobs), (JobTransition, transitions), (AuditEntry, entries), (OutboxEvent, events),
        ]  # fmt: skip
        for table, rows in parts:
            self._write(table, iter(rows))

    def _ended(self) -> list[str]:
        count, ids = self._sizes.ended, []
        for start in range(0, count, _SLICE):
            jobs = []
            for number in range(start, min(start + _SLICE, count)):
                at = self._now - timedelta(days=30) * ((count - number) / count)
                state = ("succeeded",) * 17 + ("failed", "failed", "cancelled")
                jobs.append(
                    self._job(
                        number, at, state=state[number % 20], version=4, attempts=1, tries_used=1,
                        started_at=at, finished_at=at + timedelta(minutes=number % 90 + 1),
                    )
                )  # fmt: skip
            self._write_jobs(jobs, ("queued", "assigned", "running", "succeeded"))
            attempts = [
                self._attempt(job, self._workers[number % len(self._workers)])
                for number, job in enumerate(jobs, start)
            ]
            self._write(Attempt, iter(attempts))
            self._write(Artifact, map(_artifact, attempts))
            self._write(Charge, map(_charge, jobs))
            ids += [job["id"] for job in jobs]
        return ids

    def _running(self) -> list[str]:
        jobs = [
            self._job(
                number, self._now - timedelta(hours=1), state="running", version=3, attempts=1,
                tries_used=1, started_at=self._now - timedelta(hours=1),
            )
            for number in range(self._sizes.running)
        ]  # fmt: skip
        self._write_jobs(jobs, ("queued", "assigned", "running"))
        attempts = (
            self._attempt(job, worker) for job, worker in zip(jobs, self._workers, strict=False)
        )
        self._write(Attempt, attempts)
        return [job["id"] for job in jobs]

    def _queued(self) -> tuple[list[str], list[str]]:
        """Ids of arrays, and of jobs in the order of their submission."""
        count, arrays, ids = self._sizes.queued, [], []
        begun = self._now - timedelta(minutes=50)
        for start in range(0, count, ARRAY):
            at = begun + timedelta(minutes=40) * (start / count)
            # The jobs of an array come from one user; every other thousand is one.
            array = new_id("arr") if start // ARRAY % 2 == 0 else None
            if array:
                arrays.append(array)
                self._write(JobArray, iter([self._array(array, start // ARRAY, at)]))
            jobs = [
                self._job(
                    start // ARRAY if array else number, at, array_id=array,
                    array_index=number - start if array else None,
                )
                for number in range(start, min(start + ARRAY, count))
            ]  # fmt: skip
            self._write_jobs(jobs, ("queued",))
            ids += [job["id"] for job in jobs]
        self._depend(ids)
        return arrays, ids

    def _depend(self, ids: list[str]) -> None:
        """Let some of the last jobs wait for one of the first."""
        children = ids[-self._sizes.dependents :]
        links = [{"job_id": child, "parent_id": ids[0]} for child in children]
        self._write(JobDependency, iter(links))
        with self._db.write() as tx:
            waits = text("UPDATE jobs SET open_parents = 1 WHERE id >= :first")
            tx.session.execute(waits, {"first": min(children)})

    def _array(self, array_id: str, number: int, at: datetime) -> dict[str, Any]:
        user = self._users[number % len(self._users)]
        return {
            "id": array_id, "name": "sweep", "org": user["org"], "team": user["team"],
            "submitted_by": user["id"], "submitted_at": at, "size": ARRAY, "max_running": 10,
        }  # fmt: skip

    def _attempt(self, job: Mapping[str, Any], worker: str) -> dict[str, Any]:
        at, ended = job["submitted_at"], job["finished_at"]
        over = ended is not None
        state = "finished" if over else "running"
        later = self._now + timedelta(days=30)
        return {
            "id": new_id("att"), "job_id": job["id"], "number": 1, "epoch": 1, "state": state,
            "outcome": job["state"] if over else None, "failure": None, "unstored": None,
            "stop": None, "node": 0, "nodes": 1, "worker_id": worker, "slots": [0], "price": 1.0,
            "rate": 0, "booked_until": ended, "booked": over, "checkpoint_at": None,
            "offered_at": at, "offer_expires_at": at, "lease_expires_at": None if over else later,
            "claimed_at": at, "used_seconds": 60.0, "behind_since": None, "started_at": at,
            "finished_at": ended, "released_at": ended, "counted": over, "acked_seq": 0,
            "stored_seq": 0, "met_at": None, "rendezvous": None,
        }  # fmt: skip

    def _hosts(self) -> Iterator[dict[str, Any]]:
        for number, worker_id in enumerate(self._workers):
            busy = number < self._sizes.running
            yield {
                "id": worker_id, "name": f"host-{number:05d}",
                "credential_hash": secrets.digest(worker_id), "next_credential_hash": None,
                "join_key_hash": None, "credential_at": self._now, "rotate_ordered_at": None,
                "revoked_at": None, "observed": "online",
                "desired": "active" if busy else "cordoned", "desired_by": None,
                "desired_at": None, "desired_why": None, "drain_until": None,
                "garbage_ordered_at": None, "garbage_collected_at": None, "deleted_at": None,
                "ephemeral": False, "one_job": False, "own_labels": {}, "set_labels": {},
                "inventory": _inventory(number), "agent_version": "1", "joined_at": self._now,
                "last_heartbeat_at": self._now + timedelta(days=30), "usage": None,
            }  # fmt: skip


def _inventory(number: int) -> dict[str, Any]:
    slot = {"index": 0, "accelerator": "h100", "memory_gb": 80.0}
    return {
        "hostname": f"host-{number:05d}", "slots": [slot], "cpus": 16, "memory_gb": 128.0,
        "disk_free_gb": 500.0, "platform": "linux", "cached": [_DIGEST], "cached_models": [],
    }  # fmt: skip


def _artifact(attempt: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": new_id("art"), "job_id": attempt["job_id"], "attempt_id": attempt["id"],
        "attempt": 1, "kind": "model", "path": "model.safetensors", "size": 10**9,
        "sha256": secrets.digest(attempt["id"]), "possession": None, "step": None,
        "key": f"objects/{attempt['id']}", "created_at": attempt["offered_at"],
        "stored_at": attempt["finished_at"],
    }  # fmt: skip


def _charge(job: Mapping[str, Any]) -> dict[str, Any]:
    day = f"{job['finished_at']:%Y-%m-%d}"
    return {
        "job_id": job["id"], "day": day, "utc_day": day, "org": job["org"], "team": job["team"],
        "user_id": job["submitted_by"], "micros": 1000, "slot_ms": 60_000,
    }  # fmt: skip

"""Single submissions that come at the same time, written in one transaction."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import NamedTuple

from sqlalchemy.exc import DataError, IntegrityError

from st_controller.errors import Refusal
from st_controller.services import idempotency, submission
from st_controller.services.actor import Actor
from st_controller.services.combining import Combining
from st_controller.services.drafts import Draft
from st_controller.services.policy import admission
from st_controller.services.policy.quota_book import Payer
from st_controller.services.submission import Submitted
from st_controller.store.database import Database
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id

THREADS = 8
"""Submissions that lock other jobs at one time; the next ones wait for a thread."""


class Submission(NamedTuple):
    """One checked job of one person."""

    actor: Actor
    draft: Draft
    idempotency_key: str | None


class JointSubmission:
    """Takes jobs in; those of many clients cost one transaction, and a mistake only its own."""

    def __init__(self, db: Database) -> None:
        self._db = db
        # Both are raised before anything is committed. After other errors nobody knows whether
        # the jobs are there, so they are told and nothing is tried again.
        retried = (Refusal, IntegrityError, DataError)
        self._combining = Combining(self._together, self._alone, retried)
        # They may wait for locks, and must not take the threads of the scheduler and the streams.
        self._patient = ThreadPoolExecutor(THREADS, thread_name_prefix="st-submission")

    async def submit(self, actor: Actor, draft: Draft, idempotency_key: str | None) -> Submitted:
        """As ``submission.enqueue``, in a transaction that others may share."""
        asked = Submission(actor, draft, idempotency_key)
        if draft.spec.after:  # it locks other jobs, in an order that a crowd would not keep
            loop, context = asyncio.get_running_loop(), copy_context()
            return await loop.run_in_executor(self._patient, context.run, self._alone, asked)
        return await self._combining.do(asked)

    def _alone(self, asked: Submission) -> Submitted:
        with self._db.write(places_events=True) as tx:
            return submission.enqueue(tx, *asked)

    def _together(self, asked: Sequence[Submission]) -> list[Submitted]:
        with self._db.write(places_events=True) as tx:
            return _enqueue(tx, asked)


def _enqueue(tx: Transaction, asked: Sequence[Submission]) -> list[Submitted]:
    # Submitted at one moment, jobs are served in the order of their ids.
    ids = sorted(new_id("job") for _ in asked)
    found: list[Submitted] = [Submitted(job_id, None) for job_id in ids]
    fresh: dict[Actor, list[int]] = defaultdict(list)
    for index in sorted(range(len(asked)), key=lambda index: _order(asked[index])):
        earlier = _earlier(tx, asked[index], ids[index])
        if earlier is None:
            fresh[asked[index].actor].append(index)
        else:
            found[index] = Submitted(earlier, None)
    admission.prepare(
        tx,
        (
            Payer(who.org, asked[index].draft.spec.team or who.team, who.user_id)
            for who, chosen in fresh.items()
            for index in chosen
        ),
    )
    for actor, chosen in fresh.items():
        chosen.sort()
        drafts = [asked[index].draft for index in chosen]
        stored = submission.store(tx, actor, drafts, [ids[index] for index in chosen])
        for index, done in zip(chosen, stored, strict=True):
            found[index] = done
    return found


def _order(asked: Submission) -> tuple[str, str]:
    """Keys are taken in one order by everybody, so that no two wait for each other."""
    return asked.actor.user_id, asked.idempotency_key or ""


def _earlier(tx: Transaction, asked: Submission, job_id: str) -> str | None:
    """The job that was made under this key before."""
    if asked.idempotency_key is None:
        return None
    body = f"jobs\n{asked.draft.text}"
    earlier = idempotency.take(tx, asked.actor, asked.idempotency_key, body, {"job": job_id})
    return None if earlier is None else str(earlier["job"])

"""What a worker says of attempts that are over, taken one by one or many together."""

from collections.abc import Sequence
from typing import NamedTuple

from st_controller.errors import Refusal, SequenceGap, StaleLease
from st_controller.services import dependencies, endings, journal, leases
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import FinishRequest


class Ending(NamedTuple):
    """What a worker says of an attempt."""

    worker_id: str
    attempt_id: str
    told: FinishRequest


def finish(tx: Transaction, worker_id: str, attempt_id: str, request: FinishRequest) -> None:
    """End an attempt whose journal has arrived in full.

    Raises:
        StaleLease: the lease is not in force.
        SequenceGap: journal lines are missing.
    """
    (refused,) = finish_all(tx, [Ending(worker_id, attempt_id, request)])
    if refused is not None:
        raise refused


def finish_all(tx: Transaction, endings_of: Sequence[Ending]) -> list[Refusal | None]:
    """The same for many, of any workers: for each, in their order, why it was refused, if it was.

    What cannot be written after it was found right undoes the whole, and is raised.
    """
    attempt_ids = [each.attempt_id for each in endings_of]
    if len(attempt_ids) > 1:
        dependencies.lock_with_descendants(tx.session, leases.job_ids_of(tx.session, attempt_ids))
    found = leases.load_all(tx.session, attempt_ids)
    refused: list[Refusal | None] = []
    well: dict[str, tuple[tuple[Attempt, Job], float]] = {}
    for worker_id, attempt_id, each in endings_of:
        locked = found.get(attempt_id, (None, None))
        try:
            held = leases.finishable(locked, worker_id, each.epoch, Outcome(each.outcome))
            if held is not None:
                journal.must_be_whole(held[0], each.last_seq)
        except (StaleLease, SequenceGap) as error:
            refused.append(error)
            continue
        refused.append(None)
        alone = held is not None and held[0].nodes == 1 and not each.unstored
        if held is not None and alone and each.outcome is Outcome.SUCCEEDED:
            well[attempt_id] = held, endings.use_told(held[0], each.used_seconds, tx.now)
        elif held is not None:
            _end(tx, *held, each)
    endings.end_well(tx, [pair for pair, _ in well.values()], [used for _, used in well.values()])
    return refused


def _end(tx: Transaction, attempt: Attempt, job: Job, request: FinishRequest) -> None:
    endings.end_attempt(
        tx,
        attempt,
        job,
        Outcome(request.outcome),
        failure=request.failure,
        unstored=request.unstored,
        used_seconds=endings.use_told(attempt, request.used_seconds, tx.now),
        actor=f"worker:{attempt.worker_id}",
    )

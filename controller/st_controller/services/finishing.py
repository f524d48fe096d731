"""What a worker says of attempts that are over, taken one by one or many together."""

from st_controller.errors import Refusal, SequenceGap, StaleLease
from st_controller.services import dependencies, endings, journal, leases
from st_controller.store.schema import Attempt, Job
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import FinishBatch, FinishRequest


def finish(tx: Transaction, worker_id: str, attempt_id: str, request: FinishRequest) -> None:
    """End an attempt whose journal has arrived in full.

    Raises:
        StaleLease: the lease is not in force.
        SequenceGap: journal lines are missing.
    """
    outcome = Outcome(request.outcome)
    held = leases.to_finish(tx, worker_id, attempt_id, request.epoch, outcome)
    if held is not None:
        journal.must_be_whole(held[0], request.last_seq)
        _end(tx, *held, request)


def finish_all(tx: Transaction, worker_id: str, batch: FinishBatch) -> dict[str, Refusal]:
    """The same for many; what was refused comes back, and the others are over.

    What cannot be written after it was found right undoes the whole, and is raised.
    """
    refused: dict[str, Refusal] = {}
    well: dict[str, tuple[Attempt, Job]] = {}
    attempt_ids = [each.attempt_id for each in batch.finishes]
    dependencies.lock_with_descendants(tx.session, leases.job_ids_of(tx.session, attempt_ids))
    found = leases.load_all(tx.session, attempt_ids)
    for each in batch.finishes:
        locked = found.get(each.attempt_id, (None, None))
        try:
            held = leases.finishable(locked, worker_id, each.epoch, Outcome(each.outcome))
            if held is not None:
                journal.must_be_whole(held[0], each.last_seq)
        except (StaleLease, SequenceGap) as error:
            refused[each.attempt_id] = error
            continue
        alone = held is not None and held[0].nodes == 1 and not each.unstored
        if held is not None and alone and each.outcome is Outcome.SUCCEEDED:
            well[each.attempt_id] = held
        elif held is not None:
            _end(tx, *held, each)
    endings.end_well(tx, list(well.values()), f"worker:{worker_id}")
    return refused


def _end(tx: Transaction, attempt: Attempt, job: Job, request: FinishRequest) -> None:
    endings.end_attempt(
        tx,
        attempt,
        job,
        Outcome(request.outcome),
        failure=request.failure,
        unstored=request.unstored,
        actor=f"worker:{attempt.worker_id}",
    )

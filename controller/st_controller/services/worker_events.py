"""Events of workers' streams, told to one or to all, under the name that the contract has."""

from st_controller.services import topics
from st_controller.store.transaction import Transaction
from st_shared.protocol.endpoints import WorkerEvent, name_of


def tell(tx: Transaction, worker_id: str, *events: WorkerEvent) -> None:
    """Send events to a worker, durably and in this order."""
    for event in events:
        tx.emit(topics.worker(worker_id), name_of(event), event.model_dump(mode="json"))


def tell_all(tx: Transaction, event: WorkerEvent) -> None:
    """Send one event to every worker, durably."""
    tx.emit(topics.WORKERS, name_of(event), event.model_dump(mode="json"))

"""Heartbeats that come at the same time, taken in one transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Text, bindparam, select, update

from st_controller.domain.workers import Patience
from st_controller.errors import NotFound, NotSignedIn
from st_controller.services import garbage, renewals, workers
from st_controller.services.caller import WorkerCaller
from st_controller.services.combining import Combining
from st_controller.services.known_credentials import KnownCredentials
from st_controller.store.database import Database, DatabaseError
from st_controller.store.json_each import JsonEach
from st_controller.store.schema import Worker
from st_controller.store.transaction import QUEUE_WORKER, Transaction
from st_shared.protocol.states import WorkerDesired, WorkerState
from st_shared.protocol.worker import Heartbeat, HeartbeatReply, StopOrder

MOST = 1024
"""Heartbeats in one transaction."""
REST_SECONDS = 0.05
"""Between two transactions: nobody waits for the answer to a heartbeat."""

# Made once: building a statement costs more than running it.
_WORKERS = (
    select(
        Worker.id,
        Worker.observed,
        Worker.desired,
        Worker.rotate_ordered_at,
        garbage.IS_DUE.label("garbage_is_due"),
        Worker.revoked_at,
        Worker.credential_hash,
    )
    .where(Worker.id.in_(bindparam("ids", expanding=True)))
    .order_by(Worker.id)
    .with_for_update(key_share=True)
)
_HEARD = (
    update(Worker)
    .where(Worker.id.in_(bindparam("ids", expanding=True)))
    .values(last_heartbeat_at=bindparam("now"))
)
_BACK = (
    update(Worker)
    .where(Worker.id.in_(bindparam("ids", expanding=True)))
    .values(observed=WorkerState.ONLINE)
)
_USES = JsonEach(bindparam("uses", type_=Text)).table_valued("key", "value", name="uses")
_USED = (
    update(Worker)
    .where(Worker.id == _USES.c.key)
    .values(last_heartbeat_at=bindparam("now"), usage=_USES.c.value)
)


class Beat(NamedTuple):
    """What one worker says."""

    worker_id: str
    told: Heartbeat
    digest: str = ""
    """Hash of the credential that it showed."""


class JointHeartbeats:
    """Thousands of workers beat every few seconds: what they say is written together.

    Whoever only says that it is alive, which is nearly everybody, costs a share of two
    statements, and no look at its credential: what the heartbeat reads confirms that.
    """

    def __init__(
        self, db: Database, patience: Patience, known: KnownCredentials[WorkerCaller] | None = None
    ) -> None:
        self._db, self._patience, self._known = db, patience, known
        self._combining = Combining(
            self._together, self._alone, (DatabaseError,), MOST, REST_SECONDS
        )

    async def take(self, worker_id: str, beat: Heartbeat, digest: str = "") -> HeartbeatReply:
        """As ``workers.heartbeat``, in a transaction that others may share.

        Raises:
            NotFound: there is no such worker.
            NotSignedIn: its credential ended while it called.
        """
        return await self._combining.do(Beat(worker_id, beat, digest))

    def _alone(self, beat: Beat) -> HeartbeatReply:
        (answer,) = self._together([beat])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _together(self, beats: Sequence[Beat]) -> list[HeartbeatReply | BaseException]:
        with self._db.write() as tx:
            known = _known(tx, beats)
            answers = _take(tx, beats, known, self._patience)
        if self._known is not None:
            self._known.confirm(_in_force(beats, known), tx.now)
        return answers


def _known(tx: Transaction, beats: Sequence[Beat]) -> dict[str, Any]:
    """Rows of those workers that there are, locked."""
    ids = sorted({beat.worker_id for beat in beats})
    return {row.id: row for row in tx.session.execute(_WORKERS, {"ids": ids})}


def _in_force(beats: Sequence[Beat], known: Mapping[str, Any]) -> Iterator[str]:
    """Digests of credentials that the rows say are in force."""
    for beat in beats:
        worker = known.get(beat.worker_id)
        if worker is not None and not _is_void(worker) and worker.credential_hash == beat.digest:
            yield beat.digest


def _take(
    tx: Transaction, beats: Sequence[Beat], known: Mapping[str, Any], patience: Patience
) -> list[HeartbeatReply | BaseException]:
    plain = [beat for beat in beats if _is_plain(known.get(beat.worker_id), beat.told)]
    _note_alive(tx, plain)
    _note_back(tx, plain, known)
    for beat in beats:  # jobs are locked before attempts
        worker = known.get(beat.worker_id)
        if beat.told.leaving and worker is not None and not _is_void(worker):
            workers.withdraw_offers(tx, worker.id, worker.observed)
    if len(plain) < len(beats):  # the others' leases are renewed one by one, and all in one order
        renewals.lock(tx.session, [beat.told.holding for beat in beats])
    orders = renewals.renew_all(
        tx, [(beat.worker_id, beat.told.holding) for beat in plain], patience
    )
    replies = {
        id(beat): _reply(known[beat.worker_id], stops)
        for beat, stops in zip(plain, orders, strict=True)
    }
    return [replies.get(id(beat)) or _take_other(tx, beat, patience) for beat in beats]


def _is_void(worker: Any) -> bool:
    return worker.desired == WorkerDesired.RETIRED or worker.revoked_at is not None


def _reply(worker: Any, stops: list[StopOrder]) -> HeartbeatReply:
    return HeartbeatReply(
        desired=WorkerDesired(worker.desired),
        stops=stops,
        rotate=worker.rotate_ordered_at is not None,
        collect_garbage=bool(worker.garbage_is_due),
    )


def _is_plain(worker: Any, told: Heartbeat) -> bool:
    """Whether it says no more than that a worker is there, perhaps again."""
    return worker is not None and not _is_void(worker) and told.is_plain and not told.deaf


def _note_alive(tx: Transaction, beats: Sequence[Beat]) -> None:
    if not beats:
        return
    connection = tx.session.connection()
    uses = {
        beat.worker_id: beat.told.usage.model_dump_json()
        for beat in beats
        if beat.told.usage is not None
    }
    if uses:
        members = (f'"{worker_id}":{use}' for worker_id, use in uses.items())
        connection.execute(_USED, {"now": tx.now, "uses": f"{{{','.join(members)}}}"})
    others = sorted({beat.worker_id for beat in beats} - uses.keys())
    if others:
        connection.execute(_HEARD, {"ids": others, "now": tx.now})


def _note_back(tx: Transaction, beats: Sequence[Beat], known: Mapping[str, Any]) -> None:
    """Who had been silent is online again: all are, where this process was what did not work."""
    ids = {beat.worker_id for beat in beats}
    back = sorted(each for each in ids if known[each].observed != WorkerState.ONLINE)
    if back:
        tx.session.connection().execute(_BACK, {"ids": back})
        for worker_id in back:
            tx.wake(f"{QUEUE_WORKER}{worker_id}")


def _take_other(tx: Transaction, beat: Beat, patience: Patience) -> HeartbeatReply | BaseException:
    try:
        worker = workers.get_worker(tx.session, beat.worker_id, lock=True)
        return workers.heartbeat(tx, worker, beat.told, patience)
    except (NotFound, NotSignedIn) as error:
        return error

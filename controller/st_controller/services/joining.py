"""How a join token is exchanged for a credential: once, however often the answer is lost."""

from sqlalchemy import select

from st_controller.auth import secrets
from st_controller.services import join_tokens, workers
from st_controller.store.schema import Worker
from st_controller.store.transaction import CREDENTIALS_OF, Transaction
from st_shared.protocol.states import WorkerDesired
from st_shared.protocol.worker import RegisterRequest


def join(tx: Transaction, secret: str, request: RegisterRequest, credential_hash: str) -> Worker:
    """The worker that whoever holds the join token ``secret`` is from now on.

    Asked again with the same key it is the one that was made before, and the credential of then is
    void: its answer did not arrive, or the agent died before it was kept.

    Raises:
        NotSignedIn: the token is unknown, expired, revoked or used up.
    """
    key = request.join_key and secrets.digest(f"{secret} {request.join_key}")
    known = _joined_with(tx, key) if key else None
    token = join_tokens.token_in_force(tx, secret, is_spent=known is not None)
    if known is None:
        return workers.join(tx, token, request, credential_hash, key)
    known.credential_hash, known.next_credential_hash = credential_hash, None
    known.credential_at, known.rotate_ordered_at = tx.now, None
    tx.audit(f"worker:{known.id}", "worker.joined_again", known.id, name=known.name, token=token.id)
    tx.wake(f"{CREDENTIALS_OF}{known.id}")
    return known


def _joined_with(tx: Transaction, key: str) -> Worker | None:
    """The worker of this key, locked; one that is gone for good gives it back."""
    found = tx.session.scalar(
        select(Worker).where(Worker.join_key_hash == key).with_for_update(key_share=True)
    )
    if found is None:
        return None
    if found.desired != WorkerDesired.RETIRED and found.revoked_at is None:
        return found
    found.join_key_hash = None
    tx.session.flush()
    return None

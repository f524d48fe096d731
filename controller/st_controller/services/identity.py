"""How callers prove who they are: log-in, sessions, and the look-up of credentials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row, Select, bindparam, or_, select
from sqlalchemy.orm import Session as OrmSession

from st_controller.auth import passwords, secrets
from st_controller.auth.secrets import SecretKind
from st_controller.errors import NotPermitted, NotSignedIn
from st_controller.services import rights, sessions
from st_controller.services.caller import Caller, WorkerCaller
from st_controller.services.rights import Rights
from st_controller.services.sessions import Device, NewSession, Use
from st_controller.store.database import Database
from st_controller.store.parts import parts
from st_controller.store.schema import ApiKey, Session, User, Worker
from st_controller.store.transaction import Transaction
from st_shared.protocol.states import WorkerDesired

# Made once: building a statement costs more than running it.
_OF_SESSION = rights.joined(
    select(Session, *rights.COLUMNS).select_from(Session).join(User, User.id == Session.user_id)
)
_OF_API_KEY = rights.joined(
    select(ApiKey, *rights.COLUMNS).select_from(ApiKey).join(User, User.id == ApiKey.user_id)
)
_SESSION = _OF_SESSION.where(
    or_(
        Session.token_hash == bindparam("digest"),
        Session.next_hash == bindparam("digest"),
        Session.previous_hash == bindparam("digest"),
    )
)
_SESSION_BY_ID = _OF_SESSION.where(Session.id == bindparam("id"))
_API_KEY = _OF_API_KEY.where(ApiKey.key_hash == bindparam("digest"))
_API_KEY_BY_ID = _OF_API_KEY.where(ApiKey.id == bindparam("id"))
_WORKER = select(Worker.id, Worker.name, Worker.one_job).where(
    Worker.desired != WorkerDesired.RETIRED, Worker.revoked_at.is_(None)
)
_BY_CREDENTIAL = _WORKER.where(Worker.credential_hash == bindparam("digest"))
_BY_NEXT = _WORKER.where(Worker.next_credential_hash == bindparam("digest"))


Prove = Callable[[User], NotSignedIn | None]


@dataclass(frozen=True)
class SessionLook:
    """What a session's token opened."""

    caller: Caller
    use: Use
    is_noted: bool
    """Whether its use need not be written down again."""


def sign_in(
    db: Database,
    username: str,
    password: str,
    lifetime: timedelta,
    device: Device = sessions.NOWHERE,
    *,
    prove: Prove | None = None,
) -> NewSession:
    """Open a session; unknown and disabled users cost the same time as a wrong password.

    The slow hash is computed outside of any transaction, so that nobody waits for it. ``prove`` is
    asked once the password was right; it gives why the user may not come in all the same.

    Raises:
        NotSignedIn: name and password do not belong together.
    """
    with db.read() as session:
        user = session.scalar(select(User).where(User.username == username))
    stored = user.password_hash if user and user.disabled_at is None else None
    if not passwords.verify_password(stored, password) or user is None:
        _note_refusal(db, username, device, "password")
        raise NotSignedIn(
            "user name or password is wrong",
            code="wrong_password",
            hint="check both; an admin can make a new account with `st-controller user add`",
        )
    if prove is not None and (why := prove(user)) is not None:
        _note_refusal(db, username, device, "second factor")
        raise why
    fresh = (
        passwords.hash_password(password) if passwords.needs_rehash(user.password_hash) else None
    )
    with db.write() as transaction:
        user = transaction.session.get_one(User, user.id)
        if fresh:
            user.password_hash = fresh
        return sessions.open_session(transaction, user, lifetime, device)


def _note_refusal(db: Database, username: str, device: Device, why: str) -> None:
    """Leave in the audit log that somebody did not get in; how often is bounded before this."""
    with db.write() as tx:
        tx.audit("anonymous", "session.refused", username, address=device.address, why=why)


def revoke_session(transaction: Transaction, caller: Caller) -> None:
    """Sign the caller's browser out; nothing happens for a key."""
    sessions.end_sessions(transaction, caller.user_id, caller.signature, only=caller.credential_id)


def caller_by_session(session: OrmSession, token: str, now: datetime) -> Caller | None:
    """Who holds this session; none: unknown, expired, revoked or disabled."""
    found = session_by_token(session, token, now)
    return found.caller if found and found.use is not Use.STALE else None


def session_by_token(session: OrmSession, token: str, now: datetime) -> SessionLook | None:
    """What a token opens, or would have opened before it was exchanged; none as above."""
    if secrets.kind_of(token) is not SecretKind.SESSION:
        return None
    digest = secrets.digest(token)
    rows = session.execute(_SESSION, {"digest": digest}).all()
    caller = _session_holder(rows, now)
    if caller is None:
        return None
    found: Session = rows[0].Session
    use = sessions.use_of(found, digest, now)
    is_noted = use in {Use.CURRENT, Use.FORMER} and now - found.seen_at < sessions.NOTED_EVERY
    return SessionLook(caller, use, is_noted)


def caller_by_api_key(session: OrmSession, key: str, now: datetime) -> tuple[Caller, bool] | None:
    """Who holds this key, and whether its use should be noted (at most once a minute).

    None: unknown, expired, revoked, or its owner is disabled.

    Raises:
        NotPermitted: its owner may not use keys.
    """
    if secrets.kind_of(key) is not SecretKind.API_KEY:
        return None
    rows = session.execute(_API_KEY, {"digest": secrets.digest(key)}).all()
    caller = _key_holder(rows, now)
    if caller is None:
        return None
    held = rights.rights_of(rows)
    if held is not None and "api.access" not in held.permissions():
        raise NotPermitted(
            "keys are not for you: this needs the permission 'api.access'",
            hint="sign in with your browser, or ask an admin for the permission",
        )
    used = rows[0].ApiKey.last_used_at
    return caller, used is None or now - used >= timedelta(minutes=1)


def worker_by_credential(session: OrmSession, credential: str) -> WorkerCaller | None:
    """Which worker holds this credential; none: unknown, revoked, or the worker is retired."""
    return _worker_by(session, _BY_CREDENTIAL, credential)


def worker_by_next_credential(session: OrmSession, credential: str) -> WorkerCaller | None:
    """Which worker was given this credential, and shows it for the first time."""
    return _worker_by(session, _BY_NEXT, credential)


def _worker_by(
    session: OrmSession, query: Select[str, str, bool], credential: str
) -> WorkerCaller | None:
    if secrets.kind_of(credential) is not SecretKind.WORKER:
        return None
    digest = secrets.digest(credential)
    found = session.execute(query, {"digest": digest}).one_or_none()
    return WorkerCaller(found.id, found.name, digest, found.one_job) if found else None


def is_in_force(session: OrmSession, caller: Caller, now: datetime) -> bool:
    """Whether the credential that made this caller would make the very same caller now."""
    asked = {"id": caller.credential_id}
    if caller.via == "session":
        return _session_holder(session.execute(_SESSION_BY_ID, asked).all(), now) == caller
    return _key_holder(session.execute(_API_KEY_BY_ID, asked).all(), now) == caller


def hashes_in_force(session: OrmSession, worker_ids: Sequence[str]) -> set[str]:
    """Hashes of the credentials with which these workers may call."""
    found: set[str] = set()
    for part in parts(worker_ids):
        rows = session.execute(
            select(Worker.credential_hash, Worker.next_credential_hash).where(
                Worker.id.in_(part),
                Worker.desired != WorkerDesired.RETIRED,
                Worker.revoked_at.is_(None),
            )
        )
        found |= {digest for row in rows for digest in row if digest is not None}
    return found


def _session_holder(rows: Sequence[Row[Any]], now: datetime) -> Caller | None:
    held = rights.rights_of(rows)
    if held is None:
        return None
    found: Session = rows[0].Session
    if found.revoked_at or found.expires_at <= now:
        return None
    caller = _caller(held, "session", found.id, None, found.expires_at)
    return replace(caller, renewed_at=found.renewed_at)


def _key_holder(rows: Sequence[Row[Any]], now: datetime) -> Caller | None:
    held = rights.rights_of(rows)
    if held is None:
        return None
    found: ApiKey = rows[0].ApiKey
    if found.revoked_at or (found.expires_at and found.expires_at <= now):
        return None
    caller = _caller(held, "api_key", found.id, found.scopes, found.expires_at)
    return caller if found.addresses is None else replace(caller, addresses=tuple(found.addresses))


def _caller(
    held: Rights,
    via: Literal["session", "api_key"],
    credential_id: str,
    scopes: list[str] | None,
    expires_at: datetime | None,
) -> Caller:
    return Caller(
        permissions=held.permissions(scopes),
        via=via,
        credential_id=credential_id,
        expires_at=expires_at,
        **rights.identity_of(held),
    )

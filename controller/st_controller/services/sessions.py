"""Sessions of browsers: opened by a log-in, renewed while they are used, listed, and ended.

The token changes every quarter of an hour. The new one lies beside the old until a browser shows
it (a lost answer locks nobody out); from then on the old one counts for a minute, for requests that
were under way. Whoever shows it later has it from elsewhere: that ends the session.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session as OrmSession

from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind
from st_controller.errors import NotFound
from st_controller.services.actor import Actor
from st_controller.store.database import Database
from st_controller.store.schema import Session, User
from st_controller.store.transaction import CREDENTIALS, Transaction
from st_shared.ids import new_id
from st_shared.protocol.message import Moment
from st_shared.protocol.sign_in import SessionInfo

RENEWED_AFTER = timedelta(minutes=15)
"""Age of a token at which a new one is given."""
GRACE = timedelta(minutes=1)
"""How long a token counts after its successor was used, and how soon another successor is made."""
NOTED_EVERY = timedelta(minutes=1)
"""How often the use of a session is written down."""


@dataclass(frozen=True)
class Device:
    """Where a session was opened, as far as that is known."""

    address: str | None = None
    agent: str | None = None
    """What the browser says of itself."""


NOWHERE = Device()


@dataclass(frozen=True)
class NewSession:
    """A session with its secret, which only the browser keeps."""

    token: str
    username: str
    expires_at: Moment


class Use(StrEnum):
    """What a token that was shown is to its session."""

    CURRENT = "current"
    NEXT = "next"
    """The successor, shown for the first time."""
    FORMER = "former"
    """Its successor is in use, since a moment ago."""
    STALE = "stale"
    """Its successor has been in use for long."""


def use_of(found: Session, digest: str, now: datetime) -> Use:
    """What the token of this digest is to the session that knows it."""
    if digest == found.token_hash:
        return Use.CURRENT
    if digest == found.next_hash:
        return Use.NEXT
    return Use.FORMER if now - found.renewed_at <= GRACE else Use.STALE


def open_session(tx: Transaction, user: User, lifetime: timedelta, device: Device) -> NewSession:
    """A new session of a user."""
    token = secrets.new_secret(SecretKind.SESSION)
    opened = Session(
        id=new_id("ses"),
        token_hash=secrets.digest(token),
        user_id=user.id,
        created_at=tx.now,
        renewed_at=tx.now,
        seen_at=tx.now,
        expires_at=tx.now + lifetime,
        address=device.address,
        agent=(device.agent or "")[:300] or None,
    )
    tx.session.add(opened)
    tx.audit(f"user:{user.username}", "session.opened", opened.id, address=device.address)
    return NewSession(token, user.username, opened.expires_at)


def note_use(db: Database, session_id: str, digest: str, use: Use) -> None:
    """Write down that a token was shown: a successor comes into force, a stale one ends all."""
    with db.write() as tx:
        if use is Use.STALE:
            row = tx.session.get(Session, session_id)
            if row is not None and row.revoked_at is None:
                row.revoked_at = tx.now
                tx.audit("system", "session.token_reused", session_id, user=row.user_id)
                tx.wake(CREDENTIALS)
            return
        changed = update(Session).where(Session.id == session_id)
        if use is Use.NEXT:
            tx.session.execute(
                changed.where(Session.next_hash == digest).values(
                    previous_hash=Session.token_hash,
                    token_hash=digest,
                    next_hash=None,
                    renewed_at=tx.now,
                    seen_at=tx.now,
                )
            )
        else:
            tx.session.execute(changed.values(seen_at=tx.now))


def renew(db: Database, session_id: str) -> str | None:
    """A successor of a session's token; none: one was made a moment ago, or there is no need."""
    token = secrets.new_secret(SecretKind.SESSION)
    with db.write() as tx:
        nobody_else = or_(Session.next_hash.is_(None), Session.next_at <= tx.now - GRACE)
        made = tx.session.execute(
            update(Session)
            .where(
                Session.id == session_id,
                Session.revoked_at.is_(None),
                Session.renewed_at <= tx.now - RENEWED_AFTER,
                nobody_else,
            )
            .values(next_hash=secrets.digest(token), next_at=tx.now)
            .returning(Session.id)
        ).scalar()
    return token if made else None


def list_sessions(
    session: OrmSession, user_id: str, now: datetime, current: str
) -> list[SessionInfo]:
    """A user's sessions in force, the last used first; ``current`` is the caller's own."""
    rows = session.scalars(
        select(Session)
        .where(Session.user_id == user_id, Session.revoked_at.is_(None), Session.expires_at > now)
        .order_by(Session.seen_at.desc(), Session.id)
    )
    return [
        SessionInfo(
            id=row.id,
            created_at=row.created_at,
            seen_at=row.seen_at,
            expires_at=row.expires_at,
            address=row.address,
            agent=row.agent,
            current=row.id == current,
        )
        for row in rows
    ]


def end_session(tx: Transaction, actor: Actor, session_id: str) -> None:
    """End one of the actor's sessions at once.

    Raises:
        NotFound: the actor has no such session.
    """
    if not end_sessions(tx, actor.user_id, actor.signature, only=session_id):
        raise NotFound(f"you have no session {session_id!r}")


def end_sessions(
    tx: Transaction,
    user_id: str,
    signature: str,
    *,
    only: str | None = None,
    but: str | None = None,
) -> list[str]:
    """End sessions of a user at once: one, all, or all but one; their ids."""
    query = update(Session).where(Session.user_id == user_id, Session.revoked_at.is_(None))
    if only is not None:
        query = query.where(Session.id == only)
    if but is not None:
        query = query.where(Session.id != but)
    rows = tx.session.execute(query.values(revoked_at=tx.now).returning(Session.id))
    ended = sorted(rows.scalars())
    if ended:
        tx.audit_all(signature, "session.ended", [(session_id, {}) for session_id in ended])
        tx.wake(CREDENTIALS)
    return ended

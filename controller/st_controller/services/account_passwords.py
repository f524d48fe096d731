"""Changing one's password, and choosing a new one with a token that an admin gave."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from st_controller.auth import passwords, secrets
from st_controller.auth.secrets import SecretKind
from st_controller.errors import InvalidRequest, NotPermitted
from st_controller.services import second_factor, sessions
from st_controller.services.caller import Caller
from st_controller.store.database import Database
from st_controller.store.schema import ResetToken, User
from st_controller.store.transaction import Transaction
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.sign_in import ResetTokenView

RESET_LIFETIME = timedelta(hours=24)


def must_be_password(session: Session, user_id: str, password: str) -> None:
    """Refuse unless this is the user's password; slow on purpose.

    Raises:
        InvalidRequest: it is not.
    """
    stored = session.get_one(User, user_id).password_hash
    if not passwords.verify_password(stored, password):
        raise InvalidRequest(
            "the password is wrong",
            code="wrong_password",
            errors=[FieldProblem(field="password", message="is not your present password")],
        )


def change_password(db: Database, caller: Caller, present: str, new: str) -> None:
    """Choose another password; all other browsers are signed out.

    Raises:
        InvalidRequest: the present one is wrong.
    """
    with db.read() as session:
        must_be_password(session, caller.user_id, present)
    hashed = passwords.hash_password(new)
    with db.write() as tx:
        tx.session.get_one(User, caller.user_id).password_hash = hashed
        tx.audit(caller.signature, "user.password_changed", caller.user_id)
        sessions.end_sessions(tx, caller.user_id, caller.signature, but=caller.credential_id)


def offer_reset(
    tx: Transaction, user: User, signature: str, *, clears_second_factor: bool
) -> ResetTokenView:
    """A token with which this user chooses a password, in place of an earlier one; told once."""
    token = secrets.new_secret(SecretKind.RESET)
    tx.session.execute(delete(ResetToken).where(ResetToken.user_id == user.id))
    expires_at = tx.now + RESET_LIFETIME
    tx.session.add(
        ResetToken(
            user_id=user.id,
            token_hash=secrets.digest(token),
            expires_at=expires_at,
            clears_second_factor=clears_second_factor,
        )
    )
    tx.audit(signature, "user.reset_offered", user.id, clears_second_factor=clears_second_factor)
    return ResetTokenView(username=user.username, token=token, expires_at=expires_at)


def reset_password(db: Database, token: str, new: str) -> str:
    """Use a token up and choose the password; all browsers are signed out. Gives the user's name.

    Raises:
        NotPermitted: the token is unknown, used or too old, or the user is disabled.
    """
    digest = secrets.digest(token)
    with db.read() as session:
        _offered(session, digest, db)
    hashed = passwords.hash_password(new)
    with db.write() as tx:
        offered, user = _offered(tx.session, digest, db)
        gone = tx.session.execute(
            delete(ResetToken).where(ResetToken.token_hash == digest).returning(ResetToken.user_id)
        ).scalar()
        if gone is None:
            raise _void()
        user.password_hash = hashed
        signature = f"user:{user.username}"
        tx.audit(signature, "user.password_reset", user.id)
        if offered.clears_second_factor:
            second_factor.remove(tx, user.id, signature)
        sessions.end_sessions(tx, user.id, signature)
        return user.username


def _offered(session: Session, digest: str, db: Database) -> tuple[ResetToken, User]:
    row = session.execute(
        select(ResetToken, User)
        .join(User, User.id == ResetToken.user_id)
        .where(ResetToken.token_hash == digest)
    ).one_or_none()
    if row is None or row.ResetToken.expires_at <= db.clock() or row.User.disabled_at:
        raise _void()
    return row.ResetToken, row.User


def _void() -> NotPermitted:
    return NotPermitted(
        "this token does not reset a password (any more)",
        code="wrong_reset_token",
        hint="ask an admin for a new one; each counts once, for a day",
    )

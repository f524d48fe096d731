"""Codes of an authenticator beside the password (TOTP, RFC 6238), and recovery codes."""

import hmac
import secrets as randomness
from datetime import datetime

import pyotp
import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from st_controller.auth import secrets
from st_controller.auth.vault import Sealed, SealError, Vault
from st_controller.errors import Conflict, InvalidRequest, NotSignedIn, Unavailable
from st_controller.services.actor import Actor
from st_controller.store.database import Database
from st_controller.store.schema import RecoveryCode, SecondFactor
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.sign_in import SecondFactorSecret, SecondFactorView

log = structlog.get_logger(__name__)

STEP_SECONDS = 30
DRIFT_STEPS = 1
"""Steps by which the clock of an authenticator may be off."""
RECOVERY_CODES = 10
_GROUPS, _GROUP = 4, 4
ISSUER = "st-fleet"


def view(session: Session, user_id: str) -> SecondFactorView:
    """Whether codes are asked for, and how many recovery codes are left."""
    found = session.get(SecondFactor, user_id)
    left = select(func.count()).select_from(RecoveryCode).where(RecoveryCode.user_id == user_id)
    return SecondFactorView(
        on=is_on(session, user_id),
        since=found.confirmed_at if found else None,
        recovery_codes=session.scalar(left) or 0,
    )


def is_on(session: Session, user_id: str) -> bool:
    """Whether a code is asked for beside the password."""
    found = session.get(SecondFactor, user_id)
    return found is not None and found.confirmed_at is not None


def begin(db: Database, vault: Vault, actor: Actor) -> SecondFactorSecret:
    """A fresh secret for an authenticator; it counts once a code of it was shown.

    Raises:
        Conflict: there is one in force.
    """
    secret = pyotp.random_base32()
    try:
        sealed = vault.seal(secret.encode(), _place(actor.user_id))
    except SealError as error:
        raise _cannot(error) from error
    with db.write() as tx:
        found = tx.session.get(SecondFactor, actor.user_id, with_for_update=True)
        if found is not None and found.confirmed_at is not None:
            raise Conflict(
                "there is a second factor already", code="second_factor_on", hint="remove it first"
            )
        if found is None:
            found = SecondFactor(user_id=actor.user_id)
            tx.session.add(found)
        found.key_id, found.wrapped_key, found.box = sealed.key_id, sealed.wrapped_key, sealed.box
        found.created_at, found.confirmed_at, found.last_step = tx.now, None, 0
        tx.audit(actor.signature, "second_factor.begun", actor.user_id)
    uri = pyotp.TOTP(secret).provisioning_uri(name=actor.username, issuer_name=ISSUER)
    return SecondFactorSecret(secret=secret, uri=uri)


def confirm(db: Database, vault: Vault, actor: Actor, code: str) -> list[str]:
    """Put the factor into force, as this code shows that it works; recovery codes, told once.

    Raises:
        Conflict: none was begun, or it is in force.
        InvalidRequest: the code is wrong.
    """
    with db.read() as session:
        found = session.get(SecondFactor, actor.user_id)
    if found is None or found.confirmed_at is not None:
        raise Conflict("there is no second factor that waits for its first code")
    step = _step_of(vault, found, code, db.clock())
    if step is None:
        raise wrong_code()
    codes = [_new_code() for _ in range(RECOVERY_CODES)]
    with db.write() as tx:
        _take_step(tx, actor.user_id, step, confirmed_at=tx.now)
        tx.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == actor.user_id))
        tx.session.add_all(
            RecoveryCode(
                id=new_id("rec"), user_id=actor.user_id, code_hash=_hash(actor.user_id, it)
            )
            for it in codes
        )
        tx.audit(actor.signature, "second_factor.on", actor.user_id)
    return codes


def prove(db: Database, vault: Vault, user_id: str, signature: str, code: str) -> bool:
    """Whether this is a code of the user's authenticator, or a recovery code; each counts once."""
    with db.read() as session:
        found = session.get(SecondFactor, user_id)
    if found is None or found.confirmed_at is None:
        return False
    step = _step_of(vault, found, code, db.clock())
    with db.write() as tx:
        if step is not None:
            return _take_step(tx, user_id, step)
        used = tx.session.execute(
            delete(RecoveryCode)
            .where(RecoveryCode.user_id == user_id, RecoveryCode.code_hash == _hash(user_id, code))
            .returning(RecoveryCode.id)
        ).scalar()
        if used is None:
            return False
        tx.audit(signature, "second_factor.recovery_code_used", user_id)
        return True


def remove(tx: Transaction, user_id: str, signature: str) -> None:
    """Ask for no code any more."""
    tx.session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    gone = tx.session.execute(
        delete(SecondFactor)
        .where(SecondFactor.user_id == user_id)
        .returning(SecondFactor.confirmed_at)
    ).all()
    if gone:
        tx.audit(signature, "second_factor.off", user_id)


def wrong_code() -> InvalidRequest:
    """The refusal of a code that does not fit."""
    problem = FieldProblem(field="code", message="is not the one that the authenticator shows now")
    return InvalidRequest("the code is wrong", code="wrong_second_factor", errors=[problem])


def needed() -> NotSignedIn:
    """The refusal of a password without a code."""
    return NotSignedIn(
        "this account asks for a code beside the password",
        code="second_factor_needed",
        hint="give the code that your authenticator shows, or a recovery code",
    )


def refused() -> NotSignedIn:
    """The refusal of a wrong code at the door."""
    return NotSignedIn(
        "the code is wrong, or was used already",
        code="wrong_second_factor",
        hint="wait for the next code; where the authenticator is lost, give a recovery code",
    )


def _step_of(vault: Vault, found: SecondFactor, code: str, now: datetime) -> int | None:
    """The time step of which this is the code; none: of none around now that is still open."""
    sealed = Sealed(found.key_id, found.wrapped_key, found.box)
    try:
        totp = pyotp.TOTP(vault.open(sealed, _place(found.user_id)).decode())
    except SealError as error:
        raise _cannot(error) from error
    middle = int(now.timestamp()) // STEP_SECONDS
    said = code.replace(" ", "").encode("utf-8", "replace")
    for step in range(middle - DRIFT_STEPS, middle + DRIFT_STEPS + 1):
        if step > found.last_step and hmac.compare_digest(totp.generate_otp(step).encode(), said):
            return step
    return None


def _take_step(
    tx: Transaction, user_id: str, step: int, *, confirmed_at: datetime | None = None
) -> bool:
    """Use a step up; false where somebody else was faster."""
    values: dict[str, object] = {"last_step": step}
    if confirmed_at is not None:
        values["confirmed_at"] = confirmed_at
    taken = tx.session.execute(
        update(SecondFactor)
        .where(SecondFactor.user_id == user_id, SecondFactor.last_step < step)
        .values(values)
        .returning(SecondFactor.user_id)
    ).scalar()
    return taken is not None


def _new_code() -> str:
    """Eighty random bits, such as ``7k2m-q0xv-...``."""
    letters = [randomness.choice(secrets.ALPHABET) for _ in range(_GROUPS * _GROUP)]
    return "-".join("".join(letters[n : n + _GROUP]) for n in range(0, len(letters), _GROUP))


def _hash(user_id: str, code: str) -> str:
    plain = code.replace("-", "").replace(" ", "").lower()
    return secrets.digest(f"recovery {user_id} {plain}")


def _place(user_id: str) -> str:
    return f"second factor {user_id}"


def _cannot(error: SealError) -> Unavailable:
    log.error("second factors cannot be used", why=str(error))
    return Unavailable("codes cannot be checked just now")

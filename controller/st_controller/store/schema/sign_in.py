"""What people sign in with beside their password, and how they get a new one."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from st_controller.store.schema.base import Digest, Id, Table


class SecondFactor(Table):
    """The shared secret of a person's authenticator (TOTP, RFC 6238), sealed."""

    __tablename__ = "second_factors"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    key_id: Mapped[str] = mapped_column(String(40))
    wrapped_key: Mapped[bytes]
    box: Mapped[bytes]
    created_at: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]
    """None: a code of it was never shown, so it is not asked for."""
    last_step: Mapped[int] = mapped_column(BigInteger)
    """The time step of the newest code that was taken; older ones are not taken any more."""


class RecoveryCode(Table):
    """Opens an account once in place of a code of the authenticator."""

    __tablename__ = "recovery_codes"

    code_hash: Mapped[str] = mapped_column(Digest, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    id: Mapped[str] = mapped_column(Id)


class ResetToken(Table):
    """Lets a person choose a password, once; at most one a person."""

    __tablename__ = "reset_tokens"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    token_hash: Mapped[str] = mapped_column(Digest, unique=True)
    expires_at: Mapped[datetime]
    clears_second_factor: Mapped[bool]

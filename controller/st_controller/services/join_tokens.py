"""Join tokens: what lets new workers in, so many times, for so long."""

from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session as OrmSession

from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind
from st_controller.errors import NotFound, NotSignedIn
from st_controller.store.schema import JoinToken
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.resources import JoinTokenCreated, JoinTokenRequest, JoinTokenView


def create_token(
    transaction: Transaction, request: JoinTokenRequest, *, user_id: str, actor: str
) -> JoinTokenCreated:
    """A new join token; the only time its secret is told."""
    secret = secrets.new_secret(SecretKind.JOIN_TOKEN)
    token = JoinToken(
        id=new_id("join"),
        token_hash=secrets.digest(secret),
        created_by=user_id,
        created_at=transaction.now,
        expires_at=transaction.now + timedelta(seconds=request.expires_in_seconds),
        uses_left=request.uses,
        labels=dict(request.labels),
        provider=request.provider,
        revoked_at=None,
    )
    transaction.session.add(token)
    transaction.audit(
        actor,
        "join_token.created",
        token.id,
        uses=request.uses,
        labels=dict(request.labels),
        provider=request.provider,
    )
    return JoinTokenCreated(**view(token).model_dump(), token=secret)


def list_tokens(session: OrmSession, *, cursor: str | None, limit: int) -> list[JoinToken]:
    """Tokens that were not revoked, used up and expired ones too, newest first."""
    query = select(JoinToken).where(JoinToken.revoked_at.is_(None))
    if cursor:
        query = query.where(JoinToken.id < cursor)
    return list(session.scalars(query.order_by(JoinToken.id.desc()).limit(limit)))


def revoke_token(transaction: Transaction, token_id: str, *, actor: str) -> None:
    """Let nobody join with it any more; workers that joined stay.

    Raises:
        NotFound: there is no such token in force.
    """
    ended = transaction.session.execute(
        update(JoinToken)
        .where(JoinToken.id == token_id, JoinToken.revoked_at.is_(None))
        .values(revoked_at=transaction.now)
        .returning(JoinToken.id)
    ).all()
    if not ended:
        raise NotFound(f"there is no join token {token_id!r}")
    transaction.audit(actor, "join_token.revoked", token_id)


def token_in_force(transaction: Transaction, secret: str, *, is_spent: bool = False) -> JoinToken:
    """The row of this token, locked until the transaction ends, which takes one of its uses.

    ``is_spent``: it has been used for whoever asks, and need not have another use.

    Raises:
        NotSignedIn: it is unknown, expired, revoked or used up.
    """
    token = None
    if secrets.kind_of(secret) is SecretKind.JOIN_TOKEN:
        token = transaction.session.scalar(
            select(JoinToken)
            .where(
                JoinToken.token_hash == secrets.digest(secret),
                JoinToken.revoked_at.is_(None),
                JoinToken.expires_at > transaction.now,
                JoinToken.uses_left >= (0 if is_spent else 1),
            )
            .with_for_update()
        )
    if token is None:
        raise NotSignedIn(
            "this join token is unknown, expired, revoked or used up",
            code="bad_join_token",
            hint="copy it whole, or make a new one with `st join-token create`",
        )
    return token


def view(token: JoinToken) -> JoinTokenView:
    """The token without its secret."""
    return JoinTokenView.model_validate(token, from_attributes=True)

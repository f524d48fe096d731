"""API keys: what a pipeline or the ``st`` command signs in with."""

from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network

from sqlalchemy import select, update
from sqlalchemy.orm import Session as OrmSession

from st_controller.auth import secrets
from st_controller.auth.passwords import UNUSABLE
from st_controller.auth.secrets import SecretKind
from st_controller.domain.policy.permissions import PERMISSIONS
from st_controller.errors import Conflict, InvalidRequest, NotFound
from st_controller.services.caller import Caller
from st_controller.store.schema import ApiKey, User
from st_controller.store.transaction import CREDENTIALS, Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.resources import ApiKeyCreated, ApiKeyRequest, ApiKeyView

Network = IPv4Network | IPv6Network


def create_key(transaction: Transaction, caller: Caller, request: ApiKeyRequest) -> ApiKeyCreated:
    """A new key of the caller; the only time its secret is told.

    A key made through a key gets no more than that key's permissions, and ends no later.

    Raises:
        InvalidRequest: a scope is unknown.
    """
    return _make(transaction, caller, caller.user_id, request, _scopes(caller, request.scopes))


def create_key_for(
    transaction: Transaction, caller: Caller, owner: User, request: ApiKeyRequest
) -> ApiKeyCreated:
    """A key of an account without password, which cannot make one itself.

    As with keys of one's own, a key that makes it bounds its end and its networks.

    Raises:
        Conflict: the owner is a person, who makes keys themself.
        InvalidRequest: a scope is unknown.
    """
    if owner.password_hash != UNUSABLE:
        raise Conflict(
            f"{owner.username} has a password, and makes keys themself",
            code="makes_own_keys",
            hint="make a user without password for a pipeline",
        )
    scopes = None if request.scopes is None else sorted(set(_known(request.scopes)))
    return _make(transaction, caller, owner.id, request, scopes)


def _make(
    transaction: Transaction,
    caller: Caller,
    owner_id: str,
    request: ApiKeyRequest,
    scopes: list[str] | None,
) -> ApiKeyCreated:
    secret = secrets.new_secret(SecretKind.API_KEY)
    key = ApiKey(
        id=new_id("key"),
        user_id=owner_id,
        name=request.name,
        prefix=secrets.shown_prefix(secret),
        key_hash=secrets.digest(secret),
        scopes=scopes,
        addresses=_addresses(caller, request.addresses),
        created_at=transaction.now,
        expires_at=_end(transaction.now, request.expires_in_days, caller),
        last_used_at=None,
        revoked_at=None,
    )
    transaction.session.add(key)
    said = {"name": key.name, "scopes": scopes, "addresses": key.addresses}
    if owner_id != caller.user_id:
        said["owner"] = owner_id
    transaction.audit(caller.signature, "api_key.created", key.id, **said)
    return ApiKeyCreated(**view(key).model_dump(), key=secret)


def list_keys(session: OrmSession, user_id: str, *, cursor: str | None, limit: int) -> list[ApiKey]:
    """A user's keys in force or expired, newest first, from below ``cursor``."""
    query = select(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    if cursor:
        query = query.where(ApiKey.id < cursor)
    return list(session.scalars(query.order_by(ApiKey.id.desc()).limit(limit)))


def revoke_key(
    transaction: Transaction, caller: Caller, key_id: str, owner_id: str | None = None
) -> None:
    """End a key at once: one of the caller's, or of a user whose keys the caller may end.

    Raises:
        NotFound: they have no such key.
    """
    owner = owner_id or caller.user_id
    ended = transaction.session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.user_id == owner, ApiKey.revoked_at.is_(None))
        .values(revoked_at=transaction.now)
        .returning(ApiKey.id)
    ).all()
    if not ended:
        raise NotFound(f"there is no API key {key_id!r}")
    transaction.audit(caller.signature, "api_key.revoked", key_id)
    transaction.wake(CREDENTIALS)


def note_use(transaction: Transaction, key_id: str) -> None:
    """Remember that the key was used just now."""
    transaction.session.execute(
        update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=transaction.now)
    )


def view(key: ApiKey) -> ApiKeyView:
    """The key without its secret."""
    return ApiKeyView.model_validate(key, from_attributes=True)


def _scopes(caller: Caller, asked: list[str] | None) -> list[str] | None:
    if asked is None:
        return None if caller.via == "session" else sorted(caller.permissions)
    return sorted(caller.permissions.intersection(_known(asked)))


def _known(asked: list[str]) -> list[str]:
    unknown = sorted(set(asked) - PERMISSIONS.keys())
    if unknown:
        raise InvalidRequest(
            f"unknown scopes: {', '.join(unknown)}",
            code="unknown_scope",
            hint=f"choose from {', '.join(sorted(PERMISSIONS))}",
            errors=[FieldProblem(field="scopes", message=f"unknown: {', '.join(unknown)}")],
        )
    return asked


def _addresses(caller: Caller, asked: list[str] | None) -> list[str] | None:
    """Networks of a new key; one that is made through a bound key is bound as that is."""
    if asked is None:
        return list(caller.addresses) if caller.addresses is not None else None
    try:
        networks = [ip_network(item, strict=False) for item in asked]
    except ValueError as error:
        message = f"{error}; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
        raise InvalidRequest(
            "this is no network", errors=[FieldProblem(field="addresses", message=message)]
        ) from None
    if caller.addresses is not None:
        bounds = [ip_network(item) for item in caller.addresses]
        wider = [net for net in networks if not any(_within(net, bound) for bound in bounds)]
        if wider:
            message = f"{wider[0]} is more than this key may use itself"
            raise InvalidRequest(
                "a key cannot make a wider one",
                errors=[FieldProblem(field="addresses", message=message)],
            )
    return [str(network) for network in networks]


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _end(now: datetime, days: int | None, caller: Caller) -> datetime | None:
    asked = now + timedelta(days=days) if days else None
    bound = caller.expires_at if caller.via == "api_key" else None
    ends = [end for end in (asked, bound) if end is not None]
    return min(ends, default=None)

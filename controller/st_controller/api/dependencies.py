"""What routes ask for: the platform, the caller, and the permission that they declare.

Every route declares who may call it, by one of ``requires``, ``browser_session``, ``signed_in``,
``public``, ``worker_credential``, ``join_token`` and ``signed_url``; a test refuses a route that
does not.

    @router.post("/jobs")
    def submit(platform: PlatformDep, caller: Annotated[Caller, requires("job.submit")]) -> ...
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import iter_route_contexts

from st_controller.api import session_cookie
from st_controller.api.origin import refuse_other_sites
from st_controller.api.session_cookie import cookie_name
from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind, kind_of
from st_controller.domain.policy.permissions import PERMISSIONS
from st_controller.domain.policy.reach import Reach
from st_controller.errors import NotPermitted, NotSignedIn
from st_controller.platform import Platform
from st_controller.services import api_keys, identity, sessions, worker_credentials
from st_controller.services.caller import Caller, WorkerCaller
from st_controller.services.known_credentials import Holder, KnownCredentials

_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-real-ip"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


async def get_platform(request: Request) -> Platform:
    """The parts of this process."""
    platform: Platform = request.app.state.platform
    return platform


PlatformDep = Annotated[Platform, Depends(get_platform)]


@dataclass(frozen=True)
class Registrar:
    """Who registers a worker: one that has its credential, or a holder of a join token."""

    worker: WorkerCaller | None
    join_token: str | None
    """As given; whether it is in force is checked where it is used up."""


@dataclass(frozen=True)
class Access:
    """A route's declaration of who may call it; calling it gives the caller."""

    declared: str
    """A permission, or ``public``, ``signed in``, ``session``, ``worker``, ``join``, ``url``,
    ``metrics``."""
    check: Callable[[Request], Awaitable[Any]]
    asks: frozenset[str] = frozenset()
    """Every permission that makes a difference to what the route answers."""

    async def __call__(self, request: Request) -> Any:
        """Let the request pass, or refuse it."""
        return await self.check(request)


def requires(permission: str, *also: str) -> Any:
    """A ``Caller`` that holds ``permission``.

    ``also`` names what the route asks for beyond it: for the things of others, or for what the body
    wants.
    """
    asks = _known(permission, *also)

    async def check(request: Request) -> Caller:
        caller = await _caller(request)
        caller.must(permission)
        return caller

    return Depends(Access(permission, check, asks))


def requires_any(*permissions: str, also: Sequence[str] = ()) -> Any:
    """A ``Caller`` that holds at least one of these; ``also`` as in ``requires``."""
    asks = _known(*permissions, *also)

    async def check(request: Request) -> Caller:
        caller = await _caller(request)
        if not caller.permissions.intersection(permissions):
            raise NotPermitted(f"this needs the permission {' or '.join(map(repr, permissions))}")
        return caller

    return Depends(Access(" or ".join(permissions), check, asks))


def _known(*permissions: str) -> frozenset[str]:
    for permission in permissions:
        if permission not in PERMISSIONS:
            raise ValueError(f"{permission!r} is no permission; see domain/policy/permissions.py")
    return frozenset(permissions)


def browser_session() -> Any:
    """A ``Caller`` who is signed in in a browser; no key, whatever its scopes."""
    return Depends(Access("session", _browser))


def signed_in() -> Any:
    """A ``Caller``, whatever its permissions are."""
    return Depends(Access("signed in", _caller))


def worker_credential() -> Any:
    """A ``WorkerCaller``."""
    return Depends(Access("worker", _worker))


def join_token() -> Any:
    """A ``Registrar``: worker credential or join token."""
    return Depends(Access("join", _registrar))


def signed_url() -> Any:
    """Nobody in particular: the route verifies the signature in its URL."""
    return Depends(Access("url", _anybody))


def public() -> Any:
    """Everybody."""
    return Depends(Access("public", _anybody))


def metrics_reader() -> Any:
    """Who may scrape: this machine, holders of a key, or everybody where that is configured."""
    return Depends(Access("metrics", _metrics_reader))


def browser_caller(request: Request, platform: Platform) -> Caller | None:
    """Who is signed in in this browser, if anybody is."""
    token = request.cookies.get(cookie_name(platform))
    if not token:
        return None
    with platform.db.read() as session:
        return identity.caller_by_session(session, token, platform.db.clock())


def declared_access(app: FastAPI) -> Iterator[tuple[str, str, list[str]]]:
    """Each route's method, path and declarations, of which it should have exactly one."""
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods or {"*"}):
            yield method, route.path or "", _declarations(getattr(route, "dependant", None))


def asked_permissions(app: FastAPI) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Each route's method and path, and the permissions that make a difference to its answers."""
    for route in iter_route_contexts(app.routes):
        asks = frozenset[str]().union(
            *(access.asks for access in _accesses(getattr(route, "dependant", None)))
        )
        for method in sorted(route.methods or {"*"}):
            yield method, route.path or "", asks


def _declarations(dependant: Any) -> list[str]:
    return [access.declared for access in _accesses(dependant)]


def _accesses(dependant: Any) -> list[Access]:
    if dependant is None:
        return []
    found = [dependant.call] if isinstance(dependant.call, Access) else []
    for inner in dependant.dependencies:
        found += _accesses(inner)
    return found


async def _anybody(_request: Request) -> None:
    """Let everybody pass."""


async def _caller(request: Request) -> Caller:
    platform: Platform = request.app.state.platform
    bearer = _bearer(request)
    secret = bearer or request.cookies.get(cookie_name(platform))
    if bearer and kind_of(bearer) is None:
        raise NotSignedIn(
            "this key is mistyped or cut off: its checksum does not fit", code="mistyped_key"
        )
    caller = await _holder(platform.callers, platform, _user, secret)
    if caller is None or (caller.via == "api_key") != bool(bearer):
        raise NotSignedIn(
            "this key is unknown, expired or revoked" if bearer else "no valid session or key came"
        )
    if not caller.may_come_from(address_of(request)):
        raise NotPermitted(
            "this key may not be used from here",
            code="address_not_allowed",
            hint="make a key for this address, or use it from where it belongs",
        )
    if caller.via == "session":
        if request.method not in SAFE_METHODS:
            refuse_other_sites(request, platform.settings.public_url)
        await session_cookie.renew(request, platform, caller)
    return caller


async def _browser(request: Request) -> Caller:
    caller = await _caller(request)
    if caller.via != "session":
        raise NotPermitted(
            "no key may do this", code="needs_session", hint="sign in with a browser"
        )
    return caller


def address_of(request: Request) -> str:
    """Where a request comes from; a proxy's word for it counts where the proxy is trusted."""
    return request.client.host if request.client else ""


async def _holder(
    known: KnownCredentials[Holder],
    platform: Platform,
    look_up: Callable[[Platform, str], Holder | None],
    secret: str | None,
) -> Holder | None:
    """Who holds this secret; only what was not looked up a moment ago costs a thread.

    Those who show it at the same time share one look, unless something has ended since it began.
    """
    if not secret:
        return None
    digest, now = secrets.digest(secret), platform.db.clock()
    holder = known.recall(digest, now)
    if holder is not None:
        return holder
    key = (digest, known.forgotten)
    look = known.looks.get(key)
    if look is None:
        look = known.looks[key] = asyncio.ensure_future(
            run_in_threadpool(known.find, digest, now, lambda: look_up(platform, secret))
        )
        look.add_done_callback(lambda _: known.looks.pop(key, None))
    return await asyncio.shield(look)


def _user(platform: Platform, secret: str) -> Caller | None:
    """The holder of an API key or of a session."""
    if secrets.kind_of(secret) is SecretKind.SESSION:
        return _session_user(platform, secret)
    with platform.db.read() as session:
        found = identity.caller_by_api_key(session, secret, platform.db.clock())
    if found is None:
        return None
    caller, note_use = found
    if note_use:
        with platform.db.write() as transaction:
            api_keys.note_use(transaction, caller.credential_id)
    return caller


def _session_user(platform: Platform, token: str) -> Caller | None:
    with platform.db.read() as session:
        found = identity.session_by_token(session, token, platform.db.clock())
    if found is None:
        return None
    if not found.is_noted:
        digest = secrets.digest(token)
        sessions.note_use(platform.db, found.caller.credential_id, digest, found.use)
    return None if found.use is sessions.Use.STALE else found.caller


def _worker_by(platform: Platform, credential: str) -> WorkerCaller | None:
    """The holder of a worker's credential; one that is used for the first time comes into force."""
    with platform.db.read() as session:
        known = identity.worker_by_credential(session, credential)
        if known is not None:
            return known
        fresh = identity.worker_by_next_credential(session, credential)
    if fresh is None:
        return None
    with platform.db.write() as transaction:
        if worker_credentials.take_into_force(transaction, fresh.digest):
            return fresh
    # Meanwhile somebody has used the same one, or it has become void.
    with platform.db.read() as session:
        return identity.worker_by_credential(session, credential)


async def _metrics_reader(request: Request) -> None:
    platform: Platform = request.app.state.platform
    if not (platform.settings.metrics_public or _is_local(request)):
        caller = await _caller(request)
        if caller.reach("job.view.all") is not Reach.SYSTEM:
            raise NotPermitted("figures of all organisations need the reach of the whole system")


def _is_local(request: Request) -> bool:
    """Whether the client is on this machine, and did not come by a proxy."""
    if not _FORWARDED.isdisjoint(request.headers):
        return False
    try:
        return ip_address(address_of(request)).is_loopback
    except ValueError:
        return False


async def worker_of(platform: Platform, request: Request) -> WorkerCaller:
    """The worker whose credential came.

    Raises:
        NotSignedIn: none came that is in force.
    """
    worker = await _holder(platform.workers, platform, _worker_by, _bearer(request))
    if worker is None:
        raise NotSignedIn(
            "no valid worker credential came",
            code="bad_worker_credential",
            hint="join again: `st-worker join URL --token T`",
        )
    return worker


async def _worker(request: Request) -> WorkerCaller:
    return await worker_of(request.app.state.platform, request)


async def registrar_of(platform: Platform, request: Request) -> Registrar:
    """The worker that registers, or the join token that came; errors as of ``worker_of``."""
    bearer = _bearer(request)
    # A token that is cut off or mistyped is a bad token to its holder, not a bad credential.
    if bearer and kind_of(bearer) is not SecretKind.WORKER:
        return Registrar(worker=None, join_token=bearer)
    return Registrar(worker=await worker_of(platform, request), join_token=None)


async def _registrar(request: Request) -> Registrar:
    return await registrar_of(request.app.state.platform, request)


def _bearer(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


WorkerDep = Annotated[WorkerCaller, worker_credential()]
CallerDep = Annotated[Caller, signed_in()]

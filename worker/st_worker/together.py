"""Calls of one kind that come while one is under way, made as one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from st_worker.errors import WorkerError

log = structlog.get_logger(__name__)

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, eq=False)
class _Entry(Generic[Ask, Answer]):
    """A request, and the future that its answer is put into."""

    ask: Ask
    answered: "asyncio.Future[Answer]"


class NotAnswered(Exception):
    """The call for all said nothing of this one, or failed; it goes on alone."""


class Together(Generic[Ask, Answer]):
    """Nobody waits for a crowd to form: whoever comes alone is served at once.

    ``once`` makes one call for all requests that wait, and gives an answer or an error for each,
    in their order. Where the call itself fails, each goes on ``alone``, with all its patience, so
    that none harms or holds up the others; so does one that is answered with ``NotAnswered``.
    """

    def __init__(
        self,
        once: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | WorkerError | NotAnswered]]],
        alone: Callable[[Ask], Awaitable[Answer]],
        most: int,
    ) -> None:
        self._once, self._alone, self._most = once, alone, most
        self._waiting: list[_Entry[Ask, Answer]] = []
        self._sender: asyncio.Task[None] | None = None

    async def do(self, ask: Ask) -> Answer:
        """The answer to this request, or its error."""
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Entry(ask, answered))
        if self._sender is None:
            # In a context of its own: it serves many attempts, and log lines name theirs.
            self._sender = asyncio.get_running_loop().create_task(self._send(), context=Context())
        try:
            return await answered
        except NotAnswered:
            return await self._alone(ask)

    async def close(self) -> None:
        """Send nothing more; whoever waits is cancelled."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    async def _send(self) -> None:
        part: list[_Entry[Ask, Answer]] = []
        try:
            while self._waiting:
                part, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                part = [entry for entry in part if not entry.answered.done()]  # some were cancelled
                if part:
                    await self._answer(part)
        finally:
            self._sender = None
            for entry in [*part, *self._waiting]:
                entry.answered.cancel()  # nothing happens to those that were answered

    async def _answer(self, part: Sequence[_Entry[Ask, Answer]]) -> None:
        answers: Sequence[Answer | BaseException]
        try:
            answers = await self._once([entry.ask for entry in part])
        except WorkerError as error:
            log.debug("call.failed", requests=len(part), why=str(error))
            answers = [NotAnswered() for _ in part]
        except Exception as error:  # noqa: BLE001 - a defect, raised where it is waited for
            answers = [_own(error) for _ in part]
        if len(answers) != len(part):
            said = f"{len(part)} requests were given {len(answers)} answers"
            answers = [AssertionError(said) for _ in part]
        for entry, answer in zip(part, answers, strict=True):
            if entry.answered.done():  # whoever asked was cancelled
                continue
            if isinstance(answer, BaseException):
                entry.answered.set_exception(answer)
            else:
                entry.answered.set_result(answer)


def _own(error: Exception) -> Exception:
    """An error of the same kind for one of many who are told of it; each raises its own."""
    kind = type(error)
    own = kind.__new__(kind, *error.args)
    own.__dict__.update(error.__dict__)
    own.__cause__ = error
    return own

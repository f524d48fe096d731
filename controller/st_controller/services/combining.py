"""Requests of one kind that come at the same time, answered with one piece of work in a thread."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

from st_controller.errors import Unavailable

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

MOST = 64
"""Requests that are answered together, unless it is said otherwise."""
GIVEN = 16
"""Answers that are handed out in one go: whoever has one works on, and others wait meanwhile."""
GATHERED = 0.02
"""Seconds at most for ``gather``, where a call may wait so long."""
MOST_WAITING = 10_000
"""Requests that may wait at one time."""


@dataclass(frozen=True, slots=True, eq=False)
class _Entry(Generic[Ask, Answer]):
    """One request, and the future that its answer is put into."""

    ask: Ask
    answered: "asyncio.Future[Answer]"


class Combining(Generic[Ask, Answer]):
    """Those who come while a thread is at work are served together by the next.

    ``together`` gives each of many requests, in their order, an answer or the error that belongs to
    it; if it raises it has served none of them. What it raises among ``retried`` says that it was
    because of one of them, so each is tried ``alone``. Both run in a thread. One object serves one
    event loop. Where nobody is in a hurry, ``rest`` seconds between two pieces let crowds form;
    with ``gather``, a piece that served several is followed by a rest as long as it took, of so
    many seconds at most: where several came at once more are coming.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Ask]], Sequence[Answer | BaseException]],
        alone: Callable[[Ask], Answer],
        retried: tuple[type[Exception], ...],
        most: int = MOST,
        rest: float = 0.0,
        gather: float = 0.0,
    ) -> None:
        self._together, self._alone, self._retried = together, alone, retried
        self._most, self._rest, self._gather = most, rest, gather
        self._line: deque[_Entry[Ask, Answer]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def do(self, ask: Ask) -> Answer:
        """The answer, or the error that belongs to this request.

        Whoever is cancelled may have been served all the same.

        Raises:
            Unavailable: too many wait already.
        """
        if len(self._line) >= MOST_WAITING:
            raise Unavailable("too many requests wait; try again in a moment")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._line.append(_Entry(ask, answered))
        if self._worker is None:
            # In a context of its own: it serves many requests, and log lines name theirs.
            self._worker = asyncio.get_running_loop().create_task(self._work(), context=Context())
        return await answered

    async def _work(self) -> None:
        part: list[_Entry[Ask, Answer]] = []
        loop = asyncio.get_running_loop()
        try:
            while self._line:
                part = [self._line.popleft() for _ in range(min(self._most, len(self._line)))]
                begun = loop.time()
                answers = await asyncio.to_thread(self._answer, [entry.ask for entry in part])
                for number, (entry, answer) in enumerate(zip(part, answers, strict=True), start=1):
                    _give(entry, answer)
                    if number % GIVEN == 0:
                        await asyncio.sleep(0)
                rest = min(loop.time() - begun, self._gather) if len(part) > 1 else 0.0
                if rest := max(rest, self._rest):
                    part = []
                    await asyncio.sleep(rest)
        finally:
            self._worker = None
            for entry in [*part, *self._line]:
                entry.answered.cancel()  # nothing happens to those that were answered
            self._line.clear()

    def _answer(self, asks: Sequence[Ask]) -> Sequence[Answer | BaseException]:
        if len(asks) == 1:
            return [self._answer_alone(asks[0])]
        try:
            return _as_many(self._together(asks), asks)
        except self._retried:
            return [self._answer_alone(ask) for ask in asks]
        except BaseException as error:  # noqa: BLE001 - raised where each of them waits
            return [_own(error) for _ in asks]

    def _answer_alone(self, ask: Ask) -> Answer | BaseException:
        try:
            return self._alone(ask)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            return error


def _own(error: BaseException) -> BaseException:
    """An error of the same kind for one of many who are told of it.

    Whoever raises an exception writes to it; one that many tasks raise would gather the traceback
    and the context of them all.
    """
    kind = type(error)
    own = kind.__new__(kind, *error.args)
    own.__dict__.update(error.__dict__)
    own.__cause__ = error
    return own


def _as_many(
    answers: Sequence[Answer | BaseException], asks: Sequence[Ask]
) -> Sequence[Answer | BaseException]:
    if len(answers) != len(asks):
        raise AssertionError(f"{len(asks)} requests were given {len(answers)} answers")
    return answers


def _give(entry: _Entry[Ask, Answer], answer: Answer | BaseException) -> None:
    if entry.answered.done():  # whoever asked has gone
        return
    if isinstance(answer, BaseException):
        entry.answered.set_exception(answer)
    else:
        entry.answered.set_result(answer)

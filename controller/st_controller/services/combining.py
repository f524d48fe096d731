"""Requests of one kind that come at the same time, answered with one piece of work."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

MOST = 64
"""Requests that are answered together."""


class _Entry(Generic[Ask, Answer]):
    """One request; its gate opens when it was answered, or when it is its turn to lead."""

    __slots__ = ("answer", "ask", "error", "gate", "is_answered")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.is_answered = False
        self.gate = Lock()
        self.gate.acquire()


class Combining(Generic[Ask, Answer]):
    """Whoever comes while nobody works does so for itself and for all who wait by then.

    ``together`` answers many requests, in their order, or none of them; what it raises among
    ``retried`` says that nothing was done because of one of them, so each is tried ``alone``.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Ask]], Sequence[Answer]],
        alone: Callable[[Ask], Answer],
        retried: tuple[type[Exception], ...],
    ) -> None:
        self._together, self._alone, self._retried = together, alone, retried
        self._mutex = Lock()
        self._line: deque[_Entry[Ask, Answer]] = deque()
        self._is_led = False

    def do(self, ask: Ask) -> Answer:
        """The answer, or the error that belongs to this request."""
        entry: _Entry[Ask, Answer] = _Entry(ask)
        with self._mutex:
            self._line.append(entry)
            leads, self._is_led = not self._is_led, True
        if not leads:
            entry.gate.acquire()
        if not entry.is_answered:
            self._lead(entry)
        if entry.error is not None:
            raise entry.error
        return entry.answer  # type: ignore[return-value]

    def _lead(self, own: _Entry[Ask, Answer]) -> None:
        with self._mutex:  # whoever leads stands first
            part = [self._line.popleft() for _ in range(min(MOST, len(self._line)))]
        self._answer(part)
        with self._mutex:
            following = self._line[0] if self._line else None
            self._is_led = following is not None
        if following:
            following.gate.release()
        for entry in part:
            entry.is_answered = True
            if entry is not own:
                entry.gate.release()

    def _answer(self, part: Sequence[_Entry[Ask, Answer]]) -> None:
        if len(part) == 1:
            self._answer_alone(part[0])
            return
        try:
            answers = self._together([entry.ask for entry in part])
        except self._retried:
            for entry in part:
                self._answer_alone(entry)
        except BaseException as error:  # noqa: BLE001 - raised where each of them waits
            for entry in part:
                entry.error = error
        else:
            for entry, answer in zip(part, answers, strict=True):
                entry.answer = answer

    def _answer_alone(self, entry: _Entry[Ask, Answer]) -> None:
        try:
            entry.answer = self._alone(entry.ask)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            entry.error = error

"""Calls into drivers, which may never return."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """A call took longer than it may; it goes on in its thread."""


def answer_within(seconds: float, call: Callable[[], T]) -> T:
    """What ``call`` returns or raises, or ``NoAnswer``.

    The thread is a daemon: one that hangs in a driver keeps no process from ending.
    """
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # noqa: BLE001  (it is raised where it is waited for)
            outcome.append((None, error))

    thread = threading.Thread(target=run, name="probe", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise NoAnswer
    answer: Any
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer  # type: ignore[no-any-return]

"""Work beside the training: one thread, a bounded queue, and outcomes that are collected later."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue, SimpleQueue
from threading import Thread
from typing import Generic, NoReturn, TypeVar

Outcome = TypeVar("Outcome")


class _Hand(Thread):
    """The thread of a ``Background``."""


class Background(Generic[Outcome]):
    """Does tasks one after another in a thread of its own, which never holds the training up.

    What a task gives, or the exception that it raised, waits in ``finished``. The thread does not
    keep the process alive.
    """

    def __init__(self, name: str, most: int) -> None:
        """``most`` tasks may wait; further ones are refused."""
        self._tasks: Queue[Callable[[], Outcome] | None] = Queue(most)
        self._done: SimpleQueue[Outcome | Exception] = SimpleQueue()
        self._thread = _Hand(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], Outcome]) -> bool:
        """Do ``task`` later; False: too many are waiting, and it is forgotten."""
        try:
            self._tasks.put_nowait(task)
        except Full:
            return False
        return True

    def finished(self) -> list[Outcome | Exception]:
        """What has been done since this was last asked."""
        found: list[Outcome | Exception] = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def close(self, patience: float) -> int:
        """Wait at most so many seconds until all is done; how many tasks are left then."""
        waiting = self._tasks.all_tasks_done
        with waiting:
            waiting.wait_for(lambda: not self._tasks.unfinished_tasks, patience)
            left = self._tasks.unfinished_tasks
        with suppress(Full):  # then the thread ends with the process, see ``leave``
            self._tasks.put_nowait(None)
        if not left:
            self._thread.join()
        return left

    def _work(self) -> None:
        while task := self._tasks.get():
            try:
                self._done.put(task())
            except Exception as error:  # noqa: BLE001 -- the outermost loop: it is handed on
                self._done.put(error)
            finally:
                self._tasks.task_done()


def leave(code: str | int | None) -> NoReturn:
    """End the process with the ``code`` of a ``SystemExit``, whatever a task is still waiting for.

    A thread that is inside of a library when the interpreter goes is unwound there, and C++ code
    that allows no such thing ends the process by SIGABRT: a run that has succeeded would fail.
    """
    if isinstance(code, int) and any(isinstance(each, _Hand) for each in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

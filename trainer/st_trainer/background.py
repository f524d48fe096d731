"""Work beside the training: one thread, a bounded queue, and outcomes that are collected later."""

from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Outcome = TypeVar("Outcome")


class Background(Generic[Outcome]):
    """Does tasks one after another in a thread of its own, which never holds the training up.

    What a task gives, or the exception that it raised, waits in ``finished``. The thread does not
    keep the process alive.
    """

    def __init__(self, name: str, most: int) -> None:
        """``most`` tasks may wait; further ones are refused."""
        self._tasks: Queue[Callable[[], Outcome] | None] = Queue(most)
        self._done: SimpleQueue[Outcome | Exception] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
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
        with suppress(Full):  # then the thread ends with the process
            self._tasks.put_nowait(None)
        if not left:  # one that is there when the interpreter goes can take the process down
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

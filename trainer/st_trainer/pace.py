"""How fast a run goes, and when it will end."""

from collections import deque
from collections.abc import Callable

_MARKS = 20


class Pace:
    """Steps a second over the last few marks; ``timer`` gives seconds that never go back."""

    def __init__(self, steps: int, timer: Callable[[], float]) -> None:
        self._steps = steps
        self._timer = timer
        self._marks: deque[tuple[int, float]] = deque(maxlen=_MARKS)

    def mark(self, step: int) -> tuple[float | None, float | None]:
        """Note that ``step`` steps are done; gives steps a second and the seconds that remain."""
        self._marks.append((step, self._timer()))
        (first, begun), (last, now) = self._marks[0], self._marks[-1]
        if last == first or now <= begun:
            return None, None
        speed = (last - first) / (now - begun)
        return speed, (self._steps - step) / speed

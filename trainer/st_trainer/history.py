"""The loss of the whole run, in bounded memory, so that its curve survives a resume."""

from typing import Any

MAX_POINTS = 4096


class LossHistory:
    """Mean losses with the step at which each mean ends, oldest first.

    Whenever ``MAX_POINTS`` are full, neighbours are merged in pairs and every later point stands
    for twice as many additions: a long run keeps its whole shape, evenly.
    """

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []
        self._stride = 1
        self._pending: list[tuple[int, float]] = []
        self.window: list[float] = []
        """Losses of the single steps since the last addition."""

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "LossHistory":
        """The history whose ``state`` was saved."""
        history = cls()
        history._points = [(step, loss) for step, loss in state["points"]]
        history._stride = state["stride"]
        history._pending = [(step, loss) for step, loss in state["pending"]]
        history.window = list(state["window"])
        return history

    @property
    def state(self) -> dict[str, Any]:
        """Everything that ``restored`` needs; JSON can hold it, and later steps do not alter it."""
        return {
            "points": list(self._points),
            "stride": self._stride,
            "pending": list(self._pending),
            "window": list(self.window),
        }

    @property
    def points(self) -> list[tuple[int, float]]:
        """``(step, loss)``, oldest first."""
        return self._points + ([_merged(self._pending)] if self._pending else [])

    def close_window(self, step: int) -> float:
        """Add the mean loss of the steps since the last addition, and give it."""
        mean = sum(self.window) / len(self.window)
        self.window = []
        self.add(step, mean)
        return mean

    def recent(self, steps: int) -> float | None:
        """Mean loss over about the last ``steps`` steps; None before the first."""
        if not self.points:
            return sum(self.window) / len(self.window) if self.window else None
        newest = self.points[-1][0]
        found = [loss for step, loss in self.points if step > newest - steps]
        return sum(found) / len(found)

    def add(self, step: int, loss: float) -> None:
        """Add a mean loss that ends at ``step``."""
        self._pending.append((step, loss))
        if len(self._pending) < self._stride:
            return
        self._points.append(_merged(self._pending))
        self._pending = []
        if len(self._points) == MAX_POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [_merged(list(pair)) for pair in pairs]
            self._stride *= 2


def _merged(points: list[tuple[int, float]]) -> tuple[int, float]:
    return points[-1][0], sum(loss for _, loss in points) / len(points)

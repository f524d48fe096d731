"""How much of what a script prints is kept: a rate, a volume, and a count of the rest."""

LINES_A_SECOND = 1_000
BURST_LINES = 20_000
"""Lines that may come at once, before the rate counts."""
MOST_BYTES = 64 * 2**20
"""Of all lines of an attempt together."""
_LINE_COST_BYTES = 64
"""What a line costs beside its text, so that empty ones are bounded too."""


class Allowance:
    """Decides line by line, by a clock that is passed in; sentences for people tell what was cut.

    Once the rate is exceeded, lines are cut until a second's worth may come again: so the note
    about them is one line in a thousand, not every other.
    """

    def __init__(self, now: float) -> None:
        self._lines, self._since = float(BURST_LINES), now
        self._bytes = 0
        self._is_closed = False
        self._cut_lines = self._cut_bytes = 0

    def admits(self, size: int, now: float) -> bool:
        """Whether a line of ``size`` bytes is kept; ``now`` in seconds of a monotonic clock."""
        self._lines = min(BURST_LINES, self._lines + LINES_A_SECOND * (now - self._since))
        self._since = now
        if self._lines >= LINES_A_SECOND:
            self._is_closed = False
        elif self._lines < 1:
            self._is_closed = True
        if self._is_closed or self.is_spent:
            self._cut_lines += 1
            self._cut_bytes += size
            return False
        self._lines -= 1
        self._bytes += size + _LINE_COST_BYTES
        return True

    @property
    def is_spent(self) -> bool:
        """Whether no line will be kept any more."""
        return self._bytes >= MOST_BYTES

    def take_note(self) -> str | None:
        """What was cut since the last note; none when nothing was."""
        if not self._cut_lines:
            return None
        why = (
            f"the log of an attempt holds {MOST_BYTES // 2**20} MiB"
            if self.is_spent
            else f"a script may print {LINES_A_SECOND} lines a second"
        )
        note = f"{self._cut_lines} lines ({self._cut_bytes} bytes) were cut: {why}"
        self._cut_lines = self._cut_bytes = 0
        return note

"""Where the scheduler still has to look, as sets of shapes and of jobs."""

from dataclasses import dataclass, field

EVERYTHING = -1
"""All shapes, those that nobody has asked for yet included."""


@dataclass(slots=True)
class Attention:
    """What changed since it was looked at, and what was looked at without success."""

    stuck: int = 0
    """Gangs of which one node fits, but not all."""
    in_vain: int = 0
    """Shapes for which room beside or before what is reserved was sought and not found."""
    unexamined: int = EVERYTHING
    """Shapes of which the head of the line may need a reservation."""
    each_urgent: int = EVERYTHING
    """Shapes of which urgent jobs are looked at once, whoever stands before them: those that came,
    and all from time to time. At every decision, many that wait in vain would cost too much."""
    given_back: set[str] = field(default_factory=set)
    """Jobs that lost their reservation in this decision to a higher level; once is enough, for
    what is reserved changes who is within its share, and so who has risen."""
    freed: set[str] = field(default_factory=set)
    """Jobs on whose reserved workers slots came free since they were looked at."""

    started: set[str] = field(default_factory=set)
    """Jobs that this decision started: nobody has offered them yet, so none of them can yield."""

    def begin(self) -> None:
        """A new decision may find what the last one did not."""
        self.in_vain = 0
        self.given_back.clear()
        self.started.clear()

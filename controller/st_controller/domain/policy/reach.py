"""How far a permission over the things of others goes."""

from enum import IntEnum
from typing import NamedTuple


class Reach(IntEnum):
    """Whose things a permission covers; each covers those before it too."""

    OWN = 0
    """What one made oneself."""
    TEAM = 1
    """What belongs to the teams that one is in."""
    ORG = 2
    """What belongs to one's organisation."""
    SYSTEM = 3
    """Everything."""

    @property
    def word(self) -> str:
        """As it is written in requests and tables."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> "Reach":
        """The reach that is written so.

        Raises:
            KeyError: there is none.
        """
        return cls[word.upper()]


class Owner(NamedTuple):
    """Whose a thing is."""

    user_id: str | None
    """Who made it; none: it belongs to the team or the organisation alone."""
    org: str
    team: str | None
    """None: it belongs to the organisation as a whole."""

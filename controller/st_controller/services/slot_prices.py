"""What a slot-second weighs in the fair share, by accelerator and provider."""

from collections.abc import Mapping
from fnmatch import fnmatchcase


class SlotPrices:
    """A table of globs; the first that matches counts, none: 1.

    Keys are ``accelerator`` or ``provider/accelerator`` globs, letter case ignored.
    """

    def __init__(self, table: Mapping[str, float] | None = None) -> None:
        self._table = {glob.lower(): price for glob, price in (table or {}).items()}
        self._known: dict[tuple[str, str], float] = {}

    def of(self, accelerator: str, provider: str) -> float:
        """The weight of one slot of this kind."""
        key = (accelerator, provider)
        price = self._known.get(key)
        if price is None:
            price = self._known[key] = self._look_up(accelerator.lower(), provider.lower())
        return price

    def _look_up(self, accelerator: str, provider: str) -> float:
        for glob, price in self._table.items():
            where, slash, what = glob.rpartition("/")
            if fnmatchcase(accelerator, what) and (not slash or fnmatchcase(provider, where)):
                return price
        return 1.0

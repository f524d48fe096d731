"""What an hour of a slot costs, by accelerator and provider."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from st_controller.domain.policy.globs import covers, matches, may_meet

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a slot-hour of what these globs match; letter case is ignored."""

    accelerator: str
    provider: str
    micros: int
    """Of the currency, an hour of one slot."""
    since: datetime
    """Moment from which it holds."""

    @property
    def rank(self) -> tuple[int, int, int, int, str, str]:
        """The most specific has the highest.

        Without wildcards before with, longer before shorter, the accelerator before the provider;
        the text decides between equals.
        """
        return (
            _WILD.isdisjoint(self.accelerator),
            len(self.accelerator.replace("*", "")),
            _WILD.isdisjoint(self.provider),
            len(self.provider.replace("*", "")),
            self.accelerator,
            self.provider,
        )

    def matches(self, accelerator: str, provider: str) -> bool:
        """Whether it is meant for such a slot."""
        return matches(self.accelerator, accelerator) and matches(self.provider, provider)


@dataclass(frozen=True)
class PriceList:
    """Prices in force at one moment, the most specific first; what none matches is free."""

    prices: tuple[Price, ...] = ()
    _known: dict[tuple[str, str], int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def at(cls, moment: datetime, prices: Iterable[Price]) -> "PriceList":
        """The prices that hold at a moment: of equal globs, the one that came into force last."""
        newest: dict[tuple[str, str], Price] = {}
        for price in sorted(prices, key=lambda price: price.since):
            if price.since <= moment:
                newest[price.accelerator.lower(), price.provider.lower()] = price
        return cls(tuple(sorted(newest.values(), key=lambda price: price.rank, reverse=True)))

    def of(self, accelerator: str, provider: str) -> int:
        """Micro-units that an hour of one such slot costs."""
        found = self._known.get((accelerator, provider))
        if found is None:
            matching = (each for each in self.prices if each.matches(accelerator, provider))
            price = next(matching, None)
            found = self._known[accelerator, provider] = price.micros if price else 0
        return found

    def dearest(self, accelerators: str, provider: str) -> int:
        """The most that an hour of one slot can cost which a request may get.

        ``accelerators`` are globs joined by ``|`` and ``provider`` is a glob, as in a job file.
        What may match a price counts, whether or not such a worker is here now: it may come.
        """
        return max(
            (self._dearest(glob.strip(), provider) for glob in accelerators.split("|")), default=0
        )

    def _dearest(self, accelerator: str, provider: str) -> int:
        most = 0
        for price in self.prices:
            if may_meet(price.accelerator, accelerator) and may_meet(price.provider, provider):
                most = max(most, price.micros)
                if covers(price.accelerator, accelerator) and covers(price.provider, provider):
                    break  # all that the request can get has this price or one before
        return most

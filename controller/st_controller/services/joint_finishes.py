"""Ends of attempts that many workers tell of at the same time, written in one transaction."""

from collections.abc import Sequence

from st_controller.errors import Refusal
from st_controller.services import finishing
from st_controller.services.combining import GATHERED, Combining
from st_controller.services.finishing import Ending
from st_controller.store.database import Database, DatabaseError

MOST = 16
"""Calls in one transaction; each may tell of many attempts."""

Call = tuple[Ending, ...]
Refused = dict[str, Refusal]


class JointFinishes:
    """Ends attempts; those of many workers cost one commit, and a refusal only its own.

    One at a time writes here, so events have their places from the beginning.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        # Both are raised before anything is committed.
        retried = (Refusal, DatabaseError)
        self._combining = Combining(self._together, self._alone, retried, MOST, gather=GATHERED)

    async def take(self, call: Call) -> Refused:
        """End attempts of a worker; what was refused comes back, and the others are over."""
        return await self._combining.do(call)

    def _alone(self, call: Call) -> Refused:
        (refused,) = self._together([call])
        return refused

    def _together(self, calls: Sequence[Call]) -> list[Refused]:
        with self._db.write(places_events=True) as tx:
            answers = iter(finishing.finish_all(tx, [each for call in calls for each in call]))
        told = [[(each.attempt_id, next(answers)) for each in call] for call in calls]
        return [
            {attempt_id: error for attempt_id, error in call if error is not None} for call in told
        ]

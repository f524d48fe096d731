"""The stream of one job: its states and every line of its journal, exactly once and in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from st_controller.events.frames import frame_of
from st_controller.platform import Platform
from st_controller.services import topics
from st_controller.services.history import is_over, transitions_after
from st_controller.services.journal_pieces import ALL, following
from st_controller.services.paging import LARGEST
from st_shared.protocol import sse
from st_shared.protocol.resources import StateChange

PAGE = 500
REPAIR_SECONDS = 1.0
"""The longest that a line waits when its wake-up was missed."""
PING_SECONDS = 10.0


@dataclass(frozen=True)
class JobPlace:
    """Where a follower stands; written as ``version.attempt.seq`` in event ids."""

    version: int = 0
    attempt: int = 0
    seq: int = 0

    @classmethod
    def parse(cls, text: str | None) -> "JobPlace":
        """The place that an event id names; anything else is the beginning."""
        parts = (text or "").split(".")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            return cls()
        numbers = [int(part) for part in parts]
        return cls(*numbers) if max(numbers) <= LARGEST else cls()

    def __str__(self) -> str:
        return f"{self.version}.{self.attempt}.{self.seq}"


async def follow_job(
    platform: Platform, job_id: str, place: JobPlace
) -> AsyncGenerator[bytes, None]:
    """Encoded events after ``place``; ends after the job's final state and all its lines."""
    with platform.hub.follow(topics.job(job_id)) as bell:
        silence = 0.0
        while True:
            frames, place, over = await asyncio.to_thread(_news, platform, job_id, place)
            for frame in frames:
                yield frame
            if over:
                return
            if frames:
                silence = 0.0
                continue
            if not await bell.heard(REPAIR_SECONDS):
                silence += REPAIR_SECONDS
            if silence >= PING_SECONDS:
                silence = 0.0
                yield sse.PING


def _news(platform: Platform, job_id: str, place: JobPlace) -> tuple[list[bytes], JobPlace, bool]:
    """What is stored after ``place``, in the order of time, and whether that is the end.

    The final state comes after every line, whatever the clock of the worker says.
    """
    with platform.db.read() as session:
        found = following(session, job_id, ALL, (place.attempt, place.seq), PAGE)
        changes = deque(transitions_after(session, job_id, place.version))
        over = is_over(session, job_id)
    lines = platform.lines.lines(found.pieces, after=(place.attempt, place.seq), limit=PAGE)
    is_last_page = found.is_all and len(lines) < PAGE
    encoded: list[bytes] = []
    for line in lines:
        while changes and changes[0].at <= line.at and not _is_the_end(changes):
            place = _tell(changes.popleft(), place, encoded)
        place = JobPlace(place.version, line.attempt, line.seq)
        frame = frame_of(line)
        encoded.append(sse.encode(frame.event, frame.data, str(place)))
    while changes and is_last_page:
        place = _tell(changes.popleft(), place, encoded)
    return encoded, place, over and is_last_page


def _is_the_end(changes: Sequence[StateChange]) -> bool:
    """Whether the next change is final and nobody has retried the job since."""
    return len(changes) == 1 and changes[0].state.is_final


def _tell(change: StateChange, place: JobPlace, encoded: list[bytes]) -> JobPlace:
    """Append a change of state; gives the place after it."""
    after = JobPlace(change.version, place.attempt, place.seq)
    encoded.append(sse.encode("state", change.model_dump_json(), str(after)))
    return after

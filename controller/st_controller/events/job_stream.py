"""The stream of one job: its states and every line of its journal, exactly once and in order."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from st_controller.events.frames import frame_of
from st_controller.platform import Platform
from st_controller.services import journal, topics
from st_controller.services.history import is_over, transitions_after
from st_controller.services.paging import LARGEST
from st_controller.store.database import ReadSession
from st_shared.protocol import sse

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
    with platform.db.read() as session:
        lines = journal.read(session, job_id, after=(place.attempt, place.seq), limit=PAGE)
        encoded: list[bytes] = []
        for line in lines:
            place = JobPlace(place.version, line.attempt, line.seq)
            frame = frame_of(line)
            encoded.append(sse.encode(frame.event, frame.data, str(place)))
        if len(lines) == PAGE:
            return encoded, place, False
        # States are told after the lines that were stored before them.
        more, place, over = _states(session, job_id, place)
        return encoded + more, place, over


def _states(
    session: ReadSession, job_id: str, place: JobPlace
) -> tuple[list[bytes], JobPlace, bool]:
    encoded: list[bytes] = []
    for change in transitions_after(session, job_id, place.version):
        place = JobPlace(change.version, place.attempt, place.seq)
        encoded.append(sse.encode("state", change.model_dump_json(), str(place)))
    return encoded, place, is_over(session, job_id)

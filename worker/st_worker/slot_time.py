"""For how long an attempt has had its slots, by a clock that nobody sets.

It goes on through restarts of the agent and stands still while the host sleeps. A host that was
started again has another one: then there is nothing left of the attempt that could use a slot.
"""

import time
from functools import lru_cache
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ConfigDict

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Instant(BaseModel):
    """A reading of ``time.monotonic``, which counts from the start of the host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boot: str
    """Tells this start of the host from others."""
    seconds: float

    @classmethod
    def now(cls) -> Self:
        """The present one."""
        return cls(boot=_boot(), seconds=time.monotonic())

    def elapsed(self) -> float | None:
        """Seconds since then; none: the host was started again."""
        return time.monotonic() - self.seconds if self.boot == _boot() else None

    def until(self, ended: float) -> float:
        """Seconds until a reading that something took that ran since then."""
        return max(0.0, ended - self.seconds)


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:  # no Linux
        return f"{psutil.boot_time():.0f}"

"""Who led last from this data folder, so that its successor there need not wait for its lease."""

from pathlib import Path

import structlog

from st_shared.durable import write_whole

log = structlog.get_logger(__name__)

_LONGEST = 120


class LastHolder:
    """A file with the name under which a process of this folder held the lease."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "leader"

    def read(self) -> str | None:
        """The name; none where nobody led from here, or the file cannot be read."""
        try:
            return self._path.read_text()[:_LONGEST].strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            log.warning("the last leader of this folder is not known", error=str(error))
            return None

    def write(self, holder: str) -> None:
        """Keep the name of whoever leads from here now."""
        try:
            write_whole(self._path, f"{holder}\n")
        except OSError as error:  # the next start waits a few seconds longer
            log.warning("who leads could not be written down", error=str(error))

"""A file with one JSON object a line, for programs that read it while the run goes on."""

import json
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker


class JsonLines(GeneralTracker):  # type: ignore[misc]
    """``{"step": 10, "loss": 0.4}`` a line, below ``folder``; the settings stand in the first."""

    name = "jsonl"
    requires_logging_directory = True

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()
        self._path = Path(logging_dir) / f"{run_name}.jsonl"

    @property
    def tracker(self) -> Path:
        """The file."""
        return self._path

    def start(self) -> None:
        """Make the folder."""
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """The settings, as a line."""
        self._append({"config": values})

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """The values of a step, as a line."""
        self._append({"step": step, **values})

    def log_images(self, values: dict[str, list[Any]], step: int | None = None, **_: Any) -> None:
        """Names what was drawn; the pictures lie in the run folder."""
        self._append({"step": step, "samples": sorted(values)})

    def _append(self, document: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document, default=str) + "\n")

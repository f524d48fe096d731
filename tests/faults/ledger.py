"""The runs of a campaign, kept beside its results so that it may be made in slices."""

import json
import subprocess
import threading
from pathlib import Path

from faults.campaign import RunResult
from faults.plan import Plan


class Ledger:
    """A line a run, by seed; each has its moment and the revision of the sources."""

    def __init__(self, path: Path | None, revision: str, *, resume: bool) -> None:
        self._path = path and path.with_name(f"{path.stem}-runs.jsonl")
        self._lock, self._revision = threading.Lock(), revision
        self.runs: dict[int, RunResult] = {}
        if resume and self._path and self._path.exists():
            kept = map(json.loads, self._path.read_text().splitlines())
            self.runs = {run["seed"]: RunResult(**run) for run in kept}

    def is_done(self, wanted: Plan) -> bool:
        """Whether this very run was made before and kept every promise."""
        known = self.runs.get(wanted.seed)
        faults = [str(fault) for fault in wanted.faults]
        return known is not None and known.faults == faults and not known.violations

    def keep(self, result: RunResult) -> None:
        """Write a run down at once; that its seed failed before stays known."""
        result.revision = self._revision
        with self._lock:
            before = self.runs.get(result.seed)
            if before is not None:
                said = [f"{before.revision}: {violation}" for violation in before.violations]
                result.failed_before = before.failed_before + said
            self.runs[result.seed] = result
            if self._path:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                lines = [json.dumps(self.runs[seed].as_document()) for seed in sorted(self.runs)]
                self._path.write_text("".join(f"{line}\n" for line in lines))


def revision() -> str:
    """The commit of the sources, with ``+`` where they were changed since."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        listed = git("status", "--porcelain", "--untracked-files=no", ":!/benchmarks/results")
        return git("rev-parse", "--short", "HEAD") + ("+" if listed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

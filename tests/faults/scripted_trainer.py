"""A trainer without a model: it speaks the whole contract of ``st-train run`` and can be checked.

``python scripted_trainer.py run job.json --run-dir DIR --quiet [--dataset N=P ...] --resume WHERE``

Every number and every byte that it writes follows from the job's seed and the step (``expected.py``
has the same formulas), and it resumes from checkpoints. The standard library alone, so it starts in
a tenth of a second. ``FAULTS_LEDGER`` names a file to which a line is added when it has begun
and when it has done all its steps, outside everything that a worker may delete.
"""

import errno
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from expected import SAMPLE_EVERY, checkpoint_files, log_line, loss, result_files, sample

PREEMPTED, DISK_FULL = 3, 7
WINDOW = 0.03
"""Seconds for which moments last that faults are aimed at."""


class Journal:
    """Appends whole lines and numbers them on from what is there."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        whole = content[: content.rfind(b"\n") + 1]
        os.ftruncate(self._file, len(whole))
        self._size = len(whole)
        lines = whole.splitlines()
        self._seq = json.loads(lines[-1])["seq"] if lines else 0

    def write(self, kind: str, **fields) -> None:
        at = datetime.now(UTC).isoformat()
        event = {"kind": kind, "seq": self._seq + 1, "at": at, **fields}
        line = json.dumps(event).encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)
        self._seq += 1


class Training:
    """The job's steps, one after the other."""

    def __init__(self, arguments: list[str]) -> None:
        self.run = Path(arguments[arguments.index("--run-dir") + 1])
        self.resume = arguments[arguments.index("--resume") + 1]
        self.job = json.loads(Path(arguments[1]).read_text())
        training = self.job["training"]
        self.seed, self.steps = training["seed"], training["steps"]
        self.every, self.log_every = training["checkpoint"]["every"], training["log_every"]
        self.pace = float(os.environ.get("FAULTS_PACE", "0.02"))
        self.journal = Journal(self.run / "journal.ndjson")
        self.wants_stop = False
        signal.signal(signal.SIGTERM, self._stop)

    def work(self) -> int:
        step = self._begin()
        while step < self.steps:
            step += 1
            time.sleep(self.pace)
            self.journal.write("log", message=log_line(self.seed, step))
            if step % self.log_every == 0:
                self.journal.write("metric", step=step, values={"loss": loss(self.seed, step)})
                self.journal.write("progress", phase="training", step=step, steps=self.steps)
            if step % SAMPLE_EVERY == 0:
                self._put(f"samples/step-{step:06d}.png", sample(self.seed, step))
                self.journal.write("sample", step=step, path=f"samples/step-{step:06d}.png")
            if step % self.every == 0 or self.wants_stop:
                self._checkpoint(step)
            if self.wants_stop and step < self.steps:
                return PREEMPTED
        for path, content in result_files(self.seed, self.steps).items():
            self._put(path, content)
            self.journal.write("output", name="weights", path=path)
        self.journal.write("progress", phase="done", step=step, steps=self.steps)
        time.sleep(WINDOW)
        ledger(f"done {self.seed}")
        return 0

    def _begin(self) -> int:
        """The step to go on from, proven by the bytes of the checkpoint."""
        ledger(f"begun {self.seed}")
        if self.resume == "none":
            self.journal.write("log", message="starting at step 0")
            return 0
        folder = Path(self.resume)
        step: int = json.loads((folder / "manifest.json").read_bytes())["step"]
        for name, content in checkpoint_files(self.seed, step).items():
            if (folder / name).read_bytes() != content:
                sys.exit(f"{folder.name}: {name} is not what was written at that step")
        self.journal.write("log", message=f"resumed at step {step}")
        return step

    def _checkpoint(self, step: int) -> None:
        folder = f"checkpoints/step-{step:06d}"
        files = checkpoint_files(self.seed, step)
        for name, content in files.items():
            self._put(f"{folder}/{name}", content)
        time.sleep(WINDOW)
        listed = [
            {"path": name, "size": len(content), "sha256": sha256(content).hexdigest()}
            for name, content in files.items()
        ]
        manifest = {"step": step, "spec_sha256": "0" * 64, "files": listed}
        self._put(f"{folder}/manifest.json", json.dumps(manifest).encode())
        time.sleep(WINDOW)
        self.journal.write("checkpoint", step=step, manifest=f"{folder}/manifest.json")

    def _put(self, path: str, content: bytes) -> None:
        target = self.run / path
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}")
        aside.write_bytes(content)
        aside.replace(target)

    def _stop(self, *_: object) -> None:
        self.wants_stop = True


def ledger(line: str) -> None:
    if path := os.environ.get("FAULTS_LEDGER"):
        with Path(path).open("a") as file:
            file.write(f"{line} {os.getpid()} {time.time():.3f}\n")


def main() -> int:
    try:
        return Training(sys.argv[1:]).work()
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return DISK_FULL
        raise


if __name__ == "__main__":
    sys.exit(main())

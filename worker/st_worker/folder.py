"""The state folder of an agent and the names inside it."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from st_shared.content_cache import ContentCache, default_bytes
from st_shared.protocol.journal import JOURNAL_NAME
from st_worker.errors import UsageError
from st_worker.model_caches import ModelCaches
from st_worker.removal import remove_tree
from st_worker.script.run import SCRIPT_NAME, WORK_NAME
from st_worker.settings import AgentSettings
from st_worker.trainer_cache import TrainerCache
from st_worker.trainer_cache import default_bytes as trainer_bytes

log = structlog.get_logger(__name__)

_ATTEMPT_ID = re.compile(r"att_[0-9a-z]{26}")
"""As ``st_shared.ids.new_id`` makes them."""


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of one attempt."""

    root: Path

    @property
    def run(self) -> Path:
        """Where the trainer writes: journal, checkpoints, samples, results; a script's outputs."""
        return self.root / "run"

    @property
    def journal(self) -> Path:
        """The events of the attempt, NDJSON."""
        return self.run / JOURNAL_NAME

    @property
    def output(self) -> Path:
        """Standard output and error of the trainer, or of what runs a script."""
        return self.run / "output.log"

    @property
    def job(self) -> Path:
        """The JobSpec that the trainer reads."""
        return self.run / "job.json"

    @property
    def script(self) -> Path:
        """What a command job runs."""
        return self.run / SCRIPT_NAME

    @property
    def work(self) -> Path:
        """The folder that a script works in."""
        return self.run / WORK_NAME

    @property
    def record(self) -> Path:
        """The claim and how far it is; see ``record.AttemptRecord``."""
        return self.root / "attempt.json"

    @property
    def kept(self) -> Path:
        """The record of an attempt that is over and whose files no agent removes."""
        return self.root / "kept.json"

    @property
    def has_record(self) -> bool:
        """Whether it is not over, or kept; ``OSError`` where the folder cannot be looked into."""
        return not {self.record, self.kept}.isdisjoint(self.root.iterdir())

    @property
    def shipped(self) -> Path:
        """How much of the journal the controller has acknowledged."""
        return self.root / "shipped.json"

    @property
    def uploaded(self) -> Path:
        """How much of the journal the uploads have worked off."""
        return self.root / "uploaded.json"

    def create(self) -> None:
        """Make the folders."""
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> None:
        """Delete everything; without its record the attempt is forgotten, however far this gets."""
        try:
            self.record.unlink(missing_ok=True)
        except OSError as error:  # a job may have closed the folder
            log.warning("record.not_removed", path=str(self.record), why=str(error))
        remove_tree(self.root)

    def keep(self) -> None:
        """Forget the attempt but leave its files until somebody removes the folder by hand.

        A change of name, so that it needs no room on the disk.
        """
        try:
            self.record.replace(self.kept)
        except OSError as error:
            log.warning("record.not_removed", path=str(self.record), why=str(error))


@dataclass(frozen=True)
class StateFolder:
    """Everything that an agent keeps between two runs, readable by its user alone."""

    root: Path
    cache: Path | None = None
    """Where content is kept that other agents of this user share; none: below ``root``."""
    cache_bytes: int | None = None
    """What the cache may hold; none: half of its disk."""
    trainer_cache_bytes: int | None = None
    """What trainers may keep from job to job; none: a quarter of that disk."""

    def create(self) -> None:
        """Make the folders, or ``UsageError`` where this user may not."""
        try:
            for folder in (self.root, self.attempts, self.datasets):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise UsageError(
                f"cannot make the state folder {self.root}: {error.strerror}; give --state-dir or "
                "ST_WORKER_STATE a folder that this user may write"
            ) from error

    @property
    def credential(self) -> Path:
        """Who this worker is, and its secret."""
        return self.root / "credential.json"

    @property
    def join_key(self) -> Path:
        """While a join token is exchanged: what the worker is known by if it has to ask again."""
        return self.root / "join-key"

    @property
    def pulse(self) -> Path:
        """Touched at every heartbeat, whatever becomes of it."""
        return self.root / "pulse"

    def note_pulse(self) -> None:
        """The agent lives; it may take as long as the disk does."""
        self.pulse.touch()

    @property
    def attempts(self) -> Path:
        """One folder an attempt."""
        return self.root / "attempts"

    @property
    def datasets(self) -> Path:
        """Datasets by digest."""
        return self.cache_root / "datasets"

    @property
    def models(self) -> Path:
        """Pretrained models by organisation."""
        return self.cache_root / "models"

    @property
    def cache_root(self) -> Path:
        """The folder of the cache."""
        return self.cache or self.root / "cache"

    def model_caches(self, settings: AgentSettings) -> ModelCaches:
        """Pretrained models, for each organisation apart."""
        self.models.mkdir(mode=0o700, parents=True, exist_ok=True)
        most = settings.models_gb
        allowed = default_bytes(self.models) if most is None else int(most * 2**30)
        return ModelCaches(self.models, allowed, is_shared=settings.shares_models)

    def content_cache(self) -> ContentCache:
        """The cache of content."""
        self.cache_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ContentCache(self.cache_root, self.cache_bytes or default_bytes(self.cache_root))

    def trainer_cache(self) -> TrainerCache:
        """What trainers keep from job to job."""
        self.cache_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        most = self.trainer_cache_bytes or trainer_bytes(self.cache_root)
        return TrainerCache(self.cache_root / "trainers", most)

    def attempt(self, attempt_id: str) -> AttemptFolder:
        """The folder of an attempt; it need not exist."""
        return AttemptFolder(self.attempts / attempt_id)

    def known_attempts(self) -> list[AttemptFolder]:
        """Attempts that have a record, oldest first."""
        found = self.attempts.glob("*/attempt.json")
        return [AttemptFolder(path.parent) for path in sorted(found)]

    def past_attempts(self) -> list[AttemptFolder]:
        """Folders of attempts that are over and not kept; anything else in there is not ours."""
        found = []
        names = [path.name for path in self.attempts.iterdir()] if self.attempts.exists() else []
        for name in filter(_ATTEMPT_ID.fullmatch, sorted(names)):
            with suppress(OSError):
                folder = self.attempt(name)
                if folder.root.is_symlink() or not folder.root.is_dir():
                    continue
                folder.root.chmod(0o700)  # a job may have closed it
                if not folder.has_record:
                    found.append(folder)
        return found

    def clear(self) -> None:
        """Remove all that agents have put here; what others have put here, or is kept, stays."""
        for attempt in self.past_attempts():
            remove_tree(attempt.root)
        if self.cache is None:
            self.trainer_cache().clear()
            remove_tree(self.models)
            self.content_cache().clear()
        for file in (self.credential, self.join_key, self.pulse, self.root / "lock"):
            file.unlink(missing_ok=True)
        for folder in (self.attempts, self.root):
            with suppress(OSError):  # something stays in it
                folder.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other agents out while the block runs.

        Raises:
            UsageError: another agent runs on this folder.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _locked(descriptor):
                raise UsageError(
                    f"another agent runs on {self.root}: stop it, or give this one "
                    "its own --state-dir"
                )
            yield
        finally:
            os.close(descriptor)

    def is_in_use(self) -> bool:
        """Whether an agent runs on this folder."""
        path = self.root / "lock"
        if not path.exists():
            return False
        descriptor = os.open(path, os.O_RDWR)
        try:
            return not _locked(descriptor)
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Take the lock if it is free; it goes with the descriptor, so never outlives the process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

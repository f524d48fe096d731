"""Pretrained models on this host, for each organisation apart, and bounded together.

A model whose licence somebody had to accept is downloaded with a token of an organisation; jobs of
another one must not find it. So the libraries of Hugging Face keep what they fetch for a job in a
folder that only jobs of the same organisation are given. All of them run as one user: a script that
looks for other folders finds them, so strangers who run scripts belong on workers of their own.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from st_shared.protocol.content import model_kept_as
from st_worker.model_cache import cached_models
from st_worker.removal import opened_folders, remove_tree

log = structlog.get_logger(__name__)

VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ASSETS_CACHE",
    "HF_DATASETS_CACHE",
    "HF_MODULES_CACHE",
    "HF_TOKEN_PATH",
    "HF_XET_CACHE",
    "TRANSFORMERS_CACHE",
    "DIFFUSERS_CACHE",
)
"""Where libraries keep what they fetch, and the token that somebody on the host signed in with."""

YOUNG_SECONDS = 3600.0
"""What was fetched or read so lately is not removed, nor what was since a running job began: a
program may still be loading it, of another agent on the same cache, too."""
_MOST = 1000
_REPOSITORIES = "hub/*--*"
"""In the cache of an organisation."""


@dataclass(frozen=True)
class _Model:
    """One repository in the cache of an organisation."""

    folder: Path
    size: int
    """Bytes on disk."""
    used_at: float
    """When any file of it was fetched or read last, seconds since 1970."""


class ModelCaches:
    """A folder with one for each organisation."""

    def __init__(self, root: Path, max_bytes: int, *, is_shared: bool = False) -> None:
        """``is_shared``: all jobs use the cache of the host's user, as programs outside do."""
        self._root, self._max_bytes, self._is_shared = root, max_bytes, is_shared
        self._held: dict[str, float] = {}
        self.known: list[str] = []
        """What ``look`` found: names that tell nobody else which models of whom are here."""

    def hold(self, user: str, since: float) -> None:
        """Keep whatever was read from ``since`` on, seconds since 1970, until ``release``.

        ``user`` is an attempt, which may have read any of it, and may do so again.
        """
        self._held[user] = since

    def release(self, user: str) -> None:
        """``user`` has ended."""
        self._held.pop(user, None)

    def given(self, environment: Mapping[str, str], org: str) -> dict[str, str]:
        """The environment of a program, led to the folder of its organisation.

        As it was where all share.
        """
        if self._is_shared:
            return dict(environment)
        home = self._root / org
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for model in home.glob(_REPOSITORIES):
            _let_reads_show(model)
        kept = {name: value for name, value in environment.items() if name not in VARIABLES}
        return {**kept, "HF_HOME": str(home)}

    def look(self) -> None:
        """Look which models there are; ``known`` tells it."""
        found = []
        for home in self._homes():
            names = cached_models({"HF_HOME": str(home)})
            found += [model_kept_as(home.name, name) for name in names]
        self.known = sorted(found)[:_MOST]

    def tidy(self, now: float) -> None:
        """After a program has ended: see what it fetched, and keep to the bound."""
        try:
            self.shrink(now)
            self.look()
        except OSError as error:
            log.warning("models.not_tidied", why=str(error))

    def shrink(self, now: float) -> tuple[int, int]:
        """Remove the longest unused until all fit in the bound; how many, and their bytes."""
        models = sorted(self._models(), key=lambda model: model.used_at)
        excess, removed, freed = sum(model.size for model in models) - self._max_bytes, 0, 0
        kept = min([now - YOUNG_SECONDS, *self._held.values()])
        for model in models:
            if freed >= excess or model.used_at > kept:
                break
            if remove_tree(model.folder):
                log.info("model.evicted", name=model.folder.name, bytes=model.size)
                removed, freed = removed + 1, freed + model.size
        return removed, freed

    def _homes(self) -> list[Path]:
        with suppress(OSError):
            return sorted(each for each in self._root.iterdir() if each.is_dir())
        return []

    def _models(self) -> Iterator[_Model]:
        for home in self._homes():
            for folder in home.glob(_REPOSITORIES):
                size, used_at = _measured(folder)
                yield _Model(folder, size, used_at)


def _let_reads_show(root: Path) -> None:
    """Have the next read of each file noted, which most disks do once a day only (``relatime``).

    They note one that follows a change of the file, which setting the mode that it has is.
    """
    for folder in opened_folders(root):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    Path(entry.path).chmod(stat.S_IMODE(entry.stat().st_mode))


def _measured(root: Path) -> tuple[int, float]:
    """Bytes on disk, and when a file of it was written or read last."""
    size, used_at = 0, 0.0
    for folder in opened_folders(root):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                size += found.st_blocks * 512
                if entry.is_file(follow_symlinks=False):  # looking at a folder reads it
                    used_at = max(used_at, found.st_mtime, found.st_atime)
    return size, used_at

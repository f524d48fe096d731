"""The index of a dataset: what is known of every sample, in files that are mapped, not read.

Names are cut into chunks where a hash of a name says so: a new or lost file moves no other border.
A chunk becomes one shard, whose own name is a hash of the names and stamps in it. So whatever is
there already was read before, in this run or one that was interrupted, and is right.
"""

import hashlib
import json
import os
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, TypeVar

from st_shared.durable import write_durably
from st_trainer.data.entry import Entries, Entry
from st_trainer.data.exchange import exchange
from st_trainer.data.shard import SUFFIX, Shard, write_shard
from st_trainer.errors import BadDataError, TrainerError, expected_error
from st_trainer.together import Gather, sharing

T = TypeVar("T")

VERSION = 5
SHARD_ENTRIES = 4_096
"""Files in a shard, on average; what an interruption loses at most is four times that."""
MOST_THREADS = 16
KEPT_SECONDS = 86_400
"""A shard that is no longer wanted stays for so long: another run may be about to open it."""
_LARGEST = 4
_MANIFEST = "index.json"
_AT_ONCE = 64
"""Files that a thread takes at a time."""


def _alone(value: Any) -> list[Any]:
    return [value]


def _silent(_count: int) -> None:
    pass


@dataclass(frozen=True)
class Peers:
    """The processes that make an index together; each reads its part of the chunks."""

    rank: int = 0
    count: int = 1
    gather: Gather = _alone
    """The values of all, in their order."""
    threads: int = min(MOST_THREADS, os.cpu_count() or 1)
    """Of this process."""
    told: Callable[[int], None] = _silent
    """Hears how many more files this process has gone through."""


ALONE = Peers()


class Index:
    """The samples of one dataset, by number, in the order of their names."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self._starts = [0, *accumulate(shard.summary.usable for shard in shards)]

    @classmethod
    def open(cls, folder: Path) -> "Index":
        """The index in ``folder`` as it was last made; nothing is compared with the dataset.

        Raises:
            BadDataError: there is none, it is of another version, or it is damaged.
        """
        try:
            document = json.loads((folder / _MANIFEST).read_bytes())
            if document["version"] != VERSION:
                raise BadDataError(f"the index {folder} is of another version; make it anew")
            return cls([Shard(folder / name) for name in document["shards"]])
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise BadDataError(f"there is no whole index in {folder}: {error}") from None

    def __len__(self) -> int:
        """Number of samples."""
        return self._starts[-1]

    @property
    def skipped_count(self) -> int:
        """Files that cannot be used."""
        return sum(map(len, self.shards)) - len(self)

    @property
    def total(self) -> str:
        """Checksum over all samples, hex; it does not depend on how they are divided."""
        total = sum(int(shard.summary.total, 16) for shard in self.shards)
        return f"{total % (1 << 256):064x}"

    def at(self, number: int) -> tuple[Shard, int]:
        """The shard of a sample, and its row there."""
        place = bisect_right(self._starts, number) - 1
        return self.shards[place], number - self._starts[place]

    def captions(self) -> Iterator[str]:
        """The captions of each sample."""
        for shard in self.shards:
            yield from shard.captions()

    def skipped(self) -> Iterator[Entry]:
        """The files that cannot be used."""
        for shard in self.shards:
            yield from shard.skipped()


def folder_of(source: Entries, root: Path) -> Path:
    """Where below ``root`` the index of ``source`` lies: another setting is another index."""
    return root / hashlib.sha256(f"{VERSION} {source.identity}".encode()).hexdigest()[:16]


def make_index(
    source: Entries,
    folder: Path,
    peers: Peers = ALONE,
    shard_entries: int = SHARD_ENTRIES,
    clock: Callable[[], float] = time.time,
) -> Index:
    """The index of ``source`` in ``folder``; only what is new or has changed is read.

    Every process lists the names. Those that do not see the same ``folder`` send one another what
    they have read; each keeps it where its own files have the same stamps, and reads the others.

    Raises:
        BadDataError: the source cannot be listed, or processes see different files.
        TrainerError: the folder cannot be made.
        OSError: the disk is full.
    """
    _create(folder)
    making = _Making(source, folder)
    with ThreadPoolExecutor(peers.threads, "index") as pool:
        shards: dict[int, str] = {}
        listing = hashlib.sha256()
        for number, names in enumerate(chunks(source.names(), shard_entries)):
            listing.update(os.fsencode("\0".join([*names, ""])))
            if number % peers.count == peers.rank:
                shards[number] = making.shard(names, pool)
                peers.told(len(names))
        mine = list(shards.values())
        for others, listed in peers.gather((shards, listing.digest())):
            _must_be_equal(listed, listing.digest())
            shards |= others
        lacking = [number for number in sorted(shards) if not (folder / shards[number]).exists()]
        if any(peers.gather(bool(lacking))):
            exchange(folder, mine, {shards[number] for number in lacking}, peers.gather)
            place, count = sharing(folder, peers.gather)
            ours = set(lacking[place::count])
            making = _Making(source, folder)  # which knows what has arrived
            made = {
                number: making.shard(names, pool)
                for number, names in enumerate(chunks(source.names(), shard_entries))
                if number in ours
            }
            for number, name in chain.from_iterable(map(dict.items, peers.gather(made))):
                if number in lacking and (folder / name).exists():
                    shards[number] = name
    order = [shards[number] for number in sorted(shards)]
    index = Index([Shard(folder / name) for name in order])
    for total in peers.gather(index.total):
        _must_be_equal(total, index.total)
    if peers.rank == 0:
        _keep(folder, order, clock())
    return index


def chunks(names: Iterable[str], average: int) -> Iterator[list[str]]:
    """``names`` in lists of about ``average``; borders follow from the names at them alone."""
    chunk: list[str] = []
    for name in names:
        chunk.append(name)
        if zlib.crc32(os.fsencode(name)) % average == 0 or len(chunk) == _LARGEST * average:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Making:
    """Reads chunks of ``source`` into shards, and takes from earlier ones what still holds."""

    def __init__(self, source: Entries, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._earlier: list[Shard] | None = None

    def shard(self, names: Sequence[str], pool: Executor) -> str:
        """The name of the shard for ``names``, which is there when this returns."""
        stamps = dict(zip(names, _mapped(pool, self._source.stamp, names), strict=True))
        digest = hashlib.sha256()
        for name, stamp in stamps.items():
            digest.update(os.fsencode(name) + b"\0" + stamp)
        path = self._folder / f"{digest.hexdigest()[:32]}{SUFFIX}"
        if _is_whole(path):
            path.touch()
        else:
            known = {
                entry.name: entry
                for entry in self._known(names[0], names[-1])
                if stamps.get(entry.name) == entry.stamp
            }
            new = [name for name in names if name not in known]
            read = _mapped(pool, lambda name: self._source.read(name, stamps[name]), new)
            known |= {entry.name: entry for entry in read}
            write_shard(path, [known[name] for name in names])
        return path.name

    def _known(self, first: str, last: str) -> Iterator[Entry]:
        """Entries of shards that were there before, with names from ``first`` to ``last``."""
        if self._earlier is None:
            paths = sorted(self._folder.glob(f"[!.]*{SUFFIX}"))
            self._earlier = [Shard(path) for path in paths if _is_whole(path)]
        bounds = os.fsencode(first).hex(), os.fsencode(last).hex()
        for shard in self._earlier:
            if shard.summary.first <= bounds[1] and bounds[0] <= shard.summary.last:
                yield from map(shard.entry, range(len(shard)))


def _mapped(pool: Executor, act: Callable[[str], T], names: Sequence[str]) -> Iterator[T]:
    """``act`` on each of ``names``, in several threads, in order."""
    parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
    for results in pool.map(lambda part: [act(name) for name in part], parts):
        yield from results


def _is_whole(path: Path) -> bool:
    """Whether the shard at ``path`` can be opened; a damaged one is read anew."""
    try:
        Shard(path)
    except (FileNotFoundError, BadDataError):
        return False
    return True


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if expected_error(error):
            raise
        raise TrainerError(
            f"cannot make the index folder {folder}: {error.strerror}; let this user write there, "
            "or name another in ST_INDEX_DIR"
        ) from error


def _must_be_equal(theirs: object, ours: object) -> None:
    if theirs != ours:
        raise BadDataError(
            "training.datasets: the processes do not see the same files; leave the folder alone "
            "while they are read, and give every machine the same ones"
        )


def _keep(folder: Path, shards: Sequence[str], now: float) -> None:
    """Name ``shards`` as those of the index; remove others that no run has used for a day."""
    write_durably(folder / _MANIFEST, json.dumps({"version": VERSION, "shards": shards}))
    wanted = set(shards)
    for path in folder.glob(f"*{SUFFIX}*"):
        if path.name not in wanted and path.stat().st_mtime < now - KEPT_SECONDS:
            path.unlink(missing_ok=True)

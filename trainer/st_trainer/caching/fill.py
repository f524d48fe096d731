"""Encodes what the folders lack ahead of the first step, each process its part."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from st_trainer.caching.encodings import (
    Encodings,
    Kind,
    every_key,
    key_of,
    read_inputs,
    split,
    text_key,
)
from st_trainer.caching.folder import CacheFolder
from st_trainer.caching.known_keys import KEY_BYTES
from st_trainer.data.samples import Samples
from st_trainer.errors import DamagedLaterError
from st_trainer.journal import Journal

Told = Callable[[int, int], None]
"""Hears how much is encoded of how much."""

READERS = 2
"""Threads that read samples, at least: one waits for the disk while another decodes."""
_AHEAD = 4
"""Inputs that each thread has read before they are wanted."""
_AHEAD_BYTES = 1 << 30
"""And that all have together, or else ``_LEAST`` of them."""
_LEAST = 2
_TOLD_SECONDS = 2.0
_BLOCK = 4_096
"""Keys that are looked up at once."""


@dataclass(frozen=True)
class Work:
    """All inputs of one kind, in an order that is always the same."""

    kind: Kind
    keys: Callable[[], Iterator[bytes]]
    """The key of each, in order."""
    shapes: Callable[[NDArray[np.int64]], Sequence[int]]
    """Of the inputs at places: a number that those share which may be encoded together."""
    read: Callable[[Sequence[int]], Any]
    """Inputs at places, which come in rising order where they are read one after another."""


def sample_work(kind: Kind, chosen: Sequence[tuple[Samples, Sequence[int]]]) -> Work:
    """Samples, or their conditioning pictures: of each ``Samples`` those at some indexes."""
    starts = np.cumsum([0, *(len(indexes) for _, indexes in chosen)])

    def at(place: int) -> tuple[int, int]:
        number = int(np.searchsorted(starts, place, "right")) - 1
        return number, chosen[number][1][place - int(starts[number])]

    def keys() -> Iterator[bytes]:
        for samples, indexes in chosen:
            if indexes == range(len(samples)):
                yield from every_key(kind, samples)
            else:
                yield from key_of(kind, samples, indexes)

    def shapes(places: NDArray[np.int64]) -> list[int]:
        found = map(at, places.tolist())
        return [number << 16 | int(chosen[number][0].buckets[index]) for number, index in found]

    def read(places: Sequence[int]) -> Any:
        found = [at(place) for place in places]
        return read_inputs(kind, chosen[found[0][0]][0], [index for _, index in found])

    return Work(kind, keys, shapes, read)


def text_work(captions: Callable[[], Iterable[str]]) -> Work:
    """Captions, which are gone through anew each time that they are asked for."""

    def keys() -> Iterator[bytes]:
        return map(text_key, captions())

    return Work(Kind.TEXT, keys, lambda places: [0] * len(places), _InOrder(captions).read)


class _InOrder:
    """Gives captions at rising places without holding the others."""

    def __init__(self, captions: Callable[[], Iterable[str]]) -> None:
        self._captions = captions
        self._left: Iterator[tuple[int, str]] = iter(())
        self._next: int | None = None

    def read(self, places: Sequence[int]) -> list[str]:
        """The captions at ``places``; a lower one than before begins anew."""
        if self._next is None or places[0] < self._next:
            self._left = iter(enumerate(self._captions()))
        self._next = places[-1] + 1
        wanted, found = set(places), []
        for place, caption in self._left:
            if place in wanted:
                found.append(caption)
                if len(found) == len(wanted):
                    break
        return found


@dataclass(frozen=True)
class Missing:
    """Inputs that a folder has no entry of, each once."""

    keys: NDArray[Any]
    """Sorted, 16 bytes each."""
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def part(self, number: int, count: int) -> "Missing":
        """Those that are this process's of ``count``: which ones follows from their keys."""
        raw = np.frombuffer(self.keys.tobytes(), np.uint8).reshape(-1, KEY_BYTES)
        mine = raw[:, :4].copy().view(np.uint32).reshape(-1) % count == number
        return Missing(self.keys[mine], self.places[mine])


def missing_of(work: Work, folder: CacheFolder) -> Missing:
    """What ``folder`` lacks of ``work``: 24 bytes of memory for each, no more."""
    keys, places, start = bytearray(), bytearray(), 0
    every = work.keys()
    while block := list(islice(every, _BLOCK)):
        lacking = folder.lacks(block)
        keys += b"".join(block[place] for place in lacking)
        places += (np.array(lacking, "<i8") + start).tobytes()
        start += len(block)
    found, first = np.unique(np.frombuffer(bytes(keys), f"S{KEY_BYTES}"), return_index=True)
    return Missing(found, np.frombuffer(bytes(places), "<i8")[first])


def fetch_shared(folder: CacheFolder, missing: Missing, part: int, parts: int) -> None:
    """Bring the files of the bucket here that hold something of ``missing``; each its part."""
    if folder.shared is None or not len(missing):
        return
    here = {path.name for path in folder.folder.iterdir()}
    names = [name for name in sorted(folder.shared.names()) if name not in here]
    for name in names[part::parts]:
        keys = np.array(folder.shared.keys(name), f"S{KEY_BYTES}")
        if np.isin(keys, missing.keys).any():
            folder.fetch([name])


class Filling:
    """Works off what is missing, and tells how far it is."""

    def __init__(
        self,
        encodings: Encodings,
        at_once: int,
        told: Told,
        timer: Callable[[], float] = monotonic,
        stop: Callable[[], bool] = lambda: False,
        readers: int = READERS,
    ) -> None:
        self._encodings, self._at_once, self._readers = encodings, at_once, readers
        self._told, self._timer, self._stop = told, timer, stop
        self._done = self.total = 0
        self.damaged: set[bytes] = set()
        """Keys of samples that are damaged: nothing can be kept of them."""
        self._last = timer()

    def encode(self, work: Work, mine: Missing) -> None:
        """Encode ``mine`` and keep it, until told to stop; other threads read ahead."""
        folder = self._encodings.folders[work.kind]
        chunks = chunks_of(work, mine, self._at_once)
        threads = 1 if work.kind is Kind.TEXT else self._readers  # captions come one by one
        with ThreadPoolExecutor(threads, "read") as pool:
            for (keys, _), (sound, inputs) in read_ahead(pool, work, chunks, threads * _AHEAD):
                if folder.is_full or self._stop():
                    break
                self.damaged.update(set(keys).difference(sound))
                if sound:
                    made = self._encodings.encoded(work.kind, inputs)
                    for key, row in zip(sound, split(made, len(sound)), strict=True):
                        folder.put(key, row)
                self._tell(len(keys))
        folder.flush()

    def _tell(self, more: int) -> None:
        self._done += more
        if self._timer() - self._last >= _TOLD_SECONDS or self._done == self.total:
            self._last = self._timer()
            self._told(self._done, self.total)


Chunk = tuple[list[bytes], list[int]]
"""Keys and places of inputs that are encoded together."""


def chunks_of(work: Work, mine: Missing, at_once: int) -> Iterator[Chunk]:
    """``mine`` in chunks of at most ``at_once`` inputs of one shape, in the order of places."""
    shapes = np.asarray(work.shapes(mine.places))
    order = np.lexsort((mine.places, shapes))
    start = 0
    while start < len(order):
        end = start + 1
        while end < min(start + at_once, len(order)) and shapes[order[end]] == shapes[order[start]]:
            end += 1
        chosen = order[start:end]
        raw = mine.keys[chosen].tobytes()
        keys = [raw[at : at + KEY_BYTES] for at in range(0, len(raw), KEY_BYTES)]
        yield keys, mine.places[chosen].tolist()
        start = end


Read = tuple[list[bytes], Any]
"""Keys of a chunk whose inputs are not damaged, and these; nothing where all are."""


def read_sound(work: Work, chunk: Chunk) -> Read:
    """The inputs of ``chunk`` that are not damaged."""
    keys, places = list(chunk[0]), list(chunk[1])
    while places:
        try:
            return keys, work.read(places)
        except DamagedLaterError as error:
            del keys[error.position], places[error.position]
    return [], None


def read_ahead(
    pool: ThreadPoolExecutor,
    work: Work,
    chunks: Iterable[Chunk],
    most: int,
    room: int = _AHEAD_BYTES,
) -> Iterator[tuple[Chunk, Read]]:
    """Each chunk with its inputs; at most ``most`` are in memory, fewer where they are large."""
    waiting: deque[tuple[Chunk, Future[Read]]] = deque()
    limit = min(_LEAST, most)
    for chunk in chunks:
        waiting.append((chunk, pool.submit(read_sound, work, chunk)))
        while len(waiting) >= limit:
            first, future = waiting.popleft()
            read = future.result()
            size = read[1].nbytes if isinstance(read[1], Tensor) else 0
            limit = min(most, max(_LEAST, room // max(size, 1)))
            yield first, read
    for chunk, future in waiting:
        yield chunk, future.result()


def teller(journal: Journal, parts: int, timer: Callable[[], float] = monotonic) -> Told:
    """Turns what one of ``parts`` processes has done into the progress of all, with time left."""
    begun = timer()

    def tell(done: int, total: int) -> None:
        left = (timer() - begun) / done * (total - done)
        journal.progress("caching", done * parts, total * parts, eta_seconds=max(0.0, left))

    return tell

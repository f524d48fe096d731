"""The index of 10,000,000 samples: how long it takes to make, and what it costs once it is open.

python benchmarks/data_index.py [--quick] [--folder PATH] [--json PATH]

The samples are made up of their numbers, so that the index alone is measured: through the code
that reads folders, without files and decoding. 1 in 1,000 cannot be used, and there are 9 buckets.
What is opened is opened by processes of their own. Of what they map, the kernel takes pages back
when memory is short; what is their own it cannot.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from report import Goal, Result, report

from st_trainer.data.bucket_table import BucketTable
from st_trainer.data.buckets import bucket_sizes
from st_trainer.data.entry import Entry
from st_trainer.data.facts import SampleFacts
from st_trainer.data.index import Index, make_index
from st_trainer.data.sampler import Cursor, ShuffledSampler

COUNT, QUICK_COUNT = 10_000_000, 1_000_000
BATCH = 64
BYTES_A_SAMPLE = Goal("at most", 200)
FIRST_BATCH_SECONDS = Goal("at most", 5)
SAME = Goal("at least", 1)
SIZES = bucket_sizes(1024, 128, 2)[:9]
SAMPLES_A_BATCH = 50_000
"""One batch is looked at for so many samples, so that an index of any size is looked at alike."""


class Synthetic:
    """``count`` samples without files."""

    def __init__(self, count: int) -> None:
        self.identity = f"synthetic {count}"
        self._count = count

    def names(self) -> Iterator[str]:
        """Paths as of a large dataset, 10,000 a folder."""
        return (f"{i // 10_000:05d}/picture-{i % 10_000:04d}.jpg" for i in range(self._count))

    def stamp(self, name: str) -> bytes:
        """A hash of the name, as that of a file's size and time."""
        return hashlib.blake2b(name.encode(), digest_size=16).digest()

    def read(self, name: str, stamp: bytes) -> Entry:
        """What a picture of the name might be."""
        number = int.from_bytes(stamp[:4])
        if number % 1_000 == 0:
            return Entry(name, stamp, reason="damaged image: it ends early")
        height, width = SIZES[number % len(SIZES)]
        return Entry(
            name,
            stamp,
            captions=(f"a photograph of thing {number} beside another, seen from above, {name}",),
            shape=(3, height, width),
            value_bytes=3 * height * width,
            facts=SampleFacts.fitted((1_000 + number % 900, 1_500), (height, width)),
            digest=hashlib.sha256(stamp).digest(),
            changes=("resized from 1500x1000",),
        )


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_COUNT:,} samples")
    parser.add_argument("--folder", type=Path, help="where the index is made; 3 GB at full size")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    parser.add_argument("--opened", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened is not None:
        print(json.dumps(opened(options.folder, Cursor(**json.loads(options.opened)))))
        return 0
    count = QUICK_COUNT if options.quick else COUNT
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = measured(Path(folder), count)
    return 0 if report("data_index", results, options.json) else 1


def measured(folder: Path, count: int) -> list[Result]:
    """Every number, of an index of ``count`` samples in ``folder``."""
    source = Synthetic(count)
    seconds = []
    for _ in range(2):  # the second finds everything unchanged
        begun = time.perf_counter()
        index = make_index(source, folder)
        seconds.append(time.perf_counter() - begun)
    count = len(index)
    size = sum(path.stat().st_size for path in folder.iterdir())
    whole = in_a_process(folder, Cursor())
    resumed = in_a_process(folder, Cursor(**whole["cursor"]))
    name = f"{count:,} samples"
    return [
        Result(f"make the index of {name}", seconds[0], "s", None),
        Result(f"find {name} unchanged", seconds[1], "s", None),
        Result("on disk, a sample", size / count, "B", None),
        Result("the process's own memory, a sample", whole["own"] / count, "B", BYTES_A_SAMPLE),
        Result("with mapped pages that were looked at", whole["all"] / count, "B", BYTES_A_SAMPLE),
        Result("from opening to the first batch", whole["first"], "s", FIRST_BATCH_SECONDS),
        Result("from opening to the first batch, resumed", resumed["first"], "s",
               FIRST_BATCH_SECONDS),
        Result(f"the {len(whole['after'])} batches after the cursor are the same",
               float(resumed["before"] == whole["after"]), "", SAME),
    ]  # fmt: skip


def in_a_process(folder: Path, cursor: Cursor) -> dict:
    """What ``opened`` measures, in a process of its own."""
    state = json.dumps({"epoch": cursor.epoch, "position": cursor.position,
                        "waiting": list(cursor.waiting)})  # fmt: skip
    command = [sys.executable, __file__, "--folder", str(folder), "--opened", state]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def opened(folder: Path, cursor: Cursor) -> dict:
    """Open the index, give batches from ``cursor`` on; memory beyond that of the libraries."""
    process = psutil.Process()
    Index([])
    before, begun = process.memory_info(), time.perf_counter()
    index = Index.open(folder)
    buckets = BucketTable.of(index.shards).numbers
    sampler = ShuffledSampler(np.ones(len(index), np.uint16), 7, cursor, buckets)
    count = len(index) // SAMPLES_A_BATCH
    batches = [named(index, sampler.take(BATCH))]
    first = time.perf_counter() - begun
    batches += [named(index, sampler.take(BATCH)) for _ in range(count - 1)]
    memory = process.memory_info()
    place = sampler.cursor
    after = [named(index, sampler.take(BATCH)) for _ in range(count)]
    return {
        "first": first,
        "own": (memory.rss - memory.shared) - (before.rss - before.shared),
        "all": memory.rss - before.rss,
        "cursor": {"epoch": place.epoch, "position": place.position,
                   "waiting": list(place.waiting)},
        "before": batches,
        "after": after,
    }  # fmt: skip


def named(index: Index, batch: list[int]) -> list[str]:
    """Names and captions of a batch, in one hash each."""
    rows = [index.at(number) for number in batch]
    texts = (f"{shard.name(row)} {shard.captions_of(row)}" for shard, row in rows)
    return [hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts]


if __name__ == "__main__":
    raise SystemExit(main())

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import pytest

from st_trainer.data import exchange as exchange_module
from st_trainer.data import index as index_module
from st_trainer.data.bucket_table import BucketTable
from st_trainer.data.entry import Entry
from st_trainer.data.facts import SampleFacts
from st_trainer.data.index import Index, Peers, chunks, folder_of, make_index
from st_trainer.data.sampler import ShuffledSampler
from st_trainer.errors import BadDataError, TrainerError

BYTES_A_SAMPLE = 200
"""Memory that an opened index and its sampler may take, as the benchmark demands too."""
SHAPES = ((3, 8, 8), (3, 4, 16))


def caption_of(name):
    return f"of {name!a}"


@dataclass
class Synthetic:
    """Samples that are made up of their names; ``marks`` stand for what is in files.

    ``times`` change their stamps alone.
    """

    listed: list[str]
    marks: dict[str, str] = field(default_factory=dict)
    identity: str = "synthetic"
    asked: list[str] = field(default_factory=list)
    dies_after: int | None = None
    times: dict[str, str] = field(default_factory=dict)

    def names(self):
        return iter(self.listed)

    def stamp(self, name):
        marked = self._content(name) + self.times.get(name, "").encode()
        return hashlib.blake2b(marked, digest_size=16).digest()

    def read(self, name, stamp):
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked.append(name)
        if name.startswith("bad"):
            return Entry(name, stamp, reason="damaged")
        number = len(name) % 2
        return Entry(
            name,
            stamp,
            captions=(caption_of(name),),
            shape=SHAPES[number],
            value_bytes=192,
            facts=SampleFacts((900, 700), (0, 1), SHAPES[number][1:]),
            digest=hashlib.sha256(self._content(name)).digest(),
            changes=("resized from 700x900",) if name.endswith("7") else (),
        )

    def _content(self, name):
        return f"{name} {self.marks.get(name)}".encode("utf-8", "surrogateescape")


def numbered(count):
    return [f"{number:05d}" for number in range(count)]


def make(source, folder, **options):
    return make_index(source, folder, shard_entries=8, **options)


def arrows(source, folder):
    make(source, folder)
    return list(folder.glob("*.arrow"))


def names_of(index):
    return [shard.name(row) for shard, row in map(index.at, range(len(index)))]


def test_an_index_gives_back_what_was_read(tmp_path):
    source = Synthetic(sorted(["bad1", "bad2", "caf\udce9", "día", *numbered(100)]))
    index = make(source, tmp_path)
    assert len(index.shards) > 3
    assert names_of(index) == [*numbered(100), "caf\udce9", "día"]
    assert [entry.name for entry in index.skipped()] == ["bad1", "bad2"]
    assert (len(index), index.skipped_count) == (102, 2)
    for number, name in enumerate(names_of(index)):
        shard, row = index.at(number)
        assert shard.entry(row) == source.read(name, source.stamp(name))
        assert shard.summary.buckets[shard.buckets[row]][0] == list(SHAPES[len(name) % 2])
    assert list(index.captions()) == list(map(caption_of, names_of(index)))
    again = Index.open(tmp_path)
    assert (names_of(again), again.total) == (names_of(index), index.total)


def test_what_is_unchanged_is_not_read_again(tmp_path):
    source = Synthetic(["bad", *numbered(60)])
    source.listed.sort()
    total = make(source, tmp_path).total
    source.asked.clear()
    assert make(source, tmp_path).total == total
    assert source.asked == []


@pytest.mark.parametrize("gone", numbered(40))
def test_only_new_and_changed_files_are_read_and_lost_ones_are_gone(tmp_path, gone):
    source = Synthetic(numbered(40))
    make(source, tmp_path)
    source.asked.clear()
    source.listed.remove(gone)
    source.listed = sorted([*source.listed, "00010b", "99999"])
    source.marks["00020"] = "later"
    index = make(source, tmp_path)
    assert sorted(source.asked) == sorted({"00010b", "00020", "99999"} - {gone})
    assert names_of(index) == source.listed
    fresh = make(Synthetic(source.listed, source.marks), tmp_path / "fresh")
    assert index.total == fresh.total


def test_discovery_that_was_interrupted_goes_on(tmp_path):
    source = Synthetic(numbered(100), dies_after=50)
    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path, peers=Peers(threads=1))
    with pytest.raises(BadDataError, match="no whole index"):
        Index.open(tmp_path)
    kept = len(list(tmp_path.glob("*.arrow")))
    assert kept
    source.dies_after = None
    index = make(source, tmp_path)
    assert names_of(index) == numbered(100)
    assert len(source.asked) - 100 < 32  # what one shard can hold at most


def test_a_damaged_shard_is_made_anew_and_told_where_it_is_only_opened(tmp_path):
    source = Synthetic(numbered(60))
    total = make(source, tmp_path).total
    victim = min(tmp_path.glob("*.arrow"))
    victim.write_bytes(victim.read_bytes()[:500])
    with pytest.raises(BadDataError, match=f"{victim.name} is damaged"):
        Index.open(tmp_path)
    source.asked.clear()
    assert make(source, tmp_path).total == total
    assert 0 < len(source.asked) <= 32


def test_shards_that_no_run_wants_go_after_a_day(tmp_path):
    source = Synthetic(numbered(60))
    before = {path.name for path in arrows(source, tmp_path)}
    source.marks["00003"] = "later"
    found = arrows(source, tmp_path)
    assert before < {path.name for path in found}
    born = max(path.stat().st_mtime for path in found)
    index = make(source, tmp_path, clock=lambda: born + index_module.KEPT_SECONDS + 9)
    assert len(list(tmp_path.glob("*.arrow"))) == len(index.shards)
    assert names_of(index) == numbered(60)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        TrainerError, match=r"index folder .*/file/x: Not a directory.*ST_INDEX_DIR"
    ):
        make(Synthetic(["a"]), tmp_path / "file" / "x")


def test_progress_is_told(tmp_path):
    told = []
    make(Synthetic(numbered(60)), tmp_path, peers=Peers(told=told.append))
    assert sum(told) == 60
    assert len(told) == len(list(tmp_path.glob("*.arrow")))


def test_another_setting_is_another_index(tmp_path):
    source = Synthetic([])
    folders = {folder_of(replace(source, identity=name), tmp_path) for name in ("a", "b", "a")}
    assert len(folders) == 2


def together(sources, folders):
    """What each of several processes makes, as threads that meet where they gather."""
    count = len(sources)
    meeting, values = threading.Barrier(count, timeout=120), [None] * count

    def one(rank):
        def gather(value):
            values[rank] = value
            meeting.wait()
            found = list(values)
            meeting.wait()
            return found

        return make(sources[rank], folders[rank], peers=Peers(rank, count, gather, threads=1))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("round_bytes", [1, 20_000, 1 << 20])
@pytest.mark.parametrize("places", ["aaa", "abc", "aab"])
def test_processes_divide_the_reading_whether_they_share_a_folder_or_not(
    tmp_path, places, round_bytes, monkeypatch
):
    monkeypatch.setattr(exchange_module, "ROUND_BYTES", round_bytes)
    sources = [Synthetic(numbered(200)) for _ in places]
    folders = [tmp_path / place for place in places]
    indexes = together(sources, folders)
    alone = make(Synthetic(numbered(200)), tmp_path / "alone")
    assert [names_of(index) for index in indexes] == [names_of(alone)] * 3
    assert {index.total for index in indexes} == {alone.total}
    read = [source.asked for source in sources]
    assert all(0 < len(part) < 200 for part in read)
    assert sorted(name for part in read for name in part) == numbered(200)
    for folder in folders:
        assert not list(folder.glob(".*"))
    again = [Synthetic(numbered(200)) for _ in places]
    together(again, folders)
    assert not any(source.asked for source in again)


def test_copies_with_other_times_are_read_by_the_processes_of_each_machine(tmp_path):
    """What one machine knows of a file does not hold for a copy that has another stamp."""
    names, changed = numbered(200), ["00007", "00150"]
    times = dict.fromkeys(changed, "later")
    sources = [Synthetic(names), Synthetic(names, times=times), Synthetic(names, times=times)]
    indexes = together(sources, [tmp_path / place for place in "abb"])
    assert [names_of(index) for index in indexes] == [names] * 3
    assert len({index.total for index in indexes}) == 1
    asked = sorted(name for source in sources for name in source.asked)
    assert asked == sorted([*names, *changed])


def test_processes_that_see_other_files_are_told(tmp_path):
    sources = [Synthetic(numbered(50)), Synthetic(numbered(51))]
    with pytest.raises(BadDataError, match="do not see the same files"):
        together(sources, [tmp_path, tmp_path])


def test_processes_that_see_other_contents_are_told(tmp_path):
    sources = [Synthetic(numbered(50)), Synthetic(numbered(50), {"00007": "other"})]
    with pytest.raises(BadDataError, match="do not see the same files"):
        together(sources, [tmp_path / "a", tmp_path / "b"])


def test_chunks_hold_everything_in_order_and_a_new_name_moves_no_far_border():
    names = numbered(5_000)
    found = list(chunks(names, 64))
    assert [name for chunk in found for name in chunk] == names
    assert 32 < 5_000 / len(found) < 128
    assert max(map(len, found)) <= 4 * 64
    other = list(chunks(sorted([*names, "02500x"]), 64))
    assert len(set(map(tuple, found)) ^ set(map(tuple, other))) <= 3


def test_buckets_are_the_same_in_all_shards(tmp_path):
    names = sorted(f"{number:05d}{'x' * (number * 7 % 2)}" for number in range(200))
    index = make(Synthetic(names), tmp_path)
    assert len({str(shard.summary.buckets) for shard in index.shards}) > 1  # in another order
    table = BucketTable.of(index.shards)
    entries = [shard.entry(row) for shard, row in map(index.at, range(200))]
    assert [table.shapes[number] for number in table.numbers] == [each.shape for each in entries]
    assert sum(table.counts().values()) == 200


def test_an_opened_index_and_its_sampler_take_little_memory(tmp_path):
    count = 60_000
    make_index(Synthetic([f"{number:07d}" for number in range(count)]), tmp_path / "many")
    make(Synthetic(numbered(99)), tmp_path / "few")
    first_batch(Index.open(tmp_path / "few"))  # what the library itself takes
    process = psutil.Process()
    before = process.memory_info().rss
    kept = first_batch(Index.open(tmp_path / "many"))
    grown = process.memory_info().rss - before
    assert grown / count < BYTES_A_SAMPLE
    assert len(kept[0]) == count


def first_batch(index):
    buckets = BucketTable.of(index.shards).numbers
    sampler = ShuffledSampler(np.ones(len(index), np.uint16), seed=0, buckets=buckets)
    captions = [shard.captions_of(row) for shard, row in map(index.at, sampler.take(8))]
    return index, sampler, captions

"""Filling: each once, each process its part, in bounded memory, told as it goes."""

import multiprocessing
from itertools import chain

import numpy as np
import pytest
import torch

from st_trainer.caching import fill
from st_trainer.caching.encodings import Encodings, Kind, joined, split
from st_trainer.caching.fill import Filling, Work, missing_of, read_ahead, teller, text_work
from st_trainer.caching.folder import CacheFolder
from st_trainer.caching.prepare import modes_of
from st_trainer.caching.room import Room
from st_trainer.errors import DamagedLaterError


class Doubling(Encodings):
    """Encodes numbers by doubling them."""

    def __init__(self, folder):
        self.folders, self.batches = {Kind.LATENTS: folder, Kind.TEXT: folder}, []

    def encoded(self, kind, inputs):
        self.batches.append(list(inputs))
        return {"value": torch.tensor([2 * int(each) for each in inputs])}


def key(number):
    return number.to_bytes(16, "big")


def work_on(numbers, shapes=lambda places: [0] * len(places)):
    return Work(
        Kind.LATENTS,
        lambda: map(key, numbers),
        shapes,
        lambda places: [numbers[place] for place in places],
    )


@pytest.fixture
def folder(tmp_path):
    return CacheFolder(tmp_path / "latents" / "vae", Room(tmp_path, 1 << 30), print)


@pytest.mark.parametrize("block", [1, 4, 6, 4_096])
def test_what_is_missing_is_encoded_once(folder, monkeypatch, block):
    monkeypatch.setattr(fill, "_BLOCK", block)
    folder.put(key(3), {"value": torch.tensor(6)})
    encodings, told = Doubling(folder), []
    work = work_on([5, 3, 4, 5, 4, 9])
    filling = Filling(encodings, 1, lambda *counts: told.append(counts), lambda: 0.0)
    missing = missing_of(work, folder)
    filling.total = len(missing)
    filling.encode(work, missing)
    assert sorted(chain.from_iterable(encodings.batches)) == [4, 5, 9]
    assert told == [(3, 3)]
    assert not len(missing_of(work, folder))
    assert folder.get(key(9))["value"] == 18


def test_only_inputs_of_one_shape_are_encoded_together(folder):
    encodings = Doubling(folder)
    numbers = [10, 21, 12, 23, 14, 25, 16]
    work = work_on(numbers, lambda places: [numbers[place] // 20 for place in places])
    Filling(encodings, 3, lambda *_: None).encode(work, missing_of(work, folder))
    assert encodings.batches == [[10, 12, 14], [16], [21, 23, 25]]


def test_what_is_damaged_is_left_out_of_what_is_encoded_together(folder):
    numbers = [10, 11, 12, 13, 14]

    def read(places):
        for position, place in enumerate(places):
            if numbers[place] in {11, 14}:
                error = DamagedLaterError(f"{place}.png", "torn")
                error.position = position
                raise error
        return [numbers[place] for place in places]

    encodings, told = Doubling(folder), []
    work = Work(Kind.LATENTS, lambda: map(key, numbers), lambda places: [0] * len(places), read)
    filling = Filling(encodings, 2, lambda *counts: told.append(counts), lambda: 0.0)
    filling.total = 5
    filling.encode(work, missing_of(work, folder))
    assert encodings.batches == [[10], [12, 13]]
    assert filling.damaged == {key(11), key(14)}
    assert told == [(5, 5)]
    assert folder.get(key(13))["value"] == 26


def test_processes_divide_the_work_without_a_word(folder):
    work = work_on(list(range(100)))
    missing = missing_of(work, folder)
    parts = [missing.part(number, 3) for number in range(3)]
    assert sorted(np.concatenate([part.places for part in parts])) == list(range(100))
    later = missing_of(work_on(list(range(50, 100))), folder)  # others have come further
    assert set(later.part(1, 3).keys) <= set(parts[1].keys)


def test_captions_are_read_in_order_without_keeping_them():
    asked = []

    def captions():
        asked.append("anew")
        return iter(f"caption {number}" for number in range(9))

    work = text_work(captions)
    assert work.read([1, 3]) == ["caption 1", "caption 3"]
    assert work.read([4]) == ["caption 4"]
    assert asked == ["anew"]
    assert work.read([0]) == ["caption 0"]
    assert asked == ["anew", "anew"]


class Now:
    """Does at once what it is given, and notes it."""

    def __init__(self):
        self.given = []

    def submit(self, act, *given):
        self.given.append(given)
        return type("Done", (), {"result": lambda self: act(*given)})()


def test_inputs_are_read_ahead_up_to_a_bound():
    pool = Now()
    chunks = [([key(number)], [number]) for number in range(9)]
    found = read_ahead(pool, work_on(list(range(9))), chunks, 3)
    assert next(found) == (([key(0)], [0]), ([key(0)], [0]))
    assert len(pool.given) == 2  # until it is known how large they are
    assert next(found) == (([key(1)], [1]), ([key(1)], [1]))
    assert len(pool.given) == 4  # the one before, and three
    assert [read[1] for _, read in found] == [[number] for number in range(2, 9)]


@pytest.mark.parametrize(("room", "ahead"), [(1 << 30, 6), (40, 5), (24, 3), (1, 2)])
def test_fewer_are_read_ahead_where_they_are_large(room, ahead):
    """Of 8 bytes each."""
    pool, numbers = Now(), list(range(20))
    work = Work(Kind.LATENTS, lambda: map(key, numbers), lambda places: [0], torch.tensor)
    chunks = [([key(number)], [number]) for number in numbers]
    found = read_ahead(pool, work, chunks, 6, room)
    assert [int(next(found)[1][1]) for _ in range(9)] == list(range(9))
    assert len(pool.given) == 8 + ahead
    assert [int(read[1]) for _, read in found] == list(range(9, 20))


def test_time_left_follows_from_the_pace():
    events, now = [], [0.0]
    journal = type("J", (), {"progress": lambda self, *a, **k: events.append((a, k))})()
    tell = teller(journal, 2, lambda: now[0])
    now[0] = 10.0
    tell(5, 20)
    assert events == [(("caching", 10, 40), {"eta_seconds": 30.0})]


def test_two_processes_fill_one_folder(tmp_path):
    def part(number):
        mine = CacheFolder(tmp_path / "latents" / "vae", Room(tmp_path, 1 << 30), print)
        work = work_on(list(range(40)))
        encodings = Doubling(mine)
        Filling(encodings, 1, lambda *_: None).encode(work, missing_of(work, mine).part(number, 2))
        (tmp_path / f"{number}").write_text(str(len(encodings.batches)))

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=part, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    whole = CacheFolder(tmp_path / "latents" / "vae", Room(tmp_path, 1 << 30), print)
    assert [int(whole.get(key(number))["value"]) for number in range(40)] == [
        2 * number for number in range(40)
    ]
    assert sum(int((tmp_path / f"{number}").read_text()) for number in range(2)) == 40


def test_rows_become_a_batch_with_zeros_behind_short_ones():
    rows = split({"text": torch.ones(1, 3, 2), "guidance": torch.ones(1)}, 1)
    rows += split({"text": torch.ones(1, 1, 2), "guidance": torch.ones(1)}, 1)
    batch = joined(rows, torch.device("cpu"))
    assert batch["text"].tolist() == [[[1, 1]] * 3, [[1, 1], [0, 0], [0, 0]]]
    assert batch["guidance"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("changes", "count", "wanted"),
    [
        ({}, 6, {"latents": "before", "text": "before"}),
        ({}, 7, {"latents": "on_demand", "text": "on_demand"}),
        ({"cache": {"latents": "off"}}, 6, {"latents": "off", "text": "before"}),
        ({"adapter": {"rank": 2, "text_encoder": True}}, 6, {"latents": "before", "text": "off"}),
        ({"dataset": {"captions": {"shuffle": True}}}, 6, {"latents": "before", "text": "off"}),
        ({"adapter": {"kind": "controlnet"}, "dataset": {"conditioning": "edges"}}, 6,
         {"latents": "before", "text": "before"}),
        ({"family": "flux", "adapter": {"kind": "controlnet"},
          "dataset": {"conditioning": "edges"}}, 6,
         {"latents": "before", "text": "before", "control": "before"}),
        ({"family": "kontext"}, 6,
         {"latents": "before", "text": "before", "control": "before"}),
    ],
)  # fmt: skip
def test_what_is_cached_where_nothing_is_said(spec_of, changes, count, wanted):
    assert modes_of(spec_of(**changes), count, 1) == wanted
    assert modes_of(spec_of(cache={"latents": "off", "text": "off"}), count, 1) == {
        "latents": "off",
        "text": "off",
    }

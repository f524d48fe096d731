"""``cache.share`` against a real S3 server: what one machine has encoded, another does not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from bucket_server import connect, serve_buckets, use_buckets
from fixtures.tiny import TINY
from PIL import Image
from whole_run import carry_out, final_state

from st_shared.spec import TrainingSpec
from st_shared.spec.cache import CacheSpec
from st_trainer.caching.bucket import SharedShards, connect_share
from st_trainer.caching.encodings import Encodings, Kind, text_key
from st_trainer.caching.fill import Work, fetch_shared, missing_of
from st_trainer.caching.folder import CacheFolder
from st_trainer.caching.prepare import _Preparing
from st_trainer.caching.room import Room
from st_trainer.errors import BadSpecError
from st_trainer.journal import SilentJournal
from st_trainer.ranks import Ranks

BUCKET = "caches"


@pytest.fixture(scope="module")
def nanio_url(tmp_path_factory):
    with serve_buckets(tmp_path_factory.mktemp("nanio")) as url:
        yield url


@pytest.fixture
def machine(nanio_url, tmp_path, monkeypatch):
    """A folder of its own that shares the bucket, reached by the environment's keys."""
    use_buckets(monkeypatch, tmp_path)
    connect(nanio_url, BUCKET, "")._client.close()
    messages, stores = [], []

    def make(name, endpoint=nanio_url):
        spec = CacheSpec(share=f"s3://{BUCKET}/{tmp_path.name}", endpoint_url=endpoint)
        stores.append(connect_share(spec, {}))
        root = tmp_path / name
        shared = SharedShards(stores[-1], "latents/vae/")
        return CacheFolder(root / "latents" / "vae", Room(root, 1 << 30), messages.append, shared)

    make.messages = messages
    yield make
    for store in stores:
        store._client.close()


def key(number):
    return number.to_bytes(16, "big")


def work_on(numbers):
    return Work(Kind.LATENTS, lambda: map(key, numbers), lambda places: [0] * len(places), list)


def filled(folder, numbers):
    for number in numbers:
        folder.put(key(number), {"value": torch.tensor(number)})
    folder.flush()


def fetched(folder, numbers):
    work = work_on(numbers)
    fetch_shared(folder, missing_of(work, folder), 0, 1)
    return [number for number in numbers if folder.get(key(number)) is not None]


def test_files_with_wanted_entries_are_fetched_and_no_others(machine):
    first = machine("one")
    filled(first, [1, 2])
    filled(first, [3])
    second = machine("two")
    assert fetched(second, [2, 5]) == [2]
    assert len(list(second.folder.glob("*.safetensors"))) == 1
    assert fetched(second, [2, 3]) == [2, 3]
    assert machine.messages == []


def test_a_file_that_is_not_what_its_name_says_is_left_out(machine):
    first = machine("one")
    filled(first, [1])
    (path,) = first.folder.glob("*.safetensors")
    store = first.shared._store
    with path.open("rb") as file:
        store.put(f"latents/vae/{'0' * 32}.safetensors", file)
    store.delete(f"latents/vae/{path.name}")
    second = machine("two")
    assert fetched(second, [1]) == []
    assert "it holds other entries than its name says" in machine.messages[0]
    assert list(second.folder.iterdir()) == []


def test_a_bucket_that_does_not_answer_stops_no_run(machine):
    folder = machine("one", endpoint="http://127.0.0.1:9")
    assert fetched(folder, [1]) == []
    filled(folder, [1])
    assert folder.get(key(1)) is not None
    assert any("cache.share cannot be read" in text for text in machine.messages)
    assert any("cache.share takes nothing" in text for text in machine.messages)


def test_a_prefix_that_cannot_be_is_refused():
    with pytest.raises(BadSpecError, match=r"training\.cache\.share: s3://bucket/\.\./up"):
        connect_share(CacheSpec(share="s3://bucket/../up"), {})


@pytest.fixture
def encoded(monkeypatch):
    """What encoders were given."""
    given, real = [], Encodings.encoded

    def noted(self, kind, inputs):
        given.append(kind)
        return real(self, kind, inputs)

    monkeypatch.setattr(Encodings, "encoded", noted)
    return given


def test_what_one_machine_encoded_ahead_another_does_not_encode_at_all(
    nanio_url, tmp_path, monkeypatch, encoded
):
    """Neither ahead nor while it trains, and both learn the same."""
    use_buckets(monkeypatch, tmp_path, AWS_ENDPOINT_URL=nanio_url)
    connect(nanio_url, BUCKET, "")._client.close()
    TINY["sd1"].build(tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (60 * number, 9, 9)).save(tmp_path / f"pictures/{number}.png")
        (tmp_path / f"pictures/{number}.txt").write_text(f"red of kind {number}")
    states = []
    for place, text in (("one", "before"), ("two", "on_demand")):
        monkeypatch.setenv("ST_CACHE_DIR", str(tmp_path / place / "cache"))
        share = f"s3://{BUCKET}/{tmp_path.name}"
        document = {
            "model": {
                "family": "sd1",
                "base": str(tmp_path / "model"),
                "config": TINY["sd1"].config,
            },
            "datasets": [{"path": str(tmp_path / "pictures")}],
            "steps": 1,
            "adapter": {"rank": 2},
            "checkpoint": {"every": 1},
            "cache": {"latents": "before", "text": text, "share": share},
        }
        encoded.clear()
        carry_out(TrainingSpec.model_validate(document), tmp_path / place / "run")
        states.append(final_state(tmp_path / place / "run"))
        assert bool(encoded) == (place == "one")
    assert states[0] == states[1]


class Together(Ranks):
    """One of several processes, each on a machine of its own, which are threads here."""

    def __init__(self, rank, values, meeting):
        self.rank, self.count = rank, len(values)
        self._values, self._meeting = values, meeting

    def gather(self, value):
        self._values[self.rank] = value
        self._meeting.wait()
        found = list(self._values)
        self._meeting.wait()
        return found

    def any(self, flag):
        return any(self.gather(flag))


class Doubling(Encodings):
    """Encodes numbers by doubling them."""

    def __init__(self, folder):
        self.folders, self.made = {Kind.LATENTS: folder}, []

    def encoded(self, _kind, inputs):
        self.made += inputs
        return {"value": torch.tensor([2 * each for each in inputs])}


def digests():
    """Of numbers; processes divide keys by their first bytes."""
    return (text_key(str(number)) for number in NUMBERS)


class Told(SilentJournal):
    """Notes what is said, without the time that it took."""

    def __init__(self, said):
        self._said = said

    def log(self, message, level="info"):
        self._said.append(message.rpartition(" in ")[0])


def fill_together(folders, numbers, share, said=None):
    """What each machine has encoded, once all have filled their folders."""
    said = [] if said is None else said
    meeting, values = threading.Barrier(len(folders), timeout=120), [None] * len(folders)
    spec = SimpleNamespace(cache=CacheSpec(share=share))

    def one(rank):
        encodings, ranks = Doubling(folders[rank]), Together(rank, values, meeting)
        preparing = _Preparing(spec, encodings, ranks, Told(said), lambda: False)
        ahead = preparing.what_is_missing([replace(work_on(numbers), keys=digests)])
        if preparing.is_lacking(ahead):
            preparing.fill(ahead)
        assert preparing.done(ahead) == {Kind.LATENTS}
        return sorted(encodings.made)

    with ThreadPoolExecutor(len(folders)) as pool:
        return list(pool.map(one, range(len(folders))))


NUMBERS = list(range(24))


def test_machines_that_share_a_bucket_divide_the_work(machine):
    made = fill_together([machine("one"), machine("two")], NUMBERS, f"s3://{BUCKET}/x")
    assert all(0 < len(part) < 24 for part in made)
    assert sorted(chain.from_iterable(made)) == NUMBERS
    assert machine.messages == []


def test_where_the_bucket_takes_nothing_each_machine_makes_what_it_lacks(machine):
    folders = [machine(name, endpoint="http://127.0.0.1:9") for name in ("one", "two")]
    assert fill_together(folders, NUMBERS, f"s3://{BUCKET}/x") == [NUMBERS, NUMBERS]


def test_a_machine_that_lacks_nothing_waits_for_one_that_does(machine):
    """All of a training fill together, or none: they speak while they do."""
    folders = [machine("one"), machine("two")]
    for folder in folders:
        folder.shared = None
    for number, digest in zip(NUMBERS, digests(), strict=True):
        folders[0].put(digest, {"value": torch.tensor(2 * number)})
    folders[0].flush()
    said = []
    assert fill_together(folders, NUMBERS, None, said) == [[], NUMBERS]
    assert sorted(said) == ["cached 24 latents", "cached what another process lacked"]

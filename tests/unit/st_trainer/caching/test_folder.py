"""Files of a cache: whole or absent, checked when read, bounded, found by other processes."""

import errno
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from st_trainer.bounds import bound_of
from st_trainer.caching import folder as folder_module
from st_trainer.caching.digests import encoder_digest
from st_trainer.caching.folder import CacheFolder
from st_trainer.caching.known_keys import KnownKeys
from st_trainer.caching.room import RECENT_SECONDS, Room
from st_trainer.caching.shard_file import DamagedShardError, ShardFile, write_shard
from st_trainer.errors import BadSpecError, TrainerError


def key(number):
    return number.to_bytes(16, "big")


def entry(number, size=8):
    values = torch.arange(size) + number
    return {"mean": values.to(torch.bfloat16), "std": values.float(), "count": torch.tensor(number)}


def same(found, number):
    wanted = entry(number)
    return (
        found is not None
        and found.keys() == wanted.keys()
        and all(
            found[name].dtype == each.dtype and torch.equal(found[name], each)
            for name, each in wanted.items()
        )
    )


@pytest.fixture
def messages():
    return []


@pytest.fixture
def made(tmp_path, messages):
    """Opens the folder as another process would."""

    def make(**options):
        room = options.pop("room", Room(tmp_path, 1 << 30))
        return CacheFolder(tmp_path / "latents" / "vae", room, messages.append, **options)

    return make


def shards(folder):
    return sorted(folder.folder.glob("*.safetensors"))


def test_entries_are_found_by_another_process(made):
    mine = made()
    mine.put(key(1), entry(1))
    assert same(mine.get(key(1)), 1)
    mine.flush()
    assert same(mine.get(key(1)), 1)
    assert same(made().get(key(1)), 1)
    assert made().get(key(2)) is None


def test_what_another_process_writes_meanwhile_is_found(made):
    mine, theirs = made(), made()
    assert mine.get(key(1)) is None
    theirs.put(key(1), entry(1))
    theirs.flush()
    assert same(mine.get(key(1)), 1)


def test_entries_are_written_once_they_are_many_or_large_or_old(made, monkeypatch):
    monkeypatch.setattr(folder_module, "SHARD_ENTRIES", 3)
    now = [0.0]
    folder = made(clock=lambda: now[0])
    for number in range(7):
        folder.put(key(number), entry(number))
    folder.flush()
    assert len(shards(folder)) == 3
    monkeypatch.setattr(folder_module, "SHARD_BYTES", 1)
    folder.put(key(7), entry(7))
    folder.put(key(8), entry(8))  # the writer is done with the first
    monkeypatch.undo()
    folder.flush()
    assert len(shards(folder)) == 5
    folder.put(key(9), entry(9))
    now[0] = 31.0
    folder.put(key(10), entry(10))
    assert folder._pending == {}


def test_the_same_entries_are_one_file_whoever_writes_them(tmp_path):
    first = write_shard(tmp_path, {key(1): entry(1), key(2): entry(2)})
    content = first.read_bytes()
    assert write_shard(tmp_path, {key(2): entry(2), key(1): entry(1)}) == first
    assert first.read_bytes() == content
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("damage", ["torn", "empty", "one bit", "renamed"])
def test_a_damaged_file_is_made_anew_and_said(made, messages, damage):
    folder = made()
    folder.put(key(1), entry(1))
    folder.put(key(2), entry(2))
    folder.flush()
    (path,) = shards(folder)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    match damage:
        case "torn":
            path.write_bytes(content[:-9])
        case "empty":
            path.write_bytes(b"")
        case "one bit":
            path.write_bytes(content)
        case "renamed":
            path.rename(path.with_name(f"{'0' * 32}.safetensors"))
    again = made()
    found = [again.get(key(number)) for number in (1, 2)]
    assert None in found
    assert len(messages) == 1
    assert messages[0].startswith("latents in the cache are damaged and made anew: ")
    assert shards(again) == []
    for number in (1, 2):
        again.put(key(number), entry(number))
    again.flush()
    assert all(same(made().get(key(number)), number) for number in (1, 2))
    assert len(messages) == 1


def test_a_checksum_is_compared_for_each_tensor(tmp_path):
    path = write_shard(tmp_path, {key(1): entry(1)})
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checksums = json.loads(file.metadata()["crc"])
    name = f"{key(1).hex()}.std"
    tensors[name] = tensors[name] + 1
    save_file(tensors, path, {"crc": json.dumps(checksums)})
    with pytest.raises(DamagedShardError, match=r"std has another checksum"):
        ShardFile(path).entry(key(1))


def test_a_killed_process_leaves_nothing_that_is_read(made, monkeypatch):
    """Killed while a file is written: what was whole stays, the rest is made anew."""
    monkeypatch.setattr(folder_module, "SHARD_ENTRIES", 2)
    child = os.fork()
    if child == 0:
        try:
            folder = made()
            write = folder_module.write_shard

            def torn(place, entries):
                if key(2) in entries:
                    (place / ".0.partial").write_bytes(b"half")
                    os.kill(os.getpid(), 9)
                return write(place, entries)

            folder_module.write_shard = torn
            for number in range(9):
                folder.put(key(number), entry(number))
            folder.flush()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    folder = made()
    assert [number for number in range(9) if same(folder.get(key(number)), number)] == [0, 1]
    for number in range(9):
        folder.put(key(number), entry(number))
    folder.flush()
    assert all(same(made().get(key(number)), number) for number in range(9))


def test_what_was_not_used_for_long_makes_room(tmp_path, made, messages):
    old = made()
    old.put(key(1), entry(1))
    old.flush()
    (path,) = shards(old)
    torn = old.folder / ".torn.partial"
    torn.write_bytes(b"half")
    for each in (path, torn):
        os.utime(each, (0, 0))
    new = CacheFolder(
        tmp_path / "text" / "clip", Room(tmp_path, path.stat().st_size * 3 // 2), messages.append
    )
    new.put(key(2), entry(2))
    new.flush()
    assert not path.exists()
    assert not torn.exists()
    assert same(new.get(key(2)), 2)
    old._open.clear()
    assert old.get(key(1)) is None  # its file is gone: made anew, no error
    assert not messages


def test_a_full_cache_keeps_what_is_in_use_and_says_so(tmp_path, made, messages):
    now = [1e10]
    room = Room(tmp_path, 2000, lambda: now[0])
    folder = made(room=room)
    for number in range(4):
        folder.put(key(number), entry(number))
        folder.flush()
        for path in shards(folder):
            os.utime(path, (now[0], now[0]))
    assert messages == ["latents: nothing more is cached: its bound, cache.max_gb, is reached"]
    assert folder.is_full
    assert same(folder.get(key(0)), 0)
    now[0] += RECENT_SECONDS + 1
    assert room.admit(100)


def test_a_full_disk_stops_caching_not_the_run(made, messages, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = made()
    monkeypatch.setattr(folder_module, "write_shard", no_room)
    folder.put(key(1), entry(1))
    folder.flush()
    assert folder.get(key(1)) is None
    assert messages == ["latents: nothing more is cached: No space left on device"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match=r"cannot make the folder of the cache .*ST_CACHE_DIR"):
        CacheFolder(tmp_path / "file" / "vae", Room(tmp_path, 1), print)


def test_known_keys_take_20_bytes_each_and_the_last_one_counts():
    known = KnownKeys()
    for number in range(3):
        known.add((key(each) for each in range(number, 50_000, 3)), number)
    known.add([key(7)], 9)
    known.add([key(8)], -1)
    known._merge()
    asked = (0, 1, 2, 7, 8, 50_000)
    assert [known.find(key(each)) for each in asked] == [0, 1, 2, 9, None, None]
    assert known.known(list(map(key, asked))).tolist() == [True] * 4 + [False] * 2
    known.add([key(0)], -1)  # not merged yet
    known.add([key(50_000)], 3)
    assert known.known(list(map(key, asked))).tolist() == [False, *[True] * 3, False, True]
    assert (known._keys.nbytes + known._numbers.nbytes) / 50_000 == 20


def test_keys_may_end_with_zeros():
    known = KnownKeys()
    ends = [b"\1" * count + b"\0" * (16 - count) for count in range(17)]
    for number, each in enumerate(ends):
        known.add([each], number)
    known._merge()
    assert [known.find(each) for each in ends] == list(range(17))


def test_an_encoder_is_known_by_weights_type_and_words(load_tiny):
    parts = dict(load_tiny("sd1").assets)
    chosen = {name: parts[name] for name in ("text_encoder", "tokenizer")}
    first = encoder_digest(chosen, {"caption_length": 77})
    assert encoder_digest(chosen, {"caption_length": 77}) == first
    assert encoder_digest(chosen, {"caption_length": 76}) != first
    assert encoder_digest({"text_encoder": parts["text_encoder"]}, {"caption_length": 77}) != first
    with torch.no_grad():
        next(parts["text_encoder"].parameters()).view(-1)[0] += 1
    second = encoder_digest(chosen, {"caption_length": 77})
    assert second != first
    parts["text_encoder"].bfloat16()
    third = encoder_digest(chosen, {"caption_length": 77})
    chosen["tokenizer"].add_tokens(["noise"])
    assert len({first, second, third, encoder_digest(chosen, {"caption_length": 77})}) == 4


def test_what_other_processes_write_counts_as_well(tmp_path):
    mine, theirs = Room(tmp_path, 1000), tmp_path / "text" / "clip" / "a.safetensors"
    assert mine.admit(10)
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"x" * 995)
    assert [mine.admit(10) for _ in range(16)] == [True] * 15 + [False]


@pytest.mark.parametrize("given", ["much", "-1", "0", "nan", "inf"])
def test_a_bound_that_is_no_size_is_named(given):
    assert bound_of({"ST_CACHE_GB": "5"}, "ST_CACHE_GB", 7) == 5
    assert bound_of({"ST_CACHE_GB": "9"}, "ST_CACHE_GB", 7) == 7
    assert bound_of({}, "ST_CACHE_GB", 7) == 7
    with pytest.raises(BadSpecError, match=f"ST_CACHE_GB: '{given}' is no size"):
        bound_of({"ST_CACHE_GB": given}, "ST_CACHE_GB", 7)

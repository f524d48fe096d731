import asyncio
import hashlib
import io
import os
import signal
import subprocess
import sys

import pytest

from st_shared.clock import utc_now
from st_shared.objectstore import (
    DigestMismatchError,
    InvalidKeyError,
    LocalStore,
    PartDigest,
    SignedGrant,
    UploadMissingError,
)

KEY = b"k" * 32


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path, KEY)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def grant(data, **changes):
    fields = {"size": len(data), "sha256": sha256(data)} | changes
    return SignedGrant("PUT", "a/b", expires=utc_now(), **fields)


async def pieces(*parts):
    for part in parts:
        yield part


def leftovers(tmp_path):
    return list((tmp_path / "incoming").iterdir())


def test_objects_are_plain_files(store, tmp_path):
    store.put("a/b.txt", io.BytesIO(b"hello"))
    assert (tmp_path / "objects/a/b.txt").read_bytes() == b"hello"
    assert store.path("a/b.txt") == tmp_path / "objects/a/b.txt"
    assert leftovers(tmp_path) == []


def test_an_upload_is_received_in_pieces(store, tmp_path):
    data = os.urandom(3_000_000)
    stat = asyncio.run(
        store.receive(grant(data), pieces(data[:7], data[7:2_000_000], b"", data[2_000_000:]))
    )
    assert (stat.key, stat.size, stat.sha256) == ("a/b", len(data), sha256(data))
    assert b"".join(store.open("a/b")) == data
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 4}, "more than the 4"),
        ({"size": 6}, "5 bytes came of 6"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_an_upload_unlike_its_grant_changes_nothing(store, tmp_path, changes, said):
    store.put("a/b", io.BytesIO(b"old"))
    with pytest.raises(DigestMismatchError, match=said):
        asyncio.run(store.receive(grant(b"hello", **changes), pieces(b"hel", b"lo")))
    assert b"".join(store.open("a/b")) == b"old"
    assert leftovers(tmp_path) == []


def test_an_upload_that_breaks_off_changes_nothing(store, tmp_path):
    async def broken():
        yield b"hel"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(store.receive(grant(b"hello"), broken()))
    assert store.stat("a/b") is None
    assert leftovers(tmp_path) == []


def test_a_writer_that_is_not_committed_stores_nothing(store, tmp_path):
    with store.begin("a", 5, None) as writer:
        writer.write(b"hello")
    assert store.stat("a") is None
    assert leftovers(tmp_path) == []


def test_a_record_that_fits_no_longer_is_made_anew(store, tmp_path):
    store.put("a", io.BytesIO(b"old"))
    (tmp_path / "objects/a").write_bytes(b"restored")
    assert store.stat("a").sha256 == sha256(b"restored")
    (tmp_path / "digests/a").write_text("half a rec")
    assert store.stat("a").sha256 == sha256(b"restored")
    (tmp_path / "digests/a").unlink()
    assert store.stat("a").sha256 == sha256(b"restored")


def test_the_record_saves_reading_the_object(store, tmp_path):
    store.put("a", io.BytesIO(b"hello"))
    path = tmp_path / "objects/a"
    times = path.stat()
    path.write_bytes(b"HELLO")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.stat("a").sha256 == sha256(b"hello")


def test_a_crash_between_record_and_rename_tells_no_wrong_digest(store, tmp_path, monkeypatch):
    store.put("a", io.BytesIO(b"old"))
    writer = store.begin("a", None, None)
    writer.write(b"new")

    record = store._record

    def die_after(key, found, digest):
        record(key, found, digest)
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_record", die_after)
    with pytest.raises(KeyboardInterrupt):
        writer.commit()
    reopened = LocalStore(tmp_path, KEY)
    assert b"".join(reopened.open("a")) == b"old"
    assert reopened.stat("a").sha256 == sha256(b"old")


KILLED_WRITER = """
import os, sys
from pathlib import Path
from st_shared.objectstore import LocalStore
store = LocalStore(Path(sys.argv[1]), b"k" * 32)
writer = store.begin("a", None, None)
writer.write(b"n" * 5_000_000)
print("written", flush=True)
sys.stdin.read()
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_object(store, tmp_path):
    store.put("a", io.BytesIO(b"old"))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    reopened = LocalStore(tmp_path, KEY)
    assert b"".join(reopened.open("a")) == b"old"
    assert len(leftovers(tmp_path)) == 1
    [rest] = leftovers(tmp_path)
    os.utime(rest, (0, 0))
    LocalStore(tmp_path, KEY)
    assert leftovers(tmp_path) == []


def test_a_key_is_never_a_folder_of_another(store):
    store.put("a/b", io.BytesIO(b"1"))
    with pytest.raises(InvalidKeyError):
        store.put("a", io.BytesIO(b"2"))
    with pytest.raises(InvalidKeyError):
        store.put("a/b/c", io.BytesIO(b"3"))
    assert store.stat("a") is None
    assert store.stat("a/b/c") is None
    store.delete("a/b/c")
    assert store.stat("a/b").size == 1


def test_a_link_out_of_the_folder_is_not_made_by_keys(store, tmp_path):
    for key in ("../x", "/etc/passwd", "a/../../x", ".secret"):
        for call in (store.stat, store.open, store.delete, store.path):
            with pytest.raises(InvalidKeyError):
                call(key)
    with pytest.raises(InvalidKeyError):
        list(store.list("../"))


def test_a_late_writer_of_a_part_never_reaches_the_object(tmp_path):
    store, data = LocalStore(tmp_path, KEY), b"the one and only part"
    digest = hashlib.sha256(data).hexdigest()
    upload_id = store.uploads.begin("w.bin", size=len(data), sha256=digest)
    grant = SignedGrant("PUT", "w.bin", len(data), digest, utc_now(), upload_id, 1)
    first, late, later = (store.uploads.open_part(grant) for _ in range(3))
    late.write(b"the")
    first.write(data)
    first.commit()
    late.write(b" bad")  # what is proven is not written over
    store.uploads.complete("w.bin", upload_id, [PartDigest(1, len(data), digest)], sha256=digest)
    for writer in (late, later):
        with pytest.raises(UploadMissingError):
            writer.write(b" bad and evil")
        writer.abort()
    assert store.path("w.bin").read_bytes() == data


def test_what_is_left_of_an_upload_is_dropped_once_it_is_old(store, tmp_path):
    kept, broken, writing = (
        store.uploads.begin(f"jobs/{name}", size=40 << 20, sha256="a" * 64) for name in "abc"
    )
    for upload_id in (broken, writing):  # killed while it was aborted
        (tmp_path / "uploads" / upload_id / "upload.json").unlink()
    for upload_id in (kept, broken):
        os.utime(tmp_path / "uploads" / upload_id, (0, 0))
    assert [each.upload_id for each in store.uploads.unfinished()] == [kept]
    found = {path.name for path in (tmp_path / "uploads").iterdir()}
    assert found == {kept, writing}

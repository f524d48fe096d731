import asyncio
import io
import tarfile
from heapq import nlargest
from types import SimpleNamespace

import pytest

from st_shared.content_cache import ContentCache
from st_worker import datasets
from st_worker.cached import fetch_file
from st_worker.datasets import DatasetCache, unpack
from st_worker.errors import NoRoom, TransferError
from st_worker.folder import StateFolder
from st_worker.transfer import Transfer


@pytest.fixture
def tar_path(tmp_path):
    return tmp_path / "archive.tar"


@pytest.fixture
async def transfer(double, agent_settings):
    opened = Transfer(double.url, agent_settings)
    yield opened
    await opened.close()


def _pack(path, *entries):
    with tarfile.open(path, "w") as tar:
        for name, kind, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            content = b"x" if kind == tarfile.REGTYPE else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../escaped.txt", tarfile.REGTYPE, ""),
        ("a/../../escaped.txt", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard", tarfile.LNKTYPE, "ok.txt"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
    ],
)
def test_archive_that_leads_elsewhere_is_refused(tmp_path, tar_path, name, kind, link):
    target = tmp_path / "target"
    target.mkdir()
    _pack(tar_path, ("ok.txt", tarfile.REGTYPE, ""), (name, kind, link))
    with pytest.raises(TransferError):
        unpack(tar_path, target)
    assert not (tmp_path / "escaped.txt").exists()
    assert [path.name for path in target.rglob("*")] == ["ok.txt"]


def test_absolute_name_stays_below_the_target(tmp_path, tar_path):
    target = tmp_path / "target"
    target.mkdir()
    _pack(tar_path, ("/absolute.txt", tarfile.REGTYPE, ""))
    unpack(tar_path, target)
    assert (target / "absolute.txt").read_bytes() == b"x"


def test_what_is_no_archive_is_refused(tmp_path, tar_path):
    tar_path.write_bytes(b"not a tar archive" * 100)
    with pytest.raises(TransferError, match="cannot be unpacked"):
        unpack(tar_path, tmp_path)


def test_sparse_file_that_claims_more_than_a_disk_is_refused(tmp_path, tar_path):
    target = tmp_path / "target"
    target.mkdir()
    _pack(tar_path, ("holes.bin", tarfile.GNUTYPE_SPARSE, ""))
    raw = bytearray(tar_path.read_bytes())
    raw[483:495] = b"77777777777\0"  # the real size, in the header's sparse fields
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    tar_path.write_bytes(raw)
    with pytest.raises(TransferError, match="neither a plain file"):
        unpack(tar_path, target)
    assert list(target.iterdir()) == []


@pytest.mark.anyio
async def test_content_that_is_not_what_the_digest_names_never_gets_into_the_cache(
    transfer, state_folder, pack_dataset
):
    """Another's dataset could be given the digest of ours, and its content to our jobs."""
    victim = pack_dataset("victim", {"0.txt": b"a cat"})
    poisoned = pack_dataset("attacker", {"0.txt": b"a dog"}).model_copy(
        update={"digest": victim.digest}
    )
    cache = DatasetCache(state_folder, transfer)
    with pytest.raises(TransferError, match="other content than it was registered with"):
        await cache.fetch(poisoned)
    assert not cache.has(victim.digest)
    folder = await cache.fetch(victim)
    assert (folder / "0.txt").read_bytes() == b"a cat"


@pytest.mark.anyio
async def test_agents_that_share_a_cache_fetch_a_dataset_once(
    double, transfer, state_folder, pack_dataset, tmp_path
):
    dataset = pack_dataset("digits", {"0.txt": b"zero"})
    other = StateFolder(tmp_path / "other", state_folder.cache_root)
    other.create()
    caches = [DatasetCache(folder, transfer) for folder in (state_folder, other)]
    first, second = await asyncio.gather(*(cache.fetch(dataset) for cache in caches))
    assert first == second
    assert len(double.fetched) == len(dataset.archives)


@pytest.mark.anyio
async def test_a_dataset_that_is_evicted_while_it_is_told_of_costs_no_heartbeat(
    transfer, state_folder, monkeypatch
):
    gone, here = "a" * 64, "b" * 64
    for digest in (gone, here):
        (state_folder.datasets / digest).mkdir()

    def nlargest_after_eviction(most, found, key):
        (state_folder.datasets / gone).rmdir()
        return nlargest(most, found, key)

    monkeypatch.setattr(datasets, "nlargest", nlargest_after_eviction)
    assert here in DatasetCache(state_folder, transfer).digests()


def test_a_cache_on_a_disk_of_its_own_takes_half_of_that(tmp_path, monkeypatch):
    sizes = {tmp_path / "cache": 3000, tmp_path: 10}
    usage = lambda path: SimpleNamespace(total=sizes[path])  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    assert StateFolder(tmp_path, tmp_path / "cache").content_cache().max_bytes == 1500


@pytest.mark.anyio
async def test_a_dataset_stays_while_an_attempt_needs_it(transfer, state_folder, pack_dataset):
    first = pack_dataset("first", {"0.bin": b"x" * 50_000})
    second = pack_dataset("second", {"0.bin": b"y" * 50_000})
    small = StateFolder(state_folder.root, cache_bytes=150_000)
    cache = DatasetCache(small, transfer)
    await cache.fetch(first, "attempt")
    with pytest.raises(NoRoom, match="--cache-gb") as lack:
        await cache.fetch(second)
    assert lack.value.size == 2 * second.archives[0].size
    cache.content.release("attempt")
    await cache.fetch(second)
    assert (cache.has(first.digest), cache.has(second.digest)) == (False, True)


@pytest.mark.anyio
async def test_a_fetch_that_broke_off_is_gone_on_with(double, transfer, tmp_path):
    wanted = double.store(b"0123456789" * 1000)
    target = tmp_path / "file"
    (tmp_path / ".file.partial").write_bytes(b"0123456789" * 300)
    await transfer.fetch(wanted, target)
    assert (double.ranges, target.read_bytes()) == ([3000], b"0123456789" * 1000)


@pytest.mark.anyio
async def test_a_beginning_that_is_another_is_fetched_anew(double, transfer, tmp_path):
    wanted = double.store(b"0123456789" * 1000)
    target = tmp_path / "file"
    (tmp_path / ".file.partial").write_bytes(b"wrong" * 300)
    await transfer.fetch(wanted, target)
    assert (double.ranges, target.read_bytes()) == ([1500], b"0123456789" * 1000)
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.anyio
async def test_a_file_comes_from_the_cache_unless_a_disk_has_damaged_it(
    double, transfer, state_folder, tmp_path
):
    wanted, cache = double.store(b"weights"), state_folder.content_cache()
    for number in range(2):
        await fetch_file(cache, transfer, wanted, tmp_path / f"copy-{number}")
    assert len(double.fetched) == 1
    cache.path("files", wanted.sha256).write_bytes(b"weightz")
    await fetch_file(cache, transfer, wanted, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"weights"
    assert len(double.fetched) == 2


@pytest.mark.anyio
async def test_a_file_for_which_there_is_no_room_is_fetched_past_the_cache(
    double, transfer, state_folder, tmp_path
):
    wanted, cache = double.store(b"weights"), ContentCache(tmp_path / "tiny", 3)
    await fetch_file(cache, transfer, wanted, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"weights"
    assert not cache.has("files", wanted.sha256)

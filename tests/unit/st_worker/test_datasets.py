import io
import tarfile

import pytest

from st_worker.datasets import DatasetCache, unpack
from st_worker.errors import TransferError
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

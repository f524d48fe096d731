import io
import tarfile

import pytest

from st_worker.datasets import unpack
from st_worker.errors import TransferError


@pytest.fixture
def tar_path(tmp_path):
    return tmp_path / "archive.tar"


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

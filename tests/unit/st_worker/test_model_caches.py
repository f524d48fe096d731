"""Caches of pretrained models: apart by organisation, and bounded together."""

import os
import time

from st_shared.protocol.content import model_kept_as
from st_worker.model_caches import YOUNG_SECONDS, ModelCaches

OURS, THEIRS = "acme", "globex"
NOW = 1_800_000_000.0


def fetched(root, org: str, name: str, age: float, size: int = 100_000):
    """A model that was read last so long ago."""
    folder = root / org / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshots" / "a1").mkdir(parents=True)
    (folder / "blobs" / "weights").write_bytes(b"x" * size)
    (folder / "snapshots" / "a1" / "weights").symlink_to("../../blobs/weights")
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (NOW - age, NOW - age), follow_symlinks=False)
    return folder


def test_a_program_is_led_to_the_folder_of_its_organisation(tmp_path):
    caches = ModelCaches(tmp_path, 2**30)
    base = {"PATH": "/bin", "HF_HUB_CACHE": "/models", "HF_TOKEN_PATH": "/tokens/hub"}
    given = caches.given(base, OURS)
    assert given == {"PATH": "/bin", "HF_HOME": str(tmp_path / OURS)}
    assert (tmp_path / OURS).stat().st_mode & 0o777 == 0o700
    assert caches.given(base, THEIRS)["HF_HOME"] != given["HF_HOME"]


def test_all_share_where_that_is_wanted(tmp_path):
    base = {"HF_HOME": "/models"}
    assert ModelCaches(tmp_path, 2**30, is_shared=True).given(base, OURS) == base


def test_what_is_here_is_told_so_that_nobody_learns_whose_it_is(tmp_path):
    caches = ModelCaches(tmp_path, 2**30)
    fetched(tmp_path, OURS, "acme/gated", 0)
    fetched(tmp_path, THEIRS, "acme/gated", 0)
    caches.look()
    assert caches.known == sorted(model_kept_as(org, "acme/gated") for org in (OURS, THEIRS))


def test_the_longest_unused_goes_first_whoever_fetched_it(tmp_path):
    old = fetched(tmp_path, OURS, "acme/old", 3 * YOUNG_SECONDS)
    older = fetched(tmp_path, THEIRS, "acme/older", 4 * YOUNG_SECONDS)
    new = fetched(tmp_path, THEIRS, "acme/new", 2 * YOUNG_SECONDS)
    caches = ModelCaches(tmp_path, 250_000)
    removed, freed = caches.shrink(NOW)
    assert (removed, freed >= 100_000) == (1, True)
    assert [each.exists() for each in (older, old, new)] == [False, True, True]
    assert caches.shrink(NOW) == (0, 0)


def test_what_was_read_since_a_running_job_began_stays_however_long_ago(tmp_path):
    before = fetched(tmp_path, OURS, "acme/before", 5 * YOUNG_SECONDS)
    since = fetched(tmp_path, OURS, "acme/since", 3 * YOUNG_SECONDS)
    caches = ModelCaches(tmp_path, 1)
    caches.hold("att_1", NOW - 4 * YOUNG_SECONDS)
    caches.hold("att_2", NOW)
    caches.shrink(NOW)
    assert [each.exists() for each in (before, since)] == [False, True]
    caches.release("att_2")
    assert caches.shrink(NOW) == (0, 0)
    caches.release("att_1")
    caches.shrink(NOW)
    assert not since.exists()


def test_the_next_read_is_noted_also_where_disks_note_one_a_day(tmp_path):
    """After a change of a file they do, whatever was noted before."""
    weights = fetched(tmp_path, OURS, "acme/new", 10) / "blobs" / "weights"
    others = fetched(tmp_path, THEIRS, "acme/new", 10) / "blobs" / "weights"
    weights.chmod(0o640)
    before, theirs = weights.stat(), others.stat()
    until = time.monotonic() + 60
    while (now := weights.stat()).st_ctime_ns == before.st_ctime_ns:  # clocks of disks are coarse
        assert time.monotonic() < until
        ModelCaches(tmp_path, 2**30).given({}, OURS)
    for name in ("st_mode", "st_atime_ns", "st_mtime_ns", "st_size"):
        assert getattr(now, name) == getattr(before, name)
    assert others.stat().st_ctime_ns == theirs.st_ctime_ns


def test_what_was_read_lately_stays_even_beyond_the_bound(tmp_path):
    folder = fetched(tmp_path, OURS, "acme/new", YOUNG_SECONDS / 2)
    assert ModelCaches(tmp_path, 1).shrink(NOW) == (0, 0)
    assert folder.exists()

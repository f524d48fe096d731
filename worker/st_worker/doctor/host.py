"""Checks of this host: accelerators, the state folder and its disk, what runs a training."""

import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from st_worker.accelerators.probe import GIB
from st_worker.accelerators.registry import Found
from st_worker.doctor.check import Finding, fail, ok, warn
from st_worker.folder import StateFolder
from st_worker.settings import AgentSettings

LEAST_FREE_GB, ENOUGH_FREE_GB = AgentSettings().min_free_gb, 20.0
LEAST_SPEED = 50.0
"""MiB/s, written and synced; a checkpoint of a large model has tens of GiB."""
LONGEST_SYNC = 0.1
"""Seconds to make one line durable; the journal does that several times a second."""
TRIAL_BYTES = 32 * 2**20


def accelerators(found: Found) -> Iterator[Finding]:
    """Whether every accelerator can be asked, and what there is."""
    for warning in found.warnings:
        yield fail("accelerators", f"{warning.message} [{warning.code}]", "see the message")
    if found.probe.vendor == "cpu":
        if not found.warnings:
            yield ok("accelerators", f"none; {len(found.devices)} share of the processors is lent")
        return
    for place, device in enumerate(found.devices):
        use = found.probe.use(place)
        if use.lost:
            mend = "reset or restart the host; look for Xid errors in `dmesg`"
            yield fail("accelerators", f"{device.name}: {use.lost}", mend)
        else:
            driver = f", driver {device.driver}" if device.driver else ""
            yield ok("accelerators", f"{device.name}, {device.memory_gb:g} GiB{driver}")


def folder(state: StateFolder) -> Iterator[Finding]:
    """Whether the state folder can be written, or made where it is not there yet."""
    try:
        with tempfile.NamedTemporaryFile(dir=nearest(state.root), prefix=".doctor-"):
            pass
    except OSError as error:
        yield fail(
            "folder",
            f"{state.root} cannot be written: {error.strerror}",
            f"{_own(state.root)}mount it read-write, or give another --state-dir",
        )
    else:
        yield ok("folder", f"{state.root} is writable")


def nearest(path: Path) -> Path:
    """``path``, or the nearest folder above it that is there."""
    return next((each for each in (path, *path.parents) if each.exists()), path)


def privacy(state: StateFolder) -> Iterator[Finding]:
    """Whether others on this host can read the credential or what jobs make."""
    wrong = [
        path
        for path in (state.root, state.credential)
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    for path in wrong:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield fail("privacy", f"{path} is open to others (mode {mode:o})", f"chmod go= {path}")
    strange = [path for path in (state.root, state.credential) if _is_anothers(path)]
    for path in strange:
        yield warn("privacy", f"{path} belongs to {_owner(path)}", _mend_owner(path, state.root))
    if not wrong and not strange:
        yield ok("privacy", f"{state.root} is for this user alone")


def _is_anothers(path: Path) -> bool:
    return path.exists() and path.stat().st_uid != os.geteuid()


def _owner(path: Path) -> str:
    try:
        return f"the user {path.owner()}"
    except KeyError:
        return f"the user {path.stat().st_uid}"


def _mend_owner(path: Path, root: Path) -> str:
    """The agent of that user would be locked out if root took the folder."""
    if os.geteuid() == 0:
        return f"run the doctor as that user: sudo -u '#{path.stat().st_uid}' st-worker doctor"
    return f"chown -R {os.geteuid()} {root}"


def _own(root: Path) -> str:
    """Root may write whatever can be written."""
    return "" if os.geteuid() == 0 else f"chown -R {os.geteuid()} {root}, "


def disk_space(root: Path, free_bytes: Callable[[Path], int] | None = None) -> Iterator[Finding]:
    """Whether datasets and checkpoints have room."""
    free = (free_bytes or _free)(root) / GIB
    mend = f"make room on the disk of {root}, or move it with --state-dir"
    if free < LEAST_FREE_GB:
        yield fail("disk space", f"{free:.1f} GiB are free", mend)
    elif free < ENOUGH_FREE_GB:
        yield warn("disk space", f"{free:.1f} GiB are free, which large models fill at once", mend)
    else:
        yield ok("disk space", f"{free:.0f} GiB are free")


def _free(root: Path) -> int:
    return shutil.disk_usage(root).free


def disk_speed(
    root: Path, size: int = TRIAL_BYTES, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Finding]:
    """How fast the disk takes a checkpoint and a line of the journal."""
    with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor-") as file:
        begun = clock()
        for _ in range(size // 2**20):
            file.write(os.urandom(2**20))  # which a disk that compresses cannot make less of
        file.flush()
        os.fsync(file.fileno())
        speed = size / 2**20 / max(1e-9, clock() - begun)
        begun = clock()
        file.write(b"a line\n")
        file.flush()
        os.fsync(file.fileno())
        sync = clock() - begun
    said = f"{speed:.0f} MiB/s, a line is durable after {1000 * sync:.0f} ms"
    if speed < LEAST_SPEED or sync > LONGEST_SYNC:
        mend = "give --state-dir a local disk; network file systems make training wait"
        yield warn("disk speed", said, mend)
    else:
        yield ok("disk speed", said)


def programs(
    vendor: str,
    has: Callable[[str], bool] | None = None,
    told: Callable[[str], str | None] | None = None,
) -> Iterator[Finding]:
    """Whether a training could start with the Python that runs the agent."""
    has, told = has or _has, told or _version
    yield ok("python", f"{sys.version.split()[0]} at {sys.executable}")
    missing = [name for name in ("st_trainer", "torch") if not has(name)]
    if missing:
        yield warn(
            "trainer",
            f"{' and '.join(missing)} cannot be imported: only command jobs would run",
            "pip install 'st-fleet[worker,trainer]' into the agent's environment",
        )
        return
    torch = told("torch") or "?"
    if _is_unfit(torch, vendor):
        yield fail(
            "trainer",
            f"torch {torch} is not made for this host's {vendor} accelerators",
            "install torch from the index that its page names for CUDA or ROCm",
        )
    else:
        yield ok("trainer", f"torch {torch}")


def _is_unfit(torch: str, vendor: str) -> bool:
    """By the local part of its version: ``+cpu``, ``+cu128``, ``+rocm6.4``.

    On PyPI there is none, and it is made for CUDA. Images of vendors have one of their own, such as
    ``+git1234`` in those of ROCm, that does not tell.
    """
    build = torch.partition("+")[2]
    if vendor == "nvidia":
        return build.startswith(("cpu", "rocm"))
    if vendor == "amd":
        return not build or build.startswith(("cpu", "cu"))
    return False


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Errors that a run expects, each with the exit code that the worker understands.

TrainerError
├── BadSpecError       the specification asks for something impossible here
├── BadDataError       no usable samples, or the dataset cannot be read
│   ├── DamagedLaterError   a sample whose header was fine cannot be decoded
│   └── DamagedBucketError  so it is with all samples of a shape
├── NotFiniteError     the loss or its gradient became NaN or infinite
├── OutOfMemoryError   accelerator or host memory was not enough
├── DiskFullError      the disk was full
├── PeerLostError      another process of the same training ended or did not answer
├── DeviceFaultError   the accelerator, its driver or what connects accelerators failed
└── CheckpointError    a checkpoint is incomplete or damaged
"""

import errno
from typing import ClassVar

from st_shared.protocol.faults import is_device_fault, is_peer_lost
from st_shared.protocol.journal import ExitCode


class TrainerError(Exception):
    """An expected end of a run; the message names the cause and the mend."""

    exit_code: ClassVar[int] = ExitCode.CRASHED


class BadSpecError(TrainerError):
    """The specification asks for something impossible here."""

    exit_code = ExitCode.BAD_SPEC


class BadDataError(TrainerError):
    """No usable samples, or the dataset cannot be read."""

    exit_code = ExitCode.BAD_DATA


class DamagedLaterError(BadDataError):
    """A sample whose header was fine cannot be decoded; another is taken in its place."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} is damaged: {reason}")
        self.reason = reason
        self.position = 0
        """Its place among the samples that were asked for."""


class DamagedBucketError(BadDataError):
    """All samples of a shape are damaged, so that none can take another's place."""


class NotFiniteError(TrainerError):
    """The loss or its gradient became NaN or infinite."""

    exit_code = ExitCode.NOT_FINITE


class OutOfMemoryError(TrainerError):
    """Accelerator or host memory was not enough."""

    exit_code = ExitCode.OUT_OF_MEMORY


class DiskFullError(TrainerError):
    """The disk was full."""

    exit_code = ExitCode.DISK_FULL


class PeerLostError(TrainerError):
    """Another process of the same training ended or did not answer."""

    exit_code = ExitCode.PEER_LOST


class DeviceFaultError(TrainerError):
    """The accelerator, its driver or what connects accelerators failed."""

    exit_code = ExitCode.DEVICE_FAULT


class CheckpointError(TrainerError):
    """A checkpoint is incomplete or damaged."""


_MEMORY_SIGNS = ("out of memory", "not enough memory", "can't allocate memory")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_FULL_DISK_SIGNS = tuple(f"(os error {number})" for number in _FULL_DISK)
"""How safetensors, written in Rust, words the same errors."""

_NETWORK_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError")
"""Of ``torch.distributed``, by name: torch may not be loaded yet."""
_PEER_SIGNS = ("Connection closed by peer", "Connection reset by peer", "gloo/transport")


def expected_error(error: BaseException) -> TrainerError | None:
    """The expected error that ``error`` stands for, or None when it is a crash."""
    if isinstance(error, TrainerError):
        return error
    text = str(error)
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        place = f" while writing {error.filename}" if error.filename else ""
        return DiskFullError(f"the disk is full{place}: free some space and resume")
    if any(sign in text for sign in _FULL_DISK_SIGNS):
        return DiskFullError("the disk is full: free some space and resume")
    return _runtime_error(error, text)


def _runtime_error(error: BaseException, text: str) -> TrainerError | None:
    """What torch words as an error without a class of its own."""
    if isinstance(error, MemoryError):
        return OutOfMemoryError("memory was not enough")
    if not isinstance(error, RuntimeError):
        return None
    if any(sign in text.lower() for sign in _MEMORY_SIGNS):
        return OutOfMemoryError("memory was not enough")
    if is_device_fault(text):
        said = text.strip().splitlines()[0]
        return DeviceFaultError(f"the accelerator or its driver failed: {said}")
    signs = is_peer_lost(text) or any(sign in text for sign in _PEER_SIGNS)
    if signs or type(error).__name__ in _NETWORK_ERRORS:
        return PeerLostError("another process of this training has ended or does not answer")
    return None

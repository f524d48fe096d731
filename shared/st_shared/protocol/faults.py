"""How faults of accelerators word themselves, in exceptions and in what a process printed."""

import re

_DEVICE_FAULT = re.compile(
    r"""
    (CUDA|HIP)\ error:(?!\ (
        out\ of\ memory | invalid | no\ kernel\ image
        | device-side\ assert | (an\ )?illegal\ (memory\ access|instruction)
        | misaligned\ address | unspecified\ launch\ failure
    ))
    | uncorrectable\ (NVLink\ error|ECC\ error)
    | NVRM:\ Xid
    | \bXid\b
    | GPU\ is\ lost | has\ fallen\ off\ the\ bus
    | CUDA\ driver\ (initialization\ failed|error)
    | ncclSystemError | ncclUnhandledCudaError
    """,
    re.VERBOSE,
)
"""CUDA runtime messages, NVIDIA's Xid list, and NCCL's. Not what a wrong build, a full memory or
a wrong index in a kernel says, which no other accelerator would mend."""

_PEER_LOST = re.compile(r"Watchdog caught collective operation timeout|ncclRemoteError")
"""NCCL of a collective that another process did not come to: it has ended, hangs, or is slow."""


def is_device_fault(text: str) -> bool:
    """Whether ``text`` tells of an accelerator, a driver or a link that failed."""
    return _DEVICE_FAULT.search(text) is not None


def is_peer_lost(text: str) -> bool:
    """Whether ``text`` tells of waiting in vain for another process, through no fault of this one.

    Ask ``is_device_fault`` first, which may be why that process did not come.
    """
    return _PEER_LOST.search(text) is not None

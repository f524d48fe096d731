"""How faults of accelerators word themselves, in exceptions and in what a process printed."""

import re

_DEVICE_FAULT = re.compile(
    r"""
    CUDA\ error:(?!\ (out\ of\ memory|invalid\ device\ ordinal|no\ kernel\ image))
    | HIP\ error:(?!\ out\ of\ memory)
    | device-side\ assert
    | unspecified\ launch\ failure
    | illegal\ memory\ access
    | uncorrectable\ (NVLink\ error|ECC\ error)
    | NVRM:\ Xid
    | \bXid\b
    | GPU\ is\ lost | has\ fallen\ off\ the\ bus
    | CUDA\ driver\ (initialization\ failed|error)
    | Watchdog\ caught\ collective\ operation\ timeout
    | ncclSystemError | ncclUnhandledCudaError
    """,
    re.VERBOSE,
)
"""CUDA runtime messages, NVIDIA's Xid list, and NCCL's. Not what a wrong build or a full memory
says, which no other accelerator would mend."""


def is_device_fault(text: str) -> bool:
    """Whether ``text`` tells of an accelerator, a driver or a link that failed."""
    return _DEVICE_FAULT.search(text) is not None

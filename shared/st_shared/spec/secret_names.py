"""Names under which a job is given secrets, and names of the secrets themselves."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_OURS = ("ST_", "LD_", "DYLD_", "PYTHON", "CUDA_", "NVIDIA_", "ROCR_", "HIP_", "BASH_")
_TAKEN = frozenset(
    {
        "ENV",
        "GPU_DEVICE_ORDINAL",
        "HOME",
        "IFS",
        "LOGNAME",
        "PATH",
        "PWD",
        "SHELL",
        "TMPDIR",
        "USER",
    }
)

SECRET_NAME = r"^[a-z0-9][a-z0-9._-]*$"  # noqa: S105 - a pattern
SecretName = Annotated[str, Field(min_length=1, max_length=64, pattern=SECRET_NAME)]


def _check(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("use capital letters, digits and _, such as HF_TOKEN")
    if name.startswith(_OURS) or name in _TAKEN:
        raise ValueError(f"{name} would change how programs are run; choose another variable")
    return name


SecretVariable = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_check)]
"""An environment variable that may hold a secret."""

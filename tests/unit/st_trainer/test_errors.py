import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from st_shared.protocol.journal import ExitCode
from st_trainer.errors import BadDataError, expected_error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadDataError("x"), ExitCode.BAD_DATA),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), ExitCode.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), ExitCode.DISK_FULL),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), ExitCode.DISK_FULL),
        (
            SafetensorError("Error while serializing: No space left on device (os error 28)"),
            ExitCode.DISK_FULL,
        ),
    ],
)
def test_expected_errors_have_their_exit_code(error, code):
    found = expected_error(error)
    assert found is not None
    assert found.exit_code == code
    assert str(found)


@pytest.mark.parametrize("error", [ValueError("out"), OSError(errno.EIO, "bad"), RuntimeError("x")])
def test_everything_else_is_a_crash(error):
    assert expected_error(error) is None


def test_memory_that_the_cpu_cannot_give_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    found = expected_error(caught.value)
    assert found is not None
    assert found.exit_code == ExitCode.OUT_OF_MEMORY

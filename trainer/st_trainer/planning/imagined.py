"""A group of processes of which this is one, and the others are not there."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def group_of(processes: int, rank: int = 0) -> Iterator[None]:
    """While it lasts, exchanges of ``rank`` with all ``processes`` end at once, with no values.

    Nothing is imagined for one alone. Only one group can be there at a time.
    """
    if processes == 1:
        yield
        return
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=processes)
    try:
        with warnings.catch_warnings():
            # Diffusers asks for an exchange by a name that torch is about to change.
            warnings.filterwarnings("ignore", ".*all_gather_tensor", FutureWarning)
            yield
    finally:
        distributed.destroy_process_group()

"""Which slots of this worker are in use, so that two trainers never share one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager


class Slots:
    """One lock a slot."""

    def __init__(self, indexes: Sequence[int]) -> None:
        self._locks = {index: asyncio.Lock() for index in indexes}

    @asynccontextmanager
    async def hold(self, wanted: Sequence[int]) -> AsyncIterator[None]:
        """Keep ``wanted`` while the block runs, waiting for whoever has them to let go.

        An index that this worker no longer has, because it restarted with fewer, is nobody's.
        """
        async with AsyncExitStack() as stack:
            for index in sorted(wanted):  # in one order for all, so that nobody waits in a circle
                if lock := self._locks.get(index):
                    await stack.enter_async_context(lock)
            yield

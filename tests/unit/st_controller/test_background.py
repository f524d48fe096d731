import asyncio
from contextlib import suppress

from structlog.testing import capture_logs

from st_controller.background import Background


def test_a_service_that_fails_is_started_again_and_the_failure_is_logged(monkeypatch):
    monkeypatch.setattr("st_controller.background._BACKOFF", (0.0, 0.0))
    runs = []

    async def story():
        again = asyncio.Event()

        async def service():
            runs.append(1)
            if len(runs) == 1:
                raise RuntimeError("boom")
            again.set()
            await asyncio.Event().wait()

        background = Background()
        background.keep("service", service)
        await asyncio.wait_for(again.wait(), 120)
        await background.stop()

    with capture_logs() as logs:
        asyncio.run(story())
    assert len(runs) == 2
    assert [entry["exc_info"] for entry in logs if "exc_info" in entry] == [True]


def test_a_service_that_overhears_one_cancellation_ends_all_the_same():
    ended = []

    async def story():
        async def deaf():
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        background = Background()
        background.keep("deaf", deaf)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await background.stop()

    asyncio.run(story())
    assert ended == [1]

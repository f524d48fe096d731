from datetime import UTC, datetime, timedelta

import pytest

from st_controller.domain.workers import Patience, observed_state
from st_shared.protocol.states import WorkerState

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("silence", "state"),
    [
        (0, WorkerState.ONLINE),
        (14.9, WorkerState.ONLINE),
        (15, WorkerState.SILENT),
        (24.9, WorkerState.SILENT),
        (25, WorkerState.GONE),
    ],
)
def test_silence(silence: float, state: WorkerState) -> None:
    assert observed_state(NOW - timedelta(seconds=silence), NOW, Patience()) is state

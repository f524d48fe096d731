"""A world with one of everything for everybody."""

from collections.abc import AsyncGenerator

import pytest
from matrix_world import MatrixWorld

from st_controller.api import events, jobs


@pytest.fixture
def world(app_client, admin_headers, monkeypatch):
    """The world; streams end at once, since what they bring is tested elsewhere."""

    async def nothing(*_arguments: object, **_options: object) -> AsyncGenerator[bytes, None]:
        return
        yield b""

    monkeypatch.setattr(events, "follow_topics", nothing)
    monkeypatch.setattr(jobs, "follow_job", nothing)
    return MatrixWorld(app_client, admin_headers)

"""``st`` against the real application: what the other tests here believe of it is true of it."""

import json
import socket
import threading

import httpx
import pytest
import uvicorn

from st_client.cli import run
from st_controller.app import create_app


@pytest.fixture
def controller(settings, clock):
    """URL and API key of a controller that places no jobs."""
    app = create_app(settings, clock=clock, dispatch=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        ready = threading.Event()
        startup = server.startup

        async def started(sockets=None):
            await startup(sockets)
            ready.set()

        server.startup = started
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        token = {"token": app.state.setup_token, "username": "ada", "password": "correct horse"}
        yield url, httpx.post(f"{url}/v1/auth/setup", json=token).json()["key"]
        server.should_exit = True
        thread.join()


@pytest.fixture
def st(controller, st_home, monkeypatch, capsys):
    """Runs ``st`` with ``--json``; gives what it answers, or its exit code where that is not 0."""
    url, key = controller
    monkeypatch.setenv("ST_URL", url)
    monkeypatch.setenv("ST_API_KEY", key)

    def run_st(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in [*arguments, "--json"]])
        return json.loads(capsys.readouterr().out) if code == 0 else code

    return run_st


def test_a_share_keeps_what_is_not_given(st):
    assert st("queue", "share", "lab", "--max-jobs", 4, "--max-slots", 16)["max_jobs"] == 4
    assert st("queue", "share", "lab", "--weight", 3) == {
        "path": "lab",
        "weight": 3.0,
        "max_jobs": 4,
        "max_slots": 16,
    }
    assert st("queue", "share", "lab", "--max-jobs", "none")["max_jobs"] is None
    assert st("queue", "share", "all", "--max-slots", 0)["max_slots"] == 0
    assert st("queue", "share", "lab") == 2
    assert st("queue", "share", "lab", "--remove", "--weight", 2) == 2
    assert st("queue", "share", "lab", "--max-jobs", "some") == 2
    st("queue", "share", "lab", "--remove")
    assert st("queue", "share", "lab", "--weight", 2)["max_slots"] is None

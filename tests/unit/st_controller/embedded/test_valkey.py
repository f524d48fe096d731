"""The embedded server: real processes, ended and killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from st_controller.embedded.leftover import remember
from st_controller.embedded.valkey import LONGEST_SOCKET_PATH, EmbeddedValkey, find_server

PARENT = """
import asyncio, sys
from pathlib import Path
from st_controller.embedded.valkey import EmbeddedValkey, find_server

async def main():
    valkey = EmbeddedValkey(Path(sys.argv[1]), find_server())
    await valkey.start()
    assert await valkey.wait_ready()
    print(valkey.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def client(valkey):
    return redis.Redis.from_url(valkey.url, decode_responses=True)


async def started(folder):
    valkey = EmbeddedValkey(folder, find_server())
    await valkey.start()
    assert await valkey.wait_ready()
    return valkey


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_gone(pid):
    """By the kernel's own word: a process file descriptor becomes readable when it ends."""
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([descriptor], [], [], 120)
    finally:
        os.close(descriptor)
    assert ready, f"process {pid} lives on"


def test_it_starts_answers_and_stops_without_a_trace(tmp_path):
    async def story():
        valkey = await started(tmp_path)
        pid = valkey.pid
        with client(valkey) as connection:
            assert connection.config_get("port")["port"] == "0"
            assert connection.config_get("appendonly")["appendonly"] == "yes"
        assert valkey.socket.stat().st_mode & 0o777 == 0o700
        await valkey.stop()
        assert not is_alive(pid)
        assert not valkey.socket.exists()
        assert not (tmp_path / "valkey.pid").exists()

    run(story())


def test_data_survives_a_stop(tmp_path):
    async def story():
        valkey = await started(tmp_path)
        with client(valkey) as connection:
            connection.set("kept", "yes")
        await valkey.stop()
        valkey = await started(tmp_path)
        with client(valkey) as connection:
            assert connection.get("kept") == "yes"
        await valkey.stop()

    run(story())


def test_it_is_started_again_when_it_dies_and_keeps_its_data(tmp_path):
    async def story():
        valkey = await started(tmp_path)
        first = valkey.pid
        with client(valkey) as connection:
            connection.set("kept", "yes")
            connection.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(first, signal.SIGKILL)
        while valkey.pid in {first, None}:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        assert await valkey.wait_ready()
        with client(valkey) as connection:
            assert connection.get("kept") == "yes"
        await valkey.stop()

    run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_it_dies_with_its_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_gone(pid)


def test_a_leftover_is_ended_and_its_data_kept(tmp_path):
    async def story():
        orphan = EmbeddedValkey(tmp_path, find_server())
        process = subprocess.Popen(orphan._command())  # noqa: ASYNC220
        remember(tmp_path, process.pid)
        assert await orphan.wait_ready()
        with client(orphan) as connection:
            connection.set("kept", "yes")
        reaper = asyncio.create_task(asyncio.to_thread(process.wait))
        valkey = await started(tmp_path)
        assert await reaper == 0
        assert valkey.pid != process.pid
        with client(valkey) as connection:
            assert connection.get("kept") == "yes"
        await valkey.stop()

    run(story())


def test_a_stranger_with_the_remembered_process_id_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        remember(tmp_path, stranger.pid)

        async def story():
            await (await started(tmp_path)).stop()

        run(story())
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_deep_folder_gets_a_short_socket(tmp_path):
    deep = tmp_path / ("d" * LONGEST_SOCKET_PATH)

    async def story():
        valkey = await started(deep)
        assert len(str(valkey.socket)) <= LONGEST_SOCKET_PATH
        assert (deep / "appendonlydir").is_dir()
        await valkey.stop()
        assert not valkey.socket.parent.exists()

    run(story())

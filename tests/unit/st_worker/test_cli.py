"""The command as a person meets it: a process, its exit code, its output."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from st_shared.ids import new_id
from st_worker.cli import st_worker
from st_worker.credential import Credential
from st_worker.drain import until_idle
from st_worker.errors import UsageError

pytestmark = pytest.mark.anyio


def _command(*arguments):
    return [sys.executable, "-m", "st_worker", *arguments]


async def _run(*arguments, **variables):
    """Exit code, output and errors of the command."""
    process = await asyncio.create_subprocess_exec(
        *_command(*arguments),
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, output.decode(), errors.decode()


async def test_usage_errors_are_sentences(tmp_path):
    state = ["--state-dir", str(tmp_path)]
    empty = tmp_path / "token"
    empty.touch()
    runner = CliRunner()
    for arguments, said in [
        (["ftp://host"], "'ftp://host' is not the address of a controller"),
        (["http://127.0.0.1:9", "--token-file", str(empty)], "is empty"),
        (["http://127.0.0.1:9", "--label", "rack"], "write KEY=VALUE"),
        (["http://127.0.0.1:9", "--name", "no spaces please"], "name: "),
        (["http://127.0.0.1:9", "--slots", "0"], "--slots"),
        (["http://127.0.0.1:9", "--state-dir", str(empty / "inside")], "give --state-dir"),
    ]:
        command = ["join", *state, *arguments]
        result = await asyncio.to_thread(runner.invoke, st_worker, command)
        refused = isinstance(result.exception, UsageError) or result.exit_code == 2
        assert refused, result.exception
        assert said in f"{result.exception} {result.output}"


async def test_usage_error_of_the_agent_ends_with_2(tmp_path):
    code, _, errors = await _run(
        "join", "http://127.0.0.1:9", "--state-dir", str(tmp_path), ST_JOIN_TOKEN=""
    )
    assert (code, errors.startswith("st-worker: no join token: give --token")) == (2, True)
    assert "Traceback" not in errors


async def test_bad_token_ends_with_3(double, tmp_path):
    code, _, errors = await _run(
        "join", double.url, "--state-dir", str(tmp_path / "s"), ST_JOIN_TOKEN="wrong"
    )
    assert code == 3
    assert "refused by the controller" in errors


async def test_joins_works_and_leaves_on_a_signal(double, tmp_path):
    token = tmp_path / "token"
    token.write_text("join-token-of-the-tests\n")
    state = str(tmp_path / "s")
    arguments = ["--token-file", str(token), "--state-dir", state, "--name", "cli"]
    process = await asyncio.create_subprocess_exec(
        *_command("join", double.url, *arguments, "--label", "region=eu"), stderr=subprocess.PIPE
    )
    try:
        await double.until(lambda: double.streams)
        assert double.registered[0].labels == {"region": "eu"}
        again, _, errors = await _run("join", double.url, *arguments)
        assert (again, "another agent runs on" in errors) == (2, True)
        code, output, _ = await _run("status", "--state-dir", state, "--json")
        status = json.loads(output)
        assert (code, status["agent_running"], status["name"]) == (0, True, "cli")
        assert "credential-0" not in output
        code, output, errors = await _run(
            "drain", "--state-dir", state, "--grace", "2m", "--wait", "--json"
        )
        drained = json.loads(output)
        assert (code, drained["name"], drained["attempts"]) == (0, "cli", 0)
        assert (double.drains, "attempts here: 0\n" in errors) == ([120.0], True)
    finally:
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    assert b"join-token-of-the-tests" not in errors
    _, output, _ = await _run("status", "--state-dir", state)
    assert "agent not running, 0 attempts" in output


async def test_status_before_joining(tmp_path):
    code, output, _ = await _run("status", "--state-dir", str(tmp_path))
    assert code == 0
    assert "no worker has joined from here" in output


async def test_nothing_heavy_is_imported_by_the_help_or_the_agent():
    listing = "import sys, {}; print(*sys.modules)"
    for module, banned in [
        ("st_worker.cli", {"pydantic", "httpx", "psutil", "structlog", "torch"}),
        ("st_worker.serve", {"torch", "numpy", "boto3", "fastapi", "sqlalchemy", "yaml"}),
    ]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", listing.format(module), stdout=subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert not banned & set(output.decode().split())


async def test_credential_never_shows_its_secret(state_folder):
    credential = Credential(controller="http://c", worker_id="wrk_1", name="n", secret="hush")
    assert "hush" not in f"{credential} {credential!r}"
    state_folder.credential.write_text('{"secret": "hush"}')
    with pytest.raises(Exception, match="is damaged: remove it") as caught:
        Credential.load(state_folder)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--now", "--grace", "5m"], "give one of them"),
        (["--grace", "soon"], "--grace 'soon': write a duration"),
        (["--grace", "400d"], "--grace '400d': write 366d at most"),
        (["--now"], "no worker has joined from here"),
    ],
)
def test_a_drain_that_cannot_be_says_why(options, said, tmp_path):
    result = CliRunner().invoke(st_worker, ["drain", "--state-dir", str(tmp_path), *options])
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


async def test_a_drain_is_waited_for_until_nothing_is_left(state_folder):
    folders = [state_folder.attempt(new_id("att")) for _ in range(2)]
    for folder in folders:
        folder.root.mkdir()
        folder.record.touch()
    told = []

    def say(left):
        told.append(left)
        if folders:
            folders.pop().record.unlink()

    await asyncio.wait_for(until_idle(state_folder, say, 0.001), 120)
    assert told == [2, 1, 0]


@pytest.mark.parametrize("option", [["--one-job"], ["--idle-timeout", "60"]])
def test_short_lives_are_for_ephemeral_workers(option, tmp_path):
    result = CliRunner().invoke(
        st_worker, ["join", "http://c", "--state-dir", str(tmp_path), *option]
    )
    assert "add it" in str(result.exception)

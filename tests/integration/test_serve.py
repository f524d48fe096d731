"""``st-controller`` as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from st_controller.cli import main

SERVE = [sys.executable, "-c", "from st_controller.cli import main; main()"]
PASSWORD = "correct horse battery"


def command(*arguments, stdin="", **environment):
    return subprocess.run(
        [*SERVE, *arguments],
        input=stdin,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def console():
    """``st-controller`` in this process: what starts no server needs none of its own."""
    mask = os.umask(0o077)

    def run(*arguments, stdin=""):
        return CliRunner().invoke(main, arguments, input=stdin)

    yield run
    os.umask(mask)


@pytest.fixture
def serve(tmp_path):
    """Starts controllers on one data folder and ends them."""
    running = []

    def start():
        process = subprocess.Popen(
            [*SERVE, "serve", "--data", str(tmp_path / "data"), "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        running.append(process)
        return process, json.loads(process.stdout.readline())

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def get(url):
    with urllib.request.urlopen(url, timeout=60) as reply:
        return json.loads(reply.read())


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_serves_and_ends_without_a_trace(serve, tmp_path):
    process, told = serve()
    file = tmp_path / "data" / "controller.json"
    assert json.loads(file.read_text()) == {"url": told["url"], "pid": process.pid}
    assert get(told["url"] + "/readyz")["ready"]
    assert told["setup_token"] == (tmp_path / "data" / "setup-token").read_text().strip()
    (valkey,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    assert not file.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(valkey, 0)


def test_a_second_controller_on_the_same_data_is_refused(serve, tmp_path):
    process, told = serve()
    second = command("serve", "--data", str(tmp_path / "data"), "--port", "0")
    assert second.returncode == 1
    assert f"process {process.pid}" in second.stderr
    assert get(told["url"] + "/readyz")["ready"]


def test_after_kill_9_it_starts_again_on_its_data(serve, tmp_path):
    process, told = serve()
    process.kill()
    process.wait()
    _, again = serve()
    assert again["setup_token"] != told["setup_token"]
    assert get(again["url"] + "/readyz")["ready"]


def test_a_taken_port_is_told(serve, tmp_path):
    _, told = serve()
    port = told["url"].rpartition(":")[2]
    other = command("serve", "--data", str(tmp_path / "other"), "--port", port)
    assert other.returncode == 1
    assert f"127.0.0.1:{port}: Address already in use" in other.stderr


@pytest.mark.parametrize(
    "arguments", [("serve", "--port", "0"), ("migrate",), ("init",), ("user", "list")]
)
def test_a_database_that_does_not_answer_is_told_in_a_sentence(tmp_path, arguments):
    with socket.socket() as nobody:  # bound, and does not listen
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://u:hunter2@127.0.0.1:{nobody.getsockname()[1]}/st"
        done = command(*arguments, "--data", str(tmp_path / "data"), ST_DATABASE_URL=url)
    assert done.returncode == 1
    assert "u:***@127.0.0.1" in done.stderr
    assert "check ST_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_database_without_schema_is_not_served(empty_postgres_url, tmp_path):
    arguments = ("serve", "--port", "0", "--data", str(tmp_path / "data"))
    done = command(*arguments, ST_DATABASE_URL=empty_postgres_url)
    assert done.returncode == 1
    assert "run `st-controller migrate`" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_data_folder_holds_is_the_owners(serve, tmp_path):
    serve()
    for path in (tmp_path / "data").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_console_makes_users_and_tokens(console, tmp_path):
    data = ["--data", str(tmp_path / "data")]
    assert "st-controller init" in console("user", "list", *data).stderr
    assert console("init", *data).exit_code == 0
    assert "no admin yet" in console("token", "join", *data).stderr
    add = console(
        "user", "add", "ann", "--role", "admin", "--password-stdin", *data, stdin=PASSWORD
    )
    assert add.exit_code == 0, add.stderr
    again = console(
        "user", "add", "ann", "--role", "viewer", "--password-stdin", *data, stdin=PASSWORD
    )
    assert (again.exit_code, "taken" in again.stderr) == (1, True)
    move = ("user", "move", "ann", "vision", "diffusion", *data)
    assert "no team" in console(*move).stderr
    assert console(*move, "--create").exit_code == 0
    users = json.loads(console("user", "list", "--json", *data).stdout)
    assert [(user["username"], user["role"]) for user in users] == [("ann", "admin")]
    assert (users[0]["org"], users[0]["team"]) == ("vision", "diffusion")
    assert "no user" in console("user", "move", "ben", "vision", "t", *data).stderr
    assert "40 at most" in console("user", "move", "ann", "../x", "t", "--create", *data).stderr
    token = json.loads(console("token", "join", "--uses", "3", "--json", *data).stdout)
    assert token["token"].startswith("stj_")
    assert token["uses_left"] == 3


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        (("user", "add", "Ann!", "--role", "admin", "--password-stdin"), PASSWORD, "no user name"),
        (("user", "add", "ann", "--role", "admin", "--password-stdin"), "short", "10 to 1024"),
        (("serve", "--public-url", "st.example"), "", "ST_PUBLIC_URL: give an address"),
        (("user", "add", "ann", "--role", "admin"), "", "give --password-stdin"),
    ],
)
def test_wrong_input_is_told_before_anything_happens(console, tmp_path, arguments, stdin, said):
    done = console(*arguments, "--data", str(tmp_path / "data"), stdin=stdin)
    assert done.exit_code == 1
    assert said in done.stderr
    assert not (tmp_path / "data").exists()

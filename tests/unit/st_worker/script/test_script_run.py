"""A script in its process: what lands in the journal, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from st_shared.protocol.journal import JOURNAL_NAME, journal_event
from st_worker.folder import AttemptFolder
from st_worker.notes import Notes
from st_worker.prepare import prepare_script
from st_worker.script import run as script_run
from st_worker.script.allowance import BURST_LINES
from st_worker.script.outputs import MOST_FILES, OUTPUTS_NAME, announce_outputs


class Scripted:
    """The folder of an attempt whose script runs without an agent."""

    def __init__(self, root: Path) -> None:
        self.folder = AttemptFolder(root)
        self.folder.create()
        Notes(self.folder.journal, start=6).log("begun")

    @contextmanager
    def start(self, text: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
        prepare_script(self.folder, text)
        with subprocess.Popen(
            [sys.executable, "-m", "st_worker.script.run", str(self.folder.run)],
            env=os.environ | {"ST_RUN_DIR": str(self.folder.work)} | environment,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:  # the test has failed; nothing of it goes on
                    for started in psutil.Process(process.pid).children(recursive=True):
                        started.kill()
                    process.kill()

    def run(self, text: str) -> int:
        with self.start(text) as process:
            _, said = process.communicate(timeout=120)
        assert said == b""
        return process.returncode

    @property
    def events(self):
        lines = self.folder.journal.read_bytes().splitlines()
        events = [journal_event.validate_json(line) for line in lines]
        assert [event.seq for event in events] == list(range(7, 7 + len(events)))
        assert all(event.at.tzinfo for event in events)
        return events[1:]

    @property
    def messages(self) -> list[str]:
        return [event.message for event in self.events if event.kind == "log"]

    @property
    def outputs(self) -> list[str]:
        return [event.path for event in self.events if event.kind == "output"]


@pytest.fixture
def scripted(tmp_path) -> Scripted:
    return Scripted(tmp_path / "attempt")


def test_names_agree_with_the_contract():
    assert script_run.JOURNAL_NAME == JOURNAL_NAME


def test_only_the_standard_library_is_imported():
    listing = "import sys, st_worker.script.run; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pydantic", "httpx", "psutil", "structlog"} & set(found)


def test_output_and_errors_become_lines_in_their_order(scripted):
    assert scripted.run("echo one; echo two >&2; printf 'three\\n\\nfo'; printf ur") == 0
    assert scripted.messages == ["one", "two", "three", "", "four"]


def test_a_thousand_lines_lose_and_double_nothing(scripted):
    assert scripted.run("i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done") == 0
    assert scripted.messages == [str(number) for number in range(5000)]


def test_it_runs_in_an_empty_folder_with_a_place_for_outputs(scripted):
    assert scripted.run('ls -A; pwd; test "$PWD" = "$ST_RUN_DIR"') == 0
    assert scripted.messages == ["outputs", str(scripted.folder.work)]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("false; echo never", 1),
        ("no-such-command", 127),
        ("kill -9 $$", -9),
        ("kill -TERM $$", -15),
        ("if", 2),
    ],
)
def test_it_ends_as_the_script_did(scripted, script, code):
    assert scripted.run(script) == code
    assert "never" not in scripted.messages


def test_a_request_to_stop_reaches_everything_that_the_script_started(scripted):
    with scripted.start("trap 'echo bye; exit 9' TERM; echo up; sleep 600; echo never") as process:
        _until(scripted, "up")
        _until_sleeping(process)
        process.terminate()
        process.communicate(timeout=120)
    assert process.returncode == 9
    assert [scripted.messages[0], scripted.messages[-1]] == ["up", "bye"]  # the shell may add some
    assert "never" not in scripted.messages


def test_a_script_without_a_trap_ends_by_the_signal(scripted):
    with scripted.start("echo x > outputs/half; echo up; sleep 600") as process:
        _until(scripted, "up")
        process.terminate()
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGTERM
    assert scripted.outputs == []


def test_a_second_request_changes_nothing(scripted):
    trap = "trap 'n=$((n+1)); echo asked' TERM; echo up; while [ ! -e go ]; do sleep 0.05; done"
    with scripted.start(f"set +e; {trap}; echo $n") as process:
        _until(scripted, "up")
        process.terminate()
        _until(scripted, "asked")
        process.terminate()
        process.send_signal(signal.SIGINT)
        (scripted.folder.work / "go").touch()
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert [scripted.messages[0], scripted.messages[-1]] == ["up", "1"]
    assert scripted.messages.count("asked") == 1


@pytest.mark.parametrize(
    "left",
    [
        "sleep 600 & echo $!",
        "sleep 600 > /dev/null 2>&1 & echo $!",
        "setsid sleep 600 & echo $!",
        "(setsid sh -c 'sleep 600 & echo $!; echo $$; wait' &); while [ ! -e up ]; do :; done",
    ],
)
def test_what_the_script_leaves_running_ends_with_it(scripted, left):
    left = left.replace("wait'", "touch up; wait'")
    assert scripted.run(left) == 0
    assert scripted.messages
    for pid in map(int, scripted.messages):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_script_that_closes_its_output_goes_on(scripted):
    assert scripted.run("echo last; exec > /dev/null 2>&1; sleep 0.1; echo x > outputs/late") == 0
    assert scripted.messages == ["last"]
    assert scripted.outputs == ["outputs/late"]


def test_a_flood_is_cut_and_the_cut_is_counted(scripted):
    total = 300_000
    assert scripted.run(f"seq {total}; echo end") == 0
    notes = [event.message for event in scripted.events if getattr(event, "level", "") != "info"]
    kept = [event.message for event in scripted.events if getattr(event, "level", "") == "info"]
    assert BURST_LINES <= len(kept) < total
    assert kept[:BURST_LINES] == [str(number) for number in range(1, BURST_LINES + 1)]
    cut = sum(int(note.split(" lines ")[0]) for note in notes)
    assert len(kept) + cut == total + 1
    assert all("were cut: a script may print 1000 lines a second" in note for note in notes)


def test_outputs_are_named_and_what_cannot_be_stored_is_told(scripted):
    script = """
        cd outputs
        mkdir -p deep/er; echo 1 > deep/er/b.txt; echo 2 > a.bin
        ln -s /etc/passwd link; ln -s / root; mkfifo pipe
        echo 3 > 'with space'; echo 4 > .hidden; touch "$(printf '\\377')"
    """
    assert scripted.run(script) == 0
    assert scripted.outputs == ["outputs/a.bin", "outputs/deep/er/b.txt"]
    assert (scripted.folder.run / "outputs/a.bin").read_text() == "2\n"
    reasons = dict(message.split(" is not stored: ") for message in scripted.messages)
    plain, named = "it is not a plain file", "its name may hold letters"
    assert reasons["outputs/link"] == reasons["outputs/root"] == reasons["outputs/pipe"] == plain
    assert reasons["outputs/with space"].startswith(named)
    assert reasons["outputs/.hidden"].startswith(named)
    assert len(reasons) == 6


def test_outputs_that_are_no_folder_are_told(scripted):
    assert scripted.run("rmdir outputs; ln -s /etc outputs") == 0
    assert scripted.outputs == []
    assert scripted.messages == ["nothing is stored: outputs/ is no folder any more"]


def test_outputs_that_may_not_be_read_are_told_and_the_rest_is_stored(owned):
    work, run = owned / "work", owned / "run"
    outputs = work / OUTPUTS_NAME
    for folder in (run, outputs / "closed", outputs / "listed"):
        folder.mkdir(parents=True)
    for name in ("closed/x", "listed/x", "mute", "open"):
        (outputs / name).touch()
    (outputs / "mute").chmod(0)
    (outputs / "closed").chmod(0)
    (outputs / "listed").chmod(0o400)
    outputs.chmod(0o500)
    told = Told()
    announce_outputs(work, run, told)
    assert told.names == ["outputs/open"]
    paths = ["outputs/closed", "outputs/listed/x", "outputs/mute"]
    flaw = "is not stored: it cannot be read: Permission denied"
    assert told.messages == [f"{path} {flaw}" for path in paths]
    for closed in ("closed", "listed"):
        (run / OUTPUTS_NAME / closed).chmod(0o700)  # or it cannot be tidied away


class Told:
    """A journal that keeps what it is told."""

    def __init__(self) -> None:
        self.names, self.messages = [], []

    def output(self, name: str) -> None:
        self.names.append(name)

    def log(self, message: str, _level: str) -> None:
        self.messages.append(message)


def test_outputs_without_end_are_bounded(scripted):
    deep = "i=0; while [ $i -lt 400 ]; do mkdir dddddddddd; cd dddddddddd; i=$((i+1)); done"
    many = f"i=0; while [ $i -lt {MOST_FILES + 5} ]; do : > z$i; i=$((i+1)); done"
    assert scripted.run(f"cd outputs; (set +e; {deep}; echo 1 > deepest); {many}") == 0
    assert len(scripted.outputs) == MOST_FILES - 1
    assert scripted.messages[-1] == f"only {MOST_FILES} files are stored; pack them into one"


def test_outputs_of_a_failed_script_are_kept(scripted):
    assert scripted.run("echo why > outputs/report; exit 1") == 1
    assert scripted.outputs == ["outputs/report"]


def test_a_full_disk_ends_the_script_and_leaves_the_journal_whole(scripted):
    prepare_script(scripted.folder, "echo $$ > pid; yes | head -c 200000; sleep 600")
    run_dir = str(scripted.folder.run)
    limited = f"ulimit -f 64; exec {sys.executable} -m st_worker.script.run {run_dir}"
    found = subprocess.run(["/bin/bash", "-c", limited], capture_output=True, check=False)
    assert found.returncode == 1
    assert b"File too large" in found.stderr
    assert json.loads(scripted.folder.journal.read_bytes().splitlines()[-1])["message"] == "y"
    assert scripted.folder.journal.read_bytes().endswith(b"\n")
    pid = int((scripted.folder.work / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _until(scripted: Scripted, message: str) -> None:
    """Wait until the script has printed ``message``; the test's own limit ends a vain wait."""
    line = f'"message": "{message}"'.encode()
    while line not in scripted.folder.journal.read_bytes():
        os.sched_yield()


def _until_sleeping(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the shell has begun to wait for ``sleep``.

    A signal that comes while the shell forks is lost to the child and kept by the shell until the
    child ends: that is how shells work, and what the grace of a stop is for.
    """
    while "sleep" not in [child.name() for child in psutil.Process(process.pid).children(True)]:
        os.sched_yield()

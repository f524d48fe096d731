import hashlib
import importlib
import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"

# A leader that starts a process in a session of its own, as a worker starts its trainer.
LEADER = """
import signal, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
child = subprocess.Popen(sleeper, start_new_session=True)
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def demo_module(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("demo")


@pytest.fixture
def demo_processes(demo_module):
    return importlib.import_module("demo_processes")


def start(demo_processes, tmp_path, *code):
    command = [sys.executable, "-c", *code]
    return demo_processes.Child("leader", command, tmp_path / "log", dict(os.environ))


@pytest.mark.parametrize(
    ("mood", "seconds", "said"), [("polite", 120, "stopped"), ("stubborn", 0.5, "was killed")]
)
def test_stopping_a_child_leaves_none_of_its_family(demo_processes, tmp_path, mood, seconds, said):
    child = start(demo_processes, tmp_path, LEADER, mood)
    child.wait_until(lambda: child.log.read_text().endswith("\n"), 120, "starting")
    grandchild = int(child.log.read_text())
    how = child.stop(seconds)
    assert said in how
    assert "killed 1 of its processes" in how
    assert not demo_processes.is_alive(child.pid)
    deadline = time.monotonic() + 120
    while state_of(grandchild) not in {None, "Z"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # init takes the orphan's end in its own time
    assert "had ended" in child.stop()


def state_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_a_child_that_ends_is_told_with_the_end_of_its_log(demo_processes, tmp_path):
    child = start(demo_processes, tmp_path, "import sys; print(*range(90), sep='\\n'); sys.exit(7)")
    with pytest.raises(demo_processes.DemoError, match="ended with code 7") as caught:
        child.wait_until(lambda: False, 120, "starting")
    assert "\n  89\n" in str(caught.value)
    assert "\n  3\n" not in str(caught.value)
    assert str(child.log) in str(caught.value)


def test_waiting_has_an_end(demo_processes, tmp_path):
    child = start(demo_processes, tmp_path, "import time; time.sleep(600)")
    with pytest.raises(demo_processes.DemoError, match="starting took more than 0 s"):
        child.wait_until(lambda: False, 0, "starting")
    child.stop()


def test_the_former_port_is_taken_again_when_it_is_free(demo_module, tmp_path):
    path = tmp_path / "port"
    assert demo_module.former_port(path) == 0
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        path.write_text(str(port))
        assert demo_module.former_port(path) == 0
    assert demo_module.former_port(path) == port
    path.write_text("")
    assert demo_module.former_port(path) == 0


def test_what_an_earlier_demo_left_running_is_named(demo_module, demo_processes, tmp_path):
    demo = demo_module.Demo(tmp_path, None)
    demo_module.refuse_company(demo)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    one = demo.start("st-controller", command, tmp_path / "one.log")
    two = demo.start("st-worker", command, tmp_path / "two.log")
    with pytest.raises(demo_processes.DemoError, match=f"kill {two.pid} {one.pid}"):
        demo_module.refuse_company(demo)
    two.stop()
    with pytest.raises(demo_processes.DemoError, match=f"`kill {one.pid}`"):
        demo_module.refuse_company(demo)
    one.stop()
    demo_module.refuse_company(demo)


def test_another_process_with_the_same_id_is_no_leftover(demo_processes, tmp_path):
    path = tmp_path / "processes.json"
    path.write_text(json.dumps([{"name": "st-worker", "pid": os.getpid(), "born": "1"}]))
    assert demo_processes.still_running(path) == []


def manifest(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "state.bin").write_bytes(b"state")
    item = {"path": "state.bin", "size": 5, "sha256": hashlib.sha256(b"state").hexdigest()}
    content = {"step": 1, "spec_sha256": "0" * 64, "files": [item | changes]}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder / "manifest.json"


def test_a_checkpoint_must_be_as_its_manifest_says(demo_module, demo_processes, tmp_path):
    results = importlib.import_module("demo_results")
    assert results.verify_manifest(manifest(tmp_path / "good")) == 1
    wrong = [{"size": 4}, {"sha256": "0" * 64}, {"path": "missing.bin"}]
    for index, changes in enumerate(wrong):
        with pytest.raises(demo_processes.DemoError, match=r"\.bin is missing or differs"):
            results.verify_manifest(manifest(tmp_path / str(index), **changes))


@pytest.mark.parametrize("steps", [1, 20, 600])
def test_a_shorter_run_is_still_a_valid_job(demo_module, tmp_path, steps):
    from st_client.commands.submit import read_spec

    demo = demo_module.Demo(tmp_path, steps)
    changes = [part for part in demo_module.changes(demo) if part != "--set"]
    assert read_spec(EXAMPLES / "digits.yaml", changes).training.steps == steps
    assert demo_module.changes(demo_module.Demo(tmp_path, None)) == []


def test_commands_of_the_demo_see_none_of_the_persons_keys(demo_module, tmp_path, monkeypatch):
    monkeypatch.setenv("ST_API_KEY", "mine")
    monkeypatch.setenv("ST_URL", "http://elsewhere")
    environment = demo_module.Demo(tmp_path, None).environment
    assert not {"ST_API_KEY", "ST_URL"} & environment.keys()
    assert environment["ST_CONFIG_HOME"] == str(tmp_path / "client")

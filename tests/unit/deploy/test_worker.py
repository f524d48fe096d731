"""What is deployed on GPU hosts fits the agent that it starts, and passes the field's linters."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from st_worker.agent import Departure
from st_worker.cli import st_worker
from st_worker.settings import AgentSettings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "worker"
UNIT = (FOLDER / "st-worker.service").read_text()
CONTAINERFILE = FOLDER / "Containerfile"
IGNORED = (ROOT / ".dockerignore").read_text()


def unit(key):
    """The value of a key that stands once in the unit."""
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    return value


def instructions():
    """Instructions of the Containerfile with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def arguments(name):
    return [rest for word, rest in instructions() if word == name]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path):
    copy = tmp_path / "st-worker.service"
    copy.write_text(UNIT.replace("/opt/st-worker/bin/st-worker", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_ends_only_the_agent_and_gives_it_time():
    assert unit("KillMode") == "process"
    assert unit("OOMPolicy") == "continue"
    settings = AgentSettings()
    needed = settings.shutdown_grace_seconds + settings.report_seconds
    assert float(unit("TimeoutStopSec").removesuffix("s")) >= needed + 10
    assert "PrivateTmp=" not in UNIT
    assert "MemoryDenyWriteExecute=" not in UNIT
    assert "PrivateDevices=" not in UNIT


def test_the_unit_knows_the_exit_codes_of_the_agent():
    codes = {departure.exit_code for departure in Departure}
    final = {int(code) for code in unit("RestartPreventExitStatus").split()}
    assert final == {2, Departure.REFUSED.exit_code}
    assert Departure.RETIRED.exit_code in final
    assert int(unit("RestartForceExitStatus")) == Departure.HANDOVER.exit_code
    assert unit("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert unit("Restart") == "on-failure"
    assert Departure.FAULT.exit_code in codes - final - {0}  # so it is started again


def test_the_unit_calls_a_command_that_there_is():
    line = unit("ExecStart").replace("${ST_CONTROLLER}", "https://st.example")
    program, command, *options = shlex.split(line)
    assert program.endswith("/st-worker")
    known = {name for each in st_worker.commands[command].params for name in each.opts}
    assert {option for option in options if option.startswith("--")} <= known
    shown = (FOLDER / "environment.example").read_text()
    for name in set(re.findall(r"\bST_\w+", UNIT)):
        assert f"\n{name}=" in shown, name


def test_the_image_runs_as_nobody_in_particular_and_tells_its_health():
    (user,) = arguments("USER")
    assert int(user) > 0
    ((health),) = arguments("HEALTHCHECK")
    assert "status" in health
    assert "--check" in health
    assert CliRunner().invoke(st_worker, ["status", "--check", "--state-dir", "x"]).exit_code == 1
    assert arguments("ENTRYPOINT") == ['["st-worker"]']


def test_the_image_is_made_of_what_is_in_the_repository():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (default,) = re.findall(r"EXTRAS=(\S+)", "\n".join(arguments("ARG")))
    assert set(default.split(",")) <= extras.keys()
    for line in arguments("COPY"):
        *sources, _target = line.split()
        if not line.startswith("--from="):
            assert [source for source in sources if not (ROOT / source).exists()] == []
    allowed = {line[1:] for line in IGNORED.splitlines() if line.startswith("!")}
    assert {source for line in arguments("COPY") if not line.startswith("--from=")
            for source in line.split()[:-1]} <= allowed  # fmt: skip
    assert not any(image.endswith(":latest") or ":" not in image for image in arguments("FROM"))
    assert arguments("ADD") == []


def test_hadolint_has_nothing_to_say():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")

"""Scripts in real processes: what they are told, what they say, and how they end."""

import os
import time
from pathlib import Path

import pytest

from st_shared.spec.scripts import ScriptSpec
from st_trainer.scripts.run import metrics_in, run_script, script_environment


@pytest.fixture
def run(tmp_path):
    def start(script, *arguments, timeout=60, stop=lambda: False, **variables):
        spec = ScriptSpec(run=script, timeout=timeout)
        return run_script("judge", spec, arguments, variables, tmp_path, stop)

    return start


def test_it_is_told_its_arguments_and_its_last_line_becomes_metrics(run):
    result = run(
        'echo "a log line"; printf \'{"first": %s, "second": %s}\\n\' "$1" "$ST_STEP"',
        "2.5",
        ST_STEP="7",
    )
    assert (result.error, result.metrics) == (None, {"judge.first": 2.5, "judge.second": 7.0})


def test_it_knows_the_secrets_of_the_job_and_none_of_the_host():
    found = script_environment(
        {
            "PATH": "/bin",
            "MY_TOKEN": "of the job",
            "HF_TOKEN": "of the host",
            "PROXY": "http://ann:word@host",
            "ST_SECRET_NAMES": "OTHER,MY_TOKEN",
            "ST_ATTEMPT_FOLDER": "/a",
            "ST_DATASETS_DIR": "/d",
        }
    )
    assert found == {"PATH": "/bin", "MY_TOKEN": "of the job", "ST_ATTEMPT_FOLDER": "/a"}


def test_what_it_is_told_is_never_part_of_the_script(run, tmp_path):
    assert run('test "$1" = "; touch broken"', "; touch broken").error is None
    assert not (tmp_path / "broken").exists()


def test_a_failure_has_its_code_and_last_words(run):
    result = run("echo some numbers; echo no such model >&2; false; echo never")
    assert result.error == "exit code 1: no such model"
    assert result.metrics == {}


def test_output_is_kept_from_its_end_alone(run):
    result = run("head -c 300000 /dev/zero | tr '\\0' 'x'; echo; echo '{\"a\": 1}'")
    assert result.metrics == {"judge.a": 1.0}


@pytest.mark.parametrize("why", ["timeout", "stop"])
def test_it_is_ended_with_all_that_it_started(run, tmp_path, why):
    asked = {"timeout": 0.3} if why == "timeout" else {"stop": (tmp_path / "pid").exists}
    result = run("sleep 600 & echo $! > pid.new; mv pid.new pid; wait", **asked)
    assert result.error in {"it was ended after 0.3 s", "it was ended: the run is to stop"}
    assert result.seconds < 60
    if (tmp_path / "pid").exists():
        must_end(int((tmp_path / "pid").read_text()))


def test_what_it_leaves_in_the_background_ends_with_it(run, tmp_path):
    assert run("sleep 600 >/dev/null 2>&1 & echo $! > pid").error is None
    must_end(int((tmp_path / "pid").read_text()))


def must_end(pid):
    """Wait for a process that was killed to be gone, or to be a zombie nobody waits for."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                return
        except OSError:
            return
    raise AssertionError(f"process {pid} goes on")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": "x"}', "a is 'x', not a finite number"),
        ('{"a": true}', "a is 'True', not a finite number"),
        ('{"a": 1e999}', "a is 'inf', not a finite number"),
        ('{"a": 1' + "0" * 400 + "}", "not a finite number"),
        ('{"<b>": 1}', "'<b>' is no name of a metric"),
        ('{"a": ', "not valid JSON"),
        (
            "{" + ", ".join(f'"m{n}": 1' for n in range(65)) + "}",
            "65 numbers, of which 64 are most",
        ),
    ],
)
def test_what_is_no_metric_is_told(line, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        metrics_in(f"hello\n{line}\n", "judge")


def test_other_output_is_no_metric():
    assert metrics_in("all is well\n", "judge") == metrics_in("", "judge") == {}

"""Batches, sweeps, retries and priorities from the command line."""

import io
import json
import sys

import pytest

from st_shared.protocol.resources import Reason

JOB = "name: digits\nnoop: {seconds: 0}\n"
ARRAY = f"arr_{1:026d}"
WARNING = Reason(code="unsatisfiable", message="No worker has joined yet.", hint="start one")


def ident(number):
    return f"job_{number:026d}"


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


@pytest.fixture
def jobs(fake_controller, make_job):
    for number, state in enumerate(("queued", "failed"), 1):
        fake_controller.jobs[ident(number)] = make_job(number, state)
    return fake_controller


# Several files, standard input, warnings


def test_several_files_go_out_together(st_run, fake_controller, job_file, tmp_path):
    second = tmp_path / "second.yaml"
    second.write_text('name: report\nnoop: {}\nafter: ["@digits"]\n')
    code, out, _ = st_run(
        "submit", job_file, second, "--set", "priority=low", "--idempotency-key", "k"
    )
    assert code == 0
    assert out.splitlines() == [
        f"submitted {ident(1)} (digits)",
        f"submitted {ident(2)} (report)",
    ]
    assert [job["priority"] for job in fake_controller.submitted] == ["low", "low"]
    assert fake_controller.submitted[1]["after"] == ["@digits"]
    assert fake_controller.idempotency_key == "k"
    code, out, _ = st_run("submit", job_file, second, "--json")
    assert [job["name"] for job in json.loads(out)["jobs"]] == ["digits", "report"]


def test_one_wrong_file_of_several_and_nothing_is_sent(st_run, fake_controller, job_file, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nnoop: {seconds: -1}\n")
    code, _, err = st_run("submit", job_file, wrong)
    assert code == 2
    assert "wrong.yaml" in err
    assert "noop.seconds" in err
    assert fake_controller.requests == []
    assert st_run("submit", job_file, job_file, "--follow")[0] == 2


class _Stdin:
    def __init__(self, raw):
        self.buffer = io.BytesIO(raw)


def test_a_job_comes_from_standard_input(st_run, fake_controller, monkeypatch):
    monkeypatch.setattr(sys, "stdin", _Stdin(JOB.encode()))
    assert st_run("submit", "-", "--set", "noop.seconds=3")[0] == 0
    assert fake_controller.submitted["noop"] == {"seconds": 3.0}
    assert st_run("submit", "-", "-")[0] == 2


@pytest.mark.parametrize(
    ("raw", "said"), [(b"\xff", "UTF-8"), (b"x" * 1_000_001, "larger"), (b"[", "not valid YAML")]
)
def test_bad_standard_input_is_told(st_run, fake_controller, monkeypatch, raw, said):
    monkeypatch.setattr(sys, "stdin", _Stdin(raw))
    code, _, err = st_run("submit", "-")
    assert (code, said in err) == (2, True)
    assert "standard input cannot be submitted" in err
    assert fake_controller.requests == []


def test_warnings_go_to_standard_error(st_run, fake_controller, job_file):
    fake_controller.warnings = [WARNING]
    code, out, err = st_run("submit", job_file, job_file, "--json")
    assert code == 0
    assert json.loads(out)["jobs"][0]["warnings"][0]["code"] == "unsatisfiable"
    assert err.splitlines() == ["warning: No worker has joined yet.", "hint: start one"]


# Sweeps


def test_a_sweep_of_a_grid(st_run, fake_controller, job_file):
    code, out, _ = st_run(
        "sweep", job_file, "--set-grid", "noop.seconds=0,1.5", "--set-grid",
        'resources.accelerator="a,b",cpu', "--max-running", 2, "--name", "n", "--set",
        "priority=low",
    )  # fmt: skip
    assert code == 0
    assert out.startswith(f"submitted {ARRAY} (n), 6 jobs\n")
    assert fake_controller.submitted == {
        "spec": {"name": "digits", "noop": {"seconds": 0}, "priority": "low"},
        "grid": {"noop.seconds": [0, 1.5], "resources.accelerator": ["a,b", "cpu"]},
        "max_running": 2,
        "name": "n",
    }


def test_a_sweep_of_a_list(st_run, fake_controller, job_file, tmp_path):
    listed = tmp_path / "list.yaml"
    listed.write_text("- {noop.seconds: 1}\n- {not_before: 2030-01-01T00:00:00Z}\n")
    assert st_run("sweep", job_file, "--list", listed, "--json")[0] == 0
    assert fake_controller.submitted["list"] == [
        {"noop.seconds": 1},
        {"not_before": "2030-01-01T00:00:00Z"},
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--set-grid"),
        (("--set-grid", "a=1", "--list", "x"), "--set-grid"),
        (("--set-grid", "a"), "KEY=V1,V2"),
        (("--set-grid", "=1"), "KEY=V1,V2"),
        (("--set-grid", "a=[1"), "cannot be read"),
        (("--set-grid", "a=.nan"), "no number"),
        (("--list", "/nowhere.yaml"), "/nowhere.yaml"),
        (("--set", "a", "--set-grid", "a=1"), "KEY=VALUE"),
        (("--set-grid", "a=1", "--max-running", "0"), "--max-running"),
    ],
)
def test_a_bad_sweep_is_told_before_anything_is_sent(
    st_run, fake_controller, job_file, options, said
):
    code, _, err = st_run("sweep", job_file, *options)
    assert (code, said in err) == (2, True), err
    assert fake_controller.requests == []


def test_arrays_are_listed_shown_capped_and_cancelled(st_run, fake_controller, job_file, jobs):
    assert st_run("sweep", job_file, "--set-grid", "noop.seconds=1")[0] == 0
    assert ARRAY in st_run("arrays")[1]
    assert json.loads(st_run("arrays", "--json")[1])["items"][0]["id"] == ARRAY
    assert "4 queued, 2 running" in st_run("arrays", "latest")[1]
    assert "at once:    3" in st_run("arrays", ARRAY, "--max-running", 3)[1]
    assert "as many as fit" in st_run("arrays", ARRAY, "--no-max-running")[1]
    code, out, err = st_run("cancel", "--array", ARRAY[:27])
    assert (code, "6 cancelled" in out) == (0, True), err
    assert json.loads(st_run("jobs", "--array", ARRAY, "--mine", "--json")[1]) == {"items": []}
    assert ("GET", "/v1/jobs", {"array": ARRAY, "mine": "true", "limit": "100"}) in jobs.requests


@pytest.mark.parametrize(
    "arguments",
    [
        ("arrays", "--max-running", "3"),
        ("arrays", "x", "--max-running", "3", "--no-max-running"),
        ("cancel",),
        ("cancel", "latest", "--array", ARRAY),
        ("cancel", "--array", ARRAY, "--wait"),
        ("cancel", ARRAY, "--wait"),
        ("priority", "latest"),
        ("priority", "latest", "high", "--no-override"),
        ("priority", "latest", "--override", "15"),
        ("priority", "latest", "huge"),
    ],
)
def test_what_says_nothing_or_two_things_is_wrong_usage(st_run, fake_controller, arguments):
    assert st_run(*arguments)[0] == 2
    assert fake_controller.requests == []


def test_an_array_is_cancelled_by_its_id_alone(st_run, fake_controller, job_file):
    assert st_run("sweep", job_file, "--set-grid", "noop.seconds=1")[0] == 0
    code, out, err = st_run("cancel", ARRAY)
    assert (code, "6 cancelled" in out) == (0, True), err
    assert ("POST", f"/v1/job-arrays/{ARRAY}/cancel", {}) in fake_controller.requests


def test_who_gives_an_array_where_a_job_is_wanted_is_told_what_takes_it(st_run, fake_controller):
    for name in ("show", "logs", "metrics", "artifacts", "retry", "explain", "priority", "approve"):
        code, _, err = st_run(name, ARRAY, *(["high"] if name == "priority" else []))
        assert (code, f"{ARRAY} is a job array, and this takes one job" in err) == (2, True), name
        assert f"`st arrays {ARRAY}`" in err
    assert fake_controller.requests == []


def test_who_gives_a_job_where_an_array_is_wanted_is_told_too(st_run, fake_controller):
    for command in (["arrays"], ["jobs", "--array"], ["cancel", "--array"]):
        code, _, err = st_run(*command, ident(1))
        assert (code, f"{ident(1)} is a job, and this takes a job array" in err) == (2, True), err
    assert fake_controller.requests == []


# Retries and priorities


def test_retry_queues_a_job_again(st_run, jobs):
    code, out, _ = st_run("retry", ident(2))
    assert (code, out) == (0, f"{ident(2)} is queued again\n")
    assert json.loads(st_run("retry", ident(2), "--json")[1])["state"] == "queued"


def test_priorities_and_overrides(st_run, jobs):
    assert st_run("priority", ident(1), "high")[1] == f"{ident(1)} has the priority high\n"
    said = f"{ident(1)} has the priority high, overridden: 0\n"
    assert st_run("priority", ident(1), "--override", 0)[1] == said
    assert "overridden: 0" in st_run("show", ident(1))[1]
    assert st_run("priority", ident(1), "--no-override")[1] == f"{ident(1)} has the priority high\n"
    assert jobs.jobs[ident(1)].override is None

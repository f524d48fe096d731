import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path

import pytest

from st_client.cli import run
from st_client.commands.metrics import curve, metric_series
from st_client.credentials import Credentials
from st_shared.protocol import sse
from st_shared.protocol.resources import LogLine, MetricPoint, ProgressView, Reason, StateChange

JOB = """
name: digits
training:
  model: {family: pixel_dit}
  datasets: [{name: digits}]
  steps: 600
"""

NOW = "2026-01-02T03:04:05Z"


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def log(seq, message="hello"):
    line = LogLine(attempt=1, seq=seq, at=NOW, level="info", message=message)
    return sse.encode("log", line.model_dump_json(), f"l{seq}")


def state(version, name, reason=None):
    change = StateChange(version=version, state=name, at=NOW, reason=reason)
    return sse.encode("state", change.model_dump_json(), f"s{version}")


def raw(event, **fields):
    return sse.encode(event, json.dumps({"attempt": 1, "at": NOW} | fields))


def ident(number):
    return f"job_{number:026d}"


# Signing in


def test_login_with_a_password_keeps_a_key_and_not_the_password(fake_url, st_home, monkeypatch):
    monkeypatch.setattr(sys, "stdin", _Stdin("correct horse battery\n"))
    assert run(["login", fake_url + "/", "--username", "ada", "--password-stdin"]) == 0
    stored = Credentials({"ST_CONFIG_HOME": str(st_home)})
    assert stored.current().url == fake_url
    assert stored.current().api_key.startswith("st_new_st_on_")
    assert "horse" not in stored.path.read_text()


def test_login_with_a_wrong_password_keeps_nothing(fake_url, st_home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", _Stdin("wrong\n"))
    assert run(["login", fake_url, "--username", "ada", "--password-stdin"]) == 4
    assert "Wrong user name or password" in capsys.readouterr().err
    assert not st_home.exists()


def test_login_with_an_api_key_verifies_it(fake_url, st_home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", _Stdin("no such key\n"))
    assert run(["login", fake_url, "--api-key-stdin"]) == 4
    monkeypatch.setattr(sys, "stdin", _Stdin("st_key_of_the_test\n"))
    assert run(["login", fake_url, "--api-key-stdin"]) == 0
    capsys.readouterr()
    assert run(["login", fake_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["me"]["username"] == "ada"


def test_the_setup_token_creates_the_first_admin(fake_url, st_home, monkeypatch, capsys):
    command = ["login", fake_url, "--password-stdin", "--setup-token"]
    monkeypatch.setattr(sys, "stdin", _Stdin("a long password\n"))
    assert run([*command, "wrong"]) == 4
    monkeypatch.setattr(sys, "stdin", _Stdin("tooshort\n"))
    assert run([*command, "once"]) == 2
    assert "tooshort" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", _Stdin("a long password\n"))
    assert run([*command, "once"]) == 0
    assert Credentials().current().api_key == "st_new_setup"


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://", "nonsense"])
def test_an_address_that_is_none_is_refused(url, st_home, capsys):
    assert run(["login", url]) == 2
    assert "http://HOST:PORT" in capsys.readouterr().err


class _Stdin(BytesIO):
    def __init__(self, text):
        super().__init__(text.encode())

    def readline(self):
        return super().readline().decode()


# Submitting


def test_submit_sends_what_the_file_says(st_run, fake_controller, job_file):
    code, out, _ = st_run("submit", job_file, "--set", "training.steps=7", "--idempotency-key", "k")
    assert code == 0
    assert f"submitted {ident(1)} " in out
    assert fake_controller.submitted["training"]["steps"] == 7
    assert "batch_size" not in fake_controller.submitted["training"]
    assert fake_controller.idempotency_key == "k"


def test_submit_as_json_is_one_document(st_run, job_file):
    code, out, _ = st_run("submit", job_file, "--json")
    assert (code, json.loads(out)["id"]) == (0, ident(1))


def test_every_mistake_is_told_before_anything_is_sent(st_run, fake_controller, job_file):
    job_file.write_text(JOB.replace("steps: 600", "steps: -1\n  stesp: 3"))
    code, out, err = st_run("submit", job_file)
    assert code == 2
    assert "training.steps:" in err
    assert "training.stesp: unknown key; did you mean 'steps'?" in err
    assert "2 mistakes" in err
    assert fake_controller.requests == []
    code, out, _ = st_run("submit", job_file, "--json")
    fields = {item["field"] for item in json.loads(out)["error"]["errors"]}
    assert (code, fields) == (2, {"training.steps", "training.stesp"})


def test_what_the_controller_refuses_names_the_field(st_run, job_file):
    code, _, err = st_run("submit", job_file, "--set", "name=refused")
    assert code == 2
    assert "training.datasets.0.name: no such dataset" in err


@pytest.mark.parametrize(
    "change", ["steps", "=3", "a..b=1", "training.datasets.7.repeats=2", "name.first=x"]
)
def test_a_change_that_names_nothing_is_refused(st_run, job_file, change):
    code, _, err = st_run("submit", job_file, "--set", change)
    assert code == 2
    assert "--set" in err


def test_a_change_may_name_a_position(st_run, fake_controller, job_file):
    assert st_run("submit", job_file, "--set", "training.datasets.0.repeats=2")[0] == 0
    assert fake_controller.submitted["training"]["datasets"] == [{"name": "digits", "repeats": 2}]


def test_a_missing_file_is_bad_input(st_run, tmp_path):
    code, _, err = st_run("submit", tmp_path / "none.yaml")
    assert code == 2
    assert "cannot read" in err


# Following


def test_following_shows_log_samples_states_and_ends_well(st_run, fake_controller, job_file):
    reason = Reason(code="no_worker", message="no worker is free", hint=None)
    fake_controller.event_scripts = [
        [state(1, "queued", reason), log(1, "loss\x1b[2J falls")],
        [
            log(1),
            raw("progress", seq=2, phase="training", step=5, steps=10, loss=0.5, eta_seconds=65),
            raw("sample", seq=3, step=5, path="samples/step-000005.png"),
            raw("checkpoint", seq=4, step=5, manifest="checkpoints/step-000005/manifest.json"),
            raw("output", seq=5, name="weights", path="output/weights.safetensors"),
            state(2, "succeeded"),
        ],
    ]
    code, out, err = st_run("submit", job_file, "--follow")
    assert code == 0
    assert "== queued: no worker is free" in out
    assert "loss[2J falls" in out
    assert "\x1b" not in out
    assert out.count("falls") == 1
    assert "hello" not in out
    assert "training 5/10 (50%)  loss 0.5000  ETA 1m 5s" in out
    assert "sample ready: samples/step-000005.png (step 5)" in out
    assert "== succeeded" in out
    assert "reconnecting" in err
    assert fake_controller.last_event_ids == [None, "l1"]


@pytest.mark.parametrize("ending", ["failed", "cancelled", "rejected"])
def test_following_a_job_that_does_not_succeed_fails(st_run, fake_controller, job_file, ending):
    reason = Reason(code="x", message="the loss became NaN", hint="lower the learning rate")
    fake_controller.event_scripts = [[state(1, ending, reason)]]
    code, _, err = st_run("submit", job_file, "--follow")
    assert code == 1
    assert ending in err
    assert "the loss became NaN" in err
    assert "lower the learning rate" in err


def test_following_as_json_is_ndjson(st_run, fake_controller, job_file):
    fake_controller.event_scripts = [[log(1), state(1, "failed")]]
    code, out, _ = st_run("submit", job_file, "--follow", "--json")
    documents = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [item.get("event") for item in documents] == ["submitted", "log", "state", None]
    assert documents[-1]["error"]["code"] == "job_failed"


def test_logs_follow_prints_lines_and_states_only(st_run, fake_controller):
    script = [log(1), raw("sample", seq=2, step=1, path="a.png"), state(1, "succeeded")]
    fake_controller.event_scripts = [script, script]
    code, out, _ = st_run("logs", ident(1), "-f")
    assert code == 0
    assert "hello" in out
    assert "sample" not in out
    assert [
        json.loads(line)["seq"] for line in st_run("logs", ident(1), "-f", "--json")[1].splitlines()
    ] == [1]


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(
    fake_url, fake_controller, st_home, job_file
):
    released = threading.Event()

    def endless():
        yield log(1, "begun")
        released.wait(60)

    fake_controller.event_scripts = [endless()]
    environment = os.environ | {"ST_URL": fake_url, "ST_API_KEY": "st_key_of_the_test"}
    command = [Path(sys.executable).with_name("st"), "submit", job_file, "--follow"]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Also where the tests run in the background of a shell, which has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        while "begun" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    released.set()
    assert process.returncode == 130
    assert f"st logs {ident(1)} -f" in err
    assert f"st cancel {ident(1)}" in err
    assert "Traceback" not in err
    assert ("POST", f"/v1/jobs/{ident(1)}/cancel", {}) not in fake_controller.requests


# Jobs


def fill_jobs(fake, make, count=5, **changes):
    for number in range(1, count + 1):
        fake.jobs[ident(number)] = make(number, **changes)


def test_jobs_are_listed_over_pages(st_run, fake_controller, make_job):
    progress = ProgressView(phase="training", step=30, steps=600)
    fill_jobs(fake_controller, make_job, progress=progress)
    code, out, _ = st_run("jobs")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == [ident(n) for n in (5, 4, 3, 2, 1)]
    assert "30/600 5%" in out
    assert len(json.loads(st_run("jobs", "--limit", "3", "--json")[1])["items"]) == 3
    assert json.loads(st_run("jobs", "--state", "failed", "--json")[1]) == {"items": []}


def test_a_job_is_found_by_id_beginning_or_latest(st_run, fake_controller, make_job):
    fill_jobs(fake_controller, make_job, 11)
    fake_controller.jobs["job_01k" + "z" * 23] = make_job(1, id="job_01k" + "z" * 23)
    for name in ("job_01k" + "z" * 23, "01kzz", "job_01k", "latest"):
        assert json.loads(st_run("show", name, "--json")[1])["id"] == "job_01k" + "z" * 23


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("0" * 24 + "1", 2, "2 jobs begin with"),
        ("zzz", 5, "no job begins with job_zzz"),
        (ident(99), 5, f"no job {ident(99)}"),
        ("../workers", 2, "is not a job id"),
        ("", 2, "is not a job id"),
    ],
)
def test_a_job_that_is_not_found_is_told(st_run, fake_controller, make_job, name, code, said):
    fill_jobs(fake_controller, make_job, 11)
    found, _, err = st_run("show", name)
    assert (found, said in err) == (code, True)


def test_latest_needs_a_job(st_run):
    code, _, err = st_run("show", "latest")
    assert (code, "no job yet" in err) == (5, True)


def test_show_tells_reason_and_specification(st_run, fake_controller, make_job):
    reason = Reason(code="no_worker", message="no worker is free", hint="start one")
    fill_jobs(fake_controller, make_job, 1, reason=reason)
    _, out, _ = st_run("show", "latest")
    assert "no worker is free [no_worker]" in out
    assert "start one" in out
    assert '"name": "digits"' in out


def test_cancel_asks_and_may_wait(st_run, fake_controller, make_job):
    fill_jobs(fake_controller, make_job, 1)
    code, out, _ = st_run("cancel", "latest")
    assert (code, "will stop shortly" in out) == (0, True)

    def ending():
        fake_controller.jobs[ident(1)] = make_job(1, state="cancelled")
        yield state(2, "cancelled")

    fake_controller.event_scripts = [ending()]
    code, out, _ = st_run("cancel", "latest", "--wait")
    assert (code, "is cancelled" in out) == (0, True)
    assert st_run("cancel", "latest")[0] == 6


def test_cancel_that_comes_too_late_is_a_failure(st_run, fake_controller, make_job):
    fill_jobs(fake_controller, make_job, 1)

    def ending():
        fake_controller.jobs[ident(1)] = make_job(1, state="succeeded")
        yield state(2, "succeeded")

    fake_controller.event_scripts = [ending()]
    code, _, err = st_run("cancel", "latest", "--wait")
    assert (code, "ended as succeeded" in err) == (1, True)


def test_logs_come_over_pages(st_run, fake_controller):
    fake_controller.logs = [
        LogLine(attempt=1, seq=n, at=NOW, level="info", message=f"line {n}") for n in range(1, 6)
    ]
    _, out, _ = st_run("logs", ident(1))
    assert [line.split()[-1] for line in out.splitlines()] == list("12345")
    assert len(json.loads(st_run("logs", ident(1), "--json")[1])["items"]) == 5


def test_what_was_measured_again_after_a_resume_counts_once():
    def points(*rows):
        return [
            MetricPoint(attempt=attempt, seq=seq, at=NOW, step=step, values={"loss": loss})
            for seq, (attempt, step, loss) in enumerate(rows)
        ]

    lost = [(1, 5, 9.0), (1, 10, 8.0), (1, 15, 7.0), (1, 20, 6.0)]
    resumed = points(*lost, (2, 15, 1.0))
    assert metric_series(resumed) == {"loss": [9.0, 8.0, 1.0]}
    assert [(point.attempt, point.step) for point in curve(resumed)] == [(1, 5), (1, 10), (2, 15)]
    anew = points(*lost, (2, 5, 3.0))
    assert metric_series(anew) == {"loss": [3.0]}


def test_metrics_are_drawn_with_the_newest_attempt_on_top(st_run, fake_controller):
    fake_controller.metrics = [
        MetricPoint(attempt=attempt, seq=step, at=NOW, step=step, values={"loss": loss})
        for attempt, step, loss in ((1, 1, 4.0), (1, 2, 9.0), (2, 2, 2.0), (2, 3, 1.0))
    ]
    _, out, _ = st_run("metrics", ident(1))
    assert "loss: 4 -> 1 (least 1)" in out
    assert "█▃▁" in out
    assert len(json.loads(st_run("metrics", ident(1), "--json")[1])["items"]) == 4


# Artifacts


def test_artifacts_are_fetched_verified_and_not_twice(st_run, fake_controller, add_file, tmp_path):
    add_file("output/weights.safetensors", b"old", attempt=1)
    add_file("samples/a.png", b"png", kind="sample")
    add_file("output/weights.safetensors", b"new", attempt=2)
    folder = tmp_path / "got"
    code, _, _ = st_run("artifacts", ident(1), "--download", folder)
    assert code == 0
    assert (folder / "output/weights.safetensors").read_bytes() == b"new"
    assert (folder / "samples/a.png").read_bytes() == b"png"
    assert all("authorization" not in headers for headers in fake_controller.signed_headers)
    before = len(fake_controller.signed_headers)
    code, out, _ = st_run("artifacts", ident(1), "--download", folder, "--json")
    assert len(json.loads(out)["items"]) == 2
    assert len(fake_controller.signed_headers) == before
    assert not list(folder.rglob("*.partial"))


def test_an_expired_url_is_renewed(st_run, fake_controller, add_file, tmp_path):
    add_file("a.png", b"png", kind="sample")
    fake_controller.expired_urls = 2
    assert st_run("artifacts", ident(1), "--download", tmp_path / "got")[0] == 0
    fake_controller.expired_urls = 3
    assert st_run("artifacts", ident(1), "--download", tmp_path / "more")[0] == 4


def test_damaged_bytes_are_not_kept(st_run, add_file, tmp_path):
    add_file("a.png", b"png", sha256="0" * 64)
    code, _, err = st_run("artifacts", ident(1), "--download", tmp_path / "got")
    assert (code, "arrived damaged" in err) == (1, True)
    assert list((tmp_path / "got").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(st_run, add_file, tmp_path):
    add_file("a/b.png", b"png", kind="sample")
    (tmp_path / "a").touch()
    code, out, err = st_run("artifacts", ident(1), "--download", tmp_path, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "local_file")
    assert f"cannot use {tmp_path / 'a'}" in err


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil"])
def test_a_path_out_of_the_folder_is_refused(st_run, add_file, tmp_path, path):
    add_file(path, b"x")
    assert st_run("artifacts", ident(1), "--download", tmp_path / "got")[0] == 1
    assert not list(tmp_path.rglob("evil"))


# Datasets, workers, tokens


def test_a_dataset_is_pushed_once(st_run, fake_controller, tmp_path):
    for stem in ("0", "1"):
        (tmp_path / f"{stem}.png").write_bytes(os.urandom(100))
        (tmp_path / f"{stem}.txt").write_text("a digit")
    code, out, _ = st_run("datasets", "push", "digits", tmp_path)
    assert (code, "2 samples" in out) == (0, True)
    [archive] = fake_controller.objects.values()
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        assert tar.getnames() == ["0.png", "0.txt", "1.png", "1.txt"]
    assert fake_controller.signed_headers[0]["x-checksum"] in fake_controller.objects
    assert fake_controller.signed_headers[0]["content-length"] == str(len(archive))
    before = len(fake_controller.requests)
    code, out, _ = st_run("datasets", "push", "digits", tmp_path)
    assert (code, "unchanged" in out) == (0, True)
    assert [item[0] for item in fake_controller.requests[before:]] == ["GET"]
    assert "digits" in st_run("datasets", "list")[1]


def test_archives_that_are_stored_are_not_sent_again(st_run, fake_controller, tmp_path):
    (tmp_path / "0.png").write_bytes(b"png")
    (tmp_path / "0.txt").write_text("a digit")
    st_run("datasets", "push", "one", tmp_path)
    assert json.loads(st_run("datasets", "push", "two", tmp_path, "--json")[1])["changed"] is True
    assert len(fake_controller.signed_headers) == 1


@pytest.mark.parametrize("name", ["Bad Name", "../jobs", "", "x" * 81])
def test_a_bad_dataset_name_is_refused_here(st_run, fake_controller, tmp_path, name):
    code, _, err = st_run("datasets", "push", name, tmp_path)
    assert (code, "lower-case letters" in err) == (2, True)
    assert fake_controller.requests == []


def test_a_join_token_is_printed_alone(st_run, fake_controller):
    code, out, err = st_run(
        "join-token", "create", "--uses", "3", "--expires", "30m", "--label", "region=eu"
    )
    assert (code, out) == (0, "join-me\n")
    assert "st-worker join http://" in err
    request = fake_controller.join_request
    assert (request.uses, request.expires_in_seconds, request.labels) == (3, 1800, {"region": "eu"})


@pytest.mark.parametrize(
    "option", [("--expires", "soon"), ("--label", "eu"), ("--uses", "0"), ("--expires", "1s")]
)
def test_a_token_that_cannot_be_is_refused_here(st_run, fake_controller, option):
    assert st_run("join-token", "create", *option)[0] == 2
    assert fake_controller.requests == []


def test_workers_are_listed(st_run):
    assert st_run("workers")[0] == 0
    assert json.loads(st_run("workers", "--json")[1]) == {"items": []}


# Errors


def test_a_controller_that_is_away_is_told_in_a_sentence(st_run, monkeypatch):
    monkeypatch.setenv("ST_URL", "http://127.0.0.1:1")
    code, out, err = st_run("jobs")
    assert (code, out) == (3, "")
    assert "no answer from http://127.0.0.1:1" in err
    assert "st-controller serve" in err
    assert json.loads(st_run("jobs", "--json")[1])["error"]["code"] == "unreachable"


def test_a_wrong_key_is_not_signed_in(st_run, monkeypatch):
    monkeypatch.setenv("ST_API_KEY", "wrong")
    code, _, err = st_run("jobs")
    assert (code, "hint: use st login" in err) == (4, True)


def test_without_a_login_the_way_to_sign_in_is_told(st_home, capsys):
    assert run(["jobs"]) == 4
    assert "st login URL" in capsys.readouterr().err

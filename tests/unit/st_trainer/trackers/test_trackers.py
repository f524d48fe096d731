"""Trackers in a run: what is sent, and that none of them stops or holds up the training."""

import json
import os
from threading import Event

import pytest
from accelerate.state import PartialState

from st_shared.protocol.journal import ExitCode
from st_shared.spec.trackers import TrackerSpec
from st_trainer.command import run_command
from st_trainer.errors import BadSpecError
from st_trainer.trackers.registry import make_tracker
from st_trainer.trackers.trackers import Trackers, flat

CUSTOM = """
import json
from pathlib import Path
from accelerate.tracking import GeneralTracker

class Ours(GeneralTracker):
    name = "ours"
    requires_logging_directory = True

    def __init__(self, run_name, logging_dir, fails=False):
        super().__init__()
        self.path, self.fails = Path(logging_dir) / f"{run_name}.txt", fails

    @property
    def tracker(self):
        return self.path

    def start(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def store_init_configuration(self, values):
        self.path.write_text(f"seed {values['seed']}\\n")

    def log(self, values, step=None, **options):
        if self.fails:
            raise ConnectionError("the network is down")
        with self.path.open("a") as file:
            file.write(f"{step} {json.dumps(values)}\\n")
"""


@pytest.fixture
def started(tiny_spec, run_folder, trainer_journal, tmp_path):
    PartialState()  # as the trainer has it
    (tmp_path / "dropped").mkdir()
    (tmp_path / "dropped/ours.py").write_text(CUSTOM)
    environment = {"ST_TRACKERS_DIR": str(tmp_path / "dropped"), "ST_SECRET_NAMES": ""}

    def start(*specs):
        made = [TrackerSpec.model_validate(each) for each in specs]
        trackers = Trackers(made, tiny_spec(), run_folder, trainer_journal, environment)
        trainer_journal.add_listener(trackers.hear)
        return trackers

    return start


def logged(folder):
    events = map(json.loads, folder.journal.read_text().splitlines())
    return [event["message"] for event in events if event["kind"] == "log"]


def test_a_file_of_json_lines_has_settings_metrics_and_samples(started, run_folder, some_events):
    trackers = started({"kind": "jsonl"})
    some_events()
    trackers.close(60)
    lines = (run_folder.trackers / "jsonl/metrics.jsonl").read_text().splitlines()
    first, *rest = map(json.loads, lines)
    assert first["config"]["model.family"] == "pixel_dit"
    assert rest == [
        {"step": 0, "loss": 1.0},
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 1 / 3},
        {"step": 2, "samples": ["samples"]},
        {"step": 1, "post_checkpoint.score": 4.0},
    ]
    assert logged(run_folder) == []


def test_a_run_sends_what_it_says_to_its_trackers(tiny_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("WORD", "bright-secret")
    monkeypatch.setenv("ST_SECRET_NAMES", "WORD")
    monkeypatch.setenv("ST_TRACKERS_DIR", str(tmp_path / "dropped"))
    (tmp_path / "dropped").mkdir()
    (tmp_path / "dropped/ours.py").write_text(CUSTOM)
    validation = {"prompts": ["a bright-secret"], "every": 2, "sampler_steps": 1}
    spec = tiny_spec(
        steps=2,
        checkpoint={"every": 2},
        validation=validation,
        trackers=[{"kind": "jsonl"}, {"kind": "custom", "module": "ours"}],
    )
    run = tmp_path / "run"
    result = run_command(spec, run, {}, environment=os.environ, resume="none", stop=lambda: False)
    assert result.exit_code == ExitCode.SUCCEEDED
    [ours] = (run / "trackers/custom").iterdir()
    kept = (run / "trackers/jsonl/metrics.jsonl").read_text()
    first, *rest = map(json.loads, kept.splitlines())
    events = map(json.loads, (run / "journal.ndjson").read_text().splitlines())
    said = [{"step": each["step"], **each["values"]} for each in events if each["kind"] == "metric"]
    assert [each for each in rest if "samples" not in each] == said
    assert [each["step"] for each in said] == [1, 2]
    assert {"step": 2, "samples": ["samples"]} in rest
    assert "a [secret WORD]" in first["config"]["validation.prompts"]
    assert "bright-secret" not in kept
    assert ours.read_text().splitlines()[0] == "seed 5"
    assert len(ours.read_text().splitlines()) == 3


def test_pictures_are_sent_only_where_they_are_wanted(started, run_folder, some_events):
    trackers = started({"kind": "jsonl", "samples": False})
    some_events()
    trackers.close(60)
    lines = (run_folder.trackers / "jsonl/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).keys() for line in lines[1:4]] == [{"step", "loss"}] * 3
    assert len(lines) == 5
    assert "samples" not in "".join(lines[1:])


def test_a_tracker_that_the_worker_has_is_used_by_its_name(started, run_folder, trainer_journal):
    trackers = started({"kind": "custom", "module": "ours", "run_name": "mine"})
    trainer_journal.metric(1, {"loss": 0.5})
    trackers.close(60)
    text = (run_folder.trackers / "custom/mine.txt").read_text()
    assert text == 'seed 5\n1 {"loss": 0.5}\n'


def test_one_that_fails_is_told_and_given_up(started, run_folder, trainer_journal):
    trackers = started({"kind": "custom", "module": "ours", "options": {"fails": True}})
    for step in range(20):
        trainer_journal.metric(step, {"loss": 0.5})
    trackers.close(60)
    assert logged(run_folder) == [
        "tracker ours: ConnectionError: the network is down",
        "tracker ours: given up after 20 failures one after another",
    ]


def test_one_that_hangs_holds_nothing_up(started, run_folder, trainer_journal, monkeypatch):
    trackers = started({"kind": "jsonl"})
    [tracker] = trackers._trackers
    forever, begun = Event(), Event()
    tracker.send(lambda _: (begun.set(), forever.wait()))
    assert begun.wait(60)
    for step in range(1_010):
        trainer_journal.metric(step, {"loss": 0.5})
    trackers.close(0)
    forever.set()
    # 1,000 wait, and the one that hangs; ten are left out, as is the end.
    assert logged(run_folder) == ["tracker jsonl: 1012 values were not sent in time"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"kind": "custom", "module": "absent"}, r"no .*absent\.py"),
        ({"kind": "custom", "module": "empty"}, "must define one subclass"),
        ({"kind": "custom", "module": "broken"}, "cannot be loaded: no such thing"),
        ({"kind": "jsonl", "options": {"colour": 1}}, "options of jsonl: .*'colour'"),
    ],
)
def test_what_cannot_be_made_is_told_before_the_first_step(tmp_path, spec, said):
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such thing')\n")
    environment = {"ST_TRACKERS_DIR": str(tmp_path)}
    with pytest.raises(BadSpecError, match=said):
        make_tracker(TrackerSpec.model_validate(spec), tmp_path, environment)


def test_a_job_cannot_name_a_file_elsewhere():
    for module in ("../evil", "/tmp/evil", "a.b", None):
        with pytest.raises(ValueError, match="module"):
            TrackerSpec(kind="custom", module=module)
    with pytest.raises(BadSpecError, match="ST_TRACKERS_DIR is not set on this worker"):
        make_tracker(TrackerSpec(kind="custom", module="ours"), None, {})


def test_settings_become_dotted_names():
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": True}) == {
        "a.b": 1,
        "a.c": "[1, 2]",
        "e": True,
    }

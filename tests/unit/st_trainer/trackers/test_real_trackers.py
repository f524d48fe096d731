"""The packages themselves, without a network: what they have written is read back with them."""

import struct

import pytest
from accelerate.state import PartialState

from st_shared.spec.trackers import TrackerSpec
from st_trainer.trackers.trackers import Trackers

pytestmark = [pytest.mark.trackers, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def sent(tiny_spec, run_folder, trainer_journal, some_events):
    def send(**spec):
        PartialState()
        specs = [TrackerSpec.model_validate({"project": "tests", **spec})]
        trackers = Trackers(specs, tiny_spec(), run_folder, trainer_journal, {})
        trainer_journal.add_listener(trackers.hear)
        some_events()
        trackers.close(600)
        assert '"log"' not in run_folder.journal.read_text()
        return run_folder.trackers

    return send


def test_tensorboard(sent):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(sent(kind="tensorboard") / "tensorboard/tests"))
    read.Reload()
    assert [(each.step, each.value) for each in read.Scalars("loss")] == [
        (0, 1.0),
        (1, 0.5),
        (2, pytest.approx(1 / 3)),
    ]
    assert [(each.step, each.width, each.height) for each in read.Images("samples")] == [
        (2, 20, 10)
    ]


def records(content):
    """Those of wandb's file: LevelDB's log format behind a header of seven bytes."""
    assert content.startswith(b":W&B")
    place, whole = 7, b""
    while place + 7 <= len(content):
        room = 32_768 - place % 32_768
        if room < 7:
            place += room
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in {1, 4}:  # full, or the last part
            yield whole
            whole = b""


def test_wandb_offline(sent):
    from wandb.proto import wandb_internal_pb2

    folder = sent(kind="wandb", options={"mode": "offline"})
    [file] = folder.rglob("*.wandb")
    rows, names = [], set()
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            rows.append({each.key or ".".join(each.nested_key): each.value_json for each in items})
        if record.HasField("run"):
            names.add(record.run.project)
    assert names == {"tests"}
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    assert [(int(step), float(loss)) for step, loss in losses] == [
        (0, 1.0),
        (1, 0.5),
        (2, pytest.approx(1 / 3)),
    ]
    assert any("post_checkpoint.score" in row and row["step"] == "1" for row in rows)
    assert len(list(folder.rglob("samples_*.png"))) == 1


def test_mlflow(sent):
    from mlflow import MlflowClient

    folder = sent(kind="mlflow", run_name="first")
    client = MlflowClient(f"sqlite:///{folder.absolute() / 'mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("tests")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["model.family"] == "pixel_dit"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert len(list(folder.rglob("samples-000002.png"))) == 1

"""Runs in this process: resuming, falling back, and what a run leaves and tells."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image
from safetensors.torch import load_file
from whole_run import final_state

from st_shared.protocol.journal import ExitCode, journal_event
from st_trainer import loop
from st_trainer.checkpoint import complete_checkpoints
from st_trainer.errors import BadDataError, BadSpecError, CheckpointError, NotFiniteError
from st_trainer.journal import Journal
from st_trainer.run import run_training
from st_trainer.run_folder import RunFolder


class StopAt:
    """Asks to stop once ``steps`` steps have been begun in this process."""

    def __init__(self, steps=None):
        self.steps, self.asked = steps, 0

    def __call__(self):
        self.asked += 1
        return self.steps is not None and self.asked > self.steps


def carry_out(spec, root, stop_after=None, resume="none"):
    folder = RunFolder(root)
    folder.create()
    sources = [Path(dataset.path) for dataset in spec.datasets]
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # a new process would not have them
    with Journal(folder.journal) as journal:
        return run_training(spec, sources, folder, journal, resume=resume, stop=StopAt(stop_after))


def events(root, kind=None):
    lines = RunFolder(root).journal.read_bytes().splitlines()
    found = [journal_event.validate_json(line) for line in lines]
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [event for event in found if kind in (None, event.kind)]


@pytest.fixture
def batches_seen(monkeypatch):
    seen, real = [], loop.batch_loss

    def spy(session, indexes, share):
        seen.append(tuple(indexes))
        return real(session, indexes, share)

    monkeypatch.setattr(loop, "batch_loss", spy)
    return seen


@pytest.mark.parametrize(("stopped_at", "log_every"), [(4, 1), (5, 1), (5, 3), (4, 8)])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(
    tiny_spec, tmp_path, batches_seen, stopped_at, log_every
):
    spec = tiny_spec(log_every=log_every)
    assert carry_out(spec, tmp_path / "whole") == ExitCode.SUCCEEDED
    order = list(batches_seen)
    batches_seen.clear()
    assert carry_out(spec, tmp_path / "parts", stopped_at) == ExitCode.PREEMPTED
    torch.manual_seed(999)  # a new process starts with other random numbers
    assert carry_out(spec, tmp_path / "parts", resume="latest") == ExitCode.SUCCEEDED
    assert batches_seen == order
    assert len(order) == 8
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    parts, whole = (
        [(event.step, event.values["loss"]) for event in events(tmp_path / run, "metric")]
        for run in ("parts", "whole")
    )
    assert parts == whole
    for result in ("weights.safetensors", "sample_grid.png", "loss_curve.png"):
        parts, whole = (tmp_path / run / "output" / result for run in ("parts", "whole"))
        assert parts.read_bytes() == whole.read_bytes()


@pytest.fixture
def drawn_from_a_table(trainer_dataset):
    """The squares in a parquet file, with several captions each, and some of the folder."""
    paths = sorted(trainer_dataset.glob("*.png"))
    columns = {
        "image": [path.read_bytes() for path in paths],
        "caption": [["dark, shade, a", "bright, shade, b"] for _ in paths],
    }
    file = trainer_dataset.parent / "table.parquet"
    pq.write_table(pa.table(columns), file, row_group_size=2)
    captions = {"shuffle": True, "dropout": 0.3}
    return [
        {"path": str(file), "format": "parquet", "captions": captions},
        {"path": str(trainer_dataset), "probability": 0.4, "repeats": 2},
    ]


def test_a_resumed_run_draws_the_same_rows_captions_and_shares(
    tiny_spec, tmp_path, batches_seen, drawn_from_a_table
):
    spec = tiny_spec(datasets=drawn_from_a_table, validation={})
    assert carry_out(spec, tmp_path / "whole") == ExitCode.SUCCEEDED
    order = list(batches_seen)
    batches_seen.clear()
    assert carry_out(spec, tmp_path / "parts", 5) == ExitCode.PREEMPTED
    assert carry_out(spec, tmp_path / "parts", resume="latest") == ExitCode.SUCCEEDED
    assert batches_seen == order
    assert {index >= 7 for batch in order for index in batch} == {True, False}
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")


def test_training_changes_the_weights_and_the_average_differs_from_them(tiny_spec, tmp_path):
    carry_out(tiny_spec(), tmp_path / "run")
    first, last = (tmp_path / "run/checkpoints" / name for name in ("step-000004", "step-000008"))
    before, after = (load_file(step / "weights.safetensors") for step in (first, last))
    assert not any(torch.equal(before[name], after[name]) for name in before if "out" in name)
    average = load_file(last / "ema.safetensors")
    assert not torch.equal(average["patches_out.weight"], after["patches_out.weight"])
    result = load_file(tmp_path / "run/output/weights.safetensors")
    assert torch.equal(result["patches_out.weight"], average["patches_out.weight"])


def test_the_seed_decides_the_weights(tiny_spec, tmp_path):
    states = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        carry_out(tiny_spec(seed=seed), tmp_path / name)
        states.append(final_state(tmp_path / name)["weights.safetensors"])
    assert states[0] == states[1] != states[2]


def test_a_run_tells_of_every_file_once_it_is_there(tiny_spec, tmp_path):
    root = tmp_path / "run"
    carry_out(tiny_spec(), root)
    assert [e.manifest for e in events(root, "checkpoint")] == [
        "checkpoints/step-000004/manifest.json",
        "checkpoints/step-000008/manifest.json",
    ]
    assert [e.path for e in events(root, "sample")] == [
        "samples/step-000004.png",
        "samples/step-000008.png",
    ]
    outputs = {e.name: e.path for e in events(root, "output")}
    assert list(outputs) == ["weights", "loss_curve", "sample_grid", "report"]
    assert all((root / path).is_file() for path in outputs.values())
    assert [e.step for e in events(root, "metric")] == list(range(1, 9))
    assert events(root)[-1].phase == "done"
    with Image.open(root / "output/sample_grid.png") as grid:
        assert grid.width > 128
    assert not list(root.rglob(".*"))


def test_the_manifest_lists_every_file_with_its_checksum(tiny_spec, tmp_path):
    carry_out(tiny_spec(), tmp_path / "run")
    folder = tmp_path / "run/checkpoints/step-000008"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    listed = {file["path"]: file["sha256"] for file in manifest["files"]}
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    assert listed == present


def test_only_the_last_checkpoints_are_kept(tiny_spec, tmp_path):
    spec = tiny_spec(checkpoint={"every": 2, "keep_last": 2})
    carry_out(spec, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["step-000006", "step-000008"]


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "manifest", "no manifest"])
def test_a_damaged_checkpoint_is_passed_over_and_that_is_told(tiny_spec, tmp_path, damage):
    spec, root = tiny_spec(), tmp_path / "run"
    carry_out(spec, root)
    whole = final_state(root)
    newest = root / "checkpoints/step-000008"
    file = newest / ("manifest.json" if "manifest" in damage else "optimizer.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if damage == "changed":
        file.write_bytes(content)
    if damage in ("cut", "manifest"):
        file.write_bytes(content[:-40])
    assert carry_out(spec, root, resume="latest") == ExitCode.SUCCEEDED
    told = [event.message for event in events(root, "log")]
    assert told[-1] == "resumed from step-000004, step 4"
    if damage != "no manifest":
        assert any("trying the one before" in message for message in told)
    assert final_state(root) == whole


def test_when_every_checkpoint_is_damaged_nothing_is_trained(tiny_spec, tmp_path):
    spec, root = tiny_spec(), tmp_path / "run"
    carry_out(spec, root)
    for file in root.glob("checkpoints/*/ema.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"every checkpoint .* is damaged"):
        carry_out(spec, root, resume="latest")


def test_a_checkpoint_can_be_resumed_in_another_run_folder(tiny_spec, tmp_path):
    spec = tiny_spec()
    carry_out(spec, tmp_path / "one")
    start = tmp_path / "one/checkpoints/step-000004"
    assert carry_out(spec, tmp_path / "two", resume=start) == ExitCode.SUCCEEDED
    assert final_state(tmp_path / "two") == final_state(tmp_path / "one")
    curve = "output/loss_curve.png"
    assert (tmp_path / "two" / curve).read_bytes() == (tmp_path / "one" / curve).read_bytes()
    assert [event.step for event in events(tmp_path / "two", "metric")] == [5, 6, 7, 8]
    end = tmp_path / "one/checkpoints/step-000008"
    assert carry_out(spec, tmp_path / "three", resume=end) == ExitCode.SUCCEEDED
    grid = "output/sample_grid.png"
    assert (tmp_path / "three" / grid).read_bytes() == (tmp_path / "one" / grid).read_bytes()


def test_another_specification_is_not_resumed(tiny_spec, tmp_path):
    carry_out(tiny_spec(), tmp_path / "run")
    with pytest.raises(BadSpecError, match="another training specification"):
        carry_out(tiny_spec(seed=6), tmp_path / "run", resume="latest")


def test_changed_samples_are_not_resumed(tiny_spec, tmp_path, trainer_dataset):
    spec = tiny_spec()
    carry_out(spec, tmp_path / "run", stop_after=5)
    (trainer_dataset / "3.txt").write_text("shade bright")
    with pytest.raises(BadDataError, match="samples have changed since step-000005"):
        carry_out(spec, tmp_path / "run", resume="latest")


def test_a_folder_with_checkpoints_is_not_trained_over(tiny_spec, tmp_path):
    carry_out(tiny_spec(), tmp_path / "run", stop_after=4)
    with pytest.raises(BadSpecError, match=r"already holds checkpoints .* --resume latest"):
        carry_out(tiny_spec(), tmp_path / "run")


def test_resuming_without_a_checkpoint_starts_at_the_beginning(tiny_spec, tmp_path):
    assert carry_out(tiny_spec(), tmp_path / "run", 0) == ExitCode.PREEMPTED
    assert not complete_checkpoints(tmp_path / "run/checkpoints")
    assert carry_out(tiny_spec(), tmp_path / "run", resume="latest") == ExitCode.SUCCEEDED
    assert "no checkpoint to resume from; starting at step 0" in [
        event.message for event in events(tmp_path / "run", "log")
    ]


def test_a_loss_that_is_not_finite_names_step_and_files(tiny_spec, tmp_path, monkeypatch):
    spec, real = tiny_spec(), loop.batch_loss

    def poisoned(session, indexes, share):
        loss = real(session, indexes, share)
        return loss * float("nan") if session.step == 5 else loss

    monkeypatch.setattr(loop, "batch_loss", poisoned)
    with pytest.raises(NotFiniteError, match=r"loss is not finite at step 6: .*: \d\.png, \d\.png"):
        carry_out(spec, tmp_path / "run")
    assert [folder.name for folder in complete_checkpoints(tmp_path / "run/checkpoints")] == [
        "step-000004"
    ]


def test_skipped_and_changed_files_are_told(tiny_spec, tmp_path, trainer_dataset):
    (trainer_dataset / "1.png").write_bytes(b"broken")
    (trainer_dataset / "2.txt").unlink()
    Image.new("RGB", (9, 9)).save(trainer_dataset / "0.png")
    carry_out(tiny_spec(validation={"prompts": ["shade purple"]}), tmp_path / "run")
    told = {event.message: event.level for event in events(tmp_path / "run", "log")}
    for message in (
        "skipped 1.png: not a PNG, JPEG or WebP image",
        "skipped 2.png: no caption: 2.txt is missing",
        "1 images were converted to fit the model; the first: 0.png, converted from RGB to grey",
        "1 images were resized to fit the model; the first: 0.png, resized from 9x9",
        "validation.prompts hold words that no caption has: purple",
    ):
        assert told[message] == "warning"
    assert told["5 samples, 2 skipped"] == "info"


def test_zero_steps_draw_the_prompts_with_the_weights_of_an_earlier_run(tiny_spec, tmp_path):
    spec = tiny_spec()
    carry_out(spec, tmp_path / "run")
    base = {"family": "pixel_dit", "base": str(tmp_path / "run/output/weights.safetensors")}
    check = tiny_spec(model=base, steps=0, datasets=[])
    assert carry_out(check, tmp_path / "check") == ExitCode.SUCCEEDED
    assert [e.name for e in events(tmp_path / "check", "output")] == ["sample_grid"]
    assert (tmp_path / "check/output/sample_grid.png").is_file()


def test_training_goes_on_from_a_base(tiny_spec, tmp_path):
    carry_out(tiny_spec(), tmp_path / "run")
    base = {"family": "pixel_dit", "base": str(tmp_path / "run/output/weights.safetensors")}
    carry_out(tiny_spec(model=base), tmp_path / "more")
    first, more = (events(tmp_path / run, "metric")[0].values for run in ("run", "more"))
    assert more["loss"] != first["loss"]


def test_without_an_average_the_weights_themselves_are_the_result(tiny_spec, tmp_path):
    carry_out(tiny_spec(ema={"enabled": False}), tmp_path / "run")
    last = tmp_path / "run/checkpoints/step-000008"
    assert not (last / "ema.safetensors").exists()
    result = load_file(tmp_path / "run/output/weights.safetensors")
    weights = load_file(last / "weights.safetensors")
    assert all(torch.equal(result[name], weights[name]) for name in weights)


def test_bf16_trains_to_finite_numbers(tiny_spec, tmp_path):
    carry_out(tiny_spec(precision="bf16", steps=2, checkpoint={"every": 2}), tmp_path / "run")
    fp32 = tiny_spec(steps=2, checkpoint={"every": 2})
    carry_out(fp32, tmp_path / "full")
    half, full = (events(tmp_path / run, "metric")[-1].values["loss"] for run in ("run", "full"))
    assert half == pytest.approx(full, rel=0.05)
    assert half != full


def test_a_checkpoint_that_fails_half_way_leaves_the_old_ones(tiny_spec, tmp_path, monkeypatch):
    import st_trainer.checkpoint as module

    carry_out(tiny_spec(), tmp_path / "run", stop_after=4)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "complete_checkpoint", full_disk)
    with pytest.raises(OSError, match="No space"):
        carry_out(tiny_spec(), tmp_path / "run", resume="latest")
    monkeypatch.undo()
    assert [f.name for f in complete_checkpoints(tmp_path / "run/checkpoints")] == ["step-000004"]
    assert carry_out(tiny_spec(), tmp_path / "run", resume="latest") == ExitCode.SUCCEEDED

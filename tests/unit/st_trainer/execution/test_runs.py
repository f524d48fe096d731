"""Runs that give something up for memory: what they learn, keep and go on from."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from whole_run import carry_out, final_state

from st_shared.protocol.journal import ExitCode, journal_event
from st_shared.spec import TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadSpecError
from st_trainer.loop import backward, step
from st_trainer.run_folder import RunFolder
from st_trainer.session import Session
from st_trainer.weights import open_denoiser


@pytest.fixture
def spec_of(base_folder, tmp_path):
    """Four steps of the tiny ``sd1`` on four pictures; keywords replace its keys."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (16, 16), (60 * index, 90, 200)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("a red square" if index % 2 else "a blue square")

    def make(**changes):
        base = str(base_folder("sd1"))
        document = {
            "model": {"family": "sd1", "base": base, "config": {"resolution": 16}},
            "datasets": [{"path": str(folder)}],
            "steps": 4,
            "batch_size": 2,
            "log_every": 1,
            "adapter": {"rank": 2},
            "optimizer": {"learning_rate": 0.01},
            "checkpoint": {"every": 2},
            "validation": {"prompts": []},
        }
        return TrainingSpec.model_validate(document | changes)

    return make


def losses(root):
    lines = RunFolder(root).journal.read_bytes().splitlines()
    found = [journal_event.validate_json(line) for line in lines]
    return [event.values["loss"] for event in found if event.kind == "metric"]


def weights(root):
    return load_file(root / "output/pytorch_lora_weights.safetensors")


def test_two_parts_of_one_learn_what_one_batch_of_two_learns(spec_of, tmp_path):
    changes = {"objective": {"caption_dropout": 0.5}}
    carry_out(spec_of(**changes), tmp_path / "whole")
    carry_out(spec_of(batch_size=1, accumulation=2, **changes), tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    found, expected = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=1e-3, atol=1e-5)


FRUGAL = {
    "fewer bits": {
        "memory": {"quantization": {"format": "int8"}, "gradient_checkpointing": 1},
        "optimizer": {"name": "adamw_8bit", "learning_rate": 0.01},
        "batch_size": 1,
        "accumulation": 2,
    },
    "steps in the backward pass": {
        "optimizer": {"learning_rate": 0.01, "fused_backward": True, "max_grad_norm": None},
        "memory": {"gradient_checkpointing": 1, "offload": {"level": "block", "to": "disk"}},
    },
}


@pytest.mark.parametrize("kind", FRUGAL)
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(spec_of, tmp_path, kind):
    spec = spec_of(**FRUGAL[kind])
    assert carry_out(spec, tmp_path / "whole") == ExitCode.SUCCEEDED
    assert carry_out(spec, tmp_path / "parts", 3) == ExitCode.PREEMPTED
    assert carry_out(spec, tmp_path / "parts", resume="latest") == ExitCode.SUCCEEDED
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert {each.dtype for each in weights(tmp_path / "whole").values()} == {torch.float32}


def test_offloaded_blocks_and_steps_in_the_backward_pass_change_nothing(spec_of, tmp_path):
    plain = {"learning_rate": 0.01, "max_grad_norm": None}
    carry_out(spec_of(optimizer=plain), tmp_path / "plain")
    carry_out(spec_of(**FRUGAL["steps in the backward pass"]), tmp_path / "frugal")
    assert losses(tmp_path / "frugal") == losses(tmp_path / "plain")
    found, expected = weights(tmp_path / "frugal"), weights(tmp_path / "plain")
    assert all(torch.equal(found[name], each) for name, each in expected.items())


def session_of(spec):
    samples = read_datasets(
        spec.datasets, [Path(str(spec.datasets[0].path))], Images(3, 16, 16)
    ).samples
    return Session(spec, samples, open_denoiser(spec, list))


def test_a_run_has_one_gradient_at_a_time_and_one_block_in_memory(spec_of):
    """Results are the same without either, so they are looked for."""
    session = session_of(spec_of(**FRUGAL["steps in the backward pass"]))
    groups = session.offloading.groups
    assert len(groups) > 1
    assert all(group._file and group._file.exists() for group in groups)
    sizes = [sum(t.untyped_storage().nbytes() for t in group._tensors) for group in groups]
    assert sum(size >= group.nbytes for size, group in zip(sizes, groups, strict=True)) == 1
    learned = [*trained(session.module).values()]
    before, alive = [each.detach().clone() for each in learned], []
    for each in learned:  # after the hook that makes the step
        each.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(other.grad is not None for other in learned))
        )
    backward(session, [0, 1])
    assert alive == [0] * len(learned)
    assert any(not torch.equal(a, b) for a, b in zip(before, learned, strict=True))


def test_the_norm_of_gradients_that_were_stepped_with_is_that_of_all(spec_of):
    plain = {"optimizer": {"learning_rate": 0.01, "max_grad_norm": None}}
    found = []
    for changes in (plain, FRUGAL["steps in the backward pass"]):
        session = session_of(spec_of(**changes))
        found.append(step(session, [0, 1], 0.01))
    assert found[1] == pytest.approx(found[0])
    assert found[0][1] > 0


def test_what_the_device_cannot_do_ends_the_run_before_it_begins(spec_of, tmp_path):
    with pytest.raises(BadSpecError, match=r"training\.optimizer\.offload"):
        carry_out(spec_of(optimizer={"offload": True}), tmp_path / "run")
    assert losses(tmp_path / "run") == []


def test_kernels_that_give_the_same_each_time_are_taken_for_that_run_alone(
    spec_of, tmp_path, monkeypatch
):
    seen = []

    def watched(*told):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(*told)

    monkeypatch.setattr("st_trainer.loop.step", watched)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    carry_out(spec_of(steps=1, speed={"deterministic": True}), tmp_path / "exact")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"  # before the first handle is made
    carry_out(spec_of(steps=1), tmp_path / "usual")
    assert seen == [True, False]

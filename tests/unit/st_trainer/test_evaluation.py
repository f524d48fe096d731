"""The loss on samples that are held out."""

import pytest
import torch
from PIL import Image

from st_trainer.evaluation import METRIC, batches, held_out_loss
from st_trainer.journal import Journal
from st_trainer.run import open_session, run_training
from st_trainer.run_folder import RunFolder

SHORT = {"batch_size": 2, "steps": 4, "checkpoint": {"every": 4}, "validation": {"every": 2}}


@pytest.fixture
def spec(tiny_spec, trainer_dataset):
    held = trainer_dataset.parent / "held"
    held.mkdir()
    for index in range(5):
        Image.effect_noise((4, 4), 60 + index).save(held / f"{index}.png")
        (held / f"{index}.txt").write_text("shade dark")
    datasets = [{"path": str(held), "evaluation": True}, {"path": str(trainer_dataset)}]
    return tiny_spec(datasets=datasets, **SHORT)


def run(spec, root, resume="none", stop=lambda: False):
    folder, told = RunFolder(root), []
    folder.create()
    places = [folder.root.parent / "held", folder.root.parent / "squares"]
    with Journal(folder.journal, listener=told.append) as journal:
        run_training(spec, places, folder, journal, resume=resume, stop=stop)
    metrics = [event for event in told if event.kind == "metric" and METRIC in event.values]
    return {event.step: event.values[METRIC] for event in metrics}, told


def test_it_is_measured_with_each_validation_and_two_runs_agree_to_the_last_bit(spec, tmp_path):
    first, told = run(spec, tmp_path / "one")
    assert list(first) == [2, 4]
    assert first[2] != first[4]
    assert run(spec, tmp_path / "two")[0] == first
    said = [event.message for event in told if event.kind == "log"]
    assert "5 held-out samples" in said
    assert "7 samples" in said


def test_a_resumed_run_measures_the_same(spec, tmp_path):
    whole, _ = run(spec, tmp_path / "whole")
    steps = iter(range(100))
    run(spec, tmp_path / "parts", stop=lambda: next(steps) >= 3)
    rest, _ = run(spec, tmp_path / "parts", "latest")
    assert rest == {4: whole[4]}


def test_training_is_the_same_with_and_without_it(spec, tiny_spec, trainer_dataset, tmp_path):
    plain = tiny_spec(**SHORT)
    folder = RunFolder(tmp_path / "plain")
    folder.create()
    with Journal(folder.journal) as journal:
        run_training(plain, [trainer_dataset], folder, journal, resume="none", stop=lambda: False)
    run(spec, tmp_path / "held-out-run")
    found, expected = (
        (tmp_path / name / "output/weights.safetensors").read_bytes()[-4_000:]
        for name in ("held-out-run", "plain")
    )
    assert found == expected


def test_batches_are_of_one_bucket_and_always_the_same(
    spec, run_folder, trainer_journal, trainer_dataset
):
    places = [trainer_dataset.parent / "held", trainer_dataset]
    session = open_session(spec, places, run_folder, trainer_journal)
    held = session.held_out
    assert [index for batch in batches(held, 99, 0, 2) for index in batch] == list(range(5))
    assert sum(map(len, batches(held, 3, 0, 2))) == 3
    before, state = session.generator.get_state(), torch.get_rng_state()
    values = {held_out_loss(session, held) for _ in range(2)}
    assert len(values) == 1
    assert torch.equal(session.generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"repeats": 2}, "repeats means nothing for evaluation"),
        ({}, "datasets are all for evaluation: give one to train on"),
    ],
)
def test_what_cannot_be_is_refused(tiny_spec, dataset, said):
    with pytest.raises(ValueError, match=said):
        tiny_spec(datasets=[{"path": "a", "evaluation": True, **dataset}])

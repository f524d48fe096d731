"""What a validator does at which step, and that the training's random numbers do not notice."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from st_shared.spec.validation import ValidationSpec
from st_trainer import loop
from st_trainer.checkpoint_writer import CheckpointWriter
from st_trainer.errors import BadSpecError
from st_trainer.run import open_session
from st_trainer.validation import validator
from st_trainer.validation.validator import Validator

CPU = torch.device("cpu")
STEPS = 7


def drawn_numbers():
    """One number of each generator that the whole process shares."""
    numpy = np.random.random()  # noqa: NPY002 -- the one that others may use
    return random.random(), numpy, torch.rand(()).item()


def seed_all():
    random.seed(4)
    np.random.seed(4)  # noqa: NPY002
    torch.manual_seed(4)


class Noted(Validator):
    """Notes what is due, and draws numbers as samplers and augmentations may."""

    def __init__(self, session, *others):
        super().__init__(session, *others)
        self.samples, self.sweeps = [], []

    def _draw(self, step, title, *, resumed=False):
        del title
        self.samples.append((step, resumed))
        drawn_numbers()

    def _sweep(self, step):
        self.sweeps.append(step)
        drawn_numbers()


@pytest.fixture
def noted(run_folder, trainer_journal):
    """Makes a validator of a run of seven steps, which has done ``step`` of them."""

    def make(settings, step=0):
        session = SimpleNamespace(
            drawn=ValidationSpec.model_validate({"prompts": ["a"], **settings}),
            ranks=SimpleNamespace(is_first=True),
            accelerator=SimpleNamespace(device=CPU),
            spec=SimpleNamespace(steps=STEPS, model=SimpleNamespace(base="a/model")),
            held_out=None,
            step=step,
            agree=bool,
        )
        return session, Noted(session, run_folder, trainer_journal, lambda: False)

    return make


@pytest.mark.parametrize(
    ("sweep", "due"),
    [(None, []), ({}, [7]), ({"every": 3}, [3, 6, 7]), ({"every": 7}, [7]), ({"every": 9}, [7])],
)
def test_a_sweep_is_drawn_every_so_many_steps_and_after_the_last(noted, sweep, due):
    session, found = noted({"sweep": sweep})
    for session.step in range(1, STEPS + 1):
        found.validate()
    assert found.sweeps == due
    assert found.samples == [(step, False) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("step", [0, 3])
def test_what_is_drawn_before_training_is_the_base_where_training_has_begun(noted, step):
    _, found = noted({}, step)
    found.begin()
    assert found.samples == [(0, step > 0)]


@pytest.mark.parametrize("work", ["begin", "validate", "complete"])
def test_the_random_numbers_of_training_go_on_as_if_nothing_had_been_drawn(
    noted, monkeypatch, work
):
    monkeypatch.setattr(validator, "tell_held_out_loss", lambda *_: drawn_numbers())
    session, found = noted({"sweep": {}}, 0 if work == "begin" else STEPS)
    seed_all()
    following = drawn_numbers()
    seed_all()
    getattr(found, work)()
    assert found.samples == [(session.step, False)]
    assert drawn_numbers() == following


def test_the_random_numbers_of_training_go_on_after_a_validation_that_failed(noted, monkeypatch):
    def failing(*_):
        drawn_numbers()
        raise BadSpecError("no")

    monkeypatch.setattr(validator, "tell_held_out_loss", failing)
    _, found = noted({}, 3)
    seed_all()
    following = drawn_numbers()
    seed_all()
    with pytest.raises(BadSpecError):
        found.validate()
    assert drawn_numbers() == following


def test_a_script_is_asked_once_the_checkpoint_of_its_step_is_whole(
    tiny_spec, trainer_dataset, run_folder, trainer_journal, monkeypatch
):
    happened = []

    def noted(name, word):
        real = getattr(CheckpointWriter, name)

        def call(*given):
            real(*given)
            happened.append(word)

        monkeypatch.setattr(CheckpointWriter, name, call)

    noted("write", "begun")
    noted("finish", "whole")
    judged = {"prompts": ["a"], "every": 2, "script": {"run": "true"}}
    spec = tiny_spec(steps=4, checkpoint={"every": 2}, validation=judged)
    session = open_session(spec, [trainer_dataset], run_folder, trainer_journal)
    loop.train(
        session,
        run_folder,
        trainer_journal,
        lambda: False,
        validate=lambda: happened.append("judged"),
    )
    places = [place for place, word in enumerate(happened) if word == "judged"]
    assert len(places) == 2
    for place in places:
        assert happened[place - 2 : place] == ["begun", "whole"]

"""The events of a step: what a technique that uses every one of them does to a run."""

from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from st_trainer import session as session_module
from st_trainer.run import run_training
from st_trainer.techniques.technique import Technique, TechniqueState


class Told(Technique):
    """Writes down each event; adds a trained number to the model, and its square to the loss."""

    name = "told"

    def __init__(self):
        self.events, self.count = [], 0

    def attach(self, denoiser):
        self.events.append("attach")
        denoiser.module.extra = nn.Module()
        denoiser.module.extra.number = nn.Parameter(torch.tensor(5.0))

    def begin(self, session):
        self.events.append("begin")

    def prepare(self, session, batch):
        self.events.append("prepare")
        batch.target = torch.zeros_like(batch.target)

    def penalty(self, session, batch, answer):
        self.events.append("penalty")
        assert answer.shape == batch.target.shape
        return session.module.extra.number.square()

    def stepped(self, session):
        self.events.append("stepped")
        self.count += 1

    @contextmanager
    def evaluating(self, session):
        self.events.append("evaluating")
        yield
        self.events.append("evaluated")

    def state(self):
        return TechniqueState({"count": torch.tensor(self.count)}, {"count": self.count})

    def restore(self, state):
        self.count = int(state.numbers["count"])
        assert int(state.tensors["count"]) == self.count


@pytest.fixture
def told(monkeypatch):
    made = []

    def make(_spec):
        made.append(Told())
        return [made[-1]]

    monkeypatch.setattr(session_module, "make_techniques", make)
    return made


def test_events_come_in_order_and_what_they_change_counts(
    told, tiny_spec, run_folder, trainer_journal, trainer_dataset
):
    spec = tiny_spec(steps=2, checkpoint={"every": 2}, validation={"prompts": ["dark"], "every": 2})

    def run(resume):
        return run_training(
            spec, [trainer_dataset], run_folder, trainer_journal, resume=resume, stop=lambda: False
        )

    run("none")
    step = ["prepare", "penalty", "stepped"]
    drawn = ["evaluating", "evaluated"]
    assert told[0].events == ["attach", "begin", *step, *step, *drawn, *drawn]
    folder = run_folder.checkpoints / "step-000002"
    kept = load_file(folder / "weights.safetensors")
    # A new model answers 0, so the loss of the first step is the penalty alone.
    assert b'"loss":25.0' in run_folder.journal.read_bytes()
    assert kept["extra.number"].item() < 5
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    run("latest")
    assert told[1].count == 2

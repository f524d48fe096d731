"""Carries ``st-train plan`` out."""

from typing import Any

from st_shared.spec.training import TrainingSpec
from st_trainer.planning.accelerators import accelerator
from st_trainer.planning.estimate import estimator
from st_trainer.planning.proposal import cached, proposed
from st_trainer.planning.report import document, lines


def plan_command(spec: TrainingSpec, gpu: str | None) -> tuple[bool, dict[str, Any], list[str]]:
    """Whether ``spec`` fits, perhaps with changes; the plan as a document, and as text.

    Raises:
        BadSpecError: the model's configuration is not there.
        ValueError: ``gpu`` is no accelerator.
    """
    target = accelerator(gpu) if gpu else None
    asked = cached(estimator())
    found = asked(spec)
    if target is None:
        return True, document(spec, found), list(lines(spec, found))
    proposal = proposed(spec, target, asked)
    told = (spec, found, target, proposal)
    return proposal.fits, document(*told), list(lines(*told))

"""Carries ``st-train plan`` out."""

from typing import Any

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.execution.demands import impossible
from st_trainer.planning.accelerators import accelerator
from st_trainer.planning.changes import DEVICE
from st_trainer.planning.estimate import estimator
from st_trainer.planning.proposal import cached, proposed
from st_trainer.planning.report import document, lines
from st_trainer.ranks import must_agree


def plan_command(
    spec: TrainingSpec, gpu: str | None, processes: int = 1
) -> tuple[bool, dict[str, Any], list[str]]:
    """Whether ``spec`` fits, perhaps with changes; the plan as a document, and as text.

    ``processes``: those that are started.

    Raises:
        BadSpecError: the model's configuration is not there, or a run would refuse ``spec``.
        ValueError: ``gpu`` is no accelerator.
    """
    target = accelerator(gpu) if gpu else None
    spec = in_processes(spec, processes)
    asked = cached(estimator())
    found = asked(spec)
    if target is None:
        return True, document(spec, found), list(lines(spec, found))
    proposal = proposed(spec, target, asked)
    told = (spec, found, target, proposal)
    return proposal.fits, document(*told), list(lines(*told))


def in_processes(spec: TrainingSpec, processes: int) -> TrainingSpec:
    """``spec``, which says in how many processes it is trained.

    Raises:
        BadSpecError: a run in so many would refuse it.
    """
    must_agree(spec.distributed, processes)
    for field, mend in impossible(spec, DEVICE, processes):
        raise BadSpecError(f"training.{field}: {mend}")
    if processes == 1:
        return spec
    document = spec.model_dump(mode="json", exclude_unset=True)
    document["distributed"] = {**document.get("distributed", {}), "processes": processes}
    return TrainingSpec.model_validate(document)

"""A plan as text for people and as a document for programs."""

from collections.abc import Iterator
from typing import Any

from st_shared.spec.training import TrainingSpec
from st_trainer.planning.accelerators import Accelerator, needed, smallest
from st_trainer.planning.estimate import Estimate
from st_trainer.planning.picture import picture, size
from st_trainer.planning.proposal import Proposal
from st_trainer.planning.step_time import step_seconds


def document(
    spec: TrainingSpec,
    estimate: Estimate,
    target: Accelerator | None = None,
    proposal: Proposal | None = None,
) -> dict[str, Any]:
    """The plan as JSON holds it; bytes and seconds."""
    found: dict[str, Any] = {"estimate": _of_estimate(spec, estimate, target)}
    if target and proposal:
        found["accelerator"] = {
            "name": target.name, "bytes": target.memory, "usable_bytes": target.usable,
        }  # fmt: skip
        found["fits"] = estimate.total <= target.usable
        found["proposal"] = {
            "fits": proposal.fits,
            "changes": [vars(each) for each in proposal.changes],
            "estimate": _of_estimate(proposal.spec, proposal.estimate, target),
        }
    return found


def _of_estimate(
    spec: TrainingSpec, estimate: Estimate, target: Accelerator | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "bytes": estimate.components,
        "total_bytes": estimate.total,
        "start_bytes": estimate.start,
        "processes": estimate.processes,
        "strategy": told_of(spec),
        "ranks": [vars(each) for each in estimate.by_rank],
        "host_bytes": estimate.host,
        "operations_per_step": estimate.operations,
        "sent_bytes_per_step": estimate.exchanged + estimate.awaited,
        "needed_bytes": needed(estimate.total),
        "smallest_accelerator": found.name if (found := smallest(estimate.total)) else None,
    }
    if target:
        told["step_seconds"] = step_seconds(spec, estimate, target)
    return told


def lines(
    spec: TrainingSpec,
    estimate: Estimate,
    target: Accelerator | None = None,
    proposal: Proposal | None = None,
) -> Iterator[str]:
    """The plan for people."""
    if not (target and proposal):
        yield f"what {_process(spec)} holds on its accelerator:"
        yield from picture(estimate)
        yield from _ranks(estimate)
        yield from _needed(estimate)
        yield "give --gpu to see what to change so that it fits a certain one"
        return
    yield f"as asked, on {target.name}, of which a run may take {size(target.usable)}:"
    if estimate.processes > 1:
        yield f"({_process(spec)})"
    yield from picture(estimate, target)
    yield from _ranks(estimate)
    yield _pace(spec, estimate, target)
    if not proposal.changes and proposal.fits:
        yield "it fits"
        return
    yield f"it does not fit: {size(estimate.total - target.usable)} too much"
    yield from _needed(estimate)
    if proposal.fits:
        yield "with these changes it fits:"
    else:
        yield "nothing that is known here makes it fit; this comes nearest:"
    for change in proposal.changes:
        yield f"  training.{change.field}: {_value(change.value)}  # {change.cost}"
    if proposal.changes:
        if proposal.estimate.processes > 1:
            yield f"({_process(proposal.spec)})"
        yield from picture(proposal.estimate, target)
        yield from _ranks(proposal.estimate)
        yield _pace(proposal.spec, proposal.estimate, target)
    if not proposal.fits:
        lacking = size(proposal.estimate.total - target.usable)
        yield f"even so {lacking} are lacking: take a larger accelerator or a smaller model,"
        yield "lower the resolution or the length of samples, or spread it with distributed"
        yield from _needed(proposal.estimate)


def _process(spec: TrainingSpec) -> str:
    """Whose memory is told of."""
    count = spec.distributed.processes or 1
    return f"each of {count} processes, {told_of(spec)}," if count > 1 else "one process"


def told_of(spec: TrainingSpec) -> str:
    """The strategy in words."""
    asked = spec.distributed
    stage = f" at ZeRO stage {asked.zero_stage}" if asked.strategy == "deepspeed" else ""
    tokens = ""
    if asked.context_parallel > 1:
        tokens = f", {asked.context_parallel} of them sharing the tokens of a sample"
    return f"{asked.strategy}{stage}{tokens}"


def _ranks(estimate: Estimate) -> Iterator[str]:
    """Ranks that hold less than the first, of which the picture is."""
    for each in estimate.by_rank[1:]:
        ranks = (
            f"rank {each.first}"
            if each.first == each.last
            else f"ranks {each.first} to {each.last}"
        )
        yield f"  {ranks}: {size(each.total)}"


def _needed(estimate: Estimate) -> Iterator[str]:
    """The smallest known accelerator that would hold it."""
    found = smallest(estimate.total)
    if found:
        yield f"the smallest known accelerator that holds this: {found.name}"
    else:
        yield f"no known accelerator holds this: one of {size(needed(estimate.total))} would"


def _pace(spec: TrainingSpec, estimate: Estimate, target: Accelerator) -> str:
    return f"about {step_seconds(spec, estimate, target):.2g} s a step on {target.name}"


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

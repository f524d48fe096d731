"""A plan as text for people and as a document for programs."""

from collections.abc import Iterator
from typing import Any

from st_shared.spec.training import TrainingSpec
from st_trainer.planning.accelerators import Accelerator
from st_trainer.planning.estimate import Estimate
from st_trainer.planning.proposal import Proposal
from st_trainer.planning.step_time import step_seconds

_WORDS = {
    "base": "frozen weights",
    "adapter": "what is trained",
    "gradients": "gradients",
    "optimizer": "state of the optimiser",
    "average": "moving average",
    "activations": "activations, at the peak",
    "text_encoders": "text encoders",
    "vae": "VAE and other parts",
}


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
    found: dict[str, Any] = {
        "bytes": estimate.components,
        "total_bytes": estimate.total,
        "host_bytes": estimate.host,
        "operations_per_step": estimate.operations,
    }
    if target:
        found["step_seconds"] = step_seconds(spec, estimate, target)
    return found


def lines(
    spec: TrainingSpec,
    estimate: Estimate,
    target: Accelerator | None = None,
    proposal: Proposal | None = None,
) -> Iterator[str]:
    """The plan for people."""
    yield from _table(estimate)
    if not (target and proposal):
        return
    yield f"about {step_seconds(spec, estimate, target):.2g} s a step on {target.name}"
    room = f"{target.name}, of which a run may take {size(target.usable)}"
    if not proposal.changes and proposal.fits:
        yield f"fits {room}"
        return
    yield f"does not fit {room}"
    if not proposal.fits:
        yield "nothing that is known here makes it fit; this comes nearest:"
    else:
        yield "with these changes it fits:"
    for change in proposal.changes:
        yield f"  training.{change.field}: {_value(change.value)}  # {change.cost}"
    if proposal.changes:
        yield from _table(proposal.estimate)
        yield (
            f"about {step_seconds(proposal.spec, proposal.estimate, target):.2g} s a step on "
            f"{target.name}"
        )


def _table(estimate: Estimate) -> Iterator[str]:
    for name, count in estimate.components.items():
        if count:
            yield f"  {_WORDS[name]:28} {size(count):>10}"
    yield f"  {'together':28} {size(estimate.total):>10}"
    if estimate.host:
        yield f"  {'in the memory of the host':28} {size(estimate.host):>10}"


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:,.2f} {unit}"
    return f"{count} B"


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

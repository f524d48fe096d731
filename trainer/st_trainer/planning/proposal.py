"""Changes that make a run fit: the cheapest that do, on more accelerators only where one is short.

What is proposed is a specification that a run takes: it passes the same checks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from st_shared.spec.training import TrainingSpec
from st_trainer.errors import BadSpecError
from st_trainer.planning.accelerators import Accelerator
from st_trainer.planning.changes import (
    SPREADING,
    Changes,
    Step,
    applied,
    more_processes,
    possible,
)
from st_trainer.planning.estimate import Estimate

Estimator = Callable[[TrainingSpec], Estimate]

MORE = (2, 4, 8)
"""Processes that are tried where one accelerator cannot hold it: those of one host."""


@dataclass(frozen=True)
class Proposal:
    """A specification that fits, or the one that comes nearest."""

    spec: TrainingSpec
    estimate: Estimate
    changes: Changes
    fits: bool


def proposed(spec: TrainingSpec, target: Accelerator, estimate: Estimator) -> Proposal:
    """The fewest of the cheapest changes with which ``spec`` fits ``target``.

    Each change is tried on top of those before it and kept where it saves something; once it fits,
    those that are not needed are taken back, the dearest first. The ways to spread a model exclude
    each other, and much besides: each is tried by itself, and the cheapest that fits is taken.
    """
    found = Proposal(spec, estimate(spec), (), fits=False)
    if found.estimate.total <= target.usable:
        return replace(found, fits=True)
    found = _cheapest(found, target, estimate)
    if found.fits or (spec.distributed.processes or 1) > 1:
        return found
    for processes in MORE:
        more = more_processes(spec, processes)
        spread = applied(spec, more)
        after = _estimated(spread, estimate)
        if spread is None or after is None:
            continue
        wider = _cheapest(Proposal(spread, after, (), fits=False), target, estimate)
        if wider.fits:
            return replace(wider, changes=_joined(more, wider.changes))
    return found


def _cheapest(begun: Proposal, target: Accelerator, estimate: Estimator) -> Proposal:
    """Of all ways to spread the model, what fits with the cheapest changes; else the nearest."""
    steps = possible(begun.spec, target)
    if begun.estimate.total <= target.usable:
        return replace(begun, fits=True)
    tried = [_along(begun, way, steps, target, estimate) for way in _ways(steps)]
    fitting = [(dearest, found) for dearest, found in tried if found.fits]
    if fitting:
        return min(fitting, key=lambda each: each[0])[1]
    return min((found for _, found in tried), key=lambda each: each.estimate.total)


def _ways(steps: list[Step]) -> Iterator[int | None]:
    """Places of steps that spread the model, of which one is taken, or none."""
    yield None
    yield from (place for place, step in enumerate(steps) if step in SPREADING)


def _along(
    begun: Proposal, way: int | None, steps: list[Step], target: Accelerator, estimate: Estimator
) -> tuple[list[int], Proposal]:
    """What comes of the steps that go with that at ``way``; those that it has, dearest first."""
    found, chosen = begun, list[int]()
    for place, step in enumerate(steps):
        if step in SPREADING and place != way:
            continue
        if way is not None and place < way and not _taken(begun, [*chosen, place, way], steps):
            continue
        after = _with(begun, [*chosen, place], steps, target, estimate)
        if after and after.estimate.total < found.estimate.total:
            found, chosen = after, [*chosen, place]
        if found.fits:
            break
    while found.fits:
        fewer = _without_needless(begun, chosen, steps, target, estimate)
        if fewer is None:
            break
        chosen, found = fewer
    return chosen[::-1], found


def _without_needless(
    begun: Proposal, chosen: list[int], steps: list[Step], target: Accelerator, estimate: Estimator
) -> tuple[list[int], Proposal] | None:
    """``chosen`` without the dearest that is not needed, and what comes of it; None: all are."""
    for dropped in reversed(chosen):
        rest = [each for each in chosen if each != dropped]
        found = _with(begun, rest, steps, target, estimate)
        if found and found.fits:
            return rest, found
    return None


def _with(
    begun: Proposal, chosen: list[int], steps: list[Step], target: Accelerator, estimate: Estimator
) -> Proposal | None:
    """``begun`` after the steps at ``chosen``; None where one of them cannot be taken."""
    taken = _taken(begun, chosen, steps)
    if taken is None:
        return None
    spec, changes = taken
    after = _estimated(spec, estimate)
    fits = after is not None and after.total <= target.usable
    return Proposal(spec, after, changes, fits) if after else None


def _taken(
    begun: Proposal, chosen: list[int], steps: list[Step]
) -> tuple[TrainingSpec, Changes] | None:
    """The specification after the steps at ``chosen``, and all changes of it."""
    spec, changes = begun.spec, begun.changes
    for place in chosen:
        present = steps[place](spec)
        changed = applied(spec, present) if present else None
        if changed is None:
            return None
        spec, changes = changed, _joined(changes, present)
    return spec, changes


def _estimated(spec: TrainingSpec | None, estimate: Estimator) -> Estimate | None:
    """None where there is no ``spec``, or the model cannot do what it asks."""
    if spec is None:
        return None
    try:
        return estimate(spec)
    except BadSpecError:
        return None


def _joined(before: Changes, more: Changes) -> Changes:
    """``before`` with ``more``, which replace those of the same field."""
    fields = {each.field for each in more}
    return (*(each for each in before if each.field not in fields), *more)


def cached(estimate: Estimator) -> Estimator:
    """``estimate``, which is not asked twice about the same specification."""
    known: dict[str, Estimate] = {}

    def asked(spec: TrainingSpec) -> Estimate:
        key = spec.model_dump_json()
        if key not in known:
            known[key] = estimate(spec)
        return known[key]

    return asked

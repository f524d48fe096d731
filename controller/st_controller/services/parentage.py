"""What new jobs wait for: names of the same request and ids of others, made into jobs."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy.orm import Session

from st_controller.domain.dependencies import Cycle, Parent, in_order
from st_controller.domain.policy.reach import Owner
from st_controller.services import dependencies, drafts
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft
from st_shared.ids import new_id
from st_shared.protocol.states import JobState
from st_shared.spec.reading import SpecProblem


def inside(batch: Sequence[Draft]) -> list[list[int]]:
    """For each job the others of the batch that its ``@names`` mean, or a refusal."""
    called: dict[str, list[int]] = defaultdict(list)
    for index, draft in enumerate(batch):
        called[f"@{draft.spec.name}"].append(index)
    found: list[list[int]] = [[] for _ in batch]
    problems: list[SpecProblem] = []
    for index, draft in enumerate(batch):
        for place, name in enumerate(draft.spec.after):
            if not name.startswith("@"):
                continue
            meant = called.get(name, [])
            if len(meant) == 1 and meant[0] != index:
                found[index].append(meant[0])
                continue
            problems.append(draft.problem(f"after.{place}", _why_not(name, meant, index)))
    if problems:
        raise drafts.invalid(problems)
    return found


def _why_not(name: str, meant: list[int], index: int) -> str:
    if not meant:
        return f"no job of this request is called {name[1:]!r}; without @ it is a job's id"
    if meant == [index]:
        return "a job cannot wait for itself"
    places = ", ".join(f"jobs.{place}" for place in meant[:5])
    return f"{len(meant)} jobs are called {name[1:]!r} ({places}); give them different names"


def ids_in_order(batch: Sequence[Draft], within: Sequence[Sequence[int]]) -> list[str]:
    """A new id for each, later than those of its parents, or a refusal that names the cycle."""
    fresh = sorted(new_id("job") for _ in batch)
    if not any(within):
        return fresh
    try:
        order = in_order(dict(enumerate(within)))
    except Cycle as found:
        path = " waits for ".join(repr(batch[place].spec.name) for place in found.path)
        draft = batch[found.path[0]]
        raise drafts.invalid([draft.problem("after", f"a cycle: {path}")]) from None
    ids = [""] * len(batch)
    for place, job_id in zip(order, fresh, strict=True):
        ids[place] = job_id
    return ids


def parents(
    session: Session,
    actor: Actor,
    batch: Sequence[Draft],
    ids: Sequence[str],
    within: Sequence[Sequence[int]] | None,
) -> list[list[Parent]]:
    """What each job waits for; jobs that were there before are locked until the commit."""
    elsewhere = {name for draft in batch for name in draft.spec.after if not name.startswith("@")}
    known = dependencies.lock_parents(session, elsewhere, deleted=False) if elsewhere else {}
    found: list[list[Parent]] = []
    problems: list[SpecProblem] = []
    for index, draft in enumerate(batch):
        waits_for = [
            Parent(ids[place], batch[place].spec.name, JobState.QUEUED)
            for place in (within[index] if within else ())
        ]
        for place, name in enumerate(draft.spec.after):
            if name.startswith("@") and within is not None:
                continue
            parent, owner = known.get(name, (None, None))
            visible = owner is not None and _may_name(actor, owner)
            said = _parent_problem(draft, name, parent if visible else None)
            if said:
                problems.append(draft.problem(f"after.{place}", said))
            elif parent:
                waits_for.append(parent)
        found.append(waits_for)
    if problems:
        raise drafts.invalid(problems)
    return found


def _may_name(actor: Actor, owner: Owner) -> bool:
    """Whether the actor's jobs may wait for one of this owner: it stands in what they say."""
    return owner.org == actor.org and actor.reaches(owner, "job.view.all")


def _parent_problem(draft: Draft, name: str, parent: Parent | None) -> str | None:
    if name.startswith("@"):
        return f"{name} means a job of the same batch, and this is none; give the id of a job"
    if parent is None:
        return f"there is no job {name}; `st jobs` lists them"
    if parent.is_lost and draft.spec.on_parent_failure == "cancel":
        return f"{name} is {parent.state.value}; `st retry {name}` first, or leave it out"
    return None

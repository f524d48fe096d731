"""Why a job waits: a code, a sentence, and what to do about it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from st_controller.domain.scheduling import foreign_use
from st_controller.domain.scheduling.model import Level, PendingJob, Shape, WorkerCapacity
from st_controller.domain.scheduling.near_miss import near_miss
from st_controller.domain.scheduling.nodes import Node
from st_controller.domain.scheduling.scheduler import Scheduler
from st_shared.protocol.resources import Reason


def why_waiting(scheduler: Scheduler, job: PendingJob, now: float) -> Reason:
    """The reason that a job which waits has not been started, as the scheduler sees it."""
    return (
        _held_back(scheduler, job, now)
        or _no_place(scheduler, job.shape)
        or _limited(scheduler, job, now)
        or _reserved(scheduler, job)
        or _in_line(scheduler, job)
    )


def reached_level(scheduler: Scheduler, job: PendingJob, now: float) -> Level:
    """The level at which a job is served: its own, raised by waiting while within its share."""
    if job.level >= Level.CRITICAL:
        return job.level
    leaf = scheduler.tenants.find(job.tenant.path)
    if leaf is None or not all(node.is_within_share for node in leaf.ancestry):
        return job.level
    steps = max(0, int((now - job.waiting_since) / scheduler.policy.ageing_interval))
    return Level(min(job.level + steps, Level.CRITICAL))


def _held_back(scheduler: Scheduler, job: PendingJob, now: float) -> Reason | None:
    if job.not_before > now:
        return Reason(
            code="not_before",
            message=f"It is not to start before {_moment(job.not_before)}.",
        )
    if scheduler.backlog.is_held(job.id):
        return Reason(
            code="array_cap",
            message="As many jobs of its array run, or are in line, as may at one time.",
            hint="raise `max_running` of the array",
        )
    return None


def _no_place(scheduler: Scheduler, shape: Shape) -> Reason | None:
    open_hosts = [host for host in scheduler.fleet.hosts() if host.takes_jobs]
    if not open_hosts:
        return Reason(
            code="no_workers",
            message="No worker that takes jobs is online.",
            hint="start one with `st-worker join`; `st workers` shows those that are draining",
        )
    number = scheduler.fleet.shapes.find(shape)
    if number is not None and not scheduler.fleet.reach.satisfiable >> number & 1:
        workers = [host.capacity for host in open_hosts]
        if foreign_use.would_fit(shape, workers):
            said = foreign_use.described(shape, workers)
            return Reason(
                code="slots_in_use",
                message=f"Slots that it needs are not to be had: {said}.",
                hint="it starts once they are; `st workers show` says what is in the way",
            )
        if lacks := _room_lacks(shape, workers):
            return lacks
        return Reason(
            code="no_matching_worker",
            message=f"No worker online, of {len(open_hosts)}, has {wanted(shape)}.",
            hint="change `resources`, or add such a worker",
        )
    return None


def _room_lacks(shape: Shape, workers: Sequence[WorkerCapacity]) -> Reason | None:
    """That the datasets are too large for all workers that could run it; none: it is not that."""
    anywhere = replace(shape, content_gb=0.0)
    if not shape.content_gb or near_miss(anywhere, workers):
        return None
    able = [each for each in workers if not near_miss(replace(anywhere, nodes=1), [each])]
    best = max(able, key=lambda each: each.content_room_gb, default=None)
    there = f"; {best.name or best.id} has most, {best.content_room_gb:g} GiB" if best else ""
    return Reason(
        code="no_room_for_datasets",
        message=f"No worker that could run it has room for its datasets, {shape.content_gb:g} GiB "
        f"with what unpacking them takes{there}.",
        hint="free disks of workers, give their caches more with --cache-gb, or add a worker with "
        "a larger disk; waiting costs the job no try",
    )


def _limited(scheduler: Scheduler, job: PendingJob, now: float) -> Reason | None:
    number = scheduler.fleet.shapes.find(job.shape)
    leaf = scheduler.tenants.user(job.tenant.path, now)
    if number is None:
        return None
    for node in leaf.ancestry:
        if not node.allowed(1 << number, scheduler.fleet.shapes):
            return (
                _yields(scheduler, job, node)
                or _never_within(node, job.shape)
                or Reason(
                    code="limit",
                    message=f"{_whose(node)} {_limit_words(node, job.shape)}.",
                    hint="it starts when others of them end, or the limit is raised",
                )
            )
    if scheduler.reservations.find(job.id):
        return None
    level = reached_level(scheduler, job, now)
    for node in leaf.ancestry:
        if not scheduler.tenants.turns.permitted(node, level) >> number & 1:
            return Reason(
                code="limit",
                message=f"{_whose(node)} {_room_words(node)}, and what is left is kept for jobs "
                "that come before it.",
                hint="it starts after them, at once if its time limit ends before there is room "
                "for them, or when the limit is raised",
            )
    return None


def _yields(scheduler: Scheduler, job: PendingJob, node: Node) -> Reason | None:
    """That jobs below a node are being stopped, so that its limit lets this one start."""
    reservation = scheduler.reservations.find(job.id)
    awaited = reservation.awaited if reservation else ()
    held = [scheduler.held[each] for each in awaited if each in scheduler.held]
    count = sum(each.stopping and node in each.leaf.ancestry for each in held)
    if not count:
        return None
    who = f"{count} of its lower jobs {'are' if count > 1 else 'is'} being stopped for it"
    return Reason(
        code="preempting", message=f"{_whose(node)} {_limit_words(node, job.shape)}: {who}."
    )


def _never_within(node: Node, shape: Shape) -> Reason | None:
    """That the limit leaves no room for the job even when nothing runs; none: it does."""
    share = node.share
    if share.max_jobs == 0:
        said = "may run no jobs"
    elif share.max_slots is not None and share.max_slots < shape.total:
        said = f"may use {share.max_slots} slots at one time, and this job asks for {shape.total}"
    else:
        return None
    return Reason(
        code="limit",
        message=f"{_whose(node)} {said}.",
        hint="it does not start before the limit is raised: ask for that, or for fewer slots",
    )


def _reserved(scheduler: Scheduler, job: PendingJob) -> Reason | None:
    reservation = scheduler.reservations.find(job.id)
    if reservation is None:
        return None
    names = ", ".join(host.capacity.name or host.id for host in reservation.hosts[:3])
    more = f" and {len(reservation.hosts) - 3} more" if len(reservation.hosts) > 3 else ""
    kept = f"{names}{more} {'are' if len(reservation.hosts) > 1 else 'is'} kept for it"
    if reservation.is_preempting:
        return Reason(code="preempting", message=f"Lower classes make room: {kept}.")
    start = reservation.start
    when = f", expected to fit by {_moment(start)}" if start != float("inf") else ""
    return Reason(code="reserved", message=f"It is at the head of the line: {kept}{when}.")


def _in_line(scheduler: Scheduler, job: PendingJob) -> Reason:
    leaf = scheduler.tenants.find(job.tenant.path)
    over = next((node for node in (leaf.ancestry if leaf else ()) if _is_over(node)), None)
    if over is not None:
        return Reason(
            code="fair_share",
            message=f"All fitting slots are taken, and {over.path} has had more than its share "
            "of late: others are served first.",
        )
    message = "All fitting slots are taken; it is served in its turn."
    others = foreign_use.described(
        job.shape, (host.capacity for host in scheduler.fleet.hosts() if host.takes_jobs)
    )
    if others:
        message += f" More would fit, but are not to be had: {others}."
    return Reason(code="busy", message=message)


def _is_over(node: Node) -> bool:
    """Whether siblings that want slots too have had less than a node for their weight."""
    parent = node.parent
    alone = parent is None or parent.weights <= node.share.weight
    return not alone and not node.is_within_share


def wanted(shape: Shape) -> str:
    """What a shape asks for, in words."""
    asked = [f"{shape.slots} slot{'s' * (shape.slots > 1)}"]
    asked.append(f"accelerator {shape.accelerator!r}")
    if shape.min_memory_gb:
        asked.append(f"{shape.min_memory_gb:g} GiB a slot")
    asked += [f"label {name}={glob}" for name, glob in shape.labels]
    if shape.content_gb:
        asked.append(f"room for {shape.content_gb:g} GiB of datasets")
    if shape.provider != "*":
        asked.append(f"provider {shape.provider}")
    if shape.nodes > 1:
        asked.append(f"on {shape.nodes} workers with equal accelerators")
    return ", ".join(asked)


def _whose(node: Node) -> str:
    return node.path or "The whole system"


def _limit_words(node: Node, shape: Shape) -> str:
    share = node.share
    if share.max_jobs is not None and node.running_jobs >= share.max_jobs:
        return f"has {node.running_jobs} of {share.max_jobs} jobs running"
    asked = f", and this job asks for {shape.total}" if shape.total > 1 else ""
    return f"{_room_words(node)}{asked}"


def _room_words(node: Node) -> str:
    share = node.share
    if share.max_slots is None:
        return f"has {node.running_jobs} of {share.max_jobs} jobs running"
    return f"has {node.running_slots} of {share.max_slots} slots in use"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

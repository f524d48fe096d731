"""Whatever lets a job start tells the scheduler so: what it is told is all that it looks at.

Nothing here waits for the sweep that repairs lost wake-ups.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from controller_steps import Steps, document

from st_controller.dispatch.service import Dispatcher
from st_controller.domain.policy.roles import Role
from st_controller.services import (
    faulty_slots,
    job_arrays,
    job_lists,
    memberships,
    queue_rules,
    steering,
    submission,
    tenants,
    topics,
    users,
    worker_credentials,
    worker_orders,
)
from st_controller.services.drafts import Rules
from st_controller.services.joint_heartbeats import Beat, JointHeartbeats
from st_controller.services.live_queue import News
from st_controller.services.policy import approval_rules, approvals, pricing, quota_setting
from st_shared.protocol.policy_approvals import ApprovalRuleRequest, Decision
from st_shared.protocol.queue import QueueRules, ShareRequest
from st_shared.protocol.quotas import PriceRequest, QuotaRequest
from st_shared.protocol.resources import JobArrayRequest, LabelChange
from st_shared.protocol.states import AttemptState, FailureKind, JobState, Outcome, WorkerDesired
from st_shared.protocol.tenancy import OrgRequest, TeamRequest, UserChange, UserRequest
from st_shared.protocol.worker import BusySlot, Condition, Heartbeat
from st_shared.spec.job import Priority

Story = Callable[[Steps], Iterator[str]]
"""Gives a job that does not start yet; what comes after that lets it."""

STORIES: dict[str, Story] = {}

pytestmark = pytest.mark.embedded


def story(told: Story) -> Story:
    STORIES[told.__name__] = told
    return told


def change(steps, what, *arguments):
    """Carry out one change as an admin, in a transaction of its own."""
    with steps.db.write() as tx:
        return what(tx, steps.admin, *arguments)


def submitted(steps, **fields) -> str:
    steps.join()
    return steps.submit(**fields)


def break_slot(steps, worker_id: str, name: str) -> None:
    """A job runs there and its accelerator fails."""
    steps.submit(name, retry={"max_attempts": 1})
    attempt_id = steps.claimed(worker_id)
    steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.DEVICE_FAULT)


def quota(amount: int, role: str | None = None) -> QuotaRequest:
    return QuotaRequest(
        path="default", kind="running_jobs", amount=Decimal(amount), action="block", role=role
    )


# Limits


@story
def a_share_is_raised(steps):
    change(steps, queue_rules.set_share, "default", ShareRequest(max_jobs=0))
    yield submitted(steps)
    change(steps, queue_rules.change_share, "default", ShareRequest(max_jobs=1))


@story
def a_share_is_removed(steps):
    change(steps, queue_rules.set_share, "default", ShareRequest(max_slots=0))
    yield submitted(steps)
    change(steps, queue_rules.remove_share, "default")


@story
def a_quota_is_raised(steps):
    change(steps, quota_setting.set_quota, quota(0))
    yield submitted(steps)
    change(steps, quota_setting.set_quota, quota(1))


@story
def a_limit_above_is_raised(steps):
    whole = quota(0).model_copy(update={"path": "all"})
    change(steps, quota_setting.set_quota, whole)
    yield submitted(steps)
    change(steps, quota_setting.set_quota, whole.model_copy(update={"amount": Decimal(1)}))


@story
def a_quota_is_removed(steps):
    made = change(steps, quota_setting.set_quota, quota(0))
    yield submitted(steps)
    with steps.db.read() as session:
        standing = quota_setting.find(session, made.id)
    change(steps, quota_setting.remove_quota, standing)


@story
def a_quota_of_a_role_is_raised(steps):
    change(steps, quota_setting.set_quota, quota(0, role="researcher"))
    yield submitted(steps, actor=steps.user("ann", Role.RESEARCHER))
    change(steps, quota_setting.set_quota, quota(1, role="researcher"))


@story
def a_user_has_another_role(steps):
    change(steps, quota_setting.set_quota, quota(0, role="researcher"))
    yield submitted(steps, actor=steps.user("ann", Role.RESEARCHER))
    change(steps, users.change_user, "ann", UserChange(role="lead"))


@story
def a_user_leaves_a_team_in_which_they_have_a_limit(steps):
    change(steps, quota_setting.set_quota, quota(0, role="researcher"))
    yield submitted(steps, actor=steps.user("ann", Role.RESEARCHER, "default", "default", "b"))
    change(steps, memberships.leave_team, "default", "default", "ann")


@story
def a_user_is_taken_into_another_organisation(steps):
    change(steps, quota_setting.set_quota, quota(0, role="researcher"))
    change(steps, tenants.make_org, OrgRequest(slug="labs", name="Labs"))
    yield submitted(steps, actor=steps.user("ann", Role.RESEARCHER))
    change(steps, memberships.move_to_org, "ann", "labs", "default")


def waits_for_its_array(steps) -> tuple[str, str]:
    """An array of which one job is placed, and the one that its cap holds back."""
    asked = {"spec": document("n"), "grid": {"training.steps": [1, 2]}, "max_running": 1}
    request = JobArrayRequest.model_validate(asked)
    batch = job_arrays.check(steps.admin, request, Rules())
    with steps.db.write() as tx:
        array_id = job_arrays.submit(tx, steps.admin, request, batch)[0].id
    steps.join(slots=2)
    steps.place()
    with steps.db.read() as session:
        waiting, _ = job_lists.list_jobs(session, steps.admin, states=[JobState.QUEUED])
    return array_id, waiting[0].id


@story
def the_cap_of_an_array_is_raised(steps):
    array_id, job_id = waits_for_its_array(steps)
    yield job_id
    change(steps, job_arrays.cap, array_id, 2)


@story
def the_cap_of_an_array_is_lifted(steps):
    array_id, job_id = waits_for_its_array(steps)
    yield job_id
    change(steps, job_arrays.cap, array_id, None)


# The order of the line


def beside_another(steps, **fields) -> str:
    """A job behind another one, for whose sake nothing is free: the worker comes later."""
    steps.submit("first")
    return steps.submit("behind", **fields)


@story
def it_has_a_higher_class(steps):
    job_id = beside_another(steps)
    yield job_id
    with steps.db.write() as tx:
        steering.change_class(tx, steps.admin, job_id, Priority.HIGH)
    steps.join()


@story
def it_is_overridden(steps):
    job_id = beside_another(steps)
    yield job_id
    with steps.db.write() as tx:
        steering.override(tx, steps.admin, job_id, 50)
    steps.join()


@story
def other_rules_of_the_queue_make_it_older(steps):
    job_id = steps.submit("old", priority="low")
    steps.clock.advance(150)
    steps.submit("new")
    yield job_id
    change(steps, queue_rules.set_rules, QueueRules(ageing_interval=60.0))
    steps.join()


# People, parents and moments


@story
def it_is_approved(steps):
    asked = {"name": "all", "condition": "role", "pattern": "researcher"}
    change(steps, approval_rules.create, ApprovalRuleRequest.model_validate(asked))
    job_id = submitted(steps, actor=steps.user("ann", Role.RESEARCHER))
    yield job_id
    change(steps, approvals.decide, job_id, Decision(decision="approve"))


@story
def its_parent_succeeds(steps):
    worker_id = steps.join()
    child = steps.submit("child", after=[steps.submit("parent")])
    attempt_id = steps.claimed(worker_id)
    yield child
    steps.finish(worker_id, attempt_id)


@story
def its_parent_that_failed_is_retried_and_succeeds(steps):
    worker_id = steps.join(slots=2)
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent], on_parent_failure="hold")
    steps.cancel(parent)
    yield child
    with steps.db.write() as tx:
        steering.retry(tx, steps.admin, parent, Rules())
    attempt_id = steps.claimed(worker_id)
    steps.finish(worker_id, attempt_id)


@story
def it_is_retried(steps):
    job_id = submitted(steps)
    steps.cancel(job_id)
    yield job_id
    with steps.db.write() as tx:
        steering.retry(tx, steps.admin, job_id, Rules())


@story
def an_organisation_is_new(steps):
    """With the first job of its first user."""
    yield steps.submit("waits for a worker")
    change(steps, tenants.make_org, OrgRequest(slug="labs", name="Labs"))
    wanted = UserRequest(username="eve@labs", role="researcher", org="labs")
    with steps.db.write() as tx:
        user_id = users.make_user(tx, steps.admin, wanted, None).id
    steps.submit("theirs", actor=steps.actor(user_id))
    steps.join(slots=2)


# Slots that come free


@story
def another_job_is_cancelled(steps):
    first = submitted(steps)
    steps.place()
    yield steps.submit("second")
    steps.cancel(first)


@story
def another_job_gives_its_slots_back_and_uploads(steps):
    steps.submit("first")
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    yield steps.submit("second")
    steps.ship(worker_id, attempt_id, state=AttemptState.UPLOADING)


@story
def an_offer_expires(steps):
    steps.submit("first")
    worker_id = steps.join()
    steps.place()
    second = steps.submit("second", priority="high")
    yield second
    steps.wait(steps.patience.offer_ttl, alive=[worker_id])


@story
def a_lease_expires_and_another_worker_has_room(steps):
    worker_id = steps.join()
    job_id = steps.submit("first")
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    other = steps.join("other")
    yield job_id
    steps.wait(steps.patience.lease_ttl, alive=[other])


# Workers


@story
def a_worker_joins(steps):
    yield steps.submit()
    steps.join()


@story
def a_drain_is_undone(steps):
    worker_id = steps.join()
    steps.order(worker_id, WorkerDesired.DRAINING)
    yield steps.submit()
    steps.order(worker_id, WorkerDesired.ACTIVE)


@story
def a_worker_is_heard_again(steps):
    worker_id = steps.join()
    steps.wait(steps.patience.silent_after)
    yield steps.submit()
    steps.beat(worker_id)


@story
def a_worker_registers_with_more_slots(steps):
    worker_id = steps.join()
    yield steps.submit(resources={"slots": 2})
    steps.register(worker_id, slots=2)


@story
def a_worker_is_labelled(steps):
    worker_id = steps.join()
    yield steps.submit(resources={"labels": {"rack": "r2"}})
    with steps.db.write() as tx:
        worker_orders.label(tx, "root", worker_id, LabelChange(set={"rack": "r2"}))


@story
def a_stranger_leaves_the_accelerator(steps):
    worker_id = steps.join()
    who = BusySlot(index=0, code="foreign_process", message="process 42")
    steps.beat(worker_id, condition=Condition(busy=[who]))
    yield steps.submit()
    steps.beat(worker_id, condition=Condition())


@story
def faults_of_a_slot_are_forgiven(steps):
    worker_id = steps.join()
    for number in range(faulty_slots.MOST):
        break_slot(steps, worker_id, f"broken-{number}")
    yield steps.submit()
    steps.order(worker_id, WorkerDesired.ACTIVE)


@pytest.mark.parametrize("end", ["retired", "revoked", "deleted", "leaves"])
def test_what_an_ended_worker_held_goes_to_another_at_once(steps, end):
    worker_id, ear = steps.join(), Ear(steps)
    job_id = steps.submit()
    steps.claimed(worker_id)
    other = steps.join("other")
    ear.whole_round()
    with steps.db.write() as tx:
        if end == "retired":
            worker_orders.order(tx, "root", worker_id, WorkerDesired.RETIRED)
        elif end == "revoked":
            worker_credentials.revoke(tx, "root", worker_id)
        elif end == "deleted":
            worker_orders.delete(tx, "root", worker_id, force=True)
        else:
            worker_orders.leave(tx, worker_id)
    ear.round()
    assert (steps.job(job_id).attempts, steps.attempt(steps.offered(other)).job_id) == (2, job_id)


def started(steps, name: str, **fields) -> tuple[str, str]:
    """A job on a worker of its own, which has its lease; with the attempt."""
    worker_id, job_id = steps.join(name), steps.submit(name, **fields)
    return job_id, steps.claimed(worker_id)


def test_what_stops_because_it_was_cancelled_spares_others_an_order_to_yield(steps):
    cancelled, _ = started(steps, "cancelled")
    steps.clock.advance(10)
    _, cheaper = started(steps, "cheaper")  # it would lose less work
    ear = Ear(steps)
    ear.whole_round()
    steps.cancel(cancelled)
    steps.submit("urgent", priority="urgent")
    ear.round()
    assert steps.attempt(cheaper).stop is None


@pytest.mark.parametrize(("failing", "is_read_anew"), [(0, False), (0, True), (1, False)])
def test_a_gang_that_stops_because_a_member_failed_spares_others_an_order_to_yield(
    steps, failing, is_read_anew
):
    members = [steps.join(name) for name in ("one", "two")]
    steps.submit("gang", resources={"nodes": 2})
    steps.place()
    attempts = [(worker_id, steps.offered(worker_id)) for worker_id in members]
    for worker_id, attempt_id in attempts:
        steps.claim(worker_id, attempt_id)
        steps.run(worker_id, attempt_id)
    steps.clock.advance(10)
    _, cheaper = started(steps, "cheaper")
    ear = Ear(steps)
    ear.whole_round()
    # The first is the leader, whose row says all else that the scheduler is told of the gang.
    steps.finish(*attempts[failing], Outcome.FAILED, failure=FailureKind.CRASHED)
    if is_read_anew:
        steps.rounds.resign()
    steps.submit("urgent", priority="urgent")
    ear.round()
    assert steps.attempt(attempts[1 - failing][1]).stop == "preempt"
    assert steps.attempt(cheaper).stop is None


@pytest.mark.parametrize("together", [False, True])
def test_what_a_worker_is_offered_that_leaves_goes_to_another_at_once(steps, together):
    worker_id, job_id = steps.join(), steps.submit()
    steps.place()
    withdrawn = steps.offered(worker_id)
    other, ear = steps.join("other"), Ear(steps)
    ear.whole_round()
    if together:
        heartbeats = JointHeartbeats(steps.db, steps.patience)
        heartbeats._together([Beat(worker_id, Heartbeat(holding=[], leaving=True))])
    else:
        steps.beat(worker_id, leaving=True)
    ear.round()
    assert (steps.job(job_id).attempts, steps.attempt(steps.offered(other)).job_id) == (2, job_id)
    assert (steps.offers(worker_id), steps.job(job_id).tries_used) == ([], 0)
    assert steps.attempt(withdrawn).outcome == Outcome.EXPIRED


class Ear:
    """Hears what the scheduler is told, and lets it look at that alone."""

    def __init__(self, steps) -> None:
        self._steps, self._topics = steps, set()
        steps.db.notify = self._topics.update

    def round(self) -> None:
        """What the leader does once it is woken."""
        news = News.of(self._topics)
        self._topics.clear()
        self._steps.rounds.place(self._steps.lead, news)

    def whole_round(self) -> None:
        """What it does when it takes over."""
        self._topics.clear()
        self._steps.place()


SWEPT = {
    "a_lease_expires_and_another_worker_has_room",
    "an_offer_expires",
    "its_parent_that_failed_is_retried_and_succeeds",
}
"""These take a step of the leader, which the test goes in its place."""


@pytest.mark.parametrize("name", sorted(SWEPT))
def test_the_scheduler_is_told(steps, name):
    ear, told = Ear(steps), STORIES[name](steps)
    job_id = next(told)
    ear.whole_round()
    before = steps.job(job_id)
    assert before.state != JobState.ASSIGNED
    ear.round()  # nobody was told anything: nothing happens
    assert steps.job(job_id).version == before.version
    next(told, None)
    ear.round()
    after = steps.job(job_id)
    assert (after.state, after.attempts) == (JobState.ASSIGNED, before.attempts + 1)


@pytest.mark.embedded
@pytest.mark.parametrize("name", sorted(STORIES.keys() - SWEPT))
def test_the_loop_is_woken_at_once(steps, loop, name):
    """It would look by itself in thirty years."""
    told = STORIES[name](steps)
    job_id = next(told)
    before = steps.job(job_id)
    attempts = before.attempts + 1

    def has_begun() -> bool:
        after = steps.job(job_id)
        return (after.state, after.attempts) == (JobState.ASSIGNED, attempts)

    async def story() -> None:
        assert steps.job(job_id).version == before.version
        await asyncio.to_thread(next, told, None)
        await loop.until(has_begun)

    loop.run(story)


def test_the_loop_is_woken_by_more_jobs_than_are_named(steps, loop, monkeypatch):
    monkeypatch.setattr(topics, "MOST_NAMED", 1)
    steps.join(slots=2)
    bodies = [document(name) for name in ("one", "two")]

    async def story() -> None:
        ids = await asyncio.to_thread(submit_together, steps, bodies)
        await loop.until(lambda: {steps.job(each).state for each in ids} == {JobState.ASSIGNED})

    loop.run(story)


@pytest.mark.parametrize("name", ["a_share_is_raised", "it_is_retried", "a_worker_joins"])
def test_what_nobody_told_is_found_by_looking(steps, loop, monkeypatch, name):
    """Rules, jobs and workers: a slow look repairs what was not told."""
    monkeypatch.setattr("st_controller.dispatch.service.REPAIR_SECONDS", 0.0)
    monkeypatch.setattr("st_controller.dispatch.service.RENEW_SECONDS", 0.01)
    told = STORIES[name](steps)
    job_id = next(told)

    async def story() -> None:
        monkeypatch.setattr(steps.db, "notify", lambda _: None)
        await asyncio.to_thread(next, told, None)
        await loop.until(lambda: steps.job(job_id).state == JobState.ASSIGNED)

    loop.run(story)


def test_news_that_come_while_the_lease_is_renewed_are_heard(steps, loop, monkeypatch):
    monkeypatch.setattr("st_controller.dispatch.service.RENEW_SECONDS", 0.01)
    steps.join()
    seek, submitted_then = loop.dispatcher._seek, []

    async def renew() -> bool:
        if loop.queue.is_led and not submitted_then:
            submitted_then.append(await asyncio.to_thread(steps.submit))
        return await seek()

    monkeypatch.setattr(loop.dispatcher, "_seek", renew)

    async def story() -> None:
        await loop.until(
            lambda: [steps.job(each).state for each in submitted_then] == [JobState.ASSIGNED]
        )

    loop.run(story)


def submit_together(steps, bodies) -> list[str]:
    batch = submission.check_batch(steps.admin, bodies, Rules())
    with steps.db.write() as tx:
        stored, _ = submission.enqueue_batch(tx, steps.admin, batch)
        return [each.job_id for each in stored]


@pytest.mark.parametrize("why", ["not_before", "backoff", "nothing"])
def test_the_loop_sleeps_until_the_moment_that_lets_a_job_start(steps, why):
    """Of moments nobody is told."""
    dispatcher, worker_id = Dispatcher(steps.platform, "ctl_test"), steps.join()
    if why == "not_before":
        steps.submit(not_before=(steps.clock() + timedelta(seconds=0.3)).isoformat())
    elif why == "backoff":
        steps.submit(retry={"max_attempts": 2, "backoff": 0.3})
        steps.finish(
            worker_id, steps.claimed(worker_id), Outcome.FAILED, failure=FailureKind.CRASHED
        )
    dispatcher._rounds.place(steps.lead)
    assert dispatcher._patience() == pytest.approx(1.0 if why == "nothing" else 0.3, abs=1e-5)
    steps.clock.advance(0.3)
    assert dispatcher._rounds.place(steps.lead) == (why != "nothing")


@pytest.mark.parametrize("early", [0.001, 0.0])
def test_a_price_that_was_set_for_a_moment_holds_from_then_on(steps, early):
    """Nobody tells the scheduler that the moment has come."""
    worker_id = steps.join()
    steps.place()
    for amount, hours in (("1", 0), ("5", 1), ("9", 2)):
        since = steps.clock() + timedelta(hours=hours)
        wanted = PriceRequest(accelerator="*", amount=Decimal(amount), since=since)
        change(steps, pricing.set_price, wanted)
    ear = Ear(steps)
    ear.whole_round()
    rates = []
    for _ in range(2):
        steps.clock.advance(3600 - early)
        steps.beat(worker_id)
        steps.submit()
        ear.round()
        attempt_id = steps.offered(worker_id)
        rates.append(steps.attempt(attempt_id).rate)
        steps.claim(worker_id, attempt_id)
        steps.finish(worker_id, attempt_id)
        steps.clock.advance(early)
    assert rates == ([1_000_000, 5_000_000] if early else [5_000_000, 9_000_000])


# What holds a job back is told as soon

HOLDS: dict[str, Story] = {}


def holds(told: Story) -> Story:
    HOLDS[told.__name__] = told
    return told


@holds
def a_share_is_lowered(steps):
    yield submitted(steps)
    change(steps, queue_rules.set_share, "default", ShareRequest(max_jobs=0))


@holds
def a_quota_is_set(steps):
    yield submitted(steps)
    change(steps, quota_setting.set_quota, quota(0))


@holds
def a_user_is_taken_into_a_team_in_which_their_role_has_a_limit(steps):
    change(steps, tenants.make_team, TeamRequest(slug="b"))
    limited = quota(0, role="researcher").model_copy(update={"path": "default/b"})
    change(steps, quota_setting.set_quota, limited)
    ann = steps.user("ann", Role.RESEARCHER)
    yield ""
    change(steps, memberships.join_team, "default", "b", "ann")
    yield submitted(steps, actor=steps.actor(ann.user_id), team="b")


@holds
def a_user_is_new_whose_role_has_a_limit(steps):
    change(steps, quota_setting.set_quota, quota(0, role="researcher"))
    yield ""
    with steps.db.write() as tx:
        user_id = users.make_user(tx, steps.admin, UserRequest(username="eve"), None).id
    yield submitted(steps, actor=steps.actor(user_id))


@holds
def an_array_has_a_cap(steps):
    asked = {"spec": document("n"), "grid": {"training.steps": [1, 2]}, "max_running": 1}
    request = JobArrayRequest.model_validate(asked)
    yield ""
    steps.join(slots=2)
    batch = job_arrays.check(steps.admin, request, Rules())
    with steps.db.write() as tx:
        array_id = job_arrays.submit(tx, steps.admin, request, batch)[0].id
    with steps.db.read() as session:
        made, _ = job_lists.list_jobs(session, steps.admin, array_id=array_id)
    yield max(made, key=lambda job: job.array_index).id


@holds
def a_slot_has_failed_too_often(steps):
    worker_id = steps.join()
    for number in range(faulty_slots.MOST - 1):
        break_slot(steps, worker_id, f"broken-{number}")
    yield ""
    break_slot(steps, worker_id, "the last")
    yield steps.submit()


@holds
def a_stranger_uses_the_accelerator(steps):
    worker_id = steps.join()
    yield steps.submit()
    who = BusySlot(index=0, code="foreign_process", message="process 42")
    steps.beat(worker_id, condition=Condition(busy=[who]))


@pytest.mark.parametrize("name", sorted(HOLDS))
def test_the_scheduler_is_told_of_what_holds_a_job_back(steps, name):
    told = HOLDS[name](steps)
    job_id = next(told)
    queue = steps.rounds._queue
    with steps.db.read() as session:
        queue.load(session, steps.clock())  # it knows all, and has decided nothing
    ear = Ear(steps)
    job_id = next(told, None) or job_id
    ear.round()
    assert steps.job(job_id).state == JobState.QUEUED
    assert queue.scheduler.waiting(job_id) is not None

"""Jobs that wait for others, and what becomes of them when those end."""

import pytest
from controller_steps import document
from sqlalchemy import select

from st_controller.domain.policy.roles import Role
from st_controller.errors import Conflict, InvalidRequest
from st_controller.services import jobs, steering, submission
from st_controller.services.drafts import Rules
from st_controller.store.schema import Job, JobDependency
from st_controller.store.transaction import QUEUE_JOB
from st_shared.protocol.states import FailureKind, JobState, Outcome


def retry(steps, job_id, actor=None):
    with steps.db.write() as tx:
        steering.retry(tx, actor or steps.admin, job_id, Rules())


def delete(steps, job_id):
    with steps.db.write() as tx:
        jobs.delete(tx, steps.admin, job_id)


@pytest.fixture
def end(steps):
    """Runs the job whose turn it is to its end, on the one worker; gives its id."""
    worker_id = steps.join()

    def run(outcome=Outcome.SUCCEEDED, failure=None):
        steps.clock.advance(1)
        steps.beat(worker_id)
        attempt_id = steps.claimed(worker_id)
        epoch = steps.attempt(attempt_id).epoch
        steps.run(worker_id, attempt_id, epoch=epoch)
        steps.finish(worker_id, attempt_id, outcome, failure=failure, epoch=epoch)
        return steps.attempt(attempt_id).job_id

    return run


@pytest.fixture
def fail(end):
    """Runs the job whose turn it is to a failure that no other try would mend."""
    return lambda: end(Outcome.FAILED, FailureKind.BAD_DATA)


def state(steps, job_id):
    job = steps.job(job_id)
    return job.state, job.open_parents, job.reason and job.reason["code"]


def test_a_child_waits_until_all_its_parents_succeeded(steps, end):
    first, second = steps.submit("first"), steps.submit("second")
    child = steps.submit("child", after=[first, second])
    assert state(steps, child) == (JobState.QUEUED, 2, "dependency")
    assert "first" in steps.job(child).reason["message"]
    assert end() == first
    assert state(steps, child) == (JobState.QUEUED, 1, "dependency")
    assert "second" in steps.job(child).reason["message"]
    assert end() == second
    assert state(steps, child) == (JobState.QUEUED, 0, None)
    assert end() == child


def test_a_child_is_never_placed_before(steps):
    parent = steps.submit("parent", priority="low")
    child = steps.submit("child", priority="critical", after=[parent])
    worker_id = steps.join(slots=4)
    assert steps.place() == 1
    assert steps.attempt(steps.offered(worker_id)).job_id == parent
    assert steps.job(child).attempts == 0


def test_a_parent_that_succeeded_before_counts(steps, end):
    done = steps.submit("done")
    end()
    child = steps.submit("child", after=[done])
    assert state(steps, child) == (JobState.QUEUED, 0, None)


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_lost_parent_cancels_its_children_and_theirs(steps, fail, how):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent])
    grandchild = steps.submit("grandchild", after=[child])
    other = steps.submit("other")
    if how == "fails":
        assert fail() == parent
    else:
        steps.cancel(parent)
    assert state(steps, child)[::2] == (JobState.CANCELLED, "parent_failed")
    assert f"parent ({parent})" in steps.job(child).reason["message"]
    assert state(steps, grandchild)[::2] == (JobState.CANCELLED, "parent_failed")
    assert f"child ({child})" in steps.job(grandchild).reason["message"]
    assert steps.job(grandchild).finished_at == steps.clock()
    assert state(steps, other) == (JobState.QUEUED, 0, None)


def test_a_held_child_says_what_to_do_and_never_starts(steps, fail):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent], on_parent_failure="hold")
    fail()
    assert state(steps, child) == (JobState.QUEUED, 1, "parent_failed")
    assert f"st retry {parent}" in steps.job(child).reason["hint"]
    steps.join("large", slots=4)
    for _ in range(5):
        steps.clock.advance(86_400)
        assert steps.place() == 0
    assert steps.job(child).attempts == 0
    steps.cancel(child)
    assert state(steps, child)[0] == JobState.CANCELLED


def test_nobody_waits_for_a_job_that_was_deleted(steps, end, fail):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent], on_parent_failure="hold")
    fail()
    with pytest.raises(Conflict) as refused:
        delete(steps, parent)
    assert refused.value.code == "waited_for"
    assert child in refused.value.hint
    steps.cancel(child)
    delete(steps, parent)
    done = steps.submit("done")
    waits = steps.submit("waits", after=[done])
    assert end() == done
    delete(steps, done)
    assert state(steps, waits) == (JobState.QUEUED, 0, None)
    for gone in (parent, done):
        with pytest.raises(InvalidRequest) as unknown:
            steps.submit("late", after=[gone], on_parent_failure="hold")
        assert "there is no job" in unknown.value.errors[0].message


def test_a_retried_parent_that_succeeds_releases_what_it_held(steps, end, fail):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent], on_parent_failure="hold")
    fail()
    retry(steps, parent)
    assert state(steps, child) == (JobState.QUEUED, 1, "dependency")
    assert end() == parent
    assert state(steps, child) == (JobState.QUEUED, 0, None)
    assert end() == child


def test_a_failure_that_is_tried_again_does_not_touch_the_children(steps, end):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent])
    assert end(Outcome.FAILED, FailureKind.CRASHED) == parent
    assert steps.job(parent).state == JobState.QUEUED
    assert state(steps, child) == (JobState.QUEUED, 1, "dependency")


def test_a_parent_that_is_lost_already_is_refused_unless_the_child_is_to_be_held(steps):
    lost = steps.submit("lost")
    steps.cancel(lost)
    with pytest.raises(InvalidRequest) as refused:
        steps.submit("child", after=[lost])
    assert [error.field for error in refused.value.errors] == ["after.0"]
    assert "st retry" in refused.value.errors[0].message
    held = steps.submit("child", after=[lost], on_parent_failure="hold")
    assert state(steps, held) == (JobState.QUEUED, 1, "parent_failed")


def test_a_job_of_somebody_else_is_none(steps):
    ann = steps.user("ann", Role.RESEARCHER)
    theirs = steps.submit("theirs")
    with pytest.raises(InvalidRequest) as refused:
        steps.submit("child", actor=ann, after=[theirs, "job_nobody"])
    messages = [error.message.replace(theirs, "X").replace("job_nobody", "X")
                for error in refused.value.errors]  # fmt: skip
    assert [error.field for error in refused.value.errors] == ["after.0", "after.1"]
    assert len(set(messages)) == 1  # nothing tells the two apart
    lead = steps.user("lea", Role.LEAD)
    assert steps.submit("child", actor=lead, after=[theirs])


def test_a_cancelled_child_is_not_retried_before_its_parent(steps, end):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent])
    steps.cancel(parent)
    with pytest.raises(Conflict) as refused:
        retry(steps, child)
    assert refused.value.code == "parent_failed"
    assert refused.value.hint == f"`st retry {parent}` first"
    retry(steps, parent)
    retry(steps, child)
    assert state(steps, child) == (JobState.QUEUED, 1, "dependency")
    assert end() == parent
    assert end() == child


@pytest.mark.parametrize("choice", ["cancel", "hold"])
def test_a_child_of_a_parent_that_was_deleted_is_not_retried(steps, choice):
    """Nobody can retry that parent any more: it would wait for good."""
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent], on_parent_failure=choice)
    steps.cancel(parent)
    if choice == "hold":
        steps.cancel(child)
    delete(steps, parent)
    with pytest.raises(Conflict) as refused:
        retry(steps, child)
    assert refused.value.code == "parent_failed"
    assert "deleted" in refused.value.hint
    assert "without it in `after`" in refused.value.hint
    assert steps.job(child).state == JobState.CANCELLED


def test_the_scheduler_is_told_of_what_was_released(steps, end):
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent])
    told = []
    steps.db.notify = told.append
    end()
    assert f"{QUEUE_JOB}{child}" in set().union(*told)


def test_children_come_and_parents_end_at_the_same_time(steps, together):
    """Whichever is first: nobody waits for a parent that has already succeeded."""
    parents = [steps.submit(f"p{number}") for number in range(6)]
    worker_id = steps.join(slots=6)
    steps.place()
    held = {}
    with steps.db.read() as session:
        from st_controller.services import workers
        from st_controller.store.schema import Worker

        for offer in workers.sync(session, session.get_one(Worker, worker_id)).offers:
            held[offer.job_id] = offer.attempt_id
    for attempt_id in held.values():
        steps.claim(worker_id, attempt_id)
        steps.run(worker_id, attempt_id)

    def act(turn):
        kind, number = turn
        if kind == "end":
            steps.finish(worker_id, held[parents[number]])
        else:
            steps.submit(f"c{number}", after=[parents[number], parents[(number + 1) % 6]])

    together(act, [(kind, number) for kind in ("end", "child") for number in range(6)])
    with steps.db.read() as session:
        children = session.scalars(select(Job).where(Job.name.like("c_"))).all()
    assert [child.open_parents for child in children] == [0] * 6


def test_two_parents_that_fail_at_once_do_not_stand_in_each_others_way(steps, together):
    def noop(name, *after):
        return {"name": name, "noop": {}, "after": [f"@{parent}" for parent in after]}

    batch = [noop("a"), noop("b")]
    batch += [noop(f"x{n}", *(["a", "b"] if n % 2 else ["b", "a"])) for n in range(20)]
    batch += [noop(f"y{n}", f"x{n}", f"x{19 - n}") for n in range(20)]
    for _ in range(3):
        drafts = submission.check_batch(steps.admin, batch, Rules())
        with steps.db.write() as tx:
            made, _ = submission.enqueue_batch(tx, steps.admin, drafts)
        together(steps.cancel, [made[0][0], made[1][0]])
        states = {steps.job(job_id).state for job_id, _, _ in made}
        assert states == {JobState.CANCELLED}


def test_the_rows_say_who_waits_for_whom(steps):
    parent = steps.submit("parent")
    child = steps.submit_as(document("child", after=[parent]))[0]
    with steps.db.read() as session:
        links = session.execute(select(JobDependency.job_id, JobDependency.parent_id)).all()
    assert links == [(child, parent)]

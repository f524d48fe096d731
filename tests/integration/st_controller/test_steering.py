"""Steering waiting jobs: classes, overrides and retries, each with who may and what is recorded."""

import pytest
from controller_steps import document, log_line
from sqlalchemy import select

from st_controller.domain.policy.roles import Role
from st_controller.errors import Conflict, NotFound, NotPermitted
from st_controller.services import steering, submission
from st_controller.services.drafts import Rules
from st_controller.store.schema import Attempt, Job, JobTransition
from st_controller.store.transaction import QUEUE_JOB
from st_shared.protocol.states import FailureKind, JobState, Outcome
from st_shared.spec.job import Priority

COMMAND = {"name": "job", "command": {"run": "true"}}


def change_class(steps, job_id, priority, actor=None):
    with steps.db.write() as tx:
        steering.change_class(tx, actor or steps.admin, job_id, Priority(priority))


def override(steps, job_id, level, actor=None):
    with steps.db.write() as tx:
        steering.override(tx, actor or steps.admin, job_id, level)


def retry(steps, job_id, actor=None, rules=None):
    with steps.db.write() as tx:
        steering.retry(tx, actor or steps.admin, job_id, rules or Rules())


def fail(steps, worker_id, kind=FailureKind.BAD_DATA):
    """Let the job whose turn it is fail on this worker; gives its id."""
    steps.clock.advance(1)
    steps.beat(worker_id)
    attempt_id = steps.claimed(worker_id)
    epoch = steps.attempt(attempt_id).epoch
    steps.run(worker_id, attempt_id, epoch=epoch)
    steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=kind, epoch=epoch)
    return steps.attempt(attempt_id).job_id


def order_of_service(steps, count):
    """The jobs in the order in which one worker with one slot is offered them."""
    worker_id = steps.join()
    served = []
    for _ in range(count):
        steps.clock.advance(1)
        steps.beat(worker_id)
        attempt_id = steps.claimed(worker_id)
        steps.finish(worker_id, attempt_id)
        served.append(steps.attempt(attempt_id).job_id)
    return served


# Classes and overrides


def test_a_class_needs_its_permission(steps):
    ann, lea = steps.user("ann", Role.RESEARCHER), steps.user("lea", Role.LEAD)
    for actor, priority, allowed in [
        (ann, "normal", True), (ann, "high", False), (ann, "urgent", False),
        (lea, "high", True), (lea, "urgent", False), (lea, "critical", False),
        (steps.admin, "urgent", True), (steps.admin, "critical", True),
    ]:  # fmt: skip
        if allowed:
            assert steps.job(steps.submit(actor=actor, priority=priority)).priority == priority
            continue
        with pytest.raises(NotPermitted) as refused:
            steps.submit(actor=actor, priority=priority)
        assert [error.field for error in refused.value.errors] == ["priority"]


def test_the_owner_changes_the_class_of_a_waiting_job(steps):
    ann = steps.user("ann", Role.RESEARCHER)
    job_id, told = steps.submit(actor=ann), []
    steps.clock.advance(5)
    steps.db.notify = told.append
    change_class(steps, job_id, "low", ann)
    job = steps.job(job_id)
    assert (job.priority, job.level, job.changed_at) == ("low", 0, steps.clock())
    assert f"{QUEUE_JOB}{job_id}" in set().union(*told)
    entry = steps.audit_of(job_id)[-1]
    assert (entry.actor, entry.action) == ("user:ann", "job.priority_changed")
    assert entry.details == {"before": "normal", "after": "low"}


def test_who_may_not_change_a_class(steps):
    ann, bob, lea = (
        steps.user("ann", Role.RESEARCHER),
        steps.user("bob", Role.RESEARCHER),
        steps.user("lea", Role.LEAD),
    )
    job_id = steps.submit(actor=ann)
    with pytest.raises(NotPermitted) as refused:
        change_class(steps, job_id, "urgent", ann)
    assert [error.field for error in refused.value.errors] == ["priority"]
    with pytest.raises(NotFound):
        change_class(steps, job_id, "low", bob)
    with pytest.raises(NotPermitted):
        change_class(steps, job_id, "high", lea)
    assert steps.job(job_id).priority == "normal"
    assert len(steps.audit_of(job_id)) == 1


def test_a_class_changes_while_a_job_waits_and_not_later(steps, running):
    _, _, job_id = running
    with pytest.raises(Conflict) as refused:
        change_class(steps, job_id, "high")
    assert refused.value.code == "not_waiting"


def test_an_override_puts_a_job_first_and_taking_it_back_puts_it_behind(steps):
    first, second, third = (steps.submit(name) for name in ("first", "second", "third"))
    override(steps, third, 50)
    override(steps, second, 0)
    override(steps, second, None)
    override(steps, first, 0)
    assert order_of_service(steps, 3) == [third, second, first]


def test_a_class_that_was_changed_counts_at_once(steps):
    first, second = steps.submit("first"), steps.submit("second")
    change_class(steps, second, "high")
    assert order_of_service(steps, 2) == [second, first]


def test_an_override_is_audited_with_what_it_was_before(steps):
    job_id = steps.submit()
    override(steps, job_id, 40)
    override(steps, job_id, None)
    entries = [(entry.action, entry.details) for entry in steps.audit_of(job_id)[1:]]
    assert entries == [
        ("job.overridden", {"before": None, "after": 40}),
        ("job.overridden", {"before": 40, "after": None}),
    ]
    assert steps.job(job_id).priority == "normal"


@pytest.mark.parametrize("role", [Role.RESEARCHER, Role.LEAD])
def test_an_override_is_for_admins(steps, role):
    actor = steps.user("ann", role)
    job_id = steps.submit(actor=actor)
    with pytest.raises(NotPermitted):
        override(steps, job_id, 50, actor)
    assert steps.job(job_id).override is None


def test_what_is_over_is_not_overridden(steps):
    job_id = steps.submit()
    steps.cancel(job_id)
    with pytest.raises(Conflict) as refused:
        override(steps, job_id, 10)
    assert refused.value.code == "already_final"


# Shell commands


@pytest.mark.parametrize(
    ("role", "allowed_here", "field"),
    [
        (Role.ADMIN, False, "command"),
        (Role.LEAD, True, "command"),
        (Role.RESEARCHER, True, "command"),
        (Role.ADMIN, True, None),
    ],
)
def test_a_command_needs_the_setting_and_the_permission(steps, role, allowed_here, field):
    actor = steps.user("ann", role)
    rules = Rules(allow_commands=allowed_here)
    if field is None:
        with steps.db.write() as tx:
            job, _ = submission.submit(tx, actor, COMMAND, rules=rules)
            assert (job.kind, job.family) == ("command", "command")
        return
    with pytest.raises(NotPermitted) as refused:
        submission.check(actor, COMMAND, rules)
    assert [error.field for error in refused.value.errors] == [field]
    said = "job.command" if allowed_here else "ST_ALLOW_COMMAND_JOBS"
    assert said in refused.value.detail


@pytest.mark.parametrize(
    ("field", "section"),
    [
        ("training.validation.script", {"validation": {"prompts": ["a"], "script": {"run": "x"}}}),
        ("training.hooks.post_checkpoint", {"hooks": {"post_checkpoint": {"run": "x"}}}),
        ("training.hooks.post_upload", {"hooks": {"post_upload": {"run": "x"}}}),
    ],
)
def test_a_script_of_a_training_needs_what_a_command_needs(steps, field, section):
    job = {"name": "n", "training": {"model": {"family": "pixel_dit"}, **section}}
    job["training"]["datasets"] = [{"name": "d"}]
    ann = steps.user("ann", Role.RESEARCHER)
    for actor, rules in ((steps.admin, Rules()), (ann, Rules(allow_commands=True))):
        with pytest.raises(NotPermitted) as refused:
            submission.check(actor, job, rules)
        assert [error.field for error in refused.value.errors] == [field]
    submission.check(steps.admin, job, Rules(allow_commands=True))
    del job["training"][field.split(".")[1]]
    submission.check(ann, job, Rules())


def test_a_command_is_not_retried_where_it_could_not_be_submitted(steps):
    with steps.db.write() as tx:
        job_id = submission.submit(tx, steps.admin, COMMAND, rules=Rules(allow_commands=True))[0].id
    steps.cancel(job_id)
    with pytest.raises(NotPermitted):
        retry(steps, job_id)
    lea = steps.user("lea", Role.LEAD, allow=["job.cancel.all"])
    with pytest.raises(NotPermitted, match=r"job\.command"):
        retry(steps, job_id, lea, Rules(allow_commands=True))
    retry(steps, job_id, rules=Rules(allow_commands=True))
    assert steps.job(job_id).state == JobState.QUEUED


# Pauses between tries


def test_each_pause_is_twice_the_one_before_and_ends_what_was_submitted_first(steps):
    job_id = steps.submit(retry={"max_attempts": 4, "backoff": 30})
    submitted = steps.job(job_id).submitted_at
    worker_id = steps.join()
    for pause in (30, 60, 120):
        assert fail(steps, worker_id, FailureKind.CRASHED) == job_id
        job = steps.job(job_id)
        assert job.state == JobState.QUEUED
        assert (job.not_before - steps.clock()).total_seconds() == pause
        assert job.submitted_at == submitted
        steps.clock.advance(pause - 2)
        steps.beat(worker_id)
        assert steps.place() == 0
        steps.clock.advance(2)
    fail(steps, worker_id, FailureKind.CRASHED)
    assert steps.job(job_id).state == JobState.FAILED


def test_a_retried_job_keeps_its_turn_and_takes_nobody_elses(steps):
    worker_id = steps.join()
    first = steps.submit("first", retry={"backoff": 5})
    steps.clock.advance(1)
    second = steps.submit("second")
    assert fail(steps, worker_id, FailureKind.CRASHED) == first
    steps.clock.advance(1)
    third = steps.submit("third")
    assert fail(steps, worker_id) == second  # the first one pauses
    steps.clock.advance(5)
    assert fail(steps, worker_id) == first  # before what came later
    assert fail(steps, worker_id) == third


@pytest.mark.parametrize("outcome", [Outcome.PREEMPTED, Outcome.EXPIRED])
def test_what_is_not_the_jobs_fault_costs_no_pause(steps, outcome):
    worker_id, job_id = steps.join(), steps.submit()
    if outcome is Outcome.EXPIRED:
        steps.place()
        steps.wait(10, alive=[worker_id])
    else:
        attempt_id = steps.claimed(worker_id)
        steps.run(worker_id, attempt_id)
        steps.finish(worker_id, attempt_id, outcome)
    job = steps.job(job_id)
    assert (job.state, job.not_before, job.tries_used) == (JobState.QUEUED, None, 0)


def test_what_was_lost_has_waited_for_its_lease_and_pauses_no_longer(steps, running):
    _, _, job_id = running
    steps.wait(25)
    job = steps.job(job_id)
    assert (job.state, job.not_before, job.tries_used) == (JobState.QUEUED, None, 1)


# Retrying


def test_a_retried_job_has_fresh_tries_and_keeps_what_it_made(steps):
    job_id = steps.submit(retry={"max_attempts": 1})
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    steps.ship(worker_id, attempt_id, [log_line(1)])
    steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.CRASHED, last=1)
    before = steps.job(job_id)
    assert before.state == JobState.FAILED
    steps.clock.advance(100)
    retry(steps, job_id)
    job = steps.job(job_id)
    assert (job.state, job.tries_used, job.attempts) == (JobState.QUEUED, 0, 1)
    assert (job.finished_at, job.not_before, job.cancel_requested_at) == (None, None, None)
    assert (job.submitted_at, job.queued_at) == (before.submitted_at, steps.clock())
    assert job.reason["code"] == "retried"
    assert steps.audit_of(job_id)[-1].action == "job.queued"
    assert fail(steps, worker_id, FailureKind.CRASHED) == job_id
    with steps.db.read() as session:
        assert session.scalars(select(Attempt.number).order_by(Attempt.number)).all() == [1, 2]
        states = session.scalars(select(JobTransition.state).order_by(JobTransition.version)).all()
    assert states == ["queued", "assigned", "running", "failed", "queued", "assigned", "running",
                      "failed"]  # fmt: skip


def test_a_cancelled_job_can_be_retried_and_cancelled_again(steps):
    job_id = steps.submit()
    for _ in range(2):
        steps.cancel(job_id)
        assert steps.job(job_id).state == JobState.CANCELLED
        retry(steps, job_id)
        assert steps.job(job_id).state == JobState.QUEUED


def test_what_waits_runs_or_succeeded_is_not_retried(steps):
    waiting = steps.submit("a")
    with pytest.raises(Conflict) as refused:
        retry(steps, waiting)
    assert refused.value.code == "not_retryable"
    assert "st cancel" in refused.value.hint
    done = order_of_service(steps, 1)[0]
    with pytest.raises(Conflict) as refused:
        retry(steps, done)
    assert (refused.value.code, refused.value.hint) == ("not_retryable", "submit it anew")
    assert steps.job(done).version == 4


def test_who_may_retry(steps):
    ann, bob, lea = (
        steps.user("ann", Role.RESEARCHER),
        steps.user("bob", Role.RESEARCHER),
        steps.user("lea", Role.LEAD, allow=["job.cancel.all"]),
    )
    job_id = steps.submit(actor=ann)
    steps.cancel(job_id)
    with pytest.raises(NotFound):
        retry(steps, job_id, bob)
    with pytest.raises(NotPermitted, match=r"job\.cancel\.all"):
        retry(steps, job_id, steps.user("max", Role.LEAD))
    retry(steps, job_id, lea)
    assert steps.job(job_id).submitted_by == ann.user_id


def test_a_moment_that_was_asked_for_is_kept(steps):
    later = steps.clock().replace(year=2030)
    job_id = steps.submit(not_before=later.isoformat())
    steps.cancel(job_id)
    retry(steps, job_id)
    assert steps.job(job_id).not_before == later


def test_a_retried_job_waits_for_no_pause_and_bears_no_reason_of_before(steps):
    job_id = steps.submit(retry={"max_attempts": 3, "backoff": 600})
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.CRASHED)
    steps.cancel(job_id)
    why = {"code": "quota_exhausted", "message": "it was used up"}
    with steps.db.write() as tx:
        tx.session.get_one(Job, job_id).stop_reason = why
    retry(steps, job_id)
    assert (steps.job(job_id).not_before, steps.job(job_id).stop_reason) == (None, None)
    assert steps.place() == 1


def test_eight_retries_at_once_make_one(steps, together):
    job_id = steps.submit()
    steps.cancel(job_id)

    def attempt(_):
        try:
            retry(steps, job_id)
        except Conflict as refused:
            return refused.code
        return "done"

    answers = together(attempt, range(8))
    assert answers.count("done") == 1
    assert set(answers) <= {"done", "not_retryable", "version_conflict"}
    assert steps.job(job_id).version == 3


def test_a_job_file_as_it_was_submitted_is_kept(steps):
    job_id = steps.submit()
    change_class(steps, job_id, "high")
    assert steps.job(job_id).spec["priority"] == document().get("priority", "normal")

"""``can-i``: what the pass would say of a job, which it says again when the job comes."""

import pytest
from controller_steps import document, published
from sqlalchemy import func, select

from st_controller.services.drafts import Rules
from st_controller.services.policy import approval_rules, checking, resource_rules
from st_controller.store.schema import Approval, AuditEntry, Job
from st_shared.protocol.policy_approvals import ApprovalRuleRequest
from st_shared.protocol.policy_rules import ResourceRuleRequest


@pytest.fixture
def check(steps):
    def ask(actor, body):
        draft, step = checking.read(body)
        if draft is None:
            return checking.view(actor, [step])
        with steps.db.read() as session:
            return checking.check(session, actor, draft, Rules(), steps.clock())

    return ask


def deny(steps, **fields):
    with steps.db.write() as tx:
        wanted = ResourceRuleRequest(effect="deny", **fields)
        return resource_rules.create(tx, steps.admin, wanted)


def ask_first(steps, **fields):
    with steps.db.write() as tx:
        wanted = ApprovalRuleRequest(name="ask", **fields)
        return approval_rules.create(tx, steps.admin, wanted)


def steps_of(view):
    return {step.step: step.verdict for step in view.steps}


def test_what_nothing_speaks_against(steps, check):
    found = check(steps.user("ann", "researcher"), document())
    assert (found.verdict, found.org, found.team) == ("yes", "default", "default")
    assert set(steps_of(found).values()) == {"yes"}


def test_a_wrong_file_and_an_unknown_dataset(steps, check):
    ann = steps.user("ann", "researcher")
    wrong = check(ann, {"name": "n", "noop": {"seconds": -1}})
    assert wrong.verdict == "no"
    assert [problem.field for problem in wrong.steps[0].problems] == ["noop.seconds"]
    unknown = check(ann, document(datasets=[{"name": "nowhere"}]))
    assert steps_of(unknown)["file"] == "no"


def test_who_may_not_submit_is_told_so(steps, check):
    found = check(steps.user("vic", "viewer"), document())
    assert (found.verdict, steps_of(found)["permission"]) == ("no", "no")
    urgent = check(steps.user("ann", "researcher"), document(priority="urgent"))
    problem = next(step for step in urgent.steps if step.step == "permission").problems[0]
    assert problem.field == "priority"


def test_rules_and_approvals_are_told_together_and_nothing_is_written(steps, check):
    made = deny(steps, resource="family", pattern="pixel*", subject_kind="role", subject="viewer")
    ask_first(steps, condition="first_job")
    ask_first(steps, condition="accelerator", pattern="h100*")
    ann = steps.user("ann", "researcher")

    def written():
        with steps.db.read() as session:
            counts = [
                select(func.count()).select_from(table) for table in (Job, Approval, AuditEntry)
            ]
            return [session.scalar(count) for count in counts]

    before = written()
    found = check(ann, document())
    assert found.verdict == "needs_approval"
    approval = next(step for step in found.steps if step.step == "approval")
    assert "no job of its user was let through" in approval.notes[0]
    assert "h100*" in approval.notes[1]
    denied = check(steps.user("vic", "viewer"), document())
    (problem,) = next(step for step in denied.steps if step.step == "rules").problems
    assert made.id in problem.message
    assert written() == before


def test_places_that_a_job_publishes_to_are_among_what_rules_speak_of(steps, check):
    made = deny(steps, resource="output_path", pattern="s3://secret/*")
    ann = steps.user("ann", "researcher")
    for bucket, verdict in (("secret", "no"), ("open", "yes")):
        found = check(ann, published(f"s3://{bucket}/a"))
        rules = next(step for step in found.steps if step.step == "rules")
        told = [(each.field, made.id in each.message) for each in rules.problems]
        assert (found.verdict, rules.verdict) == (verdict, verdict)
        assert told == ([("training.publish.0", True)] if verdict == "no" else [])


def test_the_answer_is_what_happens(steps, check):
    ask_first(steps, condition="jobs_per_day_over", amount=1)
    ann = steps.user("ann", "researcher")
    for expected, state in (("yes", "queued"), ("needs_approval", "awaiting_approval")):
        assert check(ann, document()).verdict == expected
        assert steps.job(steps.submit(actor=ann)).state == state

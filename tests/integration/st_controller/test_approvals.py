"""Approvals: what waits for a person's word is started by nothing else."""

from datetime import timedelta

import pytest
from controller_steps import document
from sqlalchemy import func, select

from st_controller.domain.policy.reach import Owner, Reach
from st_controller.errors import Conflict, IllegalMove, InvalidRequest, NotFound, NotPermitted
from st_controller.services import (
    explaining,
    job_arrays,
    jobs,
    queue_overview,
    steering,
    submission,
    topics,
)
from st_controller.services.drafts import Rules
from st_controller.services.live_queue import LiveQueue
from st_controller.services.moves import move_job
from st_controller.services.policy import approval_rules, approvals, book
from st_controller.store.schema import Approval, CustomRole, PriceRow, QuotaCounter, QuotaRow
from st_shared.ids import new_id
from st_shared.protocol.policy_approvals import ApprovalRuleRequest, Decision
from st_shared.protocol.resources import JobArrayRequest
from st_shared.protocol.states import JobState
from st_shared.spec.job import Priority

YES, NO = Decision(decision="approve"), Decision(decision="reject", reason="too dear")


@pytest.fixture
def rule(steps):
    """Makes a rule as the admin; without arguments every job of a researcher waits for a lead."""

    def make(actor=None, **fields):
        given = {"name": "all", "condition": "role", "pattern": "researcher", **fields}
        with steps.db.write() as tx:
            return approval_rules.create(tx, actor or steps.admin, ApprovalRuleRequest(**given))

    return make


@pytest.fixture
def people(steps):
    """A researcher, two leads of their team, and a lead of another one."""
    return {
        "ann": steps.user("ann", "researcher"),
        "lea": steps.user("lea", "lead"),
        "leo": steps.user("leo", "lead"),
        "far": steps.user("far", "lead", "default", "elsewhere"),
    }


def decide(steps, actor, ref, said=YES):
    with steps.db.write() as tx:
        return approvals.decide(tx, actor, ref, said)


def retry(steps, actor, job_id):
    with steps.db.write() as tx:
        return steering.retry(tx, actor, job_id, Rules()).state


def approval_of(steps, actor, ref):
    with steps.db.read() as session:
        return approvals.get(session, actor, ref, steps.clock())


def test_an_approved_job_is_queued_and_starts(steps, rule, people):
    rule(name="leads decide")
    job_id = steps.submit(actor=people["ann"])
    job = steps.job(job_id)
    assert (job.state, job.queued_at) == ("awaiting_approval", None)
    assert job.reason["code"] == "awaiting_approval"
    assert "Awaiting approval by the role lead" in job.reason["message"]
    assert "leads decide: its user is a researcher" in job.reason["message"]
    steps.join()
    assert steps.place() == 0
    view = decide(steps, people["lea"], job_id)
    assert (view.state, view.decisions[0].user) == ("approved", "lea")
    assert steps.place() == 1
    assert [entry.action for entry in steps.audit_of(view.id)] == ["approval.approved"]
    assert [entry.action for entry in steps.audit_of(job_id)][:2] == ["job.submitted", "job.queued"]


def test_a_rejected_job_ends_with_what_was_said(steps, rule, people):
    rule()
    job_id = steps.submit(actor=people["ann"])
    decide(steps, people["lea"], job_id, NO)
    job = steps.job(job_id)
    assert (job.state, job.reason["message"]) == ("rejected", "Rejected by lea: too dear")
    with pytest.raises(Conflict) as refused:
        retry(steps, people["ann"], job_id)
    assert refused.value.code == "not_retryable"


@pytest.mark.parametrize("role", ["lead", "admin"])
def test_nobody_decides_on_their_own_job(steps, rule, role):
    rule(pattern=role)
    actor = steps.user("own", role, deny=["job.bypass.approval"])
    job_id = steps.submit(actor=actor)
    with pytest.raises(NotPermitted) as refused:
        decide(steps, actor, job_id)
    assert refused.value.code == "own_job"
    assert not approval_of(steps, actor, job_id).may_decide
    assert approval_of(steps, steps.admin, job_id).may_decide


def test_whoever_tries_a_job_again_does_not_approve_it(steps, rule, people):
    job_id = steps.submit(actor=people["ann"])
    steps.cancel(job_id)
    rule()
    helper = steps.user("hal", "lead", allow=["job.cancel.all"])
    assert retry(steps, helper, job_id) == "awaiting_approval"
    with pytest.raises(NotPermitted) as refused:
        decide(steps, helper, job_id)
    assert refused.value.code == "own_job"
    decide(steps, people["lea"], job_id)
    assert steps.job(job_id).state == "queued"


def test_an_approver_needs_reach_permission_and_rank(steps, rule, people):
    rule(approver="admin")
    job_id = steps.submit(actor=people["ann"])
    with pytest.raises(NotFound):
        decide(steps, people["far"], job_id)
    stranger = steps.user("eve", "lead", "other")
    with pytest.raises(NotFound):
        decide(steps, stranger, job_id)
    with pytest.raises(NotPermitted) as refused:
        decide(steps, people["lea"], job_id)
    assert refused.value.code == "rank_too_low"
    colleague = steps.user("cas", "researcher")
    with pytest.raises(NotFound):
        decide(steps, colleague, job_id)
    decide(steps, steps.admin, job_id)
    assert steps.job(job_id).state == "queued"


def test_all_rules_that_match_count_and_not_the_first(steps, rule, people):
    rule(name="cheap", priority=100, approver="lead", quorum=1, expires_after=7200)
    rule(name="careful", condition="family", pattern="pixel*", quorum=2, expires_after=3600)
    rule(name="strict", condition="slot_hours_over", amount=1, pattern=None, approver="admin")
    job_id = steps.submit(actor=people["ann"])
    view = approval_of(steps, people["ann"], job_id)
    assert (view.approver, view.quorum) == ("admin", 2)
    assert view.expires_at - view.created_at == timedelta(hours=1)
    assert [sentence.split(":")[0] for sentence in view.reasons] == ["cheap", "careful", "strict"]


def test_a_quorum_needs_different_people(steps, rule, people):
    rule(quorum=2)
    job_id = steps.submit(actor=people["ann"])
    decide(steps, people["lea"], job_id)
    assert "(1 of 2 have agreed)" in steps.job(job_id).reason["message"]
    (*_, told) = steps.events(topics.JOBS)
    assert topics.owner_in(told.body) == Owner(people["ann"].user_id, "default", "default")
    with pytest.raises(Conflict) as refused:
        decide(steps, people["lea"], job_id)
    assert refused.value.code == "already_said"
    steps.join()
    assert steps.place() == 0
    decide(steps, people["leo"], job_id)
    assert steps.place() == 1


def test_two_approvers_at_once_are_both_counted(steps, rule, people, together):
    rule(quorum=2)
    job_id = steps.submit(actor=people["ann"])
    together(lambda name: decide(steps, people[name], job_id), ["lea", "leo"])
    assert steps.job(job_id).state == "queued"


def test_of_a_yes_and_a_no_at_once_one_wins(steps, rule, people, together):
    rule()
    job_id = steps.submit(actor=people["ann"])

    def say(ask):
        name, said = ask
        try:
            return decide(steps, people[name], job_id, said).state
        except Conflict as refused:
            return refused.code

    answers = together(say, [("lea", YES), ("leo", NO)])
    assert answers.count("already_decided") == 1
    assert steps.job(job_id).state in {"queued", "rejected"}
    assert steps.job(job_id).state.replace("queued", "approved") in answers


def test_what_nobody_decides_is_rejected_by_the_sweep(steps, rule, people):
    rule(expires_after=3600)
    job_id = steps.submit(actor=people["ann"])
    steps.clock.advance(3599)
    steps.sweep()
    assert steps.job(job_id).state == "awaiting_approval"
    steps.clock.advance(1)
    with pytest.raises(Conflict) as late:
        decide(steps, people["lea"], job_id)
    assert late.value.code == "approval_expired"
    steps.sweep()
    assert (steps.job(job_id).state, steps.job(job_id).reason["code"]) == (
        "rejected",
        "approval_expired",
    )
    assert approval_of(steps, people["ann"], job_id).state == "expired"


def test_a_sweep_ends_all_that_is_late(steps, rule, people, monkeypatch):
    rule(expires_after=60)
    ids = [steps.submit(f"j{number}", actor=people["ann"]) for number in range(5)]
    monkeypatch.setattr(approvals, "MOST_EXPIRED", 2)
    steps.clock.advance(60)
    steps.sweep()
    assert {steps.job(job_id).state for job_id in ids} == {"rejected"}


@pytest.fixture
def waits(steps, rule, people):
    """A job that waits for approval, beside a worker that is free."""
    rule()
    steps.join(slots=4)
    return steps.submit(actor=people["ann"])


def test_no_priority_starts_it(steps, people, waits):
    with steps.db.write() as tx:
        steering.override(tx, steps.admin, waits, 50)
        steering.change_class(tx, people["ann"], waits, Priority.LOW)
    assert steps.place() == 0
    assert steps.job(waits).state == "awaiting_approval"


def test_no_retry_starts_it(steps, people, waits):
    with pytest.raises(Conflict):
        retry(steps, people["ann"], waits)
    steps.cancel(waits)
    assert approval_of(steps, people["ann"], waits).state == "cancelled"
    assert retry(steps, people["ann"], waits) == "awaiting_approval"
    assert steps.place() == 0
    decide(steps, people["lea"], waits)
    assert steps.place() == 1


@pytest.fixture
def limit(steps):
    """Sets a quota, or a price where only an amount is given."""

    def put(amount, **quota):
        with steps.db.write() as tx:
            if quota:
                row = QuotaRow(id=new_id("quo"), path="default", amount=amount, role="", **quota)
                tx.session.add(row)
                tx.session.add(
                    QuotaCounter(
                        path="default", kind=row.kind, period="", used=0, held=0, made_at=tx.now
                    )
                )
            else:
                tx.session.add(
                    PriceRow(
                        id=new_id("pri"), accelerator="*", provider="*", micros=amount,
                        since=tx.now,
                    )
                )  # fmt: skip
            book.changed(tx)

    return put


def test_what_a_quota_asks_to_be_approved_is_not_started_by_a_retry(steps, limit, people):
    limit(0, kind="slot_hours_monthly", action="require_approval")
    steps.join()
    job_id = steps.submit(actor=people["ann"])
    assert "slot_hours_monthly" in steps.job(job_id).reason["message"]
    steps.cancel(job_id)
    assert retry(steps, people["ann"], job_id) == "awaiting_approval"
    assert steps.place() == 0
    decide(steps, people["lea"], job_id)
    steps.cancel(job_id)
    assert retry(steps, people["ann"], job_id) == "queued"  # they have agreed to this very job


def test_what_may_cost_more_than_a_rule_allows_waits(steps, rule, limit, people):
    limit(10_000_000)  # 10 an hour, so at most 240 for a day
    rule(condition="cost_over", amount=50_000_000, pattern=None)
    dear = steps.submit(actor=people["ann"])
    assert "may cost 240.00, over 50.00" in steps.job(dear).reason["message"]
    cheap = steps.submit(actor=people["ann"], time_limit="1h")
    assert steps.job(cheap).state == "queued"


def test_a_retry_of_what_was_approved_asks_nobody_again(steps, people, waits):
    decide(steps, people["lea"], waits)
    steps.cancel(waits)
    assert retry(steps, people["ann"], waits) == "queued"


def test_no_end_of_a_parent_starts_it(steps, rule, people):
    worker = steps.join(slots=4)
    parent = steps.submit("parent", actor=people["ann"])
    rule()
    child = steps.submit("child", actor=people["ann"], after=[parent])
    assert steps.job(child).state == "awaiting_approval"
    assert steps.place() == 1
    attempt = steps.offered(worker)
    steps.claim(worker, attempt)
    steps.run(worker, attempt)
    steps.finish(worker, attempt)
    assert steps.job(parent).state == "succeeded"
    assert steps.job(child).open_parents == 0
    assert steps.job(child).reason["code"] == "awaiting_approval"
    assert steps.place() == 0
    decide(steps, people["lea"], child)
    assert steps.place() == 1


def test_an_approved_child_still_waits_for_its_parent(steps, rule, people):
    parent = steps.submit("parent", actor=people["ann"])
    rule()
    child = steps.submit("child", actor=people["ann"], after=[parent])
    decide(steps, people["lea"], child)
    assert (steps.job(child).state, steps.job(child).reason["code"]) == ("queued", "dependency")


def test_a_child_of_a_rejected_parent_is_cancelled_with_its_approval(steps, rule, people):
    rule()
    parent = steps.submit("parent", actor=people["ann"])
    child = steps.submit("child", actor=people["ann"], after=[parent])
    decide(steps, people["lea"], parent, NO)
    assert steps.job(child).state == "cancelled"
    assert approval_of(steps, people["ann"], child).state == "cancelled"


def test_no_array_starts_it(steps, rule, people):
    rule()
    asked = JobArrayRequest(spec={"noop": {}}, name="a", list=[{"noop.seconds": n} for n in (1, 2)])
    with steps.db.write() as tx:
        drafts = job_arrays.check(people["ann"], asked, Rules())
        array, _, _ = job_arrays.submit(tx, people["ann"], asked, drafts)
    steps.join(slots=4)
    assert steps.place() == 0
    with steps.db.write() as tx:
        job_arrays.cap(tx, people["ann"], array.id, 2)
        assert job_arrays.counts(tx.session, [array.id])[array.id] == {"awaiting_approval": 2}
    assert steps.place() == 0
    with steps.db.write() as tx:
        job_arrays.cancel(tx, people["ann"], array.id)
        states = tx.session.execute(select(Approval.state, func.count()).group_by(Approval.state))
        assert [tuple(row) for row in states] == [("cancelled", 2)]


def test_no_scheduler_knows_it(steps, people, waits):
    queue = LiveQueue()
    with steps.db.read() as session:
        scheduler = queue.load(session, steps.clock())
        assert scheduler.waiting(waits) is None
        job = jobs.get_job(session, people["ann"], waits)
        told = explaining.explain(session, queue, people["ann"], job, steps.clock())
        overview = queue_overview.overview(session, queue, steps.admin, steps.clock())
    assert told.state == "awaiting_approval"
    assert told.reason.message.startswith("Awaiting approval by the role lead or a higher one")
    assert (told.place, told.starts_at) == (None, None)
    assert overview.held == {"approval": 1}


def test_nothing_but_the_table_moves_it(steps, waits):
    for state in (JobState.ASSIGNED, JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED):
        with pytest.raises(IllegalMove), steps.db.write() as tx:
            move_job(tx, jobs.get_job(tx.session, steps.admin, waits), state, "test")


def test_a_first_job_is_one_until_something_was_let_through(steps, rule, people):
    ann = people["ann"]
    rule(condition="first_job", pattern=None, exempt_roles=["admin"])
    batch = submission.check_batch(ann, [document("one"), document("two")], Rules())
    with steps.db.write() as tx:
        members, _ = submission.enqueue_batch(tx, ann, batch)
    ids = [member.job_id for member in members]
    assert {steps.job(job_id).state for job_id in ids} == {"awaiting_approval"}
    assert steps.job(steps.submit(actor=ann)).state == "awaiting_approval"
    steps.cancel(ids[1])
    assert steps.job(steps.submit(actor=ann)).state == "awaiting_approval"
    decide(steps, people["lea"], ids[0])
    assert steps.job(steps.submit(actor=ann)).state == "queued"


def test_jobs_of_a_day_are_counted_within_a_batch_too(steps, rule, people):
    ann = people["ann"]
    rule(condition="jobs_per_day_over", amount=2, pattern=None)
    first = steps.submit("first", actor=ann)
    batch = submission.check_batch(ann, [document("two"), document("three")], Rules())
    with steps.db.write() as tx:
        members, _ = submission.enqueue_batch(tx, ann, batch)
    states = [steps.job(job_id).state for job_id in (first, *(m.job_id for m in members))]
    assert states == ["queued", "queued", "awaiting_approval"]
    steps.clock.advance(86_400)
    assert steps.job(steps.submit("next day", actor=ann)).state == "queued"


def test_asking_for_an_accelerator_by_name_needs_a_word_and_not_asking_does_not_get_it(
    steps, rule, people
):
    rule(condition="accelerator", pattern="cpu*", exempt_users=["leo"])
    by_name = steps.submit(actor=people["ann"], resources={"accelerator": "cpu|a100"})
    assert steps.job(by_name).state == "awaiting_approval"
    broad = steps.submit(actor=people["ann"])
    assert steps.job(broad).state == "queued"
    steps.join(slots=4)
    assert steps.place() == 0  # all that there is are cpus
    exempt = steps.submit(actor=people["leo"], resources={"accelerator": "cpu"})
    assert steps.place() == 1
    assert steps.job(exempt).state == "assigned"


def test_who_may_bypass_asks_nobody(steps, rule):
    rule()
    trusted = steps.user("tru", "researcher", allow=["job.bypass.approval"])
    assert steps.job(steps.submit(actor=trusted)).state == "queued"


def test_a_lead_cannot_edit_a_rule_that_binds_them(steps, rule, people):
    binds = rule(condition="family", pattern="*")
    wanted = ApprovalRuleRequest(name="soft", condition="family", pattern="none")
    for attempt in (
        lambda tx: approval_rules.remove(tx, people["lea"], binds.id),
        lambda tx: approval_rules.replace(tx, people["lea"], binds.id, wanted),
        lambda tx: approval_rules.create(tx, people["lea"], wanted),
    ):
        with pytest.raises(NotPermitted) as refused, steps.db.write() as tx:
            attempt(tx)
        assert refused.value.code == "rule_not_yours"


def test_a_keeper_of_an_organisation_changes_rules_of_those_below_alone(steps, rule):
    with steps.db.write() as tx:
        tx.session.add(
            CustomRole(
                slug="keeper", name="Keeper", permissions=["admin.approve"], rank=60,
                reach=Reach.ORG.word, created_at=tx.now,
            )
        )  # fmt: skip
    kim = steps.user("kim", "keeper")
    mine = rule(actor=kim, org="default")
    for fields in (
        {"org": None},
        {"org": "default", "condition": "family", "pattern": "*"},
        {"org": "default", "condition": "family", "pattern": "*", "exempt_users": ["kim"]},
        {"org": "default", "pattern": "keeper"},
    ):
        with pytest.raises(NotPermitted):
            rule(actor=kim, **fields)
    wider = ApprovalRuleRequest(name="all", org="default", condition="family", pattern="*")
    with pytest.raises(NotPermitted), steps.db.write() as tx:
        approval_rules.replace(tx, kim, mine.id, wider)
    assert [entry.action for entry in steps.audit_of(mine.id)] == ["approval_rule.made"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"approver": "boss"}, "approver"), ({"exempt_roles": ["boss"]}, "exempt_roles.0"),
     ({"exempt_users": ["nobody"]}, "exempt_users.0"), ({"pattern": "boss"}, "pattern"),
     ({"org": "nowhere"}, "org")],
)  # fmt: skip
def test_a_rule_that_names_nobody_is_refused(rule, fields, field):
    with pytest.raises(InvalidRequest) as refused:
        rule(**fields)
    assert [error.field for error in refused.value.errors] == [field]


def test_lists_show_ones_own_and_what_one_may_decide(steps, rule, people):
    rule()
    bob = steps.user("bob", "researcher")
    one, two = steps.submit("one", actor=people["ann"]), steps.submit("two", actor=bob)

    def seen(actor):
        with steps.db.read() as session:
            page = approvals.list_approvals(session, actor, steps.clock(), state="pending")
        return {view.job_id: view.may_decide for view in page.items}

    assert seen(people["ann"]) == {one: False}
    assert seen(people["lea"]) == {one: True, two: True}
    assert seen(people["far"]) == {}
    assert seen(steps.user("eve", "lead", "other")) == {}

"""Jobs that bypass quotas: who may, what still holds for them, and that they are counted."""

import pytest
from purse import ORG, Purse

from st_controller.errors import NotPermitted, QuotaExceeded
from st_controller.services import steering, submission
from st_controller.services.drafts import Rules
from st_controller.services.policy import checking
from st_shared.protocol.states import JobState, Outcome

pytestmark = pytest.mark.embedded


@pytest.fixture
def purse(steps) -> Purse:
    return Purse(steps)


@pytest.fixture
def dear(purse) -> Purse:
    """Slots cost 6 an hour, and the organisation has 1.2 a month."""
    purse.price("6")
    purse.quota(ORG, "cost_monthly", "1.2")
    return purse


def submit(steps, **fields):
    return steps.submit(**{"expected_time": "30m", **fields})


def test_whoever_asks_for_it_and_may_passes_what_blocks_and_is_counted(steps, dear):
    with pytest.raises(QuotaExceeded):
        submit(steps)  # the permission alone does nothing
    job = submit(steps, bypass_quota=True)
    assert dear.money() == (0, 3)
    dear.agrees()
    assert "job.quota_bypassed" in [entry.action for entry in steps.audit_of(job)]
    with pytest.raises(QuotaExceeded, match="0 left"):
        submit(steps, expected_time="1m")


def test_it_needs_the_permission_and_saves_nobody_an_approval(steps, purse):
    purse.quota(ORG, "submissions_per_day", 0)
    purse.quota(ORG, "submissions_per_hour", 0, "require_approval")
    with pytest.raises(NotPermitted) as refused:
        submit(steps, actor=steps.user("one", "researcher"), bypass_quota=True)
    assert [each.field for each in refused.value.errors] == ["bypass_quota"]
    two = steps.user("two", "researcher", allow=["job.bypass.quota"])
    job = steps.job(submit(steps, actor=two, bypass_quota=True))
    assert job.state == JobState.AWAITING_APPROVAL


def test_of_a_batch_those_alone_pass_that_ask(steps, purse):
    purse.quota(ORG, "submissions_per_day", 1)
    one = {"name": "n", "noop": {}}
    beyond = {**one, "bypass_quota": True}

    def enqueue(*bodies):
        batch = submission.check_batch(steps.admin, bodies, submission.NOTHING_MORE)
        with steps.db.write() as tx:
            submission.enqueue_batch(tx, steps.admin, batch)

    with pytest.raises(QuotaExceeded):
        enqueue(beyond, one, one)
    enqueue(beyond, one, beyond)
    assert purse.counter(ORG, "submissions_per_day") == (3, 0)


def test_it_goes_on_past_the_hard_cap_and_is_retried_beyond_it(steps, dear):
    worker = steps.join()
    job = submit(steps, expected_time="10m", bypass_quota=True)
    attempt = steps.claimed(worker)
    steps.run(worker, attempt)
    for _ in range(4):
        steps.clock.advance(600)
        steps.beat(worker, attempt)
        dear.accrue()
    assert steps.attempt(attempt).stop is None
    assert dear.money()[0] == 4
    steps.cancel(job)
    steps.finish(worker, attempt, Outcome.CANCELLED)
    lead = steps.user("lee", "lead", allow=["job.cancel.all"])
    with pytest.raises(NotPermitted, match="bypass_quota"), steps.db.write() as tx:
        steering.retry(tx, lead, job, Rules())
    with steps.db.write() as tx:
        steering.retry(tx, steps.admin, job, Rules())
    assert dear.money() == (4, 1)
    dear.agrees()


def test_a_check_says_what_is_passed(steps, dear):
    body = {"name": "n", "noop": {}, "expected_time": "24h", "bypass_quota": True}
    draft = submission.check(steps.admin, body, Rules())
    with steps.db.read() as session:
        found = checking.check(session, steps.admin, draft, Rules(), steps.clock())
    (quotas,) = [step for step in found.steps if step.step == "quotas"]
    assert quotas.verdict == "yes"
    assert any("cost_monthly of default is 1.2" in note for note in quotas.notes)

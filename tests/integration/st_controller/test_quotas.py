"""Quotas: what is held, used and given back, whatever becomes of a job."""

from datetime import timedelta

import pytest
from purse import ORG, TEAM, Purse
from sqlalchemy import event, select, update

from st_controller.dispatch.accounting import Books
from st_controller.domain.policy.reach import Owner
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted, QuotaExceeded
from st_controller.services import (
    datasets,
    explaining,
    queue_rules,
    steering,
    submission,
    tenants,
    topics,
)
from st_controller.services.drafts import Rules
from st_controller.services.policy import quota_book, quota_setting, quota_usage
from st_controller.store.schema import Job, Organisation, QuotaCounter
from st_shared.protocol.queue import ShareRequest
from st_shared.protocol.quotas import QuotaRequest
from st_shared.protocol.resources import ArchiveFile, DatasetRequest
from st_shared.protocol.states import FailureKind, JobState, Outcome
from st_shared.protocol.tenancy import OrgChange

HOUR = 3600


@pytest.fixture
def purse(steps) -> Purse:
    return Purse(steps)


@pytest.fixture
def dear(purse) -> Purse:
    """Slots cost 6 an hour, and the organisation has 10 a month."""
    purse.price("6")
    purse.quota(ORG, "cost_monthly", "10")
    return purse


def submit(steps, **fields):
    return steps.submit(**{"expected_time": "30m", **fields})


class TestAdmission:
    def test_what_a_job_will_cost_is_held_and_nothing_beyond_the_limit(self, steps, dear):
        submit(steps, expected_time="1h")
        assert dear.money() == (0, 6)
        with pytest.raises(QuotaExceeded) as refused:
            submit(steps, expected_time="1h")
        assert "4 left, 6 asked for" in refused.value.detail
        submit(steps, expected_time="40m")
        assert dear.money() == (0, 10)
        dear.agrees()

    @pytest.mark.embedded
    def test_limits_are_pooled_over_members_and_not_each_members_own(self, steps, dear):
        one, two = steps.user("one", "researcher"), steps.user("two", "researcher")
        submit(steps, actor=one, expected_time="1h")
        with pytest.raises(QuotaExceeded):
            submit(steps, actor=two, expected_time="1h")

    @pytest.mark.embedded
    def test_a_users_own_limit_binds_nobody_else(self, steps, purse):
        one, two = steps.user("one", "researcher"), steps.user("two", "researcher")
        purse.quota(f"{TEAM}/one", "submissions_per_day", 1)
        submit(steps, actor=one)
        submit(steps, actor=two)
        with pytest.raises(QuotaExceeded, match="submissions_per_day of default/default/one is 1"):
            submit(steps, actor=one)

    @pytest.mark.embedded
    def test_the_least_of_all_limits_counts(self, steps, purse):
        purse.quota("all", "submissions_per_hour", 3)
        purse.quota(ORG, "submissions_per_hour", 2)
        purse.quota(TEAM, "submissions_per_hour", 1)
        submit(steps)
        with pytest.raises(QuotaExceeded, match="of default/default is 1"):
            submit(steps)
        assert purse.counter("all", "submissions_per_hour") == (1, 0)  # undone with the rest

    @pytest.mark.embedded
    def test_without_a_declared_time_the_learned_counts_else_the_limit(self, steps, dear):
        worker = steps.join()
        steps.submit("sweep-1", time_limit="90m")
        assert dear.money() == (0, 9)
        attempt = steps.claimed(worker)
        steps.run(worker, attempt)
        steps.clock.advance(600)
        steps.finish(worker, attempt)
        assert dear.money() == (1, 0)
        steps.clock.advance(61)
        steps.submit("sweep-2", time_limit="90m")
        assert dear.money() == (1, 1)

    @pytest.mark.embedded
    def test_a_batch_stands_and_falls_together(self, steps, dear):
        bodies = [{"name": "n", "noop": {}, "expected_time": "1h"}] * 2
        rules = submission.NOTHING_MORE
        batch = submission.check_batch(steps.admin, bodies, rules)
        with pytest.raises(QuotaExceeded), steps.db.write() as tx:
            submission.enqueue_batch(tx, steps.admin, batch)
        assert dear.money() == (0, 0)
        dear.agrees()

    @pytest.mark.embedded
    def test_slot_hours_and_nodes_are_counted(self, steps, purse):
        purse.quota(ORG, "slot_hours_monthly", "8")
        submit(steps, expected_time="1h", resources={"slots": 2, "nodes": 3})
        assert purse.counter(ORG, "slot_hours_monthly") == (0, 6 * HOUR * 1000)
        with pytest.raises(QuotaExceeded, match="2 slot-hours left, 3 slot-hours asked for"):
            submit(steps, expected_time="1h", resources={"slots": 3})

    @pytest.mark.embedded
    def test_a_request_that_may_get_a_dear_slot_is_held_for_one(self, steps, dear):
        dear.price("20", "h100*")
        with pytest.raises(QuotaExceeded):
            submit(steps, expected_time="1h")
        submit(steps, expected_time="1h", resources={"accelerator": "cpu"})
        assert dear.money() == (0, 6)

    @pytest.mark.embedded
    def test_warnings_come_back_and_the_crossing_is_told_once(self, steps, purse):
        purse.quota(ORG, "submissions_per_day", 1, "warn")
        purse.quota(ORG, "submissions_per_day", 2, "notify")
        told = []
        for _ in range(4):
            draft = submission.check(steps.admin, {"name": "n", "noop": {}}, Rules())
            with steps.db.write() as tx:
                told.append([w.code for w in submission.enqueue(tx, steps.admin, draft).warnings])
        assert told == [[], ["quota_warning"], ["quota_warning"], ["quota_warning"]]
        said = [event.body["message"] for event in steps.events("quotas")]
        assert [message[:54] for message in said] == [
            "The quota submissions_per_day of default is 1: 2 used.",
            "The quota submissions_per_day of default is 2: 3 used.",
        ]

    @pytest.mark.embedded
    def test_one_that_needs_approval_waits_for_it_and_is_not_placed(self, steps, purse):
        steps.join()
        purse.quota(ORG, "submissions_per_day", 0, "require_approval")
        job = steps.job(submit(steps, actor=steps.user("one", "researcher")))
        assert job.state == JobState.AWAITING_APPROVAL
        assert steps.place() == 0

    def test_storage_that_is_used_up_lets_nothing_in(self, steps, purse, running):
        worker, attempt, _ = running
        steps.store(worker, attempt, "output/a", b"x" * 100, "output")
        purse.quota(ORG, "storage_bytes", 100)
        with pytest.raises(QuotaExceeded, match="storage_bytes of default is 100: 100 used"):
            submit(steps)


class TestEnds:
    """Whatever ends a job, its hold is given back, and what it used stands."""

    @pytest.fixture
    def begun(self, steps, dear):
        worker = steps.join()
        job = submit(steps)
        attempt = steps.claimed(worker)
        steps.run(worker, attempt)
        steps.clock.advance(600)
        return worker, attempt, job

    def test_success(self, steps, dear, begun):
        worker, attempt, job = begun
        steps.finish(worker, attempt)
        assert dear.money() == (1, 0)
        assert dear.charged() == [("2026-01-01", 1_000_000, 600_000)]
        assert steps.attempt(attempt).booked
        assert steps.job(job).held_micros == 0
        dear.agrees()

    @pytest.mark.embedded
    def test_a_failure_that_is_tried_again_keeps_the_rest(self, steps, dear, begun):
        worker, attempt, job = begun
        steps.finish(worker, attempt, Outcome.FAILED, failure=FailureKind.CRASHED)
        assert dear.money() == (1, 2)
        steps.cancel(job)
        assert dear.money() == (1, 0)
        dear.agrees()

    @pytest.mark.embedded
    def test_a_loss_is_charged_up_to_the_last_heartbeat(self, steps, dear, begun):
        worker, attempt, _ = begun
        steps.beat(worker, attempt)
        steps.wait(100)
        assert steps.attempt(attempt).outcome == Outcome.LOST
        assert dear.money() == (1, 2)
        dear.agrees()

    @pytest.mark.embedded
    def test_a_preemption_keeps_the_rest(self, steps, dear, begun):
        worker, attempt, _ = begun
        steps.finish(worker, attempt, Outcome.PREEMPTED)
        assert dear.money() == (1, 2)
        dear.agrees()

    @pytest.mark.embedded
    def test_an_offer_that_nobody_claimed_costs_nothing(self, steps, dear):
        steps.join()
        job = submit(steps)
        steps.place()
        steps.wait(60)
        assert steps.job(job).state == JobState.QUEUED
        assert dear.money() == (0, 3)
        dear.accrue()
        assert dear.money() == (0, 3)
        dear.agrees()

    def test_children_that_are_cancelled_with_their_parent(self, steps, dear, begun):
        worker, attempt, job = begun
        submit(steps, after=[job])
        assert dear.money() == (0, 6)
        steps.cancel(job)
        steps.finish(worker, attempt, Outcome.CANCELLED)
        assert dear.money() == (1, 0)
        dear.agrees()

    @pytest.mark.embedded
    def test_slots_that_were_given_back_while_it_uploads_cost_no_more(self, steps, dear, begun):
        worker, attempt, _ = begun
        steps.ship(worker, attempt, state="uploading")
        steps.clock.advance(20)
        dear.accrue()
        steps.clock.advance(4)
        steps.finish(worker, attempt)
        assert dear.money() == (1, 0)
        dear.agrees()

    def test_a_retry_holds_again_or_is_refused(self, steps, dear, begun):
        worker, attempt, job = begun
        steps.finish(worker, attempt, Outcome.FAILED, failure=FailureKind.BAD_DATA)
        with steps.db.write() as tx:
            steering.retry(tx, steps.admin, job, Rules())
        assert dear.money() == (1, 3)
        steps.cancel(job)
        dear.quota(ORG, "cost_monthly", "3.5")
        with pytest.raises(QuotaExceeded), steps.db.write() as tx:
            steering.retry(tx, steps.admin, job, Rules())
        assert steps.job(job).state == JobState.CANCELLED
        dear.agrees()

    @pytest.mark.embedded
    def test_the_price_is_that_of_the_beginning(self, steps, dear, begun):
        worker, attempt, _ = begun
        dear.price("600")
        steps.clock.advance(600)
        steps.finish(worker, attempt)
        assert dear.money() == (2, 0)


def gang(steps):
    one, two = steps.join("one"), steps.join("two")
    job = submit(steps, resources={"nodes": 2})
    steps.place()
    pairs = [(each, steps.offered(each)) for each in (one, two)]
    return job, pairs


class TestGangs:
    def test_all_members_are_charged_until_the_last_has_ended(self, steps, dear):
        _, pairs = gang(steps)
        for worker, attempt in pairs:
            steps.claim(worker, attempt)
            steps.clock.advance(5)
        for worker, attempt in pairs:
            steps.run(worker, attempt)
        steps.clock.advance(595)
        for worker, attempt in pairs:
            steps.finish(worker, attempt)
            steps.clock.advance(10)
        begun_together, until = 5, 5 + 5 + 595 + 10
        seconds = until - begun_together
        assert dear.counter(ORG, "cost_monthly") == (2 * (6_000_000 * seconds // 3600), 0)
        dear.agrees()

    @pytest.mark.embedded
    def test_one_that_never_met_costs_nothing(self, steps, dear):
        job, pairs = gang(steps)
        steps.claim(*pairs[0])
        steps.wait(60, alive=[worker for worker, _ in pairs])
        dear.accrue()
        assert dear.money()[0] == 0
        assert steps.job(job).state == JobState.QUEUED
        dear.agrees()


class TestAccrual:
    @pytest.mark.embedded
    def test_what_runs_is_counted_as_it_goes(self, steps, running, dear):
        del running  # it was submitted before the quota, and counts as well
        steps.clock.advance(600)
        dear.accrue()
        dear.accrue()
        assert dear.money()[0] == 0  # it began when slots cost nothing
        dear.agrees()

    @pytest.mark.embedded
    def test_use_is_moved_from_held_to_used_and_renewed(self, steps, dear):
        worker = steps.join()
        job = submit(steps, expected_time="10m")
        attempt = steps.claimed(worker)
        for _ in range(3):
            steps.run(worker, attempt)
            steps.clock.advance(200)
            steps.beat(worker, attempt)
            dear.accrue()
            dear.agrees()
        used, held = dear.money()
        assert used == 1
        assert held == 1.1  # the margin and a stride
        assert steps.job(job).held_micros == 1_100_000

    def test_at_the_hard_cap_a_job_stops_at_a_checkpoint_and_says_why(self, steps, dear):
        worker = steps.join()
        dear.quota(ORG, "cost_monthly", "1.2")
        job = submit(steps, expected_time="10m")
        attempt = steps.claimed(worker)
        steps.run(worker, attempt)
        steps.clock.advance(660)
        steps.beat(worker, attempt)
        dear.accrue()
        assert steps.attempt(attempt).stop is None  # a minute is left, which is held
        steps.clock.advance(10)
        steps.beat(worker, attempt)
        dear.accrue()
        assert steps.attempt(attempt).stop == "preempt"
        (*_, told) = steps.events(topics.JOBS)
        assert topics.owner_in(told.body) == Owner(steps.admin.user_id, "default", "default")
        steps.clock.advance(10)
        steps.finish(worker, attempt, Outcome.PREEMPTED)
        ended = steps.job(job)
        assert ended.state == JobState.CANCELLED
        assert ended.reason["code"] == "quota_exhausted"
        assert "cost_monthly of default is 1.2" in ended.reason["message"]
        assert "begins anew at" in ended.reason["message"]
        assert dear.money()[1] == 0
        dear.agrees()

    @pytest.mark.embedded
    def test_use_beyond_midnight_belongs_to_both_days(self, steps, purse):
        purse.price("6")
        purse.quota(ORG, "cost_daily", "100")
        worker = steps.join()
        now = steps.clock()
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        steps.clock.advance((midnight - now).total_seconds() - 1200)
        steps.beat(worker)
        submit(steps)
        attempt = steps.claimed(worker)
        steps.run(worker, attempt)
        steps.clock.advance(1800)
        steps.beat(worker, attempt)
        purse.accrue()
        assert [micros for _, micros, _ in purse.charged()] == [2_000_000, 1_000_000]
        assert purse.money(kind="cost_daily")[0] == 1
        purse.agrees()

    @pytest.mark.embedded
    def test_what_is_held_stays_held_in_the_next_month(self, steps, dear):
        submit(steps, expected_time="1h")
        steps.clock.advance(40 * 86_400)
        with pytest.raises(QuotaExceeded):
            submit(steps, expected_time="1h")
        submit(steps, expected_time="30m")
        assert dear.money() == (0, 9)
        dear.agrees()

    def test_without_quotas_the_leader_writes_charges_all_the_same(self, steps, purse):
        purse.price("6")
        worker = steps.join()
        for _ in range(3):
            steps.submit()
            attempt = steps.claimed(worker)
            steps.clock.advance(20)
            steps.finish(worker, attempt)
        purse.accrue()
        assert [row[1] for row in purse.charged()] == [33_333] * 3
        purse.quota(ORG, "cost_monthly", "1")
        assert purse.money() == (0.099999, 0)


class TestSetting:
    def test_a_quota_counts_what_was_there_before_it(self, steps, purse):
        purse.price("6")
        worker = steps.join()
        submit(steps)
        attempt = steps.claimed(worker)
        steps.clock.advance(600)
        submit(steps)
        steps.finish(worker, attempt)
        submit(steps, expected_time="10m")
        purse.quota(ORG, "cost_monthly", "100")
        purse.quota(ORG, "submissions_per_day", "3")
        assert purse.money() == (1, 4)
        assert purse.counter(ORG, "submissions_per_day") == (3, 0)
        with pytest.raises(QuotaExceeded):
            submit(steps)

    @pytest.mark.embedded
    def test_more_than_a_thousand_jobs_are_counted(self, steps, purse):
        bodies = [{"name": "n", "noop": {}, "expected_time": "24h"}] * 600
        batch = submission.check_batch(steps.admin, bodies, submission.NOTHING_MORE)
        for _ in range(2):
            with steps.db.write() as tx:
                submission.enqueue_batch(tx, steps.admin, batch)
        purse.quota(ORG, "submissions_per_day", "1200")
        purse.quota(ORG, "slot_hours_monthly", "40000")
        assert purse.counter(ORG, "submissions_per_day") == (1200, 0)
        assert purse.counter(ORG, "slot_hours_monthly")[1] == 1200 * 24 * HOUR * 1000
        with pytest.raises(QuotaExceeded):
            submit(steps)

    @pytest.mark.embedded
    def test_no_limit_lies_above_that_of_a_node_it_belongs_to(self, steps, purse):
        purse.quota(ORG, "cost_monthly", "100")
        with pytest.raises(Conflict, match="default has 100") as refused:
            purse.quota(TEAM, "cost_monthly", "100.5")
        assert refused.value.code == "above_ceiling"
        purse.quota(TEAM, "cost_monthly", "80")
        with pytest.raises(Conflict, match="default/default \\(80\\)"):
            purse.quota(ORG, "cost_monthly", "79")
        purse.quota(ORG, "cost_monthly", "80")

    @pytest.mark.embedded
    def test_what_is_wrong_is_named(self, steps, purse):
        with pytest.raises(InvalidRequest, match="whole number"):
            purse.quota(ORG, "running_jobs", "1.5")
        with pytest.raises(InvalidRequest, match="write `org`"):
            purse.quota("a b", "running_jobs", "1")
        with pytest.raises(NotFound, match="no user 'nobody'"):
            purse.quota(f"{TEAM}/nobody", "running_jobs", "1")

    @pytest.mark.embedded
    def test_one_that_is_removed_holds_no_more(self, steps, dear):
        with steps.db.read() as session:
            (quota,) = quota_book.read(session).quotas
        submit(steps, expected_time="90m")
        with steps.db.write() as tx:
            quota_setting.remove_quota(tx, steps.admin, quota)
        job = submit(steps, expected_time="90m")
        assert steps.job(job).held_micros is None

    @pytest.mark.embedded
    @pytest.mark.parametrize(
        ("kind", "said"),
        [
            ("running_jobs", "default/default has 2 of 2 jobs running."),
            ("running_slots", "default/default has 2 of 2 slots in use."),
        ],
    )
    def test_running_jobs_wait_for_their_limit_and_say_so(self, steps, purse, kind, said):
        steps.join(slots=4)
        purse.quota(TEAM, kind, 2)
        for _ in range(3):
            submit(steps)
        assert steps.place() == 2
        with steps.db.read() as session:
            waiting = session.scalars(select(Job).where(Job.state == "queued")).one()
            (why,) = explaining.reasons(
                session, steps.rounds._queue, [waiting], steps.clock()
            ).values()
        assert waiting.held_micros is None
        assert (why.code, why.message) == ("limit", said)

    @pytest.mark.embedded
    @pytest.mark.parametrize(("quota", "share"), [(1, 3), (3, 1)])
    def test_of_a_quota_and_a_limit_of_the_queue_the_lower_counts(self, steps, purse, quota, share):
        steps.join(slots=4)
        purse.quota(TEAM, "running_jobs", quota)
        with steps.db.write() as tx:
            queue_rules.set_share(tx, steps.admin, TEAM, ShareRequest(max_jobs=share))
        for _ in range(3):
            submit(steps)
        assert steps.place() == 1


@pytest.mark.embedded
class TestReach:
    """Nobody sets a limit that binds themselves, nor sees what others used beyond their reach."""

    @pytest.fixture
    def lead(self, steps):
        return steps.user("lead", "lead")

    def set_as(self, steps, actor, path, permission="team.manage.quotas"):
        request = QuotaRequest(path=path, kind="running_jobs", amount=1)
        with steps.db.write() as tx:
            return quota_setting.set_quota(tx, actor, request, permission)

    def test_a_lead_sets_those_of_the_members_of_their_teams(self, steps, lead):
        steps.user("member", "researcher")
        assert self.set_as(steps, lead, f"{TEAM}/member").path == f"{TEAM}/member"

    @pytest.mark.parametrize("path", [f"{TEAM}/lead", TEAM, ORG, "default/other/x"])
    def test_a_lead_sets_no_other(self, steps, lead, path):
        steps.user("x", "researcher", "default", "other")
        with pytest.raises(NotPermitted):
            self.set_as(steps, lead, path)

    @pytest.mark.parametrize("path", ["all", "foreign", "foreign/team"])
    def test_what_is_beyond_the_organisation_is_not_there(self, steps, lead, path):
        steps.user("y", "researcher", "foreign", "team")
        with pytest.raises(NotFound):
            self.set_as(steps, lead, path)

    def test_everybody_sees_their_own_and_what_is_above_it(self, steps, purse):
        one = steps.user("one", "researcher")
        for path in ("all", ORG, TEAM, f"{TEAM}/one", f"{TEAM}/root"):
            purse.quota(path, "submissions_per_day", 5)
        with steps.db.read() as session:
            seen = quota_usage.usage(session, one, None, steps.clock())
            assert [quota.path for quota in seen.quotas] == [ORG, TEAM, f"{TEAM}/one"]
            assert [q.path for q in quota_usage.list_quotas(session, one)] == [
                ORG, TEAM, f"{TEAM}/one",
            ]  # fmt: skip
            everything = quota_usage.usage(session, steps.admin, f"{TEAM}/one", steps.clock())
            assert [quota.path for quota in everything.quotas][:2] == ["all", ORG]
            for path in (f"{TEAM}/root", "all", "foreign"):
                with pytest.raises(NotFound):
                    quota_usage.usage(session, one, path, steps.clock())

    def test_a_refusal_by_the_limit_of_all_tells_no_amounts(self, steps, purse):
        purse.quota("all", "submissions_per_day", 0)
        with pytest.raises(QuotaExceeded) as refused:
            submit(steps)
        assert "too little left" in refused.value.detail
        assert "used" not in refused.value.detail


@pytest.mark.embedded
class TestForecast:
    def test_it_says_when_nothing_is_left_at_todays_pace(self, steps, purse):
        purse.price("6")
        purse.quota(ORG, "cost_daily", "24")
        worker = steps.join()
        submit(steps, expected_time="1h")
        attempt = steps.claimed(worker)
        steps.clock.advance(2 * HOUR)
        purse.accrue()
        steps.finish(worker, attempt)
        with steps.db.read() as session:
            (seen,) = quota_usage.usage(session, steps.admin, ORG, steps.clock()).quotas
        assert (seen.used, seen.held, seen.left) == (12, 0, 12)
        assert seen.runs_out_at == steps.clock() + timedelta(hours=2)


@pytest.mark.embedded
class TestCalendar:
    def test_days_and_months_are_those_of_the_organisation(self, steps, purse):
        with steps.db.write() as tx:
            tx.session.get(Organisation, ORG).time_zone = "Pacific/Kiritimati"  # UTC+14
        purse.quota(ORG, "submissions_per_day", 1)
        purse.quota("all", "submissions_per_day", 3)
        steps.clock.advance(9 * HOUR)
        submit(steps)
        steps.clock.advance(HOUR)  # midnight there, not in UTC
        submit(steps)
        with pytest.raises(QuotaExceeded, match="begins anew at 2026-01-03T00:00"):
            submit(steps)
        assert purse.counter("all", "submissions_per_day") == (2, 0)

    def test_another_time_zone_of_an_organisation_holds_at_once(self, steps, purse):
        purse.quota(ORG, "submissions_per_day", 1)
        steps.clock.advance(9 * HOUR)
        submit(steps)
        steps.clock.advance(2 * HOUR)
        with steps.db.write() as tx:
            tenants.change_org(tx, steps.admin, ORG, OrgChange(time_zone="Pacific/Kiritimati"))
        assert purse.counter(ORG, "submissions_per_day") == (0, 0)
        submit(steps)
        purse.agrees()


def test_counting_costs_so_many_statements(steps, dear):
    """One for each counter at a submission; at an end a few more, and none where nothing counts."""
    words: list[str] = []
    event.listen(
        steps.db.engine, "before_cursor_execute", lambda *told: words.append(told[2].split()[0])
    )

    def spoken(action) -> int:
        words.clear()
        action()
        return len([word for word in words if word not in {"SAVEPOINT", "BEGIN"}])

    worker = steps.join(slots=4)
    counted, free = [], []
    for found in (counted, free):
        for _ in range(2):  # at the first some things are learned
            job = {"name": "n", "noop": {}, "expected_time": "1m"}
            submitted = spoken(lambda job=job: steps.submit_as(job))
            attempt = steps.claimed(worker)
            finished = spoken(lambda attempt=attempt: steps.finish(worker, attempt))
        found += [submitted, finished]
        with steps.db.read() as session:
            quotas = quota_book.read(session).quotas
        for quota in quotas:
            with steps.db.write() as tx:
                quota_setting.remove_quota(tx, steps.admin, quota)
    assert counted[0] - free[0] == 1  # the counter
    assert counted[1] - free[1] <= 6  # version, hold twice, attempt, charge, counter


@pytest.mark.embedded
def test_the_leader_finds_who_submitted_while_a_quota_was_set(steps, dear):
    job = submit(steps)
    with steps.db.write() as tx:  # as if it had not known of the quota
        tx.session.execute(update(QuotaCounter).values(held=0))
        tx.session.execute(update(Job).values(held_micros=None, held_slot_ms=None))
    Books(steps.db).keep()
    assert steps.job(job).held_micros == 3_000_000
    assert dear.money() == (0, 3)


@pytest.mark.embedded
def test_the_leader_counts_what_is_stored(steps, purse, running):
    worker, attempt, _ = running
    purse.quota(ORG, "storage_bytes", 1000)
    books = Books(steps.db)
    steps.store(worker, attempt, "output/a", b"x" * 100, "output")
    steps.store(worker, attempt, "output/b", b"y" * 50, "output")
    steps.clock.advance(61)
    books.keep()
    assert purse.counter(ORG, "storage_bytes") == (150, 0)


@pytest.mark.embedded
def test_datasets_count_as_stored_for_those_who_pushed_them(steps, purse):
    ann = steps.user("ann", "researcher", "default", "vision")
    for path in (ORG, "default/vision", "default/vision/ann", TEAM, "all"):
        purse.quota(path, "storage_bytes", 1000)
    for name, sizes in (("one", (300, 200)), ("same", (300, 200))):
        files = [ArchiveFile(size=size, sha256=f"{size:064x}") for size in sizes]
        request = DatasetRequest(name=name, digest="ab" * 32, samples=1, archives=files)
        with steps.db.write() as tx:
            datasets.announce(tx, ann, request)
        with steps.db.write() as tx:
            datasets.complete(tx, ann, name, request.digest, [])
    steps.clock.advance(61)
    Books(steps.db).keep()
    for path in (ORG, "default/vision", "default/vision/ann", "all"):
        assert purse.counter(path, "storage_bytes") == (500, 0), path
    assert purse.counter(TEAM, "storage_bytes") == (0, 0)
    large = [ArchiveFile(size=501, sha256="cd" * 32)]
    request = DatasetRequest(name="two", digest="cd" * 32, samples=1, archives=large)
    with pytest.raises(QuotaExceeded, match="has too little left"), steps.db.write() as tx:
        datasets.announce(tx, ann, request)

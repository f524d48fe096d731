"""Offers, claims and leases: whose work an attempt is, until when, and what follows."""

from datetime import timedelta

import pytest
from controller_steps import log_line

from st_controller.domain.workers import Patience
from st_controller.errors import SequenceGap, StaleLease
from st_controller.services import workers
from st_controller.store.schema import Worker
from st_shared.protocol.states import (
    AttemptState,
    FailureKind,
    JobState,
    Outcome,
    WorkerState,
)
from st_shared.protocol.worker import StopOrder

PATIENCE = Patience()


class TestOffers:
    def test_an_offer_that_nobody_claims_is_withdrawn_and_uses_no_try(self, steps):
        job_id, worker_id = steps.submit(), steps.join()
        steps.place()
        attempt_id = steps.offered(worker_id)
        steps.wait(PATIENCE.offer_ttl - 0.001, alive=[worker_id])
        assert steps.job(job_id).state == JobState.ASSIGNED
        steps.wait(0.001, alive=[worker_id])
        job = steps.job(job_id)
        assert (job.state, job.tries_used, job.attempts) == (JobState.QUEUED, 0, 1)
        assert steps.attempt(attempt_id).outcome == Outcome.EXPIRED
        assert steps.place() == 1  # the slot is free again
        assert steps.offered(worker_id) != attempt_id

    def test_offers_may_expire_more_often_than_a_job_has_tries(self, steps):
        job_id, worker_id = steps.submit(retry={"max_attempts": 1}), steps.join()
        for _ in range(3):
            assert steps.place() == 1
            steps.wait(PATIENCE.offer_ttl, alive=[worker_id])
        assert steps.job(job_id).state == JobState.QUEUED
        assert steps.job(job_id).tries_used == 0

    @pytest.mark.parametrize("joins_first", ["dead", "alive"])
    def test_a_dead_worker_beside_an_idle_one_holds_no_job_up_for_longer_than_offers_last(
        self, steps, joins_first
    ):
        names = sorted(("dead", "alive"), key=lambda name: name != joins_first)
        found = {name: steps.join(name) for name in names}
        steps.submit()
        steps.place()
        if not steps.offers(found["alive"]):
            steps.wait(PATIENCE.offer_ttl, alive=[found["alive"]])
            steps.place()
        assert steps.offers(found["alive"])

    def test_a_claim_can_be_repeated_by_the_worker_that_made_it(self, steps):
        steps.submit()
        worker_id = steps.join()
        attempt_id = steps.claimed(worker_id)
        before = steps.attempt(attempt_id).lease_expires_at
        steps.clock.advance(5)
        assert steps.claim(worker_id, attempt_id) == 1
        assert steps.attempt(attempt_id).lease_expires_at == before

    def test_a_claim_can_be_repeated_until_it_runs(self, steps):
        """Signed URLs run out while datasets are fetched."""
        steps.submit()
        worker_id = steps.join()
        attempt_id = steps.claimed(worker_id)
        steps.ship(worker_id, attempt_id, state=AttemptState.PREPARING)
        before = steps.attempt(attempt_id).lease_expires_at
        assert steps.claim(worker_id, attempt_id) == 1
        after = steps.attempt(attempt_id)
        assert (after.state, after.lease_expires_at) == (AttemptState.PREPARING, before)
        with pytest.raises(StaleLease):
            steps.claim(steps.join("other"), attempt_id)
        steps.run(worker_id, attempt_id)
        with pytest.raises(StaleLease):
            steps.claim(worker_id, attempt_id)

    def test_an_offer_is_for_one_worker_alone(self, steps):
        steps.submit()
        chosen = steps.join("chosen")
        steps.place()
        other = steps.join("other")
        attempt_id = steps.offered(chosen)
        with pytest.raises(StaleLease) as refused:
            steps.claim(other, attempt_id)
        assert (refused.value.code, refused.value.status) == ("offer_gone", 409)
        steps.claim(chosen, attempt_id)
        with pytest.raises(StaleLease):
            steps.claim(other, attempt_id)

    def test_an_expired_offer_cannot_be_claimed_even_before_it_is_swept(self, steps):
        steps.submit()
        worker_id = steps.join()
        steps.place()
        attempt_id = steps.offered(worker_id)
        steps.clock.advance(PATIENCE.offer_ttl)
        with pytest.raises(StaleLease) as refused:
            steps.claim(worker_id, attempt_id)
        assert refused.value.code == "offer_gone"

    def test_there_is_no_claim_of_what_was_never_offered(self, steps):
        with pytest.raises(StaleLease):
            steps.claim(steps.join(), "att_00000000000000000000000000")


class TestLoss:
    def test_a_job_whose_worker_falls_silent_goes_back_and_a_try_is_used(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.wait(PATIENCE.silent_after - 0.001)
        assert steps.worker(worker_id).observed == WorkerState.ONLINE
        steps.wait(0.001)
        assert steps.worker(worker_id).observed == WorkerState.SILENT
        steps.wait(PATIENCE.lease_ttl - PATIENCE.silent_after - 0.001)
        assert steps.job(job_id).state == JobState.RUNNING
        steps.wait(0.001)
        assert steps.worker(worker_id).observed == WorkerState.GONE
        job = steps.job(job_id)
        assert (job.state, job.tries_used, job.reason["code"]) == ("queued", 1, "lost")
        assert steps.attempt(attempt_id).outcome == Outcome.LOST

    def test_every_call_with_a_lost_lease_is_refused(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.wait(PATIENCE.lease_ttl)
        steps.beat(worker_id)
        again = steps.claimed(worker_id)
        assert steps.attempt(again).epoch == 2
        late = (
            lambda: steps.ship(worker_id, attempt_id),
            lambda: steps.announce(worker_id, attempt_id),
            lambda: steps.complete(worker_id, attempt_id, []),
            lambda: steps.finish(worker_id, attempt_id),
            lambda: steps.ship(worker_id, again, epoch=1),
            lambda: steps.finish(worker_id, again, epoch=3),
        )
        for call in late:
            with pytest.raises(StaleLease) as refused:
                call()
            assert (refused.value.code, refused.value.status) == ("stale_lease", 409)
        steps.finish(worker_id, again, epoch=2)
        assert steps.job(job_id).state == JobState.SUCCEEDED

    def test_a_lease_is_of_no_use_to_another_worker(self, steps, running):
        _, attempt_id, _ = running
        with pytest.raises(StaleLease):
            steps.ship(steps.join("other"), attempt_id)

    def test_a_job_that_loses_every_worker_fails_after_its_last_try(self, steps):
        job_id, worker_id = steps.submit(retry={"max_attempts": 2}), steps.join()
        for epoch in (1, 2):
            assert steps.job(job_id).state == JobState.QUEUED
            steps.beat(worker_id)
            attempt_id = steps.claimed(worker_id)
            steps.run(worker_id, attempt_id, epoch=epoch)
            steps.wait(PATIENCE.lease_ttl)
        job = steps.job(job_id)
        assert (job.state, job.tries_used) == (JobState.FAILED, 2)
        assert job.reason["code"] == "lost"
        assert "all 2 attempts" in job.reason["hint"]
        assert job.finished_at == steps.clock()

    def test_a_heartbeat_renews_what_it_names_and_nothing_else(self, steps):
        named, unnamed = steps.submit("named"), steps.submit("unnamed")
        worker_id = steps.join(slots=2)
        steps.place()
        with steps.db.read() as session:
            offers = workers.sync(session, session.get_one(Worker, worker_id)).offers
        attempts = {offer.job_id: offer.attempt_id for offer in offers}
        for attempt_id in attempts.values():
            steps.claim(worker_id, attempt_id)
        steps.clock.advance(20)
        assert steps.beat(worker_id, attempts[named]).stops == []
        steps.wait(5)
        assert steps.job(unnamed).state == JobState.QUEUED
        assert steps.job(named).state == JobState.ASSIGNED
        steps.wait(20)
        assert steps.job(named).state == JobState.QUEUED

    def test_a_heartbeat_learns_which_of_its_leases_are_void(self, steps, running):
        worker_id, attempt_id, _ = running
        unknown = "att_00000000000000000000000000"
        stale = [StopOrder(attempt_id=unknown, reason="stale")]
        assert steps.beat(worker_id, attempt_id, unknown).stops == stale
        assert steps.beat(worker_id, attempt_id, epoch=2).stops[0].reason == "stale"
        other = steps.join("other")
        assert steps.beat(other, attempt_id).stops[0].reason == "stale"

    def test_more_workers_than_a_page_may_fall_silent_at_once(self, steps):
        ids = [steps.join(f"w{number}") for number in range(105)]
        for number in range(105):
            steps.submit(f"job {number}")
        assert steps.place() == 105
        for worker_id in ids:
            steps.claim(worker_id, steps.offered(worker_id))
        steps.wait(PATIENCE.lease_ttl)
        with steps.db.read() as session:
            seen = {worker.observed for worker in workers.list_workers(session)}
            held = workers.live_attempts(session, ids)
        assert seen == {WorkerState.GONE}
        assert not any(held.values())

    def test_a_silent_worker_is_offered_nothing_until_it_is_heard(self, steps):
        steps.submit()
        worker_id = steps.join()
        steps.wait(PATIENCE.silent_after)
        assert steps.place() == 0
        steps.beat(worker_id)
        assert steps.worker(worker_id).observed == WorkerState.ONLINE
        assert steps.place() == 1

    def test_after_an_outage_of_the_controller_no_lease_is_lost(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.clock.advance(3600)
        lead = steps.rounds.seek("ctl_successor", alone=True)
        steps.rounds.begin(lead, timedelta(seconds=PATIENCE.lease_ttl))
        steps.rounds.sweep(lead)
        assert steps.worker(worker_id).observed == WorkerState.ONLINE
        assert steps.job(job_id).state == JobState.RUNNING
        assert steps.ship(worker_id, attempt_id) == 0
        steps.clock.advance(PATIENCE.lease_ttl)
        steps.rounds.sweep(lead)
        assert steps.job(job_id).state == JobState.QUEUED

    def test_an_outage_shortens_no_lease(self, steps, running):
        _, attempt_id, _ = running
        before = steps.attempt(attempt_id).lease_expires_at
        steps.rounds.begin(steps.lead, timedelta(seconds=1))
        assert steps.attempt(attempt_id).lease_expires_at == before


class TestFinish:
    def test_success_ends_the_job(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.finish(worker_id, attempt_id)
        job = steps.job(job_id)
        assert (job.state, job.reason, job.tries_used) == (JobState.SUCCEEDED, None, 0)
        assert steps.attempt(attempt_id).lease_expires_at is None

    def test_a_finish_whose_answer_was_lost_can_be_repeated(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.CRASHED)
        version = steps.job(job_id).version
        steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.CRASHED)
        assert (steps.job(job_id).version, steps.job(job_id).tries_used) == (version, 1)
        with pytest.raises(StaleLease):
            steps.finish(worker_id, attempt_id, Outcome.SUCCEEDED)
        with pytest.raises(StaleLease):
            steps.finish(steps.join("other"), attempt_id, Outcome.FAILED)
        with pytest.raises(StaleLease):
            steps.finish(worker_id, attempt_id, Outcome.FAILED, epoch=2)

    def test_a_job_does_not_end_while_journal_lines_are_missing(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.ship(worker_id, attempt_id, [log_line(seq) for seq in (1, 2)])
        with pytest.raises(SequenceGap) as refused:
            steps.finish(worker_id, attempt_id, last=3)
        assert (refused.value.status, refused.value.code) == (409, "sequence_gap")
        assert refused.value.problem().acked_seq == 2
        assert steps.job(job_id).state == JobState.RUNNING
        steps.ship(worker_id, attempt_id, [log_line(3)])
        steps.finish(worker_id, attempt_id, last=3)
        assert steps.job(job_id).state == JobState.SUCCEEDED

    def test_a_failure_that_may_pass_is_tried_again_and_one_that_may_not_is_final(self, steps):
        passing, final = steps.submit("passing"), steps.submit("final")
        worker_id = steps.join()
        attempt_id = steps.claimed(worker_id)
        assert steps.attempt(attempt_id).job_id == passing
        steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.OUT_OF_MEMORY)
        assert (steps.job(passing).state, steps.job(passing).tries_used) == ("queued", 1)
        steps.cancel(passing)
        attempt_id = steps.claimed(worker_id)
        steps.finish(worker_id, attempt_id, Outcome.FAILED, failure=FailureKind.BAD_DATA)
        assert steps.job(final).state == JobState.FAILED
        assert steps.job(final).reason["code"] == "bad_data"

    def test_a_preempted_attempt_uses_no_try(self, steps, running):
        worker_id, attempt_id, job_id = running
        steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
        assert (steps.job(job_id).state, steps.job(job_id).tries_used) == ("queued", 0)

    def test_reports_may_skip_states_and_never_go_back(self, steps):
        job_id, worker_id = steps.submit(), steps.join()
        attempt_id = steps.claimed(worker_id)
        for state, known in (
            (AttemptState.PREPARING, AttemptState.PREPARING),
            (AttemptState.UPLOADING, AttemptState.UPLOADING),
            (AttemptState.RUNNING, AttemptState.UPLOADING),
        ):
            steps.ship(worker_id, attempt_id, state=state)
            assert steps.attempt(attempt_id).state == known
        assert steps.job(job_id).state == JobState.RUNNING

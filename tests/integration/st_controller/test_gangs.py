"""Attempts on several workers: all or nothing at the start, and at the end."""

from datetime import timedelta

import pytest
from controller_steps import log_line, progress_line
from sqlalchemy import select

from st_controller.dispatch.rounds import Rounds
from st_controller.errors import InvalidRequest, StaleLease
from st_controller.services import finishing, gangs, leases, offers
from st_controller.services.journal_reading import JournalReader
from st_controller.services.views import attempt_views
from st_controller.store.schema import Attempt
from st_shared.protocol.states import AttemptState, FailureKind, Outcome, WorkerDesired
from st_shared.protocol.worker import FinishRequest, Meeting


class Gang:
    """A job on two workers, and the parts of its newest attempt."""

    def __init__(self, steps, nodes=2, spare=0):
        self.steps = steps
        self.workers = [steps.join(f"w{number}") for number in range(nodes + spare)]
        self.job_id = steps.submit(resources={"nodes": nodes}, retry={"max_attempts": 2})
        steps.place()

    @property
    def members(self):
        """Of the newest attempt, the leader first."""
        with self.steps.db.read() as session:
            query = select(Attempt).where(Attempt.job_id == self.job_id)
            found = list(session.scalars(query.order_by(Attempt.number, Attempt.node)))
        return [each for each in found if each.number == found[-1].number]

    def claim(self, *nodes):
        for member in self.members:
            if not nodes or member.node in nodes:
                self.steps.claim(member.worker_id, member.id)

    def run(self):
        for member in self.members:
            self.steps.run(member.worker_id, member.id, epoch=member.epoch)

    def finish(self, node, outcome=Outcome.SUCCEEDED, failure=None):
        member = self.members[node]
        self.steps.finish(member.worker_id, member.id, outcome, epoch=member.epoch, failure=failure)

    def meet(self, node, host=None, port=None):
        member = self.members[node]
        with self.steps.db.write() as tx:
            held, _ = leases.held(tx, member.worker_id, member.id, member.epoch)
            return gangs.meet(tx, held, Meeting(epoch=member.epoch, host=host, port=port))

    def beat(self, *nodes, leaving=False):
        for member in self.members:
            if member.node in nodes:
                self.steps.beat(member.worker_id, member.id, epoch=member.epoch, leaving=leaving)

    @property
    def state(self):
        return self.steps.job(self.job_id).state

    @property
    def outcomes(self):
        return [each.outcome for each in self.members]

    def told(self, node):
        """Reasons of the orders to stop that a member was sent, in order."""
        member = self.members[node]
        sent = self.steps.events(f"worker:{member.worker_id}")
        return [
            event.body["reason"]
            for event in sent
            if event.kind == "stop" and event.body["attempt_id"] == member.id
        ]


@pytest.fixture
def gang(steps):
    return Gang(steps)


@pytest.fixture
def training(gang):
    gang.claim()
    gang.run()
    assert gang.state == "running"
    return gang


def test_each_worker_is_offered_its_part_under_one_number_and_epoch(gang):
    members = gang.members
    assert [each.node for each in members] == [0, 1]
    assert {each.worker_id for each in members} == set(gang.workers)
    assert {(each.number, each.epoch, each.nodes) for each in members} == {(1, 1, 2)}
    assert gang.steps.job(gang.job_id).attempts == 1


def test_a_member_that_only_uploads_gives_no_slots_back_before_the_others(training):
    steps, member = training.steps, training.members[0]
    steps.ship(member.worker_id, member.id, state=AttemptState.UPLOADING)
    assert steps.job(training.job_id).reason is None
    assert training.members[0].released_at is None
    steps.submit("next")
    assert steps.place() == 0


def test_nothing_is_offered_while_a_worker_is_missing(steps):
    steps.join("alone")
    job_id = steps.submit(resources={"nodes": 2})
    assert steps.place() == 0
    assert steps.job(job_id).state == "queued"


def test_a_worker_that_goes_between_decision_and_write_leaves_no_part_offered(steps):
    first, second = steps.join("a"), steps.join("b")
    job_id = steps.submit(resources={"nodes": 2})
    rounds = Rounds(steps.db, steps.patience)
    with steps.db.read() as session:
        rounds._queue.load(session, steps.clock())
    steps.order(second, WorkerDesired.DRAINING)
    decisions = rounds._queue.decide(steps.clock(), 8)
    assert decisions
    assert rounds._make_true(steps.lead, decisions) == 0
    assert steps.job(job_id).state == "queued"
    with steps.db.read() as session:
        assert not session.scalars(select(Attempt)).all()
    assert first


def test_a_member_that_never_claims_withdraws_all_and_costs_no_try(gang):
    gang.claim(1)
    gang.steps.wait(gang.steps.patience.offer_ttl + 1, alive=gang.workers)
    assert gang.outcomes == [Outcome.EXPIRED, Outcome.EXPIRED]
    job = gang.steps.job(gang.job_id)
    assert (job.state, job.tries_used) == ("queued", 0)
    assert gang.told(1) == ["stale"]
    gang.steps.place()
    assert [each.number for each in gang.members] == [2, 2]


def test_a_claim_after_the_gang_was_withdrawn_is_refused(gang):
    late = gang.members[0]
    gang.claim(1)
    gang.steps.wait(gang.steps.patience.offer_ttl + 1, alive=gang.workers)
    with pytest.raises(StaleLease):
        gang.steps.claim(late.worker_id, late.id)


def test_members_meet_once_all_are_ready(gang):
    gang.claim()
    assert gang.meet(1).port is None
    place = gang.meet(0, "10.0.0.7", 29500)
    assert (place.host, place.port) == ("10.0.0.7", 29500)
    assert gang.meet(1) == place
    assert gang.meet(0, "10.0.0.7", 1) == place  # others may have gone there already


def test_the_leader_may_move_while_others_are_missing(gang):
    gang.claim()
    gang.meet(0, "10.0.0.7", 1)
    gang.meet(0, "10.0.0.7", 2)
    assert gang.meet(1).port == 2


def test_a_leader_that_does_not_say_where_it_is_is_refused(gang):
    gang.claim()
    with pytest.raises(InvalidRequest, match="host and port"):
        gang.meet(0)


def test_an_attempt_of_one_has_nobody_to_meet(steps, running):
    worker_id, attempt_id, _ = running
    with steps.db.write() as tx:
        held, _ = leases.held(tx, worker_id, attempt_id, 1)
        with pytest.raises(InvalidRequest, match="nobody to meet"):
            gangs.meet(tx, held, Meeting(epoch=1))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_job_is_over_when_the_leader_says_so_and_all_have_ended(training, order):
    training.finish(order[0])
    assert training.state == "running"
    training.finish(order[1])
    assert training.state == "succeeded"


def test_a_follower_that_is_lost_after_the_leaders_success_changes_nothing(training):
    training.finish(0)
    training.steps.wait(training.steps.patience.lease_ttl + 1)
    assert training.outcomes == [Outcome.SUCCEEDED, Outcome.LOST]
    assert training.state == "succeeded"


def test_a_leader_that_fails_after_a_followers_end_fails_the_attempt(training):
    training.finish(1)
    training.finish(0, Outcome.FAILED, FailureKind.CRASHED)
    assert training.state == "queued"
    assert training.steps.job(training.job_id).tries_used == 1


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("begun", [False, True])
def test_a_lost_member_stops_all_everywhere_at_once(gang, lost, begun):
    gang.claim()
    if begun:
        gang.run()
    kept = 1 - lost
    for _ in range(3):
        gang.steps.clock.advance(10)
        if gang.members[kept].state != AttemptState.FINISHED:
            gang.beat(kept)
        gang.steps.sweep()
    assert gang.outcomes == [Outcome.LOST, Outcome.LOST]
    job = gang.steps.job(gang.job_id)
    assert (job.state, job.tries_used) == ("queued", 1)
    assert gang.told(kept) == ["stale"]


def test_a_stale_member_is_refused_after_the_requeue(training):
    old = training.members[1]
    training.steps.wait(training.steps.patience.lease_ttl + 1, alive=training.workers)
    training.steps.place()
    assert training.members[0].number == 2
    for member in training.members:
        assert member.epoch == 2
    with pytest.raises(StaleLease):
        training.steps.ship(old.worker_id, old.id, [log_line(1)], epoch=1)
    with pytest.raises(StaleLease):
        training.steps.finish(old.worker_id, old.id, Outcome.SUCCEEDED, epoch=1)


def test_a_failed_member_lets_the_others_yield_and_its_cause_is_the_attempts(training):
    training.finish(1, Outcome.FAILED, FailureKind.PEER_LOST)
    assert training.told(0) == ["preempt"]
    assert training.state == "running"
    training.finish(0, Outcome.FAILED, FailureKind.OUT_OF_MEMORY)
    job = training.steps.job(training.job_id)
    assert (job.state, job.tries_used, job.reason["code"]) == ("queued", 1, "out_of_memory")


def leaving(training, node):
    """The agent of one member is told to leave, and says so before it stops its trainer."""
    training.beat(node, leaving=True)


def preempted(training, _node):
    with training.steps.db.write() as tx:
        offers.preempt(tx, training.job_id, "job_other")


def drained(training, node):
    worker = training.members[node].worker_id
    training.steps.order(worker, WorkerDesired.DRAINING, grace=timedelta(0))


def ended(training, node):
    training.finish(node, Outcome.PREEMPTED)


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("begin", [leaving, preempted, drained, ended])
def test_a_member_that_sees_another_go_first_is_preempted_too_and_costs_no_try(
    training, begin, missing
):
    begin(training, 1 - missing)
    training.finish(missing, Outcome.FAILED, FailureKind.PEER_LOST)
    training.finish(missing, Outcome.FAILED, FailureKind.PEER_LOST)  # its answer was lost
    if begin is not ended:
        training.finish(1 - missing, Outcome.PREEMPTED)
    assert training.outcomes == [Outcome.PREEMPTED, Outcome.PREEMPTED]
    assert [each.failure for each in training.members] == [None, None]
    job = training.steps.job(training.job_id)
    assert (job.state, job.tries_used, job.reason["code"]) == ("queued", 0, "preempted")
    assert "checkpoint" in job.reason["message"]


def test_a_link_that_breaks_between_members_costs_a_try(training):
    """Nobody left: whoever stops afterwards does so because of it."""
    training.finish(0, Outcome.FAILED, FailureKind.PEER_LOST)
    training.finish(1, Outcome.PREEMPTED)
    job = training.steps.job(training.job_id)
    assert (job.state, job.tries_used, job.reason["code"]) == ("queued", 1, "peer_lost")


def test_a_permanent_failure_of_one_member_ends_the_job(training):
    training.finish(0, Outcome.FAILED, FailureKind.NOT_FINITE)
    training.finish(1, Outcome.PREEMPTED)
    assert training.state == "failed"


def test_a_member_that_fails_before_the_others_came_withdraws_their_offers(gang):
    gang.claim(0)
    gang.finish(0, Outcome.FAILED, FailureKind.TRANSFER)
    assert gang.outcomes == [Outcome.FAILED, Outcome.EXPIRED]
    assert gang.steps.job(gang.job_id).reason["code"] == "transfer"


def test_cancelling_reaches_every_member(training):
    training.steps.cancel(training.job_id)
    assert [training.told(node) for node in (0, 1)] == [["cancel"], ["cancel"]]
    training.finish(1, Outcome.CANCELLED)
    assert training.state == "running"
    training.finish(0, Outcome.CANCELLED)
    assert training.state == "cancelled"


def test_cancelling_a_gang_that_is_claimed_in_part_ends_it_when_that_part_has_ended(gang):
    gang.claim(1)
    gang.steps.cancel(gang.job_id)
    assert gang.told(1) == ["cancel"]
    gang.finish(1, Outcome.CANCELLED)
    assert gang.state == "cancelled"


def test_cancelling_a_gang_that_nobody_has_claimed_ends_it_at_once(gang):
    gang.steps.cancel(gang.job_id)
    assert gang.state == "cancelled"


def test_preempting_reaches_every_member_and_costs_no_try(training):
    with training.steps.db.write() as tx:
        assert offers.preempt(tx, training.job_id, "job_other")
    assert [training.told(node) for node in (0, 1)] == [["preempt"], ["preempt"]]
    training.finish(1, Outcome.PREEMPTED)
    training.finish(0, Outcome.PREEMPTED)
    job = training.steps.job(training.job_id)
    assert (job.state, job.tries_used) == ("queued", 0)


def test_retiring_the_worker_of_one_member_makes_the_others_yield(training):
    training.steps.order(training.members[1].worker_id, WorkerDesired.RETIRED)
    assert training.told(0) == ["preempt"]
    training.finish(0, Outcome.FAILED, FailureKind.PEER_LOST)
    job = training.steps.job(training.job_id)
    assert (job.state, job.tries_used) == ("queued", 0)


def test_the_slots_of_all_members_are_taken_until_the_job_moves_on(training):
    training.finish(1)
    waiting = training.steps.submit("next")
    training.steps.place()
    # The scheduler holds a gang's slots together; none of them is given away in part.
    assert training.steps.job(waiting).state == "queued"
    training.finish(0)
    training.steps.place()
    assert training.steps.job(waiting).state == "assigned"


def test_a_new_leader_of_the_controllers_knows_every_slot_of_a_gang(training):
    waiting = training.steps.submit("next")
    rounds = Rounds(training.steps.db, training.steps.patience)
    lead = rounds.seek("ctl_test", alone=True)
    assert rounds.place(lead) == 0
    assert training.steps.job(waiting).state == "queued"


def test_lines_of_all_members_stand_in_one_journal_with_their_node(training):
    leader, follower = training.members
    ship = training.steps.ship
    assert ship(leader.worker_id, leader.id, [log_line(1, "a"), progress_line(2)]) == 2
    assert ship(follower.worker_id, follower.id, [log_line(1, "b")]) == 1
    assert ship(leader.worker_id, leader.id, [log_line(2, "again"), log_line(3, "c")]) == 3
    assert ship(follower.worker_id, follower.id, [log_line(1, "b"), log_line(2, "d")]) == 2
    reader = JournalReader(training.steps.db, training.steps.objects)
    lines = reader.read(training.job_id)
    assert [line.seq for line in lines] == [1, 2, 3, 4, 5]
    said = [line.body["message"] for line in lines if line.body["kind"] == "log"]
    assert said == ["a", "[node 1] b", "c", "[node 1] d"]


def test_usage_counts_the_slots_of_all_members(training):
    with training.steps.db.read() as session:
        slots = session.scalars(select(Attempt.slots)).all()
    assert sum(len(each) for each in slots) == 2
    assert training.steps.job(training.job_id).slots == 2


def test_an_operator_sees_the_members(training):
    with training.steps.db.read() as session:
        shown = attempt_views(session, training.job_id)
    assert [(each.node, each.nodes, each.number) for each in shown] == [(0, 2, 1), (1, 2, 1)]


@pytest.mark.parametrize(("lacks", "code"), [(0, "not_all_stored"), (1, None)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_member_that_decides_says_what_could_not_be_stored(training, order, lacks, code):
    for node in order:
        member = training.members[node]
        unstored = ["w.bin: the store refused it."] if node == lacks else []
        told = FinishRequest(epoch=1, outcome=Outcome.SUCCEEDED, last_seq=0, unstored=unstored)
        with training.steps.db.write() as tx:
            finishing.finish(tx, member.worker_id, member.id, told)
    reason = training.steps.job(training.job_id).reason
    assert (training.state, reason and reason["code"]) == ("succeeded", code)

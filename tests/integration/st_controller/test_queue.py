"""The queue as a whole: shares, limits, preemption, forecasts, and a leader that takes over."""

import threading
from datetime import timedelta

import pytest
from controller_steps import document

from st_controller.dispatch.rounds import Rounds
from st_controller.domain.policy.roles import Role
from st_controller.domain.scheduling.forecast import foretell
from st_controller.domain.scheduling.model import Level
from st_controller.errors import InvalidRequest
from st_controller.services import (
    explaining,
    queue_marks,
    queue_overview,
    queue_rules,
    steering,
    submission,
)
from st_controller.services.live_queue import LiveQueue, News
from st_controller.services.slot_prices import SlotPrices
from st_shared.protocol.queue import QueueRules, ShareRequest
from st_shared.protocol.states import AttemptState, JobState, Outcome

GRACE = timedelta(seconds=25)


def serve(steps, worker_id: str, count: int, seconds: float = 60.0) -> list[str]:
    """Names of the jobs that one slot serves one after the other."""
    order = []
    for _ in range(count):
        attempt_id = steps.claimed(worker_id)
        order.append(steps.job(steps.attempt(attempt_id).job_id).name)
        pass_time(steps, worker_id, attempt_id, seconds)
        steps.finish(worker_id, attempt_id)
    return order


def pass_time(steps, worker_id: str, attempt_id: str, seconds: float) -> None:
    """Let a worker train for so long."""
    while seconds > 0:
        steps.clock.advance(min(20.0, seconds))
        steps.beat(worker_id, attempt_id)
        seconds -= 20.0


def set_share(steps, path: str, **share) -> None:
    with steps.db.write() as tx:
        queue_rules.set_share(tx, steps.admin, path, ShareRequest(**share))


def explain(steps, job_id: str, queue: LiveQueue | None = None, actor=None):
    with steps.db.read() as session:
        job = steps.job(job_id)
        return explaining.explain(
            session, queue or LiveQueue(), actor or steps.admin, job, steps.clock()
        )


def overview(steps, actor=None):
    with steps.db.read() as session:
        return queue_overview.overview(session, LiveQueue(), actor or steps.admin, steps.clock())


def test_users_share_by_weight_whatever_they_queued_first(steps):
    ann, ben = steps.user("ann", Role.RESEARCHER), steps.user("ben", Role.RESEARCHER)
    set_share(steps, "default/default/ben", weight=2.0)
    for number in range(12):
        steps.submit(f"ann-{number}", actor=ann)
    for number in range(12):
        steps.submit(f"ben-{number}", actor=ben)
    worker_id = steps.join()

    order = serve(steps, worker_id, 12)

    assert sum(name.startswith("ben") for name in order) == 8


def test_usage_survives_the_leader_and_is_the_time_really_used(steps):
    ann, ben = steps.user("ann", Role.RESEARCHER), steps.user("ben", Role.RESEARCHER)
    for number in range(3):
        steps.submit(f"ann-{number}", actor=ann)
    worker_id = steps.join()
    serve(steps, worker_id, 1, 600.0)
    steps.place()  # writes usage down
    attempt_id = steps.claimed(worker_id)
    pass_time(steps, worker_id, attempt_id, 300.0)

    heir = LiveQueue()
    with steps.db.read() as session:
        usage = heir.load(session, steps.clock()).usage(steps.clock().timestamp())

    used, _ = usage["default/default/ann"]
    assert used == pytest.approx(900.0, rel=1e-3)
    assert usage["default"][0] == pytest.approx(used)
    steps.finish(worker_id, attempt_id)
    steps.submit("ben", actor=ben)
    fresh = Rounds(steps.db, steps.patience, LiveQueue())
    lead = fresh.seek("ctl_heir", alone=True)
    fresh.begin(lead, GRACE)
    steps.beat(worker_id)
    assert fresh.place(lead) == 1
    assert steps.job(steps.attempt(steps.offered(worker_id)).job_id).name == "ben"


@pytest.mark.parametrize("half_life", [3600.0, 36_000.0])
def test_use_is_halved_in_the_time_that_the_rules_say_by_whoever_leads(steps, half_life):
    with steps.db.write() as tx:
        queue_rules.set_rules(tx, steps.admin, QueueRules(half_life=half_life))
    queue = LiveQueue()
    steps.rounds = Rounds(steps.db, steps.patience, queue)
    steps.submit()
    worker_id = steps.join()
    serve(steps, worker_id, 1, 60.0)
    before = charged(steps, queue)
    steps.clock.advance(half_life)
    assert charged(steps, queue) == pytest.approx(tuple(used / 2 for used in before), rel=1e-3)
    assert before == pytest.approx((60.0, 60.0), rel=0.02)


def test_an_offer_that_nobody_claimed_costs_nothing(steps):
    steps.submit()
    worker_id = steps.join()
    steps.place()
    steps.wait(steps.patience.offer_ttl, alive=[worker_id])
    queue = LiveQueue()
    with steps.db.read() as session:
        queue.load(session, steps.clock())  # the record was made while the offer stood
    assert not any(used for used, _ in queue.scheduler.usage(steps.clock().timestamp()).values())


def charged(steps, queue: LiveQueue) -> tuple[float, float]:
    """Slot-seconds of everybody, by the queue that leads and by one that takes over now."""
    steps.rounds.place(steps.lead)
    with steps.db.read() as session:
        heir = LiveQueue().load(session, steps.clock()).usage(steps.clock().timestamp())
    led = queue.scheduler.usage(steps.clock().timestamp())
    return tuple(usage.get("", (0.0, 0.0))[0] for usage in (led, heir))


def test_an_attempt_that_uploads_is_charged_no_longer_whoever_leads(steps):
    queue = LiveQueue()
    steps.rounds = Rounds(steps.db, steps.patience, queue)
    steps.submit()
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)  # writes usage down
    steps.run(worker_id, attempt_id)
    pass_time(steps, worker_id, attempt_id, 20.0)
    steps.ship(worker_id, attempt_id, state=AttemptState.UPLOADING)
    steps.rounds.place(steps.lead)
    pass_time(steps, worker_id, attempt_id, 20.0)
    assert charged(steps, queue) == pytest.approx((20.0, 20.0), rel=1e-3)
    steps.finish(worker_id, attempt_id)
    assert charged(steps, queue) == pytest.approx((20.0, 20.0), rel=1e-3)
    released = steps.attempt(attempt_id).released_at
    assert steps.attempt(attempt_id).finished_at - released == timedelta(seconds=20)


def test_members_of_a_gang_are_charged_until_all_have_ended_whoever_leads(steps):
    queue = LiveQueue()
    steps.rounds = Rounds(steps.db, steps.patience, queue)
    first, second = steps.join("w1"), steps.join("w2")
    steps.submit(resources={"nodes": 2})
    members = {first: steps.claimed(first)}
    members[second] = steps.offered(second)
    steps.claim(second, members[second])
    follower = max(members, key=lambda worker: steps.attempt(members[worker]).node)
    (leader,) = members.keys() - {follower}
    for worker_id in (leader, follower):
        steps.run(worker_id, members[worker_id])
    steps.clock.advance(10.0)
    steps.finish(follower, members[follower])
    steps.clock.advance(5.0)
    assert charged(steps, queue) == pytest.approx((30.0, 30.0), rel=1e-3)
    steps.finish(leader, members[leader])
    steps.rounds.place(steps.lead)
    steps.clock.advance(5.0)
    assert charged(steps, queue) == pytest.approx((30.0, 30.0), rel=1e-3)


def test_slots_weigh_their_price(steps):
    job_id = steps.submit()
    worker_id = steps.join()
    rounds = Rounds(steps.db, steps.patience, LiveQueue(SlotPrices({"cpu": 0.25})))
    rounds.place(steps.lead)
    attempt = steps.attempt(steps.offered(worker_id))
    assert (attempt.job_id, attempt.price) == (job_id, 0.25)


def test_a_limit_gates_dispatch_and_is_named(steps):
    set_share(steps, "default/default/root", max_jobs=1)
    first, second = steps.submit("first"), steps.submit("second")
    worker_id = steps.join(slots=4)
    assert steps.place() == 1
    found = explain(steps, second)
    assert found.reason.code == "limit"
    assert "default/default/root has 1 of 1 jobs" in found.reason.message
    set_share(steps, "default/default/root", max_jobs=2)
    assert steps.place() == 1
    assert {steps.job(job).state for job in (first, second)} == {JobState.ASSIGNED}
    assert len(steps.audit_of("default/default/root")) == 2
    assert worker_id


def test_an_override_reorders_at_once(steps):
    steps.submit("critical", priority="critical")
    low = steps.submit("low", priority="low")
    with steps.db.write() as tx:
        steering.override(tx, steps.admin, low, 50)
    worker_id = steps.join()
    assert serve(steps, worker_id, 2) == ["low", "critical"]


def test_ageing_is_bounded_and_lifts_a_low_job_over_fresh_normal_ones(steps):
    low = steps.submit("low", priority="low")
    steps.clock.advance(2 * 3600 + 1)
    steps.submit("normal")
    worker_id = steps.join()
    found = explain(steps, low)
    assert (found.level.asked, found.level.reached) == (0, 20)
    assert serve(steps, worker_id, 2) == ["low", "normal"]
    steps.clock.advance(100 * 3600)
    again = steps.submit("patient", priority="low")
    steps.clock.advance(100 * 3600)
    assert explain(steps, again).level.reached == 40


def test_nobody_ages_before_they_could_be_served(steps):
    """Else whoever asks for tomorrow would come before all who ask for today."""
    with steps.db.write() as tx:
        queue_rules.set_rules(tx, steps.admin, QueueRules(ageing_interval=60))
    worker_id = steps.join()
    parent = steps.submit("parent")
    attempt_id = steps.claimed(worker_id)
    moment = (steps.clock() + timedelta(seconds=300)).isoformat()
    later = steps.submit("later", priority="low", not_before=moment)
    child = steps.submit("child", priority="low", after=[parent])

    pass_time(steps, worker_id, attempt_id, 300)
    steps.finish(worker_id, attempt_id)
    assert [explain(steps, each).level.reached for each in (later, child)] == [0, 0]
    steps.clock.advance(61)
    assert [explain(steps, each).level.reached for each in (later, child)] == [10, 10]


def test_an_urgent_job_preempts_and_the_victim_goes_on_later(steps):
    victim = steps.submit("victim", preemptible=True)
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    urgent = steps.submit("urgent", priority="urgent")
    assert steps.place() == 0
    assert steps.attempt(attempt_id).stop == "preempt"
    assert [stop.reason for stop in steps.beat(worker_id, attempt_id).stops] == ["preempt"]
    assert steps.place() == 0  # asked once, not again and again
    assert steps.job(victim).preemptions == 1
    assert explain(steps, urgent).reason.code in {"preempting", "busy"}
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    steps.place()
    assert steps.attempt(steps.offered(worker_id)).job_id == urgent
    assert (steps.job(victim).state, steps.job(victim).tries_used) == (JobState.QUEUED, 0)


def test_a_job_that_may_not_be_preempted_is_left_alone(steps):
    steps.submit("firm", preemptible=False)
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    steps.submit("urgent", priority="urgent")
    assert steps.place() == 0
    assert steps.attempt(attempt_id).stop is None
    assert worker_id


def test_a_wide_job_is_not_passed_by_for_ever(steps):
    worker_id = steps.join(slots=2)
    smalls = [steps.submit(f"small-{number}") for number in range(2)]
    steps.place()
    steps.clock.advance(10)
    wide = steps.submit("wide", resources={"slots": 2}, actor=steps.user("ann", Role.LEAD))
    late = [steps.submit(f"late-{number}") for number in range(4)]
    assert steps.place() == 0
    steps.cancel(smalls[0])
    assert steps.place() == 0
    steps.cancel(smalls[1])
    assert steps.place() == 1
    assert steps.job(wide).state == JobState.ASSIGNED
    assert {steps.job(job).state for job in late} == {JobState.QUEUED}
    assert worker_id


def test_explain_tells_place_start_and_who_is_ahead(steps):
    worker_id = steps.join()
    jobs = [steps.submit(f"job-{n}", expected_time=100.0) for n in range(4)]
    steps.place()
    ann = steps.user("ann", Role.RESEARCHER)
    mine = steps.submit("mine", actor=ann, expected_time=100.0)

    last = explain(steps, jobs[3])
    assert last.place == 3  # ann has had nothing yet, so hers goes first
    assert [job.job_id for job in last.ahead] == [mine, jobs[1], jobs[2]]
    assert last.starts_at == steps.clock() + timedelta(seconds=400)
    assert last.basis == "declared"
    seen_by_ann = explain(steps, mine, actor=ann)
    assert seen_by_ann.place == 0
    assert seen_by_ann.starts_at == steps.clock() + timedelta(seconds=100)
    assert [tenant.path for tenant in seen_by_ann.shares] == [
        "default/default/ann",
        "default/default",
        "default",
    ]
    assert explain(steps, jobs[0]).reason is None
    assert worker_id


def test_a_job_that_waits_for_another_is_foretold_too(steps):
    worker_id = steps.join()
    first = steps.submit("first", expected_time=100.0)
    middle = steps.submit("middle", expected_time=50.0, after=[first])
    last = steps.submit("last", priority="high", after=[first, middle])
    other = steps.submit("other", expected_time=30.0)
    never = steps.submit("never", after=[last], on_parent_failure="hold")
    attempt_id = steps.claimed(worker_id)

    found = explain(steps, last)
    assert found.reason.code == "dependency"
    assert f"first ({first})" in found.reason.message
    assert found.starts_at == steps.clock() + timedelta(seconds=150)
    assert [(ahead.job_id, ahead.priority) for ahead in found.ahead] == [(middle, "normal")]
    assert found.place == 1
    assert found.basis == "time limit"
    assert found.shares[0].path == "default/default/root"
    assert explain(steps, other).place == 2

    steps.ship(worker_id, attempt_id, state=AttemptState.UPLOADING)  # its slot is free
    assert explain(steps, middle).starts_at == steps.clock()
    steps.cancel(last)
    lost = explain(steps, never)
    assert (lost.reason.code, lost.starts_at, lost.place) == ("parent_failed", None, None)


def test_a_noop_is_expected_to_take_its_seconds(steps):
    """Although it may take a day by its time limit."""
    steps.join()
    first, second = (
        steps.submit_as({"name": name, "noop": {"seconds": 30}})[0] for name in ("first", "second")
    )
    assert steps.place() == 1
    found = explain(steps, second)
    assert (found.basis, found.starts_at) == ("declared", steps.clock() + timedelta(seconds=30))
    assert steps.job(first).expected_seconds == 30.0


def test_the_queue_is_free_while_it_is_replayed(steps, monkeypatch):
    steps.join()
    job_id, queue = steps.submit(), LiveQueue()
    free = []

    def replay(*asked):
        other = threading.Thread(target=lambda: free.append(queue.next_moment()))
        other.start()
        other.join(120)
        return foretell(*asked)

    monkeypatch.setattr("st_controller.services.live_queue.foretell", replay)
    assert explain(steps, job_id, queue).starts_at == steps.clock()
    assert len(free) == 1


def test_many_who_ask_at_once_are_served_by_one_replay(steps, together, monkeypatch):
    steps.join()
    job_id, queue, replays = steps.submit(), LiveQueue(), []

    def replay(*asked):
        replays.append(asked)
        return foretell(*asked)

    monkeypatch.setattr("st_controller.services.live_queue.foretell", replay)
    found = together(lambda _: explain(steps, job_id, queue), range(4))
    assert {explanation.place for explanation in found} == {0}
    assert len(replays) == 1


def test_a_job_that_came_since_is_foretold_at_once(steps):
    steps.join()
    steps.submit("runs", expected_time=60.0)
    first, queue = steps.submit("first", expected_time=60.0), steps.rounds._queue
    steps.place()
    assert explain(steps, first, queue).place == 0
    second = steps.submit("second", expected_time=30.0)
    third = steps.submit("third", after=[second])
    steps.place()
    begins = [explain(steps, each, queue).starts_at for each in (second, third)]
    assert begins == [steps.clock() + timedelta(seconds=seconds) for seconds in (120, 150)]


def test_where_the_forecast_ends_it_says_so(steps, monkeypatch):
    monkeypatch.setattr("st_controller.services.live_queue.REPLAY_SECONDS", 0.0)
    steps.join()
    jobs = [steps.submit(f"job-{n}", expected_time=100.0) for n in range(3)]
    last = explain(steps, jobs[2])
    assert (last.place, last.starts_at) == (None, None)
    assert last.starts_after == steps.clock() + timedelta(seconds=100)
    assert explain(steps, jobs[0]).starts_after is None


def test_what_was_read_in_part_is_not_used(steps, monkeypatch):
    queue = LiveQueue()

    def broken(*_):
        raise ConnectionError("away")

    monkeypatch.setattr("st_controller.services.live_queue.queue_usage.read", broken)
    with steps.db.read() as session, pytest.raises(ConnectionError):
        queue.load(session, steps.clock())
    assert queue.scheduler is None


def test_durations_are_learned_from_jobs_of_the_same_name(steps):
    worker_id = steps.join()
    for number in range(2):
        steps.submit(f"tune-{number}")
    for _ in range(2):
        attempt_id = steps.claimed(worker_id)
        steps.run(worker_id, attempt_id)
        pass_time(steps, worker_id, attempt_id, 120.0)
        steps.finish(worker_id, attempt_id)
    first, second = steps.submit("tune-7"), steps.submit("tune-8")
    steps.place()
    found = explain(steps, second)
    assert found.basis == "learned"
    assert found.starts_at == steps.clock() + timedelta(seconds=120)
    assert steps.job(first).state == JobState.ASSIGNED


def test_those_in_line_learn_from_the_first_of_their_array(steps):
    """They were read when nothing was known of such jobs; the leader reads them only once."""
    worker_id = steps.join()
    jobs = [steps.submit(f"tune-{number}") for number in range(3)]
    queue = steps.rounds._queue
    attempt_id = steps.claimed(worker_id)
    assert explain(steps, jobs[2], queue).basis == "time limit"
    steps.run(worker_id, attempt_id)
    pass_time(steps, worker_id, attempt_id, 120.0)
    steps.finish(worker_id, attempt_id)
    steps.rounds.place(steps.lead, News(all_jobs=True, rules=True))  # as the sweep does
    found = explain(steps, jobs[2], queue)
    assert found.basis == "learned"
    assert found.starts_at == steps.clock() + timedelta(seconds=120)


def test_others_jobs_are_not_shown_to_those_who_may_not_see_them(steps):
    steps.join()
    steps.submit("running", expected_time=50.0)
    steps.place()
    steps.submit("secret", priority="high", expected_time=50.0)
    ann = steps.user("ann", Role.RESEARCHER)
    mine = steps.submit("mine", actor=ann)
    found = explain(steps, mine, actor=ann)
    assert [job.job_id for job in found.ahead] == [None]
    assert {tenant.path for tenant in overview(steps, ann).tenants} <= {
        "",
        "default",
        "default/default",
        "default/default/ann",
    }
    assert "default/default/root" in {tenant.path for tenant in overview(steps).tenants}


def test_the_overview_counts(steps):
    steps.join(slots=2)
    steps.submit("runs")
    wide = steps.submit("wide", resources={"slots": 2})
    steps.submit("later", not_before=(steps.clock() + timedelta(hours=1)).isoformat())
    steps.place()
    found = overview(steps)
    assert (found.slots, found.slots_taken, found.running) == (2, 1, 1)
    assert found.held == {"not_before": 1}
    assert found.waiting == 1
    assert {tenant.waiting for tenant in found.tenants} == {1}
    with steps.db.read() as session:
        found = queue_overview.overview(session, steps.rounds._queue, steps.admin, steps.clock())
    assert [each.job_id for each in found.reservations] == [wide]
    assert found.waiting == 1
    assert {tenant.waiting for tenant in found.tenants} == {1}
    assert {share.waiting for share in explain(steps, wide, steps.rounds._queue).shares} == {1}


def test_rules_are_audited_and_take_effect(steps):
    low = steps.submit("low", priority="low")
    steps.clock.advance(61)
    with steps.db.write() as tx:
        queue_rules.set_rules(tx, steps.admin, QueueRules(ageing_interval=60.0))
    (entry,) = steps.audit_of("queue")
    assert entry.details == {"changed": {"ageing_interval": [3600.0, 60.0]}}
    assert explain(steps, low).level.reached == 10


def test_a_share_that_is_removed_counts_no_more(steps):
    set_share(steps, "all", max_jobs=0)
    steps.submit()
    steps.join()
    assert steps.place() == 0
    with steps.db.write() as tx:
        queue_rules.remove_share(tx, steps.admin, "all")
    assert steps.place() == 1


@pytest.mark.parametrize("path", ["", "a//b", "a/b/c/d", "A", "a/../b", "a b"])
def test_a_path_that_names_no_tenant_is_refused(steps, path):
    with pytest.raises(InvalidRequest) as refused:
        set_share(steps, path)
    assert refused.value.errors[0].field == "path"


def test_news_of_one_job_are_enough(steps):
    """What a wake-up names is read, and nothing else has to be."""
    worker_id = steps.join()
    steps.place()
    first, second = steps.submit("first"), steps.submit("second")
    assert steps.rounds.place(steps.lead, News(jobs={second})) == 1
    assert steps.attempt(steps.offered(worker_id)).job_id == second
    assert steps.rounds.place(steps.lead, News()) == 0
    assert steps.job(first).state == JobState.QUEUED


def test_a_wake_up_that_was_lost_is_made_up_for(steps):
    steps.join(slots=2)
    steps.place()
    job_id = steps.submit("silent")
    assert steps.rounds.place(steps.lead, News()) == 0
    assert steps.rounds.place(steps.lead, News(all_jobs=True)) == 1
    assert steps.job(job_id).state == JobState.ASSIGNED


@pytest.mark.parametrize("wait", [10, 40], ids=["counted", "looked at"])
def test_a_lost_wake_up_of_an_override_is_made_up_for(steps, monkeypatch, wait):
    """It is no change of state, so the version of the job stays."""
    if wait > 10:  # the count fits by chance; what is old is read all the same
        monkeypatch.setattr(queue_marks.Noticed, "differing", lambda *_: set())
    queue = LiveQueue()
    with steps.db.read() as session:
        queue.load(session, steps.clock())
    steps.clock.advance(60)
    job_id = steps.submit()
    look(steps, queue)
    steps.clock.advance(10)
    with steps.db.write() as tx:
        steering.override(tx, steps.admin, job_id, 50)
    steps.clock.advance(wait)
    look(steps, queue)
    assert queue.scheduler.waiting(job_id).level == Level.FIRST


def test_a_lost_wake_up_of_a_released_child_is_made_up_for(steps):
    queue = LiveQueue()
    with steps.db.read() as session:
        queue.load(session, steps.clock())
    steps.clock.advance(60)
    parent = steps.submit("parent")
    child = steps.submit("child", after=[parent])
    worker_id = steps.join()
    attempt_id = steps.claimed(worker_id)
    look(steps, queue)
    steps.clock.advance(5)
    steps.finish(worker_id, attempt_id)
    steps.clock.advance(5)
    look(steps, queue)
    assert queue.scheduler.waiting(child) is not None


def test_what_fits_is_counted_and_read_once(steps, monkeypatch):
    steps.submit("old")
    queue, reads = LiveQueue(), []
    with steps.db.read() as session:
        queue.load(session, steps.clock())
    steps.clock.advance(60.000001)
    ids = [steps.submit(f"job-{number}") for number in range(3)]
    steps.clock.advance(0.123457)
    steps.cancel(ids[0])
    look(steps, queue)
    real = queue_marks.changed_in
    monkeypatch.setattr(
        queue_marks,
        "changed_in",
        lambda session, seconds: reads.append(len(seconds)) or real(session, seconds),
    )
    for _ in range(6):
        steps.clock.advance(10)
        look(steps, queue)
    assert reads == [0, 0, 0, 1, 0, 0]  # once it is so old that nothing can come late


def test_what_is_committed_late_is_noticed(steps):
    queue = LiveQueue()
    with steps.db.read() as session:
        queue.load(session, steps.clock())
    steps.clock.advance(60)
    with steps.db.write() as tx:  # began at a moment to which others have looked meanwhile
        began = steps.clock()
        for _ in range(2):
            steps.clock.advance(10)
            look(steps, queue)
        job_id = submission.submit(tx, steps.admin, document())[0].id
    assert steps.job(job_id).changed_at == began
    assert queue.scheduler.waiting(job_id) is None
    look(steps, queue)
    assert queue.scheduler.waiting(job_id) is not None


def test_jobs_that_changed_together_are_found_however_many_and_no_other_is_read(steps, monkeypatch):
    queue, read = LiveQueue(), []
    with steps.db.read() as session:
        queue.load(session, steps.clock())
    steps.clock.advance(60)
    told = [steps.submit(f"told-{number}") for number in range(3)]
    with steps.db.read() as session:
        queue.catch_up(session, News(jobs=set(told)), steps.clock())
    steps.clock.advance(1)
    silent = {steps.submit(f"silent-{number}") for number in range(3)}
    monkeypatch.setattr(
        queue_marks,
        "changed_in",
        lambda *asked: [read.append(found[0]) or found for found in _CHANGED_IN(*asked)],
    )
    look(steps, queue)
    assert set(read) == silent
    assert set(queue.scheduler.pending()) == {*told, *silent}


_CHANGED_IN = queue_marks.changed_in


def look(steps, queue: LiveQueue) -> None:
    """What the leader does every ten seconds."""
    with steps.db.read() as session:
        queue.catch_up(session, News(all_jobs=True), steps.clock())


def test_a_successor_goes_on_where_the_dead_leader_stood(steps):
    ids = [steps.submit(f"job-{number}") for number in range(6)]
    worker_id = steps.join(slots=3)
    assert steps.place() == 3
    heir = Rounds(steps.db, steps.patience, LiveQueue())
    lead = heir.seek("ctl_heir", alone=True)
    heir.begin(lead, GRACE)
    assert heir.place(lead) == 0  # the slots are taken, and it knows
    steps.cancel(ids[0])
    assert heir.place(lead) == 1
    assert [steps.job(job).attempts for job in ids] == [1, 1, 1, 1, 0, 0]
    assert worker_id


@pytest.mark.embedded
def test_a_successor_knows_all_that_runs_however_much(steps):
    steps.join(slots=30)
    ids = [steps.submit(f"job-{number}") for number in range(31)]
    assert steps.place() == 30
    heir = LiveQueue()
    with steps.db.read() as session:
        heir.load(session, steps.clock())
    assert sorted(heir.scheduler.running()) == sorted(ids[:30])
    assert heir.decide(steps.clock(), 100) == []


def test_a_long_queue_is_served_from_its_first_jobs_and_read_on_meanwhile(steps, monkeypatch):
    monkeypatch.setattr("st_controller.services.live_queue.PAGE", 3)
    monkeypatch.setattr("st_controller.services.live_queue.EACH", 1)
    ids = [steps.submit(f"job-{number}") for number in range(8)]
    wide = steps.submit("wide", resources={"slots": 2})
    worker_id = steps.join()
    queue = LiveQueue()
    rounds = Rounds(steps.db, steps.patience, queue)
    lead = rounds.seek("ctl_heir", alone=True)
    rounds.begin(lead, GRACE)
    assert sorted(queue.scheduler.pending()) == sorted([ids[0], wide])
    assert rounds.place(lead, News()) == 1
    assert steps.attempt(steps.offered(worker_id)).job_id == ids[0]
    while not queue.is_whole:
        rounds.place(lead, News())
    assert sorted(queue.scheduler.pending()) == sorted([*ids[1:], wide])


def test_of_a_long_queue_the_first_jobs_of_each_team_of_a_user_are_known(steps, monkeypatch):
    monkeypatch.setattr("st_controller.services.live_queue.PAGE", 3)
    monkeypatch.setattr("st_controller.services.live_queue.EACH", 1)
    ann = steps.user("ann", Role.RESEARCHER, "default", "red", "blue")
    red = [steps.submit(f"red-{number}", actor=ann) for number in range(4)]
    blue = steps.submit("blue", actor=ann, team="blue")
    queue = LiveQueue()
    with steps.db.read() as session:
        queue.load(session, steps.clock())
    assert sorted(queue.scheduler.pending()) == sorted([red[0], blue])

"""When jobs will start."""

from queue_steps import Queue

from st_controller.domain.scheduling.forecast import Dependent, Snapshot, foretell
from st_controller.domain.scheduling.model import Level, PendingJob


def test_a_queue_of_known_durations_starts_when_foretold() -> None:
    queue = Queue()
    queue.worker()
    for number in range(4):
        queue.submit(f"{number}", expected=100.0)
    queue.placed()
    forecast = foretell(Snapshot.of(queue.scheduler, queue.now))

    assert forecast.is_complete
    starts = [round(forecast.starts[str(number)] - queue.now) for number in range(1, 4)]
    assert starts == [100, 200, 300]
    assert forecast.place("3") == 2
    assert forecast.ahead("3", 9) == ["1", "2"]


def test_a_replay_changes_nothing_and_agrees_with_what_happens() -> None:
    queue = Queue()
    queue.worker("w", 3)
    queue.share("o/t/ann", 2.0)
    for number in range(12):
        queue.submit(f"ann {number}", "o/t/ann", expected=60.0)
        queue.submit(f"ben {number}", "o/t/ben", slots=1 + number % 3, expected=90.0)
    running = dict.fromkeys(queue.placed(), queue.now)
    forecast = foretell(Snapshot.of(queue.scheduler, queue.now))
    order = list(forecast.starts)

    seen: list[str] = []
    while running or list(queue.scheduler.pending()):
        ends = {
            name: started + (60.0 if name.startswith("ann") else 90.0)
            for name, started in running.items()
        }
        first = min(ends.values())
        queue.now = first
        over = [name for name, at in ends.items() if at == first]
        queue.finish(*over)
        for name in over:
            del running[name]
        placed = queue.placed()
        seen += placed
        running.update(dict.fromkeys(placed, queue.now))

    assert seen == order


def test_what_lies_beyond_the_replay_is_not_foretold() -> None:
    queue = Queue()
    queue.worker()
    for number in range(50):
        queue.submit(f"{number}", expected=10.0)
    forecast = foretell(Snapshot.of(queue.scheduler, queue.now, most_jobs=20))

    assert not forecast.is_complete
    assert forecast.place("49") is None
    assert forecast.later_than("49") is None


def test_a_job_that_fits_nowhere_has_no_start() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("never", slots=9)
    queue.submit("starts")
    forecast = foretell(Snapshot.of(queue.scheduler, queue.now))

    assert list(forecast.starts) == ["starts"]
    assert forecast.place("never") is None
    assert forecast.ahead("never", 9) == []
    assert forecast.tells_of("never")
    assert not forecast.tells_of("somebody else")


def test_a_replay_that_is_cut_short_tells_how_far_it_came() -> None:
    queue = Queue()
    queue.worker()
    for number in range(50):
        queue.submit(f"{number}", expected=10.0)
    events = iter(range(1000))
    forecast = foretell(Snapshot.of(queue.scheduler, queue.now), lambda: next(events) >= 9)

    assert list(forecast.starts) == [str(number) for number in range(10)]
    assert forecast.later_than("9") is None
    assert forecast.later_than("10") == forecast.later_than("49") == queue.now + 100.0
    assert not forecast.is_complete


def test_what_happens_to_the_queue_meanwhile_does_not_reach_a_replay() -> None:
    queue = Queue()
    queue.worker()
    for number in range(3):
        queue.submit(f"{number}", expected=10.0)
    snapshot = Snapshot.of(queue.scheduler, queue.now)
    before = foretell(snapshot)
    queue.share("org/team/user", max_jobs=0)
    queue.scheduler.withdraw("1", queue.now)
    queue.scheduler.drop_worker("w", queue.now)
    queue.pass_time(1000.0)
    assert foretell(snapshot) == before


def test_a_job_that_yields_ends_as_much_later_as_it_stood_still() -> None:
    queue = Queue(preemption_grace=120.0)
    queue.worker()
    queue.submit("victim", expected=1000.0)
    queue.placed()
    queue.submit("urgent", "org/team/other", Level.URGENT, expected=300.0)
    queue.submit("next", expected=10.0, level=Level.LOW)

    starts = foretell(Snapshot.of(queue.scheduler, queue.now)).starts
    assert {job: at - queue.now for job, at in starts.items()} == {"urgent": 120.0, "next": 1300.0}


def test_a_job_that_is_over_before_it_yields_does_not_come_again() -> None:
    queue = Queue(preemption_grace=120.0)
    queue.worker()
    queue.submit("victim", expected=50.0)
    queue.placed()
    queue.submit("urgent", "org/team/other", Level.URGENT, expected=300.0)
    queue.submit("next", expected=10.0, level=Level.LOW)

    starts = foretell(Snapshot.of(queue.scheduler, queue.now)).starts
    assert {job: at - queue.now for job, at in starts.items()} == {"urgent": 50.0, "next": 350.0}


def test_jobs_that_wait_for_others_start_once_these_have_ended() -> None:
    queue = Queue()
    queue.worker(slots=2)
    queue.submit("runs", expected=100.0)
    queue.placed()
    queue.submit("waits", slots=2, expected=50.0)
    later = queue.now + 500.0
    after = {
        "child": {"runs"},
        "grandchild": {"child", "waits"},
        "later": {"runs"},
        "never": {"failed", "runs"},
    }
    moments = {"later": later}
    dependents = [
        Dependent(_apart(queue, name, not_before=moments.get(name, 0.0)), frozenset(parents))
        for name, parents in after.items()
    ]

    snapshot = Snapshot.of(queue.scheduler, queue.now).followed_by(dependents)
    forecast = foretell(snapshot)

    assert {job: at - queue.now for job, at in forecast.starts.items()} == {
        "waits": 100.0,
        "child": 150.0,
        "grandchild": 160.0,
        "later": 500.0,
    }
    assert forecast.place("grandchild") == 2
    assert forecast.is_complete


def _apart(queue: Queue, name: str, not_before: float) -> PendingJob:
    """A job that the scheduler does not know, of ten seconds."""
    job = queue.submit(name, not_before=not_before, expected=10.0)
    queue.scheduler.withdraw(name, queue.now)
    return job


def test_jobs_of_other_hardware_do_not_put_off_the_start() -> None:
    queue = Queue()
    queue.worker("a", accelerator="a100")
    queue.worker("h", accelerator="h100")
    for number in range(5):
        queue.submit(f"a{number}", accelerator="a100*", expected=1000.0)
    for number in range(2):
        queue.submit(f"h{number}", accelerator="h100*", expected=60.0)

    starts = foretell(Snapshot.of(queue.scheduler, queue.now)).starts
    assert starts["h1"] - queue.now == 60.0
    assert starts["a4"] - queue.now == 4000.0


def test_the_cap_of_an_array_holds_in_a_replay() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 1, queue.now)
    queue.worker(slots=4)
    for number in range(3):
        queue.submit(f"{number}", array="sweep", expected=10.0)
    assert queue.placed() == ["0"]

    starts = foretell(Snapshot.of(queue.scheduler, queue.now)).starts
    assert {job: at - queue.now for job, at in starts.items()} == {"1": 10.0, "2": 20.0}


def test_who_was_told_to_yield_does_so_in_a_replay() -> None:
    queue = Queue(preemption_grace=120.0)
    queue.worker()
    queue.submit("victim", expected=1000.0)
    queue.placed()
    queue.submit("urgent", "org/team/other", Level.URGENT, expected=300.0)
    assert queue.preempted() == [("urgent", ("victim",))]

    starts = foretell(Snapshot.of(queue.scheduler, queue.now)).starts
    assert {job: at - queue.now for job, at in starts.items()} == {"urgent": 120.0}


def test_who_has_had_less_comes_first_in_a_replay() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("long", "o/t/ann")
    queue.placed()
    queue.finish("long", after=4000.0)
    queue.submit("other", "o/t/eve", expected=10.0)
    assert queue.placed() == ["other"]
    for user in ("ann", "ben"):
        queue.submit(user, f"o/t/{user}", expected=10.0)

    assert list(foretell(Snapshot.of(queue.scheduler, queue.now)).starts) == ["ben", "ann"]

"""Why jobs wait."""

from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, PendingJob
from st_controller.domain.scheduling.waiting import reached_level, why_waiting
from st_shared.protocol.resources import Reason


def reason(queue: Queue, job: PendingJob) -> Reason:
    return why_waiting(queue.scheduler, job, queue.now)


def test_nobody_is_there() -> None:
    queue = Queue()
    assert reason(queue, queue.submit("job")).code == "no_workers"


def test_who_is_there_drains() -> None:
    queue = Queue()
    queue.worker(slots=2)
    queue.submit("runs")
    queue.placed()
    queue.scheduler.drop_worker("w", queue.now)
    assert reason(queue, queue.submit("job")).code == "no_workers"
    queue.worker(slots=2)
    queue.scheduler.drop_worker("w", queue.now)
    queue.worker("other", accelerator="h100")
    found = reason(queue, queue.submit("on cpu", accelerator="cpu"))
    assert found.code == "no_matching_worker"
    assert "of 1," in found.message


def test_nobody_could_ever() -> None:
    queue = Queue()
    queue.worker()
    found = reason(queue, queue.submit("job", accelerator="h100*"))

    assert found.code == "no_matching_worker"
    assert "h100*" in found.message


def test_a_gang_of_unequal_workers_is_told_that_none_match() -> None:
    queue = Queue()
    queue.worker("a", accelerator="a100")
    queue.worker("h", accelerator="h100")
    found = reason(queue, queue.submit("gang", nodes=2))

    assert found.code == "no_matching_worker"
    assert "on 2 workers with equal accelerators" in found.message


def test_nobody_has_room_for_its_datasets() -> None:
    queue = Queue()
    queue.worker("small", content_room_gb=50.0)
    queue.worker("large", content_room_gb=80.0, accelerator="a100")
    found = reason(queue, queue.submit("job", content_gb=120.0))
    assert found.code == "no_room_for_datasets"
    assert "120 GiB" in found.message
    assert "large has most, 80 GiB" in found.message
    assert "--cache-gb" in found.hint
    lacks_both = queue.submit("other", content_gb=120.0, accelerator="h100")
    assert reason(queue, lacks_both).code == "no_matching_worker"


def test_a_job_goes_where_there_is_room_for_its_datasets() -> None:
    queue = Queue()
    for number in range(5):
        queue.worker(f"small{number}", content_room_gb=50.0)
    queue.submit("first", content_gb=60.0)
    assert queue.decide() == []
    queue.worker("large", content_room_gb=60.0)
    (made,) = queue.decide()
    assert [grant.worker for grant in made.grants] == ["large"]
    queue.worker("unknown")
    queue.submit("second", content_gb=600.0)
    (made,) = queue.decide()
    assert [grant.worker for grant in made.grants] == ["unknown"]  # an older agent does not tell


def test_nobody_can_just_now() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("first")
    second = queue.submit("second")
    queue.decide()

    assert reason(queue, second).code == "busy"


def test_its_moment_has_not_come() -> None:
    queue = Queue()
    queue.worker()
    assert reason(queue, queue.submit("job", not_before=queue.now + 9)).code == "not_before"


def test_its_array_is_full() -> None:
    queue = Queue()
    queue.scheduler.set_array_cap("sweep", 1, queue.now)
    queue.worker(slots=4)
    queue.submit("a", array="sweep")
    second = queue.submit("b", array="sweep")
    queue.decide()

    assert reason(queue, second).code == "array_cap"


def test_a_limit_is_named_with_whose_it_is() -> None:
    queue = Queue()
    queue.share("org/team", max_slots=2)
    queue.worker(slots=4)
    queue.submit("a", slots=2)
    second = queue.submit("b")
    queue.decide()
    found = reason(queue, second)

    assert found.code == "limit"
    assert "org/team has 2 of 2 slots" in found.message
    assert "others of them end" in found.hint


def test_a_limit_that_leaves_no_room_at_all_is_told_as_such() -> None:
    queue = Queue()
    queue.share("org/team", max_slots=2)
    queue.worker(slots=4)
    queue.worker("other", slots=4)
    wide = queue.submit("wide", slots=2, nodes=2)
    queue.decide()
    found = reason(queue, wide)
    assert found.code == "limit"
    assert "org/team may use 2 slots at one time, and this job asks for 4" in found.message
    assert "does not start before the limit is raised" in found.hint

    queue.share("", max_jobs=0)
    one = queue.submit("one", "org/others/user")
    queue.decide()
    assert "The whole system may run no jobs" in reason(queue, one).message


def test_slots_are_kept_for_it() -> None:
    queue = Queue()
    queue.worker(slots=2)
    queue.submit("a")
    wide = queue.submit("wide", slots=2)
    queue.decide()

    assert reason(queue, wide).code == "reserved"


def test_others_make_room_for_it() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("a")
    queue.decide()
    urgent = queue.submit("urgent", "o/t/ann", Level.URGENT)
    queue.decide()

    assert reason(queue, urgent).code == "preempting"


def test_others_have_had_less() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("a", "o/t/ann")
    queue.decide()
    second = queue.submit("b", "o/t/ann")
    queue.submit("c", "o/t/ben")
    queue.pass_time(600)
    queue.decide()

    assert reason(queue, second).code == "fair_share"


def test_waiting_raises_only_those_within_their_share() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("long", "o/t/ann")
    queue.placed()
    queue.finish("long", after=4000.0)
    queue.submit("runs", "o/t/eve")
    queue.placed()
    jobs = [queue.submit(user, f"o/t/{user}", waited=7200.5) for user in ("ann", "ben")]
    queue.decide()
    levels = [reached_level(queue.scheduler, job, queue.now) for job in jobs]
    assert levels == [Level.NORMAL, Level.URGENT]

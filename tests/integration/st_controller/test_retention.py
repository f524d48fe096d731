"""Files of deleted jobs are removed after a grace, and nothing that others share."""

from datetime import timedelta

import pytest
from controller_steps import file_of, log_line
from purse import ORG, Purse
from sqlalchemy import select

from st_controller.dispatch.accounting import Books
from st_controller.dispatch.archiving import Archiving
from st_controller.dispatch.retention import Retention
from st_controller.services import jobs, retention
from st_controller.store.schema import Artifact, DoomedObject, JournalSegment
from st_shared.objectstore import StoreUnreachableError

DAY = 86_400.0
SETTLED = retention.SETTLED.total_seconds()


@pytest.fixture
def chore(steps) -> Retention:
    return Retention(steps.platform, lambda: True)


def finished(steps, worker_id: str, **files: bytes) -> str:
    """A job that stored these files, with a line in its journal; all proofs are told."""
    job_id = steps.submit()
    attempt_id = steps.claimed(worker_id)
    steps.run(worker_id, attempt_id)
    steps.ship(worker_id, attempt_id, [log_line(1)])
    for name, body in files.items():
        told = {"possession": file_of(name, body[::-1]).sha256}
        file = file_of(f"output/{name}", body, "output").model_copy(update=told)
        (ticket,) = steps.announce(worker_id, attempt_id, file)
        if ticket.url:
            steps.put(ticket.artifact_id, body)
        steps.complete(worker_id, attempt_id, [ticket.artifact_id])
    steps.finish(worker_id, attempt_id, last=1)
    Archiving(steps.platform, lambda: True).move_all()
    return job_id


def delete(steps, job_id: str) -> None:
    with steps.db.write() as tx:
        jobs.delete(tx, steps.admin, job_id)


def keys(steps) -> list[str]:
    return [stat.key for stat in steps.objects.list("jobs/")]


def pass_grace(steps, chore) -> None:
    """All that time does."""
    steps.clock.advance(7 * DAY + 1)
    chore.remove()
    steps.clock.advance(SETTLED + 1)
    chore.remove()


def test_files_and_lines_go_after_the_grace_and_others_stay(steps, chore):
    worker_id = steps.join()
    gone = finished(steps, worker_id, a=b"aaa", b=b"bb")
    kept = finished(steps, worker_id, a=b"other")
    before = keys(steps)
    assert len(before) == 5
    delete(steps, gone)
    steps.clock.advance(7 * DAY - 60)
    assert (chore.remove(), keys(steps)) == (0, before)

    pass_grace(steps, chore)

    assert keys(steps) == [key for key in before if key.startswith(f"jobs/{kept}/")]
    with steps.db.read() as session:
        assert set(session.scalars(select(Artifact.job_id))) == {kept}
        assert len(session.scalars(select(JournalSegment)).all()) == 1
        assert session.scalars(select(DoomedObject)).all() == []
    [entry] = [each for each in steps.audit_of(gone) if each.action == "job.purged"]
    assert entry.details["artifacts"] == 2
    assert steps.job(gone).attempts == 1  # the record of what it used
    assert chore.remove() == 0


def test_content_that_others_share_goes_with_the_last_of_them(steps, chore):
    worker_id = steps.join()
    first, second = (finished(steps, worker_id, weights=b"same") for _ in range(2))
    [key] = [key for key in keys(steps) if "weights" in key]
    delete(steps, first)
    pass_grace(steps, chore)
    assert key in keys(steps)
    third = finished(steps, worker_id, weights=b"same")  # refers to the object of a job long gone
    delete(steps, second)
    pass_grace(steps, chore)
    assert key in keys(steps)
    delete(steps, third)
    pass_grace(steps, chore)
    assert not [each for each in keys(steps) if "weights" in each]


@pytest.mark.embedded
def test_whoever_was_about_to_refer_to_an_object_keeps_it(steps, chore):
    """It found the content before the last file that named it went, and wrote that afterwards."""
    worker_id = steps.join()
    gone = finished(steps, worker_id, weights=b"same")
    [key] = [key for key in keys(steps) if "weights" in key]
    delete(steps, gone)
    steps.clock.advance(7 * DAY + 1)
    chore.remove()
    kept = finished(steps, worker_id, weights=b"another")
    with steps.db.write() as tx:
        tx.session.scalar(select(Artifact).where(Artifact.job_id == kept)).key = key
    steps.clock.advance(SETTLED + 1)
    chore.remove()
    assert key in keys(steps)


@pytest.mark.embedded
def test_storage_is_given_back_to_the_quota(steps, chore):
    purse = Purse(steps)
    purse.quota(ORG, "storage_bytes", 1000)
    books, worker_id = Books(steps.db), steps.join()
    gone = finished(steps, worker_id, a=b"x" * 100)
    finished(steps, worker_id, a=b"x" * 100, b=b"y" * 7)
    steps.clock.advance(61)
    books.keep()
    assert purse.counter(ORG, "storage_bytes") == (107, 0)
    delete(steps, gone)
    pass_grace(steps, chore)
    books.keep()
    assert purse.counter(ORG, "storage_bytes") == (107, 0)  # the other has the same
    with steps.db.read() as session:
        other = session.scalar(select(Artifact.job_id))
    delete(steps, other)
    pass_grace(steps, chore)
    books.keep()
    assert purse.counter(ORG, "storage_bytes") == (0, 0)


@pytest.mark.embedded
def test_it_goes_on_where_it_was_stopped(steps, chore, monkeypatch):
    monkeypatch.setattr(retention, "MOST", 2)
    worker_id = steps.join()
    gone = finished(steps, worker_id, **{f"f{number}": bytes([number]) for number in range(5)})
    delete(steps, gone)
    steps.clock.advance(7 * DAY + 1)
    with steps.db.write() as tx:
        assert retention.purge(tx, gone)  # and then the leader died
    with steps.db.read() as session:
        assert len(session.scalars(select(Artifact)).all()) == 3
    chore.remove()
    assert steps.job(gone).purged_at is not None
    steps.clock.advance(SETTLED + 1)
    removed = steps.objects.delete
    left = [3]

    def fails(key):
        if not left[0]:
            raise StoreUnreachableError("away")
        left[0] -= 1
        removed(key)

    monkeypatch.setattr(steps.objects, "delete", fails)
    with pytest.raises(StoreUnreachableError):
        chore.remove()
    monkeypatch.undo()
    chore.remove()
    assert [key for key in keys(steps) if "output" in key] == []


@pytest.mark.embedded
def test_lines_that_are_not_moved_yet_are_waited_for(steps, chore):
    worker_id, gone = steps.join(), steps.submit()
    attempt_id = steps.claimed(worker_id)
    steps.ship(worker_id, attempt_id, [log_line(1)])
    steps.finish(worker_id, attempt_id, last=1)
    delete(steps, gone)
    steps.clock.advance(7 * DAY + 1)
    chore.remove()
    assert steps.job(gone).purged_at is None
    Archiving(steps.platform, lambda: True).move_all()
    pass_grace(steps, chore)
    assert steps.job(gone).purged_at is not None
    assert keys(steps) == []


@pytest.mark.embedded
def test_only_what_was_deleted_is_purged(steps):
    job_id = finished(steps, steps.join(), a=b"a")
    steps.clock.advance(365 * DAY)
    with steps.db.write() as tx:
        assert not retention.purge(tx, job_id)
    with steps.db.read() as session:
        assert retention.due(session, steps.clock() + timedelta(days=1)) == []
        assert session.scalars(select(Artifact.job_id)).all() == [job_id]

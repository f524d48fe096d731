"""Datasets: content that arrives by signed URL, and the name that then stands for it."""

import hashlib
import io

import pytest
from sqlalchemy import select

from st_controller.errors import Conflict, NotFound
from st_controller.services import datasets, explaining
from st_controller.services.jobs import get_job
from st_controller.services.live_queue import LiveQueue
from st_controller.store.schema import Dataset
from st_shared.protocol.resources import ArchiveFile, DatasetRequest
from st_shared.protocol.states import WorkerDesired
from st_shared.protocol.worker import Condition


def request_for(*contents: bytes, name="digits", digest: bytes = b"") -> DatasetRequest:
    archives = [
        ArchiveFile(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for content in contents
    ]
    content = digest or b"".join(contents)
    return DatasetRequest(
        name=name, digest=hashlib.sha256(content).hexdigest(), samples=3, archives=archives
    )


def announce(steps, request) -> list:
    with steps.db.write() as tx:
        dataset = datasets.announce(tx, steps.admin, request)
    return datasets.tickets(steps.objects, dataset, request)


def complete(steps, request) -> Dataset:
    with steps.db.read() as session:
        version = datasets.get_version(session, steps.admin.org, request.name, request.digest)
    lacking = datasets.missing(steps.objects, version)
    with steps.db.write() as tx:
        return datasets.complete(tx, steps.admin, request.name, request.digest, lacking)


def put(steps, content: bytes) -> None:
    key = f"datasets/default/{hashlib.sha256(content).hexdigest()}.tar"
    steps.objects.put(key, io.BytesIO(content))


def current(steps, name="digits") -> str:
    with steps.db.read() as session:
        return datasets.get_dataset(session, steps.admin.org, name).digest


def test_a_dataset_is_known_once_all_its_archives_have_arrived(steps):
    request = request_for(b"one", b"two")
    assert all(ticket.url for ticket in announce(steps, request))
    put(steps, b"one")
    with pytest.raises(Conflict) as refused:
        complete(steps, request)
    assert refused.value.code == "not_uploaded"
    with steps.db.read() as session, pytest.raises(NotFound):
        datasets.get_dataset(session, steps.admin.org, "digits")
    put(steps, b"two")
    assert complete(steps, request).stored_at == steps.clock()
    assert current(steps) == request.digest


def test_what_the_store_already_has_is_not_sent_again(steps):
    put(steps, b"one")
    first, second = announce(steps, request_for(b"one", b"two"))
    assert (first.url, bool(second.url)) == (None, True)
    put(steps, b"two")
    complete(steps, request_for(b"one", b"two"))
    again = announce(steps, request_for(b"one", b"two"))
    assert [ticket.url for ticket in again] == [None, None]


def test_an_archive_of_another_size_has_not_arrived(steps):
    request = request_for(b"one")
    announce(steps, request)
    steps.objects.put(
        f"datasets/default/{request.archives[0].sha256}.tar", io.BytesIO(b"oneandmore")
    )
    with pytest.raises(Conflict):
        complete(steps, request)


def test_a_name_stands_for_the_content_that_was_completed_last(steps):
    old, new = request_for(b"old"), request_for(b"new")
    for request, content in ((old, b"old"), (new, b"new"), (old, b"old")):
        announce(steps, request)
        put(steps, content)
        complete(steps, request)
        assert current(steps) == request.digest
    with steps.db.read() as session:
        listed, following = datasets.list_datasets(session, steps.admin.org, None, 10)
    assert ([found.digest for found in listed], following) == ([old.digest], None)


def test_what_was_never_announced_cannot_be_completed(steps):
    with pytest.raises(NotFound):
        complete(steps, request_for(b"one"))


def test_one_content_that_is_announced_by_eight_at_once_is_one_dataset(steps, together):
    request = request_for(b"one")
    together(lambda _: announce(steps, request), range(8))
    put(steps, b"one")
    complete(steps, request)
    with steps.db.read() as session:
        assert session.query(Dataset).count() == 1


def test_versions_that_are_completed_at_once_leave_one_current(steps, together):
    contents = [f"content {number}".encode() for number in range(6)]
    requests = [request_for(content) for content in contents]
    for request, content in zip(requests, contents, strict=True):
        announce(steps, request)
        put(steps, content)
    together(lambda request: complete(steps, request), requests)
    with steps.db.read() as session:
        assert session.query(Dataset).filter(Dataset.current).count() == 1


def test_lists_are_cut_into_pages(steps):
    for name in ("c", "a", "b"):
        announce(steps, request_for(b"x", name=name))
        put(steps, b"x")
        complete(steps, request_for(b"x", name=name))
    with steps.db.read() as session:
        first, after = datasets.list_datasets(session, steps.admin.org, None, 2)
        rest, end = datasets.list_datasets(session, steps.admin.org, after, 2)
    assert [found.name for found in first + rest] == ["a", "b", "c"]
    assert (after, end) == ("b", None)


def test_a_job_goes_where_there_is_room_for_its_datasets_and_says_so_while_there_is_none(steps):
    """Sizes are known from the registration: nothing is claimed, and no try used up."""
    announce(steps, request_for(b"part", b"large part", name="corpus"))
    with steps.db.write() as tx:
        row = tx.session.scalars(select(Dataset)).one()
        assert row.room == len(b"part") + 2 * len(b"large part")
        row.room, row.stored_at, row.current = 120 * 2**30, tx.now, True
    small, unknown = steps.join("small"), steps.join("other")
    steps.order(unknown, WorkerDesired.CORDONED)
    steps.beat(small, condition=Condition(content_room_gb=96.0))
    job_id = steps.submit(datasets=[{"name": "corpus"}], retry={"max_attempts": 1})
    assert steps.place() == 0
    with steps.db.read() as session:
        job = get_job(session, steps.admin, job_id)
        told = explaining.reasons(session, LiveQueue(), [job], steps.clock())[job_id]
    assert told.code == "no_room_for_datasets"
    assert "120 GiB" in told.message
    assert "small has most, 96 GiB" in told.message
    steps.beat(small, condition=Condition(content_room_gb=120.0))
    assert steps.place() == 1
    assert steps.job(job_id).tries_used == 0

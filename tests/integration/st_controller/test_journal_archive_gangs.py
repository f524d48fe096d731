"""Lines of several members are moved while some of them still write."""

import pytest
from controller_steps import log_line

from st_controller.services import journal_archive
from st_controller.services.journal_reading import JournalReader
from st_controller.store.schema import Attempt


@pytest.fixture
def members(steps):
    """Job, leader and follower of a gang that runs, each a worker and an attempt."""
    workers = [steps.join("w0"), steps.join("w1")]
    job_id = steps.submit(resources={"nodes": 2})
    steps.place()
    pairs = [(worker_id, steps.offered(worker_id)) for worker_id in workers]
    for pair in pairs:
        steps.claim(*pair)
    for pair in pairs:
        steps.run(*pair)
    with steps.db.read() as session:
        pairs.sort(key=lambda pair: session.get_one(Attempt, pair[1]).node)
    return job_id, *pairs


@pytest.fixture
def leader_is_over(steps, members):
    job_id, leader, follower = members
    steps.ship(*leader, [log_line(1), log_line(2)])
    steps.finish(*leader, last=2)
    return job_id, leader[1], follower


def due(steps):
    with steps.db.read() as session:
        return journal_archive.due(session)


def test_a_gang_is_over_with_its_last_member(steps, leader_is_over):
    _, leader_id, follower = leader_is_over
    assert due(steps) == []
    steps.finish(*follower)
    assert due(steps) == [leader_id]


def test_whoever_is_late_writes_over_nothing_that_another_has_recorded(
    steps, leader_is_over, monkeypatch
):
    job_id, leader_id, follower = leader_is_over
    put = steps.objects.put

    def late(key, body, sha256=None):
        monkeypatch.setattr(steps.objects, "put", put)
        steps.ship(*follower, [log_line(1, "more")])
        assert journal_archive.move(steps.db, steps.objects, leader_id)
        return put(key, body, sha256=sha256)

    monkeypatch.setattr(steps.objects, "put", late)
    assert not journal_archive.move(steps.db, steps.objects, leader_id)
    found = JournalReader(steps.db, steps.objects).read(job_id)
    assert [line.body["message"] for line in found] == ["line 1", "line 2", "[node 1] more"]
    assert len(list(steps.objects.list(f"jobs/{job_id}/journal/"))) == 1

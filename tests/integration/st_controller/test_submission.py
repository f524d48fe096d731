"""Submitting, listing and finding jobs."""

import hashlib
import io

import pytest
from controller_steps import document
from sqlalchemy import func, select

from st_controller.domain.policy.roles import Role
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from st_controller.services import claims, datasets, idempotency, job_lists, jobs, leases
from st_controller.store.schema import IdempotencyKey, Job
from st_shared.protocol.resources import ArchiveFile, DatasetRequest
from st_shared.protocol.states import JobState


def push(steps, name: str, content: bytes) -> str:
    """Register ``content`` under ``name`` as ``st datasets push`` does; gives its digest."""
    digest = hashlib.sha256(content).hexdigest()
    archive = ArchiveFile(size=len(content), sha256=digest)
    request = DatasetRequest(name=name, digest=digest, samples=1, archives=[archive])
    with steps.db.write() as tx:
        dataset = datasets.announce(tx, steps.admin, request)
    steps.objects.put(dataset.archives[0]["key"], io.BytesIO(content))
    with steps.db.write() as tx:
        datasets.complete(tx, steps.admin, name, digest, datasets.missing(steps.objects, dataset))
    return digest


def count(steps, table) -> int:
    with steps.db.read() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_the_same_key_and_body_give_the_same_job(steps):
    first = steps.submit_as(document(), key="k1")
    again = steps.submit_as(document(), key="k1")
    assert first == (again[0], True)
    assert again[1] is False
    assert count(steps, Job) == 1


def test_the_order_of_a_bodys_fields_does_not_matter(steps):
    body = document()
    first, _ = steps.submit_as(body, key="k1")
    assert steps.submit_as(dict(reversed(body.items())), key="k1") == (first, False)


@pytest.mark.parametrize("other", [document("other"), document(priority="low")])
def test_a_key_with_another_body_is_refused(steps, other):
    steps.submit_as(document(), key="k1")
    with pytest.raises(Conflict) as refused:
        steps.submit_as(other, key="k1")
    assert (refused.value.code, refused.value.status) == ("idempotency_mismatch", 409)
    assert count(steps, Job) == 1


def test_a_key_counts_for_a_day(steps, monkeypatch):
    monkeypatch.setattr(idempotency, "MOST_PRUNED", 2)
    first, _ = steps.submit_as(document(), key="k1")
    steps.clock.advance(0.5)
    for number in range(3):
        steps.submit_as(document(f"job-{number}"), key=f"early-{number}")
    steps.clock.advance(24 * 3600 - 0.5)
    steps.sweep()
    assert steps.submit_as(document(), key="k1") == (first, False)
    steps.clock.advance(30)
    steps.sweep()
    assert count(steps, IdempotencyKey) == 4  # looked for once a minute
    steps.clock.advance(30)
    for left in (2, 0):  # some at a time, without a rest while there are more
        steps.sweep()
        assert count(steps, IdempotencyKey) == left
    assert steps.submit_as(document(), key="k1")[1] is True


def test_a_key_belongs_to_one_user(steps):
    mine, _ = steps.submit_as(document(), key="k1")
    ann = steps.user("ann", Role.RESEARCHER)
    theirs, is_new = steps.submit_as(document(), ann, "k1")
    assert is_new
    assert theirs != mine
    assert steps.submit_as(document(), key="k1") == (mine, False)
    assert steps.submit_as(document(), ann, "k1") == (theirs, False)


def test_a_refused_submission_does_not_use_up_its_key(steps):
    with pytest.raises(InvalidRequest):
        steps.submit_as(document(datasets=[{"name": "later"}]), key="k1")
    assert count(steps, IdempotencyKey) == 0
    push(steps, "later", b"content")
    assert steps.submit_as(document(datasets=[{"name": "later"}]), key="k1")[1] is True


def test_eight_submissions_at_once_with_one_key_make_one_job(steps, together):
    answers = together(lambda _: steps.submit_as(document(), key="k1"), range(8))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    assert count(steps, Job) == 1


def test_of_two_bodies_at_once_with_one_key_one_is_refused(steps, together):
    def submit(name):
        try:
            return steps.submit_as(document(name), key="k1")
        except Conflict as refused:
            return refused.code

    answers = together(submit, ["one", "two"] * 3)
    made = {answer for answer in answers if answer != "idempotency_mismatch"}
    assert len({job_id for job_id, _ in made}) == 1
    assert answers.count("idempotency_mismatch") == 3
    assert count(steps, Job) == 1


def test_every_unknown_dataset_is_named_by_its_field(steps):
    push(steps, "known", b"content")
    wanted = [{"name": "nope"}, {"name": "known"}, {"path": "/data"}, {"name": "never"}]
    with pytest.raises(InvalidRequest) as refused:
        steps.submit(datasets=wanted)
    assert (refused.value.status, refused.value.code) == (422, "invalid_spec")
    assert [error.field for error in refused.value.errors] == [
        "training.datasets.0.name",
        "training.datasets.3.name",
    ]
    assert "st datasets push" in refused.value.errors[0].message


def test_an_announced_dataset_is_unknown_until_it_is_complete(steps):
    digest = hashlib.sha256(b"content").hexdigest()
    archive = ArchiveFile(size=7, sha256=digest)
    request = DatasetRequest(name="half", digest=digest, samples=1, archives=[archive])
    with steps.db.write() as tx:
        datasets.announce(tx, steps.admin, request)
    with pytest.raises(InvalidRequest):
        steps.submit(datasets=[{"name": "half"}])


def test_a_job_keeps_the_content_that_its_dataset_had_at_submission(steps):
    before = push(steps, "digits", b"old content")
    job_id = steps.submit(datasets=[{"name": "digits"}])
    after = push(steps, "digits", b"new content")
    worker = steps.join()
    steps.place()
    assert before != after
    with steps.db.write() as tx:
        attempt, job = leases.claim(tx, worker, steps.offered(worker), steps.patience)
        (dataset,) = claims.claim_reply(tx.session, steps.objects, attempt, job).datasets
    assert (job.id, dataset.name, dataset.digest) == (job_id, "digits", before)
    assert [archive.sha256 for archive in dataset.archives] == [before]
    with steps.db.read() as session:
        assert datasets.get_dataset(session, steps.admin.org, "digits").digest == after


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
def test_pages_have_neither_gaps_nor_doubles(steps, limit):
    made = []
    for number in range(7):
        made.append(steps.submit(f"job {number}"))
        steps.clock.advance(number % 2)  # some share their moment
    found, cursor, pages = [], None, 0
    while cursor or not pages:
        with steps.db.read() as session:
            page, cursor = job_lists.list_jobs(session, steps.admin, cursor=cursor, limit=limit)
        found += [(job.submitted_at, job.id) for job in page]
        pages += 1
        steps.submit("newer")  # what comes in between does not move the rest
    assert found == sorted(found, reverse=True)
    assert {job_id for _, job_id in found} == set(made)
    assert len(found) == 7
    assert pages == -(-7 // limit)


def test_lists_are_filtered_by_state(steps):
    kept, ended = steps.submit(), steps.submit()
    steps.cancel(ended)
    with steps.db.read() as session:
        queued, _ = job_lists.list_jobs(session, steps.admin, states=[JobState.QUEUED])
        both, _ = job_lists.list_jobs(
            session, steps.admin, states=[JobState.QUEUED, JobState.CANCELLED]
        )
    assert [job.id for job in queued] == [kept]
    assert {job.id for job in both} == {kept, ended}


def test_researchers_see_their_own_jobs_and_leads_those_of_their_teams(steps):
    ann, bob = steps.user("ann", Role.RESEARCHER), steps.user("bob", Role.RESEARCHER)
    lead = steps.user("lea", Role.LEAD)
    hers, his = steps.submit(actor=ann), steps.submit(actor=bob)

    def seen(actor):
        with steps.db.read() as session:
            return {job.id for job in job_lists.list_jobs(session, actor)[0]}

    assert (seen(ann), seen(bob), seen(lead)) == ({hers}, {his}, {hers, his})
    with steps.db.read() as session:
        assert jobs.get_job(session, lead, his).id == his
        with pytest.raises(NotFound):
            jobs.get_job(session, ann, his)
    with pytest.raises(NotFound):
        steps.cancel(his, ann)
    assert steps.job(his).state == JobState.QUEUED
    with pytest.raises(NotPermitted):
        steps.cancel(his, lead)
    steps.cancel(his, steps.user("max", Role.LEAD, allow=["job.cancel.all"]))
    assert steps.job(his).state == JobState.CANCELLED

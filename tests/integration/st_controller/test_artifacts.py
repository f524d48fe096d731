"""Artifacts: seen once they are whole; checkpoints are resumed from once they are complete."""

import hashlib
import json

import pytest
from controller_steps import file_of

from st_controller.api import worker as routes
from st_controller.errors import Conflict, InvalidRequest
from st_controller.services import artifacts, claims, finishing, leases
from st_controller.services.live_queue import News
from st_controller.store.transaction import QUEUE_JOB
from st_shared.protocol.states import AttemptState, Outcome
from st_shared.protocol.worker import ArtifactsStored, FinishRequest


@pytest.fixture
def lease(steps):
    """A claimed attempt: ``(worker, attempt, job)``."""
    job_id, worker_id = steps.submit(), steps.join()
    return worker_id, steps.claimed(worker_id), job_id


def manifest_of(step: int, **files: bytes) -> bytes:
    """A manifest that lists ``files``, named without their suffix ``.bin``."""
    listed = [
        {"path": f"{name}.bin", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        for name, body in files.items()
    ]
    return json.dumps({"step": step, "spec_sha256": "0" * 64, "files": listed}).encode()


def store_checkpoint(steps, worker_id, attempt_id, step: int, *, epoch=1, **files: bytes) -> None:
    folder = f"checkpoints/step-{step}"
    for name, body in files.items():
        steps.store(worker_id, attempt_id, f"{folder}/{name}.bin", body, epoch=epoch, step=step)
    manifest = manifest_of(step, **files)
    steps.store(worker_id, attempt_id, f"{folder}/manifest.json", manifest, epoch=epoch, step=step)


def visible(steps, job_id, **options) -> list[str]:
    with steps.db.read() as session:
        found, _ = artifacts.list_artifacts(
            session, job_id, **{"kind": None, "after_id": None, "limit": 50, **options}
        )
    return [artifact.path for artifact in found]


def offered_checkpoint(steps, worker_id):
    """What the next attempt is told to resume from."""
    steps.place()
    with steps.db.write() as tx:
        attempt, job = leases.claim(tx, worker_id, steps.offered(worker_id), steps.patience)
        return claims.claim_reply(tx.session, steps.objects, attempt, job).resume


def test_an_artifact_is_seen_once_its_upload_is_verified(steps, lease):
    worker_id, attempt_id, job_id = lease
    (ticket,) = steps.announce(worker_id, attempt_id, file_of("samples/a.png", b"a", "sample"))
    assert (ticket.path, visible(steps, job_id)) == ("samples/a.png", [])
    steps.put(ticket.artifact_id, b"a")
    assert visible(steps, job_id) == []
    steps.complete(worker_id, attempt_id, [ticket.artifact_id])
    assert visible(steps, job_id) == ["samples/a.png"]
    steps.complete(worker_id, attempt_id, [ticket.artifact_id])  # its answer was lost
    assert visible(steps, job_id, kind="checkpoint") == []


def test_an_upload_that_is_missing_or_damaged_is_refused(steps, lease):
    worker_id, attempt_id, job_id = lease
    (ticket,) = steps.announce(worker_id, attempt_id, file_of("samples/a.png", b"whole", "sample"))
    for stored, code in ((None, "not_uploaded"), (b"whol", "checksum"), (b"wholf", "checksum")):
        if stored is not None:
            steps.put(ticket.artifact_id, stored)
        with pytest.raises(Conflict) as refused:
            steps.complete(worker_id, attempt_id, [ticket.artifact_id])
        assert (refused.value.code, refused.value.status) == (code, 409)
        assert visible(steps, job_id) == []
    steps.put(ticket.artifact_id, b"whole")
    steps.complete(worker_id, attempt_id, [ticket.artifact_id])
    assert visible(steps, job_id) == ["samples/a.png"]


def test_a_stored_artifact_never_changes(steps, lease):
    worker_id, attempt_id, _ = lease
    artifact_id = steps.store(worker_id, attempt_id, "output/w.bin", b"one", "output")
    same, fresh = steps.announce(
        worker_id,
        attempt_id,
        file_of("output/w.bin", b"one", "output"),
        file_of("output/v.bin", b"two", "output"),
    )
    assert (same.artifact_id, same.url) == (artifact_id, None)
    assert fresh.url is not None
    with pytest.raises(Conflict) as refused:
        steps.announce(worker_id, attempt_id, file_of("output/w.bin", b"two", "output"))
    assert refused.value.code == "artifact_exists"


def test_what_is_not_stored_yet_may_be_announced_anew(steps, lease):
    worker_id, attempt_id, job_id = lease
    (first,) = steps.announce(worker_id, attempt_id, file_of("output/w.bin", b"one", "output"))
    (again,) = steps.announce(worker_id, attempt_id, file_of("output/w.bin", b"other", "output"))
    assert first.artifact_id == again.artifact_id
    steps.put(again.artifact_id, b"other")
    steps.complete(worker_id, attempt_id, [again.artifact_id])
    assert visible(steps, job_id) == ["output/w.bin"]


def test_a_path_that_is_named_twice_in_a_call_gets_one_artifact(steps, lease):
    worker_id, attempt_id, _ = lease
    file = file_of("output/w.bin", b"one", "output")
    first, second = steps.announce(worker_id, attempt_id, file, file)
    assert first.artifact_id == second.artifact_id


def test_artifacts_of_another_attempt_cannot_be_completed(steps, lease):
    worker_id, attempt_id, _ = lease
    (ticket,) = steps.announce(worker_id, attempt_id, file_of("output/w.bin", b"one", "output"))
    steps.submit("other")
    other = steps.join("other")
    other_attempt = steps.claimed(other)
    with pytest.raises(InvalidRequest):
        steps.complete(other, other_attempt, [ticket.artifact_id])


def test_a_checkpoint_is_complete_with_its_manifest_and_offered_to_the_next_attempt(steps, lease):
    worker_id, attempt_id, job_id = lease
    files = {"model": b"weights", "state": b"optimizer"}
    for name, body in files.items():
        steps.store(worker_id, attempt_id, f"checkpoints/step-000003/{name}.bin", body)
    assert steps.job(job_id).checkpoint_step is None
    manifest = manifest_of(3, **files)
    steps.store(worker_id, attempt_id, "checkpoints/step-000003/manifest.json", manifest)
    assert steps.job(job_id).checkpoint_step == 3
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    resume = offered_checkpoint(steps, worker_id)
    assert resume.step == 3
    expected = {**{f"{name}.bin": body for name, body in files.items()}, "manifest.json": manifest}
    assert {file.path: file.sha256 for file in resume.files} == {
        path: hashlib.sha256(body).hexdigest() for path, body in expected.items()
    }
    assert all(file.url.startswith("/v1/objects/jobs/") for file in resume.files)


def test_without_a_complete_checkpoint_there_is_nothing_to_resume_from(steps, lease):
    worker_id, attempt_id, _ = lease
    steps.store(worker_id, attempt_id, "checkpoints/step-000003/model.bin", b"weights")
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    assert offered_checkpoint(steps, worker_id) is None


def test_a_manifest_does_not_complete_while_a_file_is_missing_or_other(steps, lease):
    worker_id, attempt_id, job_id = lease
    folder = "checkpoints/step-000003"
    manifest = manifest_of(3, model=b"weights", state=b"optimizer")
    steps.store(worker_id, attempt_id, f"{folder}/model.bin", b"weights")
    (late,) = steps.announce(worker_id, attempt_id, file_of(f"{folder}/state.bin", b"optimizer"))
    steps.put(late.artifact_id, b"optimizer")  # arrived, but nobody has verified it
    for prepare in (lambda: None, lambda: other_content(steps, worker_id, attempt_id, folder)):
        prepare()
        with pytest.raises(Conflict) as refused:
            steps.store(worker_id, attempt_id, f"{folder}/manifest.json", manifest)
        assert refused.value.code == "incomplete"
        assert "state.bin" in refused.value.detail
        assert steps.job(job_id).checkpoint_step is None
        assert f"{folder}/manifest.json" not in visible(steps, job_id)


def other_content(steps, worker_id, attempt_id, folder) -> None:
    steps.store(worker_id, attempt_id, f"{folder}/state.bin", b"something else")


def test_files_of_another_folder_do_not_complete_a_checkpoint(steps, lease):
    worker_id, attempt_id, _ = lease
    steps.store(worker_id, attempt_id, "checkpoints/step-000030/model.bin", b"weights")
    with pytest.raises(Conflict):
        steps.store(
            worker_id,
            attempt_id,
            "checkpoints/step-000003/manifest.json",
            manifest_of(3, model=b"weights"),
        )


def test_a_manifest_and_its_files_may_be_completed_together(steps, lease):
    worker_id, attempt_id, job_id = lease
    bodies = {"manifest.json": manifest_of(3, model=b"weights"), "model.bin": b"weights"}
    tickets = steps.announce(
        worker_id, attempt_id, *(file_of(f"c/{path}", body) for path, body in bodies.items())
    )
    for ticket, body in zip(tickets, bodies.values(), strict=True):
        steps.put(ticket.artifact_id, body)
    steps.complete(worker_id, attempt_id, [ticket.artifact_id for ticket in tickets])
    assert steps.job(job_id).checkpoint_step == 3


def test_two_manifests_in_one_call_are_refused(steps, lease):
    worker_id, attempt_id, job_id = lease
    for step in (3, 6):
        steps.store(worker_id, attempt_id, f"c{step}/model.bin", b"weights")
    manifests = {step: manifest_of(step, model=b"weights") for step in (3, 6)}
    tickets = steps.announce(
        worker_id,
        attempt_id,
        *(file_of(f"c{step}/manifest.json", body) for step, body in manifests.items()),
    )
    for ticket, body in zip(tickets, manifests.values(), strict=True):
        steps.put(ticket.artifact_id, body)
    with pytest.raises(InvalidRequest):
        steps.complete(worker_id, attempt_id, [ticket.artifact_id for ticket in tickets])
    assert steps.job(job_id).checkpoint_step is None


def test_a_file_that_is_no_manifest_is_refused(steps, lease):
    worker_id, attempt_id, job_id = lease
    with pytest.raises(InvalidRequest):
        steps.store(worker_id, attempt_id, "c/manifest.json", b"{}")
    assert visible(steps, job_id) == []


def test_the_newest_checkpoint_wins_whichever_attempt_made_it(steps, lease):
    worker_id, attempt_id, job_id = lease
    store_checkpoint(steps, worker_id, attempt_id, 6, model=b"six")
    store_checkpoint(steps, worker_id, attempt_id, 3, model=b"three")
    assert steps.job(job_id).checkpoint_step == 6
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    second = steps.claimed(worker_id)
    store_checkpoint(steps, worker_id, second, 9, epoch=2, model=b"nine")
    steps.store(worker_id, second, "checkpoints/step-90/half.bin", b"no manifest yet", epoch=2)
    steps.finish(worker_id, second, Outcome.PREEMPTED, epoch=2)
    resume = offered_checkpoint(steps, worker_id)
    assert resume.step == 9
    assert {file.path for file in resume.files} == {"model.bin", "manifest.json"}


def test_complete_checkpoints_before_the_newest_are_named_too_newest_first(steps, lease):
    worker_id, attempt_id, _ = lease
    for step in (2, 4, 6):
        store_checkpoint(steps, worker_id, attempt_id, step, model=b"%d" % step)
    steps.store(worker_id, attempt_id, "checkpoints/step-7/half.bin", b"no manifest yet")
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    second = steps.claimed(worker_id)
    store_checkpoint(steps, worker_id, second, 8, epoch=2, model=b"8")
    steps.finish(worker_id, second, Outcome.PREEMPTED, epoch=2)
    steps.place()
    with steps.db.write() as tx:
        attempt, job = leases.claim(tx, worker_id, steps.offered(worker_id), steps.patience)
        reply = claims.claim_reply(tx.session, steps.objects, attempt, job)
    assert (reply.resume.step, [each.step for each in reply.older]) == (8, [6, 4])
    assert {file.path for file in reply.older[0].files} == {"model.bin", "manifest.json"}


def test_the_scheduler_is_told_of_a_checkpoint_at_once(steps, lease):
    worker_id, attempt_id, job_id = lease
    steps.clock.advance(20)
    told: list[frozenset[str]] = []
    steps.db.notify = told.append
    store_checkpoint(steps, worker_id, attempt_id, 3, model=b"three")
    assert steps.attempt(attempt_id).checkpoint_at == steps.clock()
    assert steps.job(job_id).changed_at == steps.clock()
    assert f"{QUEUE_JOB}{job_id}" in set().union(*told)


def test_an_older_checkpoint_that_comes_late_saves_no_work(steps, lease):
    worker_id, attempt_id, _ = lease
    store_checkpoint(steps, worker_id, attempt_id, 6, model=b"six")
    stored_at = steps.clock()
    steps.clock.advance(20)
    store_checkpoint(steps, worker_id, attempt_id, 3, model=b"three")
    assert steps.attempt(attempt_id).checkpoint_at == stored_at


@pytest.mark.parametrize("saved", [0, 1])
def test_who_stored_a_checkpoint_last_is_preempted(steps, saved):
    for name in ("one", "two"):
        steps.submit(name)
    workers = [steps.join("first"), steps.join("second")]
    steps.place()
    held = [steps.offered(worker_id) for worker_id in workers]
    for worker_id, attempt_id in zip(workers, held, strict=True):
        steps.claim(worker_id, attempt_id)
        steps.run(worker_id, attempt_id)
    steps.clock.advance(10)
    store_checkpoint(steps, workers[saved], held[saved], 3, model=b"three")
    news = News(jobs={steps.attempt(attempt_id).job_id for attempt_id in held})
    steps.rounds.place(steps.lead, news)
    steps.clock.advance(10)
    urgent = steps.submit("urgent", priority="urgent")
    assert steps.rounds.place(steps.lead, News(jobs={urgent})) == 0
    stops = [None, None]
    stops[saved] = "preempt"
    assert [steps.attempt(attempt_id).stop for attempt_id in held] == stops


def test_lists_are_cut_into_pages(steps, lease):
    worker_id, attempt_id, job_id = lease
    for number in range(5):
        steps.store(worker_id, attempt_id, f"samples/{number}.png", b"x", "sample")
    found, after, sizes = [], None, []
    while after or not sizes:
        with steps.db.read() as session:
            page, after = artifacts.list_artifacts(
                session, job_id, kind="sample", after_id=after, limit=2
            )
        found += [artifact.path for artifact in page]
        sizes.append(len(page))
    assert (sorted(found), sizes) == ([f"samples/{number}.png" for number in range(5)], [2, 2, 1])


def test_an_attempt_that_uploads_leaves_its_slots_to_the_next_job(steps, running):
    worker_id, attempt_id, job_id = running
    other_id = steps.submit("next")
    assert steps.place() == 0
    steps.clock.advance(1)
    steps.ship(worker_id, attempt_id, state=AttemptState.UPLOADING)
    assert (steps.job(job_id).state, steps.job(job_id).reason["code"]) == ("running", "uploading")
    assert steps.place() == 1
    other = steps.offered(worker_id)
    steps.claim(worker_id, other)
    assert steps.attempt(other).job_id == other_id
    steps.beat(worker_id, attempt_id, other)
    steps.finish(worker_id, attempt_id)
    assert (steps.job(job_id).state, steps.job(job_id).reason) == ("succeeded", None)


def test_a_job_tells_what_of_it_could_not_be_stored(steps, running):
    worker_id, attempt_id, job_id = running
    request = FinishRequest(
        epoch=1, outcome=Outcome.SUCCEEDED, last_seq=0, unstored=["w.bin: the store refused it."]
    )
    with steps.db.write() as tx:
        finishing.finish(tx, worker_id, attempt_id, request)
    job = steps.job(job_id)
    assert (job.state, job.reason["code"]) == ("succeeded", "not_all_stored")
    assert "w.bin: the store refused it." in job.reason["message"]


def test_the_store_is_not_asked_for_whoever_has_no_lease(steps, lease):
    worker_id, attempt_id, _ = lease
    (ticket,) = steps.announce(worker_id, attempt_id, file_of("output/w.bin", b"w", "output"))
    caller = steps.caller(worker_id)
    for epoch, code in ((1, "not_uploaded"), (2, "stale_lease")):
        done = ArtifactsStored(epoch=epoch, artifact_ids=[ticket.artifact_id])
        with pytest.raises(Conflict) as refused:
            routes.stored(steps.platform, caller, attempt_id, done)
        assert refused.value.code == code

"""Artifacts in parts: the agent's sender, the controller's services and a real S3 server."""

import asyncio
import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from bucket_server import connect, serve_buckets
from controller_steps import Steps
from sqlalchemy import update

from st_controller.api.artifact_parts import part_tickets
from st_controller.dispatch.upload_garbage import STRAY_AGE, UploadGarbage
from st_controller.errors import Conflict, InvalidRequest, StaleLease
from st_controller.store.schema import Artifact, ArtifactUpload, Job
from st_shared.objectstore import multipart
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import ArtifactFile, Lease, PartFile, PartsWanted
from st_worker import parts as parts_module
from st_worker.digests import digests_of, proven
from st_worker.errors import RequestRefused
from st_worker.parts import PartSender
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

MIB = 1 << 20
DATA = os.urandom(11 * MIB + 77)
"""Three parts of 5 MiB at most."""


@pytest.fixture(scope="module")
def nanio_url(tmp_path_factory):
    with serve_buckets(tmp_path_factory.mktemp("nanio")) as url:
        yield url


@pytest.fixture
def bucket(nanio_url):
    store = connect(nanio_url, "parts", f"{os.urandom(4).hex()}/")
    yield store
    store._client.close()


@pytest.fixture
def steps(steps, bucket, monkeypatch):
    """The usual steps, with the objects in a bucket and parts of 5 MiB."""
    monkeypatch.setattr(multipart, "SINGLE_PUT_BYTES", 5 * MIB)
    monkeypatch.setattr(multipart, "PART_BYTES", 5 * MIB)
    changed = Steps.__new__(Steps)
    changed.__dict__ |= steps.__dict__
    changed.objects, changed.platform = bucket, replace(steps.platform, objects=bucket)
    return changed


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    return path


class Direct:
    """The controller's part of the protocol, called without HTTP."""

    def __init__(self, steps, worker_id):
        self.steps, self.worker_id = steps, worker_id

    async def artifact_parts(self, attempt_id, wanted):
        return await asyncio.to_thread(
            part_tickets, self.steps.platform, self.worker_id, attempt_id, wanted
        )


class Killed(BaseException):
    """The agent is gone."""


class Watched(Transfer):
    """Notes what it sends, and dies before the part after ``lives``."""

    def __init__(self, lives=99):
        super().__init__("http://127.0.0.1:9", SETTINGS)
        self.sent, self.lives = [], lives

    async def send_part(self, path, start, size, url, headers):
        if len(self.sent) == self.lives:
            raise Killed
        self.sent.append(start // (5 * MIB) + 1)
        return await super().send_part(path, start, size, url, headers)


SETTINGS = AgentSettings(
    parts_at_once=1, first_backoff_seconds=0.001, most_backoff_seconds=0.001, transfer_tries=2
)


def lease(steps, name="w", **fields):
    job_id, worker_id = steps.submit(**fields), steps.join(name)
    return worker_id, steps.claimed(worker_id), job_id


def described(path, digests, **changes):
    found = ArtifactFile(
        path="output/weights.bin",
        kind="output",
        size=digests.size,
        sha256=digests.sha256,
        possession=digests.possession,
    )
    return found.model_copy(update=changes)


def upload(steps, worker_id, attempt_id, weights, transfer):
    """Announce and send, as the agent does; ticket and parts come back."""

    async def run():
        digests = await digests_of(weights)
        (ticket,) = steps.announce(worker_id, attempt_id, described(weights, digests))
        assert (ticket.url, ticket.part_bytes) == (None, 5 * MIB)
        held = Lease(attempt_id=attempt_id, epoch=1)
        sender = PartSender(Direct(steps, worker_id), transfer, held, SETTINGS)
        try:
            return ticket, await sender.send(weights, ticket, digests)
        finally:
            await transfer.close()

    return asyncio.run(run())


def store(steps, worker_id, attempt_id, weights):
    ticket, parts = upload(steps, worker_id, attempt_id, weights, Watched())
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])
    return ticket.artifact_id


def key_of(steps, artifact_id):
    with steps.db.read() as session:
        return session.get_one(Artifact, artifact_id).key


def recorded(steps):
    with steps.db.read() as session:
        return session.query(ArtifactUpload).count()


def test_an_upload_goes_on_after_the_agent_was_killed_and_sends_no_part_twice(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    with pytest.raises(BaseExceptionGroup) as died:
        upload(steps, worker_id, attempt_id, weights, Watched(lives=2))
    assert died.group_contains(Killed)
    again = Watched()
    ticket, parts = upload(steps, worker_id, attempt_id, weights, again)
    assert again.sent == [3]
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])
    stored = b"".join(steps.objects.open(key_of(steps, ticket.artifact_id)))
    assert hashlib.sha256(stored).hexdigest() == hashlib.sha256(DATA).hexdigest()
    assert recorded(steps) == 0
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])  # answer was lost


def test_an_agent_cuts_a_file_as_it_is_told(steps, weights, monkeypatch):
    """Not as it would itself: it may be older than its controller."""
    worker_id, attempt_id, _ = lease(steps)
    monkeypatch.setattr(parts_module, "part_sizes", partial(_cut_otherwise, multipart.part_sizes))
    ticket, parts = upload(steps, worker_id, attempt_id, weights, Watched())
    assert len(parts.parts) == 3
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])


def _cut_otherwise(cut, size, each=None):
    return cut(size, each or 6 * MIB)


def test_a_completion_whose_record_was_lost_is_found_done(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    ticket, parts = upload(steps, worker_id, attempt_id, weights, Watched())
    (begun,) = list(steps.objects.uploads.unfinished())
    digests = [
        multipart.PartDigest(number, size, part.sha256, part.md5)
        for number, (size, part) in enumerate(
            zip(multipart.part_sizes(len(DATA)), parts.parts, strict=True), 1
        )
    ]
    sha256 = hashlib.sha256(DATA).hexdigest()
    steps.objects.uploads.complete(begun.key, begun.upload_id, digests, sha256=sha256)
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])
    assert recorded(steps) == 0


def test_a_url_that_ran_out_is_renewed_in_the_middle_of_an_upload(steps, weights, monkeypatch):
    worker_id, attempt_id, _ = lease(steps)
    calls, uploads = [], steps.objects.uploads
    direct, sign = Direct.artifact_parts, uploads.sign_part

    def signed_long_ago(*args, **options):
        past = datetime.now(UTC) - timedelta(days=1)
        with monkeypatch.context() as patched:
            patched.setattr("botocore.auth.get_current_datetime", lambda *_, **__: past)
            return sign(*args, **options)

    async def old_at_first(self, attempt, wanted):
        calls.append([part.number for part in wanted.parts])
        if len(calls) > 1:
            return await direct(self, attempt, wanted)
        with monkeypatch.context() as patched:
            patched.setattr(uploads, "sign_part", signed_long_ago)
            return await direct(self, attempt, wanted)

    monkeypatch.setattr(Direct, "artifact_parts", old_at_first)
    transfer = Watched()
    ticket, parts = upload(steps, worker_id, attempt_id, weights, transfer)
    assert calls == [[1, 2, 3], [1], [2], [3]]
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])


def test_what_is_refused_for_ever_is_told(steps, weights, monkeypatch):
    worker_id, attempt_id, _ = lease(steps)
    direct = Direct.artifact_parts

    async def spoilt(self, attempt, wanted):
        found = await direct(self, attempt, wanted)
        return found.model_copy(
            update={
                "tickets": [
                    ticket.model_copy(
                        update={"url": ticket.url.replace("Signature=", "Signature=0")}
                    )
                    for ticket in found.tickets
                ]
            }
        )

    monkeypatch.setattr(Direct, "artifact_parts", spoilt)
    transfer = Watched()
    with pytest.raises(RequestRefused):
        upload(steps, worker_id, attempt_id, weights, transfer)
    assert transfer.sent.count(1) == SETTINGS.transfer_tries


def test_parts_that_are_others_are_refused(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    ticket, parts = upload(steps, worker_id, attempt_id, weights, Watched())
    few = parts.model_copy(update={"parts": parts.parts[:2]})
    swapped = parts.model_copy(update={"parts": parts.parts[::-1]})
    for told in ([], [few]):
        with pytest.raises(InvalidRequest, match=r"uploads: "):
            steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=told)
    with pytest.raises(Conflict):
        steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[swapped])
    wrong = parts.parts[0].model_copy(update={"md5": "0" * 32})
    lying = parts.model_copy(update={"parts": [wrong, *parts.parts[1:]]})
    with pytest.raises(Conflict) as refused:
        steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[lying])
    assert refused.value.code == "checksum"
    steps.complete(worker_id, attempt_id, [ticket.artifact_id], uploads=[parts])


def test_parts_need_the_lease_and_an_artifact_of_it(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    digests = asyncio.run(digests_of(weights))
    (ticket,) = steps.announce(worker_id, attempt_id, described(weights, digests))
    parts = [PartFile(number=4, sha256="0" * 64)]
    wanted = PartsWanted(epoch=1, artifact_id=ticket.artifact_id, parts=parts)
    with pytest.raises(InvalidRequest, match="has 3 parts, not 4"):
        part_tickets(steps.platform, worker_id, attempt_id, wanted)
    with pytest.raises(StaleLease):
        part_tickets(steps.platform, worker_id, attempt_id, wanted.model_copy(update={"epoch": 2}))
    other, other_attempt, _ = lease(steps, "other")
    with pytest.raises(InvalidRequest, match="artifact_id"):
        part_tickets(steps.platform, other, other_attempt, wanted)


def test_an_upload_that_the_store_lost_begins_anew(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    with pytest.raises(BaseExceptionGroup):
        upload(steps, worker_id, attempt_id, weights, Watched(lives=1))
    (begun,) = list(steps.objects.uploads.unfinished())
    steps.objects.uploads.abort(begun.key, begun.upload_id)
    with pytest.raises(Conflict) as lost:
        upload(steps, worker_id, attempt_id, weights, Watched())
    assert lost.value.code == "upload_lost"
    assert store(steps, worker_id, attempt_id, weights)


def test_abandoned_uploads_are_aborted_and_those_in_work_are_not(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    with pytest.raises(BaseExceptionGroup):
        upload(steps, worker_id, attempt_id, weights, Watched(lives=1))
    garbage = UploadGarbage(steps.platform)
    assert (garbage.sweep(), recorded(steps)) == (0, 1)
    steps.finish(worker_id, attempt_id, Outcome.FAILED)
    assert (garbage.sweep(), recorded(steps)) == (1, 0)
    assert list(steps.objects.uploads.unfinished()) == []
    assert garbage.sweep() == 0


def test_uploads_that_are_recorded_nowhere_are_aborted_once_they_are_old(steps):
    for key in ("jobs/1/1/x/weights.bin", "datasets/x.tar"):
        steps.objects.uploads.begin(key, size=9 * MIB, sha256="0" * 64)
    garbage = UploadGarbage(steps.platform)
    steps.clock.advance((datetime.now(UTC) - steps.clock()).total_seconds())
    assert garbage.sweep() == 0
    steps.clock.advance(STRAY_AGE.total_seconds() + 60)
    assert garbage.sweep() == 1
    assert [each.key for each in steps.objects.uploads.unfinished()] == ["datasets/x.tar"]


# -- content that is stored already ----------------------------------------------------------------


def announced(steps, worker_id, attempt_id, weights, **changes):
    digests = asyncio.run(proven(weights, asyncio.run(digests_of(weights))))
    file = described(weights, digests, **changes)
    (ticket,) = steps.announce(worker_id, attempt_id, file)
    return ticket


def test_equal_content_of_an_organisation_is_stored_once(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    first = store(steps, worker_id, attempt_id, weights)
    other, other_attempt, _ = lease(steps, "other")
    asked = announced(steps, other, other_attempt, weights, possession=None)
    assert (asked.is_known, asked.part_bytes) == (True, 5 * MIB)
    ticket = announced(steps, other, other_attempt, weights)
    assert (ticket.url, ticket.part_bytes) == (None, None)
    part = PartFile(number=1, sha256="0" * 64)  # for that key others have to answer
    wanted = PartsWanted(epoch=1, artifact_id=ticket.artifact_id, parts=[part])
    with pytest.raises(Conflict, match="is stored"):
        part_tickets(steps.platform, other, other_attempt, wanted)
    steps.complete(other, other_attempt, [ticket.artifact_id])
    assert key_of(steps, ticket.artifact_id) == key_of(steps, first)


def test_a_digest_alone_opens_nothing(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    store(steps, worker_id, attempt_id, weights)
    other, other_attempt, _ = lease(steps, "other")
    for possession in (None, "0" * 64):
        ticket = announced(steps, other, other_attempt, weights, possession=possession)
        assert ticket.part_bytes == 5 * MIB
        with pytest.raises(Conflict):
            steps.complete(other, other_attempt, [ticket.artifact_id])


def test_what_another_organisation_stored_is_sent_again(steps, weights):
    worker_id, attempt_id, job_id = lease(steps)
    store(steps, worker_id, attempt_id, weights)
    with steps.db.write() as tx:
        tx.session.execute(update(Job).where(Job.id == job_id).values(org="elsewhere"))
    other, other_attempt, _ = lease(steps, "other")
    asked = announced(steps, other, other_attempt, weights, possession=None)
    assert (asked.is_known, asked.part_bytes) == (False, 5 * MIB)
    assert announced(steps, other, other_attempt, weights).part_bytes == 5 * MIB


def test_what_was_announced_but_never_stored_is_no_content(steps, weights):
    worker_id, attempt_id, _ = lease(steps)
    announced(steps, worker_id, attempt_id, weights)
    other, other_attempt, _ = lease(steps, "other")
    assert announced(steps, other, other_attempt, weights).part_bytes == 5 * MIB

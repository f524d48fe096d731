"""URLs are signed, which may take long, while nobody waits for a lock."""

import asyncio
import hashlib
import json
from contextlib import contextmanager

import pytest
from controller_steps import file_of

from st_controller.api import worker as routes
from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import ArtifactOffer


@pytest.fixture
def signed(steps, monkeypatch):
    """For each URL that is signed, how many transactions were writing."""
    writing, found = [], []
    write, objects = steps.db.write, steps.objects
    sign_upload, sign_download = objects.sign_upload, objects.sign_download

    @contextmanager
    def counted(**options):
        with write(**options) as tx:
            writing.append(tx)
            try:
                yield tx
            finally:
                writing.remove(tx)

    def noting(sign):
        def noted(*args, **options):
            found.append(len(writing))
            return sign(*args, **options)

        return noted

    monkeypatch.setattr(steps.db, "write", counted)
    monkeypatch.setattr(objects, "sign_upload", noting(sign_upload))
    monkeypatch.setattr(objects, "sign_download", noting(sign_download))
    return found


def test_tickets_are_signed_after_the_commit(steps, running, signed):
    worker_id, attempt_id, _ = running
    offer = ArtifactOffer(epoch=1, files=[file_of("output/w.bin", b"w", "output", None)])
    routes.announce(steps.platform, steps.caller(worker_id), attempt_id, offer)
    assert signed == [0]


def test_downloads_are_signed_after_the_claim(steps, running, signed):
    worker_id, attempt_id, _ = running
    listed = [{"path": "w.bin", "size": 1, "sha256": hashlib.sha256(b"w").hexdigest()}]
    manifest = {"step": 3, "spec_sha256": "0" * 64, "files": listed}
    for name, body in {"w.bin": b"w", "manifest.json": json.dumps(manifest).encode()}.items():
        steps.store(worker_id, attempt_id, f"checkpoints/step-3/{name}", body)
    steps.finish(worker_id, attempt_id, Outcome.PREEMPTED)
    steps.place()
    signed.clear()
    offered = [steps.offered(worker_id)]
    claimed = asyncio.run(steps.platform.claims.take(steps.caller(worker_id), offered))
    assert claimed.claims[0].resume.step == 3
    assert signed == [0, 0]

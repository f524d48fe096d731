"""Two controllers on PostgreSQL, an external Valkey and S3, the way production runs."""

import hashlib
import os
import subprocess

import pytest
from bucket_server import ACCESS_KEY, SECRET_KEY, connect, serve_buckets
from fleet import BIN, ControllerProcess, Fleet, tiny_job, wait_for

from st_client import Client
from st_shared.clock import utc_now

BUCKET = "production"


@pytest.fixture
def production(empty_postgres_url, valkey_url, tmp_path):
    """Environment of every replica; `st-controller migrate` has made the schema."""
    with serve_buckets(tmp_path) as url:
        connect(url, BUCKET, "")._client.close()
        environment = {
            "ST_DATABASE_URL": empty_postgres_url,
            "ST_REDIS_URL": valkey_url,
            "ST_OBJECT_STORE": f"s3://{BUCKET}/runs",
            "ST_OBJECT_STORE_ENDPOINT": url,
            "ST_OBJECT_STORE_REGION": "us-east-1",
            "ST_OBJECT_STORE_ACCESS_KEY": ACCESS_KEY,
            "ST_OBJECT_STORE_SECRET_KEY": SECRET_KEY,
            "ST_SECRET_KEY": "0123456789abcdef0123456789abcdef",
        }
        migrate = [BIN / "st-controller", "migrate", "--data", tmp_path / "migration"]
        subprocess.run(migrate, env=os.environ | environment, check=True)
        yield environment


def lines_of(client, job_id):
    """Place and text of every log line and metric that a controller tells of."""
    logs = [(line.seq, line.message) for line in client.logs(job_id)]
    return sorted(logs + [(point.seq, point.values) for point in client.metrics(job_id)])


def written_in(journal):
    """The same of a worker's journal."""
    return [
        (event["seq"], event.get("message", event.get("values")))
        for event in journal
        if event["kind"] in {"log", "metric"}
    ]


def test_the_leader_is_killed_and_another_replica_goes_on(production, shades, tmp_path):
    leader = ControllerProcess(tmp_path / "a", production)
    leader.start()
    wait_for("the first leader", lambda: '"leading"' in leader.log)
    fleet = Fleet(tmp_path / "b", production)
    try:
        agent = fleet.add_agent(slots=2)
        fleet.client.push_dataset("shades", shades)
        first = fleet.client.submit(tiny_job(400)).id
        wait_for("the training", lambda: list(fleet.client.metrics(first)))
        assert '"leading"' not in fleet.controller.log

        leader.kill()
        killed_at = utc_now()
        second = fleet.client.submit(tiny_job(40)).id
        assert fleet.client.wait(second).state == "succeeded"
        assert fleet.client.wait(first).state == "succeeded"

        assert '"leading"' in fleet.controller.log
        [attempt] = fleet.client.attempts(second)
        assert 0 < (attempt.claimed_at - killed_at).total_seconds() < 10
        leader.start()
        with Client(leader.url, fleet.key) as other:
            for job_id, journal in zip((first, second), agent.journals(), strict=True):
                assert other.job(job_id).attempts == 1
                assert lines_of(other, job_id) == written_in(journal)
            for artifact in other.artifacts(second):
                assert artifact.url.startswith(production["ST_OBJECT_STORE_ENDPOINT"])
                file = other.download(second, artifact, tmp_path / "results")
                assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact.sha256
        assert leader.stop() == 0
    finally:
        if leader.process and leader.process.poll() is None:
            leader.kill()
        fleet.close()

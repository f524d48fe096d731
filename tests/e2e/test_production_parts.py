"""Two controllers on PostgreSQL, an external Valkey and S3, the way production runs."""

import hashlib

import pytest
from bucket_server import ACCESS_KEY, SECRET_KEY, connect, serve_buckets
from fleet import ControllerProcess, Fleet, tiny_job, wait_for

BUCKET = "production"


@pytest.fixture
def production(postgres_url, valkey_url, tmp_path):
    """Environment of every replica; the database is migrated already."""
    with serve_buckets(tmp_path) as url:
        connect(url, BUCKET, "")._client.close()
        yield {
            "ST_DATABASE_URL": postgres_url,
            "ST_REDIS_URL": valkey_url,
            "ST_OBJECT_STORE": f"s3://{BUCKET}/runs",
            "ST_OBJECT_STORE_ENDPOINT": url,
            "ST_OBJECT_STORE_REGION": "us-east-1",
            "ST_OBJECT_STORE_ACCESS_KEY": ACCESS_KEY,
            "ST_OBJECT_STORE_SECRET_KEY": SECRET_KEY,
            "ST_SECRET_KEY": "0123456789abcdef0123456789abcdef",
        }


def test_the_leader_is_killed_and_another_replica_goes_on(production, shades, tmp_path):
    leader = ControllerProcess(tmp_path / "a", production)
    leader.start()
    wait_for("the first leader", lambda: '"leading"' in leader.log)
    fleet = Fleet(tmp_path / "b", production)
    try:
        agent = fleet.add_agent()
        fleet.client.push_dataset("shades", shades)
        first = fleet.client.submit(tiny_job(400)).id
        wait_for("the training", lambda: list(fleet.client.metrics(first)))
        assert '"leading"' not in fleet.controller.log

        leader.kill()
        second = fleet.client.submit(tiny_job(40)).id
        assert fleet.client.wait(first).state == "succeeded"
        assert fleet.client.wait(second).state == "succeeded"

        assert '"leading"' in fleet.controller.log
        [attempt] = fleet.client.attempts(second)
        assert (attempt.claimed_at - fleet.client.job(first).finished_at).total_seconds() < 10
        journals = agent.journals()
        for job_id, journal in zip((first, second), journals, strict=True):
            written = [event["seq"] for event in journal if event["kind"] == "log"]
            assert [line.seq for line in fleet.client.logs(job_id)] == written
        for artifact in fleet.client.artifacts(second):
            assert artifact.url.startswith(production["ST_OBJECT_STORE_ENDPOINT"])
            file = fleet.client.download(second, artifact, tmp_path / "results")
            assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact.sha256
    finally:
        if leader.process and leader.process.poll() is None:
            leader.kill()
        fleet.close()

import pytest
from fastapi.testclient import TestClient


def local(app_client):
    """The same application, asked from this machine."""
    return TestClient(app_client.app, client=("127.0.0.1", 50_000))


def test_alive(app_client):
    assert app_client.get("/healthz").json() == {"status": "ok"}


def test_ready(app_client):
    told = app_client.get("/readyz").json()
    assert (told["ready"], told["database"]) == (True, "ready")


def test_another_schema_is_not_ready(app_client):
    with app_client.app.state.platform.db.write() as transaction:
        transaction.session.connection().exec_driver_sql("DELETE FROM alembic_version")
    reply = app_client.get("/readyz")
    assert (reply.status_code, reply.json()["database"]) == (503, "not_migrated")


def test_metrics_are_for_this_machine(app_client):
    text = local(app_client).get("/metrics").text
    assert 'st_jobs{state="queued"} 0.0' in text
    assert 'st_workers{state="online"} 0.0' in text
    for name in ("st_queue_wait_seconds", "st_attempts", "st_stream_connections"):
        assert f"# HELP {name}" in text


def test_metrics_are_for_holders_of_a_key(app_client, admin_headers):
    assert app_client.get("/metrics").status_code == 401
    assert app_client.get("/metrics", headers=admin_headers).status_code == 200


def test_metrics_are_for_everybody_where_that_is_wanted(settings):
    from st_controller.app import create_app

    app = create_app(settings.model_copy(update={"metrics_public": True}), dispatch=False)
    with TestClient(app) as client:
        assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs/job_1", "/v1/jobs/job_2"])
def test_requests_are_counted_by_route_not_by_path(app_client, path):
    app_client.get(path)
    text = local(app_client).get("/metrics").text
    assert 'route="/v1/jobs/{job_id}",status="401"' in text
    assert path not in text


def test_jobs_are_counted_by_state(platform):
    from st_controller.services.metrics import jobs_by_state

    with platform.db.read() as session:
        counted = jobs_by_state(session)
    assert set(counted.values()) == {0}
    assert "running" in counted

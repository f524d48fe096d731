"""A controller made of the resource models alone, served on loopback, for the client's tests."""

import hashlib
import socket
import threading
from datetime import UTC, datetime

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from st_client.cli import run
from st_shared.protocol.problems import FieldProblem, Problem
from st_shared.protocol.resources import (
    ApiKeyCreated,
    ArtifactView,
    DatasetRequest,
    DatasetTicket,
    DatasetTickets,
    DatasetView,
    JobArrayChange,
    JobArrayRequest,
    JobArrayView,
    JobBatch,
    JobBatchRequest,
    JobDetail,
    JobView,
    JoinTokenCreated,
    JoinTokenRequest,
    LoginRequest,
    Me,
    MetricCurve,
    Page,
    PriorityChange,
    SessionView,
    SetupRequest,
    SubmittedJob,
)
from st_shared.protocol.states import JobState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
API_KEY = "st_key_of_the_test"
PASSWORD = "correct horse battery"


def job_id(number):
    return f"job_{number:026d}"


def job_view(number, state="queued", **changes):
    fields = {
        "id": job_id(number),
        "name": f"digits-{number}",
        "state": state,
        "priority": "normal",
        "family": "pixel_dit",
        "submitted_by": "ada",
        "submitted_at": NOW,
        "started_at": None,
        "finished_at": None,
        "attempts": 0,
        "cancel_requested": False,
        "worker": None,
        "reason": None,
        "progress": None,
        "checkpoint_step": None,
        "version": 1,
    }
    return JobView(**fields | changes)


def array_view(**changes):
    fields = {
        "id": f"arr_{1:026d}", "name": "sweep", "submitted_by": "ada", "submitted_at": NOW,
        "size": 6, "max_running": None, "counts": {"queued": 4, "running": 2},
    }  # fmt: skip
    return JobArrayView(**fields | changes)


class FakeController:
    """What the routes answer; tests fill it and look at what it was sent."""

    def __init__(self):
        self.jobs, self.arrays, self.warnings, self.workers = {}, [], [], []
        self.logs, self.metrics, self.artifacts = [], [], []
        self.objects, self.datasets, self.requests = {}, {}, []
        self.page_size = 2
        self.event_scripts = []
        """One list a connection: encoded events, or an exception that breaks it off."""
        self.last_event_ids = []
        self.log_queries: list[dict[str, str]] = []
        self.measured: int | None = None
        self.followed_after: list[str | None] = []
        self.keys = {API_KEY}
        self.expired_urls = 0
        self.signed_headers = []

    def page(self, items, cursor):
        start = int(cursor or 0)
        end = start + self.page_size
        more = str(end) if end < len(items) else None
        return Page(items=items[start:end], next_cursor=more)


def problem(status, title, **fields):
    body = Problem(title=title, status=status, detail=fields.pop("detail", ""), **fields)
    return Response(body.model_dump_json(), status, media_type="application/problem+json")


def build_app(fake):
    app = FastAPI()

    @app.middleware("http")
    async def guard(request: Request, proceed):
        path = request.url.path
        fake.requests.append((request.method, path, dict(request.query_params)))
        if path.startswith("/v1/objects/"):
            fake.signed_headers.append(dict(request.headers))
            return await proceed(request)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        signed_in = bearer in fake.keys or request.cookies.get("session") == "s"
        if not signed_in and path not in {"/v1/auth/login", "/v1/auth/setup"}:
            return problem(401, "Sign in first", code="not_signed_in", hint="use st login")
        return await proceed(request)

    for add_routes in ADDITIONS:
        add_routes(app, fake)
    return app


def add_auth(app, fake):
    @app.post("/v1/auth/login")
    def login(body: LoginRequest, response: Response):
        if body.password != PASSWORD:
            return problem(401, "Wrong user name or password", code="bad_login")
        response.set_cookie("session", "s", httponly=True)
        return SessionView(username=body.username, expires_at=NOW)

    @app.post("/v1/auth/logout", status_code=204)
    def logout():
        return None

    @app.post("/v1/auth/setup", status_code=201)
    def setup(body: SetupRequest):
        if body.token != "once":
            return problem(403, "That setup token is not valid", code="bad_setup_token")
        return created_key("setup")

    @app.post("/v1/api-keys", status_code=201)
    def api_key(body: dict):
        return created_key(body["name"])

    def created_key(name):
        key = f"st_new_{name.replace(' ', '_')}"
        fake.keys.add(key)
        return ApiKeyCreated(
            id="key_1", name=name, prefix="st", scopes=None, created_at=NOW, expires_at=None,
            last_used_at=None, key=key,
        )  # fmt: skip

    @app.get("/v1/auth/me")
    def me():
        return Me(user_id="u", username="ada", role="admin", permissions=[], via="api_key")


def add_jobs(app, fake):
    @app.post("/v1/jobs", status_code=201)
    def submit(body: dict, request: Request):
        if body["name"] == "refused":
            errors = [FieldProblem(field="training.datasets.0.name", message="no such dataset")]
            return problem(422, "The request is not valid", code="invalid_request", errors=errors)
        fake.submitted = body
        fake.idempotency_key = request.headers["idempotency-key"]
        view = job_view(len(fake.jobs) + 1, name=body["name"])
        fake.jobs[view.id] = view
        return view

    @app.get("/v1/jobs")
    def jobs(
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        array: str | None = None,
        begins: str = "",
    ):
        found = [
            job
            for job in reversed(fake.jobs.values())
            if state in {None, job.state}
            and array in {None, job.array}
            and job.id.startswith(begins)
        ]
        return fake.page(found, cursor)

    @app.get("/v1/jobs/{job}")
    def show(job: str):
        if job not in fake.jobs:
            return problem(404, "Not found", detail=f"no job {job}", code="not_found")
        return JobDetail(**fake.jobs[job].model_dump(), spec={"name": "digits"})

    @app.get("/v1/jobs/{job}/attempts")
    def attempts(job: str):
        return Page(items=[])

    @app.post("/v1/jobs/{job}/cancel")
    def cancel(job: str):
        if fake.jobs[job].state.is_final:
            return problem(409, "Conflict", detail="it has ended", code="conflict")
        fake.jobs[job] = fake.jobs[job].model_copy(update={"cancel_requested": True})
        return fake.jobs[job]


def add_steering(app, fake):
    @app.post("/v1/jobs:batch", status_code=201)
    def batch(body: JobBatchRequest, request: Request):
        fake.submitted = body.jobs
        fake.idempotency_key = request.headers["idempotency-key"]
        told = [SubmittedJob(id=job_id(place), name=job["name"], warnings=fake.warnings)
                for place, job in enumerate(body.jobs, 1)]  # fmt: skip
        return JobBatch(jobs=told)

    @app.post("/v1/jobs/{job}/retry")
    def retry(job: str):
        fake.jobs[job] = fake.jobs[job].model_copy(update={"state": JobState.QUEUED})
        return fake.jobs[job]

    @app.post("/v1/jobs/{job}/priority")
    def prioritise(job: str, body: PriorityChange):
        changes = body.model_dump(exclude_unset=True)
        fake.jobs[job] = fake.jobs[job].model_copy(update=changes)
        return fake.jobs[job]


def add_arrays(app, fake):
    @app.post("/v1/job-arrays", status_code=201)
    def sweep(body: JobArrayRequest, request: Request):
        fake.submitted = body.model_dump(by_alias=True, exclude_none=True)
        fake.idempotency_key = request.headers["idempotency-key"]
        fake.arrays = [array_view(name=body.name or "sweep", warnings=fake.warnings)]
        return fake.arrays[0]

    @app.get("/v1/job-arrays")
    def arrays(begins: str = ""):
        return Page(items=[array for array in fake.arrays if array.id.startswith(begins)])

    @app.get("/v1/job-arrays/{array}")
    def show(array: str):
        return fake.arrays[0]

    @app.post("/v1/job-arrays/{array}/cancel")
    def cancel(array: str):
        return fake.arrays[0].model_copy(update={"counts": {JobState.CANCELLED: 6}})

    @app.patch("/v1/job-arrays/{array}")
    def cap(array: str, body: JobArrayChange):
        fake.arrays[0] = fake.arrays[0].model_copy(update={"max_running": body.max_running})
        return fake.arrays[0]


def add_job_parts(app, fake):
    @app.get("/v1/jobs/{job}/logs")
    def logs(job: str, request: Request, after: str | None = None, tail: int | None = None):
        fake.log_queries.append(dict(request.query_params))
        return fake.page(fake.logs[-tail:] if tail else fake.logs, after)

    @app.get("/v1/jobs/{job}/metrics:curve")
    def curve(job: str, points: int):
        return MetricCurve(items=fake.metrics[:points], total=fake.measured or len(fake.metrics))

    @app.get("/v1/jobs/{job}/metrics")
    def metrics(job: str, after: str | None = None):
        return fake.page(fake.metrics, after)

    @app.get("/v1/jobs/{job}/artifacts")
    def artifacts(job: str, kind: str | None = None, cursor: str | None = None):
        return fake.page([item for item in fake.artifacts if kind in {None, item.kind}], cursor)

    @app.get("/v1/jobs/{job}/events")
    def events(job: str, request: Request):
        fake.last_event_ids.append(request.headers.get("last-event-id"))
        fake.followed_after.append(request.query_params.get("after"))
        script = fake.event_scripts.pop(0)
        if isinstance(script, int):
            return Response(status_code=script)
        return StreamingResponse(iter(script), media_type="text/event-stream")


def add_workers(app, fake):
    @app.get("/v1/workers")
    def workers():
        return Page(items=fake.workers)

    @app.post("/v1/join-tokens", status_code=201)
    def join_tokens(body: JoinTokenRequest):
        fake.join_request = body
        return JoinTokenCreated(
            id="tok_1", created_at=NOW, expires_at=NOW, uses_left=body.uses, labels=body.labels,
            token="join-me",
        )  # fmt: skip


def add_datasets(app, fake):
    @app.post("/v1/datasets")
    def datasets(body: DatasetRequest):
        fake.dataset_request = body
        return DatasetTickets(
            tickets=[
                DatasetTicket(
                    sha256=item.sha256,
                    url=None if item.sha256 in fake.objects else f"/v1/objects/{item.sha256}?sig=x",
                    headers={"x-checksum": item.sha256},
                )
                for item in body.archives
            ]
        )

    @app.post("/v1/datasets/{name}/complete")
    def complete(name: str, body: dict):
        request = fake.dataset_request
        fake.datasets[name] = DatasetView(
            name=name, digest=body["digest"], samples=request.samples,
            size=sum(item.size for item in request.archives), created_at=NOW, created_by="ada",
        )  # fmt: skip
        return fake.datasets[name]

    @app.get("/v1/datasets")
    def list_datasets():
        return Page(items=list(fake.datasets.values()))

    @app.get("/v1/datasets/{name}")
    def dataset(name: str):
        return fake.datasets.get(name) or problem(404, "Not found", code="not_found")

    @app.put("/v1/objects/{key}")
    async def put_object(key: str, request: Request):
        body = await request.body()
        if hashlib.sha256(body).hexdigest() != key:
            return Response(status_code=400)
        fake.objects[key] = body
        return Response(status_code=200)

    @app.get("/v1/objects/{key}")
    def get_object(key: str):
        if fake.expired_urls:
            fake.expired_urls -= 1
            return problem(403, "This URL has expired", code="expired")
        return Response(fake.objects[key])


def add_artifact(fake, path, data, *, kind="output", attempt=1, sha256=None):
    digest = hashlib.sha256(data).hexdigest()
    fake.objects[digest] = data
    fake.artifacts.append(
        ArtifactView(
            id=f"art_{len(fake.artifacts)}",
            attempt=attempt,
            kind=kind,
            path=path,
            size=len(data),
            sha256=sha256 or digest,
            step=None,
            created_at=NOW,
            url=f"/v1/objects/{digest}?sig=x",
        )
    )


ADDITIONS = (
    add_auth,
    add_jobs,
    add_steering,
    add_arrays,
    add_job_parts,
    add_workers,
    add_datasets,
)


@pytest.fixture
def fake_controller():
    return FakeController()


@pytest.fixture
def fake_app(fake_controller):
    return build_app(fake_controller)


@pytest.fixture
def fake_url(fake_app):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who comes before the server is up waits for it
    config = uvicorn.Config(fake_app, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def st_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ST_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("ST_URL", "ST_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "config"


@pytest.fixture
def st_run(fake_url, st_home, monkeypatch, capsys):
    """Runs ``st`` signed in; gives exit code, standard output and standard error."""
    monkeypatch.setenv("ST_URL", fake_url)
    monkeypatch.setenv("ST_API_KEY", API_KEY)

    def st(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return st


@pytest.fixture
def make_job():
    """Makes the view of a job from its number."""
    return job_view


@pytest.fixture
def add_file(fake_controller):
    """Stores a file of the job and lists it as an artifact."""

    def add(path, data, **options):
        add_artifact(fake_controller, path, data, **options)

    return add

"""A controller without HTTP and without background services: each test says what happens when."""

import hashlib
import io

from sqlalchemy import select

from st_controller.dispatch.rounds import Rounds
from st_controller.domain.policy.roles import Role
from st_controller.platform import Platform
from st_controller.services import (
    artifact_uploads,
    artifacts,
    finishing,
    jobs,
    journal,
    leases,
    outbox,
    rights,
    submission,
    views,
    worker_orders,
    workers,
)
from st_controller.services.actor import Actor
from st_controller.services.caller import WorkerCaller
from st_controller.store.schema import (
    Artifact,
    Attempt,
    AuditEntry,
    Job,
    JoinToken,
    Membership,
    Organisation,
    Team,
    User,
    UserGrant,
    Worker,
)
from st_shared.ids import new_id
from st_shared.protocol.states import AttemptState, Outcome
from st_shared.protocol.worker import (
    ArtifactFile,
    Failure,
    FinishRequest,
    Heartbeat,
    Inventory,
    Lease,
    RegisterRequest,
    Slot,
)

AT = "2026-01-01T00:00:00Z"


class Steps:
    """Drives the services as the API and the dispatcher do, one step at a call."""

    def __init__(self, platform: Platform, clock) -> None:
        self.platform, self.db, self.clock = platform, platform.db, clock
        self.objects, self.patience = platform.objects, platform.patience
        self.rounds = Rounds(self.db, self.patience)
        self.lead = self.rounds.seek("ctl_test", alone=True)
        self.admin = self.user("root", Role.ADMIN)

    def user(self, name: str, role: str, org="default", *teams: str, allow=(), deny=()) -> Actor:
        """A user of an organisation and of its teams, of which the first is their own."""
        teams = teams or ("default",)
        with self.db.write() as tx:
            self._tenants(tx, org, teams)
            user = User(
                id=new_id("usr"),
                username=name,
                password_hash="x",
                role=role,
                org=org,
                team=teams[0],
                created_at=tx.now,
                disabled_at=None,
            )
            tx.session.add(user)
            tx.session.flush()
            tx.session.add_all(Membership(user_id=user.id, org=org, team=team) for team in teams)
            for effect, permissions in (("allow", allow), ("deny", deny)):
                tx.session.add_all(
                    UserGrant(user_id=user.id, permission=permission, effect=effect)
                    for permission in permissions
                )
        return self.actor(user.id)

    def actor(self, user_id: str) -> Actor:
        """A user as they may act now."""
        with self.db.read() as session:
            rows = session.execute(rights.rights_query().where(User.id == user_id)).all()
            return rights.actor(rights.rights_of(rows))

    def _tenants(self, tx, org: str, teams) -> None:
        if tx.session.get(Organisation, org) is None:
            tx.session.add(
                Organisation(
                    slug=org, name=org, time_zone="UTC", created_at=tx.now, disabled_at=None
                )
            )
            tx.session.flush()
        for team in teams:
            if tx.session.get(Team, (org, team)) is None:
                tx.session.add(
                    Team(org=org, slug=team, name=team, created_at=tx.now, archived_at=None)
                )
        tx.session.flush()

    def submit(self, name="job", *, actor=None, key=None, **fields) -> str:
        """A new job, as ``submit_as`` makes it; gives its id."""
        return self.submit_as(document(name, **fields), actor, key)[0]

    def submit_as(self, body, actor=None, key=None) -> tuple[str, bool]:
        with self.db.write() as tx:
            job, is_new = submission.submit(tx, actor or self.admin, body, key)
            return job.id, is_new

    def join(self, name="w", *, slots=1, own=None, given=None, **fields) -> str:
        """A worker that has joined with a token and registered; gives its id."""
        with self.db.write() as tx:
            token = JoinToken(
                id=new_id("join"),
                token_hash=hashlib.sha256(name.encode()).hexdigest(),
                created_by=self.admin.user_id,
                created_at=tx.now,
                expires_at=tx.now,
                uses_left=1,
                labels=given or {},
                revoked_at=None,
            )
            tx.session.add(token)
            request = registration(name, slots=slots, labels=own or {}, **fields)
            digest = hashlib.sha256(b"credential " + name.encode()).hexdigest()
            worker = workers.join(tx, token, request, digest)
            workers.register(tx, worker, request, self.patience)
            return worker.id

    def register(self, worker_id: str, *, holding=(), **fields) -> list[str]:
        with self.db.write() as tx:
            worker = workers.get_worker(tx.session, worker_id, lock=True)
            request = registration(worker.name, holding=list(holding), **fields)
            return workers.register(tx, worker, request, self.patience)

    def beat(
        self,
        worker_id: str,
        *attempt_ids: str,
        epoch=1,
        leaving=False,
        usage=None,
        condition=None,
        used=None,
        ended=False,
    ):
        holding = [
            Lease(attempt_id=attempt_id, epoch=epoch, used_seconds=used, ended=ended)
            for attempt_id in attempt_ids
        ]
        with self.db.write() as tx:
            worker = workers.get_worker(tx.session, worker_id, lock=True)
            told = Heartbeat(holding=holding, usage=usage, leaving=leaving, condition=condition)
            return workers.heartbeat(tx, worker, told, self.patience)

    def place(self) -> int:
        return self.rounds.place(self.lead)

    def sweep(self) -> None:
        self.rounds.sweep(self.lead)

    def wait(self, seconds: float, *, alive=()) -> None:
        """Let time pass and sweep; workers that are ``alive`` send heartbeats without leases."""
        self.clock.advance(seconds)
        for worker_id in alive:
            self.beat(worker_id)
        self.sweep()

    def offers(self, worker_id: str) -> list[str]:
        """The attempts that are offered to this worker."""
        with self.db.read() as session:
            offers = workers.sync(session, session.get_one(Worker, worker_id)).offers
        return [offer.attempt_id for offer in offers]

    def offered(self, worker_id: str) -> str:
        """The one attempt that is offered to this worker."""
        (attempt_id,) = self.offers(worker_id)
        return attempt_id

    def caller(self, worker_id: str) -> WorkerCaller:
        """The worker, as its credential shows it."""
        worker = self.worker(worker_id)
        return WorkerCaller(worker_id, worker.name, worker.credential_hash, worker.one_job)

    def claim_in(self, tx, worker_id: str, attempt_id: str) -> None:
        leases.claim(tx, worker_id, attempt_id, self.patience)

    def claim(self, worker_id: str, attempt_id: str) -> int:
        """Claim an offer; gives the epoch of the lease."""
        with self.db.write() as tx:
            attempt, _ = leases.claim(tx, worker_id, attempt_id, self.patience)
            return attempt.epoch

    def claimed(self, worker_id: str) -> str:
        """Place, and claim what this worker is offered; gives the attempt's id."""
        self.place()
        attempt_id = self.offered(worker_id)
        self.claim(worker_id, attempt_id)
        return attempt_id

    def ship(self, worker_id, attempt_id, lines=(), *, epoch=1, state=None, used=None) -> int:
        """Send journal lines as the worker does; gives what is acknowledged."""
        with self.db.write() as tx:
            attempt, job = leases.held(tx, worker_id, attempt_id, epoch)
            if state:
                leases.advance(tx, attempt, job, state, used)
            journal.append(tx, attempt, job, journal.Batch.of(list(lines)))
            return attempt.acked_seq

    def run(self, worker_id: str, attempt_id: str, *, epoch=1) -> None:
        self.ship(worker_id, attempt_id, epoch=epoch, state=AttemptState.RUNNING)

    def finish(
        self,
        worker_id,
        attempt_id,
        outcome=Outcome.SUCCEEDED,
        *,
        epoch=1,
        last=0,
        failure=None,
        used=None,
    ) -> None:
        with self.db.write() as tx:
            said = Failure(kind=failure, message="it broke") if failure else None
            request = FinishRequest(
                epoch=epoch, outcome=outcome, last_seq=last, failure=said, used_seconds=used
            )
            finishing.finish(tx, worker_id, attempt_id, request)

    def announce(self, worker_id, attempt_id, *files: ArtifactFile, epoch=1):
        with self.db.write() as tx:
            attempt, _ = leases.held(tx, worker_id, attempt_id, epoch)
            announced = artifacts.announce(tx, attempt, files)
        return artifacts.tickets(self.objects, announced)

    def complete(self, worker_id, attempt_id, artifact_ids, *, epoch=1, uploads=()) -> None:
        with self.db.read() as session:
            waiting = artifacts.unstored(session, attempt_id, artifact_ids)
            begun = artifact_uploads.ids_of(session, waiting)
        possessions = artifact_uploads.complete(self.objects, waiting, begun, uploads)
        artifacts.verify(self.objects, waiting)
        manifest = artifacts.read_manifest(self.objects, waiting)
        with self.db.write() as tx:
            attempt, job = leases.held(tx, worker_id, attempt_id, epoch)
            artifacts.complete(tx, attempt, job, artifact_ids, manifest, possessions)

    def put(self, artifact_id: str, body: bytes) -> None:
        """Store bytes under an artifact's key, past the signed URL."""
        with self.db.read() as session:
            key = session.get_one(Artifact, artifact_id).key
        self.objects.put(key, io.BytesIO(body))

    def store(
        self, worker_id, attempt_id, path, body: bytes, kind="checkpoint", epoch=1, step=3
    ) -> str:
        """Announce, upload and complete one file; gives the artifact's id."""
        file = file_of(path, body, kind, step)
        (ticket,) = self.announce(worker_id, attempt_id, file, epoch=epoch)
        self.put(ticket.artifact_id, body)
        self.complete(worker_id, attempt_id, [ticket.artifact_id], epoch=epoch)
        return ticket.artifact_id

    def cancel(self, job_id: str, actor: Actor | None = None) -> None:
        with self.db.write() as tx:
            jobs.cancel(tx, actor or self.admin, job_id)

    def order(self, worker_id: str, desired, **how) -> None:
        with self.db.write() as tx:
            worker_orders.order(tx, "root", worker_id, desired, **how)

    def relay(self) -> None:
        """Give places to all events."""
        more = True
        while more:
            with self.db.write() as tx:
                more = outbox.assign_positions(tx)

    def events(self, *topics: str, after: int = 0):
        self.relay()
        with self.db.read() as session:
            return outbox.events_after(session, topics, after, limit=100_000)

    def job(self, job_id: str) -> Job:
        with self.db.read() as session:
            return session.get_one(Job, job_id)

    def attempt(self, attempt_id: str) -> Attempt:
        with self.db.read() as session:
            return session.get_one(Attempt, attempt_id)

    def worker(self, worker_id: str) -> Worker:
        with self.db.read() as session:
            return session.get_one(Worker, worker_id)

    def worker_views(self, actor: Actor | None = None):
        with self.db.read() as session:
            found = workers.list_workers(session)
            return views.worker_views(session, actor or self.admin, found)

    def audit_of(self, target: str) -> list[AuditEntry]:
        with self.db.read() as session:
            return list(session.scalars(select(AuditEntry).where(AuditEntry.target == target)))


def document(name="job", **fields) -> dict:
    """A job file; ``datasets`` replaces the training's, anything else is set at the top."""
    datasets = fields.pop("datasets", [{"path": "/data"}])
    training = {"model": {"family": "pixel_dit"}, "datasets": datasets, "steps": 3}
    return {"name": name, "training": training, **fields}


def published(uri: str) -> dict:
    """A job file whose result goes to a bucket."""
    body = document()
    body["training"]["publish"] = [{"kind": "s3", "uri": uri}]
    return body


def registration(name="w", *, slots=1, labels=None, holding=(), **fields) -> RegisterRequest:
    places = [Slot(index=index, accelerator="cpu", memory_gb=8) for index in range(slots)]
    inventory = Inventory(
        hostname="h", slots=places, cpus=2, memory_gb=8, disk_free_gb=10, platform="linux"
    )
    return RegisterRequest(
        name=name,
        agent_version="1",
        inventory=inventory,
        labels=labels or {},
        holding=list(holding),
        **fields,
    )


def file_of(path: str, body: bytes, kind="checkpoint", step: int | None = 3) -> ArtifactFile:
    digest = hashlib.sha256(body).hexdigest()
    return ArtifactFile(path=path, kind=kind, size=len(body), sha256=digest, step=step)


def log_line(seq: int, message: str | None = None) -> dict:
    return {"seq": seq, "at": AT, "kind": "log", "message": message or f"line {seq}"}


def metric_line(seq: int, step: int = 1, loss: float = 0.5) -> dict:
    return {"seq": seq, "at": AT, "kind": "metric", "step": step, "values": {"loss": loss}}


def progress_line(seq: int, step: int = 1, **fields) -> dict:
    progress = {"phase": "training", "step": step, "steps": 9}
    return {"seq": seq, "at": AT, "kind": "progress", **progress, **fields}

"""The queue as its users and workers meet it over HTTP; the test itself says when it decides."""

import pytest
from controller_steps import registration
from sqlalchemy import select

from st_controller.dispatch.rounds import Rounds
from st_controller.domain.policy.roles import Role
from st_controller.services import endings, leases
from st_controller.services.live_queue import LiveQueue, News
from st_controller.services.setup import add_user
from st_controller.store.schema import Attempt, AuditEntry, Job, JobTransition, OutboxEvent
from st_shared.protocol.states import JobState, Outcome

PASSWORD = "correct horse battery"


class Life:
    """An application without a dispatcher: people, workers, and rounds when they are asked for."""

    def __init__(self, client, admin_headers) -> None:
        self._client, self.root = client, admin_headers
        self.platform = client.app.state.platform
        self.clock = self.platform.db.clock
        self.restart()

    def restart(self) -> None:
        """Another controller takes over; it knows what the database says."""
        self.rounds = Rounds(self.platform.db, self.platform.patience, LiveQueue())
        self.lead = self.rounds.seek("ctl_test", alone=True)

    def post(self, path: str, body=None, headers=None):
        return self._client.post(f"/v1/{path}", json=body, headers=headers or self.root)

    def get(self, path: str):
        reply = self._client.get(f"/v1/{path}", headers=self.root)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def put(self, path: str, body) -> None:
        assert self._client.put(f"/v1/{path}", json=body, headers=self.root).status_code == 200

    def person(self, name: str) -> dict[str, str]:
        """Headers of a researcher of the team ``default/default``."""
        with self.platform.db.write() as tx:
            add_user(tx, name, PASSWORD, Role.RESEARCHER, actor="test")
        same = {"Sec-Fetch-Site": "same-origin"}
        self.post("auth/login", {"username": name, "password": PASSWORD}, same)
        key = self.post("api-keys", {"name": "k"}, same).json()["key"]
        self._client.cookies.clear()
        return {"Authorization": f"Bearer {key}"}

    def submit(self, name="job", headers=None, **fields) -> str:
        reply = self.post("jobs", {"name": name, "noop": {"seconds": 0}, **fields}, headers)
        assert reply.status_code == 201, reply.text
        return reply.json()["id"]

    def join(self, name="w", *, slots=1, labels=None, **slot) -> "Agent":
        token = self.post("join-tokens", {}).json()["token"]
        body = registration(name, slots=slots, labels=labels).model_dump(mode="json")
        for place in body["inventory"]["slots"]:
            place.update(slot)
        reply = self.post("worker/register", body, {"Authorization": f"Bearer {token}"})
        return Agent(self, {"Authorization": f"Bearer {reply.json()['credential']}"}, body)

    def place(self, *news: str) -> int:
        """Decide after news of these jobs, or of everything; how many were offered."""
        return self.rounds.place(self.lead, News(jobs=set(news)) if news else None)

    def newest_attempt(self, job_id: str) -> str:
        return self.get(f"jobs/{job_id}/attempts")["items"][-1]["id"]

    def offered(self, *job_ids: str) -> list[str]:
        """Which of these jobs are offered or run."""
        states = {job_id: self.get(f"jobs/{job_id}")["state"] for job_id in job_ids}
        return [job_id for job_id in job_ids if states[job_id] != "queued"]

    def traces(self):
        """All that anything would leave behind."""
        with self.platform.db.read() as session:
            return [
                session.execute(select(*table.__table__.columns)).all()
                for table in (Job, Attempt, JobTransition, AuditEntry, OutboxEvent)
            ]


class Agent:
    """A worker."""

    def __init__(self, life: Life, headers, body) -> None:
        self._life, self._headers, self._body = life, headers, body

    def post(self, call: str, body=None):
        return self._life.post(f"worker/{call}", body, self._headers)

    def register(self, *attempt_ids: str):
        holding = [{"attempt_id": attempt_id, "epoch": 1} for attempt_id in attempt_ids]
        return self.post("register", {**self._body, "holding": holding})

    def claim(self, attempt_id: str) -> None:
        assert self.post(f"attempts/{attempt_id}/claim").status_code == 200

    def finish(self, attempt_id: str, epoch: int = 1):
        done = {"epoch": epoch, "outcome": "succeeded", "last_seq": 0}
        return self.post(f"attempts/{attempt_id}/finish", done)


@pytest.fixture
def life(app_client, admin_headers) -> Life:
    return Life(app_client, admin_headers)


def test_a_worker_that_comes_back_with_its_lease_gets_no_second_job(life):
    agent, first, second = life.join(), life.submit("first"), life.submit("second")
    assert life.place() == 1
    attempt_id = life.newest_attempt(first)
    agent.claim(attempt_id)
    assert agent.register(attempt_id).json()["abandon"] == []
    assert life.place() == 0
    life.restart()
    assert life.place() == 0
    assert life.offered(first, second) == [first]


def test_the_late_end_of_a_job_that_a_spare_worker_has_is_refused_and_changes_nothing(life):
    lost, job_id = life.join("lost"), life.submit()
    life.place()
    old = life.newest_attempt(job_id)
    lost.claim(old)
    life.clock.advance(life.platform.patience.lease_ttl)
    life.rounds.sweep(life.lead)
    spare = life.join("spare")
    life.clock.advance(60)  # the pause before the next try
    spare.post("heartbeat", {})
    assert life.place() == 1
    new = life.newest_attempt(job_id)
    spare.claim(new)
    before = life.traces()
    for epoch in (1, 2):
        refused = lost.finish(old, epoch)
        assert (refused.status_code, refused.json()["code"]) == (409, "stale_lease")
    assert life.traces() == before
    assert spare.finish(new, 2).status_code == 204
    assert life.get(f"jobs/{job_id}")["state"] == "succeeded"


def test_many_jobs_on_one_slot_go_in_the_order_in_which_they_came(life):
    ids = []
    for number in range(5):  # of those that came at one moment the ids tell
        life.clock.advance(number % 2)
        batch = [{"name": f"n{place}", "noop": {"seconds": 0}} for place in range(50)]
        ids += [job["id"] for job in life.post("jobs:batch", {"jobs": batch}).json()["jobs"]]
    life.join()
    served = []
    while life.place(*served[-1:]):
        with life.platform.db.write() as tx:
            offer = tx.session.scalars(select(Attempt).where(Attempt.state == "offered")).one()
            attempt, job = leases.claim(tx, offer.worker_id, offer.id, life.platform.patience)
            endings.end_attempt(tx, attempt, job, Outcome.SUCCEEDED)
            served.append(job.id)
    assert served == ids


def test_the_limit_of_a_team_holds_across_its_people_and_over_a_restart(life):
    ann, ben = life.person("ann"), life.person("ben")
    life.put("queue/shares/default/default", {"max_jobs": 3})
    jobs = [
        life.submit(f"job-{number}", headers)
        for number in range(3)
        for headers in (life.root, ann, ben)
    ]
    agent = life.join(slots=9)
    assert life.place() == 3
    life.restart()
    assert life.place() == 0
    running = life.offered(*jobs)
    assert len(running) == 3
    waiting = next(job_id for job_id in jobs if job_id not in running)
    reason = life.get(f"jobs/{waiting}")["reason"]
    assert reason["code"] == "limit"
    assert "default/default has 3 of 3 jobs" in reason["message"]
    attempt_id = life.newest_attempt(running[0])
    agent.claim(attempt_id)
    agent.finish(attempt_id)
    assert life.place() == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {"accelerator": "h100*"},
        {"labels": {"room": "north"}},
        {"min_memory_gb": 96},
        {"slots": 3},
        {"provider": "spot"},
    ],
    ids=lambda wanted: next(iter(wanted)),
)
def test_what_no_worker_has_is_never_offered_and_says_so(life, wanted):
    life.join(slots=2, labels={"room": "south"}, accelerator="a100-80gb", memory_gb=80)
    hopeless = life.submit("hopeless", resources=wanted)
    fitting = life.submit("fitting", resources={"accelerator": "a100*", "slots": 2})
    assert life.place() == 1
    assert life.offered(hopeless, fitting) == [fitting]
    found = life.get(f"jobs/{hopeless}/explain")
    assert (found["reason"]["code"], found["starts_at"]) == ("no_matching_worker", None)


def test_what_awaits_approval_is_never_offered(life):
    life.join(slots=2)
    job_id, other = life.submit("held"), life.submit("other")
    with life.platform.db.write() as tx:
        tx.session.get_one(Job, job_id).state = JobState.AWAITING_APPROVAL
    assert life.place() == 1
    life.restart()
    assert life.place() == 0
    assert life.get(f"jobs/{job_id}")["state"] == "awaiting_approval"
    assert life.offered(other) == [other]


def test_what_is_foretold_beyond_the_calendar_is_told_as_its_last_second(life):
    life.join()
    last = "9999-12-31T23:59:59Z"
    jobs = [life.submit(f"job-{number}", not_before=last) for number in range(3)]
    life.clock.advance(6)
    assert [life.get(f"jobs/{job_id}/explain")["starts_at"] for job_id in jobs] == 3 * [last]

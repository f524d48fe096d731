"""Nothing of one organisation shows in another, nor beyond the teams of a lead."""

import asyncio
import hashlib
import io
import json
from contextlib import aclosing
from datetime import timedelta

import pytest
from controller_steps import document
from sqlalchemy import select

from st_controller.api import events as events_api
from st_controller.domain.policy.roles import Role
from st_controller.errors import InvalidRequest, NotFound, NotPermitted
from st_controller.services import (
    claims,
    datasets,
    explaining,
    job_arrays,
    job_lists,
    jobs,
    queue_overview,
    queue_rules,
    steering,
    visibility,
)
from st_controller.services.drafts import Rules
from st_controller.services.live_queue import LiveQueue
from st_controller.services.setup import set_tenant
from st_controller.store.schema import Attempt, CustomRole, Dataset, Job
from st_shared.protocol.queue import ShareRequest
from st_shared.protocol.resources import ArchiveFile, DatasetRequest, JobArrayRequest
from st_shared.protocol.states import JobState
from st_shared.protocol.worker import Heartbeat
from st_shared.spec.job import Priority

NOWHERE = "job_00000000000000000000000000"
BYTES = b"what acme alone has"
DIGEST = hashlib.sha256(BYTES).hexdigest()


class World:
    """Two organisations, of which both have a team ``vision``; each person has a job."""

    def __init__(self, steps) -> None:
        self.steps = steps
        with steps.db.write() as tx:
            everything = list(steps.admin.permissions)
            tx.session.add(
                CustomRole(
                    slug="director",
                    name="Director",
                    permissions=everything,
                    reach="org",
                    rank=80,
                    created_at=tx.now,
                )
            )
        researcher, lead = Role.RESEARCHER, Role.LEAD
        self.people = {
            "ann": steps.user("ann", researcher, "acme", "vision"),
            "abe": steps.user("abe", researcher, "acme", "audio", "vision"),
            "lea": steps.user("lea", lead, "acme", "vision"),
            "dia": steps.user("dia", "director", "acme", "board"),
            "ben": steps.user("ben", researcher, "beta", "vision"),
            "bea": steps.user("bea", lead, "beta", "vision"),
            "root": steps.admin,
        }
        self.jobs = {
            name: steps.submit(f"job of {name}", actor=actor) for name, actor in self.people.items()
        }

    def seen_by(self, name: str) -> set[str]:
        """Whose jobs this person's list shows."""
        owners = {job_id: owner for owner, job_id in self.jobs.items()}
        with self.steps.db.read() as session:
            found, _ = job_lists.list_jobs(session, self.people[name], limit=100)
        return {owners[job.id] for job in found}


@pytest.fixture
def world(steps) -> World:
    return World(steps)


def test_lists_end_at_own_jobs_own_teams_and_the_own_organisation(world):
    assert {name: world.seen_by(name) for name in world.people} == {
        "ann": {"ann"},
        "abe": {"abe"},
        "lea": {"lea", "ann"},
        "dia": {"dia", "lea", "ann", "abe"},
        "ben": {"ben"},
        "bea": {"bea", "ben"},
        "root": set(world.people),
    }


def test_sql_and_the_rule_agree_on_every_job(world):
    with world.steps.db.read() as session:
        everything = list(session.scalars(select(Job)))
        for actor in world.people.values():
            for permission in ("job.view.all", "job.cancel.all"):
                condition = visibility.within(actor, permission, Job)
                by_sql = set(session.scalars(select(Job.id).where(condition)))
                by_rule = {
                    job.id for job in everything if actor.reaches(visibility.owner(job), permission)
                }
                assert by_sql == by_rule, (actor.username, permission)


ACTS = {
    "look": lambda tx, actor, job: jobs.get_job(tx.session, actor, job),
    "cancel": jobs.cancel,
    "retry": lambda tx, actor, job: steering.retry(tx, actor, job, Rules()),
    "class": lambda tx, actor, job: steering.change_class(tx, actor, job, Priority.LOW),
    "override": lambda tx, actor, job: steering.override(tx, actor, job, 50),
}


def test_what_another_organisation_has_is_answered_like_what_nobody_has(world):
    def answer(act, job_id):
        with pytest.raises(NotFound) as refused, world.steps.db.write() as tx:
            ACTS[act](tx, world.people["dia"], job_id)
        return refused.value.problem().model_dump_json().replace(job_id, "ID")

    for act in ACTS:
        assert answer(act, world.jobs["ben"]) == answer(act, NOWHERE), act
    assert world.steps.job(world.jobs["ben"]).version == 1


def test_a_lead_sees_a_team_but_steers_it_only_when_permitted(world):
    steps, lea = world.steps, world.people["lea"]
    for act in ("cancel", "retry", "class"):
        with pytest.raises(NotPermitted), steps.db.write() as tx:
            ACTS[act](tx, lea, world.jobs["ann"])
        with pytest.raises(NotFound), steps.db.write() as tx:
            ACTS[act](tx, lea, world.jobs["abe"])
    may = steps.user("max", Role.LEAD, "acme", "vision", allow=["job.cancel.all", "queue.manage"])
    with steps.db.write() as tx:
        steering.override(tx, may, world.jobs["ann"], 50)
        jobs.cancel(tx, may, world.jobs["ann"])
    for act in ("cancel", "override"):
        with pytest.raises(NotFound), steps.db.write() as tx:
            ACTS[act](tx, may, world.jobs["abe"])
    assert steps.job(world.jobs["ann"]).state == JobState.CANCELLED


def test_arrays_are_seen_and_ended_as_jobs_are(world):
    steps = world.steps
    request = JobArrayRequest(spec=document("sweep"), grid={"training.steps": [1, 2]})
    made = {}
    for name in ("ann", "ben"):
        with steps.db.write() as tx:
            drafts = job_arrays.check(world.people[name], request, Rules())
            made[name] = job_arrays.submit(tx, world.people[name], request, drafts)[0].id
    seen = {}
    for name, actor in world.people.items():
        with steps.db.read() as session:
            found, _ = job_arrays.list_arrays(session, actor)
            seen[name] = {array.id for array in found}
            inside, _ = job_lists.list_jobs(session, actor, array_id=made["ann"])
            assert len(inside) == (2 if name in {"ann", "lea", "dia", "root"} else 0)
    of_ann, of_ben = {made["ann"]}, {made["ben"]}
    assert seen == {
        "ann": of_ann, "abe": set(), "lea": of_ann, "dia": of_ann,
        "ben": of_ben, "bea": of_ben, "root": of_ann | of_ben,
    }  # fmt: skip
    for act in (job_arrays.cancel, lambda *asked: job_arrays.cap(*asked, 1)):
        with pytest.raises(NotFound), steps.db.write() as tx:
            act(tx, world.people["dia"], made["ben"])


def test_nobody_waits_for_a_job_of_another_organisation(world):
    def told(name, parent):
        with pytest.raises(InvalidRequest) as refused:
            world.steps.submit("child", actor=world.people[name], after=[parent])
        return str(refused.value.errors).replace(parent, "ID")

    for name in ("ann", "lea", "dia", "root"):
        assert told(name, world.jobs["ben"]) == told(name, NOWHERE), name
        assert "there is no job ID" in told(name, NOWHERE)


def test_what_one_leaves_behind_belongs_to_the_organisation(world):
    steps, ann = world.steps, world.people["ann"]
    with steps.db.write() as tx:
        set_tenant(tx, "ann", "beta", "vision", actor="console")
    world.people["ann"] = moved = steps.actor(ann.user_id)
    assert (moved.org, moved.teams) == ("beta", {"vision"})
    assert world.seen_by("ann") == set()
    assert world.seen_by("bea") == {"bea", "ben"}
    assert "ann" in world.seen_by("lea")
    with pytest.raises(NotFound), steps.db.write() as tx:
        jobs.cancel(tx, moved, world.jobs["ann"])


# The queue


def queue_of(world, actor, job=None):
    """Everything that the queue tells this person, as text."""
    steps = world.steps
    with steps.db.read() as session:
        view = queue_overview.overview(session, LiveQueue(), actor, steps.clock())
        told = view.model_dump_json()
        if job:
            job = session.get_one(Job, job)
            found = explaining.explain(session, LiveQueue(), actor, job, steps.clock())
            told += found.model_dump_json()
            why = explaining.reasons(session, LiveQueue(), [job], steps.clock())
            told += json.dumps({key: reason.model_dump() for key, reason in why.items()})
    return view, told


def test_the_queue_tells_of_the_own_organisation_alone(world):
    steps = world.steps
    steps.join("shared")
    steps.submit("large", actor=world.people["ann"], resources={"slots": 1, "nodes": 2})
    steps.place()
    ben = world.people["ben"]
    mine = steps.submit("late", actor=ben, priority="low")
    view, told = queue_of(world, ben, mine)
    for secret in (
        "acme",
        "ann",
        "default",
        *(world.jobs[name] for name in ("ann", "lea", "root")),
    ):
        assert secret not in told, secret
    assert {tenant.path for tenant in view.tenants} == {"beta", "beta/vision", "beta/vision/ben"}
    assert view.waiting + view.running == 3
    assert (view.slots, view.slots_taken) == (1, 1)
    whole, _ = queue_of(world, world.people["root"])
    assert whole.waiting + whole.running == 9
    lead, told = queue_of(world, world.people["lea"])
    paths = {tenant.path for tenant in lead.tenants}
    assert {"acme", "acme/vision", "acme/vision/ann"} <= paths
    assert not any("audio" in path or "board" in path for path in paths)
    assert "beta" not in told


@pytest.mark.embedded
def test_what_is_held_is_counted_for_the_own_organisation_alone(world):
    ann, ben = world.people["ann"], world.people["ben"]
    later = (world.steps.clock() + timedelta(hours=1)).isoformat()
    for actor, parent in ((ann, "ann"), (ann, "ann"), (ben, "ben")):
        world.steps.submit("child", actor=actor, after=[world.jobs[parent]])
    world.steps.submit("later", actor=ann, not_before=later)
    assert queue_of(world, ben)[0].held == {"dependency": 1}
    assert queue_of(world, ann)[0].held == {"dependency": 2, "not_before": 1}
    assert queue_of(world, world.people["root"])[0].held == {"dependency": 3, "not_before": 1}


def test_shares_are_set_below_what_one_reaches(world):
    steps = world.steps
    team = steps.user("tim", Role.RESEARCHER, "acme", "vision", allow=["queue.manage"])
    lead = steps.user("max", Role.LEAD, "acme", "vision", allow=["queue.manage"])
    allowed = {
        "root": {"all", "acme", "acme/vision", "acme/vision/ann", "beta/vision/ben", "beta"},
        "dia": {"acme/vision", "acme/vision/ann"},
        "tim": set(),
        "max": {"acme/vision/ann"},
    }
    actors = {**world.people, "tim": team, "max": lead}
    for name, paths in allowed.items():
        for path in allowed["root"]:
            with steps.db.write() as tx:
                if path in paths:
                    queue_rules.set_share(tx, actors[name], path, ShareRequest(weight=2))
                    continue
                with pytest.raises(NotPermitted):
                    queue_rules.change_share(tx, actors[name], path, ShareRequest(weight=2))
                with pytest.raises(NotPermitted):
                    queue_rules.remove_share(tx, actors[name], path)


# Workers


def test_workers_are_shared_and_what_they_run_is_not(world):
    steps = world.steps
    worker_id = steps.join("shared", slots=9)
    steps.place()
    with steps.db.read() as session:
        running = {job.id for job in session.scalars(select(Job)) if job.state != JobState.QUEUED}
    assert running == set(world.jobs.values())
    with steps.db.write() as tx:
        told = Heartbeat(cached=[DIGEST], cached_models=["acme/secret-base"])
        worker = steps.worker(worker_id)
        worker = tx.session.merge(worker)
        worker.inventory = {
            **worker.inventory,
            **told.model_dump(include={"cached", "cached_models"}),
        }
    for name, actor in world.people.items():
        (view,) = steps.worker_views(actor)
        assert set(view.jobs) == {world.jobs[owner] for owner in world.seen_by(name)}
        sees_contents = actor.may("admin.workers")
        assert (DIGEST in view.model_dump_json()) == sees_contents
        assert ("secret-base" in view.model_dump_json()) == sees_contents


# Datasets


def push(steps, actor, name="cats"):
    """Announce and, where it has to be sent, upload and complete; whether it had to be sent."""
    request = DatasetRequest(
        name=name,
        digest=DIGEST,
        samples=1,
        archives=[ArchiveFile(size=len(BYTES), sha256=DIGEST)],
    )
    with steps.db.write() as tx:
        dataset = datasets.announce(tx, actor, request)
    return datasets.tickets(steps.objects, dataset, request)[0].url is not None, dataset


def complete(steps, actor, dataset):
    steps.objects.put(dataset.archives[0]["key"], io.BytesIO(BYTES))
    with steps.db.write() as tx:
        datasets.complete(tx, actor, dataset.name, dataset.digest, [])


def test_datasets_of_another_organisation_are_neither_seen_nor_found_in_the_store(world):
    steps, ann, ben = world.steps, world.people["ann"], world.people["ben"]
    had_to_send, dataset = push(steps, ann)
    assert had_to_send
    complete(steps, ann, dataset)
    had_to_send, _ = push(steps, ann, "twin")
    assert not had_to_send

    with steps.db.read() as session:
        assert datasets.list_datasets(session, "beta", None, 10) == ([], None)
        with pytest.raises(NotFound):
            datasets.get_dataset(session, "beta", "cats")
    wanted = [{"name": "cats"}]
    with pytest.raises(InvalidRequest, match="1 mistake"):
        steps.submit("steal", actor=ben, datasets=wanted)

    had_to_send, own = push(steps, ben)
    assert had_to_send, "a digest alone opens nothing"
    assert datasets.missing(steps.objects, own) == [DIGEST]
    complete(steps, ben, own)
    kept = {}
    for name in ("ann", "ben"):
        job_id = steps.submit("train", actor=world.people[name], datasets=wanted)
        with steps.db.read() as session:
            job = session.get_one(Job, job_id)
            (pin,) = job.dataset_pins.values()
            assert session.get_one(Dataset, pin).org == job.org
            reply = claims.claim_reply(session, steps.objects, _attempt(job), job)
        (download,) = reply.datasets
        kept[name] = download.place
        assert f"/{job.org}/" in download.archives[0].url
    assert kept["ann"] != kept["ben"] != DIGEST, "nor does a worker's cache"


def _attempt(job) -> Attempt:
    return Attempt(id="att", epoch=1, number=1, slots=[0], acked_seq=0, node=0, nodes=1)


# Streams


def test_the_stream_of_changes_brings_what_the_lists_show(world):
    steps = world.steps
    steps.relay()
    ready = {}

    async def follow(actor, last_id, count):
        found = []
        response = events_api.follow(steps.platform, actor, last_id)
        async with aclosing(response.body_iterator) as stream:
            async for frame in stream:
                if b"event: " not in frame:
                    continue  # a ping
                found.append(frame.decode())
                if len(found) == count:
                    return found
        return found

    for name, actor in world.people.items():
        (first,) = asyncio.run(follow(actor, None, 1))
        assert "event: ready" in first
        ready[name] = first.split("id: ")[1].split("\n")[0]
    for job_id in world.jobs.values():
        steps.cancel(job_id)
    steps.relay()
    owners = {job_id: owner for owner, job_id in world.jobs.items()}
    for name, actor in world.people.items():
        expected = world.seen_by(name)
        frames = asyncio.run(follow(actor, ready[name], len(expected)))
        bodies = [json.loads(frame.split("data: ")[1].split("\n")[0]) for frame in frames]
        assert {owners[body["id"]] for body in bodies} == expected, name

"""Job arrays: variations of one job that are submitted, watched and ended together."""

import pytest
from controller_steps import document
from sqlalchemy import func, select

from st_controller.domain.policy.roles import Role
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from st_controller.services import drafts, job_arrays, job_lists
from st_controller.services.drafts import Rules
from st_controller.store.schema import Job, JobArray
from st_controller.store.transaction import QUEUE_RULES
from st_shared.protocol.resources import JobArrayRequest
from st_shared.protocol.states import JobState


def request(spec=None, **fields):
    spec = document("sweep") if spec is None else spec
    return JobArrayRequest.model_validate({"spec": spec, **fields})


def submit(steps, asked, actor=None, key=None):
    actor = actor or steps.admin
    drafts = job_arrays.check(actor, asked, Rules())
    with steps.db.write() as tx:
        array, is_new, _ = job_arrays.submit(tx, actor, asked, drafts, key)
        return array.id, is_new


def jobs_of(steps, array_id):
    with steps.db.read() as session:
        query = select(Job).where(Job.array_id == array_id).order_by(Job.array_index)
        return session.scalars(query).all()


def counts(steps, array_id):
    with steps.db.read() as session:
        return job_arrays.counts(session, [array_id])[array_id]


def refused_fields(steps, **fields):
    with pytest.raises(InvalidRequest) as refused:
        submit(steps, request(**fields))
    with steps.db.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert session.scalar(select(func.count()).select_from(JobArray)) == 0
    return [error.field for error in refused.value.errors]


GRID = {"training.optimizer.learning_rate": [1e-4, 1e-3], "training.steps": [10, 20, 30]}


def test_a_grid_makes_every_combination_in_one_go(steps):
    array_id, is_new = submit(steps, request(grid=GRID, max_running=2))
    made = jobs_of(steps, array_id)
    assert is_new
    assert [job.name for job in made] == [f"sweep-{number:03d}" for number in range(6)]
    assert [
        (job.spec["training"]["optimizer"]["learning_rate"], job.spec["training"]["steps"])
        for job in made
    ] == [(rate, steps_) for rate in (1e-4, 1e-3) for steps_ in (10, 20, 30)]
    assert [job.array_index for job in made] == list(range(6))
    assert [job.id for job in made] == sorted(job.id for job in made)
    assert counts(steps, array_id) == {JobState.QUEUED: 6}
    assert [entry.action for entry in steps.audit_of(array_id)] == ["array.submitted"]


def test_a_list_makes_one_job_an_entry(steps):
    listed = [{"training.steps": 5}, {"training.steps": 6, "priority": "low"}, {}]
    array_id, _ = submit(steps, request(name="mine", list=listed))
    assert [(job.name, job.spec["training"]["steps"], job.priority)
            for job in jobs_of(steps, array_id)] == [
        ("mine-000", 5, "normal"), ("mine-001", 6, "low"), ("mine-002", 3, "normal"),
    ]  # fmt: skip


def test_what_the_grid_gives_may_be_missing_in_the_specification(steps):
    spec = {"name": "n", "resources": {}}
    array_id, _ = submit(steps, request(spec, grid={"noop.seconds": [0, 1]}))
    assert [job.kind for job in jobs_of(steps, array_id)] == ["noop", "noop"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, ["grid"]),
        ({"grid": {"priority": ["low"]}, "list": [{}]}, ["grid"]),
        ({"grid": {}}, ["grid"]),
        ({"grid": {"training.steps": []}}, ["grid.training.steps"]),
        ({"grid": {"training.steps": list(range(1, 1002))}}, ["grid"]),
        ({"list": []}, ["list"]),
        ({"grid": {"training.stesp": [1, 2]}}, ["grid.training.stesp.0", "grid.training.stesp.1"]),
        ({"grid": {"training.steps": [1, -1, "x", 2]}},
         ["grid.training.steps.1", "grid.training.steps.2"]),
        ({"grid": {"training.optimizer.learning_rate": [float("nan"), float("inf")]}},
         ["grid.training.optimizer.learning_rate.0", "grid.training.optimizer.learning_rate.1"]),
        ({"grid": {"name.x": ["a"]}}, ["grid.name.x.0"]),
        ({"list": [{"name": "a"}]}, ["list.0.name"]),
        ({"list": [{}, {"training.datasets.7.repeats": 1}]},
         ["list.1.training.datasets.7.repeats"]),
        ({"grid": {"nope.deep.er": [1]}}, ["grid.nope.deep.er.0"]),
        ({"spec": document("x", time_limit=-1), "grid": GRID}, ["spec.time_limit"]),
        ({"spec": document("bad*name"), "grid": GRID}, ["name"]),
        ({"spec": {"noop": {}}, "grid": {"noop.seconds": [1]}}, ["name"]),
        ({"spec": document("x" * 117), "grid": GRID}, ["name"]),
        ({"spec": document("x", after=["@x-000"]), "grid": GRID}, ["spec.after.0"] * 6),
        ({"spec": document("x", datasets=[{"name": "x"}]), "list": [{}]},
         ["spec.training.datasets.0.name"]),
    ],
)  # fmt: skip
def test_every_mistake_is_named_and_nothing_is_written(steps, fields, named):
    assert refused_fields(steps, **fields) == named


@pytest.mark.embedded
@pytest.mark.parametrize("prompt", ["x" * 1000, 7], ids=["sound", "wrong"])
def test_too_much_text_in_all_is_refused_before_all_of_it_is_read(steps, monkeypatch, prompt):
    monkeypatch.setattr(job_arrays, "_MOST_TEXT", 2**20)
    read, check = [], drafts.checked

    def checked(document, place):
        read.append(document)
        return check(document, place)

    monkeypatch.setattr(drafts, "checked", checked)
    training = document()["training"] | {"validation": {"prompts": ["x" * 1000] * 50 + [prompt]}}
    spec = {"name": "n", "training": training}
    fields = refused_fields(steps, spec=spec, grid={"training.steps": list(range(1, 1000))})
    assert fields[-1] == "spec"
    assert len(read) == 20  # of 51 KB each


def test_a_class_that_is_not_allowed_is_refused_once(steps):
    ann = steps.user("ann", Role.RESEARCHER)
    with pytest.raises(NotPermitted) as refused:
        submit(steps, request(document(priority="urgent"), grid=GRID), ann)
    assert [error.field for error in refused.value.errors] == ["spec.priority"]


def test_the_same_key_and_body_give_the_same_array(steps):
    first = submit(steps, request(grid=GRID), key="k")
    assert submit(steps, request(grid=GRID), key="k") == (first[0], False)
    with pytest.raises(Conflict) as refused:
        submit(steps, request(grid=GRID, max_running=1), key="k")
    assert refused.value.code == "idempotency_mismatch"
    assert len(jobs_of(steps, first[0])) == 6


def test_cancelling_an_array_ends_what_waits_and_stops_what_runs(steps):
    array_id, _ = submit(steps, request(grid=GRID))
    other = steps.submit("other", priority="low")
    worker_id = steps.join(slots=2)
    steps.place()
    with steps.db.read() as session:
        from st_controller.services import workers
        from st_controller.store.schema import Worker

        offers = workers.sync(session, session.get_one(Worker, worker_id)).offers
    runs, offered = (offer.attempt_id for offer in offers)
    steps.claim(worker_id, runs)
    steps.run(worker_id, runs)
    with steps.db.write() as tx:
        job_arrays.cancel(tx, steps.admin, array_id)
    assert counts(steps, array_id) == {JobState.CANCELLED: 5, JobState.RUNNING: 1}
    assert steps.attempt(runs).stop == "cancel"
    assert steps.attempt(offered).outcome == "cancelled"
    assert steps.job(other).state == JobState.QUEUED
    with steps.db.write() as tx:
        job_arrays.cancel(tx, steps.admin, array_id)  # again, with nothing left to do
    assert steps.audit_of(array_id)[-1].details == {"jobs": 0}


def test_what_waited_for_a_job_of_the_array_ends_with_it(steps):
    array_id, _ = submit(steps, request(grid=GRID))
    child = steps.submit("child", after=[jobs_of(steps, array_id)[0].id])
    with steps.db.write() as tx:
        job_arrays.cancel(tx, steps.admin, array_id)
    assert steps.job(child).state == JobState.CANCELLED


def test_a_cap_is_changed_audited_and_told(steps):
    array_id, _ = submit(steps, request(grid=GRID, max_running=2))
    told = []
    steps.db.notify = told.append
    with steps.db.write() as tx:
        job_arrays.cap(tx, steps.admin, array_id, None)
    assert QUEUE_RULES in set().union(*told)
    with steps.db.read() as session:
        assert session.get_one(JobArray, array_id).max_running is None
    assert steps.audit_of(array_id)[-1].details == {"before": 2, "after": None}


def test_no_more_jobs_are_placed_than_the_cap_lets_run(steps):
    array_id, _ = submit(steps, request(grid=GRID, max_running=2))
    steps.join(slots=6)
    assert steps.place() == 2
    assert counts(steps, array_id) == {JobState.ASSIGNED: 2, JobState.QUEUED: 4}
    with steps.db.write() as tx:
        job_arrays.cap(tx, steps.admin, array_id, 5)
    assert steps.place() == 3
    with steps.db.write() as tx:
        job_arrays.cap(tx, steps.admin, array_id, None)
    assert steps.place() == 1


def test_others_arrays_are_not_seen(steps):
    ann, bob, lea = (
        steps.user("ann", Role.RESEARCHER),
        steps.user("bob", Role.RESEARCHER),
        steps.user("lea", Role.LEAD, allow=["job.cancel.all"]),
    )
    array_id, _ = submit(steps, request(grid=GRID), ann)

    def seen(actor):
        with steps.db.read() as session:
            found, _ = job_arrays.list_arrays(session, actor)
            listed, _ = job_lists.list_jobs(session, actor, array_id=array_id)
            return len(found), len(listed)

    assert [seen(actor) for actor in (ann, bob, lea)] == [(1, 6), (0, 0), (1, 6)]
    for act in (
        lambda tx: job_arrays.get_array(tx.session, bob, array_id),
        lambda tx: job_arrays.cancel(tx, bob, array_id),
        lambda tx: job_arrays.cap(tx, bob, array_id, 1),
    ):
        with pytest.raises(NotFound), steps.db.write() as tx:
            act(tx)
    with steps.db.write() as tx:
        job_arrays.cancel(tx, lea, array_id)
    assert counts(steps, array_id) == {JobState.CANCELLED: 6}


def test_pages_of_arrays_have_neither_gaps_nor_doubles(steps):
    made = []
    for number in range(5):
        made.append(submit(steps, request(grid={"training.steps": [1]}))[0])
        steps.clock.advance(number % 2)
    found, cursor = [], None
    while True:
        with steps.db.read() as session:
            page, cursor = job_arrays.list_arrays(session, steps.admin, cursor=cursor, limit=2)
        found += [array.id for array in page]
        if cursor is None:
            break
    assert sorted(found) == sorted(made)
    assert len(found) == 5


def test_jobs_are_filtered_by_class_and_by_owner(steps):
    ann = steps.user("ann", Role.RESEARCHER)
    hers, low = steps.submit(actor=ann), steps.submit(priority="low")

    def found(**filters):
        with steps.db.read() as session:
            return {job.id for job in job_lists.list_jobs(session, steps.admin, **filters)[0]}

    assert found() == {hers, low}
    assert found(priorities=["low"]) == {low}
    assert found(mine=True) == {low}
    assert found(array_id="arr_none") == set()

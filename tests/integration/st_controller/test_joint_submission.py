"""Single submissions of many clients at once: one transaction, and a mistake only its own."""

import asyncio
from threading import Event

import pytest
from controller_steps import document
from sqlalchemy import select

from st_controller.domain.policy.roles import Role
from st_controller.errors import Conflict, InvalidRequest
from st_controller.services import joint_submission, submission
from st_controller.services.joint_submission import JointSubmission
from st_controller.store.schema import Job

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def at_once(steps, monkeypatch):
    """Submits ``(actor, body, key)`` at once, all of them in one transaction."""

    async def run(asks):
        line = JointSubmission(steps.db)
        begun, go, loop = asyncio.Event(), Event(), asyncio.get_running_loop()
        alone = line._combining._alone

        def held(asked):
            if asked.draft.spec.name == "first":
                loop.call_soon_threadsafe(begun.set)
                assert go.wait(120)
            return alone(asked)

        monkeypatch.setattr(line._combining, "_alone", held)

        def submit(actor, body, key):
            return asyncio.create_task(line.submit(actor, draft(actor, body), key))

        first = submit(steps.admin, document("first"), None)
        await begun.wait()
        others = [submit(*ask) for ask in asks]
        await asyncio.sleep(0)
        go.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    return lambda *asks: asyncio.run(run(asks))


def draft(actor, body):
    return submission.check(actor, body, submission.NOTHING_MORE)


def noop(name, **fields):
    return {"name": name, "noop": {"seconds": 0}, **fields}


def stored(steps):
    with steps.db.read() as session:
        return {job.id: job for job in session.scalars(select(Job))}


def test_all_are_there_each_with_its_owner_and_in_the_order_in_which_they_came(steps, at_once):
    other = steps.user("other", Role.RESEARCHER)
    people = [steps.admin, other, steps.admin, other]
    asks = [(actor, noop(f"n{number}"), None) for number, actor in enumerate(people)]
    ids = [job_id for job_id, columns, _ in at_once(*asks) if columns]
    assert ids == sorted(ids)
    jobs = stored(steps)
    assert [jobs[job_id].name for job_id in ids] == ["n0", "n1", "n2", "n3"]
    assert [jobs[job_id].submitted_by for job_id in ids] == [actor.user_id for actor in people]
    assert len({jobs[job_id].submitted_at for job_id in ids}) == 1
    assert [entry.action for job_id in ids for entry in steps.audit_of(job_id)] == [
        "job.submitted"
    ] * 4


def test_a_mistake_that_only_the_database_knows_costs_nobody_else(steps, at_once):
    missing = document("bad")
    missing["training"]["datasets"] = [{"name": "nowhere"}]
    one, bad, two = at_once(
        (steps.admin, noop("one"), None),
        (steps.admin, missing, None),
        (steps.admin, noop("two"), None),
    )
    assert isinstance(bad, InvalidRequest)
    assert bad.errors[0].field == "training.datasets.0.name"
    names = {job.name for job in stored(steps).values()}
    assert names - {"first"} == {"one", "two"}
    assert {one[0], two[0]} < set(stored(steps))


def test_a_key_makes_one_job_however_often_it_comes_at_once(steps, at_once):
    other = steps.user("other", Role.RESEARCHER)
    body = noop("n")
    answers = at_once(
        (steps.admin, body, "k"),
        (steps.admin, body, "k"),
        (other, body, "k"),
        (steps.admin, body, None),
        (steps.admin, body, "k"),
    )
    ids = [job_id for job_id, _, _ in answers]
    assert ids[0] == ids[1] == ids[4]
    assert len({ids[0], ids[2], ids[3]}) == 3
    assert sum(columns is not None for _, columns, _ in answers) == 3
    assert sum(job.name == "n" for job in stored(steps).values()) == 3


def test_a_key_with_another_body_is_refused_alone(steps, at_once):
    first, second, third = at_once(
        (steps.admin, noop("n"), "k"),
        (steps.admin, noop("m"), "k"),
        (steps.admin, noop("o"), "l"),
    )
    assert isinstance(second, Conflict)
    assert second.code == "idempotency_mismatch"
    assert {stored(steps)[job_id].name for job_id, _, _ in (first, third)} == {"n", "o"}


def test_jobs_that_wait_for_others_go_alone(steps, monkeypatch):
    parent = steps.submit("parent")
    line = JointSubmission(steps.db)
    monkeypatch.setattr(line, "_combining", None)
    child = draft(steps.admin, noop("child", after=[parent]))
    job_id, columns, _ = asyncio.run(line.submit(steps.admin, child, None))
    assert columns["open_parents"] == 1
    assert stored(steps)[job_id].name == "child"


def test_after_a_lost_connection_nothing_is_tried_again(steps, at_once, monkeypatch):
    from sqlalchemy.exc import OperationalError

    def lost(_tx, _asked):
        raise OperationalError("COMMIT", None, Exception("the server closed the connection"))

    monkeypatch.setattr(joint_submission, "_enqueue", lost)
    told = at_once((steps.admin, noop("one"), None), (steps.admin, noop("two"), None))
    assert [type(error) for error in told] == [OperationalError] * 2
    assert {job.name for job in stored(steps).values()} == {"first"}

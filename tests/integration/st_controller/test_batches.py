"""Batches: many jobs in one request, all of them or none."""

import pytest
from controller_steps import document
from sqlalchemy import func, select

from st_controller.domain.policy.roles import Role
from st_controller.errors import Conflict, InvalidRequest, NotPermitted
from st_controller.services import submission
from st_controller.services.drafts import Rules
from st_controller.store.schema import (
    AuditEntry,
    IdempotencyKey,
    Job,
    JobDependency,
    JobTransition,
    OutboxEvent,
)

TABLES = (Job, JobDependency, JobTransition, IdempotencyKey, OutboxEvent, AuditEntry)


def noop(name="job", **fields):
    return {"name": name, "noop": {}, **fields}


def submit(steps, documents, actor=None, key=None):
    actor = actor or steps.admin
    batch = submission.check_batch(actor, documents, Rules())
    with steps.db.write() as tx:
        made, is_new = submission.enqueue_batch(tx, actor, batch, key)
    return [job_id for job_id, _, _ in made], is_new


def written(steps):
    with steps.db.read() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in TABLES]


def fields(refused):
    return [error.field for error in refused.value.errors]


def test_a_batch_is_queued_in_its_order_with_its_records(steps):
    before = written(steps)
    ids, is_new = submit(steps, [noop(f"n{number}") for number in range(5)])
    assert is_new
    assert [steps.job(job_id).name for job_id in ids] == [f"n{number}" for number in range(5)]
    assert ids == sorted(ids)
    assert [now - then for now, then in zip(written(steps), before, strict=True)] == [
        5, 0, 5, 0, 5, 5,
    ]  # fmt: skip
    assert [entry.action for entry in steps.audit_of(ids[3])] == ["job.submitted"]
    assert [event.body["job_id"] for event in steps.events("jobs")] == ids


@pytest.mark.parametrize("size", [1, 40])
def test_a_job_of_a_batch_is_like_one_that_was_submitted_alone(steps, size):
    odd = {"labels": {"a": "\"'\\ \n é 漢 😀 ${x} %s :rows"}, "min_memory_gb": 0.1}
    fields = {"priority": "high", "not_before": "2030-01-01T00:00:00.123456+05:30"}
    fields |= {"resources": odd, "expected_time": 1.5, "preemptible": False}
    parent = steps.submit("parent")
    fields["after"] = [parent]
    ids, _ = submit(steps, [document("same", **fields) for _ in range(size)])
    alone = steps.submit("same", **fields)
    ours = {"id", "_sa_instance_state"}

    def row(job_id):
        return {key: value for key, value in vars(steps.job(job_id)).items() if key not in ours}

    assert row(ids[-1]) == row(alone)
    assert steps.job(alone).open_parents == 1
    assert [entry.details for entry in steps.audit_of(ids[-1])] == [
        entry.details for entry in steps.audit_of(alone)
    ]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"noop": {"seconds": -1}}, "jobs.1.noop.seconds"),
        ({"noop": {"seconds": float("nan")}}, "jobs.1.noop.seconds"),
        ({"noop": {"seconds": float("inf")}}, "jobs.1.noop.seconds"),
        ({"nope": 1}, "jobs.1.nope"),
        ({"resources": {"accelerator": "a\0b"}}, "jobs.1.resources.accelerator"),
        ({"resources": {"labels": {"a": "\ud800"}}}, "jobs.1.resources.labels.a"),
        ({"resources": {"slots": 10**30}}, "jobs.1.resources.slots"),
        ({"noop": {"seconds": 10**400}}, "jobs.1.noop.seconds"),
        ({"after": ["job_nobody"]}, "jobs.1.after.0"),
        ({"after": ["@nobody"]}, "jobs.1.after.0"),
        ({"after": ["@job"]}, "jobs.1.after.0"),
        ({"noop": None, "training": document()["training"] | {"datasets": [{"name": "x"}]}},
         "jobs.1.training.datasets.0.name"),
        ({"noop": None, "command": {"run": "x" * 2**20}}, "jobs.1.command"),
    ],
)  # fmt: skip
def test_one_mistake_and_nothing_is_written(steps, wrong, named):
    before = written(steps)
    with pytest.raises(InvalidRequest) as refused:
        submit(steps, [noop("first"), noop("job", **wrong), noop("third")], key="k")
    assert (refused.value.status, refused.value.code) == (422, "invalid_spec")
    assert named in fields(refused)
    assert all(field.startswith("jobs.1") for field in fields(refused))
    assert written(steps) == before


def test_every_mistake_of_every_job_is_named(steps):
    with pytest.raises(InvalidRequest) as refused:
        submit(steps, [noop(nope=1), noop(), noop(time_limit=-1, priority="huge"), 7])
    assert set(fields(refused)) == {
        "jobs.0.nope", "jobs.2.time_limit", "jobs.2.priority", "jobs.3",
    }  # fmt: skip


def test_names_of_the_batch_become_ids_and_parents_are_older(steps):
    ids, _ = submit(
        steps,
        [
            noop("report", after=["@train-a", "@train-b"]),
            noop("train-a", after=["@prepare"]),
            noop("train-b", after=["@prepare"]),
            noop("prepare"),
        ],
    )
    report, train_a, train_b, prepare = ids
    assert steps.job(report).spec["after"] == [train_a, train_b]
    assert [steps.job(job_id).open_parents for job_id in ids] == [2, 1, 1, 0]
    assert prepare < train_a < report
    assert prepare < train_b < report


def test_a_cycle_is_refused_and_named(steps):
    before = written(steps)
    with pytest.raises(InvalidRequest) as refused:
        submit(
            steps,
            [
                noop("free"),
                noop("a", after=["@b"]),
                noop("b", after=["@c"]),
                noop("c", after=["@a"]),
            ],
        )
    (error,) = refused.value.errors
    assert error.field in {"jobs.1.after", "jobs.2.after", "jobs.3.after"}
    assert error.message.startswith("a cycle: ")
    assert "'a' waits for 'b'" in error.message
    assert written(steps) == before


def test_a_job_that_waits_for_itself_is_refused(steps):
    with pytest.raises(InvalidRequest) as refused:
        submit(steps, [noop("a", after=["@a"])])
    assert refused.value.errors[0].message == "a job cannot wait for itself"


def test_a_name_that_two_jobs_have_is_refused(steps):
    with pytest.raises(InvalidRequest) as refused:
        submit(steps, [noop("a"), noop("a"), noop("b", after=["@a"])])
    assert fields(refused) == ["jobs.2.after.0"]
    assert "jobs.0, jobs.1" in refused.value.errors[0].message


def test_alone_a_job_has_no_batch_to_name(steps):
    with pytest.raises(InvalidRequest) as refused:
        steps.submit(after=["@other"])
    assert fields(refused) == ["after.0"]


def test_what_one_job_may_not_have_none_gets(steps):
    ann = steps.user("ann", Role.RESEARCHER)
    before = written(steps)
    with pytest.raises(NotPermitted) as refused:
        submit(steps, [noop(), noop(priority="urgent"), noop(priority="high")], ann)
    assert fields(refused) == ["jobs.1.priority", "jobs.2.priority"]
    assert "job.priority.urgent" in refused.value.errors[0].message
    assert written(steps) == before


def test_the_same_key_and_batch_give_the_same_jobs(steps):
    batch = [noop("a"), noop("b", after=["@a"])]
    ids, is_new = submit(steps, batch, key="k")
    before = written(steps)
    again, is_newer = submit(steps, batch, key="k")
    assert (again, is_new, is_newer) == (ids, True, False)
    assert written(steps) == before


@pytest.mark.parametrize(
    "other",
    [
        [noop("a")],
        [noop("b"), noop("a")],
        [noop("a"), noop("c")],
        [noop("a"), noop("b", priority="low")],
    ],
)
def test_a_key_with_another_batch_is_refused(steps, other):
    submit(steps, [noop("a"), noop("b")], key="k")
    with pytest.raises(Conflict) as refused:
        submit(steps, other, key="k")
    assert refused.value.code == "idempotency_mismatch"


def test_a_key_of_a_single_job_is_none_for_a_batch_of_it(steps):
    steps.submit_as(noop(), key="k")
    with pytest.raises(Conflict):
        submit(steps, [noop()], key="k")


def test_eight_equal_batches_at_once_make_one(steps, together):
    answers = together(lambda _: submit(steps, [noop("a"), noop("b")], key="k"), range(8))
    assert len({tuple(ids) for ids, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    assert written(steps)[0] == 2


def test_a_long_row_of_jobs_that_wait_ends_with_the_first(steps):
    """The end of the first one cancels all the others in one transaction."""
    chain = [noop("n0"), *(noop(f"n{i}", after=[f"@n{i - 1}"]) for i in range(1, 300))]
    ids, _ = submit(steps, chain)
    steps.cancel(ids[0])
    with steps.db.read() as session:
        states = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    assert states == {"cancelled": 300}
    assert steps.job(ids[299]).reason["code"] == "parent_failed"

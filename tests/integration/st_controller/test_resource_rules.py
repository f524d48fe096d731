"""Resource rules at submission: every way in obeys them, and so does the scheduler."""

import json

import pytest
from controller_steps import document, published

from st_controller.domain.policy.reach import Reach
from st_controller.errors import InvalidRequest, NotFound, NotPermitted
from st_controller.services import configs, job_arrays, steering, submission
from st_controller.services.drafts import Rules
from st_controller.services.policy import book, resource_rules
from st_controller.store.schema import CustomRole
from st_shared.protocol.configs import ConfigRequest
from st_shared.protocol.policy_rules import ResourceRuleRequest
from st_shared.protocol.resources import JobArrayRequest


@pytest.fixture
def rule(steps):
    """Makes a rule as the admin: ``rule("deny", "family", "pixel*", role="researcher")``."""

    def make(effect, resource, pattern, *, actor=None, org=None, note="", **subject):
        kind, name = next(iter(subject.items()), ("everyone", ""))
        wanted = ResourceRuleRequest(
            org=org, subject_kind=kind, subject=name, resource=resource, pattern=pattern,
            effect=effect, note=note,
        )  # fmt: skip
        with steps.db.write() as tx:
            return resource_rules.create(tx, actor or steps.admin, wanted)

    return make


@pytest.fixture
def ann(steps):
    return steps.user("ann", "researcher")


def noop(name="job", **fields):
    return {"name": name, "noop": {}, **fields}


def request_of(steps, job_id):
    return json.loads(steps.job(job_id).request)


def test_a_denied_job_leaves_nothing_and_names_its_field(steps, rule, ann):
    made = rule("deny", "family", "pixel*", role="researcher", note="ask Eve")
    with pytest.raises(NotPermitted) as refused:
        steps.submit(actor=ann, key="k")
    assert refused.value.code == "denied_by_rule"
    (error,) = refused.value.errors
    assert error.field == "training.model.family"
    assert made.id in error.message
    assert "ask Eve" in error.message
    assert steps.events("jobs") == []
    steps.submit(actor=steps.admin)  # the rule is not for admins


def test_a_batch_is_refused_whole_and_names_each_place(steps, rule, ann):
    rule("allow", "family", "flux*", user="ann")
    documents = [noop("one"), document("two")]
    batch = submission.check_batch(ann, documents, Rules())
    with pytest.raises(NotPermitted) as refused, steps.db.write() as tx:
        submission.enqueue_batch(tx, ann, batch)
    places = [error.field for error in refused.value.errors]
    assert places == ["jobs.0.noop", "jobs.1.training.model.family"]


def test_an_array_obeys_too(steps, rule, ann):
    rule("deny", "family", "noop", team="default/default")
    asked = JobArrayRequest(spec=noop("sweep"), list=[{"noop.seconds": 1}, {"noop.seconds": 2}])
    drafts = job_arrays.check(ann, asked, Rules())
    with pytest.raises(NotPermitted) as refused, steps.db.write() as tx:
        job_arrays.submit(tx, ann, asked, drafts)
    assert len(refused.value.errors) == 1  # the same mistake of both


def test_a_retry_obeys_what_is_in_force_then(steps, rule, ann):
    job_id = steps.submit(actor=ann)
    steps.cancel(job_id)
    rule("deny", "family", "*", user="ann")
    with pytest.raises(NotPermitted), steps.db.write() as tx:
        steering.retry(tx, ann, job_id, Rules())
    with pytest.raises(NotPermitted), steps.db.write() as tx:
        steering.retry(tx, steps.admin, job_id, Rules())  # the owner's rules, not the helper's
    assert steps.job(job_id).state == "cancelled"


def refused_fields(submit):
    with pytest.raises(NotPermitted) as refused:
        submit()
    return [error.field for error in refused.value.errors]


def test_every_way_in_publishes_to_what_is_allowed_alone(steps, rule, ann):
    before, _ = steps.submit_as(published("s3://theirs/a"), ann)
    steps.cancel(before)
    told = steps.events("jobs")
    rule("allow", "output_path", "s3://ours/*", user="ann")
    with steps.db.write() as tx:
        saved = ConfigRequest(name="base", document=published("s3://theirs/a"))
        configs.make_config(tx, ann, saved)

    def one(body):
        return refused_fields(lambda: steps.submit_as(body, ann))

    def batch():
        bodies = [published("s3://ours/a"), published("s3://theirs/a")]
        checked = submission.check_batch(ann, bodies, Rules())
        with steps.db.write() as tx:
            submission.enqueue_batch(tx, ann, checked)

    def array():
        places = [{"training.publish.0.uri": f"s3://{whose}/a"} for whose in ("ours", "theirs")]
        asked = JobArrayRequest(spec=published("s3://ours/a"), list=places)
        drafts = job_arrays.check(ann, asked, Rules())
        with steps.db.write() as tx:
            job_arrays.submit(tx, ann, asked, drafts)

    def retry():
        with steps.db.write() as tx:
            steering.retry(tx, ann, before, Rules())

    begun, mended = configs.begun_from(
        steps.db,
        ann,
        [
            {"name": "n", "config": "base"},
            {"name": "n", "config": "base", "training": {"publish": []}},
        ],
    )
    assert one(published("s3://theirs/a")) == ["training.publish.0"]
    assert one(begun) == ["training.publish.0"]
    assert refused_fields(batch) == ["jobs.1.training.publish.0"]
    assert refused_fields(array) == ["spec.training.publish.0"]
    assert refused_fields(retry) == ["training.publish.0"]
    assert steps.events("jobs") == told  # what was refused left nothing
    steps.submit_as(published("s3://ours/a"), ann)
    steps.submit_as(mended, ann)


def test_a_job_is_never_placed_on_what_is_denied(steps, rule, ann):
    rule("deny", "accelerator", "cpu*", role="researcher")
    job_id = steps.submit(actor=ann)
    assert request_of(steps, job_id)["accelerator"] == "*&!cpu*"
    steps.join("w")  # joins later, with a cpu
    assert steps.place() == 0
    assert steps.job(job_id).spec["resources"]["accelerator"] == "*"
    theirs = steps.submit(actor=steps.admin)
    assert steps.place() == 1
    assert steps.job(theirs).state == "assigned"


def test_a_provider_is_narrowed_too(steps, rule, ann):
    rule("allow", "provider", "cloud*", role="researcher")
    job_id = steps.submit(actor=ann)
    steps.join("on-premises")
    assert steps.place() == 0
    steps.join("rented", given={"provider": "cloud-a"})
    assert steps.place() == 1
    assert steps.job(job_id).state == "assigned"


def test_a_rule_that_goes_is_forgotten_at_once(steps, rule, ann):
    made = rule("deny", "family", "*", role="researcher")
    with pytest.raises(NotPermitted):
        steps.submit(actor=ann)
    with steps.db.write() as tx:
        resource_rules.remove(tx, steps.admin, made.id)
    steps.submit(actor=ann)


def test_a_change_is_audited_with_what_was_before(steps, rule):
    made = rule("deny", "family", "a*")
    wanted = ResourceRuleRequest(resource="family", pattern="b*", effect="deny")
    with steps.db.write() as tx:
        resource_rules.replace(tx, steps.admin, made.id, wanted)
        resource_rules.remove(tx, steps.admin, made.id)
    made_it, changed, removed = steps.audit_of(made.id)
    assert (made_it.action, removed.action) == ("resource_rule.made", "resource_rule.removed")
    assert changed.details["before"]["pattern"] == "a*"
    assert changed.details["after"]["pattern"] == "b*"


@pytest.mark.parametrize(
    ("subject", "field"),
    [({"role": "reseacher"}, "subject"), ({"team": "default/nobody"}, "subject"),
     ({"user": "nobody"}, "subject")],
)  # fmt: skip
def test_a_rule_for_nobody_is_refused(rule, subject, field):
    with pytest.raises(InvalidRequest) as refused:
        rule("deny", "family", "*", **subject)
    assert [error.field for error in refused.value.errors] == [field]


def test_nobody_changes_a_rule_that_binds_them_or_reaches_too_far(steps, rule):
    with steps.db.write() as tx:
        keeper = CustomRole(
            slug="keeper", name="Keeper", permissions=["admin.config"], reach=Reach.ORG.word,
            rank=60, created_at=tx.now,
        )  # fmt: skip
        tx.session.add(keeper)
    kim = steps.user("kim", "keeper")
    lead = steps.user("lea", "lead", allow=["admin.config"])
    everywhere = rule("deny", "family", "x*")
    at_home = rule("deny", "family", "y*", org="default", role="keeper")
    for made in (everywhere, at_home):
        with pytest.raises(NotPermitted), steps.db.write() as tx:
            resource_rules.remove(tx, kim, made.id)
    mine = rule("deny", "family", "z*", actor=kim, org="default", role="lead")
    with pytest.raises(NotPermitted), steps.db.write() as tx:
        resource_rules.remove(tx, lead, mine.id)  # a lead's powers end at the teams
    with pytest.raises(NotPermitted):
        rule("allow", "family", "*", actor=kim, org="default", role="admin")
    with steps.db.write() as tx:
        resource_rules.remove(tx, kim, mine.id)


def test_rules_of_another_organisation_do_not_exist(steps, rule):
    other = steps.user("eve", "admin", "other", allow=[])
    theirs = rule("deny", "family", "*", org="other")
    with steps.db.write() as tx:
        keeper = CustomRole(
            slug="keeper", name="Keeper", permissions=["admin.config"], reach=Reach.ORG.word,
            rank=60, created_at=tx.now,
        )  # fmt: skip
        tx.session.add(keeper)
    kim = steps.user("kim", "keeper")
    with pytest.raises(NotFound), steps.db.write() as tx:
        resource_rules.remove(tx, kim, theirs.id)
    with steps.db.read() as session:
        seen = resource_rules.list_rules(session, kim, cursor=None, limit=10).items
        assert seen == []
        all_rules = resource_rules.list_rules(session, other, cursor=None, limit=10).items
    assert [each.id for each in all_rules] == [theirs.id]


def test_people_see_the_rules_that_bind_them(steps, rule, ann):
    mine = rule("deny", "family", "a*", user="ann")
    rule("deny", "family", "b*", role="lead")
    with steps.db.read() as session:
        seen = resource_rules.list_rules(session, ann, cursor=None, limit=10).items
    assert [each.id for each in seen] == [mine.id]


def test_without_rules_a_submission_looks_once_and_changes_nothing(steps, ann):
    job_id = steps.submit(actor=ann)
    assert request_of(steps, job_id)["accelerator"] == "*"
    with steps.db.read() as session:
        assert book.current(session).is_empty

"""Quotas that each user of a role has, unless they have one of their own."""

from dataclasses import replace

import pytest
from purse import ORG, TEAM, Purse
from sqlalchemy import select

from st_controller.dispatch.accounting import Books
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted, QuotaExceeded
from st_controller.services import memberships, roles, steering, tenants, users
from st_controller.services.drafts import Rules
from st_controller.services.policy import quota_setting, quota_usage, running_limits
from st_controller.store.schema import QuotaCounter
from st_shared.protocol.quotas import QuotaRequest
from st_shared.protocol.states import FailureKind, JobState, Outcome
from st_shared.protocol.tenancy import RoleRequest, TeamRequest, UserChange

ANN = f"{TEAM}/ann"


@pytest.fixture
def purse(steps) -> Purse:
    return Purse(steps)


@pytest.fixture
def ann(steps):
    return steps.user("ann", "researcher")


@pytest.fixture
def ben(steps):
    return steps.user("ben", "researcher")


def submit(steps, actor, **fields):
    return steps.submit(actor=actor, **{"expected_time": "30m", **fields})


def counted(steps) -> list[str]:
    with steps.db.read() as session:
        return sorted(session.scalars(select(QuotaCounter.path)))


def test_each_user_of_the_role_has_it_for_themselves_and_others_have_not(steps, purse, ann, ben):
    purse.quota(ORG, "submissions_per_day", 1, role="researcher")
    submit(steps, ann)
    submit(steps, ben)
    with pytest.raises(QuotaExceeded) as refused:
        submit(steps, ann)
    said = "The quota submissions_per_day of default/default/ann (each researcher of default) is 1"
    assert said in refused.value.detail
    for _ in range(2):
        submit(steps, steps.admin)
    purse.agrees()


def test_of_many_at_once_no_more_are_let_in_than_it_allows(steps, purse, ann, together):
    """Nobody has a counter yet: who comes first makes it, and the others wait for that."""
    purse.quota(ORG, "submissions_per_day", 3, role="researcher")

    def one(_):
        try:
            return bool(submit(steps, ann))
        except QuotaExceeded:
            return False

    assert sum(together(one, range(8))) == 3
    purse.agrees()


@pytest.mark.embedded
def test_it_counts_what_was_used_before_it_stood(steps, purse, ann):
    submit(steps, ann)
    purse.quota(ORG, "submissions_per_day", 2, role="researcher")
    submit(steps, ann)
    with pytest.raises(QuotaExceeded, match="2 used: 0 left"):
        submit(steps, ann)


@pytest.mark.embedded
@pytest.mark.parametrize("most", [1, 3])
def test_one_of_their_own_takes_its_place_below_or_above(steps, purse, ann, most):
    purse.quota(ORG, "submissions_per_day", 2, role="researcher")
    own = purse.quota(ANN, "submissions_per_day", most)
    for _ in range(most):
        submit(steps, ann)
    with pytest.raises(QuotaExceeded, match=f"of default/default/ann is {most}"):
        submit(steps, ann)
    with steps.db.write() as tx:
        quota_setting.remove_quota(tx, steps.admin, quota_setting.find(tx.session, own.id))
    if most == 1:
        submit(steps, ann)  # that of the role holds again, with what was used
    with pytest.raises(QuotaExceeded, match="is 2"):
        submit(steps, ann)


@pytest.mark.embedded
def test_another_action_of_their_own_leaves_the_block_of_the_role(steps, purse, ann):
    purse.quota(ORG, "submissions_per_day", 1, role="researcher")
    purse.quota(ANN, "submissions_per_day", 9, "warn")
    submit(steps, ann)
    with pytest.raises(QuotaExceeded):
        submit(steps, ann)


@pytest.mark.embedded
def test_the_least_of_team_organisation_and_pool_counts(steps, purse, ann, ben):
    purse.quota("all", "submissions_per_day", 3, role="researcher")
    purse.quota(TEAM, "submissions_per_day", 2, role="researcher")
    purse.quota(ORG, "submissions_per_day", 3)
    for _ in range(2):
        submit(steps, ann)
    with pytest.raises(QuotaExceeded, match="each researcher of default/default"):
        submit(steps, ann)
    submit(steps, ben)
    with pytest.raises(QuotaExceeded, match="of default is 3"):
        submit(steps, ben)


@pytest.mark.embedded
def test_none_lies_above_the_pool_that_it_is_in(purse):
    purse.quota(ORG, "running_jobs", 10)
    with pytest.raises(Conflict, match="default has 10"):
        purse.quota(ORG, "running_jobs", 11, role="researcher")
    purse.quota(TEAM, "running_jobs", 8, role="researcher")
    with pytest.raises(Conflict, match=r"each researcher of default/default \(8\)"):
        purse.quota(ORG, "running_jobs", 7)


def test_money_is_held_settled_and_capped(steps, purse, ann):
    """The hard cap holds for what ran before the quota stood, too."""
    purse.price("6")
    worker = steps.join()
    job = submit(steps, ann)
    attempt = steps.claimed(worker)
    steps.run(worker, attempt)
    steps.clock.advance(600)
    steps.beat(worker, attempt)
    purse.quota(ORG, "cost_monthly", 3, role="researcher")
    Books(steps.db).keep()
    assert purse.money(ANN) == (1, 2)
    steps.clock.advance(1170)
    steps.beat(worker, attempt)
    Books(steps.db).keep()
    assert steps.attempt(attempt).stop == "preempt"
    steps.finish(worker, attempt, Outcome.PREEMPTED)
    ended = steps.job(job)
    assert (ended.state, ended.reason["code"]) == (JobState.CANCELLED, "quota_exhausted")
    purse.agrees()


def test_a_retry_needs_room_though_nobody_counted_before(steps, purse, ann):
    purse.price("6")
    worker = steps.join()
    job = submit(steps, ann, retry={"max_attempts": 1})
    attempt = steps.claimed(worker)
    steps.run(worker, attempt)
    steps.finish(worker, attempt, Outcome.FAILED, failure=FailureKind.CRASHED)
    low = purse.quota(ORG, "cost_monthly", "2.5", role="researcher")
    with pytest.raises(QuotaExceeded, match=r"2\.5 left, 3 asked for"), steps.db.write() as tx:
        steering.retry(tx, ann, job, Rules())
    purse.quota(ORG, "cost_monthly", "3", role="researcher")
    with steps.db.write() as tx:
        steering.retry(tx, ann, job, Rules())
    assert purse.money(ANN) == (0, 3)
    purse.agrees()
    assert low.role == "researcher"


def test_what_runs_at_once_is_limited_for_each(steps, purse, ann, ben):
    steps.join(slots=4)
    purse.quota(ORG, "running_jobs", 1, role="researcher")
    for actor in (ann, ann, ben):
        submit(steps, actor)
    assert steps.place() == 2
    purse.quota(ANN, "running_jobs", 2)
    assert steps.place() == 1


@pytest.mark.embedded
def test_another_role_has_other_limits_at_once(steps, purse, ann):
    purse.quota(ORG, "submissions_per_day", 1, role="researcher")
    submit(steps, ann)
    with steps.db.write() as tx:
        users.change_user(tx, steps.admin, "ann", UserChange(role="lead"))
    submit(steps, ann)
    assert ANN not in counted(steps)
    with steps.db.write() as tx:
        users.change_user(tx, steps.admin, "ann", UserChange(role="researcher"))
    with pytest.raises(QuotaExceeded, match="2 used"):
        submit(steps, ann)


@pytest.mark.embedded
def test_a_quota_that_is_gone_leaves_no_counter(steps, purse, ann):
    made = purse.quota(ORG, "submissions_per_day", 1, role="researcher")
    own = purse.quota(ANN, "submissions_per_hour", 5)
    submit(steps, ann)
    assert counted(steps) == [ANN, ANN]
    with steps.db.write() as tx:
        quota_setting.remove_quota(tx, steps.admin, quota_setting.find(tx.session, made.id))
    assert counted(steps) == [ANN]
    assert own.role is None
    submit(steps, ann)


@pytest.mark.embedded
class TestWhoSetsThem:
    @pytest.fixture
    def lea(self, steps):
        return steps.user("lea", "lead")

    def put(self, steps, actor, path, role=None, amount=5, permission="team.manage.quotas"):
        wanted = QuotaRequest(path=path, role=role, kind="running_jobs", amount=amount)
        with steps.db.write() as tx:
            return quota_setting.set_quota(tx, actor, wanted, permission)

    def test_a_lead_those_of_lower_roles_in_their_teams(self, steps, lea):
        made = self.put(steps, lea, TEAM, "researcher")
        with steps.db.write() as tx:
            found = quota_setting.find(tx.session, made.id)
            quota_setting.remove_quota(tx, lea, found, "team.manage.quotas")
        for path, role in ((TEAM, "lead"), (TEAM, "admin"), (ORG, "researcher")):
            with pytest.raises(NotPermitted):
                self.put(steps, lea, path, role)
        with pytest.raises(NotFound):
            self.put(steps, lea, "all", "researcher")

    def test_who_gives_more_than_a_role_has_may_set_that(self, steps, lea, ann):
        self.put(steps, steps.admin, ORG, "researcher", 5)
        self.put(steps, lea, ANN, amount=5)
        with pytest.raises(NotPermitted, match="each researcher of default has 5"):
            self.put(steps, lea, ANN, amount=6)
        self.put(steps, steps.admin, ANN, amount=6)

    def test_slips_are_told(self, steps, ann):
        with pytest.raises(InvalidRequest, match="there is no role"):
            self.put(steps, steps.admin, ORG, "reseacher")
        with pytest.raises(InvalidRequest, match="role: a user has limits of their own"):
            self.put(steps, steps.admin, ANN, "researcher")

    def test_a_role_that_has_some_is_not_deleted(self, steps):
        made = RoleRequest(
            slug="keeper", name="Keeper", permissions=["job.submit"], reach="own", rank=5
        )
        with steps.db.write() as tx:
            roles.make_role(tx, steps.admin, made)
        self.put(steps, steps.admin, ORG, "keeper")
        with pytest.raises(Conflict, match="quotas of each keeper"), steps.db.write() as tx:
            roles.delete_role(tx, steps.admin, "keeper")


@pytest.mark.embedded
def test_everybody_sees_their_own_and_not_those_of_other_roles(steps, purse, ann):
    purse.quota(ORG, "submissions_per_day", 4, role="researcher")
    purse.quota(ORG, "submissions_per_day", 9, role="lead")
    purse.quota("all", "submissions_per_hour", 7, role="researcher")
    submit(steps, ann)
    with steps.db.read() as session:
        shown = quota_usage.usage(session, ann, None, steps.db.clock()).quotas
        listed = quota_usage.list_quotas(session, ann)
    assert [(each.path, each.role, int(each.used), int(each.left)) for each in shown] == [
        ("default", "researcher", 1, 3),
        ("all", "researcher", 1, 6),
    ]
    assert [(each.path, each.role) for each in listed] == [
        ("all", "researcher"),
        ("default", "researcher"),
    ]


@pytest.mark.embedded
def test_who_joins_another_team_has_it_there(steps, purse, ann):
    purse.quota(ORG, "running_jobs", 1, role="researcher")
    with steps.db.write() as tx:
        tenants.make_team(tx, steps.admin, TeamRequest(slug="other", org=ORG))
        tx.session.flush()
        memberships.join_team(tx, steps.admin, ORG, "other", "ann")
    steps.join(slots=4)
    elsewhere = {"actor": replace(ann, teams=ann.teams | {"other"}), "team": "other"}
    for fields in (elsewhere, elsewhere, {"actor": ann}):
        submit(steps, **fields)
    assert steps.place() == 2
    with steps.db.read() as session:
        assert running_limits.read(session).keys() == {ANN, f"{ORG}/other/ann"}

"""What roles give, and how far."""

import pytest

from st_controller.domain.policy.permissions import PERMISSIONS, TABLE, About
from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import BUILT_IN, effective

OF_THE_FIELD = {
    "viewer": "job.view.own config.view",
    "researcher": """job.submit job.view.own job.cancel.own job.delete.own config.view config.create
        config.edit.own config.delete.own queue.view queue.cancel.own api.access api.keys.own""",
    "lead": """job.submit job.view.own job.view.all job.cancel.own job.delete.own job.priority.high
        config.view config.create config.edit.own config.delete.own queue.view queue.view.all
        queue.cancel.own queue.approve quota.view admin.approve admin.audit org.view team.view
        team.create team.edit team.manage.members team.manage.quotas api.access api.keys.own""",
}
OF_ADMINS_ALONE = set(
    """job.cancel.all job.delete.all job.bypass.queue job.bypass.approval job.bypass.quota
    config.edit.all config.delete.all queue.cancel.all queue.manage quota.manage admin.users
    admin.levels admin.quotas admin.config admin.queue admin.workers org.create org.edit org.delete
    org.manage.members org.manage.quotas team.delete api.keys.all""".split()  # noqa: SIM905
)
OURS = {
    "dataset.view", "dataset.create", "worker.view", "job.command", "job.priority.urgent",
    "secret.own", "secret.manage",
}  # fmt: skip


def test_built_in_roles_hold_what_the_field_expects_of_them() -> None:
    for slug, expected in OF_THE_FIELD.items():
        assert BUILT_IN[slug].permissions - OURS == set(expected.split())
    for permission in OF_ADMINS_ALONE:
        holders = [slug for slug, role in BUILT_IN.items() if permission in role.permissions]
        assert holders == ["admin"]
    assert PERMISSIONS.keys() - OURS == set(OF_THE_FIELD["lead"].split()) | OF_ADMINS_ALONE


def test_rank_and_reach_grow_together() -> None:
    ladder = [(role.rank, role.reach) for role in BUILT_IN.values()]
    assert ladder == [(0, Reach.OWN), (10, Reach.OWN), (50, Reach.TEAM), (100, Reach.SYSTEM)]


def test_denial_wins_over_role_and_grant() -> None:
    researcher = BUILT_IN["researcher"]
    held = effective(researcher, allowed={"job.priority.high"}, denied={"job.submit"})
    assert "job.priority.high" in held
    assert "job.submit" not in held
    assert "job.submit" not in effective(researcher, allowed={"job.submit"}, denied={"job.submit"})


@pytest.mark.parametrize("reach", list(Reach))
def test_a_reach_is_read_as_it_is_written(reach: Reach) -> None:
    assert Reach.of(reach.word) is reach


def test_what_is_about_others_says_so() -> None:
    for name, permission in TABLE.items():
        assert (permission.about is About.OWN) or not name.endswith(".own"), name
        assert (permission.about is About.OTHERS) or not name.endswith(".all"), name

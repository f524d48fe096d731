from itertools import pairwise

from st_controller.domain.policy.permissions import CLASS_PERMISSIONS, PERMISSIONS
from st_controller.domain.policy.roles import BUILT_IN, ROLE_PERMISSIONS, Role, effective
from st_shared.spec.job import Priority


def test_roles_hold_known_permissions_and_each_holds_more_than_the_one_before() -> None:
    ladder = [ROLE_PERMISSIONS[role] for role in Role]

    assert all(held <= PERMISSIONS.keys() for held in ladder)
    assert all(lower < higher for lower, higher in pairwise(ladder))
    assert ladder[-1] == PERMISSIONS.keys()


def test_scopes_only_take_away() -> None:
    assert effective(BUILT_IN["viewer"], scopes=["job.submit", "job.view.own"]) == {"job.view.own"}
    assert effective(BUILT_IN["admin"], scopes=[]) == frozenset()
    assert effective(BUILT_IN["researcher"]) == ROLE_PERMISSIONS[Role.RESEARCHER]


def test_who_may_ask_for_which_class() -> None:
    def classes(role: Role) -> set[Priority]:
        held = ROLE_PERMISSIONS[role]
        return {each for each in Priority if CLASS_PERMISSIONS.get(each, "job.submit") in held}

    assert classes(Role.VIEWER) == set()
    assert classes(Role.RESEARCHER) == {Priority.LOW, Priority.NORMAL}
    assert classes(Role.LEAD) == {Priority.LOW, Priority.NORMAL, Priority.HIGH}
    assert classes(Role.ADMIN) == set(Priority)


def test_shell_commands_and_the_queue_are_the_admins() -> None:
    for permission in ("job.command", "queue.manage"):
        assert [role for role in Role if permission in ROLE_PERMISSIONS[role]] == [Role.ADMIN]

from itertools import pairwise

from st_controller.domain.policy.permissions import (
    PERMISSIONS,
    ROLE_PERMISSIONS,
    Role,
    effective,
)


def test_roles_hold_known_permissions_and_each_holds_more_than_the_one_before() -> None:
    ladder = [ROLE_PERMISSIONS[role] for role in Role]

    assert all(held <= PERMISSIONS.keys() for held in ladder)
    assert all(lower < higher for lower, higher in pairwise(ladder))
    assert ladder[-1] == PERMISSIONS.keys()


def test_scopes_only_take_away() -> None:
    assert effective(Role.VIEWER, ["job.submit", "job.view.own"]) == {"job.view.own"}
    assert effective(Role.ADMIN, []) == frozenset()
    assert effective(Role.RESEARCHER, None) == ROLE_PERMISSIONS[Role.RESEARCHER]

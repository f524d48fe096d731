"""Which limits lie within which, and whose own take the place of those of a role. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from st_controller.domain.policy.quotas import Action, Quota


class Above(NamedTuple):
    """A limit that stands above another, and would be passed by it."""

    outer: Quota
    inner: Quota


def above_ceilings(wanted: Quota, standing: Iterable[Quota]) -> list[Above]:
    """Pairs in which a limit would lie above that of a node it belongs to, if ``wanted`` stood.

    Only limits that block are ceilings, and they are compared within one kind.
    """
    found = []
    for other in standing:
        if other.id == wanted.id or other.kind is not wanted.kind:
            continue
        if _holds_within(other, wanted):
            outer, inner = other, wanted
        elif _holds_within(wanted, other):
            outer, inner = wanted, other
        else:
            continue
        if outer.action is Action.BLOCK and inner.amount > outer.amount:
            found.append(Above(outer, inner))
    return sorted(found, key=lambda pair: (pair.outer.node, pair.inner.node, pair.inner.action))


def _holds_within(outer: Quota, inner: Quota) -> bool:
    """Whether what counts on ``inner`` always counts on ``outer`` too.

    A limit of a role does not bind whoever has one of their own.
    """
    if outer.role:
        return outer.role == inner.role and lies_below(inner.path, outer.path)
    return lies_below(inner.path, outer.path) or (bool(inner.role) and inner.path == outer.path)


def lies_below(path: str, node: str) -> bool:
    """Whether a path lies below a node, and is not the node itself."""
    return path != node and (not node or path.startswith(f"{node}/"))


def of_user(path: str, role: str, own: Iterable[Quota], defaults: Iterable[Quota]) -> list[Quota]:
    """The limits of a user at ``org/team/user``: their own, and those of their role.

    One of their own takes the place of all of its kind and action; of others the least holds, as
    everywhere.
    """
    mine = list(own)
    replaced = {(quota.kind, quota.action) for quota in mine}
    return mine + [
        quota
        for quota in defaults
        if quota.role == role
        and lies_below(path, quota.path)
        and (quota.kind, quota.action) not in replaced
    ]


def exceeded(own: Quota, role: str, defaults: Iterable[Quota]) -> list[Quota]:
    """Limits of a role that a user's own one would allow them to pass."""
    return [
        quota
        for quota in of_user(own.path, role, (), defaults)
        if (quota.kind, quota.action) == (own.kind, own.action) and own.amount > quota.amount
    ]

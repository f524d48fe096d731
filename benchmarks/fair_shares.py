"""Who shares how many slots with whom in ``fairness.py``, and how they are ideally divided."""

from collections import defaultdict
from collections.abc import Mapping

from st_controller.domain.scheduling.model import Tenant

SIZES = (8,) * 36 + (4,) * 24
"""Slots of each worker."""
SLOTS = sum(SIZES)


def users() -> list[Tenant]:
    """3 organisations of 2 teams of 3 users."""
    return [
        Tenant(f"org{org}", f"team{team}", f"user{user}")
        for org in range(3)
        for team in range(2)
        for user in range(3)
    ]


def weights() -> dict[str, float]:
    """The weight of every node, by path."""
    found: dict[str, float] = {}
    for tenant in users():
        org, team, user = (int(name[-1]) for name in (tenant.org, tenant.team, tenant.user))
        found[tenant.org] = 1.0 + org
        found[f"{tenant.org}/{tenant.team}"] = 1.0 + 2.0 * team
        found[tenant.path] = 1.0 + (user + org) % 3
    return found


def children(nodes: Mapping[str, float]) -> dict[str, list[str]]:
    """The children of every node; the root is ``""``."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in nodes:
        found[path.rpartition("/")[0]].append(path)
    return found


def least_share(user: str, given: Mapping[str, float]) -> float:
    """Slots that are a user's while everybody wants more than there is."""
    siblings = children(given)
    part = float(SLOTS)
    names = user.split("/")
    for depth in range(len(names)):
        path = "/".join(names[: depth + 1])
        part *= given[path] / sum(given[other] for other in siblings[path.rpartition("/")[0]])
    return part


def divide(
    amount: float,
    work: Mapping[str, float],
    below: Mapping[str, list[str]],
    given: Mapping[str, float],
    node: str = "",
) -> dict[str, float]:
    """Weighted water-filling among the children of a node, and on below them."""
    if node not in below:
        return {node: amount}
    wanted = {child: wants(child, work, below) for child in below[node]}
    level = pour(amount, wanted, given)
    found: dict[str, float] = {}
    for child, want in wanted.items():
        had = min(want, level * given[child])
        found |= divide(had, work, below, given, child)
    return found


def wants(node: str, work: Mapping[str, float], below: Mapping[str, list[str]]) -> float:
    """What a node and those below it could use."""
    if node in work:
        return work[node]
    return sum(wants(child, work, below) for child in below[node])


def pour(amount: float, wanted: Mapping[str, float], given: Mapping[str, float]) -> float:
    """The level, an amount per weight, up to which all are filled or have what they want."""
    left = amount
    dry = dict(wanted)
    while dry:
        level = left / sum(given[name] for name in dry)
        full = [name for name, want in dry.items() if want <= level * given[name]]
        if not full:
            return level
        for name in full:
            left -= dry.pop(name)
    return float("inf")

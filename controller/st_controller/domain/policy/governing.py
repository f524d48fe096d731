"""Who may change a rule: nobody one that binds them, nor one of a wider circle than theirs."""

from collections.abc import Iterable

from st_controller.domain.policy.reach import Reach

HIGHEST = 100
"""Rank of whoever no rule can be kept from; somebody must be able to change them all."""


def why_not_govern(
    *,
    rank: int,
    widest: Reach,
    own_org: str,
    org: str | None,
    binds_them: bool,
    bound: Iterable[int],
) -> str | None:
    """Why somebody may not make, change or remove a rule; none: they may.

    Args:
        rank: of their role.
        widest: how far their permissions over the things of others go.
        own_org: their organisation.
        org: the organisation that the rule is for; none: all.
        binds_them: whether the rule binds themselves.
        bound: ranks of the roles that it names.
    """
    if org is None and widest < Reach.SYSTEM:
        return "a rule for all organisations is for those to make who reach all of them"
    if widest < Reach.ORG or (org not in {None, own_org} and widest < Reach.SYSTEM):
        return f"a rule for {org or 'all organisations'} is for those to make who reach all of it"
    if rank >= HIGHEST:
        return None
    if binds_them:
        return "the rule binds you: somebody of a higher rank must change it"
    if any(rank <= each for each in bound):
        return (
            "the rule binds a role of your rank or above: somebody of a higher rank must change it"
        )
    return None

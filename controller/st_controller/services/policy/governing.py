"""Who may change rules, as the database has their roles."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.governing import why_not_govern
from st_controller.domain.policy.roles import BUILT_IN
from st_controller.errors import InvalidRequest, NotPermitted
from st_controller.services.actor import Actor
from st_controller.store.schema import CustomRole, Organisation, Team, User
from st_shared.protocol.problems import FieldProblem


def must_govern(
    session: Session, actor: Actor, org: str | None, *, binds_them: bool, roles: Iterable[str]
) -> None:
    """Refuse with 403 who may not make, change or remove a rule of this organisation."""
    ranks = [rank for role in roles if (rank := rank_of(session, role)) is not None]
    why = why_not_govern(
        rank=actor.rank,
        widest=actor.widest,
        own_org=actor.org,
        org=org,
        binds_them=binds_them,
        bound=ranks,
    )
    if why:
        raise NotPermitted(why, code="rule_not_yours", hint="ask an admin to change it")


def rank_of(session: Session, role: str) -> int | None:
    """The rank of a role; none: there is no such role."""
    if role in BUILT_IN:
        return BUILT_IN[role].rank
    return session.scalar(select(CustomRole.rank).where(CustomRole.slug == role))


def must_exist(session: Session, kind: str, name: str, org: str | None, field: str) -> None:
    """Refuse with 422 a rule about somebody who is not there: a slip would make it bind nobody."""
    if kind == "role":
        known = rank_of(session, name) is not None
    elif kind == "team":
        place, _, slug = name.partition("/")
        known = session.get(Team, (place, slug)) is not None
    elif kind == "user":
        user = session.scalar(select(User).where(User.username == name))
        known = user is not None and org in {None, user.org}
    else:
        known = kind == "org" and session.get(Organisation, name) is not None
    if not known:
        where = f" in {org}" if org and kind == "user" else ""
        said = f"there is no {kind} {name!r}{where}"
        raise InvalidRequest(said, errors=[FieldProblem(field=field, message=said)])

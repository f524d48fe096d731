"""Roles that are made here, beside those that every installation has."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from st_controller.domain.policy.permissions import PERMISSIONS
from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import BUILT_IN, OF_THE_SYSTEM, RoleDefinition
from st_controller.errors import Conflict, InvalidRequest, NotFound
from st_controller.services import rights
from st_controller.services.actor import Actor
from st_controller.services.outranking import get_role, must_hold
from st_controller.services.policy import book
from st_controller.store.schema import CustomRole, QuotaRow, User
from st_controller.store.transaction import CREDENTIALS, Transaction
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.tenancy import RoleRequest, RoleView


def list_roles(session: Session) -> list[RoleDefinition]:
    """Every role, the highest rank last."""
    made = [rights.definition(row.slug, row) for row in session.scalars(select(CustomRole))]
    return sorted([*BUILT_IN.values(), *made], key=lambda role: (role.rank, role.slug))


def make_role(tx: Transaction, actor: Actor, request: RoleRequest) -> RoleDefinition:
    """A new role.

    Raises:
        Conflict: the name is taken.
        InvalidRequest: a permission is unknown.
        NotPermitted: it gives more than its maker may do, or goes farther.
    """
    role = _defined(tx.session, actor, request)
    if request.slug in BUILT_IN or tx.session.get(CustomRole, request.slug) is not None:
        raise Conflict(f"the name {request.slug!r} is taken", code="name_taken")
    tx.session.add(CustomRole(created_at=tx.now, slug=role.slug, **_columns(role)))
    tx.session.flush()
    tx.audit(actor.signature, "role.created", role.slug, **_columns(role))
    return role


def change_role(tx: Transaction, actor: Actor, slug: str, request: RoleRequest) -> RoleDefinition:
    """Give a role other permissions, at once for whoever has it.

    Raises:
        NotPermitted: it gives, or gave, more than the actor may do.
    """
    row = _locked(tx.session, slug)
    must_hold(actor, rights.definition(slug, row))
    if request.slug != slug:
        said = "a role keeps its name; make another one and give it to its users"
        raise InvalidRequest(said, errors=[FieldProblem(field="slug", message=said)])
    role = _defined(tx.session, actor, request)
    before = _columns(rights.definition(slug, row))
    for column, value in _columns(role).items():
        setattr(row, column, value)
    book.changed(tx)  # rules for approval go by ranks
    tx.audit(actor.signature, "role.changed", slug, before=before, after=_columns(role))
    tx.wake(CREDENTIALS)
    return role


def delete_role(tx: Transaction, actor: Actor, slug: str) -> None:
    """Remove a role that nobody has.

    Raises:
        Conflict: somebody has it.
    """
    row = _locked(tx.session, slug)
    must_hold(actor, rights.definition(slug, row))
    count = tx.session.scalar(select(func.count()).where(User.role == slug))
    if count:
        raise Conflict(
            f"{count} users have the role {slug}",
            code="role_in_use",
            hint="give them another one first",
        )
    if tx.session.scalar(select(QuotaRow.id).where(QuotaRow.role == slug).limit(1)):
        raise Conflict(
            f"there are quotas of each {slug}",
            code="role_in_use",
            hint="remove those first: `st quota list`",
        )
    tx.session.delete(row)
    book.changed(tx)
    tx.audit(actor.signature, "role.deleted", slug)


def views(session: Session, actor: Actor, roles: list[RoleDefinition]) -> list[RoleView]:
    """Roles, and how many users have each as far as the actor reaches."""
    query = select(User.role, func.count()).group_by(User.role)
    reach = max(actor.reach(name) or Reach.OWN for name in ("admin.users", "admin.levels"))
    if reach is not Reach.SYSTEM:
        query = query.where(User.org == actor.org)
    having = {role: count for role, count in session.execute(query)}  # noqa: C416
    return [
        RoleView.model_validate(
            {
                "slug": role.slug,
                **_columns(role),
                "built_in": role.slug in BUILT_IN,
                "users": having.get(role.slug, 0),
            }
        )
        for role in roles
    ]


def _locked(session: Session, slug: str) -> CustomRole:
    if slug in BUILT_IN:
        raise Conflict(
            f"{slug} is a role of every installation, and stays as it is",
            code="built_in",
            hint="make a role of your own with its permissions as a model",
        )
    row = session.get(CustomRole, slug, with_for_update=True)
    if row is None:
        raise NotFound(f"there is no role {slug!r}")
    return row


def _defined(session: Session, actor: Actor, request: RoleRequest) -> RoleDefinition:
    unknown = sorted({*request.permissions, *request.without} - PERMISSIONS.keys())
    if unknown:
        said = f"unknown: {', '.join(unknown)}"
        raise InvalidRequest(said, errors=[FieldProblem(field="permissions", message=said)])
    role = RoleDefinition(
        request.slug,
        request.name,
        (_begun(session, request) | frozenset(request.permissions)) - frozenset(request.without),
        Reach.of(request.reach),
        request.rank,
    )
    shared = sorted(role.permissions & OF_THE_SYSTEM)
    if shared and role.reach is not Reach.SYSTEM:
        said = f"{', '.join(shared)}: about what all share; a role with that reaches the system"
        raise InvalidRequest(said, errors=[FieldProblem(field="permissions", message=said)])
    must_hold(actor, role)
    return role


def _begun(session: Session, request: RoleRequest) -> frozenset[str]:
    """What a role takes over from another."""
    if request.like is None:
        return frozenset()
    taken = get_role(session, request.like, "like").permissions
    return taken if Reach.of(request.reach) is Reach.SYSTEM else taken - OF_THE_SYSTEM


def _columns(role: RoleDefinition) -> dict[str, object]:
    return {
        "name": role.name,
        "permissions": sorted(role.permissions),
        "reach": role.reach.word,
        "rank": role.rank,
    }

"""Which organisation and which teams a user belongs to."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from st_controller.errors import Conflict, NotFound
from st_controller.services import tenants, user_names
from st_controller.services.actor import Actor
from st_controller.services.outranking import locked_user
from st_controller.services.seen_users import ids_in, of_org
from st_controller.store.schema import Membership, User
from st_controller.store.transaction import CREDENTIALS, QUEUE_RULES, Transaction
from st_shared.protocol.tenancy import MemberView


def move_to_org(tx: Transaction, actor: Actor, username: str, org: str, team: str) -> User:
    """Take a user into an organisation; what they made stays with the one that they leave."""
    tenants.get_org(tx.session, actor, org, "org.manage.members")
    user = locked_user(tx.session, actor, username, "org.manage.members")
    tenants.open_team(tx.session, org, team)
    user_names.must_be_named_so(tx.session, username, org)
    put(tx, user, org, team, actor.signature)
    return user


def put(tx: Transaction, user: User, org: str, team: str, signature: str) -> None:
    """Make a team the only one of a user in another organisation, or the first in their own."""
    before = f"{user.org}/{user.team}"
    if user.org != org:
        tx.session.execute(delete(Membership).where(Membership.user_id == user.id))
        user.org_since = tx.now
    if tx.session.get(Membership, (user.id, org, team)) is None:
        tx.session.add(Membership(user_id=user.id, org=org, team=team))
    user.org, user.team = org, team
    tx.audit(signature, "user.moved", user.id, before=before, after=f"{org}/{team}")
    tx.wake(CREDENTIALS)
    tx.wake(QUEUE_RULES)


def join_team(tx: Transaction, actor: Actor, org: str, team: str, username: str) -> None:
    """Take a user of the organisation into a team."""
    tenants.get_team(tx.session, actor, org, team, "team.manage.members")
    tenants.open_team(tx.session, org, team)
    user = of_org(tx.session, org, username)
    if tx.session.get(Membership, (user.id, org, team)) is None:
        tx.session.add(Membership(user_id=user.id, org=org, team=team))
        tx.audit(actor.signature, "team.joined", f"{org}/{team}", user=username)
        tx.wake(CREDENTIALS)
        tx.wake(QUEUE_RULES)


def leave_team(tx: Transaction, actor: Actor, org: str, team: str, username: str) -> None:
    """Take a user out of a team; their jobs stay where they are.

    Raises:
        Conflict: it is their only team.
    """
    tenants.get_team(tx.session, actor, org, team, "team.manage.members")
    user = of_org(tx.session, org, username)
    row = tx.session.get(Membership, (user.id, org, team))
    if row is None:
        raise NotFound(f"{username} is not in {org}/{team}")
    others = tx.session.scalars(
        select(Membership.team)
        .where(Membership.user_id == user.id, Membership.team != team)
        .order_by(Membership.team)
    ).all()
    if not others:
        raise Conflict(
            f"{org}/{team} is the only team of {username}",
            code="only_team",
            hint="take them into another one first",
        )
    tx.session.delete(row)
    if user.team == team:
        user.team = others[0]
    tx.audit(actor.signature, "team.left", f"{org}/{team}", user=username)
    tx.wake(CREDENTIALS)
    tx.wake(QUEUE_RULES)


def members(
    session: Session, org: str, team: str | None, *, after: str | None, limit: int
) -> tuple[list[MemberView], str | None]:
    """Who is in an organisation or a team, by name."""
    query = select(User).where(User.org == org).order_by(User.username)
    if team is not None:
        query = query.where(User.id.in_(ids_in(org, [team])))
    if after:
        query = query.where(User.username > after)
    found = list(session.scalars(query.limit(limit + 1)))
    views = [
        MemberView(username=each.username, role=each.role, disabled=each.disabled_at is not None)
        for each in found[:limit]
    ]
    return views, found[limit - 1].username if len(found) > limit else None

"""Making and changing users."""

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.auth.passwords import UNUSABLE
from st_controller.domain.policy.reach import Reach
from st_controller.errors import InvalidRequest, NotPermitted
from st_controller.services import tenants, user_names
from st_controller.services.actor import Actor
from st_controller.services.outranking import get_role, keep_an_admin, locked_user, must_hold
from st_controller.services.policy import quota_setting
from st_controller.store.schema import Membership, User
from st_controller.store.transaction import CREDENTIALS, QUEUE_RULES, Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.tenancy import UserChange, UserRequest


def make_user(
    tx: Transaction, actor: Actor, request: UserRequest, password_hash: str | None
) -> User:
    """A new user of an organisation.

    Raises:
        NotPermitted: the role gives more than the actor may do.
        InvalidRequest: name, role or team cannot be; the field is named.
    """
    org = request.org or actor.org
    _must_reach_org(tx.session, actor, org)
    user_names.must_be_ours(tx.session, actor, request.username, org)
    role = get_role(tx.session, request.role)
    must_hold(actor, role)
    tenants.open_team(tx.session, org, request.team)
    user = insert_user(
        tx,
        username=request.username,
        password_hash=password_hash or UNUSABLE,
        role=role.slug,
        org=org,
        team=request.team,
    )
    said = {"username": user.username, "role": user.role, "org": org, "team": request.team}
    tx.audit(actor.signature, "user.created", user.id, **said)
    return user


def insert_user(
    tx: Transaction, *, username: str, password_hash: str, role: str, org: str, team: str
) -> User:
    """The rows of a new user, or ``InvalidRequest``: the name is taken."""
    user = User(
        id=new_id("usr"),
        username=username,
        password_hash=password_hash,
        role=role,
        org=org,
        team=team,
        created_at=tx.now,
        disabled_at=None,
    )
    tx.session.add(user)
    try:
        tx.session.flush()
    except IntegrityError:
        raise InvalidRequest(
            f"the name {username!r} is taken",
            code="name_taken",
            errors=[FieldProblem(field="username", message="is taken; choose another")],
        ) from None
    tx.session.add(Membership(user_id=user.id, org=org, team=team))
    tx.session.flush()
    tx.wake(QUEUE_RULES)  # what each user of the role may run
    return user


def change_user(tx: Transaction, actor: Actor, username: str, change: UserChange) -> User:
    """Another role or first team, or whether they may sign in.

    Raises:
        NotPermitted: the user, or the new role, may do more than the actor.
        Conflict: nobody would be left who may do everything.
    """
    user = locked_user(tx.session, actor, username)
    if change.role is not None and change.role != user.role:
        role = get_role(tx.session, change.role)
        must_hold(actor, role)
        keep_an_admin(tx.session, user)
        before, user.role = user.role, role.slug
        quota_setting.role_changed(tx, user.username)
        tx.audit(actor.signature, "user.role_set", user.id, before=before, after=role.slug)
    if change.team is not None and change.team != user.team:
        _must_be_in(tx.session, user, change.team)
        before, user.team = user.team, change.team
        tx.audit(actor.signature, "user.team_set", user.id, before=before, after=change.team)
    if change.disabled is not None and change.disabled != (user.disabled_at is not None):
        if change.disabled:
            keep_an_admin(tx.session, user)
        user.disabled_at = tx.now if change.disabled else None
        tx.audit(actor.signature, "user.disabled" if change.disabled else "user.enabled", user.id)
    tx.wake(CREDENTIALS)
    return user


def _must_reach_org(session: Session, actor: Actor, org: str) -> None:
    if (actor.reach("admin.users") or Reach.OWN) < Reach.ORG:
        raise NotPermitted("your role reaches no further than your teams")
    tenants.get_org(session, actor, org)


def _must_be_in(session: Session, user: User, team: str) -> None:
    tenants.open_team(session, user.org, team)
    if session.get(Membership, (user.id, user.org, team)) is None:
        said = f"{user.username} is not in {user.org}/{team}; take them in first"
        raise InvalidRequest(said, errors=[FieldProblem(field="team", message=said)])

"""The first admin, users made by an operator, and the one-time token that starts it all."""

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session as OrmSession

from st_controller.auth import passwords, secrets
from st_controller.auth.secrets import SecretKind
from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import ROLE_PERMISSIONS, Role
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from st_controller.services.caller import Caller
from st_controller.services.memberships import put
from st_controller.services.tenants import open_team
from st_controller.services.users import insert_user
from st_controller.store.schema import (
    DEFAULT_TENANT,
    Organisation,
    SetupToken,
    Team,
    User,
)
from st_controller.store.transaction import Transaction
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.tenancy import OrgSlug, TeamSlug


def is_set_up(session: OrmSession) -> bool:
    """Whether a user exists."""
    return session.scalar(select(User.id).limit(1)) is not None


def ensure_setup_token(transaction: Transaction) -> str | None:
    """A fresh one-time token for the first admin, in place of earlier ones; none once set up.

    Only its hash is kept, so each start of a controller that is not set up yet tells a new one.
    """
    if is_set_up(transaction.session):
        return None
    transaction.session.execute(delete(SetupToken))
    token = secrets.new_secret(SecretKind.SETUP)
    transaction.session.add(
        SetupToken(token_hash=secrets.digest(token), created_at=transaction.now)
    )
    return token


def create_first_admin(
    transaction: Transaction, token: str, username: str, password: str
) -> Caller:
    """Make the first admin and use up the token in the same transaction.

    Raises:
        Conflict: a user exists already.
        NotPermitted: the token is not the one that was printed.
    """
    if is_set_up(transaction.session):
        raise Conflict(
            "this controller has its first user already",
            code="already_set_up",
            hint="sign in, or let an admin run `st-controller user add`",
        )
    used = transaction.session.execute(
        delete(SetupToken)
        .where(SetupToken.token_hash == secrets.digest(token))
        .returning(SetupToken.id)
    ).all()
    if not used:
        raise NotPermitted(
            "this is not the setup token",
            code="wrong_setup_token",
            hint="copy it from the controller's console or from `setup-token` in its data folder",
        )
    user = add_user(transaction, username, password, Role.ADMIN, actor="setup")
    return Caller(
        user_id=user.id,
        username=user.username,
        permissions=ROLE_PERMISSIONS[Role.ADMIN],
        org=user.org,
        team=user.team,
        teams=frozenset({user.team}),
        role=Role.ADMIN,
        rank=100,
        widest=Reach.SYSTEM,
        via="session",
        credential_id="",
    )


def add_user(
    transaction: Transaction, username: str, password: str, role: Role, *, actor: str
) -> User:
    """A new user.

    Raises:
        InvalidRequest: the name is taken.
    """
    user = insert_user(
        transaction,
        username=username,
        password_hash=passwords.hash_password(password),
        role=role,
        org=DEFAULT_TENANT,
        team=DEFAULT_TENANT,
    )
    transaction.audit(actor, "user.created", user.id, username=username, role=role.value)
    return user


def set_tenant(
    transaction: Transaction,
    username: str,
    org: str,
    team: str,
    *,
    actor: str,
    create: bool = False,
) -> User:
    """Put a user into a team of an organisation; jobs submitted from now on count there.

    ``create`` makes organisation and team where they are missing.

    Raises:
        InvalidRequest: there is no such organisation or team, or their names cannot be.
        NotFound: there is no such user.
    """
    session = transaction.session
    user = session.scalar(select(User).where(User.username == username).with_for_update())
    if user is None:
        raise NotFound(f"there is no user {username!r}")
    if create:
        _make_tenant(transaction, org, team, actor)
    open_team(session, org, team)
    put(transaction, user, org, team, actor)
    return user


def _make_tenant(transaction: Transaction, org: str, team: str, actor: str) -> None:
    for field, kind, name in (("org", OrgSlug, org), ("team", TeamSlug, team)):
        try:
            TypeAdapter(kind).validate_python(name)
        except ValidationError:
            said = "lower-case letters, digits, dots, dashes; 40 at most, 64 of a team"
            raise InvalidRequest(
                f"{name!r} is no name for a tenant",
                errors=[FieldProblem(field=field, message=said)],
            ) from None
    session, now = transaction.session, transaction.now
    if session.get(Organisation, org) is None:
        new = Organisation(slug=org, name=org, time_zone="UTC", created_at=now, disabled_at=None)
        session.add(new)
        session.flush()
        transaction.audit(actor, "org.created", org)
    if session.get(Team, (org, team)) is None:
        session.add(Team(org=org, slug=team, name=team, created_at=now, archived_at=None))
        session.flush()
        transaction.audit(actor, "team.created", f"{org}/{team}")


def list_users(session: OrmSession) -> list[User]:
    """All users by name."""
    return list(session.scalars(select(User).order_by(User.username)))


def user_named(session: OrmSession, username: str) -> User | None:
    """A user by name."""
    return session.scalar(select(User).where(User.username == username))


def first_admin(session: OrmSession) -> User | None:
    """The admin who has been here longest, in whose name the console acts."""
    return session.scalar(
        select(User)
        .where(User.role == Role.ADMIN.value, User.disabled_at.is_(None))
        .order_by(User.created_at, User.id)
        .limit(1)
    )

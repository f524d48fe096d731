"""The first admin, users made by an operator, and the one-time token that starts it all."""

import re

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session as OrmSession

from st_controller.auth import passwords, secrets
from st_controller.auth.secrets import SecretKind
from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.roles import ROLE_PERMISSIONS, Role
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from st_controller.services.caller import Caller
from st_controller.store.schema import (
    DEFAULT_TENANT,
    Membership,
    Organisation,
    SetupToken,
    Team,
    User,
)
from st_controller.store.transaction import CREDENTIALS, Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem

_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


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
    user = User(
        id=new_id("usr"),
        username=username,
        password_hash=passwords.hash_password(password),
        role=role.value,
        org=DEFAULT_TENANT,
        team=DEFAULT_TENANT,
        created_at=transaction.now,
        disabled_at=None,
    )
    transaction.session.add(user)
    try:
        transaction.session.flush()
        transaction.session.add(Membership(user_id=user.id, org=user.org, team=user.team))
        transaction.session.flush()
    except IntegrityError:
        raise InvalidRequest(
            f"the name {username!r} is taken",
            code="name_taken",
            errors=[FieldProblem(field="username", message="is taken; choose another")],
        ) from None
    transaction.audit(actor, "user.created", user.id, username=username, role=role.value)
    return user


def set_tenant(transaction: Transaction, username: str, org: str, team: str, *, actor: str) -> User:
    """Put a user into a team of an organisation; jobs submitted from now on count there.

    Raises:
        InvalidRequest: a name is none for a tenant.
        NotFound: there is no such user.
    """
    for field, name in (("org", org), ("team", team)):
        if not _TENANT.fullmatch(name):
            raise InvalidRequest(
                f"{name!r} is no name for a tenant",
                errors=[
                    FieldProblem(
                        field=field,
                        message="lower-case letters, digits, dots, dashes; 64 at most",
                    )
                ],
            )
    user = transaction.session.scalar(
        select(User).where(User.username == username).with_for_update()
    )
    if user is None:
        raise NotFound(f"there is no user {username!r}")
    before = f"{user.org}/{user.team}"
    session = transaction.session
    if session.get(Organisation, org) is None:
        session.add(
            Organisation(
                slug=org, name=org, time_zone="UTC", created_at=transaction.now, disabled_at=None
            )
        )
        session.flush()
    if session.get(Team, (org, team)) is None:
        session.add(
            Team(org=org, slug=team, name=team, created_at=transaction.now, archived_at=None)
        )
        session.flush()
    session.execute(delete(Membership).where(Membership.user_id == user.id))
    session.add(Membership(user_id=user.id, org=org, team=team))
    user.org, user.team = org, team
    transaction.audit(actor, "user.moved", user.id, before=before, after=f"{org}/{team}")
    transaction.wake(CREDENTIALS)
    return user


def list_users(session: OrmSession) -> list[User]:
    """All users by name."""
    return list(session.scalars(select(User).order_by(User.username)))


def first_admin(session: OrmSession) -> User | None:
    """The admin who has been here longest, in whose name the console acts."""
    return session.scalar(
        select(User)
        .where(User.role == Role.ADMIN.value, User.disabled_at.is_(None))
        .order_by(User.created_at, User.id)
        .limit(1)
    )

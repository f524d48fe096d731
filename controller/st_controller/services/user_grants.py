"""Permissions that one user has, or is denied, whatever their role says."""

from sqlalchemy.orm import Session

from st_controller.domain.policy.permissions import PERMISSIONS, TABLE, About
from st_controller.domain.policy.reach import Reach
from st_controller.errors import InvalidRequest, NotFound
from st_controller.services import rights
from st_controller.services.actor import Actor
from st_controller.services.outranking import keep_an_admin, locked_user, must_have
from st_controller.store.schema import CustomRole, User, UserGrant
from st_controller.store.transaction import CREDENTIALS, Transaction
from st_shared.protocol.problems import FieldProblem


def grant(tx: Transaction, actor: Actor, username: str, permission: str, effect: str) -> User:
    """Give a permission to one user, or keep it from them.

    Raises:
        NotPermitted: the actor does not have the permission that is given.
        InvalidRequest: there is no such permission, or the role keeps it from having an effect.
    """
    user = locked_user(tx.session, actor, username)
    if permission not in PERMISSIONS or effect == "allow":
        _must_lead_somewhere(tx.session, user, permission)
    row = tx.session.get(UserGrant, (user.id, permission))
    before = row.effect if row else None
    if effect == "allow" or before == "deny":
        must_have(actor, permission)
    if effect == "deny":
        keep_an_admin(tx.session, user)
    if row is None:
        tx.session.add(UserGrant(user_id=user.id, permission=permission, effect=effect))
    else:
        row.effect = effect
    _granted(tx, actor, user, permission, before, effect)
    return user


def ungrant(tx: Transaction, actor: Actor, username: str, permission: str) -> User:
    """Let the role alone decide of a permission again.

    Raises:
        NotFound: nothing was said of it.
        NotPermitted: it was denied, and the actor does not have it.
    """
    user = locked_user(tx.session, actor, username)
    row = tx.session.get(UserGrant, (user.id, permission))
    if row is None:
        raise NotFound(f"nothing was granted or denied to {username} as {permission!r}")
    if row.effect == "deny":
        must_have(actor, permission)
    tx.session.delete(row)
    _granted(tx, actor, user, permission, row.effect, None)
    return user


def _granted(
    tx: Transaction,
    actor: Actor,
    user: User,
    permission: str,
    before: str | None,
    after: str | None,
) -> None:
    said = {"permission": permission, "before": before, "after": after}
    tx.audit(actor.signature, "user.permission_set", user.id, **said)
    tx.wake(CREDENTIALS)


def _must_lead_somewhere(session: Session, user: User, permission: str) -> None:
    """Refuse what would have no effect: it is about the things of others, and reaches none."""
    if permission not in PERMISSIONS:
        said = f"there is no permission {permission!r}"
        raise InvalidRequest(said, errors=[FieldProblem(field="permission", message=said)])
    role = rights.definition(user.role, session.get(CustomRole, user.role))
    about = TABLE[permission].about
    if about is About.OTHERS and role.reach is Reach.OWN:
        said = f"{permission} is about what others have, and a {user.role} reaches only their own"
    elif about is About.SYSTEM and role.reach is not Reach.SYSTEM:
        said = f"{permission} is about what all share, and a {user.role} reaches not so far"
    else:
        said = ""
    if said:
        raise InvalidRequest(
            said,
            hint="give them a role that reaches farther",
            errors=[FieldProblem(field="permission", message=said)],
        )

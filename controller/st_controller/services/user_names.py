"""Names of users are of one space; an organisation has a part of it for itself."""

from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.errors import InvalidRequest
from st_controller.services.actor import Actor
from st_controller.store.schema import Organisation
from st_shared.protocol.problems import FieldProblem


def must_be_ours(session: Session, actor: Actor, username: str, org: str) -> None:
    """Names are of one space; who does not see it whole keeps to a part of it that is theirs.

    So nobody learns from a refusal which names another organisation has.
    """
    if actor.reach("admin.users") is not Reach.SYSTEM and not username.endswith(f"@{org}"):
        raise _bad_name(f"end it in @{org}, such as {username.partition('@')[0]}@{org}")
    must_be_named_so(session, username, org)


def must_be_named_so(session: Session, username: str, org: str) -> None:
    """Refuse a name that ends like those of another organisation."""
    _, at, named = username.partition("@")
    if at and named != org and session.get(Organisation, named) is not None:
        raise _bad_name(f"names that end in @{named} are those of that organisation")


def _bad_name(said: str) -> InvalidRequest:
    return InvalidRequest(
        f"this user name cannot be: {said}",
        errors=[FieldProblem(field="username", message=said)],
    )

"""Making true what a file says, or saying what would change."""

from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import select

from st_controller.domain.policy.roles import Role
from st_controller.errors import NotFound
from st_controller.services import rights
from st_controller.services.actor import Actor
from st_controller.services.arrangement import amounts, people, rules
from st_controller.services.arrangement.change import Change
from st_controller.store.database import Database, ReadSession
from st_controller.store.schema import User
from st_controller.store.transaction import Transaction
from st_shared.protocol.org_file import OrgFile


class _UndoneError(Exception):
    """Everything was tried, and nothing is to stay."""


def apply(
    db: Database, actor: Actor, wanted: OrgFile, *, prune: bool = False, dry_run: bool = False
) -> list[Change]:
    """Make it true in one transaction; a dry run does the same and undoes it.

    What stands and is not in the file is left alone; ``prune`` removes rules, quotas and prices of
    that kind, never organisations, teams or roles.

    Raises:
        Refusal: part of it cannot be; nothing was changed.
    """
    changes: list[Change] = []
    with suppress(_UndoneError), db.write() as tx:
        changes += _arrange(tx, actor, wanted, prune=prune)
        if dry_run:
            raise _UndoneError
    return changes


def operator(session: ReadSession, name: str | None) -> Actor:
    """The admin in whose name it is done: the one given, else the first there was.

    Raises:
        NotFound: there is none.
    """
    query = rights.rights_query().where(User.role == Role.ADMIN)
    if name is not None:
        query = query.where(User.username == name)
    oldest = select(User.id).where(User.role == Role.ADMIN, User.disabled_at.is_(None))
    if name is None:
        first = session.scalar(oldest.order_by(User.created_at, User.id).limit(1))
        query = query.where(User.id == first)
    held = rights.rights_of(session.execute(query).all())
    if held is None:
        said = f"there is no admin {name!r}" if name else "there is no admin yet"
        raise NotFound(said, hint="`st-controller user add NAME --role admin` makes one")
    return rights.actor(held)


def _arrange(tx: Transaction, actor: Actor, wanted: OrgFile, *, prune: bool) -> Iterator[Change]:
    yield from people.arrange_orgs(tx, actor, wanted.organisations)
    yield from people.arrange_roles(tx, actor, wanted.roles)
    yield from rules.arrange_resource_rules(tx, actor, wanted.resource_rules, prune=prune)
    yield from rules.arrange_approval_rules(tx, actor, wanted.approval_rules, prune=prune)
    yield from amounts.arrange_prices(tx, actor, wanted.prices, prune=prune)
    yield from amounts.arrange_quotas(tx, actor, wanted.quotas, prune=prune)

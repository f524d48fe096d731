"""Organisations, teams and roles of a file."""

from collections.abc import Iterator, Sequence

from st_controller.domain.policy.roles import BUILT_IN
from st_controller.errors import Conflict
from st_controller.services import rights, roles, tenants
from st_controller.services.actor import Actor
from st_controller.services.arrangement.change import Change
from st_controller.store.schema import CustomRole, Organisation, Team
from st_controller.store.transaction import Transaction
from st_shared.protocol.org_file import OrgEntry
from st_shared.protocol.tenancy import (
    OrgChange,
    OrgRequest,
    RoleRequest,
    TeamRequest,
)


def arrange_orgs(tx: Transaction, actor: Actor, wanted: Sequence[OrgEntry]) -> Iterator[Change]:
    """Make organisations and teams, and give them their names and time zones."""
    for entry in wanted:
        row = tx.session.get(Organisation, entry.slug)
        if row is None:
            request = OrgRequest(slug=entry.slug, name=entry.name, time_zone=entry.time_zone)
            tenants.make_org(tx, actor, request)
            tx.session.flush()
            yield Change("create", "organisation", entry.slug)
        else:
            pairs = {
                "name": (row.name, entry.name),
                "time_zone": (row.time_zone, entry.time_zone),
            }
            fields = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
            if fields:
                change = OrgChange(name=entry.name, time_zone=entry.time_zone)
                tenants.change_org(tx, actor, entry.slug, change)
                yield Change("change", "organisation", entry.slug, fields)
        yield from _arrange_teams(tx, actor, entry)


def _arrange_teams(tx: Transaction, actor: Actor, org: OrgEntry) -> Iterator[Change]:
    for entry in org.teams:
        name = f"{org.slug}/{entry.slug}"
        row = tx.session.get(Team, (org.slug, entry.slug))
        if row is None:
            request = TeamRequest(slug=entry.slug, name=entry.name, org=org.slug)
            tenants.make_team(tx, actor, request)
            tx.session.flush()
            yield Change("create", "team", name)
        elif entry.name is not None and entry.name != row.name:
            before = row.name
            tenants.rename_team(tx, actor, org.slug, entry.slug, entry.name)
            yield Change("change", "team", name, {"name": (before, entry.name)})


def arrange_roles(tx: Transaction, actor: Actor, wanted: Sequence[RoleRequest]) -> Iterator[Change]:
    """Make roles, and give them their permissions."""
    for entry in wanted:
        if entry.slug in BUILT_IN:
            raise Conflict(f"the role {entry.slug} is built in and cannot be changed")
        row = tx.session.get(CustomRole, entry.slug)
        if row is None:
            roles.make_role(tx, actor, entry)
            yield Change("create", "role", entry.slug)
            continue
        known = rights.definition(entry.slug, row)
        pairs = {
            "name": (known.name, entry.name),
            "permissions": (sorted(known.permissions), sorted(set(entry.permissions))),
            "reach": (known.reach.word, entry.reach),
            "rank": (known.rank, entry.rank),
        }
        fields = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if fields:
            roles.change_role(tx, actor, entry.slug, entry)
            yield Change("change", "role", entry.slug, fields)

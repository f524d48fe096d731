"""Organisations and teams: which there are, as far as a caller reaches, and changing them."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, false, func, select, true
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from st_controller.services.actor import Actor
from st_controller.services.policy import quota_setting
from st_controller.store.schema import DEFAULT_TENANT, Membership, Organisation, Team, User
from st_controller.store.transaction import CREDENTIALS, Transaction
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.tenancy import OrgChange, OrgRequest, OrgView, TeamRequest, TeamView

RESERVED = frozenset({"all"})
"""Names that mean something else where an organisation could be named."""


# Organisations


def list_orgs(
    session: Session, actor: Actor, *, after: str | None, limit: int
) -> tuple[list[Organisation], str | None]:
    """The organisations that the actor may see by name, and after which the next page begins."""
    query = select(Organisation).where(_orgs(actor)).order_by(Organisation.slug)
    if after:
        query = query.where(Organisation.slug > after)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], found[limit - 1].slug if len(found) > limit else None


def get_org(
    session: Session, actor: Actor, slug: str, permission: str = "org.view", *, lock: bool = False
) -> Organisation:
    """An organisation that ``permission`` covers.

    Raises:
        NotFound: there is none, or it is not the actor's.
        NotPermitted: it is the actor's, and the role reaches no further than their teams.
    """
    reach = actor.reach(permission) or Reach.OWN
    row = session.get(Organisation, slug, with_for_update=lock or None)
    if row is None or (reach < Reach.SYSTEM and slug != actor.org):
        raise NotFound(f"there is no organisation {slug!r}")
    if permission != "org.view" and reach < Reach.ORG:
        raise NotPermitted("your role reaches no further than your teams")
    return row


def make_org(tx: Transaction, actor: Actor, request: OrgRequest) -> Organisation:
    """A new organisation with its first team.

    Raises:
        Conflict: the name is taken.
    """
    if request.slug in RESERVED or tx.session.get(Organisation, request.slug) is not None:
        raise Conflict(f"the name {request.slug!r} is taken", code="name_taken")
    org = Organisation(
        slug=request.slug,
        name=request.name,
        time_zone=request.time_zone,
        created_at=tx.now,
        disabled_at=None,
    )
    tx.session.add(org)
    tx.session.flush()
    tx.session.add(_team(tx, request.slug, DEFAULT_TENANT, "Default"))
    tx.session.flush()
    tx.audit(actor.signature, "org.created", org.slug, name=org.name, time_zone=org.time_zone)
    return org


def change_org(tx: Transaction, actor: Actor, slug: str, change: OrgChange) -> Organisation:
    """Another name or time zone."""
    org = get_org(tx.session, actor, slug, "org.edit", lock=True)
    before = {"name": org.name, "time_zone": org.time_zone}
    for field, value in change.model_dump(exclude_none=True).items():
        setattr(org, field, value)
    after = {"name": org.name, "time_zone": org.time_zone}
    if before["time_zone"] != after["time_zone"]:
        quota_setting.calendar_changed(tx, slug)
    tx.audit(actor.signature, "org.changed", slug, before=before, after=after)
    return org


def set_org_disabled(tx: Transaction, actor: Actor, slug: str, *, disabled: bool) -> Organisation:
    """Let nobody of an organisation sign in any more, or let them again.

    Raises:
        Conflict: it is the actor's own.
    """
    org = get_org(tx.session, actor, slug, "org.delete", lock=True)
    if disabled and slug == actor.org:
        raise Conflict("you cannot disable your own organisation", code="own_organisation")
    if disabled != (org.disabled_at is not None):
        org.disabled_at = tx.now if disabled else None
        tx.audit(actor.signature, "org.disabled" if disabled else "org.enabled", slug)
        tx.wake(CREDENTIALS)
    return org


def org_views(session: Session, orgs: Sequence[Organisation]) -> list[OrgView]:
    """Organisations with how many are in them."""
    slugs = [org.slug for org in orgs]
    teams = _counted(session, Team.org, Team.org.in_(slugs) & Team.archived_at.is_(None))
    users = _counted(session, User.org, User.org.in_(slugs) & User.disabled_at.is_(None))
    return [
        OrgView(
            slug=org.slug,
            name=org.name,
            time_zone=org.time_zone,
            created_at=org.created_at,
            disabled=org.disabled_at is not None,
            teams=teams.get(org.slug, 0),
            users=users.get(org.slug, 0),
        )
        for org in orgs
    ]


# Teams


def list_teams(
    session: Session, actor: Actor, *, org: str | None, after: str | None, limit: int
) -> tuple[list[Team], str | None]:
    """The teams that the actor may see, by organisation and name; the last ``org/team`` or none."""
    query = select(Team).where(_teams(actor)).order_by(Team.org, Team.slug)
    if org:
        query = query.where(Team.org == org)
    if after:
        above, _, slug = after.partition("/")
        query = query.where((Team.org > above) | ((Team.org == above) & (Team.slug > slug)))
    found = list(session.scalars(query.limit(limit + 1)))
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], f"{last.org}/{last.slug}" if last else None


def get_team(
    session: Session,
    actor: Actor,
    org: str,
    slug: str,
    permission: str = "team.view",
    *,
    lock: bool = False,
) -> Team:
    """A team that ``permission`` covers, or ``NotFound``."""
    row = session.get(Team, (org, slug), with_for_update=lock or None)
    if row is None or not covers_team(actor, org, slug, permission):
        raise NotFound(f"there is no team {org}/{slug}")
    return row


def covers_team(actor: Actor, org: str, slug: str, permission: str) -> bool:
    """Whether a permission goes as far as a team."""
    reach = actor.reach(permission) or Reach.OWN
    if reach is Reach.SYSTEM:
        return True
    if org != actor.org:
        return False
    return reach is Reach.ORG or (reach is Reach.TEAM and slug in actor.teams)


def make_team(tx: Transaction, actor: Actor, request: TeamRequest) -> Team:
    """A new team.

    It has a share and quotas of its own, so who leads some of the teams cannot make more of them.

    Raises:
        NotPermitted: the role reaches no further than the actor's teams.
        NotFound: there is no such organisation.
        Conflict: the name is taken.
    """
    org = request.org or actor.org
    get_org(tx.session, actor, org, "team.create", lock=True)
    if tx.session.get(Team, (org, request.slug)) is not None:
        raise Conflict(
            f"the name {request.slug!r} is taken in {org}",
            code="name_taken",
            hint="teams that were archived keep their names",
        )
    team = _team(tx, org, request.slug, request.name or request.slug)
    tx.session.add(team)
    tx.session.flush()
    tx.audit(actor.signature, "team.created", f"{org}/{team.slug}", name=team.name)
    return team


def rename_team(tx: Transaction, actor: Actor, org: str, slug: str, name: str) -> Team:
    """Another name for people; the one in paths stays."""
    team = get_team(tx.session, actor, org, slug, "team.edit", lock=True)
    before, team.name = team.name, name
    tx.audit(actor.signature, "team.renamed", f"{org}/{slug}", before=before, after=name)
    return team


def archive_team(tx: Transaction, actor: Actor, org: str, slug: str) -> Team:
    """Let nobody submit as a team any more; its jobs stay, and those in line are served.

    Raises:
        Conflict: some users submit as it unless they say otherwise.
    """
    team = get_team(tx.session, actor, org, slug, "team.delete", lock=True)
    theirs = (User.org == org) & (User.team == slug)
    if count := _counted(tx.session, User.team, theirs).get(slug, 0):
        raise Conflict(
            f"{count} users submit as {org}/{slug} by default",
            code="team_in_use",
            hint="give them another team first: `st users set NAME --team TEAM`",
        )
    if team.archived_at is None:
        team.archived_at = tx.now
        tx.audit(actor.signature, "team.archived", f"{org}/{slug}")
        tx.wake(CREDENTIALS)
    return team


def team_views(session: Session, teams: Sequence[Team]) -> list[TeamView]:
    """Teams with how many are in them."""
    orgs = {team.org for team in teams}
    rows = session.execute(
        select(Membership.org, Membership.team, func.count())
        .where(Membership.org.in_(orgs), Membership.team.in_([team.slug for team in teams]))
        .group_by(Membership.org, Membership.team)
    )
    members = {(org, team): count for org, team, count in rows}
    return [
        TeamView(
            org=team.org,
            slug=team.slug,
            name=team.name,
            created_at=team.created_at,
            archived=team.archived_at is not None,
            members=members.get((team.org, team.slug), 0),
        )
        for team in teams
    ]


def open_team(session: Session, org: str, slug: str) -> Team:
    """A team that people may be put into, or ``InvalidRequest`` that names the field."""
    team = session.get(Team, (org, slug))
    if team is None or team.archived_at is not None:
        said = f"{org} has no team {slug!r}"
        raise InvalidRequest(said, errors=[FieldProblem(field="team", message=said)])
    return team


def _team(tx: Transaction, org: str, slug: str, name: str) -> Team:
    return Team(org=org, slug=slug, name=name, created_at=tx.now, archived_at=None)


def _orgs(actor: Actor) -> ColumnElement[bool]:
    if actor.reach("org.view") is Reach.SYSTEM:
        return true()
    return Organisation.slug == actor.org


def _teams(actor: Actor) -> ColumnElement[bool]:
    reach = actor.reach("team.view") or Reach.OWN
    if reach is Reach.SYSTEM:
        return true()
    if reach is Reach.OWN:
        return false()
    in_org = Team.org == actor.org
    if reach is Reach.ORG:
        return in_org
    return and_(in_org, Team.slug.in_(sorted(actor.teams)))


def _counted(session: Session, column: object, condition: ColumnElement[bool]) -> dict[str, int]:
    rows = session.execute(select(column, func.count()).where(condition).group_by(column))  # type: ignore[call-overload]
    return {str(key): int(count) for key, count in rows}

"""What the public API says of organisations, teams, users and roles.

| route | permission | body | answer |
|---|---|---|---|
| ``GET orgs`` · ``GET orgs/{org}`` | ``org.view`` | | ``Page[OrgView]`` · ``OrgView`` |
| ``POST orgs`` | ``org.create`` | ``OrgRequest`` | ``OrgView`` 201 |
| ``PATCH orgs/{org}`` | ``org.edit`` | ``OrgChange`` | ``OrgView`` |
| ``DELETE orgs/{org}`` · ``POST orgs/{org}/enable`` | ``org.delete`` | | ``OrgView`` |
| ``GET orgs/{org}/members`` | ``org.manage.members`` | | ``Page[MemberView]`` |
| ``PUT orgs/{org}/members/{username}`` | ``org.manage.members`` | ``OrgMember`` | ``UserView`` |
| ``GET teams`` ``?org=`` · ``GET teams/{org}/{team}`` | ``team.view`` | | ``Page[TeamView]`` · ``TeamView`` |
| ``POST teams`` | ``team.create`` | ``TeamRequest`` | ``TeamView`` 201 |
| ``PATCH teams/{org}/{team}`` | ``team.edit`` | ``TeamChange`` | ``TeamView`` |
| ``DELETE teams/{org}/{team}`` | ``team.delete`` | | ``TeamView`` |
| ``GET teams/{org}/{team}/members`` | ``team.view`` | | ``Page[MemberView]`` |
| ``PUT DELETE teams/{org}/{team}/members/{username}`` | ``team.manage.members`` | | 204 |
| ``GET users`` ``?org= &team=`` · ``GET users/{username}`` | ``admin.users`` | | ``Page[UserView]`` · ``UserDetail`` |
| ``POST users`` | ``admin.users`` | ``UserRequest`` | ``UserView`` 201 |
| ``PATCH users/{username}`` | ``admin.users`` | ``UserChange`` | ``UserView`` |
| ``PUT users/{username}/grants/{permission}`` | ``admin.users`` | ``GrantRequest`` | ``UserDetail`` |
| ``DELETE users/{username}/grants/{permission}`` | ``admin.users`` | | ``UserDetail`` |
| ``GET users/{username}/api-keys`` · ``DELETE users/{username}/api-keys/{id}`` | ``api.keys.all`` | | ``Page[ApiKeyView]`` · 204 |
| ``GET roles`` | ``admin.users`` or ``admin.levels`` | | ``Page[RoleView]`` |
| ``POST roles`` · ``PUT roles/{role}`` | ``admin.levels`` | ``RoleRequest`` | ``RoleView`` 201 · ``RoleView`` |
| ``DELETE roles/{role}`` | ``admin.levels`` | | 204 |
"""  # noqa: E501

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from st_shared.protocol.message import Message, Moment, Resource, Text
from st_shared.protocol.resources import Password, Username

_TENANT = r"^[a-z0-9][a-z0-9.-]*$"

OrgSlug = Annotated[str, Field(min_length=1, max_length=40, pattern=_TENANT)]
"""Names an organisation in paths and job files: lower-case letters, digits, dots, dashes."""
TeamSlug = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""Names a team within its organisation."""
RoleSlug = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9-]*$")]
Title = Annotated[Text, Field(min_length=1, max_length=120)]
ReachWord = Literal["own", "team", "org", "system"]
"""How far permissions over the things of others go."""
Permissions = Annotated[list[Annotated[Text, Field(max_length=40)]], Field(max_length=200)]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # unknown, a path, or a folder of zones
        raise ValueError("is no time zone of the IANA data; write it as Europe/Berlin") from None
    return name


TimeZone = Annotated[Text, Field(min_length=1, max_length=64), AfterValidator(_known_zone)]


class OrgRequest(Message):
    """A new organisation; it begins with a team ``default``."""

    slug: OrgSlug
    name: Title
    time_zone: TimeZone = "UTC"


class OrgChange(Message):
    """What is to be different; what is left out stays."""

    name: Title | None = None
    time_zone: TimeZone | None = None


class OrgView(Resource):
    """An organisation."""

    slug: str
    name: str
    time_zone: str
    created_at: Moment
    disabled: bool
    """Nobody in it can sign in."""
    teams: int
    users: int


class OrgMember(Message):
    """The team of the organisation as which the user is to submit."""

    team: TeamSlug = "default"


class TeamRequest(Message):
    """A new team."""

    slug: TeamSlug
    name: Title | None = None
    org: OrgSlug | None = None
    """None: the caller's."""


class TeamChange(Message):
    """Another name for a team."""

    name: Title


class TeamView(Resource):
    """A team."""

    org: str
    slug: str
    name: str
    created_at: Moment
    archived: bool
    """Nobody submits as this team any more."""
    members: int


class MemberView(Resource):
    """A user in a team or an organisation."""

    username: str
    role: str
    disabled: bool


class UserRequest(Message):
    """A new user."""

    username: Username
    """Who does not reach the whole system makes names that end in ``@`` and their organisation."""
    password: Password | None = None
    """None: they can only sign in once one was set."""
    role: RoleSlug = "researcher"
    org: OrgSlug | None = None
    """None: the caller's."""
    team: TeamSlug = "default"


class UserChange(Message):
    """What is to be different; what is left out stays."""

    role: RoleSlug | None = None
    disabled: bool | None = None
    team: TeamSlug | None = None
    """One of their teams, as which they submit unless they say otherwise."""


class UserView(Resource):
    """A user in a list."""

    id: str
    username: str
    org: str
    team: str
    teams: list[str]
    role: str
    created_at: Moment
    disabled: bool


class UserDetail(UserView):
    """A user with what they may do."""

    allowed: list[str]
    """Permissions that they have beside those of their role."""
    denied: list[str]
    """Permissions that they do not have, whatever else says so."""
    permissions: list[str]
    """What they may do in the end."""
    reach: ReachWord


class GrantRequest(Message):
    """Whether a permission is given to one user or kept from them; denial wins."""

    effect: Literal["allow", "deny"]


class RoleRequest(Message):
    """A role: at most what its maker may do, and no farther."""

    slug: RoleSlug
    name: Title
    permissions: Permissions = Field(default_factory=list)
    like: RoleSlug | None = None
    """A role with whose permissions it begins, as far as the reach allows."""
    without: Permissions = Field(default_factory=list)
    """Permissions that it is not to have."""
    reach: ReachWord = "own"
    rank: int = Field(10, ge=0, le=100)
    """Who approves, and who may change whom, goes by it."""


class RoleView(Resource):
    """A role."""

    slug: str
    name: str
    permissions: list[str]
    reach: ReachWord
    rank: int
    built_in: bool
    users: int
    """How many of the caller's organisation have it; of all with the reach of the system."""

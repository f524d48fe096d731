"""What the public API says of resource rules: what people may ask for.

| route | permission | body | answer |
|---|---|---|---|
| ``GET resource-rules`` ``?cursor= &limit=`` | ``job.view.own``: those that bind the caller; ``admin.config``: all of theirs | | ``Page[ResourceRuleView]`` |
| ``POST resource-rules`` | ``admin.config`` | ``ResourceRuleRequest`` | ``ResourceRuleView`` 201 |
| ``PUT resource-rules/{id}`` | ``admin.config`` | ``ResourceRuleRequest`` | ``ResourceRuleView`` |
| ``DELETE resource-rules/{id}`` | ``admin.config`` | | 204 |
"""  # noqa: E501

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.protocol.message import Message, Moment, Resource, Text
from st_shared.protocol.tenancy import OrgSlug
from st_shared.spec.places import FieldError

ResourceName = Literal["config", "accelerator", "provider", "dataset", "output_path", "family"]
SubjectName = Literal["everyone", "role", "team", "user"]
_NARROWED = ("accelerator", "provider")


class ResourceRuleRequest(Message):
    """Who may, or may not, ask for what.

    A matching deny beats every allow; where allows of a resource apply to somebody, one must match.
    """

    org: OrgSlug | None = None
    """Binds only members of this organisation; none: of all."""
    subject_kind: SubjectName = "everyone"
    subject: Text = Field("", max_length=200)
    """Name of a role, ``org/team``, or name of a user; empty for everyone."""
    resource: ResourceName
    pattern: Text = Field(min_length=1, max_length=200)
    """A glob; letter case is ignored. Paths of datasets are matched whole, without detours."""
    effect: Literal["allow", "deny"]
    note: Text = Field("", max_length=500)
    """Told to whoever is refused, such as whom to ask."""

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if (self.subject_kind == "everyone") != (not self.subject):
            said = "give `subject` for a role, a team or a user, and none for everyone"
            raise FieldError(said, "subject")
        if self.subject_kind == "team":
            org, slash, team = self.subject.partition("/")
            if not slash or not team or "/" in team:
                raise FieldError("`subject` of a team is written org/team", "subject")
            if self.org not in {None, org}:
                raise FieldError(f"a team of {org} is no member of `org` {self.org}", "org")
        if self.resource in _NARROWED and any(letter in self.pattern for letter in "|&!"):
            said = "`pattern` is one glob, without | & or !: make a rule for each"
            raise FieldError(said, "pattern")
        return self


class ResourceRuleView(Resource):
    """A rule that stands."""

    id: str
    org: str | None
    subject_kind: SubjectName
    subject: str
    resource: ResourceName
    pattern: str
    effect: Literal["allow", "deny"]
    note: str
    changed_at: Moment

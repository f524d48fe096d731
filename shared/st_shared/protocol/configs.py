"""What the public API says of saved configurations.

| route | permission | body | answer |
|---|---|---|---|
| ``GET configs`` · ``GET configs/{name}`` | ``config.view`` | | ``Page[ConfigView]`` · ``ConfigDetail`` |
| ``POST configs`` | ``config.create`` | ``ConfigRequest`` | ``ConfigDetail`` 201 |
| ``PUT configs/{name}`` | ``config.edit.own`` or ``config.edit.all`` | ``ConfigChange`` | ``ConfigDetail`` |
| ``DELETE configs/{name}`` | ``config.delete.own`` or ``config.delete.all`` | | 204 |
"""  # noqa: E501

from typing import Any

from pydantic import Field

from st_shared.protocol.message import LARGEST_NUMBER, Message, Moment, Name, Resource, Text


class ConfigRequest(Message):
    """A new configuration."""

    name: Name
    note: Text = Field("", max_length=500)
    """For people."""
    document: dict[str, Any]
    """Part of a JobSpec."""


class ConfigChange(Message):
    """Other content under a name."""

    document: dict[str, Any]
    note: Text | None = Field(None, max_length=500)
    version: int | None = Field(None, ge=1, le=LARGEST_NUMBER)
    """The version that is to be replaced; none: whichever is there."""


class ConfigView(Resource):
    """A configuration in a list."""

    name: str
    note: str
    team: str
    """Team of whoever saved it."""
    version: int
    created_by: str
    created_at: Moment
    changed_at: Moment


class ConfigDetail(ConfigView):
    """A configuration with its content."""

    document: dict[str, Any]

"""Stored secrets: they can be set and removed, and never read back.

| route | permission | body | answer |
|---|---|---|---|
| ``GET secrets`` | ``secret.own`` | | ``Page[SecretView]`` |
| ``PUT secrets/{name}`` · ``DELETE secrets/{name}`` | ``secret.own`` | ``SecretRequest`` | ``SecretView`` · 204 |
| ``PUT shared-secrets/{name}`` · ``DELETE shared-secrets/{name}`` | ``secret.manage`` | ``SecretRequest`` | ``SecretView`` · 204 |
"""  # noqa: E501

from pydantic import Field, SecretStr

from st_shared.protocol.message import Message, Moment, Resource
from st_shared.redaction import SHORTEST

LARGEST = 16_384
"""Characters of a secret."""


class SecretRequest(Message):
    """The value of a secret."""

    value: SecretStr = Field(min_length=SHORTEST, max_length=LARGEST)
    """At least eight characters, so that it can be told from other text in a log."""


class SecretView(Resource):
    """All that is told of a secret."""

    name: str
    shared: bool
    """Whether it is the organisation's, which everybody there may use in jobs."""
    created_at: Moment
    changed_at: Moment
    changed_by: str

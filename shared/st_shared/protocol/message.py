"""The base of every message and resource on the wire."""

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from st_shared.characters import check_text, storable
from st_shared.clock import in_utc


class Message(BaseModel):
    """An immutable body; an unknown key is refused by whoever reads it strictly."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Resource(BaseModel):
    """A body given by the controller; older clients ignore keys that they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


LARGEST_NUMBER = 2**31 - 1
"""The largest whole number that a column of the database holds."""

Text = Annotated[str, AfterValidator(check_text)]
"""Text that every database can hold: no NUL character, no half of a surrogate pair."""

Output = Annotated[str, AfterValidator(storable)]
"""What a program wrote, whatever that is: a character that cannot be stored is replaced."""

Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
"""An aware point in time, UTC on the wire (RFC 3339)."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lower-case hexadecimal digits."""

Identifier = Annotated[str, Field(pattern=r"^[a-z]{2,12}_[0-9a-z]{26}$")]
"""An id as ``st_shared.ids.new_id`` makes them."""

Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
"""A name that may stand in a path: lower-case letters, digits, dots, dashes, underscores."""

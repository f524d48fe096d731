"""The base of every section of a job file."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One immutable section of a job file; an unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

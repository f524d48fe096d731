"""CaptionSpec: where captions come from, and what is done to them."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from st_shared.spec.section import Section

CaptionSource = Literal["file", "name", "instance", "column", "json"]

_LONGEST_PATTERN = 1024


class CaptionSpec(Section):
    """Captions of a dataset."""

    source: CaptionSource | None = Field(
        None,
        description="file: a text file beside each sample; name: the name of the file, with spaces "
        "for `_` and `-`; instance: always `instance_prompt`; column: of a table; json: `key` in a "
        "JSON file beside each sample, or in a column of JSON; none: column for tables, else file.",
    )
    suffix: str | None = Field(
        None,
        pattern=r"^\.[A-Za-z0-9._-]{1,32}$",
        description="File suffix of the text or JSON beside each sample; none: `.txt` or `.json`.",
    )
    column: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Column that holds the caption, or a list of captions; none: `caption`, or "
        "`text` where there is no such.",
    )
    key: str = Field(
        "caption",
        min_length=1,
        max_length=256,
        description="Where in JSON the caption stands, or a list of captions; dots lead into "
        "objects: `texts.long`.",
    )
    instance_prompt: str | None = Field(
        None, min_length=1, max_length=4096, description="The caption of every sample."
    )
    lines: Literal["join", "each"] = Field(
        "join",
        description="A text of several lines: join makes one caption of them, each takes every "
        "line for a caption.",
    )
    several: Literal["random", "first"] = Field(
        "random",
        description="A sample with several captions: one is drawn each time, or always the first.",
    )
    prefix: str = Field("", max_length=4096, description="Put before every caption as it is.")
    replace: dict[str, str] = Field(
        default_factory=dict,
        max_length=256,
        description="Regular expressions, and what stands in their place; an empty text removes.",
    )
    shuffle: bool = Field(
        False, description="Put the parts of a caption in a new order each time it is seen."
    )
    separator: str = Field(
        ",", min_length=1, max_length=16, description="What stands between the parts."
    )
    keep_first: int = Field(
        0, ge=0, le=1000, description="Parts at the beginning that stay where they are."
    )
    dropout: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of captions that are left out; none: `objective.caption_dropout`.",
    )

    @field_validator("replace")
    @classmethod
    def _are_expressions(cls, replace: dict[str, str]) -> dict[str, str]:
        for pattern in replace:
            if len(pattern) > _LONGEST_PATTERN:
                raise ValueError(f"a pattern is longer than {_LONGEST_PATTERN} characters")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return replace

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> Self:
        if self.source == "instance" and self.instance_prompt is None:
            raise ValueError("instance_prompt is missing: give the caption of every sample")
        if self.instance_prompt is not None and self.source != "instance":
            raise ValueError("instance_prompt is for source instance: add it, or drop the key")
        if self.suffix and self.source in {"name", "instance", "column"}:
            raise ValueError(f"suffix means nothing for source {self.source}: drop it")
        if self.keep_first and not self.shuffle:
            raise ValueError("keep_first means nothing without shuffle: add it, or drop the key")
        return self

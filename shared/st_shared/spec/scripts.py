"""Shell commands that a training runs beside itself: to judge samples, or once files are there."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from st_shared.spec.duration import Duration
from st_shared.spec.section import Section

Script = Annotated[str, StringConstraints(min_length=1, max_length=65_536)]


class ScriptSpec(Section):
    """A shell command that a training runs; needs the permission `job.command`."""

    run: Script = Field(
        description="Script for `/bin/sh -e`; what it is told are its arguments `$1`, `$2`, and "
        "the variables `ST_STEP`, `ST_SAMPLES`, `ST_CHECKPOINT`, `ST_RUN_DIR`."
    )
    timeout: Duration = Field(600.0, description="Time after which it is ended.")
    required: bool = Field(False, description="Whether its failure ends the training.")


class HooksSpec(Section):
    """Shell commands that run in the background while training goes on."""

    post_checkpoint: ScriptSpec | None = Field(
        None, description="After each checkpoint; `$1` is its folder."
    )
    post_upload: ScriptSpec | None = Field(
        None, description="After each publication; `$1` is what was published, `$2` its address."
    )

    def given(self) -> Iterator[tuple[str, ScriptSpec]]:
        """Those that there are, by name."""
        for name in ("post_checkpoint", "post_upload"):
            if script := getattr(self, name):
                yield name, script

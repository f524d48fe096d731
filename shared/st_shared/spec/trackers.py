"""Where metrics and samples of a training are sent besides the journal."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from st_shared.spec.section import Section

TrackerKind = Literal["jsonl", "tensorboard", "wandb", "mlflow", "custom"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[\w][\w .:/-]*$")]


class TrackerSpec(Section):
    """One tracker; what it cannot do in time is left out and told, the training goes on."""

    kind: TrackerKind = Field(
        description="`jsonl`: a file of the run; `custom`: a file of the worker's folder "
        "`ST_TRACKERS_DIR`; the others need `pip install 'st-fleet[trackers]'`."
    )
    project: Name = Field("st-fleet", description="Project, or experiment, that it stands in.")
    run_name: Name | None = Field(None, description="What it is called there.")
    module: str | None = Field(
        None,
        max_length=60,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Of `custom`: name of the file, without `.py`.",
    )
    samples: bool = Field(True, description="Whether pictures are sent too.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        max_length=32,
        description="Further arguments, such as `mode: offline` of wandb or `tracking_uri` of "
        "mlflow.",
    )

    @model_validator(mode="after")
    def _names_a_module(self) -> Self:
        if (self.kind == "custom") != (self.module is not None):
            raise ValueError("module names the file of kind custom, and of that alone")
        return self

"""Where training samples come from."""

from typing import Self

from pydantic import Field, model_validator

from st_shared.spec.section import Section


class DatasetSpec(Section):
    """A folder of images, videos or sounds, each beside a caption file of the same stem.

    Give either ``name`` (a dataset that was registered with ``st datasets push``; the worker
    fetches it) or ``path`` (a folder that the training machine can already read).
    """

    name: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="Name of a registered dataset.",
    )
    path: str | None = Field(
        None, min_length=1, max_length=4096, description="Folder on the machine that trains."
    )
    caption_suffix: str = Field(
        ".txt",
        pattern=r"^\.[a-z0-9]{1,8}$",
        description="File suffix of the caption that lies beside each sample.",
    )
    repeats: int = Field(
        1, ge=1, le=1000, description="How often each sample is seen in one epoch."
    )

    regularisation: bool = Field(
        False,
        description="Prior regularisation: here the model is to answer as it did before "
        "training, so that it forgets less.",
    )
    conditioning: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder of pictures that a ControlNet reads, each with the name of its image; "
        "a relative one lies in the dataset's folder.",
    )
    mask_suffix: str | None = Field(
        None,
        pattern=r"^[._-][A-Za-z0-9._-]{1,32}$",
        description="End of the name of a grey picture beside each sample, such as `.mask.png`; "
        "white counts in the loss, black does not; none: everything counts.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise ValueError("give exactly one of 'name' (a registered dataset) and 'path'")
        return self

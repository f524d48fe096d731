"""Where the result of a training is published, in the background and tried again when it fails."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.secret_names import SecretVariable
from st_shared.spec.section import Section


class PublishSpec(Section):
    """One place that the result is sent to; a training never fails for it."""

    kind: Literal["huggingface", "s3"] = Field(
        description="A repository on Hugging Face's hub, or a bucket."
    )
    repository: str | None = Field(
        None,
        max_length=128,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Of `huggingface`: `owner/name`; it is made where there is none.",
    )
    uri: str | None = Field(
        None,
        max_length=1024,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]*[a-z0-9](/.*)?$",
        description="Of `s3`: `s3://bucket/prefix`.",
    )
    endpoint_url: str | None = Field(
        None,
        max_length=2048,
        pattern=r"^https?://[^\s/@]+(/\S*)?$",
        description="A server other than the usual one; none: as the environment says.",
    )
    token_variable: SecretVariable = Field(
        "HF_TOKEN",
        description="Of `huggingface`: variable with the token; name it in the job's `secrets`.",
    )
    private: bool = Field(True, description="Whether a new repository is for its owners alone.")
    checkpoints: bool = Field(False, description="Whether each checkpoint is published too.")
    samples: bool = Field(True, description="Whether the last samples are published too.")
    license: str | None = Field(
        None,
        max_length=60,
        pattern=r"^[a-z0-9][a-z0-9.+-]*$",
        description="License of the result in its card, such as `apache-2.0`.",
    )
    trigger: str | None = Field(
        None, min_length=1, max_length=500, description="Words that call what was learned."
    )

    @property
    def address(self) -> str:
        """The place in a word."""
        return str(self.repository or self.uri)

    @model_validator(mode="after")
    def _names_its_place(self) -> Self:
        if (self.kind == "huggingface") != (self.repository is not None):
            raise ValueError("repository names the place of kind huggingface, and of that alone")
        if (self.kind == "s3") != (self.uri is not None):
            raise ValueError("uri names the place of kind s3, and of that alone")
        return self

"""Where training samples come from."""

from typing import Literal, Self

from pydantic import Field, model_validator

from st_shared.spec.captions import CaptionSpec
from st_shared.spec.section import Section

DatasetFormat = Literal["files", "webdataset", "parquet", "csv", "huggingface"]

TABLES: frozenset[DatasetFormat] = frozenset({"parquet", "csv", "huggingface"})
"""Formats whose samples are rows."""

BUCKET_SCHEME = "s3://"


class ColumnSpec(Section):
    """Columns of a table: each holds a file itself, or its path below the table's folder."""

    sample: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Column of the sample; none: `image`, `video` or `audio`, as the family wants.",
    )
    mask: str | None = Field(
        None, min_length=1, max_length=256, description="Column of the mask; none: no masks."
    )
    conditioning: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Column of the picture that a ControlNet, or a model that edits, reads, or "
        "that a video begins with.",
    )
    lyrics: str | None = Field(
        None, min_length=1, max_length=256, description="Column of what is sung."
    )
    box: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Column of the box that `buckets.crop: face` keeps: left, top, right, bottom "
        "in pixels or shares of the upright picture, a list of such, or JSON of these.",
    )


class FilterSpec(Section):
    """Which samples are left out, by the size that pictures and videos have in their file."""

    min_side: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Least shorter side, pixels.",
    )
    max_side: int | None = Field(None, ge=1, le=65_536, description="Greatest longer side, pixels.")
    min_aspect: float | None = Field(
        None, gt=0, le=1000, description="Least width over height, such as 0.5."
    )
    max_aspect: float | None = Field(
        None, gt=0, le=1000, description="Greatest width over height, such as 2."
    )
    max_upscale: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="How much larger a sample may be made to fit; 1: nothing is enlarged.",
    )

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        for what in ("side", "aspect"):
            least, most = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if least and most and least > most:
                raise ValueError(f"min_{what} {least} is more than max_{what} {most}: lower it")
        return self


class DatasetSpec(Section):
    """Images, videos or sounds with captions: files, archives of files, or rows of a table.

    Give either ``name`` (a dataset that was registered with ``st datasets push``; the worker
    fetches it) or ``path`` (what the training machine can already read).
    """

    name: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="Name of a registered dataset.",
    )
    path: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder on the machine that trains, one file of a table or an archive, "
        "`s3://bucket/prefix`, or for `huggingface` the id of a dataset.",
    )
    format: DatasetFormat = Field(
        "files",
        description="files: samples as they are; webdataset: tar archives of such; parquet and "
        "csv: tables; huggingface: a folder of `save_to_disk`, or an id.",
    )
    split: str = Field(
        "train", min_length=1, max_length=256, description="huggingface: which part is read."
    )
    subset: str | None = Field(
        None, min_length=1, max_length=256, description="huggingface: configuration of an id."
    )
    revision: str | None = Field(
        None, min_length=1, max_length=256, description="huggingface: commit or branch of an id."
    )
    endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://\S{1,2000}$",
        description="Server of the bucket where it is not AWS, such as that of R2 or Wasabi; none: "
        "as AWS's own tools find it. Keys are never written here.",
    )
    cache_gb: float = Field(
        50.0,
        gt=0,
        le=1_000_000,
        description="Most that is kept on this machine of what lies in a bucket, GB.",
    )
    columns: ColumnSpec = Field(default_factory=ColumnSpec)
    captions: CaptionSpec = Field(default_factory=CaptionSpec)
    only: FilterSpec = Field(default_factory=FilterSpec)
    damaged: Literal["keep", "delete"] = Field(
        "keep",
        description="Files that cannot be decoded are named in the log and left out; delete: they "
        "are removed from the folder or bucket, too.",
    )
    discovery: Literal["headers", "whole"] | None = Field(
        None,
        description="A dataset in a bucket: headers: before the first step only what tells sizes "
        "is read of large files, and damage behind it shows when a sample is first seen; whole: "
        "each is fetched and decoded; none: headers, but whole with `damaged: delete`.",
    )
    repeats: int = Field(
        1, ge=1, le=1000, description="How often each sample is seen in one epoch."
    )
    probability: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of its samples that an epoch holds, others each time; so datasets of "
        "different sizes are weighed.",
    )
    regularisation: bool = Field(
        False,
        description="Prior regularisation: here the model is to answer as it did before "
        "training, so that it forgets less.",
    )
    evaluation: bool = Field(
        False,
        description="Held out: never trained on; its loss is measured with the validation.",
    )
    slider_strength: float | None = Field(
        None,
        ge=-10,
        le=10,
        description="A slider: while these samples are learned, the adapter counts so much; the "
        "opposite has the other sign. Batches never mix strengths; none: 1.",
    )
    conditioning: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder of pictures that a ControlNet, or a model that edits (`kontext`), "
        "reads, or that videos begin with (`wan_i2v`), each with the name of its sample, that of a "
        "video with `.png`; a relative one lies in the dataset's folder. Or what the names of "
        "pictures beside their samples end with, beginning with a dot: `.edges.png`.",
    )
    conditioning_fit: Literal["loose", "strict"] = Field(
        "loose",
        description="strict: leave out samples whose conditioning picture has another aspect, so "
        "that both show the same place; loose: it is cut to the size of its sample, or, for a "
        "model that edits, keeps its own aspect, at `config.reference_resolution`.",
    )
    mask_suffix: str | None = Field(
        None,
        pattern=r"^[._-][A-Za-z0-9._-]{1,32}$",
        description="End of the name of a grey picture beside each sample, such as `.mask.png`; "
        "white counts in the loss, black does not; none: everything counts.",
    )

    box_suffix: str | None = Field(
        None,
        pattern=r"^[._-][A-Za-z0-9._-]{1,32}$",
        description="End of the name of a JSON file beside each sample, such as `.box.json`, with "
        "the box that `buckets.crop: face` keeps: `[left, top, right, bottom]` in pixels or shares "
        "of the upright picture, a list of such, or an object with one at `bbox`.",
    )

    mask_kind: Literal["grey", "segmentation"] = Field(
        "grey",
        description="What masks are: grey: shares of a count; segmentation: every place that has "
        "any colour counts in full, black ones do not.",
    )

    @property
    def is_table(self) -> bool:
        """Whether its samples are rows."""
        return self.format in TABLES

    @property
    def is_remote(self) -> bool:
        """Whether it lies in a bucket."""
        return bool(self.path and self.path.startswith(BUCKET_SCHEME))

    @property
    def reads_headers(self) -> bool:
        """Whether an index reads no more of large files in a bucket than it must."""
        return self.discovery == "headers" or (not self.discovery and self.damaged == "keep")

    @property
    def has_masks(self) -> bool:
        """Whether each sample has a mask."""
        return bool(self.mask_suffix or self.columns.mask)

    @property
    def conditioning_suffix(self) -> str | None:
        """The end of the names of conditioning pictures that lie beside their samples."""
        given = self.conditioning
        return given if given and given.startswith(".") and "/" not in given else None

    @property
    def has_boxes(self) -> bool:
        """Whether samples may have a box that a cut keeps."""
        return bool(self.box_suffix or self.columns.box)

    @property
    def has_conditioning(self) -> bool:
        """Whether each sample has a picture that is read with it, or that it begins with."""
        return bool(self.conditioning or self.columns.conditioning)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise ValueError("give exactly one of 'name' (a registered dataset) and 'path'")
        return self

    @model_validator(mode="after")
    def _is_trained_on_or_held_out(self) -> Self:
        usual = {"repeats": 1, "probability": 1.0, "regularisation": False, "slider_strength": None}
        for key, value in usual.items():
            if self.evaluation and getattr(self, key) != value:
                raise ValueError(f"{key} means nothing for evaluation: drop it")
        return self

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        unused = {
            "columns": not self.is_table and self.columns != ColumnSpec(),
            "mask_suffix": self.is_table and self.mask_suffix,
            "conditioning": self.is_table and self.conditioning,
            "box_suffix": self.is_table and self.box_suffix,
            "split": self.format != "huggingface" and self.split != "train",
            "subset": self.format != "huggingface" and self.subset,
            "revision": self.format != "huggingface" and self.revision,
            "endpoint_url": not self.is_remote and self.endpoint_url,
            "discovery": not self.is_remote and self.discovery,
            "mask_kind": self.mask_kind == "segmentation" and not self.has_masks,
            "conditioning_fit": self.conditioning_fit == "strict" and not self.has_conditioning,
        }
        if self.damaged == "delete" and (self.format != "files" or self.name):
            raise ValueError(
                "damaged delete is for files in a folder or bucket that path names: archives, "
                "tables and registered datasets are left as they are; drop it"
            )
        if self.damaged == "delete" and self.discovery == "headers":
            raise ValueError(
                "discovery headers does not find what damaged delete is to remove: drop one of them"
            )
        for key, is_given in unused.items():
            if is_given:
                mend = (
                    " and give it in columns"
                    if key in {"mask_suffix", "conditioning", "box_suffix"}
                    else ""
                )
                raise ValueError(f"{key} means nothing for {self._described}: drop it{mend}")
        wants_column = self.captions.source == "column" or self.captions.column
        if wants_column and not self.is_table:
            raise ValueError(f"captions.column means nothing for {self._described}: drop it")
        if self.captions.source == "file" and self.is_table:
            raise ValueError(f"captions.source file means nothing for {self._described}: drop it")
        if self.format == "webdataset" and self.conditioning and not self.conditioning_suffix:
            raise ValueError(
                f"conditioning {self.conditioning} is a folder, but members of archives lie beside "
                "their samples: give what their names end with, such as .edges.png"
            )
        if self.is_remote and self.format == "huggingface":
            raise ValueError("path of a huggingface dataset is a folder or an id, not a bucket")
        return self

    @property
    def _described(self) -> str:
        return f"format {self.format}" + (" in a bucket" if self.is_remote else "")

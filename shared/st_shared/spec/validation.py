"""Validation: what is drawn and measured while training goes on, which it never changes."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from st_shared.characters import check_text
from st_shared.spec.scripts import ScriptSpec
from st_shared.spec.section import Section

MOST_PROMPTS = 256
"""Most prompts of a run, those of libraries included."""

_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")
_MOST_PIXELS = 8192

Text = Annotated[str, StringConstraints(max_length=16_384)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


def _check_size(text: str) -> str:
    found = _SIZE.fullmatch(text)
    if not found or max(map(int, found.groups())) > _MOST_PIXELS:
        raise ValueError(f"write WIDTHxHEIGHT in pixels, at most {_MOST_PIXELS}, such as 1024x768")
    return text


Resolution = Annotated[str, BeforeValidator(lambda text: _check_size(str(text)))]
"""``WIDTHxHEIGHT`` in pixels."""


def size_of(resolution: Resolution) -> tuple[int, int]:
    """Height and width, pixels."""
    width, _, height = resolution.partition("x")
    return int(height), int(width)


class PromptSpec(Section):
    """One prompt, and what is particular to it."""

    prompt: Text = Field(description="The caption to draw.")
    name: str | None = Field(
        None, min_length=1, max_length=120, description="What it is called in reports."
    )
    negative: Text | None = Field(
        None, description="What guidance leads away from; none: the empty caption."
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="Seed of its starting noise.")
    guidance: float | None = Field(None, ge=0, le=50, description="Its guidance.")
    adapter_strength: float | None = Field(
        None, ge=-10, le=10, description="How much what is trained counts; 1: as it is."
    )
    resolution: Resolution | None = Field(
        None, description="WIDTHxHEIGHT at which it alone is drawn."
    )
    conditioning: PathText | None = Field(
        None,
        description="The picture that a ControlNet, or a model that edits, reads for it, or that "
        "its video begins with.",
    )


def _as_section(value: object) -> object:
    return {"prompt": check_text(value)} if isinstance(value, str) else value


Prompt = Annotated[
    PromptSpec, BeforeValidator(_as_section, json_schema_input_type=str | PromptSpec)
]
"""A text, or a section with more."""


SweepMode = Literal["none", "each", "combined"]


class SweepAdapter(Section):
    """A LoRA file that a sweep adds to the frozen weights."""

    name: str = Field(min_length=1, max_length=60, description="What it is called in reports.")
    path: PathText = Field(description="A LoRA of this family, in any layout that is read.")
    strength: float = Field(1.0, ge=-10, le=10, description="How much it counts.")


class SweepSpec(Section):
    """The same prompts with the base alone, with each adapter, and with all of them together."""

    modes: list[SweepMode] = Field(
        default_factory=lambda: list[SweepMode](["none", "each"]),
        min_length=1,
        max_length=3,
        description="`none`: the base alone; `each`: what is trained, and each of `adapters`, by "
        "itself; `combined`: all of them.",
    )
    strengths: list[Annotated[float, Field(ge=-10, le=10)]] = Field(
        default_factory=lambda: [1.0],
        min_length=1,
        max_length=16,
        description="What the strength of every adapter is multiplied with, in turn.",
    )
    adapters: list[SweepAdapter] = Field(
        default_factory=list, max_length=16, description="LoRA files beside what is trained."
    )
    every: int | None = Field(
        None, ge=1, le=10_000_000, description="Steps between sweeps; none: after the last step."
    )
    prompts: int = Field(4, ge=1, le=32, description="How many of the first prompts are drawn.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if len({each.name for each in self.adapters}) != len(self.adapters):
            raise ValueError("sweep.adapters has a name twice: give each its own")
        if "combined" in self.modes and not self.adapters:
            raise ValueError("sweep.modes combined needs sweep.adapters: add some, or drop it")
        return self


class ClipSpec(Section):
    """How well samples fit their prompts: the cosine of CLIP's vectors, Hessel et al. 2021."""

    model: PathText = Field(
        description="A CLIPModel of transformers: a folder, or the id of a repository."
    )


class ValidationSpec(Section):
    """Which samples are drawn while training, and how."""

    prompts: list[Prompt] = Field(
        default_factory=list,
        max_length=MOST_PROMPTS,
        description="Captions to draw, each a text or a section; none: no samples.",
    )
    libraries: list[PathText] = Field(
        default_factory=list,
        max_length=16,
        description="Files with more prompts, JSON or YAML: names with texts or sections; a "
        "relative one lies in the folder of the first dataset.",
    )
    conditioning: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="The picture that a ControlNet, or a model that edits, reads for each prompt, "
        "or that its video begins with; a relative one lies in the folder of the first dataset.",
    )
    every: int = Field(200, ge=1, le=10_000_000, description="Steps between samples.")
    baseline: bool | None = Field(
        None,
        description="Whether prompts are drawn before the first step too; none: where the model "
        "has a base.",
    )
    resolutions: list[Resolution] = Field(
        default_factory=list,
        max_length=8,
        description="WIDTHxHEIGHT at which each prompt is drawn; none: that of `model.config`.",
    )
    columns: int | None = Field(
        None, ge=1, le=32, description="Pictures in a row of the grid; none: near square."
    )
    scale: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Enlargement of each picture in the grid; none: to about 128 pixels.",
    )
    video_format: Literal["mp4", "gif"] = Field("mp4", description="Format of videos.")
    audio_format: Literal["wav", "flac"] = Field("wav", description="Format of sounds.")
    evaluation_samples: int = Field(
        64,
        ge=1,
        le=1_000_000,
        description="Held-out samples whose loss is measured, always the same ones.",
    )
    evaluation_times: int = Field(
        4,
        ge=1,
        le=1000,
        description="Times at which it is measured, spread evenly from clean to noise.",
    )
    sampler_steps: int = Field(24, ge=1, le=1000, description="Euler steps from noise to sample.")
    guidance: float | None = Field(
        None,
        ge=0,
        le=50,
        description="Classifier-free guidance, Ho & Salimans 2022, or the guidance that a "
        "distilled model is told; 1: none of it; none: what suits the family.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the starting noise.")
    sweep: SweepSpec | None = Field(None, description="The prompts with and without adapters.")
    clip: ClipSpec | None = Field(None, description="Score of the samples by CLIP.")
    script: ScriptSpec | None = Field(
        None,
        description="Judges the samples: `$1` is a folder with each of them and `prompts.json`, "
        "`$2` the newest checkpoint or empty. Its last line of output, an object of numbers in "
        "JSON, becomes metrics.",
    )

    def texts(self) -> Iterator[str]:
        """Every caption that drawing the prompts asks for, negative ones included."""
        for each in self.prompts:
            yield each.prompt
            if each.negative is not None:
                yield each.negative

    @property
    def draws(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.prompts or self.libraries)

    @model_validator(mode="after")
    def _has_prompts_where_they_are_needed(self) -> Self:
        for key in ("sweep", "clip", "script"):
            if getattr(self, key) is not None and not self.draws:
                raise ValueError(f"{key} judges samples: give prompts or libraries, or drop it")
        return self

"""AdapterSpec: what is trained of the model, and how it is written."""

from typing import Any, Literal

from pydantic import Field

from st_shared.spec.section import Section

AdapterKind = Literal["lora", "lycoris", "full", "controlnet"]

LoraLayout = Literal["diffusers", "comfyui", "kohya"]

_LORA_ONLY = (
    "text_encoder", "text_encoder_learning_rate", "rslora", "init", "rank_pattern",
    "alpha_pattern", "continue_from", "layout",
)  # fmt: skip
_MATRICES = ("rank", "alpha", "dropout", "dora", "preset", "targets", "exclude", "lycoris")

_UNUSED: dict[AdapterKind, tuple[str, ...]] = {
    "lora": ("lycoris", "controlnet"),
    "lycoris": (*_LORA_ONLY, "controlnet"),
    "full": (*_MATRICES, *_LORA_ONLY, "controlnet"),
    "controlnet": (*_MATRICES, *_LORA_ONLY),
}
"""Keys that mean nothing for a kind of adapter."""
_CONTROL_LORA = (
    "lycoris", "text_encoder", "text_encoder_learning_rate", "init", "continue_from", "layout",
)  # fmt: skip
"""Keys that mean nothing for matrices in a ControlNet."""


class ControlnetSpec(Section):
    """Where a ControlNet starts, and how much of it is trained."""

    base: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder or repository of a ControlNet to go on from; none: a copy of the first "
        "part of the model, which changes nothing at first.",
    )
    lora: bool = Field(
        False,
        description="Freeze it and train low-rank matrices in it; in a new copy, the layers that "
        "read the picture and those that lead back are trained as well.",
    )


class LycorisSpec(Section):
    """Options of the LyCORIS network; Yeh et al. 2024, "Navigating Text-To-Image ..."."""

    algorithm: Literal[
        "locon", "loha", "lokr", "dylora", "glora", "ia3", "full", "diag-oft", "boft", "tlora"
    ] = Field("lokr", description="Algorithm of lycoris-lora.")
    factor: int = Field(
        -1, ge=-1, le=1024, description="lokr: size of the small matrix; -1: near square."
    )
    min_rank: int = Field(
        1, ge=1, le=10_000, description="tlora: ranks in use at pure noise; all are when clean."
    )
    rank_power: float = Field(
        1.0, gt=0, le=10, description="tlora: how ranks fall towards noise; 1: in a line."
    )
    norms: bool = Field(False, description="Train the weights of all normalisation layers as well.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of the algorithm, as its docs name."
    )


class AdapterSpec(Section):
    """What is trained: small matrices beside the weights, or the weights themselves."""

    kind: AdapterKind | None = Field(
        None,
        description="lora: low-rank matrices, Hu et al. 2021; lycoris: its kin; full: every "
        "weight; controlnet: a copy of the first half that reads a picture, Zhang et al. 2023; "
        "none: lora for families with a base, full for those from scratch.",
    )
    rank: int = Field(16, ge=1, le=10_000, description="Rank of the matrices.")
    alpha: float | None = Field(
        None, gt=0, le=100_000, description="Scale, divided by rank; none: the rank, scale 1."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of inputs dropped in training.")
    dora: bool = Field(False, description="Magnitude and direction apart; Liu et al. 2024.")
    rslora: bool = Field(False, description="Scale by sqrt(rank); Kalajdzievski 2023.")
    init: Literal["default", "gaussian", "olora", "pissa", "loftq"] = Field(
        "default",
        description="How the matrices start; default: random and zero; loftq: for a base that is "
        "used in nf4, Li et al. 2023.",
    )
    preset: str = Field(
        "default", description="Which modules: a preset that the family names, or `all`."
    )
    targets: list[str] = Field(
        default_factory=list,
        max_length=1024,
        description="Ends of module names that are trained instead of the preset's.",
    )
    exclude: list[str] = Field(
        default_factory=list, max_length=1024, description="Ends of module names left out."
    )
    rank_pattern: dict[str, int] = Field(
        default_factory=dict, description="Other ranks, by module name or regular expression."
    )
    alpha_pattern: dict[str, float] = Field(
        default_factory=dict, description="Other alphas, by module name or regular expression."
    )
    text_encoder: bool = Field(
        False, description="lora: adapt the attention of the CLIP text encoders as well."
    )
    text_encoder_learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Learning rate of the text encoders; none: that of the optimiser.",
    )
    continue_from: str | None = Field(
        None, min_length=1, max_length=4096, description="LoRA file, of any layout, to go on from."
    )
    layout: LoraLayout = Field(
        "diffusers",
        description="Key names of the written file: those of Diffusers, those that ComfyUI reads, "
        "or Kohya's, whose projections of `flux` and `sd3` are fused.",
    )
    lycoris: LycorisSpec = Field(default_factory=LycorisSpec)
    controlnet: ControlnetSpec = Field(default_factory=ControlnetSpec)

    def unused(self, kind: AdapterKind) -> list[str]:
        """Keys that differ from their default, but mean nothing for ``kind``."""
        usual = AdapterSpec()
        unused = _CONTROL_LORA if self.controlnet.lora and kind == "controlnet" else _UNUSED[kind]
        return [name for name in unused if getattr(self, name) != getattr(usual, name)]

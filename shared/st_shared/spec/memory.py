"""MemorySpec and SpeedSpec: what is given up so that training fits, and what makes it faster."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from st_shared.spec.section import Section

WeightFormat = Literal["int8", "fp8", "nf4", "int4"]
QuantizationBackend = Literal["torchao", "quanto", "bitsandbytes"]
AttentionBackend = Literal[
    "native", "native_math", "native_flash", "native_efficient", "native_cudnn", "flash",
    "flash_3", "flex", "xformers",
]  # fmt: skip

QUANTIZATION_BACKENDS: dict[WeightFormat, tuple[QuantizationBackend, ...]] = {
    "int8": ("torchao", "quanto", "bitsandbytes"),
    "fp8": ("torchao", "quanto"),
    "nf4": ("bitsandbytes",),
    "int4": ("quanto",),
}
"""Libraries that hold weights in a format; the first that runs on the device is taken."""


class QuantizationSpec(Section):
    """How the frozen weights are held while a small part beside them is trained."""

    format: WeightFormat | None = Field(
        None,
        description="Format of the frozen linear layers: int8 and fp8 halve bf16, nf4 (Dettmers "
        "et al. 2023) and int4 quarter it; none: as precision says.",
    )
    backend: QuantizationBackend | None = Field(
        None, description="Library that holds them; none: the first that runs on the device."
    )
    exclude: list[str] = Field(
        default_factory=list,
        max_length=1024,
        description="Ends of names of layers that stay as they are.",
    )
    text_encoders: WeightFormat | None = Field(
        None, description="Format of the linear layers of the text encoders."
    )

    def mistakes(self) -> Iterator[str]:
        """What does not go together, with the field and the mend."""
        for key in ("backend", "exclude"):
            if getattr(self, key) and not self.format:
                yield (
                    f"memory.quantization.{key} means nothing without memory.quantization.format: "
                    "add it, or drop the key"
                )
        known = QUANTIZATION_BACKENDS[self.format] if self.format else ()
        if self.format and self.backend and self.backend not in known:
            yield (
                f"memory.quantization.backend: {self.backend} has no {self.format}: use "
                f"{' or '.join(known)}, or drop the key"
            )


class OffloadSpec(Section):
    """Frozen weights that wait outside of the accelerator until their turn comes."""

    level: Literal["block", "leaf"] | None = Field(
        None,
        description="What comes and goes at once: some blocks, or single layers, which takes the "
        "least memory and the most time; none: everything stays.",
    )
    blocks: int = Field(1, ge=1, le=1000, description="block: blocks that come and go together.")
    to: Literal["cpu", "disk"] = Field("cpu", description="Where weights wait.")
    stream: bool | None = Field(
        None,
        description="Fetch the next ones while these compute; none: where the device can.",
    )


class MemorySpec(Section):
    """What is given up so that training fits into the memory of the accelerator."""

    gradient_checkpointing: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Compute the activations of every n-th block anew in the backward pass, "
        "Chen et al. 2016; 1: of each; none: keep all.",
    )
    quantization: QuantizationSpec = Field(default_factory=QuantizationSpec)
    offload: OffloadSpec = Field(default_factory=OffloadSpec)

    def mistakes(self) -> Iterator[str]:
        """What cannot be whatever is trained, with the field and the mend."""
        yield from self.quantization.mistakes()
        offload = self.offload
        if not offload.level:
            if offload != OffloadSpec():
                yield "memory.offload means nothing without memory.offload.level: give that"
            return
        if self.quantization.format or self.quantization.text_encoders:
            yield (
                "memory.offload.level: quantised weights are not offloaded: drop that or "
                "memory.quantization"
            )
        if self.gradient_checkpointing != 1:
            yield (
                "memory.offload.level: activations hold the weights that they were made with, so "
                "nothing would be saved: set memory.gradient_checkpointing to 1"
            )
        if offload.level == "leaf" and offload.blocks > 1:
            yield "memory.offload.blocks means nothing for memory.offload.level leaf: drop it"


class SpeedSpec(Section):
    """What makes a step faster or slower and changes its result by rounding alone."""

    compile: bool = Field(
        False,
        description="Compile the repeated blocks with torch.compile: one graph for all of them, "
        "minutes before the first step.",
    )
    attention: AttentionBackend = Field(
        "native",
        description="Code of attention; native: what torch takes by itself. All but native and "
        "native_math need an accelerator, some a package.",
    )
    deterministic: bool = Field(
        False,
        description="Take kernels that give the same to the bit each time, for runs that are to be "
        "repeated exactly on a GPU, where the usual ones differ by rounding; slower.",
    )

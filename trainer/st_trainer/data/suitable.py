"""Which samples a dataset leaves out, by their size in the file."""

from st_shared.spec.dataset import FilterSpec
from st_trainer.data.facts import SampleFacts
from st_trainer.data.medium import UnreadableSampleError


def check_suitable(facts: SampleFacts, spec: FilterSpec) -> None:
    """Raise ``UnreadableSampleError`` where ``spec`` does not want a sample; sounds always fit."""
    if len(facts.original_size) != 2:
        return
    height, width = facts.original_size
    aspect = width / height
    scale = max(new / old for new, old in zip(facts.size, facts.original_size, strict=True))
    size = f"{width}x{height}"
    if spec.min_side and min(width, height) < spec.min_side:
        raise UnreadableSampleError(f"{size} is smaller than only.min_side {spec.min_side}")
    if spec.max_side and max(width, height) > spec.max_side:
        raise UnreadableSampleError(f"{size} is larger than only.max_side {spec.max_side}")
    if spec.min_aspect and aspect < spec.min_aspect:
        raise UnreadableSampleError(f"{size} is narrower than only.min_aspect {spec.min_aspect:g}")
    if spec.max_aspect and aspect > spec.max_aspect:
        raise UnreadableSampleError(f"{size} is wider than only.max_aspect {spec.max_aspect:g}")
    if spec.max_upscale and scale > spec.max_upscale:
        raise UnreadableSampleError(
            f"{size} would be enlarged {scale:.2f} times, more than only.max_upscale "
            f"{spec.max_upscale:g}"
        )

"""The buckets of a run: the sizes and lengths among which its samples are divided."""

import math
from collections import Counter
from dataclasses import replace

from st_shared.spec.families import FAMILIES
from st_shared.spec.training import TrainingSpec
from st_trainer.data.buckets import Size, bucket_sizes, chosen, sizes_around
from st_trainer.data.images import Images
from st_trainer.data.medium import Bucket, Medium
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos

_MEGA = 1_000_000


def in_buckets(medium: Medium, spec: TrainingSpec) -> Medium:
    """``medium`` with the sizes and lengths that ``spec`` asks for."""
    buckets = spec.buckets
    if isinstance(medium, Images | Videos):
        medium = replace(
            medium, buckets=_sizes(spec, (medium.height, medium.width)), crop=buckets.crop
        )
    if isinstance(medium, Videos) and buckets.frames == "shorter":
        return replace(medium, frame_step=FAMILIES[spec.model.family].frame_step)
    if isinstance(medium, Sounds):
        step = round(buckets.seconds * medium.rate) if buckets.seconds else None
        return replace(medium, step=step, part=buckets.part)
    return medium


def _sizes(spec: TrainingSpec, base: Size) -> tuple[Size, ...]:
    """The sizes around ``base``; none where all samples get that one."""
    buckets, alignment = spec.buckets, FAMILIES[spec.model.family].alignment
    if alignment is None:
        return ()
    side = round(math.sqrt(base[0] * base[1]))
    if buckets.megapixels:
        side = max(round(math.sqrt(buckets.megapixels * _MEGA) / alignment), 1) * alignment
        base = side, side
    step = spec.bucket_step(side)
    if step is None:
        return (base,) if buckets.megapixels else ()
    if buckets.measure == "pixel":
        sizes = bucket_sizes(min(base), step, buckets.max_aspect, "shorter side")
    elif base[0] == base[1]:
        sizes = bucket_sizes(base[0], step, buckets.max_aspect)
    else:
        sizes = sizes_around(base, step, buckets.max_aspect)
    return chosen(sizes, buckets.aspects) if buckets.aspects else sizes


def described(counts: Counter[Bucket], medium: Medium) -> str:
    """The buckets with how many samples each holds, the fullest first."""
    told = [f"{_name(bucket, medium)}: {count}" for bucket, count in counts.most_common()]
    how = {"image": "width x height", "video": "width x height, frames", "audio": "seconds"}
    return f"{len(counts)} buckets, {how[medium.kind]}: {medium.noun}s; {', '.join(told)}"


def _name(bucket: Bucket, medium: Medium) -> str:
    shape = bucket.shape
    if isinstance(medium, Sounds):
        return f"{shape[-1] / medium.rate:g}"
    *_, height, width = shape
    name = f"{width}x{height}" + (f", {shape[1]}" if isinstance(medium, Videos) else "")
    beside = " and ".join(f"{width}x{height}" for height, width in bucket.references)
    return f"{name} with {beside}" if beside else name

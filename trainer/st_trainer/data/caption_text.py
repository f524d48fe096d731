"""Captions of a sample: read, cleaned, and one of them drawn each time it is seen."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from st_shared.spec.captions import CaptionSpec
from st_trainer.data.content import Content
from st_trainer.data.medium import UnreadableSampleError

MAX_CAPTION_BYTES = 16_384
MAX_JSON_BYTES = 1 << 20
MAX_CAPTIONS = 256
"""Most captions of one sample."""


def from_file(content: Content, spec: CaptionSpec) -> list[str]:
    """The text in a file, as one caption or line by line.

    Raises:
        UnreadableSampleError: it is missing, empty, too long or not UTF-8.
    """
    try:
        text = content.read_text(MAX_CAPTION_BYTES)
    except FileNotFoundError:
        raise UnreadableSampleError(f"no caption: {content.name} is missing") from None
    if not text.strip():
        raise UnreadableSampleError(f"{content.name} is empty")
    return from_text(text, spec)


def from_text(text: str, spec: CaptionSpec) -> list[str]:
    """``text`` as one caption, or line by line."""
    return text.splitlines() if spec.lines == "each" else [text]


def from_name(name: str) -> list[str]:
    """What the name of a file says: ``a_red-house.png`` is ``a red house``."""
    return [re.sub(r"[_-]+", " ", PurePosixPath(name).stem)]


def from_json(content: Content, spec: CaptionSpec) -> list[str]:
    """What stands at ``spec.key`` of a JSON file.

    Raises:
        UnreadableSampleError: the file is missing, no JSON, or holds nothing there.
    """
    try:
        text = content.read_text(MAX_JSON_BYTES)
    except FileNotFoundError:
        raise UnreadableSampleError(f"no caption: {content.name} is missing") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableSampleError(f"{content.name} is no JSON") from None
    return from_value(at_key(document, spec.key), spec, f"{spec.key} of {content.name}")


def at_key(document: Any, key: str) -> Any:
    """What ``document`` holds at ``key``, whose dots lead into objects; None: nothing."""
    if isinstance(document, Mapping) and key in document:
        return document[key]
    for part in key.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def from_value(value: Any, spec: CaptionSpec, place: str) -> list[str]:
    """The captions that ``value`` is: a text, or a list of texts; ``place`` says where it stands.

    Raises:
        UnreadableSampleError: it is neither, or there is none.
    """
    if isinstance(value, str):
        return from_text(value, spec)
    if isinstance(value, Sequence) and value and all(isinstance(each, str) for each in value):
        return list(value)
    if value is None or value == []:
        raise UnreadableSampleError(f"no caption: {place} is missing")
    raise UnreadableSampleError(f"{place} is neither a text nor a list of texts")


def cleaned(captions: Sequence[str], spec: CaptionSpec) -> tuple[str, ...]:
    """``captions``, each on one line, with replacements and prefix; empty ones are left out.

    Raises:
        UnreadableSampleError: none is left, or one is too long.
    """
    found = []
    for caption in captions:
        for pattern, text in spec.replace.items():
            caption = re.sub(pattern, text, caption)  # noqa: PLW2901 -- step by step
        if line := " ".join(caption.split()):
            found.append(spec.prefix + line)
    if not found:
        raise UnreadableSampleError("its caption is empty")
    if len(found) > MAX_CAPTIONS:
        raise UnreadableSampleError(f"more than {MAX_CAPTIONS} captions")
    if any(len(caption.encode()) > MAX_CAPTION_BYTES for caption in found):
        raise UnreadableSampleError(f"a caption is longer than {MAX_CAPTION_BYTES} bytes")
    return tuple(found[:1] if spec.several == "first" else found)


def drawn(captions: Sequence[str], spec: CaptionSpec, seed: Sequence[int]) -> str:
    """One of ``captions``, its parts in a new order where ``spec`` says so.

    What is drawn follows from ``seed`` alone.
    """
    if len(captions) == 1 and not spec.shuffle:
        return captions[0]
    generator = np.random.default_rng(seed)
    caption = captions[int(generator.integers(len(captions)))]
    return _shuffled(caption, spec, generator) if spec.shuffle else caption


def _shuffled(caption: str, spec: CaptionSpec, generator: np.random.Generator) -> str:
    """Lyrics, on later lines, stay."""
    first, newline, rest = caption.partition("\n")
    beginning = spec.prefix if first.startswith(spec.prefix) else ""
    parts = [part.strip() for part in first.removeprefix(beginning).split(spec.separator)]
    kept, others = parts[: spec.keep_first], parts[spec.keep_first :]
    order = generator.permutation(len(others))
    joint = spec.separator if spec.separator.endswith(" ") else f"{spec.separator} "
    return beginning + joint.join([*kept, *(others[place] for place in order)]) + newline + rest

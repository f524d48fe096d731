"""What tells one encoder from another: its weights, its options, and the libraries that run it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

VERSION = 1
"""Of how entries are made; another one makes every entry anew."""
_THREADS = 8
_LIBRARIES = ("diffusers", "transformers")


def encoder_digest(parts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Hex of 16 bytes that change with any weight, type, setting or word of ``parts``.

    ``parts`` are networks, tokenizers and image processors by name; ``options`` are what else
    decides, as JSON holds it. Where the model lies on this machine does not matter.
    """
    document = {
        "version": VERSION,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "options": dict(options),
        "parts": {name: _of_part(part) for name, part in sorted(parts.items())},
    }
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _of_part(part: Any) -> Any:
    if isinstance(part, nn.Module):
        return {"class": type(part).__name__, "config": _config(part), "tensors": _of_module(part)}
    if not hasattr(part, "get_vocab"):
        return {"class": type(part).__name__, "options": part.to_dict()}
    words = sorted(part.get_vocab().items())
    backend = getattr(part, "backend_tokenizer", None)
    return {
        "class": type(part).__name__,
        "length": part.model_max_length,
        "words": hashlib.sha256(json.dumps(words).encode()).hexdigest(),
        "special": {name: str(each) for name, each in part.special_tokens_map.items()},
        "backend": hashlib.sha256(backend.to_str().encode()).hexdigest() if backend else None,
    }


def _config(part: Any) -> dict[str, Any]:
    """The options of a network, without those that say where it was found or who wrote it."""
    config = part.config
    found = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {
        name: value
        for name, value in found.items()
        if not name.startswith("_") and name not in {"transformers_version", "dtype"}
    }


def _of_module(module: nn.Module) -> list[tuple[str, str]]:
    """Name and digest of each tensor; several are digested at once."""
    tensors = [(name, each) for name, each in module.state_dict().items()]
    with ThreadPoolExecutor(_THREADS, "digest") as pool:
        digests = pool.map(lambda pair: _of_tensor(pair[1]), tensors)
        return [(name, digest) for (name, _), digest in zip(tensors, digests, strict=True)]


def _of_tensor(value: Any) -> str:
    digest = hashlib.sha256()
    for each in _plain(value):
        digest.update(repr((tuple(each.shape), each.dtype)).encode())
        flat = each.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(value: Any) -> Iterator[Tensor]:
    """The plain tensors of which ``value`` is made: quantised ones are made of several."""
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        for name in names:
            yield from _plain(getattr(value, name))
    elif isinstance(value, Tensor):
        yield value
    else:  # an extra state
        yield torch.frombuffer(bytearray(repr(value).encode()), dtype=torch.uint8)

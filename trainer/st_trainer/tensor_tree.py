"""Nested state with tensors in it as flat tensors and plain JSON, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def take_apart(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``tree`` as JSON; its tensors are put into ``tensors``, named by their path from ``name``.

    Raises:
        TypeError: something in it is neither plain nor a tensor.
    """
    match tree:
        case Tensor():
            tensors[name] = tree
            return {"tensor": name}
        case dict():
            return {
                "dict": [
                    [key, take_apart(each, f"{name}.{key}".lstrip("."), tensors)]
                    for key, each in tree.items()
                ]
            }
        case list() | tuple():
            parts = [take_apart(e, f"{name}.{i}".lstrip("."), tensors) for i, e in enumerate(tree)]
            return {type(tree).__name__: parts}
        case torch.dtype():
            return {"dtype": str(tree).removeprefix("torch.")}
        case None | bool() | int() | float() | str():
            return tree
    raise TypeError(f"{name} is a {type(tree).__name__}, which cannot be kept")


def put_together(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of ``take_apart``.

    Raises:
        KeyError: a tensor is missing.
    """
    if not isinstance(document, dict):
        return document
    [(kind, content)] = document.items()
    match kind:
        case "tensor":
            return tensors[content]
        case "dict":
            return {key: put_together(each, tensors) for key, each in content}
        case "dtype":
            return getattr(torch, content)
        case "list":
            return [put_together(each, tensors) for each in content]
        case "tuple":
            return tuple(put_together(each, tensors) for each in content)
    raise KeyError(kind)

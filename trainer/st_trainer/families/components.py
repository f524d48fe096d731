"""The parts of a pretrained model: classes by name, weights from a folder of Diffusers' layout."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from st_trainer.errors import BadSpecError

_LOADER: ContextVar["Loader | None"] = ContextVar("loader", default=None)
_FAILED = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def class_named(place: str) -> Any:
    """The class at ``module.Name``, such as ``diffusers.AutoencoderKL``; imported only now."""
    module, _, name = place.rpartition(".")
    return getattr(import_module(module), name)


def load_components(base: str, classes: Mapping[str, str], dtype: torch.dtype) -> dict[str, Any]:
    """Every part of ``classes`` (name of its subfolder: class) of the model at ``base``.

    Modules come frozen and in evaluation mode. A folder is read as it is; anything else is taken
    for a repository of Hugging Face.

    Raises:
        BadSpecError: a part is missing, or does not fit its class.
    """
    folder = Path(base)
    if folder.is_dir():
        missing = [name for name in classes if not (folder / name).is_dir()]
        if missing:
            raise BadSpecError(
                f"training.model.base: {base} has no folder {', '.join(missing)}: give a model of "
                "this family in the layout of Diffusers"
            )
    elif base.startswith((".", "/")) or base.count("/") != 1:
        raise BadSpecError(f"training.model.base: no folder {base}; give a model that exists")
    _quieten()
    return {name: _load(base, name, place, dtype) for name, place in classes.items()}


def _quieten() -> None:
    """Keep bars and hints of the libraries out of the log of a run; errors are raised anyway."""
    for library in ("diffusers", "transformers"):
        logging = import_module(f"{library}.utils.logging")
        logging.set_verbosity_error()
        logging.disable_progress_bar()


Loader = Callable[[str, str, str, torch.dtype], Any]
"""Gives a part: of a base, the name of the part, its class, the type of its weights."""


@contextmanager
def built_by(loader: Loader) -> Iterator[None]:
    """While it lasts, ``loader`` makes the parts that ``load_components`` gives."""
    before = _LOADER.set(loader)
    try:
        yield
    finally:
        _LOADER.reset(before)


def offline(base: str) -> dict[str, bool]:
    """What keeps the libraries from asking Hugging Face about a folder."""
    return {"local_files_only": True} if Path(base).is_dir() else {}


def _load(base: str, name: str, place: str, dtype: torch.dtype) -> Any:
    if loader := _LOADER.get():
        return loader(base, name, place, dtype)
    kind = class_named(place)
    wanted = {"torch_dtype" if place.startswith("diffusers.") else "dtype": dtype}
    is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".torch.nn.utils.weight_norm. is", FutureWarning)
            part = kind.from_pretrained(
                base, subfolder=name, **offline(base), **(wanted if is_module else {})
            )
    except _FAILED as error:
        raise BadSpecError(
            f"training.model.base: {name} of {base} cannot be loaded as {place}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if is_module:
        part.requires_grad_(requires_grad=False).eval()
    return part


def load_part(folder: str, place: str, field: str) -> Any:
    """One module by itself, such as a ControlNet; ``field`` is the key that names ``folder``.

    Raises:
        BadSpecError: there is none, or it does not fit its class.
    """
    _quieten()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".FluxPosEmbed. is deprecated", FutureWarning)
            return class_named(place).from_pretrained(folder, **offline(folder))
    except _FAILED as error:
        raise BadSpecError(
            f"{field}: {folder} cannot be loaded as {place}: {type(error).__name__}: {error}"
        ) from error

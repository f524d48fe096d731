"""Libraries that cost seconds and words when they are imported, so only who needs one has it.

Diffusers, PEFT and accelerate import what is installed of them, needed or not, and remember it. So
they are hidden from them, and ``library`` brings them back for us: a layer of theirs in our model
is a linear layer to everyone else.
"""

import logging
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import cast

_HIDDEN = ("bitsandbytes", "torchao")
_ABSENT = cast("ModuleType", None)
"""What ``sys.modules`` holds of a package that is not there, whatever is installed."""


def hide_libraries() -> None:
    """Let nobody import them before ``library`` is asked; what is imported stays."""
    for name in _HIDDEN:
        sys.modules.setdefault(name, _ABSENT)


def is_installed(name: str) -> bool:
    """Whether ``library`` would find ``name``, such as ``optimum.quanto``."""
    root = name.partition(".")[0]
    _uncover(root)
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
    finally:
        hide_libraries()


def library(name: str) -> ModuleType:
    """Import ``name``, hidden or not, without its hints about extensions for other devices.

    Raises:
        ImportError: it is not installed.
    """
    _uncover(name.partition(".")[0])
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    finally:
        logging.disable(logging.NOTSET)
        hide_libraries()


def _uncover(root: str) -> None:
    if sys.modules.get(root, True) is None:
        del sys.modules[root]

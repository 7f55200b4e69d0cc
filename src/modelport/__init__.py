"""Modelport serves any model to every client, and calls any server from one client.

Names are imported when they are first used: ``import modelport`` itself loads nothing.
"""

import importlib
from typing import TYPE_CHECKING

from modelport._version import __version__

if TYPE_CHECKING:
    from modelport.signature import model

__all__ = ["__version__", "model"]

_MODULE_BY_NAME = {"model": "modelport.signature"}


def __getattr__(name: str) -> object:
    module = _MODULE_BY_NAME.get(name)
    if module is None:
        raise AttributeError(f"module 'modelport' has no attribute '{name}'")
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

"""Modelport serves any model to every client, and calls any server from one client.

Names are imported when they are first used: ``import modelport`` itself loads nothing.
"""

import importlib
from typing import TYPE_CHECKING

from modelport._version import __version__

if TYPE_CHECKING:
    from modelport.client.bentoml import AsyncHTTPClient, SyncHTTPClient
    from modelport.progress import report_progress
    from modelport.signature import model

__all__ = ["AsyncHTTPClient", "SyncHTTPClient", "__version__", "model", "report_progress"]

_MODULE_BY_NAME = {
    "AsyncHTTPClient": "modelport.client.bentoml",
    "SyncHTTPClient": "modelport.client.bentoml",
    "model": "modelport.signature",
    "report_progress": "modelport.progress",
}


def __getattr__(name: str) -> object:
    module = _MODULE_BY_NAME.get(name)
    if module is None:
        raise AttributeError(f"module 'modelport' has no attribute '{name}'")
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

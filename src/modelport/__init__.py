"""Modelport serves any model to every client, and calls any server from one client.

Names are imported when they are first used: ``import modelport`` itself loads nothing.
"""

import importlib
from typing import TYPE_CHECKING

from modelport._version import __version__

if TYPE_CHECKING:
    from modelport import exceptions, validators
    from modelport.client.bentoml import AsyncHTTPClient, SyncHTTPClient
    from modelport.launching import serve
    from modelport.progress import report_progress
    from modelport.runtimes.python_calls import call_model, call_model_async, stream_model
    from modelport.services.context import Context, get_current_service, server_context
    from modelport.services.declaration import (
        Service,
        api,
        asgi_app,
        get_client,
        mount_asgi_app,
        on_deployment,
        on_shutdown,
        on_startup,
        service,
        task,
    )
    from modelport.services.dependencies import depends
    from modelport.services.endpoint import Field
    from modelport.signature import model

__all__ = [
    "AsyncHTTPClient",
    "Context",
    "Field",
    "Service",
    "SyncHTTPClient",
    "__version__",
    "api",
    "asgi_app",
    "call_model",
    "call_model_async",
    "depends",
    "exceptions",
    "get_client",
    "get_current_service",
    "model",
    "mount_asgi_app",
    "on_deployment",
    "on_shutdown",
    "on_startup",
    "report_progress",
    "serve",
    "server_context",
    "service",
    "stream_model",
    "task",
    "validators",
]

_MODULE_BY_NAME = {
    "AsyncHTTPClient": "modelport.client.bentoml",
    "Context": "modelport.services.context",
    "Field": "modelport.services.endpoint",
    "Service": "modelport.services.declaration",
    "SyncHTTPClient": "modelport.client.bentoml",
    "api": "modelport.services.declaration",
    "asgi_app": "modelport.services.declaration",
    "call_model": "modelport.runtimes.python_calls",
    "call_model_async": "modelport.runtimes.python_calls",
    "depends": "modelport.services.dependencies",
    "exceptions": "modelport.exceptions",
    "get_client": "modelport.services.declaration",
    "get_current_service": "modelport.services.context",
    "model": "modelport.signature",
    "mount_asgi_app": "modelport.services.declaration",
    "on_deployment": "modelport.services.declaration",
    "on_shutdown": "modelport.services.declaration",
    "on_startup": "modelport.services.declaration",
    "report_progress": "modelport.progress",
    "serve": "modelport.launching",
    "server_context": "modelport.services.context",
    "service": "modelport.services.declaration",
    "stream_model": "modelport.runtimes.python_calls",
    "task": "modelport.services.declaration",
    "validators": "modelport.validators",
}


def __getattr__(name: str) -> object:
    module = _MODULE_BY_NAME.get(name)
    if module is None:
        raise AttributeError(f"module 'modelport' has no attribute '{name}'")
    loaded = importlib.import_module(module)
    found: object = loaded if module == f"modelport.{name}" else getattr(loaded, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

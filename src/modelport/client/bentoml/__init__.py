"""``SyncHTTPClient`` and ``AsyncHTTPClient``: the methods of a service as methods of an object.

The surface is that of bentoml's clients, which work against Modelport as well; these work against
both kinds of server. Names are imported when they are first used: who calls a service from a
script pays for no event loop, and nobody for the other half.

Source: bentoml 1.4, ``SyncHTTPClient`` and ``AsyncHTTPClient``.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelport.client.bentoml.asynchronous import AsyncHTTPClient, AsyncTask
    from modelport.client.bentoml.blocking import SyncHTTPClient, Task
    from modelport.client.bentoml.calls import Reply
    from modelport.client.bentoml.tasks import TaskInfo, TaskStatus

__all__ = [
    "AsyncHTTPClient",
    "AsyncTask",
    "Reply",
    "SyncHTTPClient",
    "Task",
    "TaskInfo",
    "TaskStatus",
]

_MODULE_BY_NAME = {
    "AsyncHTTPClient": "asynchronous",
    "AsyncTask": "asynchronous",
    "Reply": "calls",
    "SyncHTTPClient": "blocking",
    "Task": "blocking",
    "TaskInfo": "tasks",
    "TaskStatus": "tasks",
}


def __getattr__(name: str) -> object:
    module = _MODULE_BY_NAME.get(name)
    if module is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    found: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

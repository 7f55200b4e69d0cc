"""Tasks as clients see them: what can be asked for at ``submit``, and what the answers say."""

import enum
import json
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

from modelport.client.flows import Response
from modelport.exceptions import BentoMLException
from modelport.wire.bentoml import EndpointSchema

__all__ = [
    "MOST_POLL_S",
    "POLL_S",
    "TASK_VERBS",
    "Submission",
    "TaskInfo",
    "TaskOf",
    "TaskStatus",
    "as_submission",
    "list_query",
    "task_id",
    "task_info",
    "task_infos",
]

T = TypeVar("T")
POLL_S = 0.1
MOST_POLL_S = 2.0


class TaskStatus(enum.StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self not in (TaskStatus.PENDING, TaskStatus.IN_PROGRESS)


class TaskInfo(NamedTuple):
    """What a server says of a task.

    Attributes:
        id: By which the server knows it.
        created_at: UTC, as ``2026-11-21T14:02:11``.
        executed_at: When it was over; ``None`` before.
        progress: From 0 to 1, if its author reports it.
        progress_text: What its author said last.
        reason: Why it failed or was canceled; "" otherwise.
    """

    id: str
    status: TaskStatus
    created_at: str = ""
    executed_at: str | None = None
    progress: float | None = None
    progress_text: str = ""
    reason: str = ""


class TaskOf(Generic[T]):
    """A task, and the client that asks about it."""

    def __init__(self, client: T, endpoint: EndpointSchema, id: str) -> None:
        self._client = client
        self._endpoint = endpoint
        self.id = id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self._endpoint.name}>"


class Submission(NamedTuple):
    """How a task is submitted, beside its arguments.

    Attributes:
        suffix: Of the route: where to, and with which query.
        headers: Beside those of a call.
        is_idempotent: Whether the server recognises it when it comes twice.
    """

    suffix: str
    headers: tuple[tuple[str, str], ...] = ()
    is_idempotent: bool = False


def as_submission(
    endpoint: EndpointSchema, kwargs: Mapping[str, Any]
) -> tuple[Submission, dict[str, Any]]:
    """Part what is for the queue from what is for the task.

    Of the queue are ``task_priority``, ``task_expires_in``, ``task_idempotency_key`` and
    ``task_webhook``, but not where the task has an argument of that name.

    Raises:
        TypeError: If one of them is not of its kind.
    """
    arguments = dict(kwargs)
    query: dict[str, str] = {}
    headers: tuple[tuple[str, str], ...] = ()
    for option, (parameter, kind) in _OPTIONS.items():
        if option not in arguments or option in endpoint.parameters:
            continue
        value = arguments.pop(option)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{option} is {kind.__name__}, not {type(value).__name__}")
        if parameter:
            query[parameter] = str(value)
        else:
            headers = (("Idempotency-Key", str(value)),)
    suffix = "/submit" + (f"?{urlencode(query)}" if query else "")
    return Submission(suffix, headers, bool(headers)), arguments


def list_query(status: "TaskStatus | str | None", limit: int, before: str | None) -> str:
    """What to add to a route to list tasks."""
    query: dict[str, str] = {"limit": str(limit)}
    if status is not None:
        query["status"] = str(status)
    if before is not None:
        query["before"] = before
    return f"/list?{urlencode(query)}"


def task_id(response: Response) -> str:
    """The task that an answer is about."""
    return str(_object(response.body)["task_id"])


def task_info(response: Response) -> TaskInfo:
    """What an answer says of a task.

    Raises:
        BentoMLException: It is about none.
    """
    return _info(_object(response.body))


def task_infos(response: Response) -> list[TaskInfo]:
    """The tasks that an answer lists.

    Raises:
        BentoMLException: It does not.
    """
    try:
        found = json.loads(response.body)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise BentoMLException("the server's answer is no list of tasks")
    return [_info(each) for each in found]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "task_id" not in found:
        raise BentoMLException("the server's answer is not about a task")
    return found


def _info(said: Any) -> TaskInfo:
    try:
        status, fraction = str(said["status"]), said.get("progress")
        return TaskInfo(
            str(said["task_id"]),
            TaskStatus(status),
            str(said.get("created_at") or ""),
            said.get("executed_at"),
            None if fraction is None else float(fraction),
            str(said.get("progress_text") or ""),
            str(said.get("reason") or ""),
        )
    except ValueError:
        raise BentoMLException(f"the server gave a task the unknown status '{status}'") from None
    except (KeyError, TypeError, AttributeError):
        raise BentoMLException("the server's answer is not about a task") from None


_OPTIONS: Mapping[str, tuple[str, type]] = {
    "task_priority": ("priority", int),
    "task_expires_in": ("expires_in", int),
    "task_idempotency_key": ("", str),
    "task_webhook": ("webhook", str),
}
TASK_VERBS = ("get", "get_status", "cancel", "retry")

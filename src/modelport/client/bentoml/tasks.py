"""Tasks as clients see them: what is asked about them, as flows, and what the answers say."""

import enum
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

from modelport.client.dialects.bentoml import Dialect
from modelport.client.flows import Flow, Pause, Response
from modelport.exceptions import BentoMLException
from modelport.wire.bentoml import EndpointSchema

if TYPE_CHECKING:
    from modelport.client.bentoml.calls import Client

__all__ = [
    "TASK_VERBS",
    "Submission",
    "TaskInfo",
    "TaskOf",
    "TaskStatus",
    "as_submission",
    "listing",
    "submitting",
]

T = TypeVar("T", bound="Client")
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
    """A task, and the client that asks about it.

    Attributes:
        id: By which the server knows it.
    """

    def __init__(self, client: T, endpoint: EndpointSchema, id: str) -> None:
        self._client = client
        self._endpoint = endpoint
        self.id = id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} of {self._endpoint.name}>"

    def _asking(self, method: str, verb: str) -> Flow[Response]:
        return self._client._dialect.task(method, self._endpoint, verb, self.id)

    def _describing(self) -> Flow[TaskInfo]:
        response = yield from self._asking("GET", "status")
        return _info(_object(response))

    def _awaiting(self, timeout_s: float | None) -> Flow[Response]:
        """Ask until it is over, and then for its result.

        Raises:
            TimeoutError: If it is not over within so many seconds.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        poll_s = POLL_S
        while not (yield from self._describing()).status.is_over:
            if until_s is not None and time.monotonic() >= until_s:
                raise TimeoutError(f"task {self.id} is not over yet")
            yield Pause(poll_s)
            poll_s = min(poll_s * 1.5, MOST_POLL_S)
        return (yield from self._asking("GET", "get"))

    def _repeating(self) -> Flow[str]:
        """Ask for the same again, and give the new task's id."""
        return _task_id((yield from self._asking("POST", "retry")))


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


def submitting(
    dialect: Dialect, endpoint: EndpointSchema, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Flow[str]:
    """Submit a task, and give its id."""
    submission, arguments = as_submission(endpoint, kwargs)
    response = yield from dialect.call(
        endpoint,
        args,
        arguments,
        submission.suffix,
        headers=submission.headers,
        is_idempotent=submission.is_idempotent,
    )
    return _task_id(response)


def listing(
    dialect: Dialect,
    endpoint: EndpointSchema,
    status: TaskStatus | str | None,
    limit: int,
    before: str | None,
) -> Flow[list[TaskInfo]]:
    """List the tasks of an endpoint, the latest first.

    Raises:
        BentoMLException: If the answer is no list of tasks.
    """
    query: dict[str, str] = {"limit": str(limit)}
    if status is not None:
        query["status"] = str(status)
    if before is not None:
        query["before"] = before
    response = yield from dialect.ask(endpoint, f"/list?{urlencode(query)}")
    try:
        found = json.loads(response.body)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise BentoMLException("the server's answer is no list of tasks")
    return [_info(each) for each in found]


def _task_id(response: Response) -> str:
    """The task that an answer is about."""
    return str(_object(response)["task_id"])


def _object(response: Response) -> dict[str, Any]:
    try:
        found = json.loads(response.body)
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

"""Every error that crosses a floor, as one tree.

::

    ModelportError
    ├── InvalidRequest          the caller's request is wrong
    │   ├── InvalidInference    ... and it was the engine that looked, at an inference request
    │   ├── InvalidArguments    ... and its arguments do not fit a typed method
    │   └── RegionFailed        ... and it is shared memory that cannot be opened
    ├── Unauthenticated         no key, or a wrong one
    ├── Forbidden               a right key for something else
    ├── NotFound                model, version, task, file
    ├── Conflict                exists already
    ├── TooLarge                body, tensor, batch, list
    ├── Overloaded              a queue or a concurrency limit is full
    ├── Unavailable             not ready, draining, worker dead
    │   └── WorkerDied          ... and the request may have been half done
    ├── TimedOut                a deadline or a queue timeout passed
    │   └── QueueTimedOut       ... and it was the time that the model lets requests wait
    ├── Cancelled               the caller went away
    ├── Unsupported             known, and not offered here
    ├── ModelFailed             the model raised; ``code`` keeps what it said of itself
    └── LoadFailed              a model could not be brought up
        └── PollFailed          ... because its directory or configuration cannot be read

An error's text is written for the caller: first the sentence that existing clients match on, then
what was received, what is accepted and what to do. It never holds a path of this machine, an
address, a traceback or an internal name. Statuses belong to the protocols: each keeps its own
table from :class:`Kind`.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import ClassVar

__all__ = [
    "INTERNAL_ERROR",
    "Cancelled",
    "Conflict",
    "Forbidden",
    "InvalidArguments",
    "InvalidInference",
    "InvalidRequest",
    "Kind",
    "LoadFailed",
    "ModelFailed",
    "ModelportError",
    "NotFound",
    "Overloaded",
    "PollFailed",
    "QueueTimedOut",
    "RegionFailed",
    "TimedOut",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "WorkerDied",
]


class Kind(enum.StrEnum):
    """What went wrong, in the terms that every protocol can translate."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    UNSUPPORTED = "unsupported"
    MODEL_FAILED = "model_failed"
    LOAD_FAILED = "load_failed"
    UNKNOWN = "unknown"


INTERNAL_ERROR = "internal error; the log of the server tells more"
"""What a caller hears of a failure that is not the fault of the request; the log explains it."""


class ModelportError(Exception):
    """The root: anything of ours that a caller may see."""

    kind: Kind = Kind.UNKNOWN

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


class InvalidRequest(ModelportError):
    """The caller's request is wrong; sending it again will not help."""

    kind = Kind.INVALID


class InvalidInference(InvalidRequest):
    """An inference request that does not fit its model.

    Separate from its parent because Triton puts the request's id before these texts, and only
    before these.

    Attributes:
        request_id: The caller's own id of the request, where whoever raised this knew it.
    """

    def __init__(self, text: str, *, request_id: str = "") -> None:
        super().__init__(text)
        self.request_id = request_id


class InvalidArguments(InvalidRequest):
    """Arguments that do not fit the types of the method they were sent to.

    Attributes:
        detail: One object for each fault: ``type``, ``loc``, ``msg`` and maybe ``url``.
    """

    def __init__(self, text: str, detail: Sequence[Mapping[str, object]] = ()) -> None:
        super().__init__(text)
        self.detail = detail


class RegionFailed(InvalidRequest):
    """Shared memory that was to be registered is not there, or too short.

    Triton gives these the status of a failure inside; existing clients know it.
    """

    kind = Kind.MODEL_FAILED


class Unauthenticated(ModelportError):
    """No key was sent, or a wrong one."""

    kind = Kind.UNAUTHENTICATED


class Forbidden(ModelportError):
    """Who asks is known and may not do this."""

    kind = Kind.FORBIDDEN


class NotFound(ModelportError):
    """What was named does not exist."""

    kind = Kind.NOT_FOUND


class Conflict(ModelportError):
    """What was to be made exists already."""

    kind = Kind.CONFLICT


class TooLarge(ModelportError):
    """A body, tensor, batch or list is over its limit."""

    kind = Kind.TOO_LARGE


class Overloaded(ModelportError):
    """A bounded queue is full.

    Attributes:
        retry_after_s: When trying again makes sense, in seconds.
    """

    kind = Kind.OVERLOADED

    def __init__(self, text: str, *, retry_after_s: int = 1) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Unavailable(ModelportError):
    """Not ready, going down, or its worker has died."""

    kind = Kind.UNAVAILABLE


class WorkerDied(Unavailable):
    """The worker process that was at a request has ended.

    Separate from its parent because what was done may have been done by half; a request that never
    began can be sent again without a thought.
    """


class TimedOut(ModelportError):
    """A deadline or a queue timeout passed before the answer was there."""

    kind = Kind.TIMEOUT


class QueueTimedOut(TimedOut):
    """A request waited longer than its model's queue lets it.

    Separate from its parent because Triton calls this unavailable, and a deadline that passed not.
    """


class Cancelled(ModelportError):
    """The caller went away; nobody reads this but the log."""

    kind = Kind.CANCELLED


class Unsupported(ModelportError):
    """Known, and not offered here."""

    kind = Kind.UNSUPPORTED


class ModelFailed(ModelportError):
    """The model raised, or answered what it had not declared.

    Args:
        text: Written for the caller.
        code: The kind that the model gave its error, where its language has codes
            (``TritonError``); an exception that it did not catch is ``MODEL_FAILED``.
    """

    kind = Kind.MODEL_FAILED
    INTERNAL: ClassVar[Kind] = Kind.MODEL_FAILED

    def __init__(self, text: str, *, code: Kind = Kind.MODEL_FAILED) -> None:
        super().__init__(text)
        self.kind = code


class LoadFailed(ModelportError):
    """A model could not be brought up; what served before still serves."""

    kind = Kind.LOAD_FAILED


class PollFailed(LoadFailed):
    """There is no such model in any repository, or its configuration cannot be read.

    Triton gives these the status of a failure inside, and those of its parent that of a wrong
    request; existing clients know both.
    """

    kind = Kind.MODEL_FAILED

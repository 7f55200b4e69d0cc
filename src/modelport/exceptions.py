"""What a service may raise and a client may catch, under the names that BentoML gave them.

``error_code`` is the status of the answer: of a class, or of one exception by its keyword. Texts of
statuses from 500 on, and of 401 and 403, are for the log and not for the caller.
"""

from http import HTTPStatus
from typing import ClassVar

from modelport.errors import Kind, ModelportError

__all__ = [
    "APIDeprecated",
    "BadInput",
    "BentoMLConfigException",
    "BentoMLException",
    "CLIException",
    "CloudRESTApiClientError",
    "ImportServiceError",
    "InternalServerError",
    "InvalidArgument",
    "MissingDependencyException",
    "ModelportError",
    "NotFound",
    "RemoteException",
    "ServerStateException",
    "ServiceUnavailable",
    "StateException",
    "UnprocessableEntity",
    "UnservableException",
]


class BentoMLException(ModelportError):
    """The root of what services raise, and of what clients raise for an answer that is no success.

    Args:
        message: For the caller, if the status is one of those that show it.
        error_code: The status, in place of the class's own.
    """

    error_code: HTTPStatus | int = HTTPStatus.INTERNAL_SERVER_ERROR
    proto_code: ClassVar[int] = 500

    def __init__(self, message: str = "", *, error_code: HTTPStatus | int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if error_code is not None:
            self.error_code = error_code
        self.kind = _KIND_BY_STATUS.get(int(self.error_code), _usual_kind(int(self.error_code)))


class InvalidArgument(BentoMLException):
    """What was sent cannot be used."""

    error_code = HTTPStatus.BAD_REQUEST


class BadInput(InvalidArgument):
    """The same; the older name."""


class NotFound(BentoMLException):
    """What was asked for is not there."""

    error_code = HTTPStatus.NOT_FOUND


class UnprocessableEntity(BentoMLException):
    """What was sent is well-formed and still cannot be used."""

    error_code = HTTPStatus.UNPROCESSABLE_ENTITY


class ServiceUnavailable(BentoMLException):
    """Not now."""

    error_code = HTTPStatus.SERVICE_UNAVAILABLE


class InternalServerError(BentoMLException):
    """A failure that is not the caller's."""


class RemoteException(BentoMLException):
    """A service that this one depends on failed."""


class BentoMLConfigException(BentoMLException):
    """A configuration makes no sense."""


class MissingDependencyException(BentoMLException):
    """A package has to be installed."""


class CLIException(BentoMLException):
    """A command was called wrongly."""


class CloudRESTApiClientError(BentoMLException):
    """Of BentoML's cloud, which there is none of here."""


class ImportServiceError(BentoMLException):
    """A service could not be imported."""


class APIDeprecated(BentoMLException):
    """What was called is not offered any more."""


class StateException(Exception):
    """Something is in a state that does not allow it; raised by a service it is a failure."""

    error_code = HTTPStatus.BAD_REQUEST


class UnservableException(StateException):
    """A service that cannot be served."""


class ServerStateException(StateException):
    """A server that cannot do this now."""


def _usual_kind(status: int) -> Kind:
    return Kind.INVALID if 400 <= status < 500 else Kind.MODEL_FAILED


_KIND_BY_STATUS = {
    401: Kind.UNAUTHENTICATED,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    409: Kind.CONFLICT,
    413: Kind.TOO_LARGE,
    429: Kind.OVERLOADED,
    501: Kind.UNSUPPORTED,
    503: Kind.UNAVAILABLE,
    504: Kind.TIMEOUT,
}

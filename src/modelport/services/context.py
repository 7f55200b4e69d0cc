"""What a method knows of its request beside the arguments, and how it may shape the answer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from modelport.progress import Report
from modelport.services.files import Folder

__all__ = [
    "WORKER_INDEX",
    "BackgroundTasks",
    "Context",
    "RequestView",
    "ResponseDraft",
    "Url",
    "current",
    "current_service",
    "get_current_service",
    "server_context",
]


class _Names(MutableMapping[str, str]):
    """Headers: looked up without regard to case, written as they were given."""

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items: dict[str, tuple[str, str]] = {}
        for name, value in items:
            self[name] = value

    def __getitem__(self, name: str) -> str:
        return self._items[name.lower()][1]

    def __setitem__(self, name: str, value: str) -> None:
        text = str(value)
        if any(char in "\r\n\0" for char in (*name, *text)):
            raise ValueError(f"header {name!r} holds a line break or a zero byte")
        self._items[name.lower()] = (name, text)

    def __delitem__(self, name: str) -> None:
        del self._items[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(dict(self._items.values()))


class Url(str):
    """The address of a request; beside the text its parts, as Starlette names them."""

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self)

    @property
    def scheme(self) -> str:
        """``http``, whatever a proxy in front speaks."""
        return self._parts.scheme

    @property
    def netloc(self) -> str:
        """Host and port."""
        return self._parts.netloc

    @property
    def hostname(self) -> str | None:
        """Without the port."""
        return self._parts.hostname

    @property
    def port(self) -> int | None:
        """``None`` where it is not said."""
        return self._parts.port

    @property
    def path(self) -> str:
        """Still percent-encoded."""
        return self._parts.path

    @property
    def query(self) -> str:
        """Behind the ``?``, still encoded."""
        return self._parts.query


class RequestView:
    """The request as it came, to be read only.

    Attributes:
        method: In capitals.
        path: Still percent-encoded.
        query: Behind the ``?``, still encoded.
        headers: By name, whatever its case.
        client: Always ``None``: whoever stands in front hides who calls.
        principal: Who asks, as far as a key tells; "" for everybody.
    """

    def __init__(
        self, method: str, path: str, query: str, headers: Mapping[str, str], principal: str
    ) -> None:
        self.method = method
        self.path = path
        self.principal = principal
        self.client = None
        self.headers: Mapping[str, str] = _Names(headers.items())
        self.query = query

    @property
    def url(self) -> Url:
        """Where it was sent, as far as its head tells."""
        query = f"?{self.query}" if self.query else ""
        return Url(f"http://{self.headers.get('host', 'localhost')}{self.path}{query}")

    @property
    def query_params(self) -> dict[str, str]:
        """What stands behind the ``?``; of repeated names the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies by their names."""
        jar: SimpleCookie = SimpleCookie()
        jar.load(self.headers.get("cookie", ""))
        return {name: morsel.value for name, morsel in jar.items()}


class BackgroundTasks:
    """Functions and coroutine functions to be called one by one when the answer is on its way."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], Any]] = []

    def __bool__(self) -> bool:
        return bool(self.tasks)

    def add_task(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call ``function`` with these arguments later."""
        self.tasks.append(partial(function, *args, **kwargs))


class ResponseDraft:
    """What the method wants of its answer.

    Attributes:
        status_code: ``None`` leaves it to the result.
        headers: To be added.
        cookies: Values of ``Set-Cookie``.
        background: What is to be done after the answer.
    """

    def __init__(self) -> None:
        self.background = BackgroundTasks()
        self.status_code: int | None = None
        self.headers: MutableMapping[str, str] = _Names()
        self.cookies: list[str] = []

    def set_cookie(
        self,
        key: str,
        value: str = "",
        *,
        max_age: int | None = None,
        expires: str | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None:
        """Have the caller keep a cookie; ``max_age`` in seconds."""
        jar: SimpleCookie = SimpleCookie()
        jar[key] = value
        morsel = jar[key]
        wanted: dict[str, Any] = {
            "max-age": max_age,
            "expires": expires,
            "path": path,
            "domain": domain,
            "secure": secure,
            "httponly": httponly,
            "samesite": samesite,
        }
        for name, each in wanted.items():
            if each is not None and each is not False:
                morsel[name] = each
        self.cookies.append(morsel.OutputString())

    def delete_cookie(self, key: str, *, path: str = "/", domain: str | None = None) -> None:
        """Have the caller forget a cookie."""
        self.set_cookie(key, max_age=0, path=path, domain=domain)

    @property
    def extra_headers(self) -> list[tuple[str, str]]:
        """All that is to be added to the answer."""
        return [*self.headers.items(), *(("Set-Cookie", cookie) for cookie in self.cookies)]


class Context:
    """One request of one call; a parameter annotated with this class is given it.

    Attributes:
        request: As it came; one without headers where it came by another way than HTTP.
        response: How its answer should be.
        state: Shared by all calls of the process.
        task: Takes reports of progress, where this call is the work of a task that was submitted.
    """

    __slots__ = ("_folder", "request", "response", "state", "task")

    def __init__(self, request: RequestView, folder: Folder, state: dict[str, Any]) -> None:
        self.request = request
        self.response = ResponseDraft()
        self.state = state
        self.task: Report | None = None
        self._folder = folder

    @property
    def is_cancelled(self) -> bool:
        """Whether this is a task that its owner has cancelled.

        A function that runs on a thread cannot be stopped from outside, so one that takes long
        should look here now and then, or report its progress.
        """
        return self.task is not None and self.task.is_cancelled

    @property
    def temp_dir(self) -> str:
        """A directory of this call alone; gone when the call ends."""
        return str(self._folder.path)

    @property
    def directory(self) -> Path:
        """The same as a path."""
        return self._folder.path

    @classmethod
    def without_request(cls, folder: Folder, state: dict[str, Any]) -> "Context":
        """Make one for a call that came by another way than HTTP."""
        return cls(RequestView("POST", "/", "", {}, ""), folder, state)


current: ContextVar[Context | None] = ContextVar("modelport_context", default=None)
"""Of the task that runs here."""

current_service: ContextVar[Any] = ContextVar("modelport_service", default=None)
"""The object whose endpoint, hook or mounted application runs here."""


def get_current_service() -> Any:
    """Give the object of the service that this is called in, as from a mounted application.

    Raises:
        RuntimeError: This is called from outside of any service.
    """
    found = current_service.get()
    if found is None:
        raise RuntimeError("get_current_service() is called from outside of a running service")
    return found


WORKER_INDEX = "__modelport_worker_index__"
"""The attribute of a service's object that says in which worker it lives."""


class ServerContext:
    """What a service may ask about the process that it runs in."""

    @property
    def worker_index(self) -> int:
        """Of this process among those of the service, from 1.

        It is 0 for the object that mounted applications get from a service with workers: they run
        in the server's own process.
        """
        found = current_service.get()
        index: int = getattr(found, WORKER_INDEX, 1)
        return index

    @property
    def service_name(self) -> str:
        """The name of the class whose object answers here; "" outside of a service."""
        found = current_service.get()
        return type(found).__name__ if found is not None else ""


server_context = ServerContext()

"""The decorators: what a class and its methods declare of themselves.

Plain data, kept on what was decorated. A decorated method stays a function and can be called in a
test; a decorated class becomes a :class:`Service`, which makes an object of it when it is called.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload

from modelport.services.context import Context

__all__ = [
    "Api",
    "ApiOptions",
    "Context",
    "Mount",
    "Retry",
    "Service",
    "ServiceOptions",
    "TaskOptions",
    "api",
    "asgi_app",
    "get_client",
    "mount_asgi_app",
    "on_deployment",
    "on_shutdown",
    "on_startup",
    "service",
    "task",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Retry = str
"""``never`` or ``on_interrupt``."""

_API = "__modelport_api__"
_HOOK = "__modelport_hook__"
_MOUNTS = "__modelport_mounts__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One endpoint, as its author declared it.

    Attributes:
        function: The method, without an object.
        name: By which clients know it.
        route: Its path, without the prefix of its service.
        is_task: Whether it can be submitted and asked for later.
        batchable: Whether concurrent requests are put together.
        batch_dim: The dimensions along which inputs are joined and results are cut.
        max_batch_size: Most rows of one call.
        max_latency_ms: How long a request may wait for its batch before it is refused.
        retry: What an interruption means for a task; "" leaves it to ``is_idempotent``.
        is_idempotent: Whether a task may run twice.
        input_spec: Model of the arguments in place of the signature.
        output_spec: Type of the result in place of the annotation.
    """

    function: Callable[..., Any]
    name: str
    route: str
    is_task: bool = False
    batchable: bool = False
    batch_dim: tuple[int, int] = (0, 0)
    max_batch_size: int = 100
    max_latency_ms: float = 60_000.0
    retry: Retry = ""
    is_idempotent: bool = False
    input_spec: Any = None
    output_spec: Any = None


@dataclass(frozen=True, slots=True)
class Mount:
    """An ASGI application beside the endpoints of a service.

    Attributes:
        app: The application, or for WSGI one that wraps it.
        path: Below which it answers; begins with a slash.
        name: For people.
    """

    app: Any
    path: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What stands in the parentheses of ``@service``; :func:`service` says what it means."""

    name: str = ""
    description: str = ""
    path_prefix: str = ""
    workers: int | str = 1
    threads: int | None = None
    traffic: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    http: Mapping[str, Any] = field(default_factory=dict)
    envs: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    logging: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def worker_count(self) -> int:
        """Processes that it runs in: 1 is the server's own, more are its workers."""
        if self.workers == "cpu_count":
            return len(os.sched_getaffinity(0))
        return int(self.workers)

    @property
    def gpus(self) -> float:
        """How many it needs; a part of one is shared. 0 for none."""
        return float(self.resources.get("gpu") or 0)

    @property
    def without_effect(self) -> list[str]:
        """Options that were given and concern BentoML's cloud, packaging or supervisor alone."""
        given = [
            f"{group}.{key}"
            for group, known in _ACTED_ON.items()
            for key in getattr(self, group)
            if key not in known
        ]
        return sorted([*given, *self.others])

    @property
    def quiet_access(self) -> tuple[bool, tuple[str, ...]]:
        """Whether its calls stay out of the access log, and further paths that do."""
        access: Mapping[str, Any] = self.logging.get("access") or {}
        return not access.get("enabled", True), tuple(access.get("skip_paths", ()))

    @property
    def timeout_s(self) -> float:
        """How long a call may take; 60 s as everybody's proxies expect."""
        return float(self.traffic.get("timeout") or 60.0)

    @property
    def max_concurrency(self) -> int | None:
        """Calls of the whole service that may be under way; ``None`` for the server's bound."""
        most = self.traffic.get("max_concurrency")
        return int(most) if most else None


class Service(Generic[T]):
    """A class that is served. Calling it makes an object of the class, as in a unit test.

    Attributes:
        inner: The class.
        options: As declared.
        name: By which it is known.
        apis: Endpoints by the name of their function, in the order of their definition.
        dependencies: Other services by the attribute that they are found under.
        mounts: ASGI applications.
        middlewares: ASGI middleware around the mounts, with its options.
    """

    def __init__(self, inner: type[T], options: ServiceOptions) -> None:
        self.inner = inner
        self.options = options
        self.name = options.name or inner.__name__
        self.apis = {
            name: found
            for name, member in _members(inner)
            if isinstance(found := getattr(member, _API, None), Api)
        }
        self.dependencies = {
            name: member
            for name, member in _members(inner)
            if getattr(type(member), "is_dependency", False)
        }
        self.mounts: list[Mount] = list(vars(inner).get(_MOUNTS, ()))
        self.middlewares: list[tuple[Any, dict[str, Any]]] = []
        self.__doc__ = inner.__doc__
        self.__module__ = inner.__module__
        self.__name__ = inner.__name__
        self.__qualname__ = inner.__qualname__
        _check_routes(self)

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        """Make an object of the class, as the server does."""
        return self.inner(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Service {self.name} {', '.join(self.apis)}>"

    @property
    def doc(self) -> str:
        """What it is for."""
        return self.options.description or inspect.getdoc(self.inner) or ""

    @property
    def prefix(self) -> str:
        """What the paths of its endpoints begin with: "", or a slash in front and none behind."""
        given = self.options.path_prefix.strip("/")
        return f"/{given}" if given else ""

    def hooks(self, kind: str) -> list[str]:
        """Names of its ``startup``, ``shutdown`` or ``deployment`` hooks, in their order."""
        return [name for name, member in _members(self.inner) if _hook_of(member) == kind]

    def mount_asgi_app(self, app: Any, path: str = "/", name: str = "") -> None:
        """Have an ASGI application answer below a path."""
        self.mounts.append(Mount(app, _below(path), name))

    def mount_wsgi_app(self, app: Any, path: str = "/", name: str = "") -> None:
        """Have a WSGI application answer below a path.

        Raises:
            ImportError: Naming the package that is needed.
        """
        try:
            from a2wsgi import WSGIMiddleware
        except ModuleNotFoundError as exc:
            raise ImportError("WSGI applications need a2wsgi: pip install a2wsgi") from exc
        self.mount_asgi_app(WSGIMiddleware(app), path, name)

    def add_asgi_middleware(self, middleware: Any, **options: Any) -> None:
        """Wrap the mounted applications."""
        self.middlewares.append((middleware, options))


@overload
def service(inner: type[T], /) -> Service[T]: ...


@overload
def service(
    *,
    name: str | None = ...,
    description: str | None = ...,
    path_prefix: str | None = ...,
    **options: Any,
) -> Callable[[type[T]], Service[T]]: ...


def service(
    inner: type[T] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    path_prefix: str | None = None,
    **options: Any,
) -> Any:
    """Declare a class to be a service; with or without parentheses.

    >>> @service(traffic={"timeout": 10})
    ... class Doubling:
    ...     @api
    ...     def double(self, x: float) -> float:
    ...         return 2 * x
    >>> Doubling().double(21)
    42

    Args:
        inner: The class, where there are no parentheses.
        name: By which it is known; by default the name of the class.
        description: By default the docstring of the class.
        path_prefix: What the paths of its endpoints begin with.
        options: ``workers``, processes that each have an object of the class and share its calls,
            or ``"cpu_count"`` for one per processor; ``threads``, how many synchronous calls may
            run at once in each (by default as many as come, up to 64); ``traffic``: ``timeout``
            in seconds (60) and ``max_concurrency``, above which callers are told to come again
            (429); ``resources``: ``gpu``, how many its workers see; ``http``, ``envs``,
            ``metrics``; ``labels``, shown in the metrics; ``logging``, what of its calls is in
            the access log. Other options of BentoML are accepted and change nothing.

    Raises:
        TypeError: If an option is unknown, or what is decorated is no class.
        ValueError: If two endpoints have one path.
    """

    def declare(target: type[T]) -> Service[T]:
        if not inspect.isclass(target):
            raise TypeError(f"@service belongs above a class, and {target!r} is none")
        return Service(target, _options(name or "", description or "", path_prefix or "", options))

    return declare if inner is None else declare(inner)


class ApiOptions(TypedDict, total=False):
    """What an endpoint can be told in the parentheses of ``@api``."""

    route: str | None
    """Its path; by default ``/`` and the name of the method, ``/`` for ``__call__``."""
    name: str | None
    """By which clients know it."""
    input_spec: Any
    """Type of the arguments in place of their annotations."""
    output_spec: Any
    """Type of the result in place of its annotation."""
    batchable: bool
    """Whether concurrent requests are put together."""
    batch_dim: int | tuple[int, int]
    """The dimension of the rows, one for argument and result or a pair."""
    max_batch_size: int
    """Most rows of one call; 100."""
    max_latency_ms: float
    """How long a request may wait for its batch before it is refused; 60 000."""


class TaskOptions(ApiOptions, total=False):
    """What a task can be told beside that."""

    retry: Retry
    """``never`` starts it at most once, and calls it failed when the server went down meanwhile;
    ``on_interrupt`` runs it again."""
    idempotent: bool
    """Whether it may run twice, which makes ``on_interrupt`` the default."""


@overload
def api(function: F, /) -> F: ...


@overload
def api(**options: Unpack[ApiOptions]) -> Callable[[F], F]: ...


def api(function: F | None = None, /, **options: Any) -> Any:
    """Declare a method to be an endpoint; with or without parentheses.

    Args:
        function: The method, where there are no parentheses.
        options: See :class:`ApiOptions`.

    Raises:
        TypeError: If an option is unknown, or a batchable method has not exactly one argument.
    """

    def declare(target: F) -> F:
        setattr(
            target, _API, _declared(target, options, ApiOptions.__optional_keys__, is_task=False)
        )
        return target

    return declare if function is None else declare(function)


@overload
def task(function: F, /) -> F: ...


@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[F], F]: ...


def task(function: F | None = None, /, **options: Any) -> Any:
    """Declare a method to be a task: an endpoint that can also be submitted and asked for later.

    Args:
        function: The method, where there are no parentheses.
        options: See :class:`TaskOptions`.

    Raises:
        TypeError: If an option is unknown, or the method is a generator.
    """

    def declare(target: F) -> F:
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise TypeError(f"task '{target.__name__}' is a generator; a task has one result")
        setattr(
            target, _API, _declared(target, options, TaskOptions.__optional_keys__, is_task=True)
        )
        return target

    return declare if function is None else declare(function)


def on_startup(function: F) -> F:
    """Call this method when an object of the service has been made; also a coroutine function."""
    setattr(function, _HOOK, "startup")
    return function


def on_shutdown(function: F) -> F:
    """Call this method after the last request; also a coroutine function."""
    setattr(function, _HOOK, "shutdown")
    return function


def on_deployment(function: F) -> F:
    """Call this once before any object of the service is made; it takes no ``self``."""
    # Of a staticmethod the function is what is looked at.
    setattr(getattr(function, "__func__", function), _HOOK, "deployment")
    return function


def asgi_app(app: Any, *, path: str = "/", name: str = "") -> Callable[[T], T]:
    """Have an ASGI application answer below a path, beside the endpoints of a service.

    Args:
        app: FastAPI, Starlette or any other.
        path: Below which it answers.
        name: For people.
    """

    def mount(target: T) -> T:
        if isinstance(target, Service):
            target.mount_asgi_app(app, path, name)
        else:
            mounts = [*vars(target).get(_MOUNTS, ()), Mount(app, _below(path), name)]
            setattr(target, _MOUNTS, mounts)
        return target

    return mount


mount_asgi_app = asgi_app
"""The older name."""


def get_client(*args: Any, **kwargs: Any) -> Any:
    """Raise: in BentoML this looks for a deployment in its cloud, which there is none of here.

    Raises:
        RuntimeError: Always; the text names what to use.
    """
    raise RuntimeError(
        "get_client() needs BentoML's cloud, which there is none of here; "
        "use modelport.SyncHTTPClient(url) or modelport.AsyncHTTPClient(url)"
    )


def _declared(
    function: Callable[..., Any], options: dict[str, Any], known: frozenset[str], *, is_task: bool
) -> Api:
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(f"'{function.__name__}': unknown option {', '.join(unknown)}")
    route = options.get("route")
    if route is None:
        route = "/" if function.__name__ == "__call__" else f"/{function.__name__}"
    dims = options.get("batch_dim", 0)
    most = options.get("max_batch_size", 100)
    if most < 1:
        raise TypeError(f"'{function.__name__}': max_batch_size has to be at least 1")
    retry = options.get("retry", "")
    if retry not in ("", "never", "on_interrupt"):
        raise TypeError(f"'{function.__name__}': retry is '{retry}', not never or on_interrupt")
    return Api(
        function=function,
        name=options.get("name") or function.__name__,
        route=route if route.startswith("/") else f"/{route}",
        is_task=is_task,
        batchable=bool(options.get("batchable", False)),
        batch_dim=(dims, dims) if isinstance(dims, int) else tuple(dims),
        max_batch_size=most,
        max_latency_ms=float(options.get("max_latency_ms", 60_000)),
        retry=retry,
        is_idempotent=bool(options.get("idempotent", False)),
        input_spec=options.get("input_spec"),
        output_spec=options.get("output_spec"),
    )


def _options(
    name: str, description: str, path_prefix: str, given: dict[str, Any]
) -> ServiceOptions:
    unknown = sorted(set(given) - _OWN_OPTIONS - _ACCEPTED_OPTIONS)
    if unknown:
        raise TypeError(f"@service: unknown option {', '.join(unknown)}")
    own = {key: value for key, value in given.items() if key in _OWN_OPTIONS and value is not None}
    traffic = own.get("traffic", {})
    for key in ("timeout", "max_concurrency"):
        value = traffic.get(key)
        if value is not None and (isinstance(value, bool) or value <= 0):
            raise ValueError(f"@service: traffic {key} is {value!r}; it has to be above 0")
    workers = own.get("workers", 1)
    is_count = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1
    if workers != "cpu_count" and not is_count:
        raise ValueError(
            f"@service: workers is {workers!r}; it has to be at least 1, or 'cpu_count'"
        )
    gpus = own.get("resources", {}).get("gpu") or 0
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise ValueError(
            f"@service: resources gpu is {gpus!r}; it has to be a whole number, or a part of one"
        )
    threads = own.get("threads")
    if threads is not None and threads < 1:
        raise ValueError(f"@service: threads is {threads}; it has to be at least 1")
    own["envs"] = tuple(own.get("envs", ()))
    return ServiceOptions(
        name=name,
        description=description,
        path_prefix=path_prefix,
        others={key: value for key, value in given.items() if key in _ACCEPTED_OPTIONS},
        **own,
    )


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    """Members of a class and its bases in the order of definition, overridden ones once."""
    found: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        if base is not object:
            found.update(vars(base))
    for name, member in found.items():
        is_wrapped = isinstance(member, staticmethod | classmethod)
        yield name, member.__func__ if is_wrapped else member


def _hook_of(member: Any) -> str:
    hook = getattr(member, _HOOK, "")
    return hook if isinstance(hook, str) else ""


def _check_routes(declared: Service[Any]) -> None:
    function_by_route: dict[str, str] = {}
    for name, found in declared.apis.items():
        taken = function_by_route.setdefault(found.route, name)
        if taken != name:
            raise ValueError(
                f"service '{declared.name}': {taken} and {name} both have the route "
                f"'{found.route}'; give one of them another with route="
            )


def _below(path: str) -> str:
    trimmed = path.strip("/")
    return f"/{trimmed}" if trimmed else "/"


_ACTED_ON = {
    "traffic": frozenset({"max_concurrency", "timeout"}),
    "resources": frozenset({"gpu"}),
    "http": frozenset({"cors", "port"}),
    "logging": frozenset({"access"}),
    "metrics": frozenset({"enabled"}),
}
_OWN_OPTIONS = frozenset(
    {"envs", "http", "labels", "logging", "metrics", "resources", "threads", "traffic", "workers"}
)
# Of BentoML's packaging, its cloud and its supervisor, which have nothing to do here.
_ACCEPTED_OPTIONS = frozenset(
    {
        "backlog",
        "cmd",
        "endpoints",
        "extra_ports",
        "grpc",
        "image",
        "max_runner_connections",
        "monitoring",
        "replicate_process",
        "runner_connection",
        "runner_probe",
        "service_class",
        "ssl",
        "tracing",
    }
)

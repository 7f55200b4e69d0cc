"""Every setting of the server, once: name, type, default with its reason, help, other spellings.

The table *is* the dataclass: a field is a setting, what else is known of it stands in the field's
metadata. So the type checker sees the types, and nothing is written twice. Reading the command
line, the environment and a file by this table is the work of :mod:`modelport.server.config`.
"""

import dataclasses
import enum
import re
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

from modelport.records import Record
from modelport.server import setting_values as values
from modelport.server.setting_values import CacheConfig, Kind, MetricsConfig, Restriction

__all__ = ["SETTINGS", "Group", "Setting", "Settings"]

T = TypeVar("T")


class Group(enum.StrEnum):
    """Headings of the help, in its order."""

    MODELS = "Models"
    LISTENERS = "Listeners"
    ACCESS = "Access"
    LIMITS = "Limits"
    OPERATION = "Log, metrics, shutdown"


class Setting(Struct, frozen=True):
    """What is known of one setting beside its type.

    Attributes:
        name: In ``Settings`` and in the file, ``http_port``.
        help: One or two sentences; ends without a full stop.
        aliases: Other names, tritonserver's mostly; good wherever the name is.
        is_repeatable: Several values; a later source replaces them all.
        splits_at_commas: Several values may also stand in one text.
        is_secret: Never shown, neither in errors nor by ``modelport config``.
        gather: From the tuple of parsed values to the setting's value, for a repeatable one.
        default_text: How the default is told where the value itself would mislead.
    """

    name: str
    group: Group
    kind: Kind
    default: Any
    help: str
    aliases: tuple[str, ...] = ()
    is_repeatable: bool = False
    splits_at_commas: bool = False
    is_secret: bool = False
    gather: Callable[[tuple[Any, ...]], Any] | None = None
    default_text: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def flags(self) -> tuple[str, ...]:
        """As options, ``--http-port``."""
        return tuple(f"--{name.replace('_', '-')}" for name in self.names)

    @property
    def variables(self) -> tuple[str, ...]:
        """In the environment, ``MODELPORT_HTTP_PORT``."""
        return tuple(f"MODELPORT_{name.upper()}" for name in self.names)


def _setting(default: T, group: Group, kind: Kind, help_: str, **more: Any) -> T:
    return dataclasses.field(
        default=default,
        repr=not more.get("is_secret", False),
        metadata={"group": group, "kind": kind, "help": help_, **more},
    )


def _several(group: Group, kind: Kind, help_: str, **more: Any) -> tuple[Any, ...]:
    return _setting((), group, kind, help_, is_repeatable=True, **more)


class Settings(Record):
    """What a server was told, complete and checked; plain data."""

    # What to serve

    targets: tuple[str, ...] = _several(
        Group.MODELS,
        values.Kind("TARGET", values.PATH.parse),
        "What to serve: a model repository, a model file or folder, a .py file",
        aliases=("model_repository", "model_store"),
    )
    model_control_mode: str = _setting(
        "none",
        Group.MODELS,
        values.choice("none", "poll", "explicit"),
        "none: every model is loaded at start, and stays; explicit: only --load-model at start,"
        " others come and go by request; poll: follow changes on disk",
    )
    load_model: tuple[str, ...] = _several(
        Group.MODELS,
        values.Kind("NAME", values.TEXT.parse),
        "Load this model at start, with --model-control-mode explicit; * alone loads all",
    )
    repository_poll_secs: int = _setting(
        15,
        Group.MODELS,
        values.POSITIVE_COUNT,
        "Seconds between two looks at the disk, with --model-control-mode poll",
    )
    exit_on_error: bool = _setting(
        True,
        Group.MODELS,
        values.SWITCH,
        "Exit when a model fails to load at start; false: serve the others",
    )
    strict_readiness: bool = _setting(
        True,
        Group.MODELS,
        values.SWITCH,
        "Ready only while every model that should be up is; false: as soon as the server answers",
    )
    disable_auto_complete_config: bool = _setting(
        False,
        Group.MODELS,
        values.SWITCH,
        "Take model configurations as they stand; what is missing is then an error",
    )
    model_config_name: str | None = _setting(
        None,
        Group.MODELS,
        values.TEXT,
        "Use configs/NAME.pbtxt of each model that has one, in place of its config.pbtxt",
    )
    default_max_batch_size: int = _setting(
        4,  # Triton's
        Group.MODELS,
        values.COUNT,
        "max_batch_size of a model that can batch and whose configuration does not say",
    )
    execution: str = _setting(
        "auto",
        Group.MODELS,
        values.choice("auto", "inline", "thread", "process"),
        "Where models run that do not say: on the event loop, in threads, in worker processes"
        " (Python models); auto moves between loop and thread by their measured time",
    )
    worker_hang_timeout_secs: float = _setting(
        300.0,
        Group.MODELS,
        values.SECONDS,
        "How long a worker process may not be heard of, stopped or with Python's lock held all the"
        " time, before it is killed and started again; 0 for ever",
    )
    strict_triton: bool = _setting(
        False,
        Group.MODELS,
        values.SWITCH,
        "Refuse what Triton refuses and we would accept, such as FP16 numbers in JSON",
    )
    ovms: bool = _setting(
        False,
        Group.MODELS,
        values.SWITCH,
        "Behave as OpenVINO Model Server towards clients: encoded images for inputs of pixels,"
        " version 0 is the default one; a model's parameter ovms says it for that model",
    )
    allow_pickle_models: bool = _setting(
        False,
        Group.MODELS,
        values.SWITCH,
        "Load pickle and joblib model files, which can run any code: only your own",
    )
    allow_code_overrides: bool = _setting(
        False,
        Group.MODELS,
        values.SWITCH,
        "Let load requests bring files that hold code; with it, who may load may run anything",
    )
    data_dir: str = _setting(
        "~/.local/share/modelport",
        Group.MODELS,
        values.PATH,
        "Folder for what must survive a restart",
        default_text="$XDG_DATA_HOME/modelport or ~/.local/share/modelport",
    )

    task_concurrency: int = _setting(
        8,
        Group.LIMITS,
        values.POSITIVE_COUNT,
        "Tasks of one endpoint that run at a time in this process",
    )
    task_queue_size: int = _setting(
        10_000,
        Group.LIMITS,
        values.COUNT,
        "Tasks that may wait; further ones are refused with 429",
    )
    task_queue_size_per_key: int = _setting(
        0,
        Group.LIMITS,
        values.COUNT,
        "Tasks of one key that may wait; callers without a key count as one. 0 for as many as"
        " --task-queue-size allows",
    )
    task_lease_secs: float = _setting(
        15.0,
        Group.LIMITS,
        values.LEASE,
        "How long after a server was last heard of its tasks are taken for interrupted, where"
        " several servers share a data folder",
    )
    task_cancel_grace_secs: float = _setting(
        5.0,
        Group.LIMITS,
        values.SECONDS,
        "How long a cancelled task may go on in a worker process of its service before the process"
        " is ended; 0 for as long as it likes",
    )
    task_store_size: int = _setting(
        16 * 1024**3,
        Group.LIMITS,
        values.SIZE,
        "Most bytes of the requests and results of all tasks, those that are over included",
    )
    task_retention_secs: float = _setting(
        86_400.0,
        Group.LIMITS,
        values.SECONDS,
        "How long a task that is over, and its result, can be looked at",
    )

    # Where to listen

    host: str = _setting(
        "127.0.0.1",
        Group.LISTENERS,
        values.Kind("ADDRESS", values.TEXT.parse),
        "Address of every listener; off loopback (0.0.0.0 is every interface) a key is required",
        aliases=("http_address",),
    )
    http_port: int | None = _setting(
        8000, Group.LISTENERS, values.OPTIONAL_PORT, "Port for HTTP; 0 is any free one"
    )
    grpc_port: int | None = _setting(
        8001,
        Group.LISTENERS,
        values.OPTIONAL_PORT,
        "Port for gRPC alone; every HTTP port answers it too",
    )
    metrics_port: int | None = _setting(
        8002,
        Group.LISTENERS,
        values.OPTIONAL_PORT,
        "Port for Prometheus metrics; they are at /metrics of the HTTP port too",
    )
    extra_port: tuple[int, ...] = _several(
        Group.LISTENERS,
        values.PORT,
        "One more HTTP port, for clients with another one wired in",
        splits_at_commas=True,
    )
    allow_http: bool = _setting(
        True, Group.LISTENERS, values.SWITCH, "false is --http-port off, in tritonserver's words"
    )
    allow_grpc: bool = _setting(
        True, Group.LISTENERS, values.SWITCH, "false is --grpc-port off, in tritonserver's words"
    )
    allow_metrics: bool = _setting(
        True,
        Group.LISTENERS,
        values.SWITCH,
        "false is --metrics-port off, in tritonserver's words",
    )
    tls_cert: str | None = _setting(
        None, Group.LISTENERS, values.PATH, "Certificate chain (PEM): HTTP becomes HTTPS"
    )
    tls_key: str | None = _setting(
        None, Group.LISTENERS, values.PATH, "Private key (PEM) of --tls-cert"
    )
    tls_client_ca: str | None = _setting(
        None,
        Group.LISTENERS,
        values.PATH,
        "Authorities (PEM) that must have signed a client's certificate; without one no connection",
    )
    server_name: str = _setting(
        "triton",  # what Triton's tests and scripts assert
        Group.LISTENERS,
        values.TEXT,
        "Name in the server metadata",
        aliases=("id",),
    )

    grpc_use_ssl: bool = _setting(
        False,
        Group.LISTENERS,
        values.SWITCH,
        "TLS on the gRPC port with files of its own; without it the port has those of --tls-cert",
    )
    grpc_use_ssl_mutual: bool = _setting(
        False,
        Group.LISTENERS,
        values.SWITCH,
        "The same, and clients need a certificate from --grpc-root-cert",
    )
    grpc_server_cert: str | None = _setting(
        None, Group.LISTENERS, values.PATH, "Certificate chain (PEM) of --grpc-use-ssl"
    )
    grpc_server_key: str | None = _setting(
        None, Group.LISTENERS, values.PATH, "Private key (PEM) of --grpc-server-cert"
    )
    grpc_root_cert: str | None = _setting(
        None, Group.LISTENERS, values.PATH, "Authorities (PEM) of --grpc-use-ssl-mutual"
    )
    grpc_infer_response_compression_level: str = _setting(
        "none",
        Group.LISTENERS,
        values.choice("none", "low", "medium", "high"),
        "How much gRPC responses are compressed for clients that take them so",
    )
    grpc_keepalive_time: int = _setting(
        7_200_000,  # this and the next five: Triton's
        Group.LISTENERS,
        values.POSITIVE_COUNT,
        "Milliseconds of silence on an HTTP/2 connection after which the client is pinged",
    )
    grpc_keepalive_timeout: int = _setting(
        20_000,
        Group.LISTENERS,
        values.POSITIVE_COUNT,
        "Milliseconds in which it has to answer that",
    )
    grpc_keepalive_permit_without_calls: bool = _setting(
        False,
        Group.LISTENERS,
        values.SWITCH,
        "Ping, and let clients ping, while no call is under way",
    )
    grpc_http2_max_pings_without_data: int = _setting(
        2,
        Group.LISTENERS,
        values.COUNT,
        "Most pings without calls and data in between; 0: any number",
    )
    grpc_http2_min_recv_ping_interval_without_data: int = _setting(
        300_000,
        Group.LISTENERS,
        values.COUNT,
        "Milliseconds that clients have to wait between two pings",
    )
    grpc_http2_max_ping_strikes: int = _setting(
        2,
        Group.LISTENERS,
        values.COUNT,
        "How often they may not before the connection is ended; 0: any number",
    )
    grpc_max_connection_age: int | None = _setting(
        None,
        Group.LISTENERS,
        values.POSITIVE_COUNT,
        "Milliseconds after which an HTTP/2 connection is ended gracefully, give or take a tenth",
    )
    grpc_max_connection_age_grace: int | None = _setting(
        None,
        Group.LISTENERS,
        values.COUNT,
        "Milliseconds that its calls may go on then; without it as long as they take",
    )

    # Who may call

    api_key: tuple[str, ...] = _several(
        Group.ACCESS,
        values.SECRET,
        "Key that callers must send as 'Authorization: Bearer KEY'; better from @FILE or the"
        " environment than on a command line, which others on the machine can read",
        is_secret=True,
    )
    admin_key: tuple[str, ...] = _several(
        Group.ACCESS,
        values.SECRET,
        "Key for loading models and changing settings, once keys are in use",
        is_secret=True,
    )
    allow_insecure_bind: bool = _setting(
        False,
        Group.ACCESS,
        values.SWITCH,
        "Listen off loopback without a key: everyone who reaches the port may call",
    )
    allowed_host: tuple[str, ...] = _several(
        Group.ACCESS,
        values.Kind("NAME", values.TEXT.parse),
        "Host name that requests may be addressed to while no key is in use, beside localhost and"
        " addresses",
        splits_at_commas=True,
    )
    cors_origin: tuple[str, ...] = _several(
        Group.ACCESS,
        values.Kind("ORIGIN", values.TEXT.parse),
        "Web page that may call from a browser, such as https://app.example; * is every page",
        splits_at_commas=True,
    )
    http_restricted_api: tuple[Restriction, ...] = _several(
        Group.ACCESS,
        values.RESTRICTION,
        "Restrict categories of the V2 API over HTTP to callers that send this header",
        gather=values.gather_restrictions,
    )
    grpc_restricted_protocol: tuple[Restriction, ...] = _several(
        Group.ACCESS,
        values.RESTRICTION,
        "The same over gRPC, by metadata triton-grpc-protocol-HEADER",
        gather=values.gather_restrictions,
    )
    http_header_forward_pattern: re.Pattern[str] | None = _setting(
        None,
        Group.ACCESS,
        values.HEADER_PATTERN,
        "Hand headers in whose name this is found to the model, as parameters; (?-i) minds case",
    )
    grpc_header_forward_pattern: re.Pattern[str] | None = _setting(
        None,
        Group.ACCESS,
        values.HEADER_PATTERN,
        "The same for metadata of gRPC",
    )
    url_allow: tuple[str, ...] = _several(
        Group.ACCESS,
        values.Kind("HOST[:PORT]", values.TEXT.parse),
        "Host whose URLs may be fetched as inputs; none is by default",
        splits_at_commas=True,
    )
    task_webhook_allow: tuple[str, ...] = _several(
        Group.ACCESS,
        values.Kind("HOST[:PORT]", values.TEXT.parse),
        "Host that may be told when tasks are over; none is by default",
        splits_at_commas=True,
    )
    task_webhook_secret: tuple[str, ...] = _several(
        Group.ACCESS,
        values.SECRET,
        "Key that signs what webhooks are told; each of several signs every message",
        is_secret=True,
    )
    allow_client_shm: bool = _setting(
        False,
        Group.ACCESS,
        values.SWITCH,
        "Let clients pass tensors in shared memory: those who may register regions read and write "
        "every object of shared memory that the server may",
    )

    # How much a client may send or hold

    http_max_input_size: int = _setting(
        64 * 1024 * 1024,  # Triton's
        Group.LIMITS,
        values.SIZE,
        "Most bytes of a request body, after decompression too",
    )
    grpc_max_input_size: int = _setting(
        2**31 - 1,  # Triton's, and the most that its clients can send
        Group.LIMITS,
        values.SIZE,
        "Most bytes of a gRPC message, after decompression too",
    )
    max_upload_size: int = _setting(
        4 * 1024**3,
        Group.LIMITS,
        values.SIZE,
        "Most bytes of a request with files, which are kept on disk while it is answered",
    )
    max_spool_size: int = _setting(
        16 * 1024**3,
        Group.LIMITS,
        values.SIZE,
        "Most bytes of the files of all requests together; one key may have a quarter",
    )
    max_header_bytes: int = _setting(
        64 * 1024,  # as much as the widest of the usual servers and proxies let through
        Group.LIMITS,
        values.SIZE,
        "Most bytes of a request's first line and headers together",
    )
    max_json_size: int = _setting(
        16 * 1024 * 1024,
        Group.LIMITS,
        values.SIZE,
        "Most bytes of JSON that is read in one go: arguments of services, instances of V1, and"
        " V2 with NaN or with what is wrong. Plain values of V2 are read in pieces, without this"
        " limit",
    )
    max_json_depth: int = _setting(
        100, Group.LIMITS, values.DEPTH, "Deepest nesting of a JSON body, at most 500"
    )
    max_image_pixels: int = _setting(
        32 * 2**20,  # 130 MB while it is decoded; most cameras give less
        Group.LIMITS,
        values.PIXELS,
        "Most pixels of an encoded image, at most 89478485",
    )
    max_connections: int = _setting(
        4096,
        Group.LIMITS,
        values.POSITIVE_COUNT,
        "Most connections at once to the HTTP ports, to the gRPC port and to the metrics port "
        "each; TLS handshakes under way count, and the oldest gives way",
    )
    max_queue_size: int = _setting(
        4096,  # several seconds of a fast model; Triton has no bound, and then no memory
        Group.LIMITS,
        values.POSITIVE_COUNT,
        "Most requests waiting for a model whose configuration does not say",
    )
    header_timeout_secs: float = _setting(
        15.0,
        Group.LIMITS,
        values.SECONDS,
        "Longest time from a request's first byte to its body, and of a TLS handshake",
    )
    body_timeout_secs: float = _setting(
        60.0, Group.LIMITS, values.SECONDS, "Longest wait for the next bytes of a request body"
    )
    idle_timeout_secs: float = _setting(
        # tritonclient keeps connections in a pool and does not retry when one was closed, and
        # balancers close theirs after 60 s or more: the server should not be the first.
        300.0,
        Group.LIMITS,
        values.SECONDS,
        "Longest silence between two requests of a connection",
    )

    # What the operator sees

    access_log: bool = _setting(
        False, Group.OPERATION, values.SWITCH, "Log one line for every request"
    )
    log_verbose: int = _setting(
        0, Group.OPERATION, values.COUNT, "Detail of the log, 0 for none", default_text="0"
    )
    log_info: bool = _setting(True, Group.OPERATION, values.SWITCH, "Log what is worth knowing")
    log_warning: bool = _setting(True, Group.OPERATION, values.SWITCH, "Log warnings")
    log_error: bool = _setting(True, Group.OPERATION, values.SWITCH, "Log errors")
    log_format: str = _setting(
        "text",
        Group.OPERATION,
        values.choice("text", "json", "ISO8601", aliases={"default": "text"}),
        "One line of text (tritonserver's default), the same with ISO 8601 times, or JSON",
    )
    log_file: str | None = _setting(
        None, Group.OPERATION, values.PATH, "Append the log to this file", default_text="stderr"
    )
    reload: bool = _setting(
        False,
        Group.OPERATION,
        values.SWITCH,
        "Start anew whenever a Python file beside a target changes; for development",
    )
    quiet: bool = _setting(
        False, Group.OPERATION, values.SWITCH, "Print no greeting and no example calls at start"
    )
    metrics_config: MetricsConfig = _setting(
        MetricsConfig(),
        Group.OPERATION,
        values.METRICS_SETTING,
        "Which latency metrics exist: counter_latencies, summary_latencies, histogram_latencies,"
        " summary_quantiles",
        is_repeatable=True,
        gather=values.gather_metrics,
    )
    trace_config: tuple[str, ...] = _several(
        Group.OPERATION,
        values.TRACE_SETTING,
        "Trace setting at start: level, rate, count, triton,file or triton,log-frequency",
    )
    cache_config: CacheConfig | None = _setting(
        None,
        Group.OPERATION,
        values.CACHE_SETTING,
        "Keep answers of models with response_cache { enable: true }, in so much memory",
        is_repeatable=True,
        gather=values.gather_cache,
    )
    exit_timeout_secs: float = _setting(
        30.0,  # Triton's
        Group.OPERATION,
        values.SECONDS,
        "Time for requests in flight when the server is asked to stop",
    )


SETTINGS = tuple(
    Setting(name=field.name, default=field.default, **field.metadata)
    for field in dataclasses.fields(Settings)
)

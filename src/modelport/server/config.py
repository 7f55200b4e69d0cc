"""From what a person wrote in four places to one checked ``Settings``, and where each came from.

Defaults are overridden by the file, the file by the environment, the environment by flags; a list
is replaced as a whole. Everything here is pure: :func:`load` gets the one door to the disk as an
argument. All problems are reported at once, because a launch line taken over from another server
seldom has only one.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec import Struct
from msgspec.structs import replace as replace_in

from modelport.server.flags import SWITCH_WORDS, Flag, Takes, split
from modelport.server.setting_values import PATH, SECRET, SWITCH
from modelport.server.settings import SETTINGS, Setting, Settings
from modelport.server.trace_config import parse_trace_config
from modelport.server.tritonserver import HARMLESS_VALUE_BY_FLAG, REMEDY_BY_FLAG

__all__ = [
    "CONFIG_FLAG",
    "CONFIG_VARIABLE",
    "DEFAULT_FILE",
    "Origin",
    "Problem",
    "Resolved",
    "Settings",
    "SettingsError",
    "Source",
    "config_path",
    "load",
    "resolve",
]

DEFAULT_FILE = "modelport.toml"
CONFIG_FLAG = "--config"
CONFIG_VARIABLE = "MODELPORT_CONFIG"


class Problem(Struct, frozen=True):
    """One thing that is wrong: where it was written, what it is, what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


class SettingsError(Exception):
    """The server cannot start as it was told to.

    Not a ``ModelportError``: those are written for callers and hold no paths, this one is for the
    operator and says which file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Origin(enum.StrEnum):
    """The four places, in rising precedence."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


class Source(Struct, frozen=True):
    """Where a value came from.

    Attributes:
        origin: Which of the places.
        where: As a person would look for it: ``--http-port``, ``MODELPORT_HTTP_PORT``,
            ``modelport.toml: http_port``; for a default the name of the setting.
    """

    origin: Origin
    where: str


class Resolved(Struct, frozen=True):
    """Settings, with the source of each.

    Attributes:
        settings: Complete and checked.
        source_by_name: For every setting.
        unknown_variables: Names in the environment that look like ours and are no setting. Not an
            error: Kubernetes sets ``MODELPORT_PORT`` and others for a service of our name.
    """

    settings: Settings
    source_by_name: Mapping[str, Source]
    unknown_variables: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """What to serve."""
        return self.settings.targets


class _Written(Struct):
    """The texts of one setting in one place, before they are read."""

    source: Source
    texts: list[str]


def load(argv: Sequence[str], environ: Mapping[str, str], read: Callable[[str], str]) -> Resolved:
    """Resolve the settings together with the files they name.

    Args:
        argv: Of a verb, without its name.
        environ: The environment.
        read: Gives a file's text; raises ``OSError`` or ``UnicodeDecodeError``.

    Raises:
        SettingsError: Also for a file that cannot be read; only the default file may be absent.
    """
    named = config_path(argv, environ)
    path = named or DEFAULT_FILE
    text: str | None = None
    try:
        text = read(path)
    except FileNotFoundError as exc:
        if named is not None:
            raise SettingsError([_unreadable(CONFIG_FLAG, path, exc)]) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError([_unreadable(CONFIG_FLAG, path, exc)]) from exc
    return _read_keys(resolve(argv, environ, text, file_name=path), read)


def config_path(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Give the file named by ``--config`` or ``MODELPORT_CONFIG``, if any; flags win."""
    flags, _ = split(argv, _takes)
    named = [flag.value for flag in flags if flag.name == CONFIG_FLAG and flag.value]
    return named[-1] if named else environ.get(CONFIG_VARIABLE) or None


def resolve(
    argv: Sequence[str],
    environ: Mapping[str, str],
    file_text: str | None = None,
    *,
    file_name: str = DEFAULT_FILE,
) -> Resolved:
    """Put the four places together; key files stay unread (:func:`load` reads them).

    Args:
        argv: Options and targets, as after ``modelport serve``.
        environ: The environment; an empty value counts as absent.
        file_text: A TOML file's, or ``None`` without one.
        file_name: What to call it in errors and sources.

    Raises:
        SettingsError: With every problem found.
    """
    problems: list[Problem] = []
    written = _from_file(file_text, file_name, problems) if file_text is not None else {}
    written |= _from_environment(environ, problems)
    written |= _from_flags(argv, problems)

    chosen: dict[str, Any] = {}
    source_by_name: dict[str, Source] = {}
    for setting in SETTINGS:
        found = written.get(setting.name)
        if found is None:
            source_by_name[setting.name] = Source(Origin.DEFAULT, setting.name)
            continue
        source_by_name[setting.name] = found.source
        try:
            chosen[setting.name] = _value(setting, found, environ)
        except SettingsError as exc:
            problems.extend(exc.problems)

    settings = _settled(Settings(**chosen), environ, source_by_name)
    if not problems:
        problems.extend(_contradictions(settings, source_by_name))
    if problems:
        raise SettingsError(problems)
    unknown = [name for name in environ if name.startswith(_PREFIX) and name not in _VARIABLES]
    return Resolved(settings, source_by_name, tuple(sorted(unknown)))


# The three places


def _from_flags(argv: Sequence[str], problems: list[Problem]) -> dict[str, _Written]:
    flags, words = split(argv, _takes)
    written: dict[str, _Written] = {}
    if words:
        written["targets"] = _Written(Source(Origin.FLAG, "TARGET"), list(words))
    for flag in flags:
        if flag.name == CONFIG_FLAG:
            if not flag.value:
                problems.append(Problem(CONFIG_FLAG, "needs a value", "give it the path of a file"))
            continue
        setting = _SETTING_BY_FLAG.get(flag.name)
        if setting is None:
            problems.extend(_unknown_flag(flag))
            continue
        text = "true" if flag.value is None and setting.kind is SWITCH else flag.value
        if text is None:
            remedy = f"write {flag.name}={setting.kind.metavar}"
            problems.append(Problem(flag.name, "needs a value", remedy))
        elif setting.is_repeatable and setting.name in written:
            written[setting.name].texts.append(text)
        else:
            written[setting.name] = _Written(Source(Origin.FLAG, flag.name), [text])
    return written


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, _Written]:
    written: dict[str, _Written] = {}
    for setting in SETTINGS:
        present = [name for name in setting.variables if environ.get(name)]
        if len(present) > 1:
            remedy = "they are one setting; keep one of them"
            problems.append(Problem(present[1], f"is set, and {present[0]} too", remedy))
        elif present:
            text = environ[present[0]]
            source = Source(Origin.ENVIRONMENT, present[0])
            try:
                texts = _several_texts(text) if setting.is_repeatable else [text]
            except ValueError:
                what = "begins with [ and is no JSON array of strings"
                problems.append(Problem(present[0], what, 'write ["one", "two"]'))
            else:
                written[setting.name] = _Written(source, texts)
    return written


def _several_texts(text: str) -> list[str]:
    """Cut a variable with several values: words, or a JSON array of strings.

    Words, and not at commas: restrictions and quantiles have commas of their own.
    """
    if not text.lstrip().startswith("["):
        return text.split()
    import json

    items = json.loads(text)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("an item is no string")
    return list(items)


def _from_file(text: str, file_name: str, problems: list[Problem]) -> dict[str, _Written]:
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        problems.append(Problem(file_name, f"is no TOML: {exc}", "correct it there"))
        return {}
    written: dict[str, _Written] = {}
    for key, value in table.items():
        where = f"{file_name}: {key}"
        setting = _SETTING_BY_NAME.get(key.replace("-", "_"))
        if setting is None:
            problems.append(_unknown_key(where, key, value))
        elif setting.name in written:
            what = f"is one setting with {written[setting.name].source.where}"
            problems.append(Problem(where, what, "keep one of them"))
        else:
            try:
                texts = _toml_texts(value, setting)
            except ValueError as exc:
                problems.append(Problem(where, f"expected {exc}", "correct it there"))
            else:
                written[setting.name] = _Written(Source(Origin.FILE, where), texts)
    return written


def _toml_texts(value: object, setting: Setting) -> list[str]:
    """Turn a TOML value into the texts that a flag would have had, so that one reader does."""
    if isinstance(value, list):
        if not setting.is_repeatable:
            raise ValueError("one value, got an array")
        return [text for item in value for text in _toml_texts(item, setting)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, str | int | float):
        return [str(value)]
    raise ValueError(f"a string, number or boolean, got {type(value).__name__}")


# Reading


def _value(setting: Setting, written: _Written, environ: Mapping[str, str]) -> Any:
    texts = written.texts
    if setting.splits_at_commas:
        texts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    parsed = tuple(_parse(setting, text, written.source, environ) for text in texts)
    if not setting.is_repeatable:
        return parsed[-1]
    if setting.gather is None:
        return parsed
    try:
        return setting.gather(parsed)
    except ValueError as exc:
        problem = Problem(written.source.where, f"expected {exc}", "keep one of them")
        raise SettingsError([problem]) from exc


def _parse(setting: Setting, text: str, source: Source, environ: Mapping[str, str]) -> Any:
    if setting.is_secret and _key_file(text) is not None:
        return text
    if setting.kind is PATH and text.startswith("~/") and environ.get("HOME"):
        text = environ["HOME"] + text[1:]
    try:
        return setting.kind.parse(text)
    except ValueError as exc:
        got = "" if setting.is_secret or "=" in text else f', got "{text}"'
        remedy = _REMEDY_BY_ORIGIN[source.origin]
        raise SettingsError([Problem(source.where, f"expected {exc}{got}", remedy)]) from exc


def _settled(
    settings: Settings, environ: Mapping[str, str], source_by_name: Mapping[str, Source]
) -> Settings:
    """Fold what two settings say about one thing into the one that is acted on."""
    changes: dict[str, Any] = {}
    if not settings.allow_http:
        changes["http_port"] = None
    if not settings.allow_grpc:
        changes["grpc_port"] = None
    if not settings.allow_metrics:
        changes["metrics_port"] = None
    if source_by_name["data_dir"].origin is Origin.DEFAULT:
        if environ.get("XDG_DATA_HOME"):
            changes["data_dir"] = environ["XDG_DATA_HOME"].rstrip("/") + "/modelport"
        elif environ.get("HOME"):
            changes["data_dir"] = environ["HOME"] + settings.data_dir.removeprefix("~")
    return replace(settings, **changes) if changes else settings


# Keys in files


def _key_file(text: str) -> str | None:
    """Give the path where a key's text names a file, by its form alone.

    Asking the disk instead would turn the path of a file that is missing into a valid key.
    """
    if text.startswith("@"):
        return text[1:]
    return text if text.startswith(("/", "./", "../", "~/")) else None


def _read_keys(resolved: Resolved, read: Callable[[str], str]) -> Resolved:
    problems: list[Problem] = []
    changes: dict[str, Any] = {}
    for setting in SETTINGS:
        if not setting.is_secret:
            continue
        where = resolved.source_by_name[setting.name].where
        keys: list[str] = []
        for text in getattr(resolved.settings, setting.name):
            path = _key_file(text)
            if path is None:
                keys.append(text)
                continue
            try:
                keys.extend(_keys_of_file(read(path), path))
            except (OSError, UnicodeDecodeError) as exc:
                problems.append(_unreadable(where, path, exc))
            except ValueError as exc:
                problems.append(Problem(where, str(exc), "put one key on each line"))
        changes[setting.name] = tuple(keys)
    if problems:
        raise SettingsError(problems)
    return replace_in(resolved, settings=replace(resolved.settings, **changes))


def _keys_of_file(text: str, path: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f'"{path}" holds no key')
    for key in keys:
        try:
            SECRET.parse(key)
        except ValueError:
            raise ValueError(f'"{path}" holds a line that is no key of ASCII characters') from None
    return keys


# What is wrong


def _unreadable(where: str, path: str, exc: Exception) -> Problem:
    reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
    return Problem(where, f'cannot read "{path}": {reason}', "check the path and its permissions")


def _unknown_flag(flag: Flag) -> Iterator[Problem]:
    remedy = REMEDY_BY_FLAG.get(flag.name)
    if remedy is None:
        nearest = _nearest(flag.name, [*_SETTING_BY_FLAG, CONFIG_FLAG])
        remedy = f"did you mean {nearest}?" if nearest else "see modelport serve --help"
        yield Problem(flag.name, "is no option", remedy)
        return
    asks = SWITCH_WORDS.get((flag.value or "true").lower())
    if asks is None or HARMLESS_VALUE_BY_FLAG.get(flag.name) is not asks:
        yield Problem(flag.name, "is an option of tritonserver that Modelport lacks", remedy)


def _unknown_key(where: str, key: str, value: object) -> Problem:
    if isinstance(value, dict):
        return Problem(where, "is a table", "settings stand at the top of the file, without tables")
    nearest = _nearest(key.replace("-", "_"), list(_SETTING_BY_NAME))
    remedy = f"did you mean {nearest}?" if nearest else "see modelport config for all settings"
    return Problem(where, "is no setting", remedy)


def _nearest(name: str, names: list[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.7)), None)


def _contradictions(settings: Settings, source_by_name: Mapping[str, Source]) -> Iterator[Problem]:
    """Check each setting against the others; where is always one that a person wrote."""
    where_by_name = {name: source.where for name, source in source_by_name.items()}
    for check in _CHECKS:
        yield from check(settings, where_by_name)


def _check_door(settings: Settings, where: Mapping[str, str]) -> Iterator[Problem]:
    if settings.api_key or settings.allow_insecure_bind or _is_loopback(settings.host):
        return
    yield Problem(
        where["host"],
        f"{settings.host} can be reached by others, and no key is set",
        "add --api-key @FILE, or --allow-insecure-bind to let everyone in",
    )


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; in doubt no."""
    if host.lower() in ("localhost", "::1", "[::1]"):
        return True
    parts = host.split(".")
    is_ipv4 = len(parts) == 4 and all(part.isascii() and part.isdigit() for part in parts)
    return is_ipv4 and parts[0] == "127"


def _check_ports(settings: Settings, where: Mapping[str, str]) -> Iterator[Problem]:
    is_heard = settings.http_port is not None or settings.grpc_port is not None
    if not is_heard and not settings.extra_port:
        name = "http_port" if settings.allow_http else "allow_http"
        remedy = "give --http-port or --grpc-port a port, or 0 for any free one"
        yield Problem(where[name], "nothing is left to serve on", remedy)
    taken: dict[int, str] = {}
    ports = [("http_port", settings.http_port)]
    ports += [("extra_port", port) for port in settings.extra_port]
    ports += [("grpc_port", settings.grpc_port), ("metrics_port", settings.metrics_port)]
    for name, port in ports:
        if port and port in taken:
            remedy = "give each its own"
            if name == "metrics_port":
                remedy += ", or --metrics-port off: /metrics answers on the HTTP port too"
            if name == "grpc_port":
                remedy += ", or --grpc-port off: the HTTP port answers gRPC too"
            yield Problem(where[name], f"port {port} is also that of {where[taken[port]]}", remedy)
        elif port:
            taken[port] = name


def _check_tls(settings: Settings, where: Mapping[str, str]) -> Iterator[Problem]:
    if settings.task_webhook_allow and not settings.task_webhook_secret:
        what = "webhooks need a key, or their receivers could not tell who calls"
        yield Problem(where["task_webhook_allow"], what, "add --task-webhook-secret @FILE")
    if settings.tls_cert and not settings.tls_key:
        yield Problem(where["tls_cert"], "a certificate needs its key", "add --tls-key FILE")
    if settings.tls_key and not settings.tls_cert:
        yield Problem(where["tls_key"], "a key needs its certificate", "add --tls-cert FILE")
    if settings.tls_client_ca and not settings.tls_cert:
        what = "client certificates are checked over TLS only"
        yield Problem(where["tls_client_ca"], what, "add --tls-cert FILE and --tls-key FILE")
    is_asked = settings.grpc_use_ssl or settings.grpc_use_ssl_mutual
    for name in ("grpc_server_cert", "grpc_server_key"):
        if is_asked and getattr(settings, name) is None:
            asks = "grpc_use_ssl" if settings.grpc_use_ssl else "grpc_use_ssl_mutual"
            what = "TLS needs a certificate and its key"
            yield Problem(where[asks], what, f"add --{name.replace('_', '-')} FILE")
        if not is_asked and getattr(settings, name) is not None:
            yield Problem(where[name], "is for TLS, which gRPC does not have", "add --grpc-use-ssl")
    if settings.grpc_use_ssl_mutual and settings.grpc_root_cert is None:
        what = "client certificates need authorities"
        yield Problem(where["grpc_use_ssl_mutual"], what, "add --grpc-root-cert FILE")


def _check_models(settings: Settings, where: Mapping[str, str]) -> Iterator[Problem]:
    if settings.load_model and settings.model_control_mode != "explicit":
        what = f"has no meaning in mode {settings.model_control_mode}, where every model is loaded"
        yield Problem(where["load_model"], what, "add --model-control-mode explicit")
    if "*" in settings.load_model and len(settings.load_model) > 1:
        what = "* is every model, and others are named too"
        yield Problem(where["load_model"], what, "keep * alone, or the names")


def _check_traces(settings: Settings, where: Mapping[str, str]) -> Iterator[Problem]:
    try:
        parse_trace_config(settings.trace_config)
    except ValueError as exc:
        what, _, remedy = str(exc).partition("; ")
        yield Problem(
            where["trace_config"], what.rstrip("."), remedy or "see modelport serve --help"
        )


_CHECKS = (_check_traces, _check_door, _check_ports, _check_tls, _check_models)

_REMEDY_BY_ORIGIN = {
    Origin.FLAG: "see modelport serve --help",
    Origin.ENVIRONMENT: "correct or unset the variable",
    Origin.FILE: "correct it there",
}


def _takes(flag: str) -> Takes | None:
    if flag == CONFIG_FLAG:
        return Takes.VALUE
    setting = _SETTING_BY_FLAG.get(flag)
    if setting is not None:
        return Takes.SWITCH if setting.kind is SWITCH else Takes.VALUE
    if flag in HARMLESS_VALUE_BY_FLAG:
        return Takes.SWITCH
    return Takes.VALUE if flag in REMEDY_BY_FLAG else None


_PREFIX = "MODELPORT_"
_SETTING_BY_NAME = {name: setting for setting in SETTINGS for name in setting.names}
_SETTING_BY_FLAG = {flag: setting for setting in SETTINGS for flag in setting.flags}
_VARIABLES = {name for setting in SETTINGS for name in setting.variables} | {CONFIG_VARIABLE}

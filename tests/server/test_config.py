import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from modelport.server.config import (
    Origin,
    Resolved,
    SettingsError,
    Source,
    config_path,
    load,
    resolve,
)
from modelport.server.setting_display import json_value, shown
from modelport.server.setting_values import CacheConfig, MetricsConfig, Restriction
from modelport.server.settings import SETTINGS, Settings
from modelport.server.tritonserver import HARMLESS_VALUE_BY_FLAG, REMEDY_BY_FLAG


def resolve_line(line: str) -> Settings:
    return resolve(line.split(), {}).settings


def problems(
    line: str = "", environ: Mapping[str, str] | None = None, file_text: str | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        resolve(line.split(), environ or {}, file_text)
    return str(caught.value)


def test_defaults_are_loopback_and_three_known_ports() -> None:
    settings = resolve([], {}).settings
    assert (settings.host, settings.http_port, settings.metrics_port) == ("127.0.0.1", 8000, 8002)
    assert settings.grpc_port == 8001


def test_default_settings_are_those_of_the_dataclass() -> None:
    assert resolve([], {}).settings == Settings()


# Precedence


@pytest.mark.parametrize(
    ("line", "environ", "file_text", "port", "source"),
    [
        ("", {}, None, 8000, Source(Origin.DEFAULT, "http_port")),
        ("", {}, "http_port = 1", 1, Source(Origin.FILE, "modelport.toml: http_port")),
        (
            "",
            {"MODELPORT_HTTP_PORT": "2"},
            "http_port = 1",
            2,
            Source(Origin.ENVIRONMENT, "MODELPORT_HTTP_PORT"),
        ),
        (
            "--http-port=3",
            {"MODELPORT_HTTP_PORT": "2"},
            "http_port = 1",
            3,
            Source(Origin.FLAG, "--http-port"),
        ),
    ],
)
def test_flags_win_over_environment_over_file_over_defaults(
    line: str, environ: dict[str, str], file_text: str | None, port: int, source: Source
) -> None:
    resolved = resolve(line.split(), environ, file_text)
    assert resolved.settings.http_port == port
    assert resolved.source_by_name["http_port"] == source


def test_a_list_is_replaced_as_a_whole() -> None:
    resolved = resolve(["one"], {}, 'targets = ["two", "three"]')
    assert resolved.targets == ("one",)


def test_the_last_flag_of_one_setting_wins_also_under_its_other_name() -> None:
    settings = resolve_line("--host localhost --http-address 127.0.0.2")
    assert settings.host == "127.0.0.2"


def test_an_empty_variable_counts_as_absent() -> None:
    resolved = resolve([], {"MODELPORT_HTTP_PORT": ""}, "http_port = 1")
    assert resolved.settings.http_port == 1


def test_unknown_variables_are_told_and_no_error() -> None:
    """Kubernetes sets MODELPORT_PORT for a service of our name."""
    resolved = resolve([], {"MODELPORT_PORT": "tcp://10.0.0.1:80", "PATH": "/bin"})
    assert resolved.unknown_variables == ("MODELPORT_PORT",)


# Spellings


def test_values_follow_their_option_or_its_equals_sign() -> None:
    assert resolve_line("--http-port 9000").http_port == 9000
    assert resolve_line("--http-port=9000").http_port == 9000


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--strict-readiness", True),
        ("--strict-readiness=true", True),
        ("--strict-readiness on", True),
        ("--strict-readiness 1", True),
        ("--strict-readiness False", False),
        ("--strict-readiness=off", False),
        ("--strict-readiness=0", False),
    ],
)
def test_switches_take_tritonservers_words(words: str, expected: bool) -> None:
    assert resolve_line(words).strict_readiness is expected


def test_a_bare_switch_leaves_the_next_target_alone() -> None:
    resolved = resolve(["--quiet", "models", "more"], {})
    assert resolved.settings.quiet
    assert resolved.targets == ("models", "more")


def test_everything_after_two_dashes_is_a_target() -> None:
    assert resolve(["--", "--http-port"], {}).targets == ("--http-port",)


def test_targets_and_model_repository_are_one_setting() -> None:
    settings = resolve_line("a --model-repository=b --model-repository c --model-store d")
    assert settings.targets == ("a", "b", "c", "d")


ALIASES: list[tuple[str, str, object]] = [
    ("--model-repository=m", "targets", ("m",)),
    ("--http-address=localhost", "host", "localhost"),
    ("--http-port=8500", "http_port", 8500),
    ("--grpc-port=off", "grpc_port", None),
    ("--metrics-port=0", "metrics_port", 0),
    ("--exit-timeout-secs=5", "exit_timeout_secs", 5.0),
    ("--strict-readiness=false", "strict_readiness", False),
    ("--model-control-mode=none", "model_control_mode", "none"),
    ("--exit-on-error=false", "exit_on_error", False),
    ("--http-max-input-size=1048576", "http_max_input_size", 1048576),
    (
        "--http-restricted-api=health,metadata:k=v=w",
        "http_restricted_api",
        (Restriction(("health", "metadata"), "k", "v=w"),),
    ),
    (
        "--grpc-restricted-protocol=inference:k=v",
        "grpc_restricted_protocol",
        (Restriction(("inference",), "k", "v"),),
    ),
    ("--allow-client-shm=true", "allow_client_shm", True),
    ("--log-verbose=1", "log_verbose", 1),
    ("--log-info=false", "log_info", False),
    ("--log-warning=false", "log_warning", False),
    ("--log-error=false", "log_error", False),
    ("--log-format=default", "log_format", "text"),
    ("--log-format=ISO8601", "log_format", "ISO8601"),
    ("--log-file=server.log", "log_file", "server.log"),
    ("--disable-auto-complete-config", "disable_auto_complete_config", True),
    ("--model-config-name=alt", "model_config_name", "alt"),
    ("--repository-poll-secs=3", "repository_poll_secs", 3),
    ("--allow-metrics=false", "metrics_port", None),
    ("--allow-grpc=false", "grpc_port", None),
    ("--allow-grpc", "grpc_port", 8001),
    ("--grpc-keepalive-time=5000", "grpc_keepalive_time", 5000),
    ("--grpc-max-connection-age=60000", "grpc_max_connection_age", 60000),
    ("--grpc-infer-response-compression-level=low", "grpc_infer_response_compression_level", "low"),
    ("--allow-http=true", "http_port", 8000),
    ("--id=mine", "server_name", "mine"),
    ("--metrics-config=counter_latencies=false", "metrics_config", MetricsConfig(False)),
]


@pytest.mark.parametrize(("line", "name", "expected"), ALIASES)
def test_tritonservers_spelling_is_understood(line: str, name: str, expected: object) -> None:
    assert getattr(resolve_line(line), name) == expected


def test_load_model_repeats_in_explicit_mode() -> None:
    settings = resolve_line("--model-control-mode explicit --load-model a --load-model=b")
    assert settings.load_model == ("a", "b")


def test_cache_has_a_size_and_the_last_one_counts() -> None:
    assert resolve_line("").cache_config is None
    settings = resolve_line("--cache-config local,size=1MiB --cache-config=local,size=2048")
    assert settings.cache_config == CacheConfig(2048)
    assert str(settings.cache_config) == "local,size=2048"


def test_metrics_config_gathers_its_settings() -> None:
    settings = resolve_line(
        "--metrics-config summary_latencies=true"
        " --metrics-config summary_quantiles=0.5:0.05,0.9:0.01"
    )
    assert settings.metrics_config == MetricsConfig(
        summary_latencies=True, summary_quantiles=((0.5, 0.05), (0.9, 0.01))
    )


@pytest.mark.parametrize(
    ("text", "header", "matches"),
    [
        ("x-trace", "X-Trace-Id", True),
        ("(?-i)x-trace", "X-Trace-Id", False),
        ("(?-i)x-trace", "x-trace-id", True),
        ("^x-", "my-x-header", False),
    ],
)
def test_header_patterns_ignore_case_unless_told(text: str, header: str, matches: bool) -> None:
    pattern = resolve([f"--http-header-forward-pattern={text}"], {}).settings
    assert pattern.http_header_forward_pattern is not None
    assert bool(pattern.http_header_forward_pattern.search(header)) is matches


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("64MiB", 64 << 20), ("2g", 2 << 30), ("3 KB", 3 << 10)]
)
def test_sizes_may_have_a_unit(text: str, size: int) -> None:
    assert resolve(["--http-max-input-size", text], {}).settings.http_max_input_size == size


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("extra_port", "3000,5000 7860", (3000, 5000, 7860)),
        ("url_allow", "a.example,b.example:80", ("a.example", "b.example:80")),
        ("targets", "one two", ("one", "two")),
        ("targets", '["with space", "two"]', ("with space", "two")),
        ("api_key", "one,still-one two", ("one,still-one", "two")),
        ("http_restricted_api", "health,trace:k=v", (Restriction(("health", "trace"), "k", "v"),)),
    ],
)
def test_a_variable_holds_words_or_a_json_array(name: str, text: str, expected: object) -> None:
    resolved = resolve([], {f"MODELPORT_{name.upper()}": text})
    assert getattr(resolved.settings, name) == expected


def test_every_setting_has_a_variable_and_a_key_of_its_name_and_its_aliases() -> None:
    for setting in SETTINGS:
        assert setting.flags[0] == "--" + setting.name.replace("_", "-")
        assert setting.variables[0] == "MODELPORT_" + setting.name.upper()
    assert resolve([], {"MODELPORT_HTTP_ADDRESS": "localhost"}).settings.host == "localhost"
    assert resolve([], {}, 'http-address = "localhost"').settings.host == "localhost"


def test_toml_values_keep_their_types() -> None:
    text = """
        targets = ["models"]
        http_port = 0
        metrics_port = "off"
        strict_readiness = false
        idle_timeout_secs = 2.5
        extra_port = [3000, 5000]
        server_name = "mine"
    """
    settings = resolve([], {}, text).settings
    assert settings == Settings(
        targets=("models",),
        http_port=0,
        metrics_port=None,
        strict_readiness=False,
        idle_timeout_secs=2.5,
        extra_port=(3000, 5000),
        server_name="mine",
    )


# What is folded


def test_data_lives_where_xdg_says() -> None:
    assert resolve([], {"XDG_DATA_HOME": "/x/"}).settings.data_dir == "/x/modelport"
    home = resolve([], {"HOME": "/home/me"}).settings.data_dir
    assert home == "/home/me/.local/share/modelport"
    told = resolve([], {"XDG_DATA_HOME": "/x"}, 'data_dir = "/y"').settings.data_dir
    assert told == "/y"


def test_a_tilde_in_a_file_is_the_home_folder() -> None:
    settings = resolve([], {"HOME": "/home/me"}, 'log_file = "~/a.log"').settings
    assert settings.log_file == "/home/me/a.log"


# The door


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1"])
def test_loopback_needs_no_key(host: str) -> None:
    assert resolve(["--host", host], {}).settings.host == host


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.evil.example", "localhost.example", "1270.0.0.1"],
)
def test_any_other_address_needs_a_key_or_the_override(host: str) -> None:
    text = problems(f"--host {host}")
    assert text == (
        f"--host: {host} can be reached by others, and no key is set;"
        " add --api-key @FILE, or --allow-insecure-bind to let everyone in"
    )
    assert resolve_line(f"--host {host} --api-key k").api_key == ("k",)
    assert resolve_line(f"--host {host} --allow-insecure-bind").host == host


def test_an_admin_key_alone_does_not_close_the_door() -> None:
    assert "no key is set" in problems("--host 0.0.0.0 --admin-key k")


# Errors: where, what, what to do


ERRORS: list[tuple[str, dict[str, str], str | None, str]] = [
    ("--http-prt 1", {}, None, "--http-prt: is no option; did you mean --http-port?"),
    ("--zzz", {}, None, "--zzz: is no option; see modelport serve --help"),
    ("-p", {}, None, "-p: is no option; see modelport serve --help"),
    ("--http-port", {}, None, "--http-port: needs a value; write --http-port=PORT|off"),
    ("--http-port --quiet", {}, None, "--http-port: needs a value; write --http-port=PORT|off"),
    ("--config", {}, None, "--config: needs a value; give it the path of a file"),
    (
        "--http-port 65536",
        {},
        None,
        '--http-port: expected a port from 1 to 65535, 0 for any free one, or "off" for none,'
        ' got "65536"; see modelport serve --help',
    ),
    (
        "",
        {"MODELPORT_EXTRA_PORT": "3000,x"},
        None,
        "MODELPORT_EXTRA_PORT: expected a port from 1 to 65535, or 0 for any free one,"
        ' got "x"; correct or unset the variable',
    ),
    (
        "",
        {},
        "strict_readiness = 3",
        "modelport.toml: strict_readiness: expected true, on or 1, or false, off or 0,"
        ' got "3"; correct it there',
    ),
    (
        "--execution gpu",
        {},
        None,
        '--execution: expected one of auto, inline, thread, process, got "gpu";'
        " see modelport serve --help",
    ),
    (
        "--max-queue-size 0",
        {},
        None,
        '--max-queue-size: expected a whole number, 1 or more, got "0"; see modelport serve --help',
    ),
    (
        "--log-verbose -1",
        {},
        None,
        '--log-verbose: expected a whole number, 0 or more, got "-1"; see modelport serve --help',
    ),
    (
        "--max-header-bytes many",
        {},
        None,
        "--max-header-bytes: expected a number of bytes, 1 or more, such as 67108864 or 64MiB,"
        ' got "many"; see modelport serve --help',
    ),
    (
        "--idle-timeout-secs inf",
        {},
        None,
        "--idle-timeout-secs: expected a number of seconds, such as 30 or 0.5,"
        ' got "inf"; see modelport serve --help',
    ),
    (
        "--http-restricted-api health",
        {},
        None,
        "--http-restricted-api: expected CATEGORY[,CATEGORY...]:HEADER=VALUE, such as"
        ' model-repository:x-admin=secret, got "health"; see modelport serve --help',
    ),
    (
        "--http-restricted-api helth:key=hidden",
        {},
        None,
        "--http-restricted-api: expected categories of health, metadata, inference, shared-memory,"
        ' model-config, model-repository, statistics, trace, logging, not "helth";'
        " see modelport serve --help",
    ),
    (
        "--http-restricted-api health:a=b --http-restricted-api trace,health:c=d",
        {},
        None,
        '--http-restricted-api: expected each category once, but "health" is restricted twice;'
        " keep one of them",
    ),
    (
        "--http-header-forward-pattern (",
        {},
        None,
        "--http-header-forward-pattern: expected a regular expression"
        ' (missing ), unterminated subpattern at position 0), got "(";'
        " see modelport serve --help",
    ),
    (
        "--metrics-config histograms=true",
        {},
        None,
        "--metrics-config: expected counter_latencies=BOOL, summary_latencies=BOOL,"
        " histogram_latencies=BOOL or summary_quantiles=QUANTILE:ERROR[,...];"
        " see modelport serve --help",
    ),
    (
        "--metrics-config summary_quantiles=2:1",
        {},
        None,
        "--metrics-config: expected summary_quantiles=QUANTILE:ERROR[,...], such as"
        " 0.5:0.05,0.99:0.001; see modelport serve --help",
    ),
    (
        "--metrics-config summary_latencies=maybe",
        {},
        None,
        "--metrics-config: expected summary_latencies=true, on or 1, or false, off or 0;"
        " see modelport serve --help",
    ),
    (
        "--trace-config level",
        {},
        None,
        "--trace-config: expected [MODE,]SETTING=VALUE, such as level=TIMESTAMPS or"
        ' triton,file=trace.json, got "level"; see modelport serve --help',
    ),
    (
        "",
        {"MODELPORT_TARGETS": "[1]"},
        None,
        'MODELPORT_TARGETS: begins with [ and is no JSON array of strings; write ["one", "two"]',
    ),
    (
        "",
        {"MODELPORT_HOST": "a", "MODELPORT_HTTP_ADDRESS": "b"},
        None,
        "MODELPORT_HTTP_ADDRESS: is set, and MODELPORT_HOST too;"
        " they are one setting; keep one of them",
    ),
    (
        "",
        {},
        'host = "a"\nhttp_address = "b"',
        "modelport.toml: http_address: is one setting with modelport.toml: host; keep one of them",
    ),
    ("", {}, "htp_port = 1", "modelport.toml: htp_port: is no setting; did you mean http_port?"),
    (
        "",
        {},
        "zzz = 1",
        "modelport.toml: zzz: is no setting; see modelport config for all settings",
    ),
    (
        "",
        {},
        "[server]\nhttp_port = 1",
        "modelport.toml: server: is a table;"
        " settings stand at the top of the file, without tables",
    ),
    (
        "",
        {},
        "host = ['a']",
        "modelport.toml: host: expected one value, got an array; correct it there",
    ),
    (
        "",
        {},
        "host = {a = 1}",
        "modelport.toml: host: expected a string, number or boolean, got dict; correct it there",
    ),
    ("--load-model a", {}, None, "--load-model: has no meaning in mode none, where every model is"
        " loaded; add --model-control-mode explicit"),
    (
        "--model-control-mode explicit --load-model * --load-model a",
        {},
        None,
        "--load-model: * is every model, and others are named too; keep * alone, or the names",
    ),
    (
        "--task-webhook-allow hooks.example",
        {},
        None,
        "--task-webhook-allow: webhooks need a key, or their receivers could not tell who calls;"
        " add --task-webhook-secret @FILE",
    ),
    ("--tls-cert c", {}, None, "--tls-cert: a certificate needs its key; add --tls-key FILE"),
    ("--tls-key k", {}, None, "--tls-key: a key needs its certificate; add --tls-cert FILE"),
    (
        "--tls-client-ca c",
        {},
        None,
        "--tls-client-ca: client certificates are checked over TLS only;"
        " add --tls-cert FILE and --tls-key FILE",
    ),
    (
        "--http-port off --grpc-port off",
        {},
        None,
        "--http-port: nothing is left to serve on;"
        " give --http-port or --grpc-port a port, or 0 for any free one",
    ),
    (
        "--allow-http=false --allow-grpc=false",
        {},
        None,
        "--allow-http: nothing is left to serve on;"
        " give --http-port or --grpc-port a port, or 0 for any free one",
    ),
    (
        "--metrics-port 8000",
        {},
        None,
        "--metrics-port: port 8000 is also that of http_port; give each its own,"
        " or --metrics-port off: /metrics answers on the HTTP port too",
    ),
    (
        "--extra-port 8000",
        {},
        None,
        "--extra-port: port 8000 is also that of http_port; give each its own",
    ),
    ("--grpc-port 8000", {}, None, "--grpc-port: port 8000 is also that of http_port; give each"
        " its own, or --grpc-port off: the HTTP port answers gRPC too"),
    ("--grpc-use-ssl --grpc-server-cert c", {}, None, "--grpc-use-ssl: TLS needs a certificate and"
        " its key; add --grpc-server-key FILE"),
    ("--grpc-server-key k", {}, None, "--grpc-server-key: is for TLS, which gRPC does not have;"
        " add --grpc-use-ssl"),
    ("--grpc-use-ssl-mutual --grpc-server-cert c --grpc-server-key k", {}, None,
        "--grpc-use-ssl-mutual: client certificates need authorities; add --grpc-root-cert FILE"),
    ("--trace-config level=TIMESTAMPS", {}, None, "--trace-config: has a level and no file;"
        " add triton,file=trace.json"),
    ("--trace-config level=ALL", {}, None, "--trace-config: unknown trace level 'ALL'. There are"
        " OFF, TIMESTAMPS, TENSORS; see modelport serve --help"),
    ("--trace-config rate=often", {}, None, "--trace-config: Unable to parse 'trace_rate', got:"
        " often. An integer from 1 on is needed; see modelport serve --help"),
    ("--trace-config mode=opentelemetry", {}, None, "--trace-config: has the mode opentelemetry,"
        " which is not offered; say triton"),
    ("--trace-config opentelemetry,url=x", {}, None, "--trace-config: has the mode opentelemetry,"
        " which is not offered; say triton"),
    ("--trace-config size=1", {}, None, "--trace-config: has no setting size; there are level,"
        " rate, count, mode, triton,file and triton,log-frequency"),
    ("--cache-config redis,host=h", {}, None, "--cache-config: expected local,size=BYTES, such as"
        " local,size=256MiB; the cache in this process is the only one; see modelport serve"
        " --help"),
    ("--cache-config local,size=0", {}, None, "--cache-config: expected local,size= and a number of"
        " bytes, 1 or more, such as 67108864 or 64MiB; see modelport serve --help"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "environ", "file_text", "expected"), ERRORS)
def test_an_error_says_where_what_and_what_to_do(
    line: str, environ: dict[str, str], file_text: str | None, expected: str
) -> None:
    assert problems(line, environ, file_text) == expected


def test_all_problems_are_told_at_once() -> None:
    text = problems("--http-prt --log-verbose x", {"MODELPORT_QUIET": "maybe"}, "zzz = 1")
    wheres = [line.split(": ")[0] for line in text.splitlines()]
    assert sorted(wheres) == ["--http-prt", "--log-verbose", "MODELPORT_QUIET", "modelport.toml"]


def test_a_file_that_is_no_toml_is_one_problem() -> None:
    assert re.fullmatch(
        r"modelport\.toml: is no TOML: .*line 1.*; correct it there", problems(file_text="host 1")
    )


@pytest.mark.parametrize("flag", REMEDY_BY_FLAG)
def test_an_option_that_only_tritonserver_has_says_what_to_do(flag: str) -> None:
    assert problems(f"{flag}=7") == (
        f"{flag}: is an option of tritonserver that Modelport lacks; {REMEDY_BY_FLAG[flag]}"
    )


@pytest.mark.parametrize("flag", HARMLESS_VALUE_BY_FLAG)
def test_an_option_of_tritonserver_that_asks_for_nothing_is_let_through(flag: str) -> None:
    assert resolve([f"{flag}=false", "m"], {}).targets == ("m",)
    assert resolve([flag, "off", "m"], {}).targets == ("m",)
    assert f"{flag}: is an option" in problems(flag)


def test_no_option_of_tritonserver_is_both_known_and_lacking() -> None:
    ours = {flag for setting in SETTINGS for flag in setting.flags}
    assert not ours & set(REMEDY_BY_FLAG)
    assert set(HARMLESS_VALUE_BY_FLAG) <= set(REMEDY_BY_FLAG)


# Secrets


def test_secrets_are_in_no_text() -> None:
    resolved = resolve(
        ["--api-key", "hush1", "--http-restricted-api", "health:k=hush2"],
        {"MODELPORT_ADMIN_KEY": "hush3"},
    )
    told = [repr(resolved)]
    for setting in SETTINGS:
        value = getattr(resolved.settings, setting.name)
        told += [shown(setting, value), repr(json_value(setting, value))]
    assert "hush" not in "".join(told)
    assert "***" in "".join(told)


@pytest.mark.parametrize("key", ["hush hush", "hüsh", "hush\n"])
def test_a_wrong_key_is_not_repeated_in_its_error(key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(["--api-key", key], {})
    assert str(caught.value) == (
        "--api-key: expected a key of printable ASCII characters without spaces,"
        " or @FILE with keys; see modelport serve --help"
    )


# Files


def reader(text_by_path: Mapping[str, str]) -> Callable[[str], str]:
    def read(path: str) -> str:
        if path not in text_by_path:
            raise FileNotFoundError(2, "No such file or directory")
        return text_by_path[path]

    return read


def load_line(line: str, text_by_path: Mapping[str, str], **environ: str) -> Resolved:
    return load(line.split(), environ, reader(text_by_path))


def load_problems(line: str, text_by_path: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_line(line, text_by_path)
    return str(caught.value)


def test_the_default_file_is_read_where_it_is_there() -> None:
    assert load_line("", {}).settings.http_port == 8000
    assert load_line("", {"modelport.toml": "http_port = 1"}).settings.http_port == 1


def test_a_named_file_takes_the_place_of_the_default_one() -> None:
    files = {"modelport.toml": "http_port = 1", "a.toml": "http_port = 2", "b.toml": "quiet = true"}
    assert load_line("--config a.toml", files).settings.http_port == 2
    assert load_line("", files, MODELPORT_CONFIG="a.toml").settings.http_port == 2
    assert load_line("--config=b.toml", files, MODELPORT_CONFIG="a.toml").settings.http_port == 8000
    source = load_line("--config a.toml", files).source_by_name["http_port"]
    assert source == Source(Origin.FILE, "a.toml: http_port")


def test_the_name_of_a_switch_does_not_swallow_the_config_flag() -> None:
    assert config_path(["--quiet", "--config", "a.toml"], {}) == "a.toml"
    assert config_path(["--host", "--config=a.toml"], {}) == "a.toml"


def test_a_named_file_must_be_there() -> None:
    assert load_problems("--config a.toml", {}) == (
        '--config: cannot read "a.toml": No such file or directory;'
        " check the path and its permissions"
    )


def test_keys_come_from_files_one_on_each_line() -> None:
    files = {"k": "# for the shop\none\n\n two \n", "/run/k": "three", "~/k": "four"}
    resolved = load_line("--api-key @k --api-key /run/k --api-key zero --admin-key ~/k", files)
    assert resolved.settings.api_key == ("one", "two", "three", "zero")
    assert resolved.settings.admin_key == ("four",)


def test_the_path_of_a_missing_file_is_never_taken_for_a_key() -> None:
    assert load_problems("--api-key /run/secrets/key", {}) == (
        '--api-key: cannot read "/run/secrets/key": No such file or directory;'
        " check the path and its permissions"
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("# nothing\n", '"k" holds no key'),
        ("one two", '"k" holds a line that is no key of ASCII characters'),
    ],
)
def test_a_key_file_that_holds_no_keys_is_an_error(text: str, what: str) -> None:
    assert load_problems("--api-key @k", {"k": text}) == (
        f"--api-key: {what}; put one key on each line"
    )


def test_a_file_that_is_no_text_is_an_error() -> None:
    def read(path: str) -> str:
        return b"\xff".decode("utf-8")

    with pytest.raises(SettingsError, match="it is not UTF-8 text"):
        load([], {}, read)


# The table itself


def test_every_default_can_be_written_and_read_back() -> None:
    """What ``modelport config`` shows can be given back as a flag."""
    for setting in SETTINGS:
        text = shown(setting, setting.default)
        if text in ("-", "~/.local/share/modelport") or setting.name == "metrics_config":
            continue
        settings = resolve([f"{setting.flags[0]}={text}"], {}).settings
        assert getattr(settings, setting.name) == setting.default


def test_names_are_unique_and_helps_are_sentences_without_a_stop() -> None:
    names = [name for setting in SETTINGS for name in setting.names]
    assert len(names) == len(set(names))
    for setting in SETTINGS:
        assert setting.help
        assert not setting.help.endswith(".")


def test_settings_are_frozen() -> None:
    settings: Any = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.host = "elsewhere"

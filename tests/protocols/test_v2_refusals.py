"""Every text that Triton's clients match on, by a bad request over REST and over gRPC.

The servers are processes and the requests come over sockets: what is checked here is what a client
written for Triton sees. The rows are in ``refusals.py``; what needs more than one request is here.
"Server not ready" and "Server exiting" are held where a server starts and ends:
``test_v2_starting.py``, ``test_v2_grpc_drain.py``, ``v2_rest/test_admin.py``,
``v2_grpc/test_admin.py``.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.asking import WITHIN_S, Asked, In, Rest, call, rest, stream
from tests.protocols.refusals import KEY, ROWS, Row
from tests.protocols.refused_models import write_models
from tests.served import Served, serving

pytestmark = pytest.mark.slow

OPTIONS = {
    "open": ("--model-control-mode=explicit", "--load-model=*"),
    "strict": (
        "--strict-triton",
        "--http-restricted-api=metadata:key=value",
        "--grpc-restricted-protocol=metadata:key=value",
        "--http-header-forward-pattern=^(x-|priority$)",
        "--grpc-header-forward-pattern=^(x-|priority$)",
    ),
    "shared": ("--allow-client-shm", "--ovms"),
}
GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"


class Bench:
    """The servers, each started by the first who asks it."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._stack = ExitStack()
        self._served: dict[str, Served] = {}
        self._channels: dict[str, grpc.Channel] = {}

    def server(self, where: str) -> Served:
        if where not in self._served:
            repository = str(self._repository)
            entered = serving(repository, *OPTIONS[where], "--exit-on-error=false")
            served = self._served[where] = self._stack.enter_context(entered)
            channel = grpc.insecure_channel(served.address)
            self._channels[where] = self._stack.enter_context(channel)
            if where == "shared":
                self._share()
        return self._served[where]

    def channel(self, where: str) -> grpc.Channel:
        self.server(where)
        return self._channels[where]

    def _share(self) -> None:
        """Register 64 bytes of shared memory as ``r``."""
        file = Path("/dev/shm") / KEY.removeprefix("/")
        file.write_bytes(bytes(64))
        self._stack.callback(file.unlink)
        asked = pb.SystemSharedMemoryRegisterRequest(name="r", key=KEY, byte_size=64)
        register = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"
        self._channels["shared"].unary_unary(register)(asked.SerializeToString(), timeout=WITHIN_S)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refusals")
    write_models(root)
    return root


@pytest.fixture(scope="module")
def bench(repository: Path) -> Iterator[Bench]:
    made = Bench(repository)
    yield made
    made.close()


CASES = [pytest.param(row, id=f"{table}: {row.case}") for table, rows in ROWS for row in rows]


@pytest.mark.parametrize("row", CASES)
def test_a_bad_request_is_told_the_same_over_rest_and_grpc(bench: Bench, row: Row) -> None:
    if isinstance(row.rest, Rest):
        status, said = rest(bench.server(row.where), row.rest)
        assert (status, said[: len(row.texts[0])]) == (row.status[0], row.texts[0])
        assert_tells_nothing(said)
    if not isinstance(row.rpc, str):
        name, said = call(bench.channel(row.where), row.rpc)
        assert (name, said[: len(row.texts[1])]) == (row.status[1], row.texts[1])
        assert_tells_nothing(said)


def assert_tells_nothing(said: str) -> None:
    assert "Traceback" not in said
    assert "/tmp" not in said


STREAMED = [
    pytest.param(row, id=row.case)
    for _, rows in ROWS
    for row in rows
    if not isinstance(row.rpc, str) and row.rpc.method == "ModelInfer" and not row.rpc.metadata
    # A stream takes models that are decoupled, and ends with what is no message.
    if row.case not in ("decoupled on infer", "malformed")
]


@pytest.mark.parametrize("row", STREAMED)
def test_a_stream_tells_it_in_its_messages(bench: Bench, row: Row) -> None:
    assert not isinstance(row.rpc, str)
    channel = bench.channel(row.where)
    (told,) = stream(channel, row.rpc.message)
    assert told.error_message.startswith(row.texts[1])
    with pytest.raises(grpc.RpcError) as raised:
        stream(channel, row.rpc.message, (("triton_grpc_error", "true"),))
    assert raised.value.code().name == row.status[1]
    assert raised.value.details().startswith(row.texts[1])


def test_every_row_that_one_protocol_lacks_says_why() -> None:
    for _, rows in ROWS:
        for row in rows:
            assert not (isinstance(row.rest, str) and isinstance(row.rpc, str)), row.case
            assert row.rest
            assert row.rpc


# What takes more than one request.


@pytest.mark.parametrize(
    ("model", "text"),
    [("full", "Exceeds maximum queue size"), ("hasty", "Request timeout expired")],
)
def test_a_busy_model_says_that_it_is_unavailable(bench: Bench, model: str, text: str) -> None:
    server = bench.server("open")
    asked = Asked(model, [In(shape=(1, 2))])
    invoke = bench.channel("open").unary_unary(GRPC_INFER)

    def by_grpc() -> tuple[str, str]:
        try:
            invoke(asked.by_grpc().message, timeout=WITHIN_S)
        except grpc.RpcError as exc:
            return exc.code().name, exc.details()
        return "", ""

    def by_rest() -> tuple[int, str]:
        sent = asked.by_rest()
        connection = HTTPConnection(server.address, timeout=WITHIN_S)
        connection.request("POST", sent.path, sent.body, dict(sent.headers))
        reply = connection.getresponse()
        read = reply.read()
        connection.close()
        return (reply.status, json.loads(read)["error"]) if reply.status != 200 else (0, "")

    for one, status in ((by_rest, 503), (by_grpc, "UNAVAILABLE")):
        with ThreadPoolExecutor(8) as pool:
            answers = [future.result() for future in [pool.submit(one) for _ in range(8)]]
        refused = [answer for answer in answers if answer[1]]
        assert refused
        for code, said in refused:
            assert code == status
            assert said.startswith(text)


def test_a_model_that_was_unloaded_has_no_versions(bench: Bench) -> None:
    server, channel = bench.server("open"), bench.channel("open")
    gone = Asked("gone")
    channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelUnload")(
        pb.RepositoryModelUnloadRequest(model_name="gone").SerializeToString(), timeout=WITHIN_S
    )
    text = "Request for unknown model: 'gone' has no available versions"
    status, said = rest(server, gone.by_rest())
    assert (status, said[: len(text)]) == (404, text)
    name, said = call(channel, gone.by_grpc())
    assert (name, said[: len(text)]) == ("NOT_FOUND", text)


def test_a_body_in_too_many_chunks_is_refused(bench: Bench) -> None:
    connection = HTTPConnection(bench.server("open").address, timeout=WITHIN_S)
    chunks = (b" " for _ in range(65_537))
    chunked = {"Transfer-Encoding": "chunked"}
    connection.request("POST", "/v2/models/plain/infer", chunks, chunked, encode_chunked=True)
    reply = connection.getresponse()
    said = json.loads(reply.read())["error"]
    connection.close()
    assert reply.status == 400
    assert said == (
        "Chunked request body exceeds maximum of 65536 non-empty chunks. Send fewer or larger HTTP "
        "chunks."
    )


def test_the_port_of_grpc_says_where_rest_is(bench: Bench) -> None:
    server = bench.server("open")
    elsewhere = replace(server, url=f"http://{server.grpc_address}")
    status, said = rest(elsewhere, Rest("/v2/health/live", method="GET"))
    port = server.address.rpartition(":")[2]
    assert status == 404
    assert said.startswith(
        f"Not Found. This port answers gRPC only; REST is answered on port {port}."
    )


def test_bodies_and_messages_have_a_largest_size(repository: Path) -> None:
    asked = Asked("plain", [In(data=bytes(100_000))])
    with serving(str(repository / "plain"), "--http-max-input-size=50000") as server:
        status, said = rest(server, asked.by_rest())
        assert status == 413
        assert "exceeds the maximum allowed input size of 50000 bytes" in said


def test_an_unknown_compression_comes_with_those_that_are_known(bench: Bench) -> None:
    connection = HTTPConnection(bench.server("open").address, timeout=WITHIN_S)
    headers: Mapping[str, Any] = {"Content-Encoding": "br"}
    connection.request("POST", "/v2/models/plain/infer", b"{}", dict(headers))
    reply = connection.getresponse()
    reply.read()
    connection.close()
    assert reply.headers["Accept-Encoding"] == "gzip, deflate"


def test_a_restricted_category_is_open_to_its_header(bench: Bench) -> None:
    metadata = (("triton-grpc-protocol-key", "value"),)
    invoke = "/inference.GRPCInferenceService/ServerMetadata"
    allowed = bench.channel("strict").unary_unary(invoke)(b"", timeout=WITHIN_S, metadata=metadata)
    assert pb.ServerMetadataResponse.FromString(allowed).name == "triton"

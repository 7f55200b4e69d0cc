import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from modelport.dtypes import DATATYPE_BY_NAME
from modelport.messages import Response, Tensors
from modelport.tensors import Tensor
from modelport.wire.v2_rest import CodecOptions, ResponseEncoder, decode_infer_request

MODELS = {
    "sentiment": {
        "name": "sentiment",
        "versions": ["1"],
        "platform": "python",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}],
    },
    "numbers": {
        "name": "numbers",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "n", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    },
    "halves": {
        "name": "halves",
        "versions": ["1"],
        "platform": "python",
        "inputs": [{"name": "h", "datatype": "FP16", "shape": [-1]}],
        "outputs": [{"name": "h", "datatype": "FP16", "shape": [-1]}],
    },
}
INDEX = [
    {"name": "sentiment", "version": "1", "state": "READY"},
    {"name": "numbers", "version": "2", "state": "READY"},
    {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no such\nfile"},
    {"name": "never"},
]


class EchoServer(ThreadingHTTPServer):
    """A V2 server whose models answer with their inputs; remembers what it was asked."""

    daemon_threads = True

    def __init__(self, *, has_index: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.has_index = has_index
        self.metrics = ""
        self.is_away = False
        self.calls: list[tuple[str, str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EchoServer

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.calls.append((self.command, self.path, headers, body))
        if self.server.is_away:
            self.close_connection = True
            return
        if self.path == "/metrics" and self.server.metrics:
            self._reply(200, self.server.metrics.encode())
        elif self.path == "/v2/repository/index" and self.server.has_index:
            self._reply(200, json.dumps(INDEX).encode())
        elif self.path == "/v2/models" and not self.server.has_index:
            self._reply(200, b'{"models": ["sentiment"]}')
        elif self.path.endswith("/infer"):
            self._infer(self.path.split("/")[3], headers, body)
        elif self.path.startswith("/v2/models/") and self.path.split("/")[3] in MODELS:
            self._reply(200, json.dumps(MODELS[self.path.split("/")[3]]).encode())
        elif self.path.startswith("/v2/models/"):
            name = self.path.split("/")[3]
            text = f"Request for unknown model: '{name}' is not found"
            self._reply(404, json.dumps({"error": text}).encode())
        else:
            self._reply(404, b'{"error":"Not Found"}')

    def _infer(self, model: str, headers: dict[str, str], body: bytes) -> None:
        length = headers.get("inference-header-content-length")
        asked = decode_infer_request(body, int(length) if length else None, model, CodecOptions())
        payload = asked.request.payload
        assert isinstance(payload, Tensors)
        encoder = ResponseEncoder(model, "1", is_strict=True)
        header_length, parts = encoder.encode(
            Response(payload.tensors), asked.request.id, asked.is_binary, asked.forms
        )
        self._reply(200, b"".join(parts), header_length)

    def _reply(self, status: int, body: bytes, header_length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if header_length is not None:
            self.send_header("Inference-Header-Content-Length", str(header_length))
        self.end_headers()
        self.wfile.write(body)


def _serving(server: EchoServer) -> Iterator[EchoServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def _shared_server() -> Iterator[EchoServer]:
    yield from _serving(EchoServer())


@pytest.fixture
def server(_shared_server: EchoServer) -> EchoServer:
    _shared_server.calls.clear()
    _shared_server.metrics = ""
    _shared_server.is_away = False
    return _shared_server


@pytest.fixture(scope="module")
def server_without_index() -> Iterator[EchoServer]:
    yield from _serving(EchoServer(has_index=False))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No settings from outside, and a working directory without a modelport.toml."""
    import os

    for name in list(os.environ):
        if name.startswith("MODELPORT_") or name == "NO_COLOR":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_tensor() -> Callable[[str, str, Any], Tensor]:
    def make(name: str, datatype: str, values: Any) -> Tensor:
        kind = DATATYPE_BY_NAME[datatype]
        return Tensor(name, kind, np.array(values, kind.numpy))

    return make

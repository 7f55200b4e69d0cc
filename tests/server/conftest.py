from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from modelport.server.cors import Cors
from modelport.server.http import HttpOptions

from .memory_connection import Client, TestServer, turning

Serve = Callable[..., TestServer]


@pytest.fixture
def serve() -> Iterator[Callable[..., TestServer]]:
    """Make a server, with its loop the running one."""
    with ExitStack() as stack:

        def make(options: HttpOptions | None = None, cors: Cors | None = None) -> TestServer:
            server = TestServer(options, cors)
            stack.enter_context(turning(server.loop))
            return server

        yield make


@pytest.fixture
def server(serve: Serve) -> TestServer:
    return serve()


@pytest.fixture
def client(server: TestServer) -> Client:
    return server.client()

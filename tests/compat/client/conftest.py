"""Clients of the servers that the tests around have started; see ``tests/compat``."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import tritonclient.grpc as grpc_triton
import tritonclient.http as triton


@pytest.fixture(scope="session")
def address() -> str:
    """Host and port of a server with every model loaded."""
    return os.environ["SERVER_ADDRESS"]


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(address, concurrency=4, network_timeout=20)
    yield client
    client.close()


@pytest.fixture
def controlled() -> Iterator[Any]:
    """Client of a server whose models are loaded and unloaded by request."""
    client = triton.InferenceServerClient(
        os.environ["CONTROLLED_ADDRESS"], concurrency=4, network_timeout=20
    )
    yield client
    client.close()


@pytest.fixture
def grpc_client(address: str) -> Iterator[Any]:
    """The gRPC client, on the port of HTTP: one port speaks both."""
    with grpc_triton.InferenceServerClient(address) as client:
        yield client


@pytest.fixture
def grpc_controlled() -> Iterator[Any]:
    """The gRPC client of the server whose models are loaded and unloaded by request."""
    with grpc_triton.InferenceServerClient(os.environ["CONTROLLED_ADDRESS"]) as client:
        yield client

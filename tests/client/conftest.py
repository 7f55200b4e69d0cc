"""Either transport, where a test holds for both."""

import asyncio
import contextlib

import pytest

from modelport.client.flows import Request, Response
from modelport.client.transports.asynchronous import AsyncClient
from modelport.client.transports.blocking import Client

from .scripted import Send


@pytest.fixture
def patience_s() -> float:
    """How long ``send`` waits each time, in seconds."""
    return 5


@pytest.fixture(params=["blocking", "asynchronous"])
def send(request: pytest.FixtureRequest, patience_s: float) -> Send:
    """Send one request by a transport of its own."""

    def blocking(asked: Request) -> Response:
        with contextlib.closing(Client(patience_s)) as client:
            return client.send(asked)

    def asynchronous(asked: Request) -> Response:
        async def main() -> Response:
            client = AsyncClient(patience_s)
            try:
                return await client.send(asked)
            finally:
                await client.close()

        return asyncio.run(main())

    return blocking if request.param == "blocking" else asynchronous

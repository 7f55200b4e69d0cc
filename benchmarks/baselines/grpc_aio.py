"""Answer every gRPC call: with one fixed message, or with the message that came.

Run as ``python -m benchmarks.baselines.grpc_aio PORT``. Messages stay bytes: the least that a
server with this library can do.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import grpc
from grpc import aio

REPLY_VARIABLE = "MODELPORT_BENCH_MESSAGE"
"""The fixed message as hexadecimal digits; without it every message is sent back."""
_REPLY = bytes.fromhex(os.environ.get(REPLY_VARIABLE, ""))
_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Anything(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    """Takes every method."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes]":
        answer: Callable[[bytes, object], Awaitable[bytes]] = _fixed if _REPLY else _echo
        return grpc.unary_unary_rpc_method_handler(answer)


async def _fixed(message: bytes, context: object) -> bytes:
    return _REPLY


async def _echo(message: bytes, context: object) -> bytes:
    return message


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = aio.server(options=_UNBOUNDED)
    server.add_generic_rpc_handlers((Anything(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

"""Requests that are kept and answered later, and the keeping of their answers.

Bodies stay in memory while they are small, and go to files when they grow, on both ways.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelport.errors import ModelportError
from modelport.progress import current_report
from modelport.protocols.base import BodyReceiver, Buffer, Headers
from modelport.protocols.bentoml.replies import encode_error
from modelport.stores.base import Claim, Content, unwritable_by

__all__ = ["KeptBody", "KeptExchange"]

SMALL_BYTES = 1 << 20
"""Bodies up to this stay in memory."""
PIECE_BYTES = 262_144
BREATH_BYTES = 4 << 20
"""Written to a file between two looks at what else there is to do."""

log = logging.getLogger("modelport.tasks")


class KeptBody:
    """Collects a body.

    Args:
        new_file: Gives a place for one that is not small.
    """

    def __init__(self, new_file: Callable[[], Path]) -> None:
        self._new_file = new_file
        self._data = bytearray()
        self._path: Path | None = None
        self._file: Any = None

    def write(self, piece: Buffer) -> None:
        """Take a piece.

        Raises:
            Unavailable: There is no room for it; what was written is gone.
        """
        if self._file is None:
            self._data += piece
            if len(self._data) <= SMALL_BYTES:
                return
            piece, self._data = self._data, bytearray()
            self._path = self._new_file()
        try:
            if self._file is None:
                assert self._path is not None
                self._file = self._path.open("wb")
            self._file.write(piece)
        except OSError as exc:
            self.drop()
            raise unwritable_by(exc) from exc

    def finish(self) -> tuple[bytes, Path | None]:
        """It is whole: give it, as bytes or as a file, which is the caller's then.

        Raises:
            Unavailable: There was no room for the rest of it.
        """
        if self._file is None:
            return bytes(self._data), None
        try:
            self._file.close()
        except OSError as exc:
            self.drop()
            raise unwritable_by(exc) from exc
        path, self._path = self._path, None
        return b"", path

    def drop(self) -> None:
        """Delete it, unless it was given away."""
        path, self._path = self._path, None
        if path is not None:
            try:
                if self._file is not None:
                    self._file.close()
                path.unlink(missing_ok=True)
            except OSError as exc:
                log.warning("a body could not be deleted: %s", exc)


class KeptExchange:
    """A request that was kept, and the answer that is to be kept; an ``Exchange``.

    Args:
        path: Of the endpoint.
        claim: That says what is asked, and by whom.
        body: Of the request, whole; empty if it is in ``file``.
        received_ns: When the call began.
        file: Holds the body; given on piece by piece.
        new_file: Gives a place for an answer that is not small.
    """

    on_disconnect: Callable[[], None] | None = None
    on_writable: Callable[[], None] | None = None
    memo: Any = None
    method = "POST"
    query = ""

    def __init__(
        self,
        path: str,
        claim: Claim,
        body: bytes,
        *,
        received_ns: int,
        file: Path | None,
        new_file: Callable[[], Path],
    ) -> None:
        self.path = path
        self.body: Buffer = body
        self.begun_ns = self.received_ns = received_ns
        self.headers: Mapping[str, str] = dict(claim.request.headers)
        self.original_headers = self.headers
        self.params: Mapping[str, str] = {}
        self.principal = claim.task.owner
        self.report = current_report()
        self.answer: asyncio.Future[Content] = asyncio.get_running_loop().create_future()
        self._file = file
        self._feeding: asyncio.Task[None] | None = None
        self._status = 0
        self._headers: Headers = ()
        self._kept = KeptBody(new_file)
        self._unpaused_bytes = 0
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()

    def receive(self, receiver: BodyReceiver) -> None:
        """Give the body: at once, or as it is read."""
        if self._file is not None:
            feeding = self._feed(receiver, self._file)
            self._feeding = asyncio.get_running_loop().create_task(feeding)
            return
        if self.body:
            receiver.data(self.body)
        receiver.complete()

    async def _feed(self, receiver: BodyReceiver, path: Path) -> None:
        try:
            with path.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                    receiver.data(piece)
                    await self._may_go_on.wait()
            receiver.complete()
        except ModelportError as exc:
            reply = encode_error(exc)
            self.respond(reply.status, reply.headers, reply.body)
        except Exception as exc:
            # Read by whoever waits for the answer, who also writes it down.
            if not self.answer.done():
                self.answer.set_exception(exc)

    def hold_body(self) -> None:
        """Read no more of the file."""
        self._may_go_on.clear()

    def release_body(self) -> None:
        """Read on."""
        self._may_go_on.set()

    def respond(
        self, status: int, headers: Headers, body: Sequence[Buffer], *, close: bool = False
    ) -> None:
        """Keep a whole answer."""
        self.start(status, headers)
        for piece in body:
            self.write(piece)
        self.finish()

    def start(self, status: int, headers: Headers) -> None:
        """Begin to keep an answer."""
        self._status, self._headers = status, headers

    def write(self, data: Buffer) -> bool:
        """Keep a piece of it."""
        if self.answer.done():
            return False
        try:
            self._kept.write(data)
        except ModelportError as exc:
            self.answer.set_exception(exc)
            return False
        self._unpaused_bytes += len(data)
        if self._unpaused_bytes < BREATH_BYTES:
            return True
        self._unpaused_bytes = 0
        asyncio.get_running_loop().call_soon(self._go_on)
        return False

    def _go_on(self) -> None:
        if self.on_writable is not None and not self.answer.done():
            self.on_writable()

    def finish(self) -> None:
        """Keep what was written."""
        if self.answer.done():
            return
        try:
            body, file = self._kept.finish()
        except ModelportError as exc:
            self.answer.set_exception(exc)
            return
        self.answer.set_result(Content(tuple(self._headers), body, self._status, file))

    def abort(self) -> None:
        """The answer is not whole, so there is none."""
        self._kept.drop()
        if not self.answer.done():
            self.answer.set_exception(ModelportError("the result broke off in the middle"))

    def lost(self, error: ModelportError) -> None:
        """There is no answer, because whoever was to give it has gone."""
        self._kept.drop()
        if not self.answer.done():
            self.answer.set_exception(error)

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        if self._feeding is not None:
            self._feeding.cancel()
        if self.on_disconnect is not None:
            self.on_disconnect()
        self._kept.drop()
        answer = self.answer
        is_there = answer.done() and not answer.cancelled() and answer.exception() is None
        if is_there and (file := answer.result().file) is not None:
            # It came in the same moment.
            file.unlink(missing_ok=True)

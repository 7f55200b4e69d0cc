"""What a worker's model asks of the server, answered: the server's end.

The other end is :mod:`~modelport.runtimes.worker.calling`.
"""

import base64
from collections.abc import Callable
from typing import Any, Protocol

from modelport.custom_metrics import Measure
from modelport.errors import ModelportError
from modelport.messages import Response, Ticket
from modelport.runtimes.base import Host, Question
from modelport.runtimes.worker.frames import Decoder, Encoder, plain_error
from modelport.runtimes.worker.records import from_plain

__all__ = ["Answering"]

WINDOW = 32
"""Responses to one call that are on their way to the worker."""


class Line(Protocol):
    """The way to a worker, past the batches that wait."""

    def reply(self, head: list[Any], encode: Callable[[Encoder, list[bytes]], object]) -> None:
        """Send a frame; on the event loop."""
        ...


class Answering:
    """Answers the calls of the model in one worker process.

    Args:
        host: Of the model.
        line: The way back.
    """

    def __init__(self, host: Host, line: Line) -> None:
        self._host = host
        self._line = line
        self._calls: dict[int, _CallSink] = {}
        self._is_closed = False

    def called(self, decoder: Decoder, body: bytes) -> None:
        """Take one call."""
        (number, verb, *what), offset = decoder.head(body)
        match verb:
            case "infer":
                model, version = what
                request, _, _ = decoder.request(body, offset)
                sink = self._calls[number] = _CallSink(self, number)
                sink.ticket = self._host.infer(model, version, request, sink)
            case "took":
                self._taken(number, *what)
            case "cancel":
                sink_or_none = self._calls.pop(number, None)
                if sink_or_none is not None:
                    sink_or_none.close()
            case "ask":
                self._asked(number, *what)
            case "measure":
                self._measured(from_plain(Measure, _with_labels(*what)))

    def _measured(self, measure: Measure) -> None:
        try:
            self._host.measure(measure)
        except ModelportError as exc:
            # The model was told that all was well; another process of it may see it otherwise.
            self._host.log("error", exc.text, model=measure.model)

    def _taken(self, number: int, count: int) -> None:
        sink = self._calls.get(number)
        if sink is not None:
            sink.taken(count)

    def _asked(self, number: int, plain: dict[str, Any]) -> None:
        files = {path: base64.b64decode(data) for path, data in plain.pop("files").items()}

        def done(answer: bool | ModelportError) -> None:
            if isinstance(answer, ModelportError):
                self.reply([number, "answer", False, *plain_error(answer)])
            else:
                self.reply([number, "answer", answer])

        self._host.ask(Question(**plain, files=files), done)

    def reply(
        self, head: list[Any], encode: Callable[[Encoder, list[bytes]], object] | None = None
    ) -> None:
        """Say something of a call; nothing once the worker has gone."""
        if not self._is_closed:
            self._line.reply(head, encode or _nothing)

    def over(self, number: int) -> None:
        """A call has ended."""
        self._calls.pop(number, None)

    def close(self) -> None:
        """The worker has gone: nobody waits for its calls."""
        self._is_closed = True
        calls, self._calls = self._calls, {}
        for sink in calls.values():
            sink.close()


class _CallSink:
    """Where the answers to one call go: back to the worker, so many at a time."""

    def __init__(self, answering: Answering, number: int) -> None:
        self.ticket: Ticket | None = None
        self._answering = answering
        self._number = number
        self._untaken = 0
        self._is_held = False

    def push(self, response: Response, final: bool) -> bool:
        """Send one response on."""
        if final:
            self._answering.over(self._number)
        self._answering.reply(
            [self._number, "push", final], lambda encoder, parts: encoder.outcome(parts, response)
        )
        self._untaken += 1
        self._is_held = self._untaken >= WINDOW
        return not self._is_held

    def end(self) -> None:
        """No more."""
        self._answering.over(self._number)
        self._answering.reply([self._number, "end"])

    def fail(self, error: ModelportError) -> None:
        """It went wrong."""
        self._answering.over(self._number)
        self._answering.reply([self._number, "fail", *plain_error(error)])

    def taken(self, count: int) -> None:
        """The model has taken some, or has room for others."""
        self._untaken -= count
        if self._is_held and self._untaken <= WINDOW // 2:
            self._is_held = False
            if self.ticket is not None:
                self.ticket.resume()

    def close(self) -> None:
        """Nobody waits any more."""
        if self.ticket is not None:
            self.ticket.cancel()


def _with_labels(plain: dict[str, Any]) -> dict[str, Any]:
    return plain | {"labels": tuple((name, value) for name, value in plain["labels"])}


def _nothing(_encoder: Encoder, _parts: list[bytes]) -> None:
    return

"""What a worker's model asks of the server, carried over: the worker's end.

The other end is :mod:`~modelport.runtimes.worker.answering`. Calls have numbers; replies come on
the thread that reads the control socket, and are handed to whoever waits without holding it up.
"""

import base64
import itertools
from collections.abc import Callable
from typing import Any

from modelport.custom_metrics import CustomMetrics, Labels, Measure
from modelport.errors import ModelportError
from modelport.messages import Request, Response, Sink, Ticket
from modelport.runtimes.base import Question
from modelport.runtimes.worker.frames import Decoder, Encoder, Frame, error_of, json_frame
from modelport.runtimes.worker.records import to_plain

__all__ = ["WorkerHost"]

Answer = Callable[[bool | ModelportError], object]


class WorkerHost:
    """A :class:`modelport.runtimes.base.Host` on this side of the sockets.

    Args:
        post: Sends a frame, from any thread.
        call: Sends a call: its head, and what adds a request to it.
    """

    def __init__(
        self,
        post: Callable[[bytes], None],
        call: Callable[[list[Any], Callable[[Encoder, list[bytes]], None]], None],
    ) -> None:
        self._post = post
        self._call = call
        self._numbers = itertools.count()
        self._sinks: dict[int, Sink] = {}
        self._answers: dict[int, Answer] = {}
        # Responses that the server has not been told to be taken.
        self._untold: dict[int, int] = {}
        self._metrics = CustomMetrics()

    def log(self, level: str, message: str, *, model: str) -> None:
        """Have the server write a line to its log."""
        self._post(json_frame(Frame.LOG, [level, message, model]))

    def infer(self, model: str, version: str, request: Request, sink: Sink) -> Ticket:
        """Have the server send a request to another model."""
        number = next(self._numbers)
        self._sinks[number] = sink

        def encode(encoder: Encoder, parts: list[bytes]) -> None:
            encoder.request(parts, request, 1)

        self._call([number, "infer", model, version], encode)
        return _CallTicket(self, number)

    def ask(self, question: Question, done: Answer) -> None:
        """Have the server load or unload a model, or say whether one is ready."""
        number = next(self._numbers)
        self._answers[number] = done
        plain = to_plain(question) | {
            "files": {
                path: base64.b64encode(data).decode() for path, data in question.files.items()
            }
        }
        self.tell(number, "ask", plain)

    def may_wait(self, *, model: str) -> bool:
        """Always: nobody else runs here."""
        return True

    def measure(self, measure: Measure) -> None:
        """Count here, for ``measured`` and to refuse what cannot be, and tell the server."""
        self._metrics.apply(measure)
        self.tell(0, "measure", to_plain(measure))

    def measured(self, family: str, labels: Labels) -> float:
        """What a metric stands at as far as this process has brought it."""
        return self._metrics.value(family, labels)

    def tell(self, number: int, *what: Any) -> None:
        """Say something of a call that has no request in it."""
        self._call([number, *what], _nothing)

    def reply(self, decoder: Decoder, body: bytes) -> None:
        """Hear what a call came to."""
        (number, verb, *what), offset = decoder.head(body)
        if verb == "answer":
            value, *error = what
            self._answers.pop(number)(error_of(*error) if error else value)
            return
        sink = self._sinks.get(number)
        if verb == "push":
            outcome, _ = decoder.outcome(body, offset)
            (final,) = what
            if final:
                self._sinks.pop(number, None)
            if sink is None or not isinstance(outcome, Response):
                return
            is_welcome = sink.push(outcome, final)
            self._untold[number] = self._untold.get(number, 0) + 1
            if final:
                del self._untold[number]
            elif is_welcome:
                self.took(number)
            return
        self._sinks.pop(number, None)
        self._untold.pop(number, None)
        if sink is None:
            return
        if verb == "fail":
            sink.fail(error_of(*what))
        else:
            sink.end()

    def took(self, number: int) -> None:
        """Say that what has come so far does not stand in the way any more."""
        count = self._untold.pop(number, 0)
        if count:
            self.tell(number, "took", count)

    def forget(self, number: int) -> None:
        """Nobody waits for a call any more."""
        self._untold.pop(number, None)
        if self._sinks.pop(number, None) is not None:
            self.tell(number, "cancel")


class _CallTicket:
    """The model's hold on a call."""

    def __init__(self, host: WorkerHost, number: int) -> None:
        self._host = host
        self._number = number

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._host.forget(self._number)

    def resume(self) -> None:
        """More responses are welcome again."""
        self._host.took(self._number)


def _nothing(_encoder: Encoder, _parts: list[bytes]) -> None:
    return

"""What stands around a runtime, without an engine: a request in its hands, and its host."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelport.custom_metrics import CustomMetrics, Labels, Measure
from modelport.dtypes import DATATYPE_BY_NUMPY, DataType
from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import ParameterValue, Request, Response, Sink, Tensors
from modelport.runtimes.base import Question
from modelport.tensors import Array, Tensor

__all__ = ["FakeHost", "FakeTicket", "FakeWork", "work_of"]


class FakeWork:
    """A :class:`modelport.runtimes.base.Work` that remembers what was sent.

    Attributes:
        sent: What came through ``send``, in order; ``None`` for an end without a response.
        is_ended: Whether the last one was final.
        is_cancelled: Set it to have the caller go away.
        drains: How often the model waited for the reader.
        reschedules: How often it wanted to see the request again.
        cancels_after: Cancel as soon as so many responses were sent; ``None`` for never.
    """

    on_stop: Callable[[], object] | None = None

    def __init__(
        self, request: Request, rows: int = 1, *, cancels_after: int | None = None
    ) -> None:
        self.request = request
        self.rows = rows
        self.sent: list[Response | ModelportError | None] = []
        self.is_ended = False
        self.is_cancelled = False
        self.drains = 0
        self.reschedules = 0
        self.cancels_after = cancels_after

    def send(self, response: Response | ModelportError | None, *, final: bool) -> None:
        """Remember a response; refuse it after the end, or when nobody waits."""
        if self.is_ended:
            raise ModelFailed("Unable to send response. Response sender has been closed.")
        self.is_ended = final
        if self.is_cancelled and not final:
            raise Cancelled("nobody waits for this request any more")
        self.sent.append(response)
        if self.cancels_after == len(self.sent):
            self.is_cancelled = True

    def reschedule(self) -> None:
        """Count how often the model wants to see the request again."""
        self.reschedules += 1

    async def drained(self) -> None:
        """Count; the caller here reads at once."""
        self.drains += 1

    @property
    def responses(self) -> list[Response]:
        """What was sent and was neither an error nor an end."""
        return [sent for sent in self.sent if isinstance(sent, Response)]


@dataclass(slots=True)
class FakeHost:
    """A :class:`modelport.runtimes.base.Host` that remembers what it was asked."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)
    """Level, message and model of each line."""
    requests: list[tuple[str, str, Request]] = field(default_factory=list)
    """Model, version and request of each call."""
    questions: list[Question] = field(default_factory=list)
    answer: Callable[[Request], Response | ModelportError] = lambda _: ModelFailed("no such model")
    """What the other models answer."""
    verdict: bool | ModelportError = True
    """What every question is answered with."""
    is_on_loop: bool = False
    """Whether models are told that they must not wait."""
    metrics: CustomMetrics = field(default_factory=CustomMetrics)

    def log(self, level: str, message: str, *, model: str) -> None:
        """Remember a line."""
        self.lines.append((level, message, model))

    def infer(self, model: str, version: str, request: Request, sink: Sink) -> "FakeTicket":
        """Answer at once."""
        self.requests.append((model, version, request))
        answer = self.answer(request)
        if isinstance(answer, Response):
            sink.push(answer, True)
        else:
            sink.fail(answer)
        return FakeTicket()

    def ask(self, question: Question, done: Callable[[bool | ModelportError], object]) -> None:
        """Answer at once."""
        self.questions.append(question)
        done(self.verdict)

    def may_wait(self, *, model: str) -> bool:
        """Whether it may."""
        return not self.is_on_loop

    def measure(self, measure: Measure) -> None:
        """Count."""
        self.metrics.apply(measure)

    def measured(self, family: str, labels: Labels) -> float:
        """What has been counted."""
        return self.metrics.value(family, labels)


class FakeTicket:
    """A :class:`modelport.messages.Ticket` of what is over already."""

    def cancel(self) -> None:
        """Nothing is left to cancel."""

    def resume(self) -> None:
        """Nothing is left to come."""


def work_of(
    arrays: Mapping[str, Array],
    *,
    rows: int = 1,
    datatypes: Mapping[str, DataType] | None = None,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, ParameterValue] | None = None,
) -> FakeWork:
    """Make a work from arrays, which become read-only, as they are in the server.

    Args:
        arrays: By the names of the inputs.
        rows: Of the batch.
        datatypes: Where the dtype does not tell, which is BF16.
        outputs: Names of those wanted; all by default.
        parameters: Of the request.
    """
    tensors = []
    for name, array in arrays.items():
        seen = array.view()
        seen.flags.writeable = False
        datatype = (datatypes or {}).get(name) or DATATYPE_BY_NUMPY[array.dtype]
        tensors.append(Tensor(name, datatype, seen))
    request = Request(Tensors(tensors), outputs=outputs, parameters=parameters or {})
    return FakeWork(request, rows)

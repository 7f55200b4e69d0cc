"""Python functions and classes that were declared with ``@modelport.model``.

Four kinds of callables, told apart when they are loaded: functions answer a batch at once,
coroutine functions beside one another, generators and async generators with a stream for each
request.
"""

import asyncio
import contextlib
import inspect
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

from modelport.annotations import OUTPUT
from modelport.dtypes import BF16, float32_from_bf16
from modelport.errors import Cancelled, ModelFailed, ModelportError
from modelport.messages import Response
from modelport.runtimes.arrays import Arrays, TensorRuntime
from modelport.runtimes.base import (
    Batch,
    Gpus,
    Host,
    LoadContext,
    ModelSource,
    Outcome,
    Work,
    as_model_failure,
)
from modelport.runtimes.calls import calls_others, waiting_for
from modelport.runtimes.model_code import Home, load_failure
from modelport.runtimes.nvidia import count_gpus
from modelport.runtimes.python_objects import (
    DEFAULT_FILENAME,
    PARAMETERS,
    Style,
    callable_of,
    config_of,
    import_object,
    made,
    style_of,
    wants_parameters,
)
from modelport.runtimes.python_readers import Reader, reader_of
from modelport.runtimes.python_values import argument_of, array_of, fields_of
from modelport.signature import ModelSignature, TensorSignature
from modelport.specs import ModelConfig

__all__ = ["PythonRuntime"]


class PythonRuntime(TensorRuntime):
    """One function, or one object of a class."""

    default_filename: ClassVar[str] = DEFAULT_FILENAME

    may_wait = False
    """Whether the model's code looks as if it asked other models."""

    @classmethod
    def gpus(cls) -> Gpus:
        """Count what the driver shows; what a model does with its device is its own affair."""
        return Gpus(count=count_gpus(), why_none="the driver shows none")

    _call: Callable[..., Any] | None = None
    _style: Style
    _signature: ModelSignature
    _converted: Sequence[TensorSignature] = ()
    _readers: Mapping[str, Reader | None]
    _model: Any = None
    _home: Home
    _host: Host
    _name: str
    _wants_parameters: bool

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Import the file and read the declaration; a class is not made."""
        target, signature, home = import_object(source, config, None)
        try:
            return config_of(target, signature)
        finally:
            home.forget()

    def load(self, context: LoadContext) -> None:
        """Import the file afresh, and make the object of a class."""
        source = context.source
        target, signature, home = import_object(source, context.config, context.host)
        try:
            target, self._model = made(target)
        except (Exception, SystemExit) as exc:
            home.forget()
            raise load_failure(source, "making the model", exc, context.host) from exc
        self._converted = [
            tensor
            for tensor in signature.inputs
            if tensor.form != "array" or tensor.is_text or tensor.datatype is BF16
        ]
        self._readers = {tensor.name: reader_of(tensor) for tensor in self._converted}
        self._signature, self._home, self._host = signature, home, context.host
        self._name = source.name
        self.may_wait = calls_others(source.version_directory)
        self._call = callable_of(target)
        self._style = style_of(self._call, signature)
        self._wants_parameters = wants_parameters(target, signature)
        self.prepare(context.config)

    def execute(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        """Answer a batch in the way of the callable."""
        with self._waited_for_by(batch.works):
            return self._started(batch)

    def _waited_for_by(self, works: Sequence[Work]) -> contextlib.AbstractContextManager[None]:
        return waiting_for(self._name, works) if self.may_wait else contextlib.nullcontext()

    def _started(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        match self._style:
            case Style.FUNCTION:
                return super().execute(batch)
            case Style.COROUTINE:
                return self._execute_async(batch)
            case Style.GENERATOR:
                for work in batch.works:
                    self._stream(work)
                return None
            case Style.ASYNC_GENERATOR:
                return self._stream_all(batch)

    def is_ready(self) -> bool:
        """Whether it is loaded."""
        return self._call is not None

    def unload(self) -> None:
        """Call the ``close`` of a class, and forget the modules."""
        if self._call is None:
            return
        model, self._model, self._call = self._model, None, None
        try:
            closed = model.close() if hasattr(model, "close") else None
            if inspect.iscoroutine(closed):
                asyncio.run(closed)
        except (Exception, SystemExit) as exc:
            self._log("close", exc)
        finally:
            self._home.forget()

    def failure(self, exc: Exception) -> ModelportError:
        """Tell the log where in the model's code it happened, and the caller what."""
        if not isinstance(exc, ModelportError):
            self._log("a call", exc)
        return as_model_failure(exc)

    # One answer for one request.

    def answer(self, works: Sequence[Work], batch: Batch) -> list[Outcome]:
        """Call the function for some works together."""
        arguments = self._arguments(works, batch)
        return self._answered(works, self._called(arguments), batch)

    async def _execute_async(self, batch: Batch) -> Sequence[Outcome]:
        works = batch.works
        if len(works) == 1 or self.layout.is_batching:
            try:
                return await self._answer_async(works, batch)
            except Exception as exc:
                if len(works) == 1:
                    return [self.failure(exc)]
        return await asyncio.gather(*(self._answer_alone_async(work, batch) for work in works))

    async def _answer_alone_async(self, work: Work, batch: Batch) -> Outcome:
        if work.is_cancelled:
            return Cancelled("nobody waits for this request any more")
        try:
            return (await self._answer_async([work], batch))[0]
        except Exception as exc:
            return self.failure(exc)

    async def _answer_async(self, works: Sequence[Work], batch: Batch) -> list[Outcome]:
        arguments = self._arguments(works, batch)
        # Again, because this runs in a task of its own.
        with self._waited_for_by(works):
            result = await self._called(arguments)
        return self._answered(works, result, batch)

    def _answered(self, works: Sequence[Work], result: Any, batch: Batch) -> list[Outcome]:
        batch.computed_ns = time.perf_counter_ns()
        return self.layout.responses(works, self._named(result))

    # A stream for each request.

    def _stream(self, work: Work) -> None:
        generator = None
        try:
            generator = self._called(self._arguments([work]))
            for item in generator:
                if work.is_cancelled:
                    break
                work.send(self._response(work, item), final=False)
        except Exception as exc:
            self._end(work, exc)
        else:
            self._end(work, None)
        finally:
            if generator is not None:
                self._close(generator)

    def _close(self, generator: Any) -> None:
        close = getattr(generator, "close", None)
        try:
            if close is not None:
                close()
        except Exception as exc:
            self._log("closing a generator", exc)

    async def _stream_all(self, batch: Batch) -> None:
        await asyncio.gather(*(self._stream_async(work) for work in batch.works))

    async def _stream_async(self, work: Work) -> None:
        try:
            with self._waited_for_by([work]):
                items = self._called(self._arguments([work]))
                try:
                    async for item in items:
                        if work.is_cancelled:
                            break
                        work.send(self._response(work, item), final=False)
                        await work.drained()
                finally:
                    # An iterator that is no generator has nothing to close.
                    if hasattr(items, "aclose"):
                        await items.aclose()
        except Exception as exc:
            self._end(work, exc)
        else:
            self._end(work, None)

    def _response(self, work: Work, item: Any) -> Response:
        (response,) = self.layout.responses([work], self._named(item))
        assert isinstance(response, Response)
        return response

    def _end(self, work: Work, exc: Exception | None) -> None:
        if exc is None or isinstance(exc, Cancelled):
            work.send(None, final=True)
        else:
            work.send(self.failure(exc), final=True)

    # Arguments and results.

    def _called(self, arguments: Mapping[str, Any]) -> Any:
        call = self._call
        if call is None:
            raise ModelFailed("the model has been unloaded")
        return call(**arguments)

    def _arguments(self, works: Sequence[Work], batch: Batch | None = None) -> dict[str, Any]:
        arguments: dict[str, Any] = dict(self.layout.inputs(works))
        for tensor in self._converted:
            array = arguments.get(tensor.name)
            if array is not None:
                given = float32_from_bf16(array) if tensor.datatype is BF16 else array
                arguments[tensor.name] = argument_of(tensor, given, self._readers[tensor.name])
        if self._wants_parameters:
            given = works[0].request.parameters
            if any(work.request.parameters != given for work in works):
                raise ModelFailed("requests with different parameters cannot be joined")
            arguments[PARAMETERS] = given
        if batch is not None:
            batch.inputs_ready_ns = batch.inputs_ready_ns or time.perf_counter_ns()
        return arguments

    def _named(self, result: Any) -> Arrays:
        """Give what a model returned the names of its outputs."""
        outputs = self._signature.outputs
        # A mapping is what one output of JSON holds, unless its name is that of a field.
        is_value = outputs[0].form == "json" and [each.name for each in outputs] == [OUTPUT]
        fields = None if is_value else fields_of(result)
        if fields is not None:
            named = fields
        elif len(outputs) == 1:
            named = {outputs[0].name: result}
        elif isinstance(result, tuple | list) and len(result) == len(outputs):
            named = {output.name: each for output, each in zip(outputs, result, strict=True)}
        else:
            names = ", ".join(output.name for output in outputs)
            raise ModelFailed(
                f"the model gave {_shown(result)}; its outputs are {names}: return a dict of them, "
                f"or a tuple of {len(outputs)} in this order"
            )
        rank = 1 if self.layout.is_batching else 0
        return {
            output.name: array_of(output, named[output.name], rank)
            for output in outputs
            if output.name in named
        }

    def _log(self, what: str, exc: BaseException) -> None:
        text = "".join(traceback.format_exception(exc)).rstrip()
        self._host.log("error", f"{what} of '{self._name}' failed: {text}", model=self._name)


def _shown(result: object) -> str:
    if isinstance(result, tuple | list):
        return f"a {type(result).__name__} of {len(result)}"
    return f"a {type(result).__name__}"

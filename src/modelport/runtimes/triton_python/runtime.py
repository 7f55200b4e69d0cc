"""One instance of a model file written for Triton's Python backend."""

import asyncio
import contextlib
import inspect
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import CoroutineType
from typing import Any, ClassVar, overload

from modelport.errors import LoadFailed, ModelportError
from modelport.runtimes.base import (
    Batch,
    Gpus,
    Host,
    LoadContext,
    ModelSource,
    Outcome,
    text_of_failure,
)
from modelport.runtimes.calls import calls_others, waiting_for
from modelport.runtimes.model_code import Home, import_model, load_failure
from modelport.runtimes.nvidia import count_gpus
from modelport.runtimes.triton_python.interface import Interface
from modelport.runtimes.triton_python.model_config import ModelConfig as FillableConfig
from modelport.runtimes.triton_python.model_config import completed
from modelport.runtimes.triton_python.request import ServedRequest
from modelport.specs import ModelConfig

__all__ = ["TritonPythonRuntime"]


class TritonPythonRuntime:
    """Runs ``TritonPythonModel``."""

    default_filename: ClassVar[str] = "model.py"

    @classmethod
    def gpus(cls) -> Gpus:
        """Count what the driver shows; what a model does with its device is its own affair."""
        return Gpus(count=count_gpus(), why_none="the driver shows none")

    _model: Any = None
    _execute: Any = None
    _is_ready: Callable[[], object] | None = None
    _home: Home
    _host: Host
    _interface: Interface

    may_wait = False
    """Whether the model's code looks as if it asked other models."""

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Ask the model's own ``auto_complete_config``; without one nothing is added."""
        model_class, home = _model_class(source, config, None)
        auto_complete = getattr(model_class, "auto_complete_config", None)
        try:
            if auto_complete is None:
                return config
            filled_in = auto_complete(FillableConfig(config))
            if not isinstance(filled_in, FillableConfig):
                raise TypeError(f"expected a ModelConfig back, got {type(filled_in).__name__}")
            return completed(config, filled_in)
        except (Exception, SystemExit) as exc:
            raise load_failure(source, "auto_complete_config", exc, None) from exc
        finally:
            home.forget()

    def load(self, context: LoadContext) -> None:
        """Import the file afresh, make the model and call its ``initialize``."""
        source, config = context.source, context.config
        self._host = context.host
        self._interface = Interface(
            config,
            version=source.version,
            instance_name=context.instance_name,
            warn=lambda text: context.host.log("warning", text, model=source.name),
        )
        model_class, self._home = _model_class(source, config, context.host)
        self.may_wait = calls_others(source.version_directory, source.directory)
        try:
            self._model = model_class()
            self._execute = self._model.execute
            self._is_ready = getattr(self._model, "is_ready", None)
            initialize = getattr(self._model, "initialize", None)
            if initialize is not None:
                initialize(_arguments(context))
        except (Exception, SystemExit) as exc:
            self._home.forget()
            raise load_failure(source, "initialize", exc, context.host) from exc

    def execute(
        self, batch: Batch
    ) -> Sequence[Outcome] | Awaitable[Sequence[Outcome] | None] | None:
        """Give the model a batch as a list of requests, and read what it returns."""
        interface = self._interface
        works = batch.works
        if len(works) == 1:
            requests = [ServedRequest(works[0], interface)]
        else:
            requests = [ServedRequest(work, interface) for work in works]
        if interface.is_decoupled:
            for request in requests:
                request.get_response_sender()
        try:
            if self.may_wait:
                with waiting_for(interface.model_name, works):
                    returned = self._execute(requests)
            else:
                returned = self._execute(requests)
        except (Exception, SystemExit) as exc:
            return self._fail(requests, exc)
        kind = returned.__class__
        if kind is CoroutineType or (kind is not list and inspect.isawaitable(returned)):
            return self._execute_async(requests, returned)
        return self._read(requests, returned)

    def is_ready(self) -> bool:
        """What the model says of itself, if it says anything; silence of 5 s is a no."""
        return self._model is not None and (self._is_ready is None or _answers_yes(self._is_ready))

    def unload(self) -> None:
        """Call the model's ``finalize`` and forget its modules."""
        finalize = getattr(self._model, "finalize", None)
        try:
            if finalize is not None:
                finalize()
        except (Exception, SystemExit) as exc:
            self._log_exception("finalize", exc)
        finally:
            self._home.forget()
            self._model = self._execute = None

    async def _execute_async(
        self, requests: list[ServedRequest], awaitable: Awaitable[Any]
    ) -> Sequence[Outcome] | None:
        try:
            if self.may_wait:
                works = [request._work for request in requests]
                with waiting_for(self._interface.model_name, works):
                    returned = await awaitable
            else:
                returned = await awaitable
        except (Exception, SystemExit) as exc:
            return self._fail(requests, exc)
        return self._read(requests, returned)

    def _read(self, requests: list[ServedRequest], returned: Any) -> Sequence[Outcome] | None:
        """Judge what ``execute`` returned, and pair it with the requests."""
        interface = self._interface
        if interface.is_decoupled:
            if returned is None:
                if interface.is_iterative:
                    for request in requests:
                        request.release()
                return None
            return self._refuse(
                requests,
                f"Python model '{interface.instance_name}' is using the decoupled mode and the "
                "execute function must return None.",
            )
        if returned is None:
            returned = [None] * len(requests)
        elif not isinstance(returned, list):
            return self._refuse(
                requests,
                f"Expected a list in the execute return, found type '{type(returned)}'.",
            )
        if len(returned) != len(requests):
            return self._refuse(
                requests,
                "Number of InferenceResponse objects do not match the number of InferenceRequest "
                f"objects. InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) "
                f"size is:{len(returned)}",
            )
        if interface.is_iterative:
            return [
                self._iterated(request, response)
                for request, response in zip(requests, returned, strict=True)
            ]
        if len(returned) == 1 and requests[0]._sender is None:
            return [interface.read(requests[0]._work, returned[0])]
        if all(request._sender is None for request in requests) and not interface.has_strings:
            return _ReadLater(interface, requests, returned)
        return [
            self._outcome(request, response)
            for request, response in zip(requests, returned, strict=True)
        ]

    def _iterated(self, request: ServedRequest, response: Any) -> Outcome:
        """The same of a model that may ask to see the request once more, instead of answering."""
        if response is not None and request.comes_again:
            # It would be asked for ever, by a model that takes the request for answered.
            failure = self._interface.failure(
                "Expected a None object in the execute function return list for reschduled "
                f"request, found type '{type(response)}'."
            )
            return _failed([request], failure)[0]
        return None if request.release() else self._outcome(request, response)

    def _outcome(self, request: ServedRequest, response: Any) -> Outcome:
        sender = request._sender
        if sender is None or (response is not None and sender.claim()):
            return self._interface.read(request._work, response)
        return None

    def _refuse(self, requests: list[ServedRequest], message: str) -> list[Outcome]:
        self._host.log("error", message, model=self._interface.model_name)
        return _failed(requests, self._interface.failure(message))

    def _fail(self, requests: list[ServedRequest], exc: BaseException) -> list[Outcome]:
        self._log_exception("execute", exc)
        return _failed(
            requests, self._interface.failure(f"{type(exc).__name__}: {text_of_failure(exc)}")
        )

    def _log_exception(self, function: str, exc: BaseException) -> None:
        text = "".join(traceback.format_exception(exc)).rstrip()
        instance = self._interface.instance_name
        self._host.log(
            "error", f"{function} of '{instance}' failed: {text}", model=self._interface.model_name
        )


class _ReadLater(Sequence[Outcome]):
    """What a model returned, read as it is looked at.

    That is done by whoever answers the callers, while the instance goes on with its next batch.
    """

    def __init__(
        self, interface: Interface, requests: Sequence[ServedRequest], returned: list[Any]
    ) -> None:
        self._interface = interface
        self._requests = requests
        self._returned = returned

    def __len__(self) -> int:
        return len(self._returned)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self._interface.read(self._requests[index]._work, self._returned[index])

    def __iter__(self) -> Iterator[Outcome]:
        read = self._interface.read
        for request, response in zip(self._requests, self._returned, strict=True):
            yield read(request._work, response)


def _failed(requests: list[ServedRequest], error: ModelportError) -> list[Outcome]:
    """The same error for every request that is still open."""
    return [
        error if request._sender is None or request._sender.close() else None
        for request in requests
    ]


def _model_class(
    source: ModelSource, config: ModelConfig, host: Host | None
) -> tuple[type[Any], Home]:
    """Import the model file and find the class in it."""
    file = source.file(config, TritonPythonRuntime.default_filename)
    home = Home(source.version_directory, model_name=source.name, host=host, stand_ins=_STAND_INS)
    if not file.is_file():
        raise LoadFailed(f"model '{source.name}' version {source.version} has no '{file.name}'")
    try:
        module = import_model(home, file, source.directory)
    except (Exception, SystemExit) as exc:
        raise load_failure(source, f"importing '{file.name}'", exc, host) from exc
    model_class = getattr(module, "TritonPythonModel", None)
    if model_class is None or not callable(getattr(model_class, "execute", None)):
        home.forget()
        missing = "class 'TritonPythonModel'" if model_class is None else "method 'execute'"
        raise LoadFailed(f"'{file.name}' of model '{source.name}' has no {missing}")
    return model_class, home


def _answers_yes(is_ready: Callable[[], object]) -> bool:
    """Ask a model whether it is ready, on a thread that may be given up."""
    answers: list[object] = []

    def ask() -> None:
        # A model that cannot say so is not ready, whatever the reason.
        with contextlib.suppress(Exception):
            answer = is_ready()
            if inspect.iscoroutine(answer):
                answer = asyncio.run(answer)
            answers.append(answer)

    thread = threading.Thread(target=ask, name="is_ready", daemon=True)
    thread.start()
    thread.join(_IS_READY_TIMEOUT_S)
    return bool(answers and answers[0])


def _arguments(context: LoadContext) -> dict[str, str]:
    """What ``initialize`` is given: text, all of it."""
    source = context.source
    return {
        "model_config": context.config_json,
        "model_instance_kind": context.kind,
        "model_instance_name": context.instance_name,
        "model_instance_device_id": str(context.device_id),
        "model_repository": str(source.directory),
        "model_version": str(source.version),
        "model_name": source.name,
    }


_STAND_INS = {"triton_python_backend_utils": "modelport.runtimes.triton_python.pb_utils"}
# As Triton has it; a model that is asked every few seconds may be slow, not hang.
_IS_READY_TIMEOUT_S = 5.0

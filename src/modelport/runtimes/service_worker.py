"""The worker's end of a service: its object and all of its endpoints, in a process of its own."""

import contextlib
import contextvars
import json
import os
import threading
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, ClassVar

from modelport.errors import Cancelled, LoadFailed, ModelFailed
from modelport.messages import Response
from modelport.progress import report_to
from modelport.runtimes.base import Batch, LoadContext, ModelSource, Outcome, Work
from modelport.runtimes.service import Call, ServiceRuntime
from modelport.runtimes.service_calls import (
    ENDPOINT,
    TASK,
    is_call,
    pack_answer,
    progress_response,
    unpack_call,
)
from modelport.services.context import BackgroundTasks, Context, current, current_service
from modelport.services.endpoint import Endpoint
from modelport.services.living import LiveService, in_order
from modelport.services.loop import Threads
from modelport.services.results import without_app
from modelport.services.targets import import_services
from modelport.services.tensors import EndpointView
from modelport.specs import ModelConfig

__all__ = ["CHECKS", "SAID", "SETUP", "ServiceWorker"]

CHECKS = ("__is_ready__", "__is_alive__")
"""What can be called in place of an endpoint, and answers with the parameter ``SAID``."""
SAID = "said"
SETUP = "service"
"""The parameter of the configuration that says what to bring up, as JSON: ``target``, the position
``at`` of the service in it, ``worker``, ``threads``, ``streams`` and ``environment``."""

REPORT_EVERY_S = 0.1
"""Between two reports of a task's progress that are told to the server."""


class ServiceWorker:
    """A :class:`modelport.runtimes.base.Runtime` that is all endpoints of a service at once."""

    default_filename: ClassVar[str] = ""

    def __init__(self) -> None:
        self._opened: list[LiveService] = []
        self._endpoints: dict[str, _WorkerEndpoint] = {}
        self._threads = Threads("modelport-calls")
        self._checks = Threads("modelport-checks")

    @classmethod
    def complete(cls, source: ModelSource, config: ModelConfig) -> ModelConfig:
        """Leave it as it is."""
        return config

    def load(self, context: LoadContext) -> None:
        """Import the service, make its object and those that it depends on, and run their hooks."""
        setup = json.loads(context.config.parameters[SETUP].string_value)
        # Before anything is imported that looks at it.
        os.environ.update(setup["environment"])
        service = import_services(setup["target"])[setup["at"]]
        lives: dict[int, LiveService] = {}
        try:
            for each in in_order([service]):
                live = lives[id(each)] = LiveService(each, worker_index=setup["worker"])
                self._opened.append(live)
                live.open(lives)
        except LoadFailed:
            self.unload()
            raise
        live = lives[id(service)]
        threads = setup["threads"]
        slots = threading.BoundedSemaphore(threads) if threads else None
        for api in service.apis.values():
            endpoint = Endpoint(api, service.name)
            self._endpoints[api.name] = _WorkerEndpoint(
                endpoint,
                live.instance,
                loop=live.loop,
                host=context.host,
                view=EndpointView(endpoint, api.name, ""),
                state=live.state,
                slots=slots,
                most_streams=setup["streams"],
                live=live,
            )

    def execute(self, batch: Batch) -> Awaitable[Sequence[Outcome] | None]:
        """Call the endpoint that the requests name, beside whatever else is called."""
        name = str(batch.works[0].request.parameters[ENDPOINT])
        if name in CHECKS:
            return self._check(name)
        endpoint = self._endpoints[name]
        # Every call begins without what another one has set on its thread.
        call = partial(contextvars.copy_context().run, endpoint.execute, batch)
        if batch.works[0].request.parameters.get(TASK):
            return self._send(batch, call)
        return self._threads.run(call)

    async def _send(self, batch: Batch, call: Any) -> None:
        """Answer in the way of streams: what was reported on the way came in this way as well."""
        outcomes: Sequence[Outcome] | None = await self._threads.run(call)
        for work, outcome in zip(batch.works, outcomes or (), strict=False):
            work.send(outcome, final=True)

    async def _check(self, name: str) -> Sequence[Outcome]:
        live = self._opened[-1]
        return [Response((), {SAID: await self._checks.run(lambda: live.says(name))})]

    def is_ready(self) -> bool:
        """Whether the process answers; the service is asked for its own readiness by a call."""
        return True

    def unload(self) -> None:
        """Run the hooks of the end, of those first that depend on others."""
        while self._opened:
            self._opened.pop().close()


class _WorkerEndpoint(ServiceRuntime):
    """One endpoint, called with what the server has packed."""

    def __init__(self, endpoint: Endpoint, instance: Any, *, live: LiveService, **how: Any) -> None:
        super().__init__(endpoint, instance, **how)
        self._live = live

    def _call_of(self, work: Work) -> Call:
        request = work.request
        if not is_call(request):
            return super()._call_of(work)
        current_service.set(self._instance)
        received = unpack_call(request, self._state)
        context = received.context
        if request.parameters.get(TASK):
            report = _Report(work)
            report_to(report)
            if context is not None:
                context.task = report
                current.set(context)
        values = received.sent.bound(self._endpoint)
        return Call(values, context, None, None, partial(self._packed, context))

    def _packed(self, context: Context | None, value: Any) -> Response:
        encoded = self._endpoint.encode(value)
        if encoded.app is not None:
            whole = without_app(encoded.app)
            if whole is None:
                raise LoadFailed(
                    f"endpoint '{self._endpoint.name}' gave a {type(encoded.app).__name__}, which "
                    "cannot leave a worker process; make the endpoint a generator, or serve the "
                    "service without workers="
                )
            if encoded.app.background is not None:
                later = BackgroundTasks()
                later.add_task(encoded.app.background.__call__)
                self._live.run_later(later)
            encoded = whole
        if context is not None and context.response.background and not self._endpoint.is_stream:
            self._live.run_later(context.response.background)
        return pack_answer(encoded, context)


class _Report:
    """Tells the server how far a task has come, not more often than anybody looks."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._last: tuple[float | None, str] | None = None
        self._told_s = 0.0
        self._is_waiting = False

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants the task's result any more."""
        return self._work.is_cancelled

    def __call__(self, fraction: float | None, text: str) -> None:
        """Take a report, or raise Cancelled."""
        if self._work.is_cancelled:
            raise Cancelled("the task was cancelled")
        with self._lock:
            self._last = (fraction, text)
            if self._is_waiting:
                return
            wait_s = self._told_s + REPORT_EVERY_S - time.monotonic()
            if wait_s > 0:
                self._is_waiting = True
                timer = threading.Timer(wait_s, self._tell)
                timer.daemon = True
                timer.start()
                return
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            last, self._last = self._last, None
            self._is_waiting = False
            self._told_s = time.monotonic()
        # The task may have ended meanwhile.
        with contextlib.suppress(Cancelled, ModelFailed):
            if last is not None:
                self._work.send(progress_response(*last), final=False)

"""Models that call others, in threads and in worker processes, through a whole engine."""

import asyncio
from pathlib import Path

import pytest

from modelport.errors import InvalidRequest, ModelFailed
from modelport.repository.options import ControlMode
from tests.runtimes.worker.conftest import CONFIG, DECOUPLED, PROCESS, Bench, bench

__all__ = ["bench"]

DOUBLES = """
def execute(self, requests):
    return [y(2 * x_of(request)) for request in requests]
"""
ASKED = """
def asked(self, request, model, **more):
    return pb_utils.InferenceRequest(
        model_name=model, requested_output_names=["y"],
        inputs=[pb_utils.Tensor("x", x_of(request))], **more)
"""
ASK = (
    ASKED
    + """
def execute(self, requests):
    return [self.answer(request) for request in requests]
"""
)
CALLER = (
    ASK
    + """
def answer(self, request):
    answer = self.asked(request, "double").exec()
    if answer.has_error():
        return pb_utils.InferenceResponse(error=answer.error())
    return y(1 + pb_utils.get_output_tensor_by_name(answer, "y").as_numpy())
"""
)
STREAMS = """
def execute(self, requests):
    for request in requests:
        sender = request.get_response_sender()
        for number in range(int(x_of(request)[0])):
            sender.send(y([number]))
        sender.send(flags=FINAL)
"""

where = pytest.mark.parametrize("place", ["", PROCESS], ids=["thread", "process"])


@where
def test_model_asks_another(bench: Bench, place: str) -> None:
    bench.write("double", DOUBLES, CONFIG)
    bench.write("caller", CALLER, CONFIG + place)

    async def test() -> None:
        for number in range(100):
            assert await bench.ask("caller", [number]) == [[2 * number + 1]]

    bench.run(test)


@where
def test_answers_that_are_errors_can_be_looked_at(bench: Bench, place: str) -> None:
    bench.write("double", "def execute(self, requests): raise ValueError('broken')", CONFIG)
    bench.write("caller", CALLER, CONFIG + place)
    bench.write("lost", CALLER.replace('"double"', '"nowhere"'), CONFIG + place)

    async def test() -> None:
        with pytest.raises(ModelFailed, match="ValueError: broken"):
            await bench.ask("caller", [1])
        with pytest.raises(ModelFailed, match="Request for unknown model: 'nowhere'"):
            await bench.ask("lost", [1])

    bench.run(test)


@where
def test_coroutine_asks_others_beside_one_another(bench: Bench, place: str) -> None:
    bench.write(
        "double",
        "def execute(self, requests):\n    time.sleep(0.05)\n"
        + DOUBLES.replace("def execute(self, requests):\n", ""),
        CONFIG,
    )
    bench.write(
        "caller",
        ASKED
        + """
async def execute(self, requests):
    import asyncio
    answers = await asyncio.gather(
        *(self.asked(request, "double").async_exec() for request in requests for _ in range(3)))
    return [y([sum(pb_utils.get_output_tensor_by_name(a, "y").as_numpy()[0] for a in answers)])]
""",
        CONFIG + place,
    )

    async def test() -> None:
        asked = [asyncio.create_task(bench.ask("caller", [number])) for number in range(4)]
        assert [await each for each in asked] == [[[6 * number]] for number in range(4)]

    bench.run(test)


@where
def test_responses_of_a_stream_come_one_by_one(bench: Bench, place: str) -> None:
    """More of them than may wait: the stream waits for the model that reads it."""
    bench.write("stream", STREAMS, CONFIG + DECOUPLED)
    bench.write(
        "caller",
        ASK
        + """
def answer(self, request):
    total, count = 0, 0
    empty = []
    for response in self.asked(request, "stream").exec(decoupled=True):
        if not response.output_tensors():
            empty.append(response)
            continue
        total += pb_utils.get_output_tensor_by_name(response, "y").as_numpy()[0]
        count += 1
        if count % 100 == 0:
            time.sleep(0.01)
    ordinary = len(list(self.asked(request, "double").exec(decoupled=True)))
    return y([total, count, len(empty), ordinary])
""",
        CONFIG + place,
    )
    bench.write("double", DOUBLES, CONFIG)
    bench.write("once", CALLER.replace('"double"', '"stream"'), CONFIG + place)

    async def test() -> None:
        # A stream that ends with the final flag alone has one more without tensors, as in Triton.
        assert await bench.ask("caller", [1000]) == [[499500, 1000, 1, 1]]
        assert await bench.ask("caller", [0]) == [[0, 0, 1, 1]]
        with pytest.raises(ModelFailed, match="please use 'decoupled=True'"):
            await bench.ask("once", [3])

    bench.run(test)


@where
def test_stream_that_nobody_reads_on_is_cancelled(bench: Bench, place: str) -> None:
    bench.write("stream", STREAMS, CONFIG + DECOUPLED)
    bench.write(
        "caller",
        ASK
        + """
def answer(self, request):
    responses = self.asked(request, "stream").exec(decoupled=True)
    next(responses)
    responses.cancel()
    return y([1])
""",
        CONFIG + place,
    )

    async def test() -> None:
        assert await bench.ask("caller", [100_000]) == [[1]]
        await bench.deployment("stream").drain()
        assert bench.deployment("stream").statistics.failures["CANCELED"] == 1

    bench.run(test)


@where
def test_who_asks_on_after_cancelling_gets_the_error_cancelled(bench: Bench, place: str) -> None:
    """What has come is given before it; and after the end there is nothing to cancel."""
    bench.write("stream", STREAMS, CONFIG + DECOUPLED)
    bench.write(
        "caller",
        ASK
        + """
def answer(self, request):
    cancelled = pb_utils.TritonError.CANCELLED
    responses = self.asked(request, "stream").exec(decoupled=True)
    next(responses)
    responses.cancel()
    responses.cancel()
    *given, last = responses
    ended = last.has_error() and last.error().code() == cancelled
    well = not any(each.has_error() for each in given)
    few = pb_utils.InferenceRequest("stream", ["y"], [pb_utils.Tensor("x", np.array([2], "f4"))])
    whole = few.exec(decoupled=True)
    count = len(list(whole))
    whole.cancel()
    return y([ended, well, count, len(list(whole))])
""",
        CONFIG + place,
    )

    async def test() -> None:
        assert await bench.ask("caller", [100_000]) == [[1, 1, 3, 0]]

    bench.run(test)


@where
def test_circle_of_calls_is_refused(bench: Bench, place: str) -> None:
    """Each would wait for the other for ever."""
    bench.write("double", CALLER.replace('"double"', '"caller"'), CONFIG + place)
    bench.write("caller", CALLER, CONFIG + place)
    bench.write("self", CALLER.replace('"double"', '"self"'), CONFIG + place)

    async def test() -> None:
        with pytest.raises(ModelFailed, match=r"caller -> double -> caller"):
            await bench.ask("caller", [1])
        with pytest.raises(ModelFailed, match=r"self -> self"):
            await bench.ask("self", [1])

    bench.run(test)


def test_model_that_asks_others_never_runs_on_the_loop(bench: Bench) -> None:
    bench.write("double", DOUBLES, CONFIG)
    bench.write("caller", CALLER, CONFIG)
    inline = PROCESS.replace("process", "inline")
    bench.write("inline", CALLER, CONFIG + inline)

    async def test() -> None:
        for number in range(200):
            assert await bench.ask("caller", [number]) == [[2 * number + 1]]
        with pytest.raises(ModelFailed, match="parameter execution with the value thread"):
            await bench.ask("inline", [1])

    bench.run(test)


def test_call_that_was_not_foreseen_moves_the_model_off_the_loop(bench: Bench) -> None:
    """A library of its own does the calling: nothing in its files tells."""
    bench.write("double", DOUBLES, CONFIG)
    bench.write(
        "caller",
        CALLER.replace(
            "pb_utils.InferenceRequest", "getattr(pb_utils, 'Inference' + 'Request')"
        ).replace(
            "def answer(self, request):",
            "def answer(self, request):\n    if x_of(request)[0] < 0: return y([0])",
        ),
        CONFIG,
    )

    async def test() -> None:
        deployment = bench.deployment("caller")
        while not deployment._placement.is_inline:
            await bench.ask("caller", [-1])
        with pytest.raises(ModelFailed, match="cannot wait for another model"):
            await bench.ask("caller", [1])
        assert await bench.ask("caller", [1]) == [[3]]

    bench.run(test)


@where
def test_model_manages_others(bench: Bench, place: str, tmp_path: Path) -> None:
    bench.mode = ControlMode.EXPLICIT
    bench.write("double", DOUBLES, CONFIG)
    bench.write(
        "caller",
        ASK
        + """
def initialize(self, args):
    pb_utils.load_model("double")

def answer(self, request):
    before = pb_utils.is_model_ready("double", "1")
    pb_utils.unload_model("double")
    after = pb_utils.is_model_ready("double")
    try:
        pb_utils.load_model("nowhere")
    except pb_utils.TritonModelException as exc:
        assert "nowhere" in str(exc), str(exc)
        return y([before, after])
    assert False

def finalize(self): ...
""",
        CONFIG + place,
    )
    bench.write(
        "leaves",
        ASK + "\ndef answer(self, request): pb_utils.unload_model('leaves')",
        CONFIG + place,
    )

    async def test() -> None:
        await bench.engine.load("caller")
        await bench.engine.load("leaves")
        assert await bench.ask("caller", [1]) == [[1, 0]]
        with pytest.raises(ModelFailed, match="must not unload 'leaves'"):
            await bench.ask("leaves", [1])

    bench.run(test)


@where
def test_metrics_of_models_are_the_server_s(bench: Bench, place: str) -> None:
    bench.write(
        "m",
        """
        def initialize(self, args):
            def family(name, kind):
                return pb_utils.MetricFamily(name=name, description=name, kind=kind)
            family_of = pb_utils.MetricFamily
            self.seen = family("seen", family_of.COUNTER).Metric(labels={"model": "m"})
            self.level = family("level", family_of.GAUGE).Metric()
            self.sizes = family("sizes", family_of.HISTOGRAM).Metric(labels={}, buckets=[1, 10])

        def execute(self, requests):
            for request in requests:
                self.seen.increment(1)
                self.level.set(float(x_of(request)[0]))
                self.sizes.observe(float(x_of(request)[0]))
            try:
                self.seen.increment(-1)
            except pb_utils.TritonModelException as exc:
                assert "cannot go down" in str(exc)
            return [y([self.seen.value()]) for request in requests]
        """,
        CONFIG + place,
    )

    async def test() -> None:
        metrics = bench.engine.custom_metrics
        assert metrics.value("seen", (("model", "m"),)) == 0
        assert [family.name for family in metrics.families()] == ["level", "seen", "sizes"]
        assert await bench.ask("m", [5]) == [[1]]
        assert await bench.ask("m", [50]) == [[2]]
        level, seen, sizes = metrics.families()
        assert (level.kind, level.values) == ("gauge", {(): 50.0})
        assert seen.values == {(("model", "m"),): 2.0}
        assert sizes.observations[()].counts == [0, 1, 1]
        assert sizes.observations[()].total == 55.0

    bench.run(test)


FUNCTIONS = """
import numpy as np
import modelport

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"})
def double(x):
    return 2 * x

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[1]"})
def count(x):
    for number in range(int(x[0])):
        yield np.array([number], np.float32)

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"}, execution="PLACE")
def caller(x):
    return modelport.call_model("double", {"x": x})["y"] + 1

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"}, execution="PLACE")
async def beside(x):
    return (await modelport.call_model_async("double", {"x": x}))["y"] + 1

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[1]"}, execution="PLACE")
def summing(x):
    total = sum(answer["y"][0] for answer in modelport.stream_model("count", {"x": x}))
    return np.array([total], np.float32)

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"}, execution="PLACE")
async def circle(x):
    return (await modelport.call_model_async("circle", {"x": x}))["y"]

@modelport.model(inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"}, execution="PLACE")
def wrong(x):
    return modelport.call_model("double", {"other": x})["y"]
"""


@pytest.mark.parametrize("place", ["thread", "process"])
def test_functions_ask_others(bench: Bench, place: str) -> None:
    bench.directory.mkdir()
    file = bench.directory / "functions.py"
    file.write_text(FUNCTIONS.replace("PLACE", place))
    bench.directory = file

    async def test() -> None:
        assert await bench.ask("caller", [1, 2]) == [[3, 5]]
        assert await bench.ask("beside", [1, 2]) == [[3, 5]]
        assert await bench.ask("summing", [300]) == [[44850]]
        with pytest.raises(ModelFailed, match="circle -> circle"):
            await bench.ask("circle", [1])
        with pytest.raises(InvalidRequest, match="input"):
            await bench.ask("wrong", [1])

    bench.run(test)

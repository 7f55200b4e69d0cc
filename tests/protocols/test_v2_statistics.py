"""What was sent is what is counted: over REST, gRPC and in the metrics, to the last request."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelport.wire.proto import grpc_service_pb2 as pb
from tests.protocols.asking import WITHIN_S
from tests.served import Served, call, get, serving

pytestmark = pytest.mark.slow

IO = """
backend: "python"
max_batch_size: 4
input [{ name: "A" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "O" data_type: TYPE_FP32 dims: [1] }]
"""
ENSEMBLE = (
    IO.replace('backend: "python"', 'platform: "ensemble"')
    + """
ensemble_scheduling { step [
  { model_name: "twice" model_version: -1
    input_map { key: "A" value: "A" } output_map { key: "O" value: "between" } },
  { model_name: "twice" model_version: -1
    input_map { key: "A" value: "between" } output_map { key: "O" value: "O" } }
] }
"""
)
TWICE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
        if a[0, 0] == -1:
            error = pb_utils.TritonError("negative", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        if a[0, 0] == -2:
            raise ValueError("very negative")
        return pb_utils.InferenceResponse([pb_utils.Tensor("O", 2 * a)])
"""
ASKING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        a = pb_utils.get_input_tensor_by_name(request, "A")
        asked = pb_utils.InferenceRequest(
            model_name="twice", requested_output_names=["O"], inputs=[a]
        ).exec()
        if asked.has_error():
            return pb_utils.InferenceResponse(error=asked.error())
        values = asked.output_tensors()[0].as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("O", values)])
"""
STREAMING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
            sender = request.get_response_sender()
            for _ in range(int(a[0, 0])):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("O", a)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
MODELS = {
    "twice": (IO, TWICE),
    "kept": (IO + "response_cache { enable: true }", TWICE),
    "asking": (IO, ASKING),
    "streaming": (IO + "model_transaction_policy { decoupled: true }", STREAMING),
    "both": (ENSEMBLE, ""),
}
NO_FAILURES = {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    for name, (configuration, code) in MODELS.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(configuration)
        if code:
            (tmp_path / name / "1" / "model.py").write_text(code)
    with serving(str(tmp_path), "--cache-config=local,size=1MiB") as made:
        yield made


def ask(served: Served, model: str, *rows: float, to: str = "infer") -> int:
    """Send one request; its status."""
    body: Any = {"A": rows[0]}
    if to == "infer":
        tensor = {"name": "A", "datatype": "FP32", "shape": [len(rows), 1], "data": rows}
        body = {"inputs": [tensor]}
    return call(served, f"/v2/models/{model}/{to}", body)[0]


def over_rest(served: Served, model: str) -> dict[str, Any]:
    """Give what REST tells: the counts, without the times."""
    told = json.loads(get(served, f"/v2/models/{model}/stats")[2])["model_stats"][0]
    counts = {name: each["count"] for name, each in told["inference_stats"].items()}
    counts["rows"], counts["executions"] = told["inference_count"], told["execution_count"]
    sizes = {each["batch_size"]: each["compute_infer"]["count"] for each in told["batch_stats"]}
    places = {
        int(place): (each["success"]["count"], each["empty_response"]["count"])
        for place, each in told["response_stats"].items()
    }
    return counts | {"sizes": sizes, "places": places}


def over_grpc(served: Served, model: str) -> dict[str, Any]:
    """Give the same as gRPC tells it."""
    with grpc.insecure_channel(served.grpc_address) as channel:
        invoke = channel.unary_unary("/inference.GRPCInferenceService/ModelStatistics")
        request = pb.ModelStatisticsRequest(name=model).SerializeToString()
        answer = pb.ModelStatisticsResponse.FromString(invoke(request, timeout=WITHIN_S))
    told = answer.model_stats[0]
    fields = [field.name for field in told.inference_stats.DESCRIPTOR.fields]
    counts: dict[str, Any] = {name: getattr(told.inference_stats, name).count for name in fields}
    counts["rows"], counts["executions"] = told.inference_count, told.execution_count
    sizes = {each.batch_size: each.compute_infer.count for each in told.batch_stats}
    places = {
        int(place): (each.success.count, each.empty_response.count)
        for place, each in told.response_stats.items()
    }
    return counts | {"sizes": sizes, "places": places}


def over_metrics(served: Served, model: str) -> tuple[int, int, int, dict[str, int]]:
    """Give successes, rows, executions, and failures by reason."""
    series = {}
    for line in get(served, "/metrics")[2].decode().splitlines():
        name, _, rest = line.partition("{")
        labels, _, value = rest.rpartition("} ")
        if f'model="{model}"' in labels:
            reason = labels.partition('reason="')[2].rstrip('"')
            series[name, reason] = float(value)
    failures = {
        reason: int(series["nv_inference_request_failure", reason]) for reason in NO_FAILURES
    }
    success, rows, executions = (
        int(series[f"nv_inference_{name}", ""])
        for name in ("request_success", "count", "exec_count")
    )
    return success, rows, executions, failures


def counted(
    success: int, fail: int, rows: int, sizes: dict[int, int], *, hits: int = 0, misses: int = 0
) -> dict[str, Any]:
    """Write down what has to be told of a model that does not stream."""
    computed = success - hits
    return {
        "success": success,
        "fail": fail,
        "queue": success,
        "compute_input": computed,
        "compute_infer": computed,
        "compute_output": computed,
        "cache_hit": hits,
        "cache_miss": misses,
        "rows": rows,
        "executions": sum(sizes.values()),
        "sizes": sizes,
        "places": {},
    }


def test_every_request_is_counted_once_and_alike_everywhere(served: Served) -> None:
    said = [ask(served, "twice", *rows) for rows in ([1], [1, 2, 3], [-1], [-2])]
    said += [ask(served, "twice", 1, 2, 3, 4, 5)]  # more than fit: refused, and not counted
    said += [ask(served, "kept", row) for row in (1, 1, 1, 2, -1, -1)]
    said += [ask(served, "both", 1, 2), ask(served, "both", -1)]
    said += [ask(served, "asking", 3), ask(served, "asking", -1)]
    said += [ask(served, "streaming", count, to="generate_stream") for count in (3, 0, 1)]
    good, refused, raised = 200, 400, 500
    assert said == [
        *(good, good, refused, raised, refused),
        *(good, good, good, good, refused, refused),
        *(good, refused),
        *(good, refused),
        *(good, good, good),
    ]
    wanted = {
        # Alone 4 requests; of ensembles 2 and 1, of models 1 and 1.
        "twice": counted(2 + 2 + 1, 2 + 1 + 1, 4 + 4 + 1, {1: 3 + 1 + 2, 3: 1, 2: 2}),
        "kept": counted(4, 2, 2, {1: 4}, hits=2, misses=2),
        "both": counted(1, 1, 2, {2: 1}),
        "asking": counted(1, 1, 1, {1: 2}),
        "streaming": counted(3, 0, 3, {1: 3})
        | {"places": {0: (2, 1), 1: (1, 1), 2: (1, 0), 3: (0, 1)}},
    }
    failures = {
        "twice": NO_FAILURES | {"BACKEND": 4},
        "kept": NO_FAILURES | {"BACKEND": 2},
        "both": NO_FAILURES | {"OTHER": 1},
        "asking": NO_FAILURES | {"BACKEND": 1},
        "streaming": NO_FAILURES,
    }
    for model, counts in wanted.items():
        assert over_rest(served, model) == counts, model
        assert over_grpc(served, model) == counts, model
        assert over_metrics(served, model) == (
            counts["success"],
            counts["rows"],
            counts["executions"],
            failures[model],
        ), model

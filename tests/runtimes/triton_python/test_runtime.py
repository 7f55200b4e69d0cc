import asyncio
import gc
import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelport.dtypes import BF16, BYTES, DataType
from modelport.errors import Kind, LoadFailed, ModelFailed
from modelport.messages import Response
from modelport.runtimes.base import Batch
from modelport.runtimes.triton_python import TritonPythonRuntime
from modelport.runtimes.triton_python.pb_utils import InferenceResponse, Tensor
from modelport.specs import (
    ModelConfig,
    ModelInput,
    ModelOutput,
    Parameter,
    SequenceBatching,
    TransactionPolicy,
)
from modelport.testing.fakes import FakeWork, work_of
from modelport.testing.runtime_suite import (
    Example,
    LoadedModel,
    RuntimeCase,
    RuntimeSuite,
    load_model,
    run,
)

from .conftest import DECOUPLED, X_TO_Y, Serve, write_model

ONE = np.array([1, 2], np.float32)
TWO = np.array([3], np.float32)


def work(x: np.ndarray[tuple[int], np.dtype[np.float32]] = ONE, **options: object) -> FakeWork:
    return work_of({"x": x}, **options)  # type: ignore[arg-type]  # passed on as they are


def texts(works: list[FakeWork]) -> list[str]:
    return [str(sent) for each in works for sent in each.sent]


class TestSuite(RuntimeSuite):
    @pytest.fixture
    def case(self) -> RuntimeCase:
        x = np.array([[1, 2]], np.float32)
        return RuntimeCase(
            runtime=TritonPythonRuntime,
            filename="model.py",
            write=lambda directory: write_model(directory, _DOUBLES_AND_SUMS),
            examples=[
                Example({"x": x}, {"y": x * 2, "total": x.sum(1, keepdims=True)}),
                Example({"x": x + 1}, {"y": (x + 1) * 2, "total": (x + 1).sum(1, keepdims=True)}),
            ],
            poison={"x": np.array([[-1, 0]], np.float32)},
            break_file=lambda directory: (directory / "model.py").write_text("def ("),
            identity=_identity,
        )


_DOUBLES_AND_SUMS = """
@staticmethod
def auto_complete_config(config):
    config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [2]})
    config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
    config.add_output({"name": "total", "data_type": "TYPE_FP32", "dims": [1]})
    config.set_max_batch_size(8)
    config.set_dynamic_batching()
    return config

def execute(self, requests):
    responses = []
    for request in requests:
        x = x_of(request)
        if x[0, 0] < 0:
            responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("negative")))
        else:
            total = pb_utils.Tensor("total", x.sum(1, keepdims=True))
            responses.append(pb_utils.InferenceResponse([total, pb_utils.Tensor("y", x * 2)]))
    return responses
"""


def _identity(directory: Path, datatype: DataType) -> ModelConfig:
    copied = "pb_utils.Tensor('y', x.as_numpy())"
    if datatype is BF16:
        copied = "pb_utils.Tensor.from_dlpack('y', x.to_dlpack())"
    write_model(
        directory,
        f"""
        def execute(self, requests):
            tensors = [pb_utils.get_input_tensor_by_name(request, "x") for request in requests]
            return [pb_utils.InferenceResponse([{copied}]) for x in tensors]
        """,
    )
    return ModelConfig(
        input=(ModelInput(name="x", data_type=datatype.config_name, dims=(-1,)),),
        output=(ModelOutput(name="y", data_type=datatype.config_name, dims=(-1,)),),
    )


class TestLoad:
    def test_initialize_gets_text_under_triton_s_keys(self, serve: Serve, tmp_path: Path) -> None:
        model = serve(
            """
            def initialize(self, args):
                assert all(type(value) is str for value in args.values())
                pb_utils.Logger.log_info(repr(args))

            def execute(self, requests): ...
            """
        )
        ((level, line, _),) = model.host.lines
        args = eval(line)
        config = json.loads(args.pop("model_config"))
        assert level == "info"
        assert config["input"][0]["dims"] == [-1]
        assert args == {
            "model_instance_kind": "CPU",
            "model_instance_name": "m_0_0",
            "model_instance_device_id": "0",
            "model_repository": str(tmp_path / "m"),
            "model_version": "1",
            "model_name": "m",
        }

    def test_model_without_initialize_and_finalize_is_fine(self, serve: Serve) -> None:
        model = serve("def execute(self, requests): return [y(x_of(r)) for r in requests]")
        assert model.ask({"x": ONE})["y"].tolist() == [1, 2]

    def test_each_instance_has_its_own_object_and_globals(self, serve: Serve) -> None:
        methods = """
        def execute(self, requests):
            globals()["seen"] = self.seen = globals().get("seen", 0) + 1
            return [y([self.seen]) for request in requests]
        """
        one, other = serve(methods), serve(methods)
        one.ask({"x": ONE})
        assert one.ask({"x": ONE})["y"].tolist() == [2]
        assert other.ask({"x": ONE})["y"].tolist() == [1]

    def test_failing_initialize_is_told_to_the_caller_and_its_traceback_to_the_log(
        self, serve: Serve, tmp_path: Path
    ) -> None:
        modules = set(sys.modules)
        with pytest.raises(LoadFailed) as failed:
            serve("def initialize(self, args): raise ValueError('no weights')\nexecute = print")
        assert str(failed.value) == (
            "model 'm' version 1: initialize failed in 'model.py' line 16: ValueError: no weights"
        )
        assert not {name for name in set(sys.modules) - modules if "_m_" in name}

    def test_model_that_exits_does_not_take_the_server_with_it(self, serve: Serve) -> None:
        with pytest.raises(LoadFailed, match="SystemExit: 3"):
            serve("def initialize(self, args): raise SystemExit(3)\nexecute = print")
        model = serve("def execute(self, requests): raise SystemExit(4)")
        with pytest.raises(ModelFailed, match="SystemExit: 4"):
            model.ask({"x": ONE})

    @pytest.mark.parametrize(
        ("text", "missing"),
        [
            ("x = 1", "no class 'TritonPythonModel'"),
            ("class TritonPythonModel: pass", "no method 'execute'"),
        ],
    )
    def test_file_without_what_it_needs_is_refused(
        self, tmp_path: Path, text: str, missing: str
    ) -> None:
        directory = tmp_path / "m" / "1"
        write_model(directory, "")
        (directory / "model.py").write_text(text)
        with pytest.raises(LoadFailed, match=missing):
            load_model(TritonPythonRuntime, directory, X_TO_Y)

    def test_file_may_have_another_name(self, serve: Serve, tmp_path: Path) -> None:
        directory = tmp_path / "m" / "1"
        write_model(directory, "def execute(self, requests): return [y([7]) for r in requests]")
        (directory / "model.py").rename(directory / "mine.py")
        config = replace(X_TO_Y, default_model_filename="mine.py")
        model = load_model(TritonPythonRuntime, directory, config)
        assert model.ask({"x": ONE})["y"].tolist() == [7]
        model.instance.unload()

    def test_finalize_is_called_once(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests): ...
            def finalize(self): pb_utils.Logger.log_info("finalized")
            """
        )
        model.instance.unload()
        model.instance.unload()
        assert model.host.lines == [("info", "finalized", "m")]

    def test_failing_finalize_is_logged_and_unloads_all_the_same(self, serve: Serve) -> None:
        model = serve("def execute(self, r): ...\ndef finalize(self): raise OSError('gone')")
        model.instance.unload()
        assert "OSError: gone" in model.host.lines[0][1]
        assert not model.instance.is_ready()


class TestIsReady:
    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ("def is_ready(self): return True", True),
            ("def is_ready(self): return False", False),
            ("def is_ready(self): raise ValueError", False),
            ("async def is_ready(self):\n    await asyncio.sleep(0)\n    return True", True),
            ("async def is_ready(self): return False", False),
        ],
    )
    def test_model_speaks_for_itself(self, serve: Serve, method: str, expected: bool) -> None:
        model = serve(method + "\ndef execute(self, requests): ...")
        assert model.instance.is_ready() is expected

    def test_silence_is_a_no(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelport.runtimes.triton_python.runtime._IS_READY_TIMEOUT_S", 0.01)
        model = serve(
            """
            def initialize(self, args): self.event = threading.Event()
            def is_ready(self): return self.event.wait(10)
            def execute(self, requests): ...
            def finalize(self): self.event.set()
            """
        )
        assert not model.instance.is_ready()


class TestExecute:
    def test_batch_comes_as_separate_requests(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                return [y([len(requests), len(x_of(request))]) for request in requests]
            """
        )
        one, two = run(model.instance, [work(ONE), work(TWO)])
        assert isinstance(one, Response)
        assert isinstance(two, Response)
        assert one.outputs[0].array.tolist() == [2, 2]
        assert two.outputs[0].array.tolist() == [2, 1]

    def test_coroutine_is_awaited(self, serve: Serve) -> None:
        model = serve(
            """
            async def execute(self, requests):
                await asyncio.sleep(0)
                return [y(x_of(request) + 1) for request in requests]
            """
        )
        assert model.ask({"x": ONE})["y"].tolist() == [2, 3]

    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_exception_is_told_with_type_and_text_and_logged_with_its_traceback(
        self, serve: Serve, tmp_path: Path, kind: str
    ) -> None:
        model = serve(f"{kind} execute(self, requests): raise ValueError('bad weather')")
        (outcome,) = run(model.instance, [work()])
        assert isinstance(outcome, ModelFailed)
        assert outcome.kind is Kind.MODEL_FAILED
        assert str(outcome) == (
            "Failed to process the request(s) for model 'm_0_0', message: ValueError: bad weather"
        )
        ((level, line, name),) = model.host.lines
        assert (level, name) == ("error", "m")
        assert "Traceback" in line
        assert "model.py" in line

    @pytest.mark.parametrize(
        ("returned", "text"),
        [
            ("()", "Expected a list in the execute return, found type '<class 'tuple'>'."),
            ("y(1)", "Expected a list in the execute return, found type"),
            ("[]", "InferenceRequest(s) size is:1, and InferenceResponse(s) size is:0"),
            ("[y(1), y(2)]", "InferenceRequest(s) size is:1, and InferenceResponse(s) size is:2"),
            ("[None]", "found type '<class 'NoneType'>'."),
            ("None", "found type '<class 'NoneType'>'."),
            ("[1]", "Expected an 'InferenceResponse' object in the execute function return list"),
            (
                "[pb_utils.InferenceResponse([3])]",
                "expected Tensor objects in output_tensors, found type '<class 'int'>'",
            ),
            (
                "[pb_utils.InferenceResponse(y(1).output_tensors() * 2)]",
                "output 'y' was given twice",
            ),
        ],
    )
    def test_wrong_result_says_what_is_wrong(self, serve: Serve, returned: str, text: str) -> None:
        model = serve(f"def execute(self, requests): return {returned}")
        (outcome,) = run(model.instance, [work()])
        assert isinstance(outcome, ModelFailed)
        assert str(outcome).startswith("Failed to process the request(s) for model 'm_0_0', ")
        assert text in str(outcome)

    def test_output_that_is_not_configured_is_dropped_and_told_once(self, serve: Serve) -> None:
        """As in Triton, whose users do not know that they rely on it."""
        model = serve(
            """
            def execute(self, requests):
                z = pb_utils.Tensor("z", np.zeros(1))
                return [pb_utils.InferenceResponse([z, *y([1]).output_tensors()])]
            """
        )
        for _ in range(2):
            assert list(model.ask({"x": ONE})) == ["y"]
        assert model.host.lines == [
            (
                "warning",
                "instance 'm_0_0': the model gave an output 'z', which is dropped: its "
                "configuration has 'y'",
                "m",
            )
        ]

    @pytest.mark.parametrize("value", ["np.zeros(1)", "np.array([b'a'], object)"])
    def test_output_of_another_datatype_goes_as_it_is_and_is_told_once(
        self, serve: Serve, value: str
    ) -> None:
        """As in Triton: its own example of decoupled calls adds INT32 up to INT64."""
        model = serve(
            f"""
            def execute(self, requests):
                given = pb_utils.Tensor("y", {value})
                return [pb_utils.InferenceResponse([given]) for request in requests]
            """
        )
        for _ in range(2):
            assert model.ask({"x": ONE})["y"].dtype != np.float32
        ((level, line, _),) = model.host.lines
        assert level == "warning"
        assert "output 'y' is configured as TYPE_FP32, and the model gave TYPE_" in line

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("UNKNOWN", Kind.UNKNOWN),
            ("INTERNAL", Kind.MODEL_FAILED),
            ("NOT_FOUND", Kind.NOT_FOUND),
            ("INVALID_ARG", Kind.INVALID),
            ("UNAVAILABLE", Kind.UNAVAILABLE),
            ("UNSUPPORTED", Kind.UNSUPPORTED),
            ("ALREADY_EXISTS", Kind.CONFLICT),
            ("CANCELLED", Kind.CANCELLED),
        ],
    )
    def test_error_keeps_its_text_and_code(self, serve: Serve, code: str, kind: Kind) -> None:
        model = serve(
            f"""
            def execute(self, requests):
                error = pb_utils.TritonError("as I said", pb_utils.TritonError.{code})
                return [pb_utils.InferenceResponse(error=error) for request in requests]
            """
        )
        (outcome,) = run(model.instance, [work()])
        assert isinstance(outcome, ModelFailed)
        assert (str(outcome), outcome.kind) == ("as I said", kind)

    def test_error_of_one_request_leaves_the_others_alone(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                error = pb_utils.InferenceResponse(error=pb_utils.TritonError("short"))
                return [error if len(x_of(r)) < 2 else y(x_of(r)) for r in requests]
            """
        )
        one, two = run(model.instance, [work(ONE), work(TWO)])
        assert isinstance(one, Response)
        assert isinstance(two, ModelFailed)

    def test_outputs_come_in_the_order_of_the_configuration(self, serve: Serve) -> None:
        config = replace(
            X_TO_Y,
            output=tuple(
                ModelOutput(name=name, data_type="TYPE_INT32", dims=(1,)) for name in "abc"
            ),
        )
        model = serve(
            """
            def execute(self, requests):
                a, b, c = (pb_utils.Tensor(n, np.array([i], np.int32)) for i, n in enumerate("abc"))
                return [pb_utils.InferenceResponse([b, c, a]) for request in requests]
            """,
            config,
        )
        assert list(model.ask({"x": ONE})) == ["a", "b", "c"]
        assert list(model.ask({"x": ONE}, outputs=["c", "a"])) == ["a", "c"]

    def test_response_parameters_are_passed_on(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                tensors = y(1).output_tensors()
                return [pb_utils.InferenceResponse(tensors, parameters={"tokens": 3, "ok": True})]
            """
        )
        (outcome,) = run(model.instance, [work()])
        assert isinstance(outcome, Response)
        assert outcome.parameters == {"tokens": 3, "ok": True}

    def test_text_in_bytes_outputs_is_encoded(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                arrays = {
                    "a": np.array(["é", b"raw", 7], dtype=object),
                    "b": np.array(["snow ☃"]),
                    "c": np.array([b"fixed"]),
                }
                tensors = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
                return [pb_utils.InferenceResponse(tensors)]
            """,
            replace(
                X_TO_Y,
                output=tuple(
                    ModelOutput(name=name, data_type="TYPE_STRING", dims=(-1,)) for name in "abc"
                ),
            ),
        )
        answer = model.ask({"x": ONE})
        assert answer["a"].tolist() == ["é".encode(), b"raw", b"7"]
        assert answer["b"].tolist() == ["snow ☃".encode()]
        assert answer["c"].tolist() == [b"fixed"]
        assert all(array.dtype == BYTES.numpy for array in answer.values())

    def test_bits_of_bfloat16_may_be_given_as_uint16(self, serve: Serve) -> None:
        config = replace(X_TO_Y, output=(ModelOutput(name="y", data_type="TYPE_BF16", dims=(-1,)),))
        model = serve(
            """
            def execute(self, requests):
                bits = np.array([0x3F80], np.uint16)
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", bits)])]
            """,
            config,
        )
        (outcome,) = run(model.instance, [work()])
        assert isinstance(outcome, Response)
        assert outcome.outputs[0].datatype is BF16

    def test_optional_input_that_was_left_out_is_none(self, serve: Serve) -> None:
        bias = ModelInput(name="bias", data_type="TYPE_FP32", dims=(1,), optional=True)
        model = serve(
            """
            def execute(self, requests):
                biases = [pb_utils.get_input_tensor_by_name(r, "bias") for r in requests]
                return [
                    y(x_of(r) + (0 if bias is None else bias.as_numpy()))
                    for r, bias in zip(requests, biases)
                ]
            """,
            replace(X_TO_Y, input=(*X_TO_Y.input, bias)),
        )
        assert model.ask({"x": ONE})["y"].tolist() == [1, 2]
        assert model.ask({"x": ONE, "bias": TWO})["y"].tolist() == [4, 5]

    def test_inputs_may_be_written_to_without_harming_the_request(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                for request in requests:
                    x = x_of(request)
                    x += 1
                return [y(x_of(request)) for request in requests]
            """
        )
        assert model.ask({"x": ONE})["y"].tolist() == [2, 3]
        assert ONE.tolist() == [1, 2]

    def test_model_that_asks_for_views_gets_them_uncopied(self, serve: Serve) -> None:
        views = {"INPUT_VIEWS": Parameter(string_value="true")}
        model = serve(
            """
            def execute(self, requests):
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x_of(r))])
                        for r in requests]
            """,
            replace(X_TO_Y, parameters=views),
        )
        asked = work()
        (outcome,) = run(model.instance, [asked])
        assert isinstance(outcome, Response)
        assert outcome.outputs[0].array is asked.request.payload.tensors[0].array


class TestRequest:
    def test_everything_about_a_request_can_be_read(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                for r in requests:
                    pb_utils.Logger.log_info(repr((
                        r.request_id(), r.correlation_id(), r.flags(), r.timeout(),
                        r.parameters(), r.requested_output_names(), r.is_cancelled(),
                        [t.name() for t in r.inputs()], r.model_name(), r.model_version(),
                        r.trace().get_context(),
                    )))
                return [y(1) for r in requests]
            """
        )
        asked = work(parameters={"top_k": 3, "who": "me"})
        request = asked.request
        request.id = "r1"
        request.sequence_id, request.sequence_start, request.sequence_end = "s", True, True
        request.timeout_us = 250
        request.trace_id = "t"
        plain = work(outputs=["y"])
        run(model.instance, [asked, plain])
        first, second = (eval(line) for _, line, _ in model.host.lines)
        assert first[:4] == ("r1", "s", 3, 250)
        assert json.loads(first[4]) == {"top_k": 3, "who": "me"}
        assert first[5:] == (["y"], False, ["x"], "m", 1, None)
        assert second[:7] == ("", 0, 0, 0, "{}", ["y"], False)

    def test_cancellation_is_seen(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                gone = pb_utils.TritonError("gone", pb_utils.TritonError.CANCELLED)
                return [pb_utils.InferenceResponse(error=gone) if r.is_cancelled() else y(1)
                        for r in requests]
            """
        )
        asked = work()
        asked.is_cancelled = True
        (outcome,) = run(model.instance, [asked])
        assert isinstance(outcome, ModelFailed)
        assert outcome.kind is Kind.CANCELLED

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (
                "requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)",
                "iterative_sequence",
            ),
            ("requests[0].set_flags(1)", "its caller's"),
            ("pb_utils.InferenceRequest('o', [], []).get_response_sender()", "response sender"),
            ("pb_utils.MetricFamily('mine', 'd', 7)", "is of kind 7"),
            ("pb_utils.MetricFamily('nv_mine').Metric()", "the server's own"),
            ("pb_utils.MetricFamily('mine').Metric(buckets=[1])", "Unexpected buckets"),
            ("pb_utils.MetricFamily('mine', 'd', 2).Metric()", "'buckets'"),
            ("pb_utils.MetricFamily('mine').Metric().set(1)", "which has increment, not set"),
        ],
    )
    def test_what_is_not_offered_says_so(self, serve: Serve, call: str, text: str) -> None:
        model = serve(f"def execute(self, requests): {call}")
        (outcome,) = run(model.instance, [work()])
        assert isinstance(outcome, ModelFailed)
        assert "TritonModelException: " in str(outcome)
        assert text in str(outcome)

    def test_release_of_all_is_the_ordinary_thing(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                for request in requests:
                    request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
                return [y(1) for request in requests]
            """
        )
        assert model.ask({"x": ONE})["y"].tolist() == 1


class TestSenderOfOrdinaryModel:
    def answers(self, serve: Serve, body: str, works: list[FakeWork]) -> LoadedModel:
        model = serve(
            "def execute(self, requests):\n"
            "    self.senders = senders = [r.get_response_sender() for r in requests]\n"
            f"    {body}"
        )
        run(model.instance, works)
        return model

    @pytest.mark.parametrize("returned", ["None", "[None]", "[y(9)]"])
    def test_sent_response_is_the_answer_whatever_is_returned(
        self, serve: Serve, returned: str
    ) -> None:
        asked = work()
        model = serve(
            "def execute(self, requests):\n"
            "    requests[0].get_response_sender().send(y(5))\n"
            f"    return {returned}"
        )
        assert model.instance.execute(_batch(asked)) == [None]
        assert [r.outputs[0].array.tolist() for r in asked.responses] == [5]
        assert asked.is_ended

    def test_final_flag_after_the_response_changes_nothing(self, serve: Serve) -> None:
        asked = work()
        self.answers(serve, "senders[0].send(y(5)); senders[0].send(flags=FINAL)", [asked])
        assert len(asked.sent) == 1

    def test_later_responses_are_dropped(self, serve: Serve) -> None:
        asked = work()
        self.answers(serve, "senders[0].send(y(5)); senders[0].send(y(6), flags=FINAL)", [asked])
        assert [r.outputs[0].array.tolist() for r in asked.responses] == [5]

    def test_response_sent_after_one_was_returned_is_dropped(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                self.senders = [request.get_response_sender() for request in requests]
                return [y(1) for request in requests]

            def finalize(self):
                try:
                    self.senders[0].send(y(2))
                except pb_utils.TritonModelException as exc:
                    pb_utils.Logger.log_info(str(exc))
            """
        )
        asked = work()
        (outcome,) = run(model.instance, [asked])
        assert isinstance(outcome, Response)
        model.instance.unload()
        assert asked.sent == []
        assert "Response sender has been closed" in model.host.lines[0][1]

    def test_response_may_come_after_execute_has_returned(self, serve: Serve) -> None:
        asked = work()
        model = self.answers(serve, "return None", [asked])
        assert asked.sent == []
        model.instance._model.senders[0].send(_response(model, 4))  # type: ignore[attr-defined]
        assert [r.outputs[0].array.tolist() for r in asked.responses] == [4]

    def test_final_flag_without_a_response_is_an_error(self, serve: Serve) -> None:
        asked = work()
        model = serve(
            """
            def execute(self, requests):
                requests[0].get_response_sender().send(flags=FINAL)
            """
        )
        (outcome,) = run(model.instance, [asked])
        assert "Non-decoupled model cannot send complete final before sending a response" in str(
            outcome
        )

    def test_sender_that_is_dropped_unused_tells_the_caller(self, serve: Serve) -> None:
        asked = work()
        model = self.answers(serve, "return None", [asked])
        model.instance._model.senders.clear()  # type: ignore[attr-defined]
        gc.collect()
        assert ["without answering it to the end" in text for text in texts([asked])] == [True]

    def test_exception_after_sending_harms_only_who_has_no_answer(self, serve: Serve) -> None:
        works = [work(), work()]
        model = serve(
            """
            def execute(self, requests):
                requests[0].get_response_sender().send(y(5))
                raise ValueError("late")
            """
        )
        answered, failed = run(model.instance, works)
        assert isinstance(answered, Response)
        assert isinstance(failed, ModelFailed)
        assert len(works[0].sent) == 1


class TestSenderOfDecoupledModel:
    def test_any_number_of_responses_from_a_thread(self, serve: Serve) -> None:
        model = serve(
            """
            def initialize(self, args):
                self.threads = []

            def execute(self, requests):
                for request in requests:
                    thread = threading.Thread(target=self.answer, args=(request,))
                    self.threads.append(thread)
                    thread.start()

            def answer(self, request):
                sender = request.get_response_sender()
                for value in x_of(request):
                    sender.send(y([value]))
                sender.send(flags=FINAL)

            def finalize(self):
                for thread in self.threads:
                    thread.join()
            """,
            DECOUPLED,
        )
        works = [work(ONE), work(np.empty(0, np.float32))]
        assert model.instance.execute(_batch(*works)) is None
        model.instance.unload()
        assert [r.outputs[0].array.tolist() for r in works[0].responses] == [[1], [2]]
        assert [len(each.sent) for each in works] == [3, 1]
        assert all(each.is_ended for each in works)

    def test_coroutine_may_wait_for_the_reader(self, serve: Serve) -> None:
        model = serve(
            """
            async def execute(self, requests):
                for request in requests:
                    sender = request.get_response_sender()
                    for value in x_of(request):
                        await sender.drained()
                        sender.send(y([value]))
                    sender.send(y([0]), flags=FINAL)
            """,
            DECOUPLED,
        )
        asked = work()
        run(model.instance, [asked])
        assert [r.outputs[0].array.tolist() for r in asked.responses] == [[1], [2], [0]]
        assert (asked.drains, asked.is_ended) == (2, True)

    def test_error_is_one_of_the_responses(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                sender = requests[0].get_response_sender()
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("hm")))
                sender.send(pb_utils.InferenceResponse([3]))
                sender.send(flags=FINAL)
            """,
            DECOUPLED,
        )
        asked = work()
        run(model.instance, [asked])
        told, wrong, end = asked.sent
        assert str(told) == "hm"
        assert "expected Tensor objects in output_tensors" in str(wrong)
        assert end is None

    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_returning_responses_is_an_error_of_those_still_open(
        self, serve: Serve, kind: str
    ) -> None:
        model = serve(
            f"""
            {kind} execute(self, requests):
                requests[0].get_response_sender().send(y(1), flags=FINAL)
                return [y(2) for request in requests]
            """,
            DECOUPLED,
        )
        works = [work(), work()]
        first, second = run(model.instance, works)
        assert isinstance(first, Response)
        assert str(second).endswith(
            "Python model 'm_0_0' is using the decoupled mode and the execute function must "
            "return None."
        )
        assert [len(each.sent) for each in works] == [1, 0]

    def test_exception_fails_those_still_open(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                requests[0].get_response_sender().send(y(1), flags=FINAL)
                requests[1].get_response_sender().send(y(1))
                raise ValueError("no")
            """,
            DECOUPLED,
        )
        works = [work(), work()]
        outcomes = model.instance.execute(_batch(*works))
        assert isinstance(outcomes, list)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], ModelFailed)

    @pytest.mark.parametrize(
        ("calls", "text"),
        [
            (
                "s.send(flags=FINAL); s.send(y(1))",
                "Unable to send response. Response sender has been closed.",
            ),
            ("s.send()", "A response must be given unless the flags"),
            ("s.send(y(1), flags=4)", "Unsupported flag 4"),
        ],
    )
    def test_calls_that_make_no_sense_raise(self, serve: Serve, calls: str, text: str) -> None:
        model = serve(
            f"""
            def execute(self, requests):
                s = requests[0].get_response_sender()
                try:
                    {calls}
                except pb_utils.TritonModelException as exc:
                    pb_utils.Logger.log_error(exc.message())
            """,
            DECOUPLED,
        )
        run(model.instance, [work()])
        assert text in model.host.lines[0][1]

    def test_sending_to_nobody_is_not_an_error_of_the_model(self, serve: Serve) -> None:
        """A model that counts its streams down at the end must get to the end."""
        model = serve(
            """
            def execute(self, requests):
                sender = requests[0].get_response_sender()
                for value in range(5):
                    sender.send(y([value]))
                pb_utils.Logger.log_info(str(sender.is_cancelled()))
                sender.send(flags=FINAL)
            """,
            DECOUPLED,
        )
        asked = FakeWork(work().request, cancels_after=2)
        run(model.instance, [asked])
        assert len(asked.responses) == 2
        assert model.host.lines == [("info", "True", "m")]

    @pytest.mark.parametrize(
        "body",
        [
            "return None",
            "requests[0].get_response_sender().send(y(1))",
            "self.kept = None",
        ],
    )
    def test_request_that_is_let_go_of_without_its_end_tells_the_caller(
        self, serve: Serve, body: str
    ) -> None:
        model = serve(f"def execute(self, requests): {body}", DECOUPLED)
        asked = work()
        model.instance.execute(_batch(asked))
        gc.collect()
        assert asked.is_ended
        assert "TRITONSERVER_RESPONSE_COMPLETE_FINAL" in str(asked.sent[-1])

    @pytest.mark.parametrize("config", [DECOUPLED, X_TO_Y])
    def test_last_response_that_cannot_be_read_leaves_the_request_to_be_answered(
        self, serve: Serve, config: ModelConfig
    ) -> None:
        """Half a surrogate pair is text in Python, and nowhere else."""
        body = (
            "def execute(self, requests):\n"
            "    half = pb_utils.Tensor('y', np.array(['\\udcff']))\n"
            "    response = pb_utils.InferenceResponse([half])\n"
            "    requests[0].get_response_sender().send(response, flags=FINAL)"
        )
        strings = (ModelOutput(name="y", data_type="TYPE_STRING", dims=(-1,)),)
        model = serve(body, replace(config, output=strings))
        asked = work()
        (outcome,) = run(model.instance, [asked])
        assert "surrogates not allowed" in str(outcome)

    def test_on_a_loop_the_caller_is_told_at_its_next_turn(self, serve: Serve) -> None:
        """What is let go of by the garbage collector must not reach into the engine's work."""
        model = serve("async def execute(self, requests): return None", DECOUPLED)
        asked = work()

        async def execute() -> None:
            running = model.instance.execute(_batch(asked))
            assert inspect.isawaitable(running)
            await running
            assert asked.sent == []
            await asyncio.sleep(0)

        asyncio.run(execute())
        assert asked.is_ended


def _batch(*works: FakeWork) -> Batch:
    return Batch(works, len(works))


def _response(model: LoadedModel, value: float) -> object:
    return InferenceResponse([Tensor("y", np.array(value, np.float32))])


ITERATIVE = replace(X_TO_Y, sequence_batching=SequenceBatching(iterative_sequence=True))


class TestIterativeSequences:
    def test_a_request_comes_again_until_it_is_answered(self, serve: Serve) -> None:
        model = serve(
            """
            def initialize(self, args):
                self.left = 2

            def execute(self, requests):
                self.left -= 1
                if self.left:
                    requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                    return [None]
                requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
                return [y(x_of(requests[0]))]
            """,
            ITERATIVE,
        )
        asked = work()
        assert run(model.instance, [asked]) == [None]
        assert asked.reschedules == 1
        (outcome,) = run(model.instance, [asked])
        assert isinstance(outcome, Response)
        assert asked.reschedules == 1

    def test_a_stream_goes_on_when_the_request_comes_again(self, serve: Serve) -> None:
        model = serve(
            """
            def execute(self, requests):
                sender = requests[0].get_response_sender()
                sender.send(y(x_of(requests[0])))
                requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            """,
            replace(ITERATIVE, model_transaction_policy=TransactionPolicy(decoupled=True)),
        )
        asked = work()
        for _ in range(3):
            run(model.instance, [asked])
        assert len(asked.responses) == len(asked.sent) == asked.reschedules == 3
        assert not asked.is_ended

    def test_a_response_of_a_request_that_comes_again_fails_it(self, serve: Serve) -> None:
        """It would come again for ever."""
        model = serve(
            """
            def execute(self, requests):
                requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                return [y(x_of(requests[0]))]
            """,
            ITERATIVE,
        )
        asked = work()
        (outcome,) = run(model.instance, [asked])
        assert "Expected a None object in the execute function return list" in str(outcome)
        assert asked.reschedules == 0

    def test_flags_that_there_are_not_are_refused(self, serve: Serve) -> None:
        model = serve("def execute(self, requests): requests[0].set_release_flags(3)", ITERATIVE)
        (outcome,) = run(model.instance, [work()])
        assert "Unsupported release flags 3" in str(outcome)

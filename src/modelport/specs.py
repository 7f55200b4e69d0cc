"""What a model is, as its configuration says: the fields of Triton's ModelConfig as plain data.

The names and the defaults are those of ``model_config.proto``, because existing repositories are
full of them; ``wire.model_config`` reads pbtxt, JSON and YAML into these classes.
Empty string, 0 and empty tuple mean "not given" here, as in proto3, and nowhere else in the
project; a sub-message that may be absent is ``None``. Where a default is not 0 (``num_versions``,
``model_version``), it is what 0 stands for, and the readers put it there.

The annotations are the whole schema: ``Annotated`` types carry the range of an integer and the
values of an enumeration, and the readers and writers in ``wire`` walk them, so that a field is
declared here and nowhere else (the protobuf schema beside them is held to it by a test).

Source: Triton ``model_config.proto``.
"""

from dataclasses import field
from typing import Annotated, Final, Literal

from msgspec import Struct

from modelport.dtypes import DATATYPE_BY_CONFIG_NAME, DataType
from modelport.records import Record

__all__ = [
    "ENVIRONMENT",
    "Agent",
    "All",
    "BatchInput",
    "BatchOutput",
    "CacheControl",
    "Control",
    "ControlInput",
    "Cuda",
    "CudaGraphBound",
    "CudaGraphInput",
    "CudaGraphSpec",
    "Direct",
    "DynamicBatching",
    "EnsembleScheduling",
    "EnsembleStep",
    "Execution",
    "ExecutionAccelerator",
    "ExecutionAccelerators",
    "Graph",
    "Histogram",
    "InitialState",
    "InstanceGroup",
    "Latest",
    "Message",
    "MetricControl",
    "MetricFamilyIdentifier",
    "ModelConfig",
    "ModelInput",
    "ModelMetrics",
    "ModelOperations",
    "ModelOutput",
    "ModelWarmup",
    "Oldest",
    "OneOf",
    "Optimization",
    "Parameter",
    "PinnedMemory",
    "QueuePolicy",
    "RateLimiter",
    "RepositoryAgents",
    "Reshape",
    "Resource",
    "SecondaryDevice",
    "SequenceBatching",
    "Single",
    "Specific",
    "State",
    "TransactionPolicy",
    "VersionPolicy",
    "WarmupInput",
    "Within",
]


class Message(Record):
    """A part of a configuration."""


class Within(Struct, frozen=True):
    """Marks an integer that must lie in ``[least, most]``."""

    least: int
    most: int


class OneOf(Struct, frozen=True):
    """Marks a text that must be one of ``names``; its place is its number in protobuf."""

    names: tuple[str, ...]


class Single(Struct, frozen=True):
    """Marks a float of single precision."""


Int32 = Annotated[int, Within(-(2**31), 2**31 - 1)]
UInt32 = Annotated[int, Within(0, 2**32 - 1)]
Int64 = Annotated[int, Within(-(2**63), 2**63 - 1)]
UInt64 = Annotated[int, Within(0, 2**64 - 1)]
Float32 = Annotated[float, Single()]

DataTypeName = Annotated[
    str,
    OneOf(
        (
            "TYPE_INVALID",
            "TYPE_BOOL",
            "TYPE_UINT8",
            "TYPE_UINT16",
            "TYPE_UINT32",
            "TYPE_UINT64",
            "TYPE_INT8",
            "TYPE_INT16",
            "TYPE_INT32",
            "TYPE_INT64",
            "TYPE_FP16",
            "TYPE_FP32",
            "TYPE_FP64",
            "TYPE_STRING",
            "TYPE_BF16",
        )
    ),
]
Format = Annotated[str, OneOf(("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"))]
InstanceKind = Annotated[str, OneOf(("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"))]
SecondaryDeviceKind = Annotated[str, OneOf(("KIND_NVDLA",))]
TimeoutAction = Annotated[str, OneOf(("REJECT", "DELAY"))]
Priority = Annotated[str, OneOf(("PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"))]
ControlKind = Annotated[
    str,
    OneOf(
        (
            "CONTROL_SEQUENCE_START",
            "CONTROL_SEQUENCE_READY",
            "CONTROL_SEQUENCE_END",
            "CONTROL_SEQUENCE_CORRID",
        )
    ),
]
BatchInputKind = Annotated[
    str,
    OneOf(
        (
            "BATCH_ELEMENT_COUNT",
            "BATCH_ACCUMULATED_ELEMENT_COUNT",
            "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
            "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
            "BATCH_ITEM_SHAPE",
            "BATCH_ITEM_SHAPE_FLATTEN",
        )
    ),
]
BatchOutputKind = Annotated[str, OneOf(("BATCH_SCATTER_WITH_INPUT_SHAPE",))]


class Reshape(Message):
    """The shape that the model itself wants, where it differs from ``dims``."""

    shape: tuple[Int64, ...] = ()


class ModelInput(Message):
    """One input. ``dims`` leave out the batch dimension; -1 is any size."""

    name: str = ""
    data_type: DataTypeName = "TYPE_INVALID"
    format: Format = "FORMAT_NONE"
    dims: tuple[Int64, ...] = ()
    reshape: Reshape | None = None
    is_shape_tensor: bool = False
    allow_ragged_batch: bool = False
    optional: bool = False
    is_non_linear_format_io: bool = False

    @property
    def datatype(self) -> DataType:
        """The datatype on the wire."""
        return DATATYPE_BY_CONFIG_NAME[self.data_type]


class ModelOutput(Message):
    """One output. ``dims`` leave out the batch dimension; -1 is any size."""

    name: str = ""
    data_type: DataTypeName = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    reshape: Reshape | None = None
    label_filename: str = ""
    is_shape_tensor: bool = False
    is_non_linear_format_io: bool = False

    @property
    def datatype(self) -> DataType:
        """The datatype on the wire."""
        return DATATYPE_BY_CONFIG_NAME[self.data_type]


class Latest(Message):
    """Serve the ``num_versions`` highest versions."""

    num_versions: UInt32 = 1


class All(Message):
    """Serve every version."""


class Specific(Message):
    """Serve these versions."""

    versions: tuple[Int64, ...] = ()


class VersionPolicy(Message):
    """Which versions of a model are served; at most one of the three is set."""

    latest: Latest | None = None
    all: All | None = None
    specific: Specific | None = None


class Resource(Message):
    """Something a rate limiter counts."""

    name: str = ""
    is_global: bool = field(default=False, metadata={"name": "global"})
    """``global`` in every form of a configuration, which is a keyword here."""
    count: UInt32 = 0


class RateLimiter(Message):
    """What an execution holds while it runs."""

    resources: tuple[Resource, ...] = ()
    priority: UInt32 = 0


class SecondaryDevice(Message):
    """A device beside the main one."""

    kind: SecondaryDeviceKind = "KIND_NVDLA"
    device_id: Int64 = 0


class InstanceGroup(Message):
    """``count`` instances of one kind; with KIND_GPU that many on each of ``gpus``."""

    name: str = ""
    kind: InstanceKind = "KIND_AUTO"
    count: Int32 = 0
    gpus: tuple[Int32, ...] = ()
    rate_limiter: RateLimiter | None = None
    secondary_devices: tuple[SecondaryDevice, ...] = ()
    profile: tuple[str, ...] = ()
    passive: bool = False
    host_policy: str = ""


class QueuePolicy(Message):
    """How long a request may wait, and how many may."""

    timeout_action: TimeoutAction = "REJECT"
    default_timeout_microseconds: UInt64 = 0
    allow_timeout_override: bool = False
    max_queue_size: UInt32 = 0


class DynamicBatching(Message):
    """How requests are put together; its presence turns batching on."""

    preferred_batch_size: tuple[Int32, ...] = ()
    max_queue_delay_microseconds: UInt64 = 0
    preserve_ordering: bool = False
    priority_levels: UInt64 = 0
    default_priority_level: UInt64 = 0
    default_queue_policy: QueuePolicy | None = None
    priority_queue_policy: dict[UInt64, QueuePolicy] = field(default_factory=dict)


class Graph(Message):
    """How far a framework may optimize the graph."""

    level: Int32 = 0


class CudaGraphInput(Message):
    """A shape, without names."""

    dim: tuple[Int64, ...] = ()


class CudaGraphBound(Message):
    """The least sizes for which a CUDA graph is used."""

    batch_size: Int32 = 0
    input: dict[str, CudaGraphInput] = field(default_factory=dict)


class CudaGraphSpec(Message):
    """Sizes for which a CUDA graph is captured."""

    batch_size: Int32 = 0
    input: dict[str, CudaGraphInput] = field(default_factory=dict)
    graph_lower_bound: CudaGraphBound | None = None


class Cuda(Message):
    """CUDA settings."""

    graphs: bool = False
    busy_wait_events: bool = False
    graph_spec: tuple[CudaGraphSpec, ...] = ()
    output_copy_stream: bool = False


class ExecutionAccelerator(Message):
    """One accelerator of a framework, with its own parameters."""

    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


class ExecutionAccelerators(Message):
    """Accelerators to try, by kind of device."""

    gpu_execution_accelerator: tuple[ExecutionAccelerator, ...] = ()
    cpu_execution_accelerator: tuple[ExecutionAccelerator, ...] = ()


class PinnedMemory(Message):
    """Whether page-locked memory is used for transfers."""

    enable: bool = False


class Optimization(Message):
    """Hints to the framework."""

    graph: Graph | None = None
    priority: Priority = "PRIORITY_DEFAULT"
    cuda: Cuda | None = None
    execution_accelerators: ExecutionAccelerators | None = None
    input_pinned_memory: PinnedMemory | None = None
    output_pinned_memory: PinnedMemory | None = None
    gather_kernel_buffer_threshold: UInt32 = 0
    eager_batching: bool = False


class Control(Message):
    """What a control tensor means, and the values it takes."""

    kind: ControlKind = "CONTROL_SEQUENCE_START"
    int32_false_true: tuple[Int32, ...] = ()
    fp32_false_true: tuple[Float32, ...] = ()
    bool_false_true: tuple[bool, ...] = ()
    data_type: DataTypeName = "TYPE_INVALID"


class ControlInput(Message):
    """An input that the sequence batcher fills."""

    name: str = ""
    control: tuple[Control, ...] = ()


class InitialState(Message):
    """What an implicit state holds when a sequence starts."""

    name: str = ""
    data_type: DataTypeName = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    zero_data: bool | None = None
    data_file: str | None = None


class State(Message):
    """A tensor that goes from one request of a sequence to the next."""

    input_name: str = ""
    output_name: str = ""
    data_type: DataTypeName = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    initial_state: tuple[InitialState, ...] = ()
    use_same_buffer_for_input_output: bool = False
    use_growable_memory: bool = False


class Direct(Message):
    """Each sequence keeps one place in the batch of one instance."""

    max_queue_delay_microseconds: UInt64 = 0
    minimum_slot_utilization: Float32 = 0.0


class Oldest(Message):
    """Sequences are batched as they come, the oldest first."""

    max_candidate_sequences: Int32 = 0
    preferred_batch_size: tuple[Int32, ...] = ()
    max_queue_delay_microseconds: UInt64 = 0
    preserve_ordering: bool = False


class SequenceBatching(Message):
    """How sequences are scheduled; its presence makes the model stateful."""

    direct: Direct | None = None
    oldest: Oldest | None = None
    max_sequence_idle_microseconds: UInt64 = 0
    control_input: tuple[ControlInput, ...] = ()
    state: tuple[State, ...] = ()
    iterative_sequence: bool = False


class Parameter(Message):
    """A value for the runtime."""

    string_value: str = ""


class EnsembleStep(Message):
    """One model of an ensemble. The maps go from the model's names to the ensemble's.

    ``model_version`` -1 is the highest one that is ready.
    """

    model_name: str = ""
    model_version: Int64 = -1
    input_map: dict[str, str] = field(default_factory=dict)
    output_map: dict[str, str] = field(default_factory=dict)
    model_namespace: str = ""


class EnsembleScheduling(Message):
    """The steps of an ensemble, in any order: names make the graph."""

    step: tuple[EnsembleStep, ...] = ()
    max_inflight_requests: UInt32 = 0


class WarmupInput(Message):
    """Where a warm-up request's tensor comes from."""

    data_type: DataTypeName = "TYPE_INVALID"
    dims: tuple[Int64, ...] = ()
    zero_data: bool | None = None
    random_data: bool | None = None
    input_data_file: str | None = None


class ModelWarmup(Message):
    """A request that is run before the model is ready."""

    name: str = ""
    batch_size: UInt32 = 0
    inputs: dict[str, WarmupInput] = field(default_factory=dict)
    count: UInt32 = 0


class ModelOperations(Message):
    """Libraries with operations of one's own."""

    op_library_filename: tuple[str, ...] = ()


class TransactionPolicy(Message):
    """Whether a request has one response, or any number of them."""

    decoupled: bool = False


class BatchInput(Message):
    """An input that describes the batch."""

    kind: BatchInputKind = "BATCH_ELEMENT_COUNT"
    target_name: tuple[str, ...] = ()
    data_type: DataTypeName = "TYPE_INVALID"
    source_input: tuple[str, ...] = ()


class BatchOutput(Message):
    """An output that is cut by something else than its first dimension."""

    target_name: tuple[str, ...] = ()
    kind: BatchOutputKind = "BATCH_SCATTER_WITH_INPUT_SHAPE"
    source_input: tuple[str, ...] = ()


class Agent(Message):
    """One repository agent."""

    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


class RepositoryAgents(Message):
    """What looks at a model directory before it is loaded."""

    agents: tuple[Agent, ...] = ()


class CacheControl(Message):
    """Whether answers are kept and given again."""

    enable: bool = False


class MetricFamilyIdentifier(Message):
    """The metric that is meant."""

    family: str = ""


class Histogram(Message):
    """Upper bounds, rising."""

    buckets: tuple[float, ...] = ()


class MetricControl(Message):
    """How one metric is kept for this model."""

    metric_identifier: MetricFamilyIdentifier | None = None
    histogram_options: Histogram | None = None


class ModelMetrics(Message):
    """How metrics are kept for this model."""

    metric_control: tuple[MetricControl, ...] = ()


class ModelConfig(Message):
    """All that a configuration can say of a model.

    The order of the fields is the order in which Triton prints them.
    """

    name: str = ""
    platform: str = ""
    backend: str = ""
    runtime: str = ""
    version_policy: VersionPolicy | None = None
    max_batch_size: Int32 = 0
    input: tuple[ModelInput, ...] = ()
    output: tuple[ModelOutput, ...] = ()
    batch_input: tuple[BatchInput, ...] = ()
    batch_output: tuple[BatchOutput, ...] = ()
    optimization: Optimization | None = None
    dynamic_batching: DynamicBatching | None = None
    sequence_batching: SequenceBatching | None = None
    ensemble_scheduling: EnsembleScheduling | None = None
    instance_group: tuple[InstanceGroup, ...] = ()
    default_model_filename: str = ""
    cc_model_filenames: dict[str, str] = field(default_factory=dict)
    metric_tags: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    model_warmup: tuple[ModelWarmup, ...] = ()
    model_operations: ModelOperations | None = None
    model_transaction_policy: TransactionPolicy | None = None
    model_repository_agents: RepositoryAgents | None = None
    response_cache: CacheControl | None = None
    model_metrics: ModelMetrics | None = None

    @property
    def is_decoupled(self) -> bool:
        """Whether a request may have no response, or many."""
        return self.model_transaction_policy is not None and self.model_transaction_policy.decoupled

    @property
    def first_response_buckets_ms(self) -> tuple[float, ...]:
        """The bounds that it wants for the histogram of first responses; empty for the usual."""
        for control in self.model_metrics.metric_control if self.model_metrics is not None else ():
            if control.histogram_options is not None and control.histogram_options.buckets:
                return control.histogram_options.buckets
        return ()

    def parameter(self, name: str, default: str = "") -> str:
        """The text of one of ``parameters``."""
        found = self.parameters.get(name)
        return default if found is None else found.string_value

    def switch(self, name: str, default: bool = False) -> bool:
        """Whether one of ``parameters`` says yes: ``true``, ``on`` or ``1``, in any case."""
        return self.parameter(name, str(default)).strip().lower() in ("true", "on", "1")


ENVIRONMENT: Final = "EXECUTION_ENV_PATH"
"""The parameter by which a Python model brings its own environment along."""

Execution = Literal["inline", "thread", "process", "auto"]
"""Where a model runs: on the event loop, in a thread, in a worker process, or as measured."""

"""Options of tritonserver that are known here and not offered: what to do about each.

A launch line that someone pastes must not seem to work while half of it is ignored, so each is an
error that says what to do. Only where a value asks for what happens anyway is it let through.

Source: ``tritonserver --help``, 2.51 to 2.73; none of these names is a setting of ours.
"""

__all__ = ["HARMLESS_VALUE_BY_FLAG", "REMEDY_BY_FLAG"]

_ONE_LOOP = "one event loop serves all connections, there are no pools to size; leave it out"
_NO_POOL = "memory comes from the system as needed, there are no pools to size; leave it out"
_NO_CLOUD = "the routes of SageMaker and Vertex AI are not served; leave it out"
_TRACE = "was replaced; use --trace-config, as in --trace-config triton,file=trace.json"
_NO_PLUGINS = "there are no backend libraries to find, runtimes are Python packages; leave it out"

REMEDY_BY_FLAG = {
    "--strict-model-config": "it is the old name of --disable-auto-complete-config; use that",
    "--backend-config": "use --default-max-batch-size, or parameters in the model configuration",
    "--model-namespacing": "model names are one space here; give models different names",
    "--model-load-thread-count": "models are loaded in parallel as needed; leave it out",
    "--model-load-retry-count": "a load is tried once; load the model again by request",
    "--model-load-gpu-limit": "GPU memory is not watched here; leave it out",
    "--rate-limit": "bound a model by its instance_group count; leave it out",
    "--rate-limit-resource": "bound a model by its instance_group count; leave it out",
    "--host-policy": "pin the process with taskset or numactl; leave it out",
    "--metrics-address": "every listener has the address of --host; leave it out",
    "--metrics-interval-ms": "metrics are computed when they are asked for; leave it out",
    "--allow-gpu-metrics": "metrics of the machine come from node and GPU exporters; leave it out",
    "--allow-cpu-metrics": "metrics of the machine come from node and GPU exporters; leave it out",
    "--enable-peer-access": "GPUs are left to the runtimes; leave it out",
    "--min-supported-compute-capability": "GPUs are left to the runtimes; leave it out",
    "--reuse-http-port": "one process owns the port; leave it out",
    "--reuse-grpc-port": "one process owns the port; leave it out",
    "--http-thread-count": _ONE_LOOP,
    "--buffer-manager-thread-count": _NO_POOL,
    "--pinned-memory-pool-byte-size": _NO_POOL,
    "--cuda-memory-pool-byte-size": _NO_POOL,
    "--cuda-virtual-address-size": _NO_POOL,
    "--response-cache-byte-size": "use --cache-config local,size=BYTES",
    "--cache-directory": _NO_PLUGINS,
    "--backend-directory": _NO_PLUGINS,
    "--repoagent-directory": "repository agents are not offered; leave it out",
    "--trace-file": _TRACE,
    "--trace-level": _TRACE,
    "--trace-rate": _TRACE,
    "--trace-count": _TRACE,
    "--trace-log-frequency": _TRACE,
    "--allow-sagemaker": _NO_CLOUD,
    "--sagemaker-port": _NO_CLOUD,
    "--sagemaker-safe-port-range": _NO_CLOUD,
    "--sagemaker-thread-count": _NO_CLOUD,
    "--allow-vertex-ai": _NO_CLOUD,
    "--vertex-ai-port": _NO_CLOUD,
    "--vertex-ai-thread-count": _NO_CLOUD,
    "--vertex-ai-default-model": _NO_CLOUD,
    "--grpc-address": "every listener has the address of --host; leave it out",
    "--grpc-infer-thread-count": _ONE_LOOP,
    "--grpc-infer-allocation-pool-size": _NO_POOL,
    "--grpc-max-response-pool-size": _NO_POOL,
}

# A value that asks for what happens here anyway.
HARMLESS_VALUE_BY_FLAG = {
    "--model-namespacing": False,
    "--allow-gpu-metrics": False,
    "--allow-cpu-metrics": False,
    "--enable-peer-access": False,
    "--rate-limit": False,
    "--reuse-http-port": False,
    "--reuse-grpc-port": False,
    "--allow-sagemaker": False,
    "--allow-vertex-ai": False,
}

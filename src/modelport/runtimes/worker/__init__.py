"""Instances that run in worker processes: a runtime here that stands in for one over there.

``stand_in`` is what the engine sees, ``process`` and ``link`` are what it speaks through, and
``serving`` is the other end, started by ``main``. Between the two go frames (``frames``) over a
pair of Unix sockets, and large tensors through shared memory that has no name (``arena``).
"""

from modelport.runtimes.worker.stand_in import WorkerRuntime, worker_runtime

__all__ = ["WorkerRuntime", "worker_runtime"]

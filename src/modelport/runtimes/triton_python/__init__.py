"""Runs model files written for Triton's Python backend, unchanged.

``pb_utils`` is what such files import as ``triton_python_backend_utils``; ``runtime`` is the side
that faces the engine; ``modules`` imports the files, each load under a name of its own.
"""

from modelport.runtimes.triton_python.runtime import TritonPythonRuntime

__all__ = ["TritonPythonRuntime"]

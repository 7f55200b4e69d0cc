"""The name under which model files for Triton's Python backend import their tools.

A module of its own, installed beside ``modelport``, so that such a file can be imported outside the
server too: by its own tests, an editor or a type checker.
"""

from modelport.runtimes.triton_python.pb_utils import *  # noqa: F403  # the same names
from modelport.runtimes.triton_python.pb_utils import __all__ as __all__

"""Modelport serves any model to every client, and calls any server from one client."""

from modelport._version import __version__

__all__ = ["__version__"]

"""Typed Python classes as services: how they are declared, and what follows from their types.

:mod:`.declaration` is what authors use and loads nothing heavy; :mod:`.endpoint` reads a method's
signature with pydantic and turns requests into arguments and results into answers. Nothing here
knows a socket or a queue.
"""

__all__ = []

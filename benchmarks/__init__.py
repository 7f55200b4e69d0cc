"""Measure Modelport beside a bare uvicorn: ``python -m benchmarks``.

What each number means, how it is taken and what to beware of stands in
``docs/design/measuring.md``.
"""

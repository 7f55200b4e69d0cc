"""One table from method and path to a route, built at start."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modelport.errors import ModelportError
from modelport.protocols.base import Route
from modelport.wire.http import unquote_component

__all__ = ["Match", "Router"]


class RouteClash(ModelportError):
    """Two routes want the same requests."""


@dataclass(frozen=True, slots=True)
class Match:
    """What the table says of a request.

    Attributes:
        route: ``None`` if there is none for this method.
        params: What the pattern found, decoded.
        is_known_path: Whether another method would have found a route.
    """

    route: Route | None
    params: dict[str, str]
    is_known_path: bool


class Router:
    """The table of routes.

    Literal components win over parameters, so ``/v2/models/stats`` is never a model's name.

    Raises:
        RouteClash: If two routes have the same method and pattern.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        by_pattern: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods = by_pattern.setdefault(route.pattern, {})
            if route.method in methods:
                raise RouteClash(f"two routes answer {route.method} {route.pattern}")
            methods[route.method] = route
        self._static = {p: methods for p, methods in by_pattern.items() if "{" not in p}
        dynamic = [(p, methods) for p, methods in by_pattern.items() if "{" in p]
        dynamic.sort(key=lambda row: _specificity(row[0]))
        self._dynamic = [(re.compile(_regex(p)), methods) for p, methods in dynamic]

    def match(self, method: str, path: str) -> Match:
        """Find the route of a request; ``path`` is still percent-encoded."""
        methods = self._static.get(path)
        if methods is not None:
            return _choose(methods, method, {})
        for pattern, candidates in self._dynamic:
            found = pattern.fullmatch(path)
            if found is not None:
                params = {n: unquote_component(v) for n, v in found.groupdict().items()}
                return _choose(candidates, method, params)
        return Match(None, {}, is_known_path=False)


def _choose(methods: dict[str, Route], method: str, params: dict[str, str]) -> Match:
    route = methods.get(method)
    if route is None and method == "HEAD":
        get = methods.get("GET")
        route = get if get is not None and "head" in get.tags else None
    return Match(route, params, is_known_path=True)


def _specificity(pattern: str) -> tuple[Sequence[int], int]:
    parts = pattern.split("/")
    return [2 if ":path}" in part else 1 if part.startswith("{") else 0 for part in parts], -len(
        parts
    )


def _regex(pattern: str) -> str:
    pieces = []
    for part in re.split(r"(\{[^}]*\})", pattern):
        if part.startswith("{"):
            name, _, kind = part[1:-1].partition(":")
            pieces.append(f"(?P<{name}>{_KINDS[kind]})")
        else:
            pieces.append(re.escape(part))
    return "".join(pieces)


_KINDS = {"": "[^/]+", "int": "[0-9]+", "path": ".*"}

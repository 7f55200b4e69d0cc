"""One table from method and path to a route, built at start."""

import re
from collections.abc import Iterable

from msgspec import Struct

from modelport.errors import ModelportError
from modelport.protocols.base import Route
from modelport.wire.http import unquote_component

__all__ = ["Match", "RouteClash", "Router"]

MOST_REMEMBERED = 1024
"""Paths whose route is remembered; then all are forgotten. Enough for every model of a server."""
LONGEST_REMEMBERED = 256
"""Characters of such a path, so that what strangers ask for stays small."""


class RouteClash(ModelportError):
    """Two routes want the same requests."""


class Match(Struct, frozen=True):
    """What the table says of a request; kept for the next one, so not to be changed.

    Attributes:
        route: ``None`` if there is none for this method.
        params: What the pattern found, decoded.
        methods: That the path has routes for, in alphabetical order; none if it is not known.
    """

    route: Route | None
    params: dict[str, str]
    methods: tuple[str, ...] = ()

    @property
    def is_known_path(self) -> bool:
        """Whether another method would have found a route."""
        return bool(self.methods)


class Router:
    """The table of routes.

    Components are compared from the left; what is literal wins over what is a parameter, so
    ``/v2/models/stats`` is never a model's name.

    Raises:
        RouteClash: If two routes would answer the same requests.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        row_by_shape: dict[str, _Row] = {}
        for route in routes:
            shape = _PARAMETER.sub(r"{\2}", route.pattern)
            row_by_shape.setdefault(shape, _Row(shape)).add(route)
        self._static = {shape: row for shape, row in row_by_shape.items() if "{" not in shape}
        dynamic = [row for shape, row in row_by_shape.items() if "{" in shape]
        self._dynamic = sorted(dynamic, key=lambda row: _specificity(row.shape))
        self._remembered: dict[tuple[str, str], Match] = {}

    def match(self, method: str, path: str) -> Match:
        """Find the route of a request; ``path`` is still percent-encoded."""
        key = (method, path)
        match = self._remembered.get(key)
        if match is None:
            match = self._look_up(method, path)
            if match.route is not None and len(path) <= LONGEST_REMEMBERED:
                if len(self._remembered) >= MOST_REMEMBERED:
                    self._remembered.clear()
                self._remembered[key] = match
        return match

    def _look_up(self, method: str, path: str) -> Match:
        row = self._static.get(path)
        if row is not None:
            return row.choose(method, ())
        for row in self._dynamic:
            found = row.regex.fullmatch(path)
            if found is not None:
                return row.choose(method, found.groups())
        return Match(None, {})


class _Row:
    """The routes of one shape of path, by method; each has its own names for the parameters."""

    def __init__(self, shape: str) -> None:
        self.shape = shape
        self.regex = re.compile(_regex(shape))
        self._routes: dict[str, tuple[Route, list[str]]] = {}

    def add(self, route: Route) -> None:
        names = [found[1] for found in _PARAMETER.finditer(route.pattern)]
        taken = self._routes.setdefault(route.method, (route, names))[0]
        if taken is not route:
            raise RouteClash(
                f"{route.method} {route.pattern} and {taken.method} {taken.pattern} would answer "
                "the same requests; give one of them another path"
            )

    def choose(self, method: str, values: tuple[str, ...]) -> Match:
        found = self._routes.get(method) or (self._head() if method == "HEAD" else None)
        if found is None:
            # What only takes what nobody else does is no reason to know a path.
            known = {name for name, row in self._routes.items() if "fallback" not in row[0].tags}
            methods = {*known, *(["HEAD"] if self._head() else [])}
            return Match(None, {}, tuple(sorted(methods)))
        route, names = found
        params = dict(zip(names, map(unquote_component, values), strict=True))
        return Match(route, params, tuple(sorted(self._routes)))

    def _head(self) -> tuple[Route, list[str]] | None:
        get = self._routes.get("GET")
        return get if get is not None and "head" in get[0].tags else None


def _specificity(shape: str) -> list[tuple[int, int]]:
    return [_rank(component) for component in shape.split("/")]


def _rank(component: str) -> tuple[int, int]:
    """Order components: literal, literal in part (more before less), digits, any, the rest."""
    if "{" not in component:
        return 0, 0
    return _RANK_BY_COMPONENT.get(component, 1), -len(component)


def _regex(shape: str) -> str:
    literals = _PARAMETER.split(shape)[::3]
    kinds = [found[2] for found in _PARAMETER.finditer(shape)]
    patterns = [_REGEX_BY_KIND[kind] for kind in kinds]
    pieces = [re.escape(literals[0])]
    for pattern, literal in zip(patterns, literals[1:], strict=True):
        pieces += [f"({pattern})", re.escape(literal)]
    return "".join(pieces)


_PARAMETER = re.compile(r"\{([^}:]*)((?::[^}]*)?)\}")
_REGEX_BY_KIND = {"": "[^/]+", ":int": "[0-9]+", ":path": ".*"}
_RANK_BY_COMPONENT = {"{:int}": 2, "{}": 3, "{:path}": 4}

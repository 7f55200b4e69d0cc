"""Which web pages may call this server from a browser, and how they are told.

A browser sends a page's cross-origin request only after asking, or hides the answer from the page,
unless the server says that the page's origin may have it. By default none may.

Source: the Fetch standard, "CORS protocol"; Private Network Access.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelport.protocols.base import Headers, Reply
from modelport.wire.http import RequestHead

__all__ = ["Cors", "ServiceCors"]

PREFLIGHT_LIFE_S = 600
"""How long a browser may remember leave: short enough for a change of the settings to matter,
long enough that asking costs nothing."""


class Cors:
    """The origins that may call.

    Args:
        origins: ``https://app.example`` each; ``*`` is every origin.
        services: What services have declared for their own paths.
    """

    def __init__(self, origins: Iterable[str] = (), services: "Sequence[ServiceCors]" = ()) -> None:
        self._services = services
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self.allows_all = "*" in self._origins

    def __bool__(self) -> bool:
        return bool(self._origins or self._services)

    def of(self, head: RequestHead) -> "Cors | ServiceCors":
        """Give what decides for a request: its service, unless the operator lets the page in."""
        origin = head.headers.get("origin")
        if not self._services or origin is None or self.allows(origin):
            return self
        return next((each for each in self._services if each.covers(head.path)), self)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may call."""
        return self.allows_all or origin.lower() in self._origins

    def answer_headers(self, head: RequestHead) -> Headers:
        """Give what every answer to this request must say; nothing for other callers."""
        origin = head.headers.get("origin")
        if origin is None or not self.allows(origin):
            return ()
        allowed: Headers = (
            (("Access-Control-Allow-Origin", "*"),)
            if self.allows_all
            else (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))
        )
        return (*allowed, ("Access-Control-Expose-Headers", "*"))

    def preflight(self, head: RequestHead) -> Reply | None:
        """Answer a browser that asks for leave; ``None`` if this is not what the request does.

        The question has no key, a browser cannot send one with it; the request that follows has.
        """
        asked = head.headers
        if head.method != "OPTIONS" or "access-control-request-method" not in asked:
            return None
        if not self.allows(asked.get("origin", "")):
            return None
        headers = [
            ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("Access-Control-Max-Age", str(PREFLIGHT_LIFE_S)),
        ]
        if wanted := asked.get("access-control-request-headers"):
            # Named one by one: "*" would not cover Authorization.
            headers.append(("Access-Control-Allow-Headers", wanted))
        if asked.get("access-control-request-private-network") == "true":
            headers.append(("Access-Control-Allow-Private-Network", "true"))
        return Reply(204, headers)


class ServiceCors:
    """The pages that a service lets in, as it says in ``http={"cors": {...}}``.

    It answers as Starlette's middleware does, which BentoML uses.

    Args:
        options: BentoML's: ``access_control_allow_origins`` and the like.
        paths: What the service answers at; everything below each of them is its own, too.
    """

    def __init__(self, options: Mapping[str, Any], paths: Iterable[str]) -> None:
        self._paths = tuple(path.rstrip("/") for path in paths)
        self._origins = frozenset(_listed(options, "allow_origins"))
        pattern = options.get("access_control_allow_origin_regex")
        self._pattern = re.compile(pattern) if pattern else None
        self._methods = _listed(options, "allow_methods") or ("GET", "POST", "PUT", "OPTIONS")
        self._headers = frozenset(name.lower() for name in _listed(options, "allow_headers"))
        self._exposed = _listed(options, "expose_headers")
        self._max_age_s = int(options.get("access_control_max_age") or PREFLIGHT_LIFE_S)
        self._has_credentials = bool(options.get("access_control_allow_credentials"))
        self.allows_all = "*" in self._origins

    def covers(self, path: str) -> bool:
        """Whether a path is one of the service's."""
        return any(path == own or path.startswith(f"{own}/") for own in self._paths)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may call."""
        is_listed = self.allows_all or origin in self._origins
        return is_listed or bool(self._pattern and self._pattern.fullmatch(origin))

    def answer_headers(self, head: RequestHead) -> Headers:
        """Give what every answer to this request must say; nothing for other callers."""
        origin = head.headers.get("origin")
        if origin is None or not self.allows(origin):
            return ()
        headers = self._allowed(origin)
        if self._exposed:
            headers.append(("Access-Control-Expose-Headers", ", ".join(self._exposed)))
        return tuple(headers)

    def preflight(self, head: RequestHead) -> Reply | None:
        """Answer a browser that asks for leave; ``None`` if this is not what the request does."""
        asked = head.headers
        if head.method != "OPTIONS" or "access-control-request-method" not in asked:
            return None
        if not self.allows(asked.get("origin", "")):
            return _refused("origin")
        wanted = asked.get("access-control-request-headers", "")
        names = {name.strip().lower() for name in wanted.split(",") if name.strip()}
        if "*" not in self._headers and names - self._headers - _SAFE_HEADERS:
            return _refused("headers")
        headers = self._allowed(asked["origin"])
        headers += [
            ("Access-Control-Allow-Methods", ", ".join(self._methods)),
            ("Access-Control-Max-Age", str(self._max_age_s)),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
        if wanted:
            headers.append(("Access-Control-Allow-Headers", wanted))
        return Reply(200, headers, [b"OK"])

    def _allowed(self, origin: str) -> list[tuple[str, str]]:
        if self.allows_all and not self._has_credentials:
            return [("Access-Control-Allow-Origin", "*")]
        headers = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if self._has_credentials:
            headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers


def _listed(options: Mapping[str, Any], name: str) -> tuple[str, ...]:
    given = options.get(f"access_control_{name}") or ()
    return (given,) if isinstance(given, str) else tuple(given)


def _refused(what: str) -> Reply:
    headers = (("Content-Type", "text/plain; charset=utf-8"),)
    return Reply(400, headers, [f"Disallowed CORS {what}".encode()])


_SAFE_HEADERS = frozenset({"accept", "accept-language", "content-language", "content-type"})
"""That a page may send without being allowed to (the Fetch standard)."""

"""Which web pages may call this server from a browser, and how they are told.

A browser sends a page's cross-origin request only after asking, or hides the answer from the page,
unless the server says that the page's origin may have it. By default none may.

Source: the Fetch standard, "CORS protocol"; Private Network Access.
"""

from collections.abc import Iterable

from modelport.protocols.base import Headers, Reply
from modelport.wire.http import RequestHead

__all__ = ["Cors"]

PREFLIGHT_LIFE_S = 600
"""How long a browser may remember leave: short enough for a change of the settings to matter,
long enough that asking costs nothing."""


class Cors:
    """The origins that may call.

    Args:
        origins: ``https://app.example`` each; ``*`` is every origin.
    """

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self.allows_all = "*" in self._origins

    def __bool__(self) -> bool:
        return bool(self._origins)

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

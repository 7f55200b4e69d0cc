"""Where a URL leads: host, port, TLS or not, by which proxy, and what stands in the first line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from modelport.errors import InvalidRequest

__all__ = ["Address", "Proxies"]

MOST_KNOWN = 256
"""Addresses that are remembered: the same few are asked again and again."""

_PORT_BY_SCHEME = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """What one pooled connection leads to.

    Attributes:
        host: Name or address; "" for a Unix socket.
        path: Of the Unix socket; "" otherwise.
        proxy: Host and port of the proxy between; ``None`` for none.
    """

    is_tls: bool
    host: str
    port: int
    path: str = ""
    proxy: tuple[str, int] | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class Proxies:
    """Where URLs lead, and by which proxy, by the variables that everybody knows.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` (or in lower case), but not for hosts in
    ``NO_PROXY``, nor ever for this machine itself. ``HTTP_PROXY`` in capitals is not believed where
    ``REQUEST_METHOD`` is set: a CGI program has it from its caller.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        variables = {
            name.lower(): value
            for name, value in sorted(environ.items())
            if name.lower().endswith("_proxy")
            and not (name == "HTTP_PROXY" and "REQUEST_METHOD" in environ)
        }
        variables |= {name: environ[name] for name in variables if name in environ}
        everywhere = variables.get("all_proxy", "")
        self._by_scheme = {
            scheme: variables.get(f"{scheme}_proxy", everywhere) for scheme in ("http", "https")
        }
        excepted = variables.get("no_proxy", "")
        self._located: dict[str, tuple[Address, str, str]] = {}
        self._excepted = [name.strip().lower().lstrip(".") for name in excepted.split(",")]

    def locate(self, url: str) -> tuple[Address, str, str]:
        """Take a URL apart.

        Returns:
            Where to connect, the target for the first line, and the ``Host``.

        Raises:
            InvalidRequest: If it is no URL of HTTP or of a Unix socket.
        """
        found = self._located.get(url)
        if found is None:
            found = _locate(url, self)
            if len(self._located) >= MOST_KNOWN:
                self._located.clear()
            self._located[url] = found
        return found

    @classmethod
    def of_environment(cls) -> "Proxies":
        """Read them now."""
        return cls(os.environ)

    def find(self, scheme: str, host: str) -> tuple[str, int] | None:
        """The proxy for a host, if there is one."""
        url = self._by_scheme.get(scheme, "")
        if not url or host == "localhost" or host.startswith("127.") or host == "::1":
            return None
        for name in self._excepted:
            if name and (name == "*" or host == name or host.endswith("." + name)):
                return None
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise InvalidRequest(
                f"the proxy for {scheme} must be an http:// URL; see {scheme}_proxy in the "
                "environment"
            )
        return parts.hostname, parts.port or 3128


def _locate(url: str, proxies: Proxies) -> tuple[Address, str, str]:
    parts = urlsplit(url)
    scheme = "http" if parts.scheme == "tcp" else parts.scheme
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if scheme in ("file", "unix"):
        # file:///run/model.sock//path: the socket, and after a double slash what is asked of it.
        socket_path, _, asked = parts.path.partition("//")
        target = f"/{asked}" + (f"?{parts.query}" if parts.query else "")
        return Address(False, "", 0, unquote(socket_path)), target, "localhost"
    try:
        port = parts.port
    except ValueError:
        port = -1
    if scheme not in _PORT_BY_SCHEME or not parts.hostname or port == -1:
        raise InvalidRequest(
            f"{url!r} is not the address of a server; give it as http://host:port or "
            "https://host:port"
        )
    host = parts.hostname
    name = f"[{host}]" if ":" in host else host
    if port is not None:
        name += f":{port}"
    proxy = proxies.find(scheme, host)
    address = Address(scheme == "https", host, port or _PORT_BY_SCHEME[scheme], "", proxy)
    if proxy is not None and scheme == "http":
        target = f"http://{name}{target}"
    return address, target, name

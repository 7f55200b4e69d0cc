"""Where a URL leads: host, port, TLS or not, by which proxy, and what stands in the first line."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from modelport.errors import InvalidRequest

__all__ = ["Address", "Proxies", "Proxy", "Way", "without_credentials"]

MOST_KNOWN = 256
"""Addresses that are remembered: the same few are asked again and again."""

_PORT_BY_SCHEME = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """What stands between.

    Attributes:
        credentials: For ``Proxy-Authorization``; "" for none.
    """

    host: str
    port: int
    credentials: str = ""

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """Read ``http://[name:password@]host[:port]``.

        Raises:
            InvalidRequest: If it is anything else.
        """
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port or 3128
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise InvalidRequest(
                "a proxy is given as http://host:port or http://name:key@host:port"
            )
        return cls(parts.hostname, port, _credentials(parts))

    def headers(self) -> list[tuple[str, str]]:
        """What it wants to be told."""
        return [("Proxy-Authorization", self.credentials)] if self.credentials else []


class Address(NamedTuple):
    """What one pooled connection leads to.

    Attributes:
        host: Name or address; "" for a Unix socket.
        path: Of the Unix socket; "" otherwise.
        proxy: What stands between; ``None`` for nothing.
    """

    is_tls: bool
    host: str
    port: int
    path: str = ""
    proxy: Proxy | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


Way = tuple[Address, str, tuple[tuple[str, str], ...]]


class Proxies:
    """Where URLs lead, and by which proxy, by the variables that everybody knows.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``ALL_PROXY`` (or in lower case), but not for hosts in
    ``NO_PROXY``, nor ever for this machine itself. ``HTTP_PROXY`` in capitals is not believed where
    ``REQUEST_METHOD`` is set: a CGI program has it from its caller.

    Args:
        environ: Where the variables are; empty for no proxy.
        proxy: The one for everything, whatever they say.
    """

    def __init__(self, environ: Mapping[str, str], proxy: str | None = None) -> None:
        self._always = None if proxy is None else Proxy.parse(proxy)
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
        self._located: dict[str, Way] = {}
        names = (name.strip().lower().lstrip(".") for name in excepted.split(","))
        self._excepted = [name for name in names if name]

    def locate(self, url: str) -> Way:
        """Take a URL apart.

        Returns:
            Where to connect, the target for the first line, and the headers for the way.

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

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for a host, if there is one.

        Raises:
            InvalidRequest: If the environment names one of a kind that is not known here.
        """
        if self._always is not None:
            return self._always
        url = self._by_scheme.get(scheme, "")
        if not url or host == "localhost" or host.startswith("127.") or host == "::1":
            return None
        if any(_covers(name, host, port) for name in self._excepted):
            return None
        try:
            return Proxy.parse(url)
        except InvalidRequest as exc:
            raise InvalidRequest(
                f"{scheme.upper()}_PROXY or ALL_PROXY in the environment is no proxy that is "
                f"known here: {exc.text}. NO_PROXY={host} or proxy=False call without one"
            ) from exc


def _covers(name: str, host: str, port: int) -> bool:
    """Whether an entry of ``NO_PROXY`` is about a host: its name or domain, port, or network."""
    if "/" in name:
        import ipaddress

        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    bare, colon, only = name.rpartition(":")
    if colon and only.isdigit() and (":" not in bare or bare.endswith("]")):
        if int(only) != port:
            return False
        name = bare
    name = name.strip("[]").lstrip("*").lstrip(".")
    return not name or host == name or host.endswith("." + name)


def without_credentials(url: str) -> tuple[str, str]:
    """Take ``name:password@`` out of a URL, where it would be seen in errors and logs.

    Returns:
        The URL, and what ``Authorization`` says; "" if there was none.
    """
    try:
        parts = urlsplit(url)
        credentials = _credentials(parts)
    except ValueError:
        return url, ""
    if not credentials:
        return url, ""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), credentials


def _credentials(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    import base64

    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _locate(url: str, proxies: Proxies) -> Way:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    scheme = "http" if parts.scheme == "tcp" else parts.scheme
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if scheme in ("file", "unix"):
        # file:///run/model.sock//path: the socket, and after a double slash what is asked of it.
        socket_path, _, asked = parts.path.partition("//")
        target = f"/{asked}" + (f"?{parts.query}" if parts.query else "")
        return Address(False, "", 0, unquote(socket_path)), target, (("Host", "localhost"),)
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
    number = port or _PORT_BY_SCHEME[scheme]
    proxy = proxies.find(scheme, host, number)
    address = Address(scheme == "https", host, number, "", proxy)
    headers = [("Host", name)]
    if proxy is not None and scheme == "http":
        target = f"http://{name}{target}"
        headers += proxy.headers()
    return address, target, tuple(headers)

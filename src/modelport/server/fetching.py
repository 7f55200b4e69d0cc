"""Files that are sent as URLs: fetched by the server, and only from hosts that the operator lists.

A server that fetches what strangers name can be sent into the operator's own network. So nothing is
fetched by default; a listed name is resolved once, every address that it has must be a public one
or listed itself, the connection goes to that very address, each redirect is looked at like a first
URL, and bytes and time are bounded.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from modelport.errors import Forbidden, InvalidRequest, TimedOut, TooLarge
from modelport.services.files import Folder, Upload, last_component

__all__ = ["Fetcher"]

MOST_REDIRECTS = 5
PIECE_BYTES = 262_144

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


class Fetcher:
    """Gets files behind URLs. Blocks; safe to use from any thread.

    Args:
        allowed: ``host`` or ``host:port``; a host without a port stands for every port.
        most_bytes: Of one file.
        timeout_s: Of one file, redirects included.
        resolve: Gives the addresses of a name.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        *,
        most_bytes: int,
        timeout_s: float = 60.0,
        resolve: Resolve | None = None,
    ) -> None:
        self._allowed = {_host_and_port(each) for each in allowed}
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve or _resolve

    def fetch(self, url: str, folder: Folder) -> Upload:
        """Get a file into the directory of a call.

        Raises:
            Forbidden: Its host is not one that may be asked; the text names the option.
            InvalidRequest: It cannot be had.
            TooLarge: It is over the limit.
            TimedOut: It takes too long.
        """
        until = time.monotonic() + self._timeout_s
        for _ in range(MOST_REDIRECTS + 1):
            parts = _split(url)
            address = self._address(parts)
            try:
                reply, connection = self._ask(parts, address, until)
                with connection:
                    if reply.status in (301, 302, 303, 307, 308):
                        url = urljoin(url, reply.headers.get("Location", ""))
                        continue
                    if reply.status != 200:
                        raise InvalidRequest(f"{parts.hostname} answered {reply.status}")
                    return self._store(reply, parts, folder, until)
            except TimeoutError:
                raise TimedOut(f"{parts.hostname} took longer than {self._timeout_s:g} s") from None
            except (OSError, http.client.HTTPException, ssl.SSLError) as exc:
                kind = type(exc).__name__
                raise InvalidRequest(f"the URL could not be fetched: {kind}") from exc
        raise InvalidRequest(f"the URL is redirected more than {MOST_REDIRECTS} times")

    def _address(self, parts: SplitResult) -> str:
        """Resolve a host, once, and check what came of it."""
        host = (parts.hostname or "").lower().rstrip(".")
        port = _port(parts)
        if (host, None) not in self._allowed and (host, port) not in self._allowed:
            raise Forbidden(
                f"this server does not fetch URLs of {host}; the operator can allow it with "
                f"--url-allow {host}"
            )
        try:
            addresses = self._resolve(host, port)
        except OSError:
            raise InvalidRequest(f"there is no host {host}") from None
        for text in addresses:
            if not self._may_connect(host, text, port):
                raise Forbidden(
                    f"{host} has an address in a private network; the operator can allow it with "
                    f"--url-allow and that address"
                )
        return addresses[0]

    def _may_connect(self, host: str, text: str, port: int) -> bool:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            address = mapped
        if address.is_global and not address.is_multicast:
            return True
        names = {
            str(address),
            text,
            "localhost" if address.is_loopback and host == "localhost" else "",
        }
        return any((name, None) in self._allowed or (name, port) in self._allowed for name in names)

    def _ask(
        self, parts: SplitResult, address: str, until: float
    ) -> tuple[http.client.HTTPResponse, "_Connection"]:
        connection = _Connection(parts, address, _left_s(until))
        path = parts.path or "/"
        target = f"{path}?{parts.query}" if parts.query else path
        try:
            connection.request("GET", target, headers={"User-Agent": "modelport", "Accept": "*/*"})
            return connection.getresponse(), connection
        except BaseException:
            connection.close()
            raise

    def _store(
        self, reply: http.client.HTTPResponse, parts: SplitResult, folder: Folder, until: float
    ) -> Upload:
        name = last_component(unquote(parts.path)) if parts.path.strip("/") else "download"
        path = folder.new_file(name)
        received = 0
        with path.open("wb") as file:
            while piece := reply.read1(PIECE_BYTES):
                received += len(piece)
                if received > self._most_bytes:
                    raise TooLarge(f"the file behind the URL is over {self._most_bytes} bytes")
                folder.count(len(piece))
                file.write(piece)
                _left_s(until)
        kind = reply.headers.get_content_type() if "Content-Type" in reply.headers else ""
        return Upload(folder, filename=name, content_type=kind, path=path)


class _Connection(http.client.HTTPConnection):
    """Goes to an address that was looked at, whatever the name resolves to by now."""

    def __init__(self, parts: SplitResult, address: str, timeout_s: float) -> None:
        super().__init__(parts.hostname or "", _port(parts), timeout=timeout_s)
        self._address = address
        self._is_tls = parts.scheme == "https"

    def connect(self) -> None:
        """Connect to the address, and let the certificate be that of the name."""
        sock: Any = socket.create_connection((self._address, self.port), self.timeout)
        if self._is_tls:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        self.sock = sock

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _port(parts)
    except ValueError:
        raise InvalidRequest("this is no URL that can be fetched") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest("only http and https URLs can be fetched")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("URLs with a user name or password are not fetched")
    if not url.isascii() or any(char <= " " for char in url):
        raise InvalidRequest("the URL holds characters that have to be percent-encoded")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Read ``host``, ``host:port``, ``[::1]:port`` or a bare address."""
    plain = text.strip().lower()
    if plain.startswith("["):
        host, _, port = plain[1:].partition("]")
        return host, int(port[1:]) if port.startswith(":") else None
    if plain.count(":") == 1:
        host, _, port = plain.partition(":")
        return host.rstrip("."), int(port)
    return plain.rstrip("."), None


def _resolve(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def _left_s(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left

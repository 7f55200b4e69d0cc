"""Hosts that strangers may have the server call: those that the operator lists, and no others.

A server that goes where strangers send it can be sent into the operator's own network. So a listed
name is resolved once, every address that it has must be a public one or listed itself, and the
connection goes to that very address.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from modelport.errors import Forbidden, InvalidRequest

__all__ = ["GuardedConnection", "ListedHosts", "Resolve", "split_url"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]


class ListedHosts:
    """The hosts of one option. Safe to use from any thread.

    Args:
        allowed: ``host`` or ``host:port``; a host without a port stands for every port.
        flag: The option that lists them.
        refusal: What this server does not do with others: "does not fetch URLs of".
        resolve: Gives the addresses of a name.
    """

    def __init__(
        self, allowed: Sequence[str], *, flag: str, refusal: str, resolve: Resolve | None = None
    ) -> None:
        self._allowed = {_host_and_port(each) for each in allowed}
        self._flag = flag
        self._refusal = refusal
        self._resolve = resolve or _resolve

    def check(self, parts: SplitResult) -> tuple[str, int]:
        """See that a host is listed, without asking for its address; gives it and the port.

        Raises:
            Forbidden: It is not; the text names the option.
        """
        host = (parts.hostname or "").lower().rstrip(".")
        port = port_of(parts)
        if (host, None) not in self._allowed and (host, port) not in self._allowed:
            raise Forbidden(
                f"this server {self._refusal} {host}; the operator can allow it with "
                f"{self._flag} {host}"
            )
        return host, port

    def address(self, parts: SplitResult) -> str:
        """Resolve a host, once, and check what came of it.

        Raises:
            Forbidden: It is not listed, or leads into a private network.
            InvalidRequest: There is no such host.
        """
        host, port = self.check(parts)
        try:
            addresses = self._resolve(host, port)
        except OSError:
            raise InvalidRequest(f"there is no host {host}") from None
        for text in addresses:
            if not self._may_connect(host, text, port):
                raise Forbidden(
                    f"{host} has an address in a private network; the operator can allow it with "
                    f"{self._flag} and that address"
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


class GuardedConnection(http.client.HTTPConnection):
    """Goes to an address that was looked at, whatever the name resolves to by now."""

    def __init__(self, parts: SplitResult, address: str, timeout_s: float) -> None:
        super().__init__(parts.hostname or "", port_of(parts), timeout=timeout_s)
        self._address = address
        self._is_tls = parts.scheme == "https"

    def connect(self) -> None:
        """Connect to the address, and let the certificate be that of the name."""
        sock: Any = socket.create_connection((self._address, self.port), self.timeout)
        if self._is_tls:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        self.sock = sock

    def __enter__(self) -> "GuardedConnection":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def split_url(url: str) -> SplitResult:
    """Read a URL that somebody sent.

    Raises:
        InvalidRequest: It is none of http or https, or holds what has no place in it.
    """
    try:
        parts = urlsplit(url)
        port_of(parts)
    except ValueError:
        raise InvalidRequest("this is no URL that can be fetched") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest("only http and https URLs can be fetched")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("URLs with a user name or password are not fetched")
    if not url.isascii() or any(char <= " " for char in url):
        raise InvalidRequest("the URL holds characters that have to be percent-encoded")
    return parts


def port_of(parts: SplitResult) -> int:
    """Give the port, that of the scheme if none is said."""
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

"""Files that are sent as URLs: fetched by the server, and only from hosts that the operator lists.

Nothing is fetched by default; each redirect is looked at like a first URL, and bytes and time are
bounded.
"""

import http.client
import ssl
import time
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urljoin

from modelport.errors import InvalidRequest, TimedOut, TooLarge
from modelport.server.listed_hosts import GuardedConnection, ListedHosts, Resolve, split_url
from modelport.services.files import Folder, Upload, last_component

__all__ = ["Fetcher"]

MOST_REDIRECTS = 5
PIECE_BYTES = 262_144


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
        self._hosts = ListedHosts(
            allowed, flag="--url-allow", refusal="does not fetch URLs of", resolve=resolve
        )
        self._most_bytes = most_bytes
        self._timeout_s = timeout_s

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
            parts = split_url(url)
            address = self._hosts.address(parts)
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

    def _ask(
        self, parts: SplitResult, address: str, until: float
    ) -> tuple[http.client.HTTPResponse, "GuardedConnection"]:
        connection = GuardedConnection(parts, address, _left_s(until))
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


def _left_s(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left

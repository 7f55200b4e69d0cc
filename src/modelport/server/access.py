"""The door: who may come in, decided once, before any protocol looks at the request.

The decision follows from the head and the settings alone, so it may be kept for further requests
with the same head. In this order: restricted categories, as Triton has them; what is public; keys,
where there are any; and where there are none, whether a browser was led here by somebody else's
page. A key cannot be sent by a page that does not know it, so with keys the last is not asked.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from typing import Self

from modelport.errors import Forbidden, Unauthenticated, Unavailable
from modelport.protocols.base import ADMIN, Access, Route, Rpc
from modelport.server.cors import Cors
from modelport.server.setting_values import Restriction
from modelport.server.settings import Settings
from modelport.wire.http import RequestHead

__all__ = ["AccessDoor", "principal_of"]


class AccessDoor:
    """Decides who may come in; see :class:`modelport.server.http.Door`.

    Liveness and readiness are open to everybody. With API keys everything else wants one, metrics
    included. What changes the server wants an admin key as soon as there is a key of either kind;
    if there are API keys and no admin key, it is closed. An admin key opens everything.

    Args:
        api_keys: Of callers; none leaves inference open.
        admin_keys: Of operators.
        host_names: By which browsers may reach the server while no key is asked for, beside
            ``localhost`` and addresses; ``*`` is every name.
        cors: Pages that may call although they come from elsewhere.
        restrictions: Categories that want a header of their own.
        is_grpc: Whether it is for gRPC, where such a header is metadata with a longer name.
    """

    def __init__(
        self,
        *,
        api_keys: Iterable[str] = (),
        admin_keys: Iterable[str] = (),
        host_names: Iterable[str] = (),
        cors: Cors | None = None,
        restrictions: Iterable[Restriction] = (),
        is_grpc: bool = False,
    ) -> None:
        self._is_grpc = is_grpc
        self._admins = _KeyRing(admin_keys)
        self._callers = _KeyRing(api_keys)
        self._host_names = {"localhost", *(_plain_name(name) for name in host_names)}
        self._cors = cors or Cors()
        self._lock_by_category = {
            category: (_GRPC_PREFIX * is_grpc + restriction.header, _digest(restriction.value))
            for restriction in restrictions
            for category in restriction.categories
        }

    @classmethod
    def from_settings(cls, settings: Settings, cors: Cors | None = None) -> Self:
        """Make the door that the operator asked for."""
        return cls(
            api_keys=settings.api_key,
            admin_keys=settings.admin_key,
            host_names=(settings.host, *settings.allowed_host),
            cors=cors or Cors(settings.cors_origin),
            restrictions=settings.http_restricted_api,
        )

    @classmethod
    def for_grpc(cls, settings: Settings) -> Self:
        """Make the same for gRPC: other restrictions, and no pages, which cannot call it.

        A page cannot send what gRPC needs without asking first, and a name that was pointed at
        this machine does not help it: browsers speak HTTP/2 over TLS only.
        """
        return cls(
            api_keys=settings.api_key,
            admin_keys=settings.admin_key,
            restrictions=settings.grpc_restricted_protocol,
            is_grpc=True,
        )

    def admit(self, head: RequestHead, route: Route | Rpc) -> str:
        """Give the principal that asks; "" for anybody.

        Raises:
            Unauthenticated: No key or a wrong one.
            Forbidden: Not with this key, or not from this page.
        """
        access = route.access
        self._check_lock(head, access)
        if access is Access.PUBLIC:
            return ""
        if access in ADMIN and (self._admins or self._callers):
            return self._admit_admin(_sent_key(head))
        if self._callers:
            return self._admit_caller(_sent_key(head))
        if not self._is_grpc:
            self._check_page(head)
        return ""

    def _check_lock(self, head: RequestHead, access: Access) -> None:
        lock = self._lock_by_category.get(access.value.strip())
        if lock is None:
            return
        header, digest = lock
        sent = head.headers.get(header.lower(), "")
        if not hmac.compare_digest(_digest(sent), digest):
            if self._is_grpc:
                raise Unavailable(f"This protocol is restricted, expecting header '{header}'")
            raise Forbidden(f"This API is restricted, expecting header '{header}'")

    def _admit_caller(self, key: str) -> str:
        principal = self._callers.find(key) or self._admins.find(key)
        if principal is None:
            raise Unauthenticated("the key in the Authorization header is not one of this server's")
        return principal

    def _admit_admin(self, key: str) -> str:
        principal = self._admins.find(key)
        if principal is not None:
            return principal
        if self._callers:
            self._admit_caller(key)
        if not self._admins:
            raise Forbidden(
                "this changes the server, and no admin key is set; "
                "the operator can set one with --admin-key"
            )
        if self._callers:
            raise Forbidden("this changes the server and needs the admin key, not an API key")
        raise Unauthenticated("the key in the Authorization header is not this server's admin key")

    def _check_page(self, head: RequestHead) -> None:
        host = head.headers.get("host")
        if host is not None and not self._is_known_host(host):
            # DNS rebinding: a page's own name is pointed at this machine, and the browser takes
            # the server for the page's own.
            raise Forbidden(
                "this server is not known by the name in the Host header; call it by an address or "
                "as localhost, or start it with --allowed-host NAME"
            )
        origin = head.headers.get("origin")
        if origin is None:
            # Embedded in or linked from another site, without a script: no Origin is sent.
            is_foreign = head.headers.get("sec-fetch-site") == "cross-site"
            is_allowed = self._cors.of(head).allows_all
        else:
            is_foreign = origin.partition("://")[2].lower() != (host or "").lower()
            is_allowed = self._cors.of(head).allows(origin)
        if is_foreign and not is_allowed:
            raise Forbidden(
                "web pages of other origins may not call this server while it asks for no key; "
                "start it with --cors-origin ORIGIN to let one in, or with --api-key"
            )

    def _is_known_host(self, host: str) -> bool:
        name = _plain_name(host)
        return name in self._host_names or "*" in self._host_names or _is_address(name)


_GRPC_PREFIX = "triton-grpc-protocol-"


class _KeyRing:
    """Keys, kept as digests."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._rows = [(_digest(key), principal_of(key)) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._rows)

    def find(self, key: str) -> str | None:
        """Give the principal of a key, after the same time whichever it is and if it is none."""
        digest = _digest(key)
        found = None
        for known, principal in self._rows:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def principal_of(key: str) -> str:
    """Name the holder of a key: the same in every run, and no way back to the key."""
    return hashlib.blake2b(key.encode(), digest_size=8, person=b"principal").hexdigest()


def _digest(key: str) -> bytes:
    # Digests have one length, so that comparing them does not tell how long a key is.
    return hashlib.sha256(key.encode()).digest()


def _sent_key(head: RequestHead) -> str:
    value = head.headers.get("authorization")
    if value is None:
        raise Unauthenticated("a key is required: send the header 'Authorization: Bearer KEY'")
    scheme, _, key = value.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthenticated(
            "the Authorization header is not understood: send 'Authorization: Bearer KEY'"
        )
    return key.strip()


def _plain_name(authority: str) -> str:
    """Give the name or address in ``name:port``, in lower case and without brackets."""
    name, colon, port = authority.lower().rpartition(":")
    if not colon or not port.isdigit() or (":" in name and not name.endswith("]")):
        name = authority.lower()
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1]
    return name.removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

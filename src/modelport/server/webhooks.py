"""Tells webhooks that tasks are over, at hosts that the operator lists.

Messages are signed as the Standard Webhooks say, so receivers can use the libraries that exist. A
redirect is no delivery: what was checked is where the message goes, and nowhere else.

Source: Standard Webhooks 1.0.0, https://www.standardwebhooks.com
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import http.client
import json
from collections.abc import Callable, Sequence

from modelport.engine.executor import call_on_thread
from modelport.errors import InvalidRequest, ModelportError
from modelport.protocols.bentoml.tasks import described
from modelport.server.listed_hosts import GuardedConnection, ListedHosts, Resolve, split_url
from modelport.stores.base import Notice

__all__ = ["Webhooks"]

LONGEST_URL = 2048


class Webhooks:
    """Delivers notices.

    Args:
        allowed: ``host`` or ``host:port``.
        secrets: Each signs every message; ``whsec_`` and base64, or the bytes themselves.
        now_s: The time of day, in seconds since 1970.
        timeout_s: Of one delivery.
        resolve: Gives the addresses of a name.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        secrets: Sequence[str],
        now_s: Callable[[], float],
        *,
        timeout_s: float = 20.0,
        resolve: Resolve | None = None,
    ) -> None:
        self._hosts = ListedHosts(
            allowed, flag="--task-webhook-allow", refusal="calls no webhooks at", resolve=resolve
        )
        self._keys = [_key(secret) for secret in secrets]
        self._now_s = now_s
        self._timeout_s = timeout_s

    def check(self, url: str) -> None:
        """See that a webhook may be called, before anything is accepted for it.

        Raises:
            Forbidden: Its host is not listed; the text names the option.
            InvalidRequest: It is no URL.
        """
        if len(url) > LONGEST_URL:
            raise InvalidRequest(f"the URL of a webhook has at most {LONGEST_URL} characters")
        self._hosts.check(split_url(url))

    async def deliver(self, notice: Notice) -> str:
        """Send a notice.

        Returns:
            "" if it has arrived; else what is wrong, for the log.
        """
        return await call_on_thread(self._post, notice)

    def _post(self, notice: Notice) -> str:
        try:
            parts = split_url(notice.url)
            address = self._hosts.address(parts)
        except ModelportError as exc:
            return exc.text
        body = _message(notice)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        connection = GuardedConnection(parts, address, self._timeout_s)
        try:
            with connection:
                connection.request("POST", target, body, self._headers(notice, body))
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as exc:
            return type(exc).__name__
        return "" if 200 <= status < 300 else f"it answered with status {status}"

    def _headers(self, notice: Notice, body: bytes) -> dict[str, str]:
        # The same for each attempt, so that who gets it twice can tell.
        message_id = f"msg_{notice.task.id}"
        timestamp = str(int(self._now_s()))
        signed = b".".join((message_id.encode(), timestamp.encode(), body))
        signatures = [
            base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
            for key in self._keys
        ]
        return {
            "Content-Type": "application/json",
            "User-Agent": "modelport",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }


def _message(notice: Notice) -> bytes:
    task = notice.task
    over = datetime.datetime.fromtimestamp(task.finished_s, datetime.UTC)
    message = {
        "type": f"task.{task.state}",
        "timestamp": over.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {**described(task), "task": task.endpoint},
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()

"""An endpoint whose calls are read elsewhere: what was sent stays as it came.

In the server's process a service with workers has its types for schemas and texts only. The worker
that answers reads the arguments, so that doing so holds up nobody else.
"""

from collections.abc import Hashable, Mapping
from typing import Any, Literal

from modelport.services.endpoint import Endpoint
from modelport.services.files import Upload
from modelport.services.results import ResultKind

__all__ = ["SENT", "DistantEndpoint", "Sent"]

SENT = "sent"
"""The one name among the values of a call that was not read."""


class Sent:
    """What one call brought.

    Attributes:
        kind: A JSON body, values by name, or the one argument of a body that is no JSON.
        value: Bytes, a mapping, or text, bytes or an upload.
        batch: Its rows and what others must have in common with it, where calls share batches.
    """

    __slots__ = ("batch", "kind", "value")

    def __init__(self, kind: Literal["json", "values", "root"], value: Any) -> None:
        self.kind = kind
        self.value = value
        self.batch: tuple[int, Hashable] = (1, None)

    def bound(self, endpoint: Endpoint) -> dict[str, Any]:
        """Read it.

        Raises:
            InvalidArguments: It does not fit.
        """
        if self.kind == "json":
            return endpoint.bind_json(self.value)
        if self.kind == "root":
            return endpoint.bind_root(self.value)
        return endpoint.bind_values(self.value)


class DistantEndpoint:
    """Stands before an :class:`Endpoint` towards the protocol; the attributes are its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.name = endpoint.name
        self.doc = endpoint.doc
        self.is_stream = endpoint.is_stream
        self.is_root = endpoint.is_root
        self.context_name = endpoint.context_name
        self.file_fields = endpoint.file_fields
        self.result: ResultKind = endpoint.result
        self.annotations = endpoint.annotations

    def __repr__(self) -> str:
        return f"<DistantEndpoint {self.name}>"

    @property
    def root_kind(self) -> str:
        """For a root input: ``file``, ``text``, ``bytes`` or ``json``."""
        return self._endpoint.root_kind

    @property
    def input_schema(self) -> dict[str, Any]:
        """In the form of ``/schema.json``."""
        return self._endpoint.input_schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """In the form of ``/schema.json``."""
        return self._endpoint.output_schema

    def bind_json(self, body: bytes | bytearray | memoryview) -> dict[str, Any]:
        """Take a JSON body as it is."""
        return self._taken(Sent("json", body))

    def bind_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take values by name as they are."""
        return self._taken(Sent("values", values))

    def bind_root(self, value: str | bytes | Upload) -> dict[str, Any]:
        """Take the one argument as it is."""
        return self._taken(Sent("root", value))

    def _taken(self, sent: Sent) -> dict[str, Any]:
        if self._endpoint.api.batchable:
            # Who shares a batch is decided here, and only the arguments tell how many rows.
            sent.batch = self._endpoint.batch_of(sent.bound(self._endpoint))
        return {SENT: sent}

    def batch_of(self, values: dict[str, Any]) -> tuple[int, Hashable]:
        """Count the rows of a batchable call, and say what others must have to share its batch."""
        sent: Sent = values[SENT]
        return sent.batch

    def encode(self, value: Any) -> Any:
        """Give what the worker has made of its result already."""
        return value

"""Calls of endpoints and their answers as tensors, which is what passes between two processes.

A call is a tensor with a head of JSON, one with the body, and one for each file that is in memory;
files on disk go by their path. Its answer is the like. Requests that bring tensors, those of V2,
need none of this: they go as they are.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from msgspec.structs import replace

from modelport.dtypes import UINT8
from modelport.messages import Arguments, ParameterValue, Request, Response, Tensors
from modelport.services.context import Context, RequestView
from modelport.services.distant import SENT, Sent
from modelport.services.files import Folder, Upload
from modelport.services.results import Encoded, Part
from modelport.tensors import Tensor

__all__ = [
    "ENDPOINT",
    "TASK",
    "GivenFolder",
    "ReceivedCall",
    "is_call",
    "pack_answer",
    "pack_call",
    "progress_of",
    "progress_response",
    "unpack_answer",
    "unpack_call",
]

ENDPOINT = "endpoint"
"""The parameter of a request that names the method."""
TASK = "task"
"""The parameter that tells whether a request is the work of a task."""

_CALL = "call"
_ANSWER = "answer"
_PROGRESS = "progress"


class GivenFolder(Folder):
    """The directory of a call, made when it is first asked for, and deleted by the server."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._promised = self._path = path

    def close(self) -> None:
        """Leave it: the server still has to read what lies there."""


class ReceivedCall:
    """A call, as the worker gets it.

    Attributes:
        sent: The arguments, not read yet.
        context: For a method that wants one.
    """

    __slots__ = ("context", "sent")

    def __init__(self, sent: Sent, context: Context | None) -> None:
        self.sent = sent
        self.context = context


# From the server to the worker.


def pack_call(request: Request, endpoint: str) -> Request:
    """Make the request that goes to a worker of one that came by whichever protocol."""
    payload = request.payload
    is_packed = payload.__class__ is Arguments
    context: Context | None = payload.context if is_packed else None
    # Callers choose parameters of these names as well; what is said here comes last.
    parameters: dict[str, Any] = {
        **request.parameters,
        ENDPOINT: endpoint,
        TASK: context is not None and context.task is not None,
        _CALL: is_packed,
    }
    if is_packed:
        payload = Tensors(_call_tensors(payload))
    return replace(request, payload=payload, parameters=parameters)


def _call_tensors(payload: Arguments) -> list[Tensor]:
    sent: Sent = payload.values[SENT]
    context: Context | None = payload.context
    tensors: list[Tensor] = []
    head: dict[str, Any] = {"kind": sent.kind}
    if isinstance(payload.scope, Folder):
        head["folder"] = str(payload.scope.promise())
    if context is not None:
        head["request"] = _plain_request(context.request)
    if sent.kind == "values":
        files = {name: each for name, each in sent.value.items() if _has_uploads(each)}
        head["values"] = {name: each for name, each in sent.value.items() if name not in files}
        head["files"] = {name: _plain_files(each, tensors) for name, each in files.items()}
    elif isinstance(sent.value, Upload):
        head["files"] = _plain_files(sent.value, tensors)
    elif isinstance(sent.value, str):
        head["text"] = sent.value
    else:
        tensors.append(_bytes_tensor("body", sent.value))
    return [_bytes_tensor(_CALL, json.dumps(head).encode()), *tensors]


def _plain_request(request: RequestView) -> list[Any]:
    headers = dict(request.headers.items())
    return [request.method, request.path, request.query, headers, request.principal]


def _has_uploads(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(each, Upload) for each in value)
    return isinstance(value, Upload)


def _plain_files(value: Any, tensors: list[Tensor]) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_plain_files(each, tensors) for each in value]
    kept = value.kept
    plain: dict[str, Any] = {"filename": value.filename, "content_type": value.content_type}
    if isinstance(kept, Path):
        return plain | {"path": str(kept)}
    tensors.append(_bytes_tensor(f"file{len(tensors)}", kept))
    return plain | {"tensor": len(tensors)}


def is_call(request: Request) -> bool:
    """Whether a request that a worker got was packed here, and does not bring tensors itself."""
    return bool(request.parameters.get(_CALL))


def unpack_call(request: Request, state: dict[str, Any]) -> ReceivedCall:
    """Read a call in the worker; its arguments are still as they were sent.

    Args:
        request: As it was packed.
        state: Of the contexts of this process.
    """
    tensors = request.payload.tensors
    head = json.loads(tensors[0].array.tobytes())
    folder = GivenFolder(Path(head["folder"])) if "folder" in head else Folder()
    value: Any
    if head["kind"] == "values":
        files = {name: _uploads(each, tensors, folder) for name, each in head["files"].items()}
        value = {**head["values"], **files}
    elif "files" in head:
        value = _uploads(head["files"], tensors, folder)
    elif "text" in head:
        value = head["text"]
    else:
        value = tensors[1].array.tobytes()
    context = None
    if "request" in head:
        context = Context(RequestView(*head["request"]), folder, state)
    return ReceivedCall(Sent(head["kind"], value), context)


def _uploads(plain: Any, tensors: Sequence[Tensor], folder: Folder) -> Any:
    if plain is None:
        return None
    if isinstance(plain, list):
        return [_uploads(each, tensors, folder) for each in plain]
    at = plain.get("tensor")
    return Upload(
        folder,
        filename=plain["filename"],
        content_type=plain["content_type"],
        data=None if at is None else tensors[at].array.tobytes(),
        path=Path(plain["path"]) if at is None else None,
    )


# From the worker to the server.


def pack_answer(encoded: Encoded, context: Context | None) -> Response:
    """Make the response that goes to the server of what an endpoint answered."""
    head: dict[str, Any] = {}
    tensors: list[Tensor] = []
    if encoded.headers:
        head["headers"] = encoded.headers
    if encoded.status is not None:
        head["status"] = encoded.status
    if encoded.is_text:
        head["is_text"] = True
    if encoded.file is not None:
        # Opened by the server before it deletes the directory of the call.
        head["file"] = str(Path(encoded.file.name).absolute())
        encoded.file.close()
    for part in encoded.parts:
        head.setdefault("parts", []).append([part.name, part.content_type, part.filename])
        tensors.append(_bytes_tensor(f"part{len(tensors)}", part.data))
    if not tensors:
        tensors.append(_bytes_tensor("body", encoded.body))
    draft = context.response if context is not None else None
    if draft is not None and (draft.status_code is not None or draft.extra_headers):
        head["draft"] = [draft.status_code, dict(draft.headers), draft.cookies]
    return Response(tensors, _parameters(_ANSWER, head))


def unpack_answer(response: Response, context: Context | None) -> Encoded:
    """Read an answer in the server.

    Args:
        response: As it was packed.
        context: Of the call; is told what the method wanted of its answer.

    Raises:
        OSError: It is a file, which is not there any more.
    """
    head = _read(response, _ANSWER)
    encoded = Encoded(
        tuple((name, value) for name, value in head.get("headers", ())),
        status=head.get("status"),
        is_text=head.get("is_text", False),
    )
    if "parts" in head:
        encoded.parts = [
            Part(name, content_type, tensor.array.tobytes(), filename)
            for (name, content_type, filename), tensor in zip(
                head["parts"], response.outputs, strict=True
            )
        ]
    else:
        encoded.body = response.outputs[0].array.tobytes()
    if "file" in head:
        encoded.file = open(head["file"], "rb")  # noqa: SIM115
    if context is not None and "draft" in head:
        draft = context.response
        draft.status_code, headers, draft.cookies = head["draft"]
        draft.headers.update(headers)
    return encoded


def progress_response(fraction: float | None, text: str) -> Response:
    """Make a report of a task's progress pass for one of many responses."""
    return Response((), _parameters(_PROGRESS, [fraction, text]))


def progress_of(response: Response) -> tuple[float | None, str] | None:
    """Give the report that a response is, if it is one."""
    if _PROGRESS not in response.parameters:
        return None
    fraction, text = _read(response, _PROGRESS)
    return fraction, text


def _parameters(name: str, value: Any) -> dict[str, ParameterValue]:
    return {name: json.dumps(value)}


def _read(response: Response, name: str) -> Any:
    return json.loads(cast(str, response.parameters[name]))


def _bytes_tensor(name: str, data: Any) -> Tensor:
    return Tensor(name, UINT8, np.frombuffer(data, np.uint8))

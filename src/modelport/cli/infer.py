"""``modelport infer``: one request, made from the model's own description, and its outputs."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelport.cli.help import options_section, render
from modelport.cli.options import SERVER_OPTIONS, Option, Options, UsageError, asks_for_help, parse
from modelport.cli.terminal import columns, is_coloured
from modelport.client.v2 import ModelMetadata, Reply, Server, TensorMetadata
from modelport.errors import ModelportError

if TYPE_CHECKING:
    from modelport.client.v2_infer import Call
    from modelport.tensors import Tensor

__all__ = ["NOTES", "OPTIONS", "SUMMARY", "USAGE", "run"]

USAGE = "modelport infer MODEL [--input NAME=VALUE ...] [options]"
SUMMARY = (
    "Send one inference request and print the outputs. Datatypes and shapes come from the model's"
    " own description."
)
NOTES = (
    "Values are JSON, or numbers between commas: --input x=1,2,3 or --input 'x=[[1,2],[3,4]]'. For"
    " BYTES the value is the text itself, or a JSON array of texts. @FILE reads a file: .npy as an"
    " array, .json as JSON, anything else as the bytes of one BYTES element; @@ is a plain @.",
    "Examples:\n"
    "  modelport infer sentiment --input 'text=What a lovely day'\n"
    "  modelport infer digit_photo --input image=@seven.png --json\n"
    "  modelport infer iris --request request.json",
)
OPTIONS = (
    Option("--input", "NAME=VALUE", "Value of an input, or NAME=@FILE", is_repeatable=True),
    Option("--output", "NAME", "Ask for this output only", is_repeatable=True),
    Option("--parameter", "NAME=VALUE", "Request parameter; JSON or a text", is_repeatable=True),
    Option("--version", "N", "Version of the model; the server's choice without it"),
    Option("--id", "TEXT", "Id of the request; it comes back"),
    Option("--request", "FILE", "Send this JSON body as it is instead; - is standard input"),
    Option("--binary", None, "Send and receive tensors in the binary form"),
    Option("--json", None, "Print the response as JSON"),
    Option("--raw-response", None, "Print the body of the response as it came"),
    *SERVER_OPTIONS,
)


def run(argv: Sequence[str]) -> int:
    """Send the request and print what comes back."""
    if asks_for_help(argv):
        is_bold = is_coloured(sys.stdout, os.environ)
        sections = [options_section(OPTIONS)]
        print(render(USAGE, SUMMARY, sections, notes=NOTES, width=columns(), is_bold=is_bold))
        return 0
    options = parse(argv, OPTIONS, os.environ, words=(1, 1), usage=USAGE)
    if options.text("--request") and options.texts("--input"):
        raise UsageError("--request: is the whole request; leave out --input")
    timeout_s = options.seconds("--timeout")
    try:
        with Server(
            options.text("--url") or "", api_key=options.text("--api-key"), timeout_s=timeout_s
        ) as server:
            reply = _send(server, options)
            _print(reply, options)
    except ModelportError as exc:
        print(f"modelport infer: {exc}", file=sys.stderr)
        return 1
    return 0


def _send(server: Server, options: Options) -> Reply:
    model = options.words[0]
    version = options.text("--version")
    if version is not None and not (version.isascii() and version.isdecimal()):
        raise UsageError(f'--version: expected a whole number, got "{version:.40}"')
    path = f"{server.model_path(model, version)}/infer"
    request = options.text("--request")
    if request is not None:
        return server.post(path, [_read(request)], {"Content-Type": "application/json"})
    # numpy only from here on: help, mistakes and a server that is not there need none of it.
    from modelport.client.v2_infer import encode_call

    call = _call(server.metadata(model, version), options)
    headers, body = encode_call(call)
    return server.post(path, body, headers)


def _call(metadata: ModelMetadata, options: Options) -> "Call":
    from modelport.client.v2_infer import Call

    inputs: list[Tensor] = []
    needs_binary = options.is_on("--binary")
    declared_by_name = {each.name: each for each in metadata.inputs}
    for text in options.texts("--input"):
        name, equals, value = text.partition("=")
        declared = declared_by_name.get(name)
        if not equals or declared is None:
            known = ", ".join(map(str, metadata.inputs)) or "none"
            raise UsageError(f'--input: expected NAME=VALUE with one of {known}; got "{text:.40}"')
        if any(tensor.name == name for tensor in inputs):
            raise UsageError(f'--input: "{name}" is given twice')
        try:
            tensor = _tensor(value, declared)
        except ValueError as exc:
            raise UsageError(f'--input: "{name}": {exc}') from exc
        inputs.append(tensor)
        needs_binary |= _travels_as_bytes(tensor)
    # Triton has no JSON for the short floats, in neither direction.
    needs_binary |= any(each.datatype in ("FP16", "BF16") for each in metadata.outputs)
    return Call(
        inputs=inputs,
        outputs=options.texts("--output"),
        id=options.text("--id"),
        parameters=dict(map(_parameter, options.texts("--parameter"))),
        is_binary=needs_binary,
    )


def _tensor(value: str, declared: TensorMetadata) -> "Tensor":
    from modelport.cli import tensor_text

    if value.startswith("@@"):
        return tensor_text.tensor_from_text(value[1:], declared)
    if not value.startswith("@"):
        return tensor_text.tensor_from_text(value, declared)
    path = value[1:]
    if path.endswith(".npy"):
        import numpy as np

        try:
            array = np.load(path, allow_pickle=False)
        except OSError as exc:
            raise UsageError(f'--input: cannot read "{path}": {exc.strerror or exc}') from exc
        except (EOFError, ValueError) as exc:
            what = "is no whole .npy file, or one of Python objects, which are not read"
            raise UsageError(f'--input: "{path}" {what}') from exc
        return tensor_text.tensor_from_array(array, declared)
    content = _read(path, "--input")
    if path.endswith(".json"):
        return tensor_text.tensor_from_text(content.decode(), declared)
    return tensor_text.tensor_from_bytes(content, declared)


def _travels_as_bytes(tensor: "Tensor") -> bool:
    """Whether JSON cannot carry the tensor, or only badly."""
    if tensor.datatype.name == "BYTES":
        return any(not _is_text(element) for element in tensor.array.ravel())
    return tensor.datatype.name in ("FP16", "BF16") or tensor.array.size > _LARGE


def _is_text(element: bytes) -> bool:
    try:
        element.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parameter(text: str) -> tuple[str, bool | int | float | str]:
    import json

    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f'--parameter: expected NAME=VALUE, got "{text}"')
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, parsed if isinstance(parsed, bool | int | float | str) else value


def _read(path: str, flag: str = "--request") -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise UsageError(f'{flag}: cannot read "{path}": {exc.strerror}') from exc


def _print(reply: Reply, options: Options) -> None:
    if options.is_on("--raw-response"):
        sys.stdout.flush()
        sys.stdout.buffer.write(reply.body)
        return
    from modelport.cli.tensor_text import format_tensor, tensor_to_json
    from modelport.client.v2_infer import decode_outcome

    outcome = decode_outcome(reply)
    if options.is_on("--json"):
        import json

        outputs = [tensor_to_json(tensor) for tensor in outcome.outputs]
        print(json.dumps({**outcome.document, "outputs": outputs}, ensure_ascii=False))
    else:
        for tensor in outcome.outputs:
            print(format_tensor(tensor))


# More elements than a person types: as bytes they are a third of the size, and exact.
_LARGE = 1024

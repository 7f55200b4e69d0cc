"""Requests that differ from the one before in nothing but the values of their only tensor.

A client that sends one request after another sends the same JSON around other numbers. Where the
text before and after the values is the same as last time, byte for byte, it needs no second
reading: one JSON array in place of another of the same type leaves all else as it was. What comes
out is the same as from :func:`~modelport.wire.v2_rest.decode_infer_request`; where it would not
be, or nothing matches, that does the work.
"""

import math
import struct

import msgspec
import numpy as np
from msgspec import UNSET

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME
from modelport.messages import Request, Tensors
from modelport.tensors import Tensor
from modelport.wire.v2_document import Document, decode_document
from modelport.wire.v2_rest import Buffer, CodecOptions, Inference, bind, split_body
from modelport.wire.v2_values import CODECS

__all__ = ["TemplateReader"]

MOST_BYTES = 16_384
"""A longer body gains nothing: its values cost more than all the rest."""
MOST_MISSES = 8
"""A client whose text is another each time (ids that count up) is not worth a template."""


class TemplateReader:
    """Reads requests by the example of one that was read the long way."""

    def __init__(self) -> None:
        self._prefix = b""
        self._suffix = b""
        self._misses = 0

    def decode(self, body: Buffer, model: str, options: CodecOptions) -> Inference:
        """Read a body without a binary part, the short way if it can be.

        Raises:
            InvalidRequest: As :func:`~modelport.wire.v2_rest.decode_infer_request` does.
        """
        learned = self._read(body)
        if learned is not None:
            return learned
        text = split_body(body, None, options)
        document = decode_document(text, options.max_json_depth, options.max_exact_bytes)
        inference = bind(document, body, len(text), model, options)
        self._learn(body, document, inference)
        return inference

    def _read(self, body: Buffer) -> Inference | None:
        prefix = self._prefix
        if not prefix or body.__class__ is not bytes or not body.startswith(prefix):
            return None
        suffix = self._suffix
        if not body.endswith(suffix):
            return None
        try:
            values = self._decode(body[len(prefix) : -len(suffix)])
            if len(values) != self._count:
                return None
            packed = bytearray(self._pack(values))
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, struct.error):
            return None
        array = np.ndarray(self._shape, self._dtype, packed)
        learned = self._inference
        example = learned.request
        tensors = Tensors((Tensor(self._name, self._datatype, array, self._shape),))
        request = Request(tensors, example.id, example.outputs, example.parameters)
        return Inference(
            request, learned.is_binary, learned.forms, learned.has_classes, learned.has_spans
        )

    def _learn(self, body: Buffer, document: Document, inference: Inference) -> None:
        """Take a request that was read the long way for an example, if it can be one."""
        if self._misses >= MOST_MISSES or body.__class__ is not bytes or len(body) > MOST_BYTES:
            self._prefix = b""
            return
        self._misses += 1
        self._prefix = b""
        if len(document.inputs) != 1:
            return
        part = document.inputs[0]
        datatype = DATATYPE_BY_NAME[part.datatype]
        raw = part.data
        # What follows from parameters (sequences, priorities) is not repeated here.
        if (
            raw is UNSET
            or part.parameters is not UNSET
            or document.parameters is not UNSET
            or datatype in _UNFIT
        ):
            return
        text = bytes(raw)
        start = body.find(text)
        if start < 0 or body.find(text, start + 1) >= 0:
            return
        codec = CODECS[datatype]
        self._decode = codec.decode
        self._pack = codec.pack
        self._shape = part.shape
        self._count = math.prod(part.shape)
        self._name = part.name
        self._datatype = datatype
        self._dtype = datatype.numpy
        self._inference = inference
        self._suffix = body[start + len(text) :]
        self._prefix = body[:start]


_UNFIT = frozenset({dtypes.BYTES, dtypes.BF16, dtypes.FP16})
"""Those that are packed into arrays, not into bytes; FP16 because it may be refused."""

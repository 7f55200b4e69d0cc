"""Inputs of numbers in the other forms that clients of OVMS send: images, texts, other layouts.

A BYTES tensor for an input of numbers with four dimensions (or five) holds one image in each
element. They are decoded, resized to the height and width of the input, converted to its datatype
with values from 0 to 255, and laid out as it wants them.

The layout is what the configuration says: ``format`` of the input, else the parameter ``layout``
(``NHWC``, ``NCHW``) of the model, else where a 1 or 3, or else a 4, stands that can be the
channels, last before first. The parameter ``color_format`` is ``BGR``, or ``RGB``.

Where ``layout`` is a pair, ``NHWC:NCHW``, arrays of numbers may come in the first of these as well,
and are transposed. From images and arrays alike the parameter ``ovms_mean`` is subtracted, and what
is left is divided by ``ovms_scale``, channel by channel. Where ``ovms_precision`` is not the
datatype of an input of floating-point numbers, arrays may come in it, too.

A BYTES tensor for an input of UINT8 with two dimensions holds one text in each element. They become
rows, filled up with zeros to the length of the longest and one more.

Source: OpenVINO Model Server, "Predict on Binary Inputs", "Model Server Parameters".
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from modelport import dtypes
from modelport.dtypes import DATATYPE_BY_NAME, DataType
from modelport.errors import InvalidInference
from modelport.specs import ModelConfig, ModelInput
from modelport.tensors import Array, Tensor
from modelport.wire.images import MODE_BY_CHANNELS, ImageForm, decode_image, is_image
from modelport.wire.model_config.ovms_forms import FLOATS, parse_channels

__all__ = ["ImageInputs", "ImageLimits"]


class ImageLimits(Struct, frozen=True, kw_only=True):
    """What images may grow into.

    Attributes:
        pixels: Of one image, before it is resized.
        tensor_bytes: Of all images of an input, decoded.
    """

    pixels: int = 32 * 2**20
    tensor_bytes: int = 64 * 2**20


class ImageInputs:
    """The inputs of one model that may be sent in another form than it takes.

    Args:
        config: Complete.
        limits: The operator's.
    """

    def __init__(self, config: ModelConfig, limits: ImageLimits) -> None:
        self._config = config
        self._limits = limits
        self._entry_by_name = {
            entry.name: entry
            for entry in config.input
            if entry.datatype in _PRECISIONS and len(_shape(config, entry)) in (4, 5)
        }
        self._text_entry_by_name = {
            entry.name: entry
            for entry in config.input
            if entry.datatype is dtypes.UINT8 and len(_shape(config, entry)) == 2
        }
        self._means = _channels(config, "ovms_mean")
        self._scales = _channels(config, "ovms_scale")
        self._precision = DATATYPE_BY_NAME.get(config.parameter("ovms_precision"))
        # Whether arrays of numbers change, too.
        self._arranges = bool(
            ":" in config.parameter("layout") or self._means or self._scales or self._precision
        )

    @classmethod
    def of(cls, config: ModelConfig, limits: ImageLimits, *, is_ovms: bool) -> "ImageInputs | None":
        """Make them for a model, or give ``None`` where it does not behave as under OVMS.

        Args:
            config: Its parameter ``ovms`` decides.
            limits: The operator's.
            is_ovms: What the operator says for models that do not say it.
        """
        return cls(config, limits) if config.switch("ovms", is_ovms) else None

    def concerns(self, tensors: Sequence[Tensor]) -> bool:
        """Whether any of these is sent in another form; quick."""
        return any(
            tensor.name in self._entry_by_name or tensor.name in self._text_entry_by_name
            if tensor.datatype is dtypes.BYTES
            else self._arranges and tensor.name in self._entry_by_name
            for tensor in tensors
        )

    def decode(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Give what the model takes in the place of what was sent; milliseconds for each image.

        Raises:
            InvalidInference: If something is no image, or does not fit.
            Unsupported: If nothing is installed that decodes images.
        """
        return [self._taken(tensor) for tensor in tensors]

    def _taken(self, tensor: Tensor) -> Tensor:
        entry = self._entry_by_name.get(tensor.name)
        if tensor.datatype is dtypes.BYTES:
            if entry is not None:
                return self._decoded(tensor, entry)
            text_entry = self._text_entry_by_name.get(tensor.name)
            return tensor if text_entry is None else self._rows_of_text(tensor, text_entry)
        if entry is None or not self._arranges or tensor.fault is not None:
            return tensor
        if tensor.datatype is self._precision and entry.data_type in FLOATS:
            tensor = self._converted(tensor, entry)
        return self._arranged(tensor, entry) if tensor.datatype is entry.datatype else tensor

    def _converted(self, tensor: Tensor, entry: ModelInput) -> Tensor:
        """Give an array in the datatype of the model, if it is in the other that is allowed."""
        if tensor.datatype is entry.datatype:
            return tensor
        rows = self._empty(1, tensor.shape, entry)
        # Beyond what FP16 holds is infinity, as wherever numbers are made smaller.
        with np.errstate(over="ignore"):
            rows[0] = tensor.array
        array = rows.reshape(tensor.shape)
        if entry.datatype is dtypes.BF16:
            array = dtypes.bf16_from_float32(array)
        return Tensor(entry.name, entry.datatype, array)

    def _rows_of_text(self, tensor: Tensor, entry: ModelInput) -> Tensor:
        """Make one row of each text; fixed widths are kept where the texts fit into them."""
        if tensor.fault is not None:
            raise InvalidInference(str(tensor.fault))
        texts: list[bytes] = tensor.array.ravel().tolist()
        width = max(entry.dims[-1], 1 + max(map(len, texts), default=0))
        rows = self._empty(len(texts), (width,), entry)
        rows[:] = 0
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = np.frombuffer(text, np.uint8)
        return Tensor(entry.name, entry.datatype, rows)

    def _arranged(self, tensor: Tensor, entry: ModelInput) -> Tensor:
        """Lay an array of numbers out as the model takes it; leave it if no way of that fits."""
        array = tensor.array
        shape = _shape(self._config, entry)
        layout = self._config.parameter("layout").upper()
        if ":" in layout and array.ndim == len(shape):
            source, target = (-1, -3) if layout.endswith("CHW") else (-3, -1)
            moved = np.moveaxis(array, source, target)
            if _fits(moved.shape, shape):
                array = np.ascontiguousarray(moved)
        if entry.data_type in FLOATS and _fits(array.shape, shape):
            is_bf16 = entry.datatype is dtypes.BF16
            values = dtypes.float32_from_bf16(array) if is_bf16 else array
            values = self._normalised(values, entry)
            array = dtypes.bf16_from_float32(values) if is_bf16 else values
        return Tensor(entry.name, entry.datatype, array)

    def _normalised(self, array: Array, entry: ModelInput) -> Array:
        """Subtract the mean of each channel, and divide by its scale; gives the array or another.

        Args:
            array: Of floating-point numbers, laid out as the model takes it.
            entry: Of the model.
        """
        for channels, change in ((self._means, np.subtract), (self._scales, np.divide)):
            if not channels:
                continue
            values = np.array(channels, array.dtype)
            if len(channels) > 1:
                axis = -1 if _layout(self._config, entry) == "HWC" else -3
                if array.shape[axis] != len(channels):
                    raise InvalidInference(
                        f"Invalid number of channels: input '{entry.name}' has "
                        f"{array.shape[axis]}, and the configuration of the model a mean or scale "
                        f"for {len(channels)}"
                    )
                values = values.reshape(-1, *(1,) * (-1 - axis))
            array = change(array, values)
        return array

    def _decoded(self, tensor: Tensor, entry: ModelInput) -> Tensor:
        if tensor.fault is not None:
            images = _bare(tensor)
            if images is None:
                raise InvalidInference(f"Image parsing failed; {tensor.fault}")
            return Tensor(entry.name, entry.datatype, self._batch(images, entry))
        images = tensor.array.ravel().tolist()
        if tensor.array.ndim > 2 or tensor.array.ndim == 0 or tensor.shape[0] != len(images):
            shape = list(tensor.shape)
            raise InvalidInference(
                f"Invalid shape of encoded images for input '{entry.name}': the shape must be "
                f"[N] for N images, got {shape}"
            )
        array = self._batch(images, entry)
        return Tensor(entry.name, entry.datatype, array)

    def _batch(self, images: list[bytes], entry: ModelInput) -> Array:
        config = self._config
        shape = _shape(config, entry)
        leading = self._leading(len(images), shape, entry)
        layout = _layout(config, entry)
        height, width, channels = (shape[-3:][layout.index(axis)] for axis in "HWC")
        form = ImageForm(
            height if height > 0 else None,
            width if width > 0 else None,
            channels if channels > 0 else 3,
            config.parameter("color_format", "BGR").upper() == "RGB",
        )
        if form.channels not in MODE_BY_CHANNELS:
            raise InvalidInference(
                f"Invalid number of channels: input '{entry.name}' takes {form.channels}, and "
                "images have 1, 3 or 4"
            )
        batch: Array | None = None
        for index, image in enumerate(images):
            if batch is None and form.height and form.width:
                batch = self._empty(len(images), (form.height, form.width, form.channels), entry)
            pixels = decode_image(image, form, self._limits.pixels)
            if batch is None:
                batch = self._empty(len(images), pixels.shape, entry)
            if pixels.shape != batch.shape[1:]:
                raise InvalidInference(
                    f"Invalid shape: image {index} of input '{entry.name}' is "
                    f"{pixels.shape[1]} x {pixels.shape[0]}, and those before it "
                    f"{batch.shape[2]} x {batch.shape[1]}; the model does not say a size to "
                    "resize them to, so all images of a request must have the same"
                )
            batch[index] = pixels
        assert batch is not None
        if layout == "CHW":
            batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        batch = batch.reshape(*leading, *batch.shape[1:])
        if entry.data_type in FLOATS:
            batch = self._normalised(batch, entry)
        if entry.datatype is dtypes.BF16:
            return dtypes.bf16_from_float32(batch)
        return batch

    def _leading(self, count: int, shape: tuple[int, ...], entry: ModelInput) -> tuple[int, ...]:
        """The dimensions before those of an image; refuses what could never fit."""
        most = self._config.max_batch_size
        if count == 0:
            raise InvalidInference(f"no image was sent for input '{entry.name}'")
        if most and count > most:
            raise InvalidInference(
                f"inference request batch-size must be <= {most} for '{self._config.name}', "
                f"got {count}; send the images in several requests"
            )
        inner = shape[1:-3]
        each = math.prod(dim if dim > 0 else 1 for dim in inner)
        leading = (count // each, *(dim if dim > 0 else 1 for dim in inner))
        if math.prod(leading) != count or shape[0] not in (-1, leading[0]):
            raise InvalidInference(
                f"Invalid batch size of encoded images for input '{entry.name}': its shape is "
                f"{list(shape)}, and {count} images do not fill it"
            )
        return leading

    def _empty(self, count: int, shape: tuple[int, ...], entry: ModelInput) -> Array:
        datatype = np.dtype(np.float32) if entry.datatype is dtypes.BF16 else entry.datatype.numpy
        size = count * math.prod(shape) * datatype.itemsize
        if size > self._limits.tensor_bytes:
            raise InvalidInference(
                f"what input '{entry.name}' holds takes {size} bytes when it is decoded, and at "
                f"most {self._limits.tensor_bytes} are accepted. Send fewer at once, or use "
                "--http-max-input-size to increase the limit."
            )
        return np.empty((count, *shape), datatype)


def _bare(tensor: Tensor) -> list[bytes] | None:
    """Take BYTES that have no lengths in them for the one image that is asked for, if they can be.

    So did clients of OVMS send it over gRPC before 2023.0.
    """
    if tensor.array.dtype != np.uint8 or math.prod(tensor.shape) != 1:
        return None
    data = tensor.array.tobytes()
    return [data] if is_image(data) else None


def _shape(config: ModelConfig, entry: ModelInput) -> tuple[int, ...]:
    """As on the wire, with the batch dimension."""
    return ((-1,) if config.max_batch_size > 0 else ()) + entry.dims


def _channels(config: ModelConfig, name: str) -> tuple[float, ...]:
    text = config.parameter(name)
    return parse_channels(text) if text else ()


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(shape) == len(expected) and all(
        dim in (-1, size) for dim, size in zip(expected, shape, strict=True)
    )


def _layout(config: ModelConfig, entry: ModelInput) -> str:
    """``HWC`` or ``CHW``."""
    named = entry.format.removeprefix("FORMAT_")
    if named == "NONE":
        named = config.parameter("layout", "").upper()
    if named.endswith(("HWC", "CHW")):
        return named[-3:]
    first, _, last = entry.dims[-3:]
    for channels in (1, 3), (4,), (-1,):
        if last in channels:
            return "HWC"
        if first in channels and -1 not in channels:
            return "CHW"
    raise InvalidInference(
        "Received binary image input but resource not configured to accept NHWC layout; input "
        f"'{entry.name}' has the shape {list(_shape(config, entry))}, in which no dimension can be "
        "the channels. Set its format to FORMAT_NHWC or FORMAT_NCHW."
    )


_PRECISIONS: frozenset[DataType] = frozenset(
    {
        dtypes.UINT8,
        dtypes.UINT16,
        dtypes.UINT32,
        dtypes.UINT64,
        dtypes.INT16,
        dtypes.INT32,
        dtypes.INT64,
        dtypes.FP16,
        dtypes.BF16,
        dtypes.FP32,
        dtypes.FP64,
    }
)
"""Those that hold 0 to 255; INT8 and BOOL do not."""

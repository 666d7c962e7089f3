"""Import from Caffe: ``bvlc_alexnet.caffemodel`` and ``bvlc_reference_caffenet.caffemodel``.

A caffemodel is a protocol buffer, parsed by Google's library with the few messages below: the parts of ``caffe.proto``
with the layers, their order and their blobs. Both forms are supported: layers of version 1 (``layers``, as in the files
that BVLC published) and of version 2 (``layer``).

Caffe's two groups are our two columns, kernel for kernel. Its images are BGR, so the channels of conv1's kernels and of
the mean image are reversed. The order of ``pool1`` and ``norm1`` tells which of the two networks it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import CheckpointError, ConfigurationError
from minialex.exchange.whole import foreign
from minialex.network import variants
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex.runs.weights_file import Weights, check

PROTO = """
message BlobShape { repeated int64 dim = 1; }
message BlobProto {
    optional int64 num = 1; optional int64 channels = 2; optional int64 height = 3; optional int64 width = 4;
    repeated bytes data = 5; optional BlobShape shape = 7; repeated bytes double_data = 8;
}
message ConvolutionParameter { optional int64 group = 5; }
message LRNParameter {
    optional int64 local_size = 1; optional float alpha = 2; optional float beta = 3;
    optional int64 norm_region = 4; optional float k = 5;
}
message LayerParameter {
    optional string name = 1; optional string type = 2; repeated BlobProto blobs = 7;
    optional ConvolutionParameter convolution_param = 106; optional LRNParameter lrn_param = 118;
}
message V1LayerParameter {
    optional bytes layer = 1; optional string name = 4; repeated BlobProto blobs = 6;
    optional ConvolutionParameter convolution_param = 10; optional LRNParameter lrn_param = 18;
}
message NetParameter {
    optional string name = 1; repeated V1LayerParameter layers = 2; repeated LayerParameter layer = 100;
}
"""
"""The parts of BVLC's caffe.proto that are read; ``V1LayerParameter.layer`` is version 0's, of 2013.

A packed array of numbers is bytes on the wire, and is read as bytes: the library would make 61 million Python numbers
of it.
"""

GROUPED = ("conv2", "conv4", "conv5")
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)  # each channel's mean in imagenet_mean.binaryproto
SIZE_LIMIT = 2**31  # bytes; no protocol buffer is larger


@lru_cache(maxsize=1)
def messages() -> dict[str, Any]:
    """The messages as classes of the protobuf library, in a descriptor pool of their own.

    Raises:
        ConfigurationError: If the package protobuf is missing.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise ConfigurationError(
            "reading Caffe files needs the package protobuf: pip install 'minialex[export]'"
        ) from None
    kind = descriptor_pb2.FieldDescriptorProto
    package = "minialex.caffe"
    file = descriptor_pb2.FileDescriptorProto(name="minialex/caffe.proto", package=package, syntax="proto2")
    definitions = dict(re.findall(r"message (\w+) {(.*?)}", PROTO, re.DOTALL))
    for message, fields in definitions.items():
        entry = file.message_type.add(name=message)
        for label, type_, name, number in re.findall(r"(\w+) (\w+) (\w+) = (\d+);", fields):
            field = entry.field.add(name=name, number=int(number), label=getattr(kind, f"LABEL_{label.upper()}"))
            if type_ in definitions:
                field.type, field.type_name = kind.TYPE_MESSAGE, f".{package}.{type_}"
            else:
                field.type = getattr(kind, f"TYPE_{type_.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"{package}.{name}")) for name in definitions}


def _parse(path: Path, message: str) -> Any:
    """Parse a file as one message; `CheckpointError` if it is not one."""
    parsed = messages()[message]()
    from google.protobuf.message import DecodeError

    try:
        if path.stat().st_size >= SIZE_LIMIT:
            raise CheckpointError(f"{path} is too large for a Caffe file")
        parsed.ParseFromString(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (DecodeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged, or not a Caffe file: {error}") from None
    return parsed


def weights(path: Path, mean: Path | None = None) -> Weights:
    """Weights for the recipe ``caffe`` or ``caffenet``, with as many classes as the last layer.

    Args:
        path: the caffemodel
        mean: ``imagenet_mean.binaryproto`` or ``ilsvrc_2012_mean.npy``, the mean image in BGR; without it, each
            channel's mean over that image is used

    Raises:
        CheckpointError: If a file is damaged or holds another network; the message says what is wrong.
        ConfigurationError: If the package protobuf is missing.
    """
    net = _parse(path, "NetParameter")
    try:
        layers = list(net.layer) or list(net.layers)
        names = [str(layer.name) for layer in layers]
        if any(layer.HasField("layer") for layer in net.layers):
            raise CheckpointError(
                f"{path} has the format of Caffe's first version: run Caffe's upgrade_net_proto_binary on it"
            )
        if "conv1" not in names or "pool1" not in names or "norm1" not in names:
            raise CheckpointError(f"{path} is not Caffe's AlexNet or CaffeNet: it has no layers conv1, pool1, norm1")
        recipe = _recipe(path, layers, names)
        tensors = _tensors(path, layers, recipe)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    recipe = recipe.replace(classes=len(tensors["fc8.bias"]))
    check(tensors, recipe, str(path))
    tensors["conv1.weight"] = np.ascontiguousarray(tensors["conv1.weight"][:, ::-1])
    image = np.array(MEAN_BGR[::-1])[:, None, None] if mean is None else read_mean(mean, recipe.image_size)
    return foreign(tensors, recipe, image, "ImageNet, as BVLC says")


def _recipe(path: Path, layers: Sequence[Any], names: Sequence[str]) -> Recipe:
    """The recipe of the file's network, of the two, with the file's normalisation."""
    recipe = load("caffenet" if names.index("pool1") < names.index("norm1") else "caffe")
    norms = [layer.lrn_param for layer in layers if layer.HasField("lrn_param")]
    if any(norm != norms[0] for norm in norms) or any(norm.norm_region for norm in norms):
        raise CheckpointError(f"{path}: its normalisations differ, or run over positions: another network")
    for layer in layers:
        group = layer.convolution_param.group if layer.HasField("convolution_param") else 0
        if group > 1 and (group != recipe.columns or layer.name not in GROUPED):
            raise CheckpointError(f"{path}: layer '{layer.name}' has {group} groups: another network")
    if not norms:
        return recipe
    defaults = {"local_size": 5, "alpha": 1, "beta": 0.75, "k": 1}
    size, *numbers = (getattr(norms[0], name) if norms[0].HasField(name) else value for name, value in defaults.items())
    alpha, beta, k = (float(f"{number:.7g}") for number in numbers)  # as written: they were rounded to float32
    try:
        return recipe.replace(norm_size=size, norm_alpha=alpha, norm_beta=beta, norm_k=k)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _tensors(path: Path, layers: Sequence[Any], recipe: Recipe) -> dict[str, NDArray[Any]]:
    expected = whole_shapes(variants.build(recipe), recipe.columns)
    tensors: dict[str, NDArray[Any]] = {}
    for layer in layers:
        if not layer.blobs:
            continue
        name = "fc8" if layer.name.startswith("fc8") else layer.name  # renamed if it was fine-tuned
        if f"{name}.weight" not in expected or f"{name}.weight" in tensors or len(layer.blobs) != 2:
            raise CheckpointError(f"{path}: layer '{layer.name}' is not in AlexNet: another network")
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=True):
            rank = len(expected[f"{name}.{kind}"])
            tensors[f"{name}.{kind}"] = _array(blob, rank, f"{path}: {kind} of layer '{layer.name}'")
    for name in expected:
        if name not in tensors:
            raise CheckpointError(f"{path}: '{name}' is missing: another network, or a file cut short")
    return tensors


def _array(blob: Any, rank: int, what: str) -> NDArray[Any]:
    """A blob's numbers in its shape; leading axes of length 1 that Caffe adds are removed, down to `rank` axes."""
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    content, dtype = (blob.data, "<f4") if blob.data else (blob.double_data, "<f8")
    numbers = b"".join(content) if len(content) != 1 else content[0]
    if len(numbers) % np.dtype(dtype).itemsize:
        raise CheckpointError(f"{what} is damaged: {len(numbers)} bytes")
    flat = np.frombuffer(numbers, dtype)
    while len(shape) > rank and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != rank or min(shape) < 1 or math.prod(shape) != flat.size:
        raise CheckpointError(f"{what} has {flat.size} numbers but states the shape {shape}: damaged")
    return flat.reshape(shape)


def read_mean(path: Path, size: int) -> NDArray[np.float32]:
    """Read one of Caffe's mean images, ``.binaryproto`` or ``.npy``, as float32 [3, size, size] in RGB.

    Raises:
        CheckpointError: If it is damaged, not of that size, or not finite.
    """
    if path.suffix == ".npy":
        try:
            image = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(f"{path} is not a NumPy array: {error}") from None
    else:
        image = _array(_parse(path, "BlobProto"), 3, f"the mean image {path}")
    if image.shape != (3, size, size) or image.dtype.kind != "f" or not np.isfinite(image).all():
        raise CheckpointError(f"{path}: expected a mean image of (3, {size}, {size}) finite numbers, got {image.shape}")
    return np.ascontiguousarray(image[::-1], np.float32)

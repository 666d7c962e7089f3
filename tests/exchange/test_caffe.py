"""Caffe's two networks, at full size: caffemodels in both forms of the format, and the same probabilities.

The files are made with the messages of ``caffe.proto`` as BVLC published it (numbers as ``repeated float``), and the
other side is Caffe's network written down in PyTorch from its prototxt: BGR, two groups, normalisation over all
channels before or after pooling, pooling that rounds up.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minialex.cli import import_ as commands
from minialex.errors import CheckpointError, ConfigurationError
from minialex.exchange import caffe
from minialex.runs import weights_file as weights

from .conftest import centre, images, log_softmax, ours

SHAPES = {
    "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096),
}  # fmt: skip
ORDER = {
    "caffe": "data conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 fc6 relu6 "
    "drop6 fc7 relu7 drop7 fc8 loss",
    "caffenet": "data conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 fc6 "
    "relu6 drop6 fc7 relu7 drop7 fc8 loss",
}


def blobs(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Random weights and biases of every layer, as large as keeps the activations' size."""
    random = np.random.default_rng(seed)
    made = {}
    for name, shape in SHAPES.items():
        std = (2 / np.prod(shape[1:])) ** 0.5 / (70 if name == "conv1" else 1)
        made[f"{name}.weight"] = np.float32(std) * random.standard_normal(shape, np.float32)
        made[f"{name}.bias"] = np.float32(0.1) * random.standard_normal(shape[0], np.float32)
    return made


def caffemodel(kind: str, arrays: dict[str, NDArray[np.float32]], version: int, alpha: float = 1e-4) -> bytes:
    """The file that Caffe writes. Packed floats are bytes on the wire: see `test_packed_floats_are_bytes`."""
    net = caffe.messages()["NetParameter"](name="AlexNet" if kind == "caffe" else "CaffeNet")
    for name in ORDER[kind].split():
        layer = (net.layers if version == 1 else net.layer).add(name=name)
        if name.startswith("norm"):
            layer.lrn_param.local_size, layer.lrn_param.alpha, layer.lrn_param.beta = 5, alpha, 0.75
        if name in ("conv2", "conv4", "conv5"):
            layer.convolution_param.group = 2
        for part in ("weight", "bias") if name in SHAPES else ():
            array = arrays[f"{name}.{part}"]
            blob = layer.blobs.add(data=[array.astype("<f4").tobytes()])
            if version == 1:  # always four numbers
                four = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = four
            else:
                blob.shape.dim.extend(array.shape)
    content: bytes = net.SerializeToString()
    return content


def mean_image() -> NDArray[np.float32]:
    """A mean image as Caffe has it: BGR, 256 × 256."""
    random = np.random.default_rng(8)
    mean: NDArray[np.float32] = random.uniform(90, 130, (3, 256, 256)).astype(np.float32)
    return mean


def caffes_own(torch: Any, kind: str, arrays: dict[str, NDArray[np.float32]], bgr: Any, alpha: float) -> Any:
    """deploy.prototxt, line by line."""
    F = torch.nn.functional
    t = {name: torch.tensor(array).double() for name, array in arrays.items()}

    def norm(x: Any) -> Any:
        return F.local_response_norm(x, 5, alpha, 0.75, 1.0)

    def pool(x: Any) -> Any:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    first, second = (norm, pool) if kind == "caffe" else (pool, norm)
    x = F.relu(F.conv2d(bgr, t["conv1.weight"], t["conv1.bias"], stride=4))
    x = second(first(x))
    x = F.relu(F.conv2d(x, t["conv2.weight"], t["conv2.bias"], padding=2, groups=2))
    x = second(first(x))
    x = F.relu(F.conv2d(x, t["conv3.weight"], t["conv3.bias"], padding=1))
    x = F.relu(F.conv2d(x, t["conv4.weight"], t["conv4.bias"], padding=1, groups=2))
    x = F.relu(F.conv2d(x, t["conv5.weight"], t["conv5.bias"], padding=1, groups=2))
    x = pool(x).flatten(1)
    x = F.relu(F.linear(x, t["fc6.weight"], t["fc6.bias"]))
    x = F.relu(F.linear(x, t["fc7.weight"], t["fc7.bias"]))
    return F.linear(x, t["fc8.weight"], t["fc8.bias"])


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "version", "mean"), [("caffe", 1, "binaryproto"), ("caffenet", 2, "npy")])
def test_the_same_probabilities(kind: str, version: int, mean: str, tmp_path: Path, torch: Any) -> None:
    arrays, image, alpha = blobs(), mean_image(), 0.25
    (tmp_path / "bvlc.caffemodel").write_bytes(caffemodel(kind, arrays, version, alpha))
    mean_file = tmp_path / f"mean.{mean}"
    if mean == "npy":
        np.save(mean_file, image)
    else:
        blob = caffe.messages()["BlobProto"](num=1, channels=3, height=256, width=256, data=[image.tobytes()])
        mean_file.write_bytes(blob.SerializeToString())
    commands.import_weights(tmp_path / "bvlc.caffemodel", tmp_path / "w.safetensors", None, None, mean_file, False)
    found = weights.find(tmp_path / "w.safetensors")
    assert found.recipe.norm_place == ("after-relu" if kind == "caffe" else "after-pool")
    assert found.recipe.norm_alpha == alpha
    pixels = images(found.recipe, 2)
    expected = ours(found, pixels)
    first = (256 - 227) // 2
    with torch.no_grad():
        rgb = centre(found.recipe, pixels).astype(np.float64)
        bgr = rgb[:, ::-1] - image[:, first : first + 227, first : first + 227]
        theirs = log_softmax(caffes_own(torch, kind, arrays, torch.tensor(bgr.copy()), alpha).numpy())
        other = log_softmax(caffes_own(torch, {"caffe": "caffenet", "caffenet": "caffe"}[kind], arrays,
                                       torch.tensor(bgr.copy()), alpha).numpy())  # fmt: skip
    assert np.abs(theirs - expected.value).max() <= expected.bound64  # nothing was rounded on the way
    assert np.abs(other - expected.value).max() > 1000 * expected.bound32


def test_packed_floats_are_bytes() -> None:
    """caffe.proto's BlobProto, ``repeated float data = 5 [packed = true]``, has the bytes that the tests make."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="blob.proto", package="test", syntax="proto2")
    field = file.message_type.add(name="Blob").field.add(
        name="data", number=5, type=kind.TYPE_FLOAT, label=kind.LABEL_REPEATED
    )
    field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    official = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Blob"))(data=numbers.tolist())
    ours_ = caffe.messages()["BlobProto"](data=[numbers.tobytes()])
    assert official.SerializeToString() == ours_.SerializeToString()


# ---- what is no such file -------------------------------------------------------------------------------------

TINY = {name: np.zeros((1, 1), np.float32) for name in ("conv1.weight", "conv1.bias")}


def net(**changes: Any) -> Any:
    """A caffemodel that is right in its order and has small blobs."""
    made = caffe.messages()["NetParameter"](name="AlexNet")
    for name in ORDER["caffe"].split():
        layer = made.layer.add(name=name)
        for part in range(2 if name in SHAPES else 0):
            layer.blobs.add(data=[struct.pack("<f", part)]).shape.dim.extend([1] * (4 - 3 * part))
    for change in changes.values():
        change(made)
    return made


def layer_of(made: Any, name: str) -> Any:
    return next(layer for layer in made.layer if layer.name == name)


def dims(*values: int) -> Any:
    def change(made: Any) -> None:
        del layer_of(made, "conv1").blobs[0].shape.dim[:]
        layer_of(made, "conv1").blobs[0].shape.dim.extend(values)

    return change


BROKEN: dict[str, tuple[Any, str]] = {
    "another shape": (lambda m: None, "1 kernels of conv1 cannot be divided into 2 columns"),
    "dimensions that are no shape": (dims(2, 2, 1, 1), "has 1 numbers but states the shape (2, 2, 1, 1)"),
    "a product that overflows": (dims(2**62, 4, 1, 1), "damaged"),
    "a negative dimension": (dims(-1, -1, 1, 1), "damaged"),
    "too many dimensions": (dims(*[1] * 4, 7), "damaged"),
    "a number cut short": (lambda m: layer_of(m, "conv1").blobs[0].data.append(b"abc"), "is damaged: 7 bytes"),
    "a missing layer": (lambda m: layer_of(m, "conv4").ClearField("blobs"), "'conv4.weight' is missing"),
    "a layer twice": (lambda m: layer_of(m, "conv4").__setattr__("name", "conv3"), "layer 'conv3' is not in AlexNet"),
    "another layer": (lambda m: layer_of(m, "conv5").__setattr__("name", "inception"), "layer 'inception' is not"),
    "three blobs": (lambda m: layer_of(m, "conv5").blobs.add(), "layer 'conv5' is not in AlexNet"),
    "other groups": (lambda m: setattr(layer_of(m, "conv2").convolution_param, "group", 4), "'conv2' has 4 groups"),
    "groups elsewhere": (lambda m: setattr(layer_of(m, "conv3").convolution_param, "group", 2), "'conv3' has 2 groups"),
    "another normalisation": (lambda m: setattr(layer_of(m, "norm1").lrn_param, "norm_region", 1), "another network"),
    "a window of none": (lambda m: setattr(layer_of(m, "norm1").lrn_param, "local_size", 0), "norm_size"),
    "no normalisation": (lambda m: layer_of(m, "norm1").__setattr__("name", "x"), "not Caffe's AlexNet"),
    "of 2013": (lambda m: setattr(m.layers.add(), "layer", b"\x0a\x01x"), "upgrade_net_proto_binary"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_other_networks(name: str, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    path = tmp_path / "x.caffemodel"
    path.write_bytes(net(change=change).SerializeToString())
    with pytest.raises(CheckpointError) as caught:
        caffe.weights(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"\x00" * 100, bytes(range(256)) * 8, b"\xa2\x06\xff\xff\xff\x0f"]
)
def test_what_is_no_caffemodel(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x.caffemodel"):
        caffe.weights(path)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    content = net().SerializeToString()
    path = tmp_path / "x.caffemodel"
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            caffe.weights(path)


def test_mean_images(tmp_path: Path) -> None:
    image = mean_image()
    np.save(tmp_path / "m.npy", image)
    np.testing.assert_array_equal(caffe.read_mean(tmp_path / "m.npy", 256), image[::-1])
    np.save(tmp_path / "small.npy", image[:, :10])
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((3, 256, 256), np.nan))
    (tmp_path / "text.binaryproto").write_text("mean", encoding="utf-8")
    for name in ("small.npy", "objects.npy", "nan.npy", "text.binaryproto", "none.npy", "none.binaryproto"):
        with pytest.raises(CheckpointError, match=name):
            caffe.read_mean(tmp_path / name, 256)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    caffe.messages.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"pip install 'minialex\[export\]'"):
            caffe.weights(tmp_path / "x.caffemodel")
    finally:
        caffe.messages.cache_clear()

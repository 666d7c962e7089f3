"""Numbers and orders that other programs have: written down here from their sources, not taken from our code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.exchange import caffe, onnx_file, pytorch_file, pytorch_module, torchvision
from minialex.exchange.whole import Whole
from minialex.network import variants
from minialex.network.layers import Conv2d, SpatialResponseNorm
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex_numpy import NumpyBackend

from .test_torchvision import small_state


def test_torchvisions_pixels() -> None:
    """ImageClassification's defaults: mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225], of pixels in 0 … 1."""
    first = np.ones((64, 3, 11, 11), np.float32)
    first[:, :, 0, 0] = 2
    found = torchvision.weights(small_state(**{"features.0.weight": first}), "file.pth")
    np.testing.assert_allclose(found.statistics.mean[:, 0, 0], [123.675, 116.28, 103.53], rtol=1e-6)
    red, green, blue = found.tensors["conv1.weight"][0, :, 5, 5] * found.recipe.pixel_scale
    assert [red, green, blue] == pytest.approx([1 / 58.395, 1 / 57.12, 1 / 57.375], rel=1e-6)
    np.testing.assert_allclose(found.tensors["conv1.weight"][:, :, 0, 0], 2 * found.tensors["conv1.weight"][:, :, 1, 1])


def test_torchvisions_layers() -> None:
    """Each of its layers by the number that its place in nn.Sequential gives it."""
    marks = {"features.0": 1, "features.3": 2, "features.6": 3, "features.8": 4, "features.10": 5, "classifier.1": 6,
             "classifier.4": 7, "classifier.6": 8}  # fmt: skip
    state = small_state()
    for name, mark in marks.items():
        state[f"{name}.bias"] = np.full_like(state[f"{name}.bias"], mark)
    found = torchvision.weights(state, "file.pth").tensors
    for number, layer in enumerate(("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"), 1):
        assert set(found[f"{layer}.bias"]) == {number}


def imported(monkeypatch: pytest.MonkeyPatch, arrays: dict[str, Any]) -> Any:
    """What becomes of a caffemodel of these arrays, zeros for the others."""
    net = caffe.messages()["NetParameter"]()
    for name in ("conv1", "norm1", "pool1"):
        net.layer.add(name=name)

    def tensors(path: Path, layers: Any, recipe: Recipe) -> dict[str, Any]:
        shapes = whole_shapes(variants.build(recipe), recipe.columns)
        return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()} | arrays

    monkeypatch.setattr(caffe, "_parse", lambda path, message: net)
    monkeypatch.setattr(caffe, "_tensors", tensors)
    return caffe.weights(Path("bvlc.caffemodel"))


def test_caffes_mean_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """BVLC's mean of ILSVRC 2012: blue 104.007, green 116.669, red 122.679; its kernels read blue, green, red."""
    first = np.broadcast_to(np.arange(3, dtype=np.float32)[None, :, None, None], (96, 3, 11, 11))
    found = imported(monkeypatch, {"conv1.weight": first})
    np.testing.assert_allclose(found.statistics.mean[:, 7, 9], [122.67891434, 116.66876762, 104.00698793], rtol=1e-7)
    assert found.tensors["conv1.weight"][0, :, 0, 0].tolist() == [2, 1, 0]


def test_caffes_mean_image_is_turned(tmp_path: Path) -> None:
    image = np.stack([np.full((4, 4), value, np.float32) for value in (104, 117, 123)])
    np.save(tmp_path / "mean.npy", image)
    assert caffe.read_mean(tmp_path / "mean.npy", 4)[:, 0, 0].tolist() == [123, 117, 104]


def test_caffes_defaults_of_its_normalisation() -> None:
    """LRNParameter in caffe.proto: local_size [default = 5], alpha [default = 1.], beta [default = 0.75], k [default =
    1.]."""
    net = caffe.messages()["NetParameter"]()
    for name in ("conv1", "norm1", "pool1"):
        layer = net.layer.add(name=name)
        if name == "norm1":
            layer.lrn_param.SetInParent()
    found = caffe._recipe(Path("x"), list(net.layer), ["conv1", "norm1", "pool1"])
    assert (found.norm_size, found.norm_alpha, found.norm_beta, found.norm_k) == (5, 1.0, 0.75, 1.0)
    assert found.norm_place == "after-relu"  # as in bvlc_alexnet; bvlc_reference_caffenet pools first
    other = caffe._recipe(Path("x"), list(net.layer), ["conv1", "pool1", "norm1"])
    assert other.norm_place == "after-pool"


def test_caffes_numbers_in_double_precision() -> None:
    numbers = np.arange(6, dtype="<f8") / 7
    blob = caffe.messages()["BlobProto"](double_data=[numbers.tobytes()])
    blob.shape.dim.extend([1, 2, 3])
    np.testing.assert_array_equal(caffe._array(blob, 2, "a blob"), numbers.reshape(2, 3))


def archive(path: Path, pickled: bytes, order: str, row: bytes) -> Path:
    """A file as torch.save writes it, of one tensor."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        for name, content in (("data.pkl", pickled), ("byteorder", order.encode()), ("data/0", row)):
            made.writestr(f"archive/{name}", content)
    return path


def test_a_tensor_begins_at_its_offset_and_follows_its_strides(tmp_path: Path) -> None:
    """torch.arange(24.)[6:18].view(4, 3).T, as PyTorch describes it: offset 6, shape (3, 4), strides (1, 3)."""
    pickled = pytorch_file._pickled({"w": np.zeros((3, 4), np.float32)})
    size, whole = b"J\x0c\x00\x00\x00tQ", b"J\x18\x00\x00\x00tQ"
    strides, turned = b"(J\x04\x00\x00\x00J\x01\x00\x00\x00t", b"(J\x01\x00\x00\x00J\x03\x00\x00\x00t"
    for before, after in ((size + b"K\x00", whole + b"K\x06"), (strides, turned)):
        assert pickled.count(before) == 1
        pickled = pickled.replace(before, after)
    row = np.arange(24, dtype="<f4")
    for order, content in (("little", row.tobytes()), ("big", row.astype(">f4").tobytes())):
        found = pytorch_file.read(archive(tmp_path / f"{order}.pt", pickled, order, content))
        assert found["w"].tolist() == [[6, 9, 12, 15], [7, 10, 13, 16], [8, 11, 14, 17]]


def test_a_tensor_ends_with_its_storage_at_most() -> None:
    storage = pytorch_file._Storage("FloatStorage", "0", 6)
    pytorch_file._Tensor(storage, 2, (2, 2), (2, 1))  # its last number is the storage's last
    with pytest.raises(ValueError, match="does not fit into its 6 numbers"):
        pytorch_file._Tensor(storage, 3, (2, 2), (2, 1))


@pytest.mark.peers
def test_slices_that_pytorch_saves(tmp_path: Path, torch: Any) -> None:
    whole = torch.arange(24.0)
    torch.save({"part": whole[6:18].view(4, 3), "turned": torch.arange(10.0)[4:].view(2, 3).T}, tmp_path / "w.pt")
    found = pytorch_file.read(tmp_path / "w.pt")
    assert found["part"].tolist() == np.arange(6, 18).reshape(4, 3).tolist()
    assert found["turned"].tolist() == [[4, 7], [5, 8], [6, 9]]


def test_paddings_in_pytorchs_order() -> None:
    """F.pad takes the last axis first: (left, right, top, bottom); nn.Conv2d's padding is (rows, columns)."""

    def row(padding: Any) -> Whole:
        return Whole(Conv2d("conv1", 4, 3, padding=padding), 1, (3, 9, 9), (4, 9, 9), {})

    assert pytorch_module._steps(row(((0, 3), (1, 2)))) == ["F.pad(x, (1, 2, 0, 3))", "self.conv1(x)"]
    assert pytorch_module._steps(row(((1, 1), (2, 2)))) == ["self.conv1(x)"]
    assert pytorch_module._module(row(((1, 1), (2, 2)))) == "nn.Conv2d(3, 4, 3, padding=(1, 2))"
    assert pytorch_module._module(row(((2, 2), (2, 2)))) == "nn.Conv2d(3, 4, 3, padding=2)"


@pytest.mark.peers
def test_the_papers_dropout_drops_what_it_says(torch: Any) -> None:
    space: dict[str, Any] = {"torch": torch}
    exec(pytorch_module.HELPERS["paper_dropout("], space)
    kept = (space["paper_dropout"](torch.ones(4000), 0.9, True) > 0).float().mean()
    assert 0.07 < float(kept) < 0.13
    assert float(space["paper_dropout"](torch.ones(1), 0.9, False)[0]) == pytest.approx(0.1)


def test_an_even_window_over_places_begins_half_of_it_before() -> None:
    """ONNX's pads are all beginnings, then all ends."""
    graph = onnx_file._Graph()
    onnx_file._spatial_response_norm(graph, SpatialResponseNorm("norm", size=4), "x")
    (pool,) = (node for node in graph.nodes if node.op_type == "AveragePool")
    attributes = {attribute.name: list(attribute.ints) or attribute.i for attribute in pool.attribute}
    assert attributes == {"kernel_shape": [4, 4], "pads": [2, 2, 1, 1], "count_include_pad": 1}


@pytest.mark.peers
@pytest.mark.parametrize("size", [3, 4, 5])
def test_normalisation_over_places_in_pytorch(torch: Any, size: int) -> None:
    space: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
    exec(pytorch_module.HELPERS["spatial_norm("], space)
    x, backend = np.random.default_rng(0).standard_normal((2, 3, 6, 7)), NumpyBackend()
    ours, _ = backend.spatial_response_norm(backend.to_device(x, "cpu:0"), size=size, k=1.5, alpha=0.25, beta=0.75)
    theirs = space["spatial_norm"](torch.tensor(x), size, 1.5, 0.25, 0.75)
    np.testing.assert_allclose(theirs.numpy(), backend.to_numpy(ours), rtol=1e-12)


def test_means_in_an_exported_network() -> None:
    """A centre crop of the mean image at "centre" and "pixel", one number a channel at "channel"."""
    from minialex.exchange.whole import foreign, preprocessing

    recipe = load("small").replace(classes=3)
    size, crop = recipe.image_size, recipe.crop
    image = np.random.default_rng(0).uniform(0, 255, (3, size, size)).astype(np.float32)
    first = (size - crop) // 2
    for mean in ("pixel", "centre"):
        found = preprocessing(foreign({}, recipe.replace(mean=mean), image, "noise"))
        np.testing.assert_array_equal(found.mean, image[:, first : first + crop, first : first + crop])
    found = preprocessing(foreign({}, recipe.replace(mean="channel"), image, "noise"))
    np.testing.assert_allclose(found.mean[:, 0, 0], image.mean(axis=(1, 2)), rtol=1e-5)

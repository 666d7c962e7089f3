"""Export to ONNX, proved by onnxruntime on the same images; and errors that the bound catches."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minialex.errors import ConfigurationError
from minialex.exchange import onnx_file
from minialex.network import variants
from minialex.recipe.toml import load
from minialex.runs.weights_file import Weights

from .conftest import KINDS, centre, images, log_softmax, network, ours

onnx = pytest.importorskip("onnx") if not os.environ.get("CI") else __import__("onnx")
onnxruntime = pytest.importorskip("onnxruntime") if not os.environ.get("CI") else __import__("onnxruntime")


def run(content: bytes, pixels: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": pixels})
    return logits, probabilities


def test_onnxruntime_gives_our_probabilities(weights: Weights, tmp_path: Path) -> None:
    pixels = images(weights.recipe)
    expected = ours(weights, pixels)
    onnx_file.write(tmp_path / "a.onnx", weights)
    logits, probabilities = run((tmp_path / "a.onnx").read_bytes(), centre(weights.recipe, pixels))
    assert np.abs(log_softmax(logits) - expected.value).max() <= expected.bound32
    np.testing.assert_allclose(np.log(probabilities), expected.value, rtol=0, atol=expected.bound32)
    assert expected.bound32 < 2e-3  # the bound itself says something


def test_any_number_of_images_and_the_facts_are_in_it() -> None:
    weights = network(load("small").replace(**KINDS["small"][1]))
    model = onnx_file.build(weights)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", onnx_file.OPSET)]
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["minialex.recipe"] == weights.recipe.to_toml()
    content = model.SerializeToString()
    pixels = centre(weights.recipe, images(weights.recipe, 5))
    whole = run(content, pixels)[0]
    np.testing.assert_allclose(whole[1:2], run(content, pixels[1:2])[0], rtol=1e-5, atol=1e-5)


def renamed(weights: Weights, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """The same network with a layer called otherwise."""
    built = variants.build(weights.recipe)
    layers = tuple(replace(layer, name=new) if layer.name == old else layer for layer in built.layers)
    monkeypatch.setattr("minialex.network.variants.build", lambda recipe: replace(built, layers=layers))
    tensors = {name.replace(f"{old}.", f"{new}."): array for name, array in weights.tensors.items()}
    return replace(weights, tensors=tensors)


@pytest.mark.parametrize(
    ("old", "new"),
    [("relu1", "mean"), ("relu1", "pixels"), ("fc8", "logits"), ("fc8", "probabilities"), ("conv1", "norm1_within")],
)
def test_a_layer_may_be_called_as_anything_in_the_graph(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network(load("small").replace(**KINDS["small"][1], norm_scope="column"))
    pixels = images(weights.recipe)
    expected = ours(weights, pixels)
    model = onnx_file.build(renamed(weights, old, new, monkeypatch))
    found = log_softmax(run(model.SerializeToString(), centre(weights.recipe, pixels))[0])
    assert np.abs(found - expected.value).max() <= expected.bound32


def constant(model: Any, name: str) -> Any:
    return next(entry for entry in model.graph.initializer if entry.name == name)


def set_constant(model: Any, name: str, change: Any) -> None:
    entry = constant(model, name)
    entry.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(entry)), name))


def set_attribute(model: Any, operation: str, name: str, change: Any) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == operation and attribute.name == name:
                new = onnx.helper.make_attribute(name, change(onnx.helper.get_attribute_value(attribute)))
                attribute.CopyFrom(new)


def swapped(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(np.split(array, 2)[::-1])


MUTANTS = {
    "alpha is not times size": lambda m: set_attribute(m, "LRN", "alpha", lambda alpha: alpha / 5),
    "normalisation across columns": lambda m: set_constant(m, "norm1.apart", lambda a: np.array([-1, 8, *a[2:]])),
    "dropout's factor is lost": lambda m: set_constant(m, "dropout6.keep", lambda a: np.float32(1)),
    "columns exchanged": lambda m: set_constant(m, "conv2.weight", swapped),
    "the mean is elsewhere": lambda m: set_constant(m, "mean", lambda a: np.roll(a, 1, axis=2)),
    "padding on the other side": lambda m: set_attribute(m, "Conv", "pads", lambda p: [p[2], p[3], p[0], p[1]]),
    "no ceil": lambda m: set_attribute(m, "MaxPool", "pads", lambda p: [p[2], p[3], 0, 0]),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_errors_are_caught(mutant: str) -> None:
    name = "caffe" if mutant == "no ceil" else "alexnet-2012"
    changes = {**KINDS[name][1], "norm_scope": "column", "dropout_mode": "paper"}
    weights = network(load(name).replace(**changes))
    pixels = images(weights.recipe)
    expected = ours(weights, pixels)
    model = onnx_file.build(weights)
    MUTANTS[mutant](model)
    found = log_softmax(run(model.SerializeToString(), centre(weights.recipe, pixels))[0])
    assert np.abs(found - expected.value).max() > 100 * expected.bound32


def test_an_even_window_is_refused() -> None:
    weights = network(load("small").replace(**{**KINDS["small"][1], "norm_size": 4}))
    with pytest.raises(ConfigurationError, match=r"layer 'norm1': ONNX has no normalisation over an even number"):
        onnx_file.build(weights)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    weights = network(load("small").replace(**KINDS["small"][1]))
    with pytest.raises(ConfigurationError, match=r"pip install 'minialex\[export\]'"):
        onnx_file.build(weights)

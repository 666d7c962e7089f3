"""Export to ONNX, opset 17: a graph from pixels to probabilities that any ONNX runtime runs.

Input ``pixels``, float32 [N, 3, crop, crop]: the centre crop in RGB, from 0 to 255. Outputs ``logits`` and
``probabilities``, float32 [N, K]. Subtracting the mean and scaling are in the graph. N is free.

Columns are grouped convolutions; normalisation within a column takes each column as an image of its own
(a Reshape before and after). Pooling windows that hang over the edge are explicit padding, which max-pooling ignores.
Dropout at test time is the paper's: a factor of 1 − rate, or nothing if it was inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minialex import __version__
from minialex.errors import ConfigurationError
from minialex.exchange import whole
from minialex.exchange.whole import Whole
from minialex.network.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    SpatialResponseNorm,
    Tanh,
)
from minialex.runs.weights_file import Weights
from minialex.storage import atomic

OPSET = 17
IR_VERSION = 8  # that of the onnx release of opset 17: runtimes of 2022 and later read it


def write(path: Path, weights: Weights) -> None:
    """Write the network as an ONNX file, checked by ONNX's own checker.

    Raises:
        ConfigurationError: If the package onnx is missing, ONNX cannot say a layer, or the file may not be written.
        ResourceError: If the disk is full.
    """
    model = build(weights)
    content = model.SerializeToString()
    atomic.write_bytes(path, content)


def build(weights: Weights) -> Any:
    """The network as an ``onnx.ModelProto``; see the module's docstring and `write`."""
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise ConfigurationError("exporting to ONNX needs the package onnx: pip install 'minialex[export]'") from None
    graph = _Graph()
    row = whole.whole_layers(weights)
    before = whole.preprocessing(weights)
    x = graph.node("Sub", "pixels", graph.constant("mean", before.mean), name="centre")
    if before.scale != 1:
        x = graph.node("Mul", x, graph.constant("scale", np.float32(before.scale)), name="scale_pixels")
    for layer in row:
        x = WRITERS[type(layer.layer)](graph, layer, x)
    graph.node("Identity", x, name="logits")
    graph.node("Softmax", x, name="probabilities", axis=-1)
    crop, K = weights.recipe.crop, row[-1].output[0]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            weights.recipe.model,
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 3, crop, crop])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", K]) for name in ("logits", "probabilities")],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="minialex",
        producer_version=__version__,
        doc_string="pixels: the centre crop in RGB, 0 to 255; the mean is taken off in here",
    )
    helper.set_model_props(model, dict(whole.facts(weights)))
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants as they are added; a node's output has the node's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operation: str, *inputs: str, name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operation, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _conv2d(graph: _Graph, whole_: Whole, x: str) -> str:
    layer = whole_.layer
    assert isinstance(layer, Conv2d)
    (top, bottom), (left, right) = layer.padding
    return graph.node(
        "Conv",
        x,
        *_arrays(graph, whole_),
        name=layer.name,
        group=whole_.groups,
        kernel_shape=[layer.size, layer.size],
        strides=[layer.stride, layer.stride],
        pads=[top, left, bottom, right],
    )


def _linear(graph: _Graph, whole_: Whole, x: str) -> str:
    return graph.node("Gemm", x, *_arrays(graph, whole_), name=whole_.layer.name, transB=1)


def _arrays(graph: _Graph, whole_: Whole) -> tuple[str, str]:
    name = whole_.layer.name
    return graph.constant(f"{name}.weight", whole_.weight), graph.constant(f"{name}.bias", whole_.bias)


def _max_pool2d(graph: _Graph, whole_: Whole, x: str) -> str:
    layer = whole_.layer
    assert isinstance(layer, MaxPool2d)
    over = [
        max(0, (out - 1) * layer.stride + layer.size - size)
        for size, out in zip(whole_.input[1:], whole_.output[1:], strict=True)
    ]
    return graph.node(
        "MaxPool",
        x,
        name=layer.name,
        kernel_shape=[layer.size, layer.size],
        strides=[layer.stride, layer.stride],
        pads=[0, 0, *over],
    )


def _local_response_norm(graph: _Graph, whole_: Whole, x: str) -> str:
    layer = whole_.layer
    assert isinstance(layer, LocalResponseNorm)
    if layer.size % 2 == 0:
        raise ConfigurationError(
            f"layer '{layer.name}': ONNX has no normalisation over an even number of channels ({layer.size}) whose "
            "window lies as it does here; export to PyTorch (.pt) instead"
        )
    C, H, W = whole_.input
    if whole_.groups > 1:
        apart = graph.constant(f"{layer.name}.apart", np.array([-1, C // whole_.groups, H, W], np.int64))
        x = graph.node("Reshape", x, apart, name=f"{layer.name}_columns")
    # ONNX divides alpha by size, so here it is the coefficient times size
    alpha, name = layer.coefficient * layer.size, layer.name if whole_.groups == 1 else f"{layer.name}_within"
    x = graph.node("LRN", x, name=name, size=layer.size, alpha=alpha, beta=layer.beta, bias=layer.k)
    if whole_.groups > 1:
        together = graph.constant(f"{layer.name}.together", np.array([-1, C, H, W], np.int64))
        x = graph.node("Reshape", x, together, name=layer.name)
    return x


def _spatial_response_norm(graph: _Graph, whole_: Whole, x: str) -> str:
    layer = whole_.layer
    assert isinstance(layer, SpatialResponseNorm)
    name, half = layer.name, layer.size // 2

    def number(what: str, value: float) -> str:
        return graph.constant(f"{name}.{what}", np.float32(value))

    square = graph.node("Mul", x, x, name=f"{name}_square")
    mean = graph.node(
        "AveragePool",
        square,
        name=f"{name}_mean",
        kernel_shape=[layer.size, layer.size],
        pads=[half, half, layer.size - 1 - half, layer.size - 1 - half],
        count_include_pad=1,
    )
    scaled = graph.node("Mul", mean, number("alpha", layer.coefficient * layer.size**2), name=f"{name}_scaled")
    total = graph.node("Add", scaled, number("k", layer.k), name=f"{name}_total")
    power = graph.node("Pow", total, number("beta", layer.beta), name=f"{name}_power")
    return graph.node("Div", x, power, name=name)


def _dropout(graph: _Graph, whole_: Whole, x: str) -> str:
    layer = whole_.layer
    assert isinstance(layer, Dropout)
    if layer.mode == "inverted":
        return x
    return graph.node("Mul", x, graph.constant(f"{layer.name}.keep", np.float32(1 - layer.rate)), name=layer.name)


def _simple(operation: str) -> Callable[[_Graph, Whole, str], str]:
    return lambda graph, whole_, x: graph.node(operation, x, name=whole_.layer.name)


WRITERS: dict[type[Layer], Callable[[_Graph, Whole, str], str]] = {
    Conv2d: _conv2d,
    Linear: _linear,
    MaxPool2d: _max_pool2d,
    LocalResponseNorm: _local_response_norm,
    SpatialResponseNorm: _spatial_response_norm,
    Dropout: _dropout,
    Flatten: _simple("Flatten"),
    ReLU: _simple("Relu"),
    Tanh: _simple("Tanh"),
}

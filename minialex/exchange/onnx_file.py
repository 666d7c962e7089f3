"""Export to ONNX, opset 17: a graph from pixels to probabilities that any ONNX runtime runs.

Input ``pixels``, float32 [N, 3, crop, crop]: the centre crop in RGB, from 0 to 255. Outputs ``logits`` and
``probabilities``, float32 [N, K]. The graph includes subtracting the mean and scaling. N is dynamic.

Columns are grouped convolutions; normalisation within a column treats each column as a separate image (a Reshape before
and after). Pooling windows that extend past the edge use explicit padding, which max pooling ignores. Dropout at test
time is the paper's: a factor of 1 − rate, or nothing if dropout was inverted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from minialex import __version__
from minialex.errors import ConfigurationError
from minialex.exchange import whole
from minialex.exchange.whole import Whole
from minialex.network import layers
from minialex.runs.weights_file import Weights
from minialex.storage import atomic

OPSET = 17
IR_VERSION = 8  # the one of the onnx release with opset 17: runtimes since 2022 read it


def write(path: Path, weights: Weights) -> None:
    """Write the network as an ONNX file, checked by ONNX's own checker.

    Raises:
        ConfigurationError: If the package onnx is missing, ONNX cannot express a layer, or the file is not writable.
        ResourceError: If the disk is full.
    """
    atomic.write_bytes(path, build(weights).SerializeToString())


def build(weights: Weights) -> Any:
    """The network as an ``onnx.ModelProto``; see the module's docstring and `write`."""
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise ConfigurationError("exporting to ONNX needs the package onnx: pip install 'minialex[export]'") from None
    graph = _Graph()
    row = whole.whole_layers(weights, "ONNX")
    before = whole.preprocessing(weights)
    x = graph.node("Sub", "pixels", graph.constant("mean", before.mean), name="centre")
    if before.scale != 1:
        x = graph.node("Mul", x, graph.constant("scale", np.float32(before.scale)), name="scale_pixels")
    for layer in row:
        x = _add(graph, layer, x)
    graph.output("Identity", x, name="logits")
    graph.output("Softmax", x, name="probabilities", axis=-1)
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
        doc_string="pixels: the centre crop in RGB, 0 to 255; the mean is subtracted in here",
    )
    facts = {  # the file's metadata
        "recipe": weights.recipe.to_toml(),
        "class_names": json.dumps(list(weights.labels)),
        "words": json.dumps(list(weights.words)),
        "data": weights.data,
        "origin": json.dumps(dict(weights.origin)),
    }
    helper.set_model_props(model, {f"minialex.{name}": value for name, value in facts.items()})
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Collects nodes and constants; a node's output has the node's name.

    If a name is taken, for example by a layer called ``mean``, it gets an underscore.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.taken = {"pixels", "logits", "probabilities"}

    def _free(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def output(self, operation: str, *inputs: str, name: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(operation, list(inputs), [name], name, **attributes))

    def node(self, operation: str, *inputs: str, name: str, **attributes: Any) -> str:
        name = self._free(name)
        self.output(operation, *inputs, name=name, **attributes)
        return name

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        name = self._free(name)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _add(graph: _Graph, row: Whole, x: str) -> str:
    """Add a layer to the graph; return the name of its output."""
    name = row.layer.name
    match row.layer:
        case layers.Conv2d() as layer:
            (top, bottom), (left, right) = layer.padding
            return graph.node(
                "Conv", x, *_parameters(graph, row), name=name, group=row.groups, **_window(layer),
                pads=[top, left, bottom, right],
            )  # fmt: skip
        case layers.Linear():
            return graph.node("Gemm", x, *_parameters(graph, row), name=name, transB=1)
        case layers.MaxPool2d() as layer:
            over = [
                max(0, (out - 1) * layer.stride + layer.size - size)
                for size, out in zip(row.input[1:], row.output[1:], strict=True)
            ]
            return graph.node("MaxPool", x, name=name, **_window(layer), pads=[0, 0, *over])
        case layers.LocalResponseNorm() as layer:
            return _local_response_norm(graph, row, layer, x)
        case layers.SpatialResponseNorm() as layer:
            return _spatial_response_norm(graph, layer, x)
        case layers.Dropout(mode="inverted"):
            return x
        case layers.Dropout() as layer:
            return graph.node("Mul", x, graph.constant(f"{name}.keep", np.float32(1 - layer.rate)), name=name)
        case layers.Flatten():
            return graph.node("Flatten", x, name=name)
        case layers.ReLU():
            return graph.node("Relu", x, name=name)
        case layers.Tanh():
            return graph.node("Tanh", x, name=name)
        case other:
            raise ConfigurationError(f"layer '{name}': ONNX export does not know a {type(other).__name__}")


def _window(layer: layers.Conv2d | layers.MaxPool2d) -> dict[str, Any]:
    return {"kernel_shape": [layer.size, layer.size], "strides": [layer.stride, layer.stride]}


def _parameters(graph: _Graph, row: Whole) -> list[str]:
    return [graph.constant(f"{row.layer.name}.{name}", array) for name, array in row.arrays.items()]


def _local_response_norm(graph: _Graph, row: Whole, layer: layers.LocalResponseNorm, x: str) -> str:
    if layer.size % 2 == 0:
        raise ConfigurationError(
            f"layer '{layer.name}': ONNX has no normalisation over an even number of channels ({layer.size}) whose "
            "window lies as it does here; export to PyTorch (.pt) instead"
        )
    C, H, W = row.input
    if row.groups > 1:
        apart = graph.constant(f"{layer.name}.apart", np.array([-1, C // row.groups, H, W], np.int64))
        x = graph.node("Reshape", x, apart, name=f"{layer.name}_columns")
    # ONNX divides alpha by size, so alpha is the coefficient times size
    alpha, name = layer.coefficient * layer.size, layer.name if row.groups == 1 else f"{layer.name}_within"
    x = graph.node("LRN", x, name=name, size=layer.size, alpha=alpha, beta=layer.beta, bias=layer.k)
    if row.groups > 1:
        together = graph.constant(f"{layer.name}.together", np.array([-1, C, H, W], np.int64))
        x = graph.node("Reshape", x, together, name=layer.name)
    return x


def _spatial_response_norm(graph: _Graph, layer: layers.SpatialResponseNorm, x: str) -> str:
    name, half = layer.name, layer.size // 2

    def number(what: str, value: float) -> str:
        return graph.constant(f"{name}.{what}", np.float32(value))

    square = graph.node("Mul", x, x, name=f"{name}_square")
    mean = graph.node(
        "AveragePool", square, name=f"{name}_mean", kernel_shape=[layer.size, layer.size],
        pads=[half, half, layer.size - 1 - half, layer.size - 1 - half], count_include_pad=1,
    )  # fmt: skip
    scaled = graph.node("Mul", mean, number("alpha", layer.coefficient * layer.size**2), name=f"{name}_scaled")
    total = graph.node("Add", scaled, number("k", layer.k), name=f"{name}_total")
    power = graph.node("Pow", total, number("beta", layer.beta), name=f"{name}_power")
    return graph.node("Div", x, power, name=name)

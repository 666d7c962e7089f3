"""Export to PyTorch: a state dictionary, and the source of the few lines that load it.

Two files: ``NAME.pt``, an ordered dictionary of plain tensors for ``torch.load(…, weights_only=True)``, and
``NAME.py``, a module that imports torch alone, with a class of the network and a function `load`. Nothing of PyTorch
is needed to write them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minialex.exchange import pytorch_file, whole
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


def write(path: Path, weights: Weights) -> Path:
    """Write the state dictionary at `path` and the module beside it; returns the module's path.

    Raises:
        ResourceError, ConfigurationError: If they cannot be written.
    """
    row = whole.whole_layers(weights)
    before = whole.preprocessing(weights)
    tensors: dict[str, NDArray[np.float32]] = {"mean": before.mean}
    for layer in row:
        if layer.weight is not None and layer.bias is not None:
            tensors[f"{layer.layer.name}.weight"] = layer.weight
            tensors[f"{layer.layer.name}.bias"] = layer.bias
    module = path.with_suffix(".py")
    pytorch_file.write(path, tensors)
    atomic.write_text(module, source(row, before, path.name, weights.titles))
    return module


def source(row: list[Whole], before: whole.Preprocessing, file_name: str, classes: tuple[str, ...]) -> str:
    """The module's text; `file_name` is for its docstring."""
    shape = row[0].input
    if not file_name.isprintable() or '"' in file_name or "\\" in file_name:
        file_name = "weights.pt"  # nothing of a name may end the docstring
    size = ", ".join(map(str, before.mean.shape))
    made = [f"        self.{w.layer.name} = {_made(w)}" for w in row if w.weight is not None]
    centred = "pixels - self.mean" if before.scale == 1 else f"(pixels - self.mean) * {before.scale!r}"
    steps = [line for w in row for line in STEPS[type(w.layer)](w)]
    helpers = [text for needs, text in HELPERS.items() if any(needs in step for step in steps)]
    return "".join([
        f'"""The network of {file_name}, written by minialex.\n\n'
        f"    network = load({file_name!r})\n"
        "    probabilities = network(pixels).softmax(1)\n\n"
        f"pixels: float tensor [N, {', '.join(map(str, shape))}], the centre crop in RGB, from 0 to 255; the mean is "
        'taken off in here.\n"""\n\n'
        "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n\n",
        *(f"{text}\n\n\n" for text in helpers),
        "class AlexNet(nn.Module):\n    def __init__(self):\n        super().__init__()\n",
        f'        self.register_buffer("mean", torch.zeros({size}))\n',
        "\n".join(made), "\n\n    def forward(self, pixels):\n",
        f"        x = {centred}\n",
        *(f"        x = {step}\n" for step in steps),
        "        return x\n\n\n",
        "def load(path):\n    network = AlexNet()\n"
        "    network.load_state_dict(torch.load(path, weights_only=True))\n    return network.eval()\n\n\n",
        "CLASSES = (\n", *(f"    {name!r},\n" for name in classes), ")\n",
    ])  # fmt: skip


HELPERS = {
    "columns(": '''def columns(x, count, layer):
    """A layer of each column's channels alone."""
    return torch.cat([layer(part) for part in x.chunk(count, 1)], 1)''',
    "paper_dropout(": '''def paper_dropout(x, rate, training):
    """The paper's dropout: in training units are silent, in testing all are scaled down."""
    return x * (torch.rand_like(x) >= rate) if training else x * (1 - rate)''',
    "spatial_norm(": '''def spatial_norm(x, size, k, alpha, beta):
    """Normalisation over neighbouring places of a map."""
    squares = F.avg_pool2d(x * x, size, 1, size // 2, count_include_pad=True) * size**2
    return x / (k + alpha * squares) ** beta''',
}


def _made(whole_: Whole) -> str:
    """The expression that makes a layer with parameters."""
    layer, weight = whole_.layer, whole_.weight
    assert weight is not None
    if not isinstance(layer, Conv2d):
        F, D = weight.shape
        return f"nn.Linear({D}, {F})"
    options = "" if layer.stride == 1 else f", stride={layer.stride}"
    (top, _), (left, _) = layer.padding
    if _symmetric(layer) and (top or left):
        options += f", padding={top if top == left else (top, left)}"
    if whole_.groups > 1:
        options += f", groups={whole_.groups}"
    return f"nn.Conv2d({whole_.input[0]}, {layer.kernels}, {layer.size}{options})"


def _symmetric(layer: Conv2d) -> bool:
    return all(before == after for before, after in layer.padding)


def _conv2d(whole_: Whole) -> list[str]:
    layer = whole_.layer
    assert isinstance(layer, Conv2d)
    (top, bottom), (left, right) = layer.padding
    padded = [] if _symmetric(layer) else [f"F.pad(x, {(left, right, top, bottom)})"]
    return [*padded, f"self.{layer.name}(x)"]


def _max_pool2d(whole_: Whole) -> list[str]:
    layer = whole_.layer
    assert isinstance(layer, MaxPool2d)
    return [f"F.max_pool2d(x, {layer.size}, {layer.stride}, ceil_mode={layer.ceil})"]


def _local_response_norm(whole_: Whole) -> list[str]:
    layer = whole_.layer
    assert isinstance(layer, LocalResponseNorm)
    # PyTorch divides alpha by size, so here it is the coefficient times size
    numbers = f"{layer.size}, {layer.coefficient * layer.size!r}, {layer.beta!r}, {layer.k!r}"
    if whole_.groups == 1:
        return [f"F.local_response_norm(x, {numbers})"]
    return [f"columns(x, {whole_.groups}, lambda part: F.local_response_norm(part, {numbers}))"]


def _spatial_response_norm(whole_: Whole) -> list[str]:
    layer = whole_.layer
    assert isinstance(layer, SpatialResponseNorm)
    return [f"spatial_norm(x, {layer.size}, {layer.k!r}, {layer.coefficient!r}, {layer.beta!r})"]


def _dropout(whole_: Whole) -> list[str]:
    layer = whole_.layer
    assert isinstance(layer, Dropout)
    name = "paper_dropout" if layer.mode == "paper" else "F.dropout"
    return [f"{name}(x, {layer.rate!r}, self.training)"]


STEPS: dict[type[Layer], Callable[[Whole], list[str]]] = {
    Conv2d: _conv2d,
    Linear: lambda whole_: [f"self.{whole_.layer.name}(x)"],
    MaxPool2d: _max_pool2d,
    LocalResponseNorm: _local_response_norm,
    SpatialResponseNorm: _spatial_response_norm,
    Dropout: _dropout,
    Flatten: lambda whole_: ["x.flatten(1)"],
    ReLU: lambda whole_: ["F.relu(x)"],
    Tanh: lambda whole_: ["torch.tanh(x)"],
}

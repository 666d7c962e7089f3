"""Export to PyTorch: a state dictionary, and the source of a short module that loads it.

There are two files: ``NAME.pt``, an ordered dictionary of plain tensors for ``torch.load(…, weights_only=True)``, and
``NAME.py``, a module that imports only torch, with a class for the network and a function `load`. Writing them does
not need PyTorch. A module never gets the name of another one, which it would shadow (`module_path`).
"""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from minialex.errors import ConfigurationError
from minialex.exchange import pytorch_file, whole
from minialex.exchange.whole import Whole
from minialex.network import layers
from minialex.runs.weights_file import Weights
from minialex.storage import atomic

OFTEN = ("torch", "torchvision", "numpy", "PIL", "onnx", "onnxruntime", "scipy", "sklearn", "pandas", "matplotlib",
         "tensorflow", "jax", "safetensors", "lightning", "timm", "minialex")  # fmt: skip
"""Modules that the user of the file may have, even if they are not installed here."""

TAKEN = {
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu",
    "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state",
    "get_parameter", "get_submodule", "half", "ipu", "load_state_dict", "mean", "modules", "mtia", "named_buffers",
    "named_children", "named_modules", "named_parameters", "parameters", "register_backward_hook", "register_buffer",
    "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
    "register_full_backward_pre_hook", "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook",
    "register_module", "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook",
    "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "state_dict", "to", "to_empty", "train",
    "training", "type", "xpu", "zero_grad",
}  # fmt: skip
"""Names that PyTorch modules already use, and our own ``mean``."""


def module_path(path: Path) -> Path:
    """The module beside a state dictionary: its name, made importable, that shadows no other module."""
    name = re.sub(r"\W", "_", path.stem)
    known = {*OFTEN, *sys.stdlib_module_names, *packages_distributions()}
    if name.casefold() in {word.casefold() for word in known} or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        name += "_net"
    return path.with_name((name if name.isidentifier() else f"net_{name}") + ".py")


def write(path: Path, weights: Weights) -> Path:
    """Write the state dictionary at `path` and the module beside it; return the module's path.

    Raises:
        ResourceError, ConfigurationError: If they cannot be written.
    """
    row = whole.whole_layers(weights, "PyTorch")
    for name in (one.layer.name for one in row):
        if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name) or name in TAKEN:
            raise ConfigurationError(f"layer '{name}' cannot be an attribute of a PyTorch module: give it another name")
    before = whole.preprocessing(weights)
    arrays = {f"{one.layer.name}.{name}": array for one in row for name, array in one.arrays.items()}
    module = module_path(path)
    pytorch_file.write(path, {"mean": before.mean, **arrays})
    atomic.write_text(module, source(row, before, path.name, weights.titles))
    return module


def source(row: list[Whole], before: whole.Preprocessing, file_name: str, classes: tuple[str, ...]) -> str:
    """The module's text; `file_name` is for its docstring."""
    shape = row[0].input
    if not file_name.isprintable() or '"' in file_name or "\\" in file_name:
        file_name = "weights.pt"  # no name may end the docstring
    size = ", ".join(map(str, before.mean.shape))
    modules = [f"        self.{one.layer.name} = {_module(one)}" for one in row if one.arrays]
    centred = "pixels - self.mean" if before.scale == 1 else f"(pixels - self.mean) * {before.scale!r}"
    steps = [line for one in row for line in _steps(one)]
    helpers = [text for needs, text in HELPERS.items() if any(needs in step for step in steps)]
    return "".join([
        f'"""The network of {file_name}, written by minialex.\n\n'
        f"    network = load({file_name!r})\n"
        "    probabilities = network(pixels).softmax(1)\n\n"
        f"pixels: float tensor [N, {', '.join(map(str, shape))}], the centre crop in RGB, from 0 to 255; the mean is "
        'subtracted in here.\n"""\n\n'
        "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n\n",
        *(f"{text}\n\n\n" for text in helpers),
        "class Network(nn.Module):\n    def __init__(self):\n        super().__init__()\n",
        f'        self.register_buffer("mean", torch.zeros({size}))\n',
        "\n".join(modules), "\n\n    def forward(self, pixels):\n",
        f"        x = {centred}\n",
        *(f"        x = {step}\n" for step in steps),
        "        return x\n\n\n",
        "def load(path):\n    network = Network()\n"
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
    before, after = size // 2, size - 1 - size // 2
    squares = F.avg_pool2d(F.pad(x * x, (before, after, before, after)), size, 1) * size**2
    return x / (k + alpha * squares) ** beta''',
}


def _module(row: Whole) -> str:
    """The expression that creates a layer with parameters."""
    layer = row.layer
    if not isinstance(layer, layers.Conv2d):
        F, D = row.arrays["weight"].shape
        return f"nn.Linear({D}, {F})"
    options = "" if layer.stride == 1 else f", stride={layer.stride}"
    (top, _), (left, _) = layer.padding
    if _symmetric(layer) and (top or left):
        options += f", padding={top if top == left else (top, left)}"
    if row.groups > 1:
        options += f", groups={row.groups}"
    return f"nn.Conv2d({row.input[0]}, {layer.kernels}, {layer.size}{options})"


def _symmetric(layer: layers.Conv2d) -> bool:
    return all(before == after for before, after in layer.padding)


def _steps(row: Whole) -> list[str]:
    """The expressions that apply a layer to ``x``, in order."""
    match row.layer:
        case layers.Conv2d(name=name) as layer:
            (top, bottom), (left, right) = layer.padding
            padded = [] if _symmetric(layer) else [f"F.pad(x, {(left, right, top, bottom)})"]
            return [*padded, f"self.{name}(x)"]
        case layers.Linear(name=name):
            return [f"self.{name}(x)"]
        case layers.MaxPool2d() as layer:
            return [f"F.max_pool2d(x, {layer.size}, {layer.stride}, ceil_mode={layer.ceil})"]
        case layers.LocalResponseNorm() as layer:
            # PyTorch divides alpha by size, so alpha is the coefficient times size
            numbers = f"{layer.size}, {layer.coefficient * layer.size!r}, {layer.beta!r}, {layer.k!r}"
            if row.groups == 1:
                return [f"F.local_response_norm(x, {numbers})"]
            return [f"columns(x, {row.groups}, lambda part: F.local_response_norm(part, {numbers}))"]
        case layers.SpatialResponseNorm() as layer:
            return [f"spatial_norm(x, {layer.size}, {layer.k!r}, {layer.coefficient!r}, {layer.beta!r})"]
        case layers.Dropout(mode=mode, rate=rate):
            return [f"{'paper_dropout' if mode == 'paper' else 'F.dropout'}(x, {rate!r}, self.training)"]
        case layers.Flatten():
            return ["x.flatten(1)"]
        case layers.ReLU():
            return ["F.relu(x)"]
        case layers.Tanh():
            return ["torch.tanh(x)"]
        case other:
            raise ConfigurationError(f"layer '{other.name}': PyTorch export does not know a {type(other).__name__}")

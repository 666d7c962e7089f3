"""The peer: the same network as a PyTorch user would write it, as fast as plain PyTorch makes it on a CPU.

Two columns are grouped convolutions, with all groups read together where a layer sees both columns. PyTorch has no
grouped normalisation: the columns are laid out as if they were images ([2N, C/2, H, W] is the same memory), and
`local_response_norm` does them all at once. Zeros around the first layer's image (one-sided, as in 2012) are made
with the crop, at no pass of their own. Rectified units write in place; dropout is PyTorch's own. The update is
`torch.optim.SGD(fused=True)`, the quickest of its three kinds here, with weight decay on weights alone.

Differences that take no time to speak of: dropout scales in training instead of at test time, the rate is folded
into the momentum (v ← 0.9v + g, w ← w − εv), and random numbers are PyTorch's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from minialex.data.statistics import Statistics
from minialex.network.layers import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minialex.network.network import Network
from minialex.recipe.fields import Recipe

Key = tuple[str, str]
Watch = Callable[[str, str], None]


class ColumnNorm(nn.Module):
    """Local response normalisation within each of several columns."""

    def __init__(self, layer: LocalResponseNorm, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.numbers = layer.size, layer.coefficient * layer.size, layer.beta, layer.k

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        y: Tensor = functional.local_response_norm(x.view(N * self.columns, C // self.columns, H, W), *self.numbers)
        return y.view(N, C, H, W)


def plain_module(stage: Any, layer: Any) -> nn.Module:
    """PyTorch's module of a layer that every peer writes alike.

    Raises
    ------
    ValueError
        For a layer that has none.
    """
    match layer:
        case MaxPool2d():
            return nn.MaxPool2d(layer.size, layer.stride, ceil_mode=layer.ceil)
        case Flatten():
            return nn.Flatten()
        case Linear():
            return nn.Linear(stage.seen[0], layer.features)
        case Dropout():
            return nn.Dropout(layer.rate)
    raise ValueError(f"no peer of layer '{layer.name}'")


class Peer(nn.Module):
    """A minialex network in PyTorch, its layers by their names."""

    def __init__(self, network: Network, columns: int) -> None:
        super().__init__()
        self.around = (0, 0, 0, 0)  # zeros left, right, above, below that the batch already has
        self.names: list[str] = []
        for stage in network.stages(columns):
            layer = stage.layer
            self.names.append(layer.name)
            self.add_module(layer.name, self._module(stage, layer, columns))

    def _module(self, stage, layer, columns):  # type: ignore[no-untyped-def]
        match layer:
            case Conv2d():
                first = not self.names[:-1]
                channels = stage.seen[0] * (1 if first or stage.gathers else stage.columns)
                groups = 1 if first or stage.gathers else stage.columns
                (above, below), (left, right) = layer.padding
                if first:
                    self.around, padding = (left, right, above, below), 0
                else:
                    assert above == below == left == right
                    padding = above
                return nn.Conv2d(channels, layer.kernels, layer.size, layer.stride, padding, groups=groups)
            case LocalResponseNorm():
                return ColumnNorm(layer, columns if layer.sees == "own" else 1)
            case ReLU():
                return nn.ReLU(inplace=True)
        return plain_module(stage, layer)

    def forward(self, x: Tensor, watch: Watch | None = None) -> Tensor:
        """Logits [N,K] of float images with the zeros around them; `watch` is told where time goes, both ways."""
        for name in self.names:
            if watch is not None:
                watch(name, "forward")
            x = self.get_submodule(name)(x)
            if watch is not None and x.requires_grad:
                x.register_hook(lambda gradient, name=name: watch(name, "backward"))
        return x

    def load(self, weights: Mapping[str, NDArray[np.floating]]) -> None:
        """Take the weights of a minialex session (whole layers, see `minialex.network.parameters.join_columns`)."""
        self.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})


class PeerSession:
    """A peer with its optimiser and augmentation, and what `minialex.engine.session.Session` is asked for.

    Parameters
    ----------
    recipe : with `classes` set
    network : of minialex
    statistics : of the training set
    """

    def __init__(self, recipe: Recipe, network: Network, statistics: Statistics) -> None:
        if recipe.mean != "pixel" or recipe.crops != "random" or not recipe.reflect or recipe.decay_biases:
            raise ValueError("the peer augments and decays as the recipe 'alexnet-2012' does")
        self.recipe = recipe
        self.model = Peer(network, recipe.columns)
        decayed = [p for name, p in self.model.named_parameters() if name.endswith("weight")]
        others = [p for name, p in self.model.named_parameters() if not name.endswith("weight")]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others}]
        self.optimiser = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
        self.mean = torch.from_numpy(statistics.mean)
        scale = recipe.colour * np.sqrt(statistics.eigenvalues)
        self.colours = torch.from_numpy((statistics.eigenvectors * scale).astype(np.float32))
        self.buffer = torch.zeros(0)

    def parameters(self) -> int:
        """Numbers that are learned."""
        return sum(p.numel() for p in self.model.parameters())

    def augment(self, images: Tensor, training: bool) -> Tensor:
        """Crops, reflections and colour shifts of uint8 [N,3,S,S], mean subtracted, zeros around: float32.

        One image after another into a batch that is kept; gathering all crops by index arrays was slower.
        """
        N, C, S, _ = images.shape
        crop, recipe = self.recipe.crop, self.recipe
        left, right, above, below = self.model.around
        if self.buffer.shape[0] != N or (training and self.buffer.is_inference()):  # no other step may write those
            self.buffer = torch.zeros(N, C, above + crop + below, left + crop + right)
        inside = self.buffer[:, :, above : above + crop, left : left + crop]
        if not training:
            t = (S - crop) // 2
            cut = images[:, :, t : t + crop, t : t + crop]
            torch.sub(cut, self.mean[:, t : t + crop, t : t + crop], out=inside)
            return self.buffer.mul_(recipe.pixel_scale) if recipe.pixel_scale != 1 else self.buffer
        places = torch.randint(0, S - crop + 1, (N, 2)).tolist()
        flips = torch.randint(0, 2, (N,)).tolist()
        shifts = torch.randn(N, 3) @ self.colours.T
        for n in range(N):
            t, c = places[n]
            cut = images[n, :, t : t + crop, c : c + crop] - self.mean[:, t : t + crop, c : c + crop]
            inside[n] = cut.flip(2) if flips[n] else cut
        inside += shifts[:, :, None, None]
        return self.buffer.mul_(recipe.pixel_scale) if recipe.pixel_scale != 1 else self.buffer

    def train(self, images: Tensor, labels: Tensor, watch: Watch | None = None) -> float:
        """One training step; the loss."""
        self.model.train()
        if watch is not None:
            watch("input", "input")
        x = self.augment(images, True)
        logits = self.model(x, watch)
        if watch is not None:
            watch("softmax", "forward")
        loss = functional.cross_entropy(logits, labels)
        if watch is not None:
            watch("softmax", "backward")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if watch is not None:
            watch("all", "update")
        self.optimiser.step()
        return float(loss.detach())

    def probabilities(self, images: Tensor, watch: Watch | None = None) -> NDArray[np.float32]:
        """Probabilities [N,K], centre view."""
        self.model.eval()
        with torch.inference_mode():
            if watch is not None:
                watch("input", "input")
            logits = self.model(self.augment(images, False), watch)
            if watch is not None:
                watch("softmax", "forward")
            return torch.softmax(logits, 1).numpy()

    def watched(self, run: Callable[[Watch], object]) -> dict[Key, float]:
        """Seconds of every layer and phase while `run` is done with a watch."""
        marks: list[tuple[Key, float]] = []
        run(lambda layer, phase: marks.append(((layer, phase), time.perf_counter())))
        ends = [*(when for _, when in marks[1:]), time.perf_counter()]
        seconds: dict[Key, float] = {}
        for (key, begin), end in zip(marks, ends, strict=True):
            seconds[key] = seconds.get(key, 0.0) + end - begin
        return seconds

"""The peer of `gpu_peer.py` as somebody writes it who knows what PyTorch is slow at on a GPU: the same network.

- Columns are convolutions of their own with weights of their own, no groups: cuDNN has no quick grouped ones, and cuts
  and pads channels for those that it has. What both columns read (conv1, conv3) is one convolution of all kernels.
- conv1's stride goes into channels (`pixel_unshuffle` of image and kernels): 48 of them instead of 3, stride 1.
- Normalisation is a sum of shifted channels that Inductor makes one kernel of (`local_response_norm` is an average
  pooling in three dimensions, which it cannot fuse), with a gradient by hand that keeps nothing but its input, written
  so that little is put into memory in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer import plain_module
from torch import Tensor, nn
from torch.nn import functional

from minialex.network.layers import Conv2d, Flatten, Linear, LocalResponseNorm, ReLU
from minialex.network.network import Network


def wide(x: Tensor) -> Tensor:
    """What is computed with: float32 of bfloat16."""
    return x.float() if x.dtype is torch.bfloat16 else x


def window(x: Tensor, before: int, after: int, power: int, backwards: bool = False) -> Tensor:
    """Sums of x^power over so many channels before and after each, in the last dimension.

    Padded as it is stored: where Inductor writes the padded array down, it takes two bytes a number. Added up in the
    other order, it is another sum for Inductor.
    """
    C, padded = x.shape[-1], functional.pad(x, (before, after))
    total: Tensor | None = None
    order = range(before + after + 1)
    for k in reversed(order) if backwards else order:
        term = wide(padded.narrow(-1, k, C))
        term = term * term if power == 2 else term
        total = term if total is None else total + term
    assert total is not None
    return total


def lowered(s: Tensor, exponent: float) -> Tensor:
    """s^-exponent, in two short functions instead of a power, each of which reads its argument once.

    What is read twice and came of more than four numbers, Inductor writes down in float32.
    """
    return torch.exp(-exponent * torch.log(s))


class Normalise(torch.autograd.Function):
    """Local response normalisation along the last dimension, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, a: float, beta: float, k: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.numbers = size, a, beta, k
        s = k + a * window(x, size // 2, (size - 1) // 2, 2)
        return (wide(x) * lowered(s, beta)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        (x,) = ctx.saved_tensors
        size, a, beta, k = ctx.numbers
        before, after = size // 2, (size - 1) // 2
        s = k + a * window(x, before, after, 2)
        spread = (wide(dy) * wide(x) * lowered(s, beta + 1)).to(x.dtype)
        s = k + a * window(x, before, after, 2, backwards=True)  # computed anew instead of written down
        dx = wide(dy) * lowered(s, beta) - (2 * a * beta) * wide(x) * window(spread, after, before, 1)
        return dx.to(x.dtype), None, None, None, None


class Norm(nn.Module):
    """Local response normalisation of a tensor of so many columns: channels last also for what Inductor writes down."""

    def __init__(self, layer: LocalResponseNorm) -> None:
        super().__init__()
        self.numbers = layer.size, layer.coefficient, layer.beta, layer.k

    def forward(self, x: Tensor, columns: int) -> Tensor:
        N, C, H, W = x.shape
        cut = x.permute(0, 2, 3, 1).reshape(N, H, W, columns, C // columns)
        made: Tensor = Normalise.apply(cut, *self.numbers)  # type: ignore[no-untyped-call]
        return made.reshape(N, H, W, C).permute(0, 3, 1, 2)


class First(nn.Conv2d):
    """A convolution of stride s as one of stride 1 over channels for the s x s pixels of a block."""

    def __init__(self, channels: int, kernels: int, size: int, stride: int) -> None:
        super().__init__(channels, kernels, size, stride)
        self.block, self.across = stride, -(-size // stride)

    def arrange(self, x: Tensor) -> Tensor:
        """Images with their zeros around, in blocks: channels last."""
        outputs = [(n - self.kernel_size[0]) // self.block + 1 for n in x.shape[2:]]
        more = [(n - 1 + self.across) * self.block - have for n, have in zip(outputs, x.shape[2:], strict=True)]
        x = functional.pixel_unshuffle(functional.pad(x, (0, more[1], 0, more[0])), self.block)
        return x.contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        more = self.across * self.block - self.kernel_size[0]
        kernels = functional.pixel_unshuffle(functional.pad(self.weight, (0, more, 0, more)), self.block)
        return functional.conv2d(x, kernels, self.bias)


class TunedPeer(nn.Module):
    """A minialex network in PyTorch, its layers by their names."""

    def __init__(self, network: Network, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.around = (0, 0, 0, 0)  # zeros left, right, above, below that a batch has before `arrange`
        self.names: list[str] = []
        self.joined: set[str] = set()
        for stage in network.stages(columns):
            layer = stage.layer
            if stage.gathers or isinstance(layer, Flatten | Linear):
                self.joined.add(layer.name)
            self.add_module(layer.name, self._module(stage, layer))
            self.names.append(layer.name)

    def _module(self, stage: Any, layer: Any) -> nn.Module:
        match layer:
            case Conv2d():
                (above, below), (left, right) = layer.padding
                if not self.names:
                    self.around = (left, right, above, below)
                    return First(stage.seen[0], layer.kernels, layer.size, layer.stride)
                assert above == below == left == right
                if stage.gathers:
                    return nn.Conv2d(stage.seen[0], layer.kernels, layer.size, layer.stride, above)
                own = layer.kernels // self.columns
                made = [nn.Conv2d(stage.seen[0], own, layer.size, layer.stride, above) for _ in range(self.columns)]
                return nn.ModuleList(made)
            case LocalResponseNorm():
                return Norm(layer)
            case ReLU():
                return nn.ReLU()
        return plain_module(stage, layer)

    def arrange(self, x: Tensor) -> Tensor:
        """What `forward` takes, of images with their zeros around."""
        first: Any = self.get_submodule(self.names[0])
        made: Tensor = first.arrange(x)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N,K]."""
        pieces: Sequence[Tensor] = [x]  # all columns, or one each
        for name in self.names:
            module = self.get_submodule(name)
            if name in self.joined and len(pieces) > 1:
                pieces = [torch.cat(tuple(pieces), 1)]
            if isinstance(module, nn.ModuleList):
                if len(pieces) < len(module):
                    cut = pieces[0].chunk(len(module), 1)
                    pieces = [piece.contiguous(memory_format=torch.channels_last) for piece in cut]
                pieces = [own(piece) for own, piece in zip(module, pieces, strict=True)]
            elif isinstance(module, Norm):
                columns = 1 if name in self.joined else self.columns // len(pieces)
                pieces = [module(piece, columns) for piece in pieces]
            else:
                pieces = [module(piece) for piece in pieces]
        (logits,) = pieces
        return logits

    def load(self, weights: Mapping[str, NDArray[np.floating]]) -> None:
        """Take the weights of a minialex session (whole layers, see `minialex.network.parameters.join_columns`)."""
        state: dict[str, Tensor] = {}
        for name, array in weights.items():
            layer, _, kind = name.rpartition(".")
            if isinstance(module := self.get_submodule(layer), nn.ModuleList):
                parts = np.split(array, len(module))
                state |= {f"{layer}.{c}.{kind}": torch.from_numpy(np.array(part)) for c, part in enumerate(parts)}
            else:
                state[name] = torch.from_numpy(np.array(array))
        self.load_state_dict(state)

    def gradients(self) -> dict[str, NDArray[np.float32]]:
        """Gradients of whole layers, by the names that `load` takes."""
        found: dict[str, list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            parts = name.split(".")
            assert parameter.grad is not None
            found.setdefault(f"{parts[0]}.{parts[-1]}", []).append(parameter.grad)
        return {name: torch.cat(gradients).cpu().numpy() for name, gradients in found.items()}

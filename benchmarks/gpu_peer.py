"""The peer of `peer.py` as a PyTorch user would train it on a GPU: channels-last, augmented on the device, compiled.

The network is `peer.Peer`; what differs is what a GPU wants. Columns are normalised one after another and joined, since
channels-last memory cannot be looked at as if columns were images (`torch.compile` makes one kernel of it). Crops,
reflections, colours and the mean are one gather on the device. ``bfloat16`` is automatic mixed precision, ``tf32`` is
switched on for products and convolutions, ``float32`` is plain. `gpu_peer_tuned.TunedPeer` may stand for the network.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from gpu_peer_tuned import TunedPeer
from peer import ColumnNorm, Peer
from torch import Tensor, nn
from torch.nn import functional

from minialex.data.statistics import Statistics
from minialex.network.network import Network
from minialex.recipe.fields import Recipe


class JoinedNorm(nn.Module):
    """Local response normalisation within each of several columns, in whatever order memory has."""

    def __init__(self, norm: ColumnNorm) -> None:
        super().__init__()
        self.columns, self.numbers = norm.columns, norm.numbers

    def forward(self, x: Tensor) -> Tensor:
        parts = [functional.local_response_norm(part, *self.numbers) for part in x.chunk(self.columns, 1)]
        return torch.cat(parts, 1)


def set_precision(precision: str) -> None:
    """Allow tensor cores for float32 products and convolutions, or not, in the whole process; forget what was compiled.

    Without the latter `torch.compile` would make one program for all batch sizes, and give up after some.
    """
    torch.compiler.reset()
    torch.backends.cudnn.benchmark = True  # the quickest algorithm of each convolution, tried out
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


class DevicePeer:
    """A peer in training on a device.

    Parameters
    ----------
    recipe : with `classes` set
    network : of minialex
    statistics : of the training set
    device : ``"cuda:0"``, ``"cpu"``
    precision : as a recipe's; `set_precision` must have been called with it
    compiled : the mode of `torch.compile` that augmentation, network and loss go through; None: eager
    tuned : whether the network is written for what PyTorch is quick at
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        statistics: Statistics,
        device: str,
        precision: str,
        compiled: str | None,
        tuned: bool = False,
    ) -> None:
        self.size, self.crop, self.scale = recipe.image_size, recipe.crop, recipe.pixel_scale
        self.precision = precision
        self.device = torch.device(device)
        model = TunedPeer(network, recipe.columns) if tuned else Peer(network, recipe.columns)
        for name, module in list(model.named_children()):
            if isinstance(module, ColumnNorm):
                setattr(model, name, JoinedNorm(module))
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        decayed = [p for name, p in model.named_parameters() if name.endswith("weight")]
        others = [p for name, p in model.named_parameters() if not name.endswith("weight")]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others}]
        self.optimiser = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
        self.mean = torch.from_numpy(statistics.mean).to(self.device)
        scale = recipe.colour * np.sqrt(statistics.eigenvalues)
        self.colours = torch.from_numpy((statistics.eigenvectors * scale).astype(np.float32)).to(self.device)
        self.loss = torch.compile(self._loss, mode=compiled, dynamic=False) if compiled else self._loss

    def pinned(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Page-locked memory, whatever is in it."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()

    def upload(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """A batch on the device, from pinned memory where there is a GPU (copied there, if it is not), meanwhile."""
        made = []
        for array in (images, labels):
            tensor = torch.from_numpy(array)
            if self.device.type == "cuda":
                tensor = tensor.pin_memory()
            made.append(tensor.to(self.device, non_blocking=True))
        return made[0], made[1]

    def augment(self, images: Tensor, top: Tensor, left: Tensor, flip: Tensor, shift: Tensor) -> Tensor:
        """Crops, reflections and colour shifts of uint8 [N,3,S,S], mean subtracted, zeros around: channels-last."""
        crop = self.crop
        along = torch.arange(crop, device=images.device)
        rows = (top[:, None] + along)[:, :, None]
        columns = (left[:, None] + torch.where(flip[:, None], crop - 1 - along, along))[:, None, :]
        which = torch.arange(len(images), device=images.device)[:, None, None]
        cut = images[which, :, rows, columns].float() - self.mean[:, rows, columns].permute(1, 2, 3, 0)
        x = (cut + shift[:, None, None, :]).permute(0, 3, 1, 2)
        if self.scale != 1:
            x = x * self.scale
        x = functional.pad(x, self.model.around)
        tuned = isinstance(self.model, TunedPeer)
        return self.model.arrange(x) if tuned else x.contiguous(memory_format=torch.channels_last)

    def _loss(self, images: Tensor, labels: Tensor, *draws: Tensor) -> Tensor:
        x = self.augment(images, *draws)
        mixed = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if mixed else contextlib.nullcontext():
            logits = self.model(x)
        return functional.cross_entropy(logits.float(), labels)

    def train(self, images: Tensor, labels: Tensor) -> Tensor:
        """One training step on a batch that is on the device; the loss, which stays there."""
        N, room = len(images), self.size - self.crop + 1
        top, left = torch.randint(0, room, (2, N), device=self.device)
        flip = torch.rand(N, device=self.device) < 0.5
        shift = torch.randn(N, 3, device=self.device) @ self.colours.T
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(images, labels, top, left, flip, shift)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def synchronize(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

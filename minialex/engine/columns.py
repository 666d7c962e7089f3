"""The executor: runs a network's columns on their devices, forward and backward, and the exchange between them.

A placement is a tuple of device names, one per column: ``("cuda:0", "cuda:1")`` as in 2012, ``("cpu:0", "cpu:0")``
for both columns on one device. Before a layer that sees ``"all"``, each column gathers the others' channels; on
the backward pass each owner gets the sum of all readers' gradients, added in the order of the columns. Nothing else
crosses. The placement of columns changes no number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.program import ArrayName, Watch
from minialex.backend.protocol import Backend
from minialex.network.layers import Context
from minialex.network.layers.layer import blamed
from minialex.network.network import Network, Stage

Placement = tuple[str, ...]


class Executor:
    """One network on one backend, in one placement.

    For `frozen` layers no gradient is computed if nothing before them learns either.

    Attributes:
        exchanged: bytes exchanged between columns so far, by (layer that reads, ``"forward"`` or ``"backward"``)
        first_learning: index of the first layer that learns; the number of layers if none does
    """

    def __init__(
        self,
        network: Network,
        backend: Backend,
        placement: Placement,
        watch: Watch | None = None,
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        self.network = network
        self.backend = backend
        self.placement = placement
        self.stages = network.stages(len(placement))
        self.exchanged: Counter[tuple[str, str]] = Counter()
        self.watch = watch or (lambda layer, column, phase: None)
        learning = [
            bool(stage.layer.parameters(stage.seen, 0, stage.columns)) and stage.layer.name not in frozen
            for stage in self.stages
        ]
        self.first_learning = learning.index(True) if True in learning else len(learning)

    def computed(self, stage: Stage) -> range:
        """The columns of a layer that are computed here; the pieces of its input and output are theirs, in order."""
        return range(stage.columns)

    def forward(
        self,
        parameters: Mapping[ArrayName, Array],
        images: Sequence[Array],
        context: Context,
        tell: Callable[[str, Sequence[Array]], None] = lambda layer, pieces: None,
    ) -> tuple[list[Array], list[list[Any]]]:
        """Run all layers.

        Args:
            parameters: by name, as in `Network.parameters`, each on its column's device
            images: float [N,C,H,W], one per column, on its device (columns on one device may share an array)
            context: the context of the step; column and columns are filled in here
            tell: called with every layer's name and its output, one array per column, as soon as it exists

        Returns:
            The last layer's output, one array per column that computed it; and what `backward` needs.
        """
        pieces, saved = list(images), []
        for stage in self.stages:
            if stage.gathers:
                pieces = self._gather(stage, pieces)
            outputs, needed = [], []
            for piece, column in zip(pieces, self.computed(stage), strict=False):
                self.watch(stage.layer.name, column, "forward")
                own, now = self._own(parameters, stage, column), self._at(stage, column, context)
                with blamed(stage.layer, "forward"):
                    y, need = stage.layer.forward(self.backend, own, piece, now)
                outputs.append(y)
                needed.append(need)
            pieces = outputs
            tell(stage.layer.name, pieces)
            saved.append(needed)
        return pieces, saved

    def backward(
        self,
        parameters: Mapping[ArrayName, Array],
        saved: list[list[Any]],
        gradient: Sequence[Array],
        context: Context,
        ready: Callable[[ArrayName, Array], None] = lambda name, gradient: None,
    ) -> dict[ArrayName, Array]:
        """Gradients of the parameters by name, from the gradient of the last layer's output; consumes `saved`.

        It goes back to the first layer that learns, and no further. `ready` is called as soon as a layer is done,
        including what it sends to other columns.
        """
        return self._backward(parameters, saved, gradient, context, ready, self.first_learning)[0]

    def backward_through(
        self,
        parameters: Mapping[ArrayName, Array],
        saved: list[list[Any]],
        gradient: Sequence[Array],
        context: Context,
        ready: Callable[[ArrayName, Array], None],
    ) -> list[Array]:
        """Like `backward`, down to the gradients of the input, one per column: something before it learns, too."""
        return self._backward(parameters, saved, gradient, context, ready, -1)[1]

    def _backward(
        self,
        parameters: Mapping[ArrayName, Array],
        saved: list[list[Any]],
        gradient: Sequence[Array],
        context: Context,
        ready: Callable[[ArrayName, Array], None],
        first: int,
    ) -> tuple[dict[ArrayName, Array], list[Array]]:
        """The gradients of the parameters, and those of the input of the first layer that it goes back to."""
        pieces: list[Array] = list(gradient)
        gradients: dict[ArrayName, Array] = {}
        for index in reversed(range(max(first, 0), len(self.stages))):
            stage = self.stages[index]
            needed = saved.pop()
            inputs: list[Array] = []
            made: dict[ArrayName, Array] = {}
            now = replace(context, need_dx=index > first)
            for column, need, dy in zip(self.computed(stage), needed, pieces, strict=False):
                dx, slopes = self._back(parameters, stage, column, need, dy, now)
                inputs.append(dx)
                made.update({ArrayName(stage.layer.name, name, column): array for name, array in slopes.items()})
            if index > first:
                pieces = self._scatter(stage, inputs) if stage.gathers else inputs
            for name, array in made.items():
                ready(name, array)
            gradients.update(made)
        return gradients, pieces

    def input_gradient(
        self, parameters: Mapping[ArrayName, Array], saved: list[list[Any]], gradient: Sequence[Array], context: Context
    ) -> list[Array]:
        """Gradients of the images, one per column, from that of the last output in `saved`, which it consumes."""
        pieces = list(gradient)
        while saved:
            needed = saved.pop()
            stage = self.stages[len(saved)]
            inputs = [
                self._back(parameters, stage, column, needed[column], pieces[column], context)[0]
                for column in range(stage.columns)
            ]
            pieces = self._scatter(stage, inputs) if stage.gathers else inputs
        return pieces

    def _back(
        self, parameters: Mapping[ArrayName, Array], stage: Stage, column: int, needed: Any, dy: Array, context: Context
    ) -> tuple[Any, dict[str, Array]]:
        """One column of one layer, backward: the gradients of its input and of its parameters."""
        self.watch(stage.layer.name, column, "backward")
        own, now = self._own(parameters, stage, column), self._at(stage, column, context)
        with blamed(stage.layer, "backward"):
            dx, slopes = stage.layer.backward(self.backend, own, needed, dy, now)
            if set(slopes) != set(own):
                raise ValueError(f"it gave gradients of {sorted(slopes)}, expected those of {sorted(own)}")
        return dx, slopes

    def loss(self, outputs: Sequence[Array], labels: Array) -> tuple[Array, Array]:
        """Mean cross-entropy and probabilities [N,K], on the first column's device (see the operation)."""
        self.watch("softmax", 0, "forward")
        return self.backend.softmax_cross_entropy(self._first(outputs), labels)

    def loss_gradient(self, probs: Array, labels: Array) -> list[Array]:
        """Gradient of the mean cross-entropy, in the pieces that `backward` takes."""
        self.watch("softmax", 0, "backward")
        gradient = self.backend.softmax_cross_entropy_backward(probs, labels)
        last = self.stages[-1]
        pieces = self.backend.split(gradient, [last.output[0]] * last.columns) if last.columns > 1 else [gradient]
        return [self._send(piece, column, 0, "softmax", "backward") for column, piece in enumerate(pieces)]

    def _first(self, outputs: Sequence[Array]) -> Array:
        if len(outputs) == 1:
            return outputs[0]
        return self.backend.concat([self._send(y, 0, column, "softmax", "forward") for column, y in enumerate(outputs)])

    def _own(self, parameters: Mapping[ArrayName, Array], stage: Stage, column: int) -> dict[str, Array]:
        names = stage.layer.parameters(stage.seen, column, stage.columns)
        return {name: parameters[ArrayName(stage.layer.name, name, column)] for name in names}

    def _at(self, stage: Stage, column: int, context: Context) -> Context:
        return replace(context, column=column, columns=stage.columns)

    def _gather(self, stage: Stage, pieces: Sequence[Array]) -> list[Array]:
        """For each reading column, all columns' channels, concatenated on its device."""
        whole: dict[str, Array] = {}
        for reader in range(stage.columns):
            self.watch(stage.layer.name, reader, "exchange")
            arrived = [
                self._send(piece, reader, owner, stage.layer.name, "forward") for owner, piece in enumerate(pieces)
            ]
            device = self.placement[reader]
            if device not in whole:  # columns on one device share one array
                whole[device] = self.backend.concat(arrived)
        return [whole[self.placement[reader]] for reader in range(stage.columns)]

    def _scatter(self, stage: Stage, gradients: Sequence[Array]) -> list[Array]:
        """For each owning column, the sum of all readers' gradients of its channels."""
        sizes = [stage.seen[0] // stage.sources] * stage.sources
        parts = []
        for reader, gradient in enumerate(gradients):
            self.watch(stage.layer.name, reader, "exchange")
            parts.append(self.backend.split(gradient, sizes))
        sums: list[Array] = []
        for owner in range(stage.sources):
            self.watch(stage.layer.name, owner, "exchange")
            arrived = [
                self._send(parts[reader][owner], owner, reader, stage.layer.name, "backward")
                for reader in range(stage.columns)
            ]
            total = arrived[0]
            for part in arrived[1:]:
                total = self.backend.add(total, part)
            sums.append(total)
        return sums

    def _send(self, piece: Array, receiver: int, sender: int, layer: str, direction: str) -> Array:
        """A piece on the receiving column's device, counted if it comes from another column."""
        if receiver != sender:
            self.exchanged[layer, direction] += math.prod(piece.shape) * piece.dtype.itemsize
        return self.backend.copy_to(piece, self.placement[receiver])

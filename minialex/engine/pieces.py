"""The executor of fully connected layers whose units are divided over ranks: columns on ranks.

Pieces exchange between ranks what columns exchange between devices, by operations of the recorded program: before a
layer all pieces' units are gathered, and in the backward pass each owner gets the sum of all readers' gradients, in the
fixed tree of `minialex.ranks.group`. The batch is complete: all ranks' images.
"""

from __future__ import annotations

from collections.abc import Sequence

from minialex.backend.arrays import Array
from minialex.backend.operations import method
from minialex.backend.program import Watch
from minialex.backend.protocol import Backend
from minialex.engine.columns import Executor
from minialex.network.divided import Divided
from minialex.network.network import Stage
from minialex.ranks.group import Group


class Pieces(Executor):
    """The fully connected layers of a divided network, of which a rank computes its own pieces.

    Args:
        divided: the network
        backend, device: where this rank's pieces are computed
        group: the ranks
        own: numbers of this rank's pieces
        watch, frozen: see `Executor`
    """

    def __init__(
        self,
        divided: Divided,
        backend: Backend,
        device: str,
        group: Group,
        own: range,
        watch: Watch,
        frozen: frozenset[str],
    ) -> None:
        def seen(layer: str, column: int, phase: str) -> None:
            watch(layer, 0, phase)  # pieces run one after another on one device

        super().__init__(divided.above, backend, (device,) * divided.pieces, seen, frozen)
        self.group, self.own = group, own

    def computed(self, stage: Stage) -> range:
        """See `Executor.computed`."""
        return self.own

    def of_all_images(self, shards: list[Array]) -> list[Array]:
        """The first layer's input for all ranks' images, for each of this rank's pieces."""
        self.watch(self.stages[0].layer.name, 0, "exchange")
        return [method(self.backend, "gather_over_ranks")(shards, axis=0, group=self.group)] * len(self.own)

    def of_own_images(self, gradients: Sequence[Array]) -> list[Array]:
        """The gradient of the first layer's input, for each of this rank's shards."""
        self.watch(self.stages[0].layer.name, 0, "exchange")
        return self._summed(gradients, 0)

    def whole_outputs(self, outputs: list[Array], units: int) -> list[Array]:
        """All units of the last layer, for each of this rank's shards, without padding."""
        self.watch("softmax", 0, "exchange")
        swap = method(self.backend, "swap_over_ranks")
        found: list[Array] = swap(outputs, parts=len(self.own), axis=1, width=units, group=self.group)
        return found

    def of_pieces(self, gradients: list[Array]) -> list[Array]:
        """The gradients of the last layer's output for each of this rank's pieces, from those of its shards."""
        self.watch("softmax", 0, "exchange")
        swap, width = method(self.backend, "swap_over_ranks"), self.stages[-1].output[0] * self.stages[-1].columns
        found: list[Array] = swap(gradients, parts=len(self.own), axis=0, width=width, group=self.group)
        return found

    def _gather(self, stage: Stage, pieces: Sequence[Array]) -> list[Array]:
        self.watch(stage.layer.name, 0, "exchange")
        return [method(self.backend, "gather_over_ranks")(list(pieces), axis=1, group=self.group)] * len(self.own)

    def _scatter(self, stage: Stage, gradients: Sequence[Array]) -> list[Array]:
        self.watch(stage.layer.name, 0, "exchange")
        return self._summed(gradients, 1)

    def _summed(self, gradients: Sequence[Array], axis: int) -> list[Array]:
        """This rank's block, along an axis, of the sum over all pieces, in as many parts as it has pieces."""
        scatter = method(self.backend, "scatter_over_ranks")
        found: list[Array] = scatter(list(gradients), parts=len(self.own), axis=axis, group=self.group)
        return found

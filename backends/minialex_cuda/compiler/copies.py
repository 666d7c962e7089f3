"""Copies of weights in bfloat16, which the products of compiled steps read.

An array has at most one copy, which all steps share and which lives as long as the array. An update writes it beside
the weights, so that a step need not round them. But weights may also be changed by something that does not know their
copy: a step compiled before there was one, an operation called by itself, a function of the user's. Whatever lets work
write to memory changes that memory's version first, and a copy remembers the version that it was rounded from, or was
written with. If they differ when a step is called, the weights are rounded again before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minialex_cuda.compiler.updates import together
from minialex_cuda.ops.channels_last import convert
from minialex_cuda.runtime.array import NOWHERE, CudaArray, Rounded
from minialex_cuda.runtime.place import EagerPlace


class Copies:
    """The copies that a step reads.

    Args:
        places: the backend's place on each device
        weights: the arrays whose copies they are

    Attributes:
        arrays: the copies, in the order of the arrays
    """

    def __init__(self, places: Mapping[str, EagerPlace], weights: Sequence[CudaArray]) -> None:
        self._places = places
        self._pairs = [(w, _copy_of(w)) for w in weights]
        self.arrays = [copy for _, copy in self._pairs]

    def allocate(self) -> None:
        """Give memory to copies that have none."""
        for w, copy in self._pairs:
            if copy.flat is NOWHERE:
                together(self._places[w.device], [copy])

    def renew(self) -> None:
        """Round the weights that were changed by something that did not write their copy."""
        for (w, copy), version in zip(self._pairs, self.versions(), strict=True):
            if copy.version != version:
                convert(self._places[w.device], w, copy)
                copy.version = version

    def versions(self) -> list[int]:
        """The versions that the weights have now."""
        return [w.flat.memory.version for w, _ in self._pairs]

    def are_of(self, versions: Sequence[int]) -> None:
        """Note which versions of the weights the copies were written with."""
        for copy, version in zip(self.arrays, versions, strict=True):
            copy.version = version


def _copy_of(w: CudaArray) -> Rounded:
    """The copy of an array; a new one has no memory."""
    if w.rounded is None:
        w.rounded = Rounded(w.shape)
    return w.rounded

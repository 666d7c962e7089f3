"""Offsets of all arrays of a step in one block of memory; arrays that are never needed at the same time may overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from minialex.backend.program import Call, Program, Value, values
from minialex_numba.runtime.buffers import Slices
from minialex_numba.runtime.layout import ALIGNMENT, empty
from minialex_numba.runtime.tiles import up


def touched(call: Call) -> list[Value]:
    """All values that a call reads or writes."""
    return [*values((call.args, call.kwargs)), *values(call.results)]


def lifetimes(
    program: Program, slices: Slices, segments: Sequence[Sequence[int]], scratches: Mapping[int, Sequence[Value]]
) -> dict[Value, tuple[int, int]]:
    """The first and the last segment in which each array is needed.

    Args:
        program: its calls are identified by their positions
        slices: of its values; bound and fed values need no memory here
        segments: groups of calls that may run at the same time
        scratches: the arrays that each call needs while it runs
    """
    lives: dict[Value, tuple[int, int]] = {}
    for number, segment in enumerate(segments):
        for position in segment:
            roots = [slices.root(value) for value in touched(program.calls[position])]
            for root in [root for root in roots if root not in slices.names] + [*scratches.get(position, ())]:
                lives[root] = lives.get(root, (number, 0))[0], number
    for value in program.outputs.values():
        root = slices.root(value)
        if root not in slices.names:
            lives[root] = lives[root][0], len(program.calls)
    return lives


def allocate(lives: Mapping[Value, tuple[int, int]]) -> tuple[dict[Value, NDArray[np.generic]], int]:
    """Place flat arrays in one block, largest first, each at the lowest offset that is free for its whole lifetime.

    Returns:
        the arrays, and the bytes of the block
    """
    size = {value: up(value.nbytes + ALIGNMENT, ALIGNMENT) for value in lives}
    placed: list[tuple[int, int, Value]] = []
    for value in sorted(lives, key=lambda value: (-size[value], lives[value])):
        begin, end = lives[value]
        place = 0
        for low, high, other in sorted(placed, key=lambda entry: entry[0]):
            if lives[other][0] <= end and begin <= lives[other][1] and low < place + size[value] and place < high:
                place = high
        placed.append((place, place + size[value], value))
    nbytes = max((high for _, high, _ in placed), default=0)
    block = empty(nbytes, np.uint8)
    return {value: block[low : low + value.nbytes].view(value.dtype) for low, _, value in placed}, nbytes

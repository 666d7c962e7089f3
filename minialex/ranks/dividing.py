"""Collective operations on activations: gather every rank's images on all ranks, and scatter sums back to their ranks.

Each function takes a rank's own pieces, host arrays [N, D], and all ranks must call it together. A rank's pieces are
adjacent, and the ranks' blocks are in rank order, so the result does not depend on the number of ranks. Sums follow
the fixed tree of `minialex.ranks.group`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minialex.ranks.group import Floats, Group, RunningSum


def gather(xs: Sequence[Floats], *, axis: int, group: Group) -> Floats:
    """All-gather: all ranks' pieces, concatenated along an axis."""
    own = np.ascontiguousarray(np.concatenate(xs, axis))
    blocks = np.empty((group.size, *own.shape), own.dtype)
    blocks[group.rank] = own
    group.all_gather(blocks[group.rank], blocks)
    return np.concatenate(list(blocks), axis)


def scatter(xs: Sequence[Floats], *, parts: int, axis: int, group: Group) -> list[Floats]:
    """Reduce-scatter: this rank's block, along an axis, of the sum of all ranks' pieces, split into equal parts."""
    rows = _turned(_total(xs), axis, group)
    return np.split(_total(list(rows)), parts, axis)


def swap(xs: Sequence[Floats], *, parts: int, axis: int, width: int, group: Group) -> list[Floats]:
    """All-to-all: from all units of this rank's images to this rank's units of all images, or the other way round.

    Args:
        xs: this rank's share: with axis 1 its units of all images, with axis 0 all units of its images
        parts: number of equal parts to split the result into, along the other axis
        axis: axis along which the whole is divided among the ranks
        width: number of units in the result: surplus ones are dropped, missing ones are zeros
    """
    own = np.concatenate(xs, axis)
    if axis == 0:
        own = np.pad(own, ((0, 0), (0, width - own.shape[1])))
    whole = np.concatenate(list(_turned(own, 1 - axis, group)), axis)
    return np.split(whole[:, :width] if axis else whole, parts, 1 - axis)


def _total(parts: Sequence[Floats]) -> Floats:
    running: RunningSum[Floats] = RunningSum(len(parts), np.add)
    with np.errstate(all="ignore"):  # non-finite values propagate; training's guards notice them
        total = [running.push(part) for part in parts][-1]
    assert total is not None
    return total


def _turned(x: Floats, axis: int, group: Group) -> Floats:
    """Block number `rank` of every rank's array, [size, …]; an array's blocks follow one another along an axis."""
    blocks = np.stack(np.split(x, group.size, axis))
    found = np.empty_like(blocks)
    group.all_to_all(blocks, found)
    found[group.rank] = blocks[group.rank]
    return found

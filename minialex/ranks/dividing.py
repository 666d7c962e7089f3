"""Arrays of activations between ranks: every rank's images to all, and units' sums back to whose images they are of.

Each function takes a rank's own pieces, host arrays [N, D], and is called by all ranks at the same moment. Neighbouring
pieces are those of one rank, and the ranks' blocks follow each other in their order, so that what comes out does not
depend on how many ranks there are. Sums are those of the fixed tree of `minialex.ranks.group`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minialex.ranks.group import Floats, Group, RunningSum


def gather(xs: Sequence[Floats], *, axis: int, group: Group) -> Floats:
    """All ranks' pieces, side by side along an axis."""
    own = np.ascontiguousarray(np.concatenate(xs, axis))
    blocks = np.empty((group.size, *own.shape), own.dtype)
    blocks[group.rank] = own
    group.all_gather(blocks[group.rank], blocks)
    return np.concatenate(list(blocks), axis)


def scatter(xs: Sequence[Floats], *, parts: int, axis: int, group: Group) -> list[Floats]:
    """The sum of all ranks' pieces: of it this rank's block along an axis, in equal parts."""
    rows = _turned(_total(xs), axis, group)
    return np.split(_total(list(rows)), parts, axis)


def swap(xs: Sequence[Floats], *, parts: int, axis: int, width: int, group: Group) -> list[Floats]:
    """Of all images this rank's units from of this rank's images all units, or the other way round.

    Args:
        xs: this rank's share: along axis 1 its units, of all images; along axis 0 its images, with all units
        parts: equal parts of what comes out, along the other axis
        axis: along which the ranks' shares follow each other
        width: how many units there are in what comes out: those beyond are left out, those that lack are zeros
    """
    own = np.concatenate(xs, axis)
    if axis == 0:
        own = np.pad(own, ((0, 0), (0, width - own.shape[1])))
    whole = np.concatenate(list(_turned(own, 1 - axis, group)), axis)
    return np.split(whole[:, :width] if axis else whole, parts, 1 - axis)


def _total(parts: Sequence[Floats]) -> Floats:
    running: RunningSum[Floats] = RunningSum(len(parts), np.add)
    with np.errstate(all="ignore"):  # values that are not finite flow on; training's guards notice them
        total = [running.push(part) for part in parts][-1]
    assert total is not None
    return total


def _turned(x: Floats, axis: int, group: Group) -> Floats:
    """Every rank's block of this rank's number, [size, …]; an array's blocks lie one after another along an axis."""
    blocks = np.stack(np.split(x, group.size, axis))
    found = np.empty_like(blocks)
    group.all_to_all(blocks, found)
    found[group.rank] = blocks[group.rank]
    return found

"""The update of all parameters of a column at once: what `sgd_update` does to each, in one launch.

Weights and momentum are brought into one block of memory, and gradients lie in a step's workspace. So a parameter is
three offsets, and a table of them, written once, tells every thread where its numbers are.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_cuda.compiler.schedule import aligned
from minialex_cuda.ops.sgd_update import SHARE, updated
from minialex_cuda.runtime.array import CudaArray, Memory
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place

LANES = 256
EACH = 64
"""A parameter is cut into chunks of `LANES` threads that take `EACH` elements at most, `LANES` apart."""

CHUNK = LANES * EACH
FIELDS = 7
"""Of a parameter in the table: its first chunk, its elements, where (in elements) its weights, momentum and gradient
begin, which rate it has, and where (in int64) its count goes."""

_CHUNK, _SIZE, _WEIGHT, _MOMENTUM, _GRADIENT, _RATE, _KEPT = range(FIELDS)


@kernel("parameters", "counts")
def sgd_updates_kernel(i, parameters, gradients, counts, owners, table, rates, decays, momentum):
    """Elements of one chunk, `LANES` apart: as `sgd_update_kernel`; counts[i] = how many keep what they were."""
    chunk = i // LANES
    lane = i - chunk * LANES
    row = owners[chunk] * FIELDS
    first = (chunk - table[row + _CHUNK]) * CHUNK
    size = table[row + _SIZE]
    weight = table[row + _WEIGHT]
    velocity = table[row + _MOMENTUM]
    gradient = table[row + _GRADIENT]
    epsilon = rates[table[row + _RATE]]
    decay = decays[owners[chunk]]
    count = 0
    for e in range(first + lane, min(size, first + CHUNK), LANES):
        new_w, new_v, finite = updated(
            parameters[weight + e], parameters[velocity + e], gradients[gradient + e], epsilon, momentum, decay
        )
        if finite:
            parameters[velocity + e] = new_v
            parameters[weight + e] = new_w
        else:
            count += 1
    counts[i] = count


@kernel("sums")
def share_kernel(i, counts, sums, share):
    """sums[i] = Σ counts[i·share … i·share + share − 1]."""
    total = 0
    for j in range(i * share, (i + 1) * share):
        total += counts[j]
    sums[i] = total


@kernel("kept")
def kept_kernel(i, sums, kept, table, chunks, share):
    """The sum over the chunks of parameter i, to where its count goes."""
    last = chunks if i == table.size // FIELDS - 1 else table[(i + 1) * FIELDS + _CHUNK]
    total = 0
    for j in range(table[i * FIELDS + _CHUNK] * share, last * share):
        total += sums[j]
    kept[table[i * FIELDS + _KEPT]] = total


@dataclass(frozen=True)
class Tables:
    """What the kernels are given of a column's parameters; arrays on its device.

    Attributes
    ----------
    chunks : of all parameters
    parameters, gradients, kept : the blocks of memory that weights and momentum, gradients and counts lie in
    owners : of every chunk the parameter's number, int32
    table : [parameters, `FIELDS`], int64
    decays : of every parameter
    rates : learning rates, which change from step to step
    """

    chunks: int
    parameters: CudaArray
    gradients: CudaArray
    kept: CudaArray
    owners: CudaArray
    table: CudaArray
    decays: CudaArray
    rates: CudaArray

    @property
    def read(self) -> tuple[CudaArray, ...]:
        """The tables that updating reads."""
        return self.owners, self.table, self.decays, self.rates


def chunks_of(sizes: Sequence[int]) -> list[int]:
    """How many chunks each parameter has."""
    return [-(-size // CHUNK) for size in sizes]


def together(on: Place, arrays: Sequence[CudaArray]) -> bool:
    """Bring arrays into one block of memory, if they do not share one; True if they have other addresses now."""
    if len({id(array.flat.memory) for array in arrays}) == 1:
        return False
    sizes = [aligned(array.flat.nbytes) for array in arrays]
    memory = on.runtime.allocate(sum(sizes), on.device, on.stream)
    offset = 0
    for array, size in zip(arrays, sizes, strict=True):
        there = CudaArray(on.runtime.flat(memory, offset, array.size, array.dtype), array.shape, array.dtype)
        on.copy(array, there)
        array.flat = there.flat
        offset += size
    return True


def tables(
    on: Place,
    ws: Sequence[CudaArray],
    vs: Sequence[CudaArray],
    dws: Sequence[CudaArray],
    kept: Sequence[CudaArray],
    rates: CudaArray,
    which: Sequence[int],
    decays: Sequence[float],
) -> Tables:
    """The tables of parameters whose addresses are known; ``which`` are their numbers among the rates."""
    kind = ws[0].dtype
    counts = chunks_of([w.size for w in ws])
    begins = np.cumsum([0, *counts])
    columns: list[Any] = [begins[:-1], [w.size for w in ws]]
    columns += [[array.flat.offset // kind.itemsize for array in arrays] for arrays in (ws, vs, dws)]
    columns += [which, [array.flat.offset // 8 for array in kept]]
    owners = np.repeat(np.arange(len(ws), dtype=np.int32), counts)

    def whole(array: CudaArray) -> CudaArray:
        memory: Memory = array.flat.memory
        count = memory.nbytes // array.dtype.itemsize
        return CudaArray(on.runtime.flat(memory, 0, count, array.dtype), (count,), array.dtype)

    def bring(array: NDArray[Any]) -> CudaArray:
        made = on.empty(array.shape, array.dtype)
        on.runtime.upload(on.stream, array, made.flat)
        return made

    table = np.ascontiguousarray(np.stack(columns, axis=1), np.int64)
    blocks = whole(ws[0]), whole(dws[0]), whole(kept[0])
    return Tables(int(begins[-1]), *blocks, bring(owners), bring(table), bring(np.asarray(decays, kind)), rates)


def sgd_updates_at(
    on: Place,
    ws: Sequence[CudaArray],
    vs: Sequence[CudaArray],
    dws: Sequence[CudaArray],
    known: Tables | None,
    *,
    momentum: float,
) -> list[CudaArray]:
    """`sgd_update_at` of many parameters; `known` is None in a rehearsal."""
    kept = [on.empty((), np.int64) for _ in ws]
    threads = sum(chunks_of([w.size for w in ws])) * LANES
    counts, sums = on.scratch((threads,), np.uint8), on.scratch((threads // SHARE,), np.int64)
    if known is None:
        return kept
    scalar = ws[0].dtype.type(momentum)
    on.launch(
        sgd_updates_kernel, threads, known.parameters, known.gradients, counts, known.owners, known.table, known.rates,
        known.decays, scalar, touched=([*dws, *known.read], [*ws, *vs, counts]),
    )  # fmt: skip
    on.launch(share_kernel, sums.size, counts, sums, SHARE)
    on.launch(
        kept_kernel, len(ws), sums, known.kept, known.table, known.chunks, LANES // SHARE,
        touched=([sums, known.table], kept),
    )  # fmt: skip
    return kept

"""Updates all parameters of a column in one launch: `sgd_update` for each of them.

Weights and momentum are moved into one block of memory, rounded weights into another one, and gradients are in a step's
workspace. So a parameter is some offsets, and a table of these, written once, tells every thread where its numbers are.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minialex_cuda.compiler.schedule import aligned
from minialex_cuda.ops.sgd_update import updated
from minialex_cuda.ops.words import finite_to_bfloat16
from minialex_cuda.runtime.array import NOWHERE, CudaArray, Memory, without_memory
from minialex_cuda.runtime.kernel import Grid, GridKernel, kernel
from minialex_cuda.runtime.place import Place

LANES = 256
EACH = 64
"""A parameter is split into chunks of `LANES` threads, each with at most `EACH` elements at stride `LANES`."""

CHUNK = LANES * EACH
FIELDS = 8
"""Fields of a parameter in the table: its first chunk, its number of elements, the offsets (in elements) of its
weights, momentum, gradient and rounded weights (-1: it has none), the number of its rate, and the offset (in int64) of
its count."""

_CHUNK, _SIZE, _WEIGHT, _MOMENTUM, _GRADIENT, _ROUNDED, _RATE, _SKIPPED = range(FIELDS)


@kernel("parameters", "rounded", "counts")
def sgd_updates_kernel(i, parameters, rounded, gradients, counts, owners, table, rates, decays, momentum):
    """Update elements of one chunk, at stride `LANES`, like `sgd_update_kernel`; counts[i] = how many were skipped.

    Steps in float32 run this kernel, too, on devices without bfloat16: it rounds in integers.
    """
    chunk = i // LANES
    lane = i - chunk * LANES
    row = owners[chunk] * FIELDS
    first = (chunk - table[row + _CHUNK]) * CHUNK
    size = table[row + _SIZE]
    weight = np.uint64(table[row + _WEIGHT])  # Numba asks of every index with a sign whether it is negative
    velocity = np.uint64(table[row + _MOMENTUM])
    gradient = np.uint64(table[row + _GRADIENT])
    copy = table[row + _ROUNDED]
    epsilon = rates[table[row + _RATE]]
    decay = decays[owners[chunk]]
    count = 0
    for e in range(first + lane, min(size, first + CHUNK), LANES):
        j = np.uint64(e)
        new_w, new_v, finite = updated(
            parameters[weight + j], parameters[velocity + j], gradients[gradient + j], epsilon, momentum, decay
        )
        if finite:
            parameters[velocity + j] = new_v
            parameters[weight + j] = new_w
            if copy >= 0:
                rounded[np.uint64(copy) + j] = finite_to_bfloat16(new_w)
        else:
            count += 1
    counts[i] = count


WARP, TOGETHER = 32, 8
"""Threads that sum the counts of a chunk, and chunks per block."""

MANY = 128
"""Threads that sum the counts of a parameter's chunks."""


def _chunk_sums(tile, _, __, lane, place, shared, counts, sums, chunks):
    """sums[chunk] = Σ counts of a chunk's threads."""
    chunk = tile * TOGETHER + place
    total = np.int32(0)
    if chunk < chunks:
        for j in range(lane, LANES, WARP):
            total = np.int32(total + counts[chunk * LANES + j])
    shared[place * WARP + lane] = np.float32(total)  # exact: fewer than 2²⁴
    return chunk


def _chunk_sums_ended(tile, _, __, lane, place, shared, chunk, counts, sums, chunks):
    if lane == 0 and chunk < chunks:
        total = np.float32(0)
        for other in range(WARP):
            total += shared[place * WARP + other]
        sums[chunk] = np.int32(total)


def _skipped(parameter, _, __, lane, ___, shared, sums, skipped, table, chunks):
    """Write the sum over a parameter's chunks to its count."""
    row = parameter * FIELDS
    last = chunks if parameter == table.size // FIELDS - 1 else table[row + FIELDS + _CHUNK]
    total = np.int32(0)
    for j in range(table[row + _CHUNK] + lane, last, MANY):
        total = np.int32(total + sums[j])
    shared[lane] = np.float32(total)  # exact up to 2²⁴, for parameters up to 2³¹
    return row


def _skipped_ended(parameter, _, __, lane, ___, shared, row, sums, skipped, table, chunks):
    if lane == 0:
        total = np.int64(0)
        for other in range(MANY):
            total += np.int64(shared[other])
        skipped[table[row + _SKIPPED]] = total


CHUNK_SUMS = GridKernel("chunk_sums", ("sums",), _chunk_sums, _chunk_sums_ended)
SKIPPED = GridKernel("skipped_sums", ("skipped",), _skipped, _skipped_ended)


def chunks_of(ws: Sequence[CudaArray]) -> list[int]:
    """The number of chunks of each parameter."""
    return [-(-w.size // CHUNK) for w in ws]


def together(on: Place, arrays: Sequence[CudaArray]) -> bool:
    """Move arrays into one block of memory, unless they share one; return whether their addresses changed.

    Arrays without memory get some.
    """
    if len({id(array.flat.memory) for array in arrays}) <= 1 and all(array.flat is not NOWHERE for array in arrays):
        return False
    sizes = [aligned(array.nbytes) for array in arrays]
    memory = on.runtime.allocate(sum(sizes), on.device, on.stream)
    offset = 0
    for array, size in zip(arrays, sizes, strict=True):
        there = CudaArray(on.runtime.flat(memory, offset, array.size, array.dtype), array.shape, array.dtype)
        if array.flat is not NOWHERE:
            on.copy(array, there)
        array.flat = there.flat
        offset += size
    return True


def _later() -> CudaArray:
    return without_memory((), np.uint8)


@dataclass
class Tables:
    """The kernels' arguments on a column's parameters, besides sizes; `fill` gives the arrays their memory.

    Attributes:
        rates: learning rates, which change from step to step
        which: every parameter's index in `rates`
        weight_decays: weight decay of every parameter
        parameters: the block of memory with weights and momentum
        rounded: the block with rounded weights; if there are none, one that nothing writes
        gradients: the block with the gradients
        skipped: the block with the counts
        owners: every chunk's parameter number, int32
        table: [parameters, `FIELDS`], int64
        decays: `weight_decays` on the device
    """

    rates: CudaArray
    which: Sequence[int]
    weight_decays: Sequence[float]
    parameters: CudaArray = field(default_factory=_later)
    rounded: CudaArray = field(default_factory=_later)
    gradients: CudaArray = field(default_factory=_later)
    skipped: CudaArray = field(default_factory=_later)
    owners: CudaArray = field(default_factory=_later)
    table: CudaArray = field(default_factory=_later)
    decays: CudaArray = field(default_factory=_later)

    @property
    def arrays(self) -> tuple[CudaArray, ...]:
        """The arrays that `fill` gives memory."""
        return self.parameters, self.rounded, self.gradients, self.skipped, self.owners, self.table, self.decays

    def fill(
        self,
        on: Place,
        ws: Sequence[CudaArray],
        vs: Sequence[CudaArray],
        dws: Sequence[CudaArray],
        rounded: Sequence[CudaArray | None],
        skipped: Sequence[CudaArray],
    ) -> None:
        """Fill the tables, once the addresses of the parameters are known."""
        kind = ws[0].dtype
        counts = chunks_of(ws)
        columns: list[Any] = [np.cumsum([0, *counts[:-1]]), [w.size for w in ws]]
        columns += [[array.flat.offset // kind.itemsize for array in arrays] for arrays in (ws, vs, dws)]
        columns += [[-1 if copy is None else copy.flat.offset // copy.dtype.itemsize for copy in rounded]]
        columns += [self.which, [array.flat.offset // 8 for array in skipped]]
        copy = next((copy for copy in rounded if copy is not None), None)
        copy = on.empty((1,), np.uint16) if copy is None else copy  # the kernel takes one, and no memory twice
        blocks = (self.parameters, ws[0]), (self.rounded, copy), (self.gradients, dws[0]), (self.skipped, skipped[0])
        for block, array in blocks:
            memory: Memory = array.flat.memory
            block.flat = on.runtime.flat(memory, 0, memory.nbytes // array.dtype.itemsize, array.dtype)
        for there, numbers in (
            (self.owners, np.repeat(np.arange(len(ws), dtype=np.int32), counts)),
            (self.table, np.ascontiguousarray(np.stack(columns, axis=1), np.int64)),
            (self.decays, np.asarray(self.weight_decays, kind)),
        ):
            there.flat = on.empty(numbers.shape, numbers.dtype).flat
            on.runtime.upload(on.stream, numbers, there.flat)


def sgd_updates(
    on: Place,
    ws: Sequence[CudaArray],
    vs: Sequence[CudaArray],
    dws: Sequence[CudaArray],
    rounded: Sequence[CudaArray | None],
    tables: Tables,
    *,
    momentum: float,
) -> list[CudaArray]:
    """`sgd_update` for many parameters; it writes rounded weights, too, where they are given."""
    skipped = [on.empty((), np.int64) for _ in ws]
    chunks = sum(chunks_of(ws))
    threads = chunks * LANES
    counts, sums = on.scratch((threads,), np.uint8), on.scratch((chunks,), np.int32)
    read = tables.owners, tables.table, tables.decays, tables.rates
    written = [*ws, *vs, *(copy for copy in rounded if copy is not None), counts]
    on.launch(
        sgd_updates_kernel, threads, tables.parameters, tables.rounded, tables.gradients, counts, tables.owners,
        tables.table, tables.rates, tables.decays, ws[0].dtype.type(momentum), touched=([*dws, *read], written),
    )  # fmt: skip
    grid = Grid((-(-chunks // TOGETHER), 1, 1), (WARP, TOGETHER, 1), WARP * TOGETHER)
    on.launch(CHUNK_SUMS, grid, counts, sums, chunks)
    on.launch(
        SKIPPED, Grid((len(ws), 1, 1), (MANY, 1, 1), MANY), sums, tables.skipped, tables.table, chunks,
        touched=([sums, tables.table], skipped),
    )  # fmt: skip
    return skipped

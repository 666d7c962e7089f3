"""The convolution and its gradients: `conv.direct` has the matrix products, `conv.winograd` the faster compiled steps.

In compiled steps, convolutions of several columns that read one input are joined: their weights and biases are lists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minialex.backend.arrays import Padding
from minialex.backend.program import Value
from minialex_numba.conv import direct, winograd
from minialex_numba.conv.direct import Geometry, geometry
from minialex_numba.ops.elementwise import copy_kernel
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task, listed
from minialex_numba.runtime.layout import empty
from minialex_numba.runtime.tiles import up

FEW_IMAGES = 4
"""The fewest images for which Winograd convolutions pay off: their weights are many times larger."""


def _sizes(x: Value, y: Value, ws: Sequence[Value], stride: int, padding: Padding) -> Geometry:
    """The sizes of the joined convolution; y is the first column's output."""
    N, _, *places = y.shape
    shape = N, sum(w.shape[0] for w in ws), *places
    return geometry(x.shape, shape, ws[0].shape[2:], stride, padding)


def _tiled(on: Buffers, sizes: Geometry) -> bool:
    """Whether to use the Winograd convolution, which is faster."""
    return on.is_step and sizes.N >= FEW_IMAGES and winograd.fits(sizes)


def _engine(on: Buffers, sizes: Geometry) -> direct.Convolution | winograd.Convolution:
    kind = winograd.Convolution if _tiled(on, sizes) else direct.Convolution
    return kind(on.threads, sizes, on.dtype)


def conv2d(
    on: Buffers, results: Sequence[Value], x: Value, w: Value | list[Value], b: Value | list[Value], *, stride: int,
    padding: Padding, relu: bool = False,
) -> Bind:  # fmt: skip
    """y[n,k,p,q] = b[k] + Σ_{c,r,s} w[k,c,r,s] · patch[n,c,p,q,r,s], optionally rectified.

    Packed weights are kept if the weights do not change from step to step.
    """
    ws, bs = listed(w), listed(b)
    engine = _engine(on, _sizes(x, results[0], ws, stride, padding))
    keep = on.constant_weights
    scratch = on.scratch(engine.work + (0 if keep else engine.weights))

    def bind() -> Task:
        memory = on.whole(scratch.value)
        if keep:
            engine.use(empty(engine.weights, on.dtype), memory)
        else:
            engine.use(memory[: engine.weights], memory[engine.weights :])
        arrays, biases = [on.array(w) for w in ws], [on.array(b).data for b in bs]
        firsts, bias = np.cumsum([0, *(b.size for b in biases[:-1])]).tolist(), np.zeros_like(engine.nothing)
        source, target = on.rows(x), on.rows(results[0])
        packed_version = -1

        def task(feed: Feed) -> None:
            nonlocal packed_version
            version = sum(array.version for array in arrays)
            if not keep or packed_version != version:
                engine.pack([array.data for array in arrays], turned=False)
                packed_version = version
            for k, part in zip(firsts, biases, strict=True):
                on.threads.run(copy_kernel, part.size, part.size, (part, 0, part.size), (bias, k, part.size))
            engine.run(source, bias, relu, target)

        return task

    return bind


def conv2d_backward(
    on: Buffers, results: Sequence[Value | None], dy: Value | list[Value], x: Value, w: Value | list[Value], *,
    stride: int, padding: Padding, need_dx: bool, like: Value | None = None,
) -> Bind:  # fmt: skip
    """dw = Σ_{n,p,q} dy · patch;  db = Σ_{n,p,q} dy;  dx: the convolution of dilated dy with the rotated kernels.

    Results are dx (or None), the dw and the db; with `like`, dx goes through the gradient of the ReLU that made x.
    """
    del need_dx
    dys, ws = listed(dy), listed(w)
    dx, *gradients = results
    dws, dbs = gradients[: len(ws)], gradients[len(ws) :]
    sizes = _sizes(x, dys[0], ws, stride, padding)
    kind = winograd.WeightGradient if _tiled(on, sizes) else direct.WeightGradient
    gradient = kind(on.threads, sizes, on.dtype)
    engine = _engine(on, sizes.of_input_gradient) if dx else None
    scratch = on.scratch(max(up(gradient.room, 16), engine.work + engine.weights if engine else 0))

    def bind() -> Task:
        memory = on.whole(scratch.value)
        gradient.use(memory)
        slopes, source = on.rows(dys[0]), on.rows(x)
        dw_arrays, db_arrays = ([on.whole(value) for value in values if value] for values in (dws, dbs))
        if dx is None or engine is None:
            return lambda feed: gradient.run(slopes, source, dw_arrays, db_arrays)
        engine.use(memory[: engine.weights], memory[engine.weights :])
        target, mask = on.rows(dx), on.rows(like) if like else None
        weights = [on.array(w).data for w in ws]

        def task(feed: Feed) -> None:
            gradient.run(slopes, source, dw_arrays, db_arrays)
            engine.pack(weights, turned=True)
            engine.run(slopes, engine.nothing, False, target, mask)

        return task

    return bind

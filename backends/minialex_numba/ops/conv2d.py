"""The convolution and its gradients: see `conv.direct` for the products, `conv.winograd` for compiled steps' quicker ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minialex.backend import Padding
from minialex.program import Value
from minialex.shapes import conv_size
from minialex_numba.conv import direct, winograd
from minialex_numba.conv.direct import Geometry, geometry
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task
from minialex_numba.runtime.layout import Floats, Rows, channels_first, channels_last, empty, empty_rows
from minialex_numba.runtime.threads import Threads
from minialex_numba.runtime.tiles import up

FEW_IMAGES = 4
"""Images from which on Winograd's convolutions pay: their weights are many times larger."""


def conv2d(threads: Threads, x: Floats, w: Floats, b: Floats, *, stride: int, padding: Padding) -> Floats:
    """y[n,k,p,q] = b[k] + Σ_{c,r,s} w[k,c,r,s] · patch[n,c,p,q,r,s]."""
    (N, _, H, W), (K, _, R, S) = x.shape, w.shape
    shape = N, K, conv_size(H, R, stride, padding[0]), conv_size(W, S, stride, padding[1])
    if not x.size or not w.size:
        return np.broadcast_to(b[:, None, None], shape).copy()
    sizes = geometry(x.shape, shape, (R, S), stride, padding)
    return channels_first(threads, _convolve(threads, sizes, channels_last(threads, x), w, b), shape)


def _convolve(threads: Threads, sizes: Geometry, x: Rows, w: Floats, b: Floats | None) -> Rows:
    """A convolution; without a bias, one that stands for the gradient of the input."""
    engine = direct.Convolution(threads, sizes, w.dtype)
    engine.use(empty(engine.weights, w.dtype), empty(engine.work, w.dtype))
    engine.pack([w], turned=b is None)
    bias = np.zeros_like(engine.nothing)
    if b is not None:
        bias[: b.size] = b
    y = empty_rows((sizes.N, sizes.K, sizes.P, sizes.Q), w.dtype)
    engine.run(x, bias, False, y)
    return y


def conv2d_backward(
    threads: Threads, dy: Floats, x: Floats, w: Floats, *, stride: int, padding: Padding, need_dx: bool
) -> tuple[Floats | None, Floats, Floats]:
    """dw = Σ_{n,p,q} dy · patch;  db = Σ_{n,p,q} dy;  dx: the convolution of dy, spread out, by the turned kernels."""
    dw, db = np.zeros_like(w), np.zeros(w.shape[0], w.dtype)
    if not x.size or not w.size:
        if dy.size:
            db += dy.sum(axis=(0, 2, 3), dtype=w.dtype)
        return np.zeros_like(x) if need_dx else None, dw, db
    slopes, sizes = channels_last(threads, dy), geometry(x.shape, dy.shape, w.shape[2:], stride, padding)
    gradient = direct.WeightGradient(threads, sizes, x.dtype)
    gradient.use(empty(up(gradient.room, 16), x.dtype))
    gradient.run(slopes, channels_last(threads, x), [dw.reshape(-1)], [db])
    if not need_dx:
        return None, dw, db
    dx = _convolve(threads, sizes.of_input_gradient, slopes, w, None)
    return channels_first(threads, dx, x.shape), dw, db


# ---- in compiled steps: convolutions of several columns that read one input are one ----------------------------------


def _sizes(x: Value, y: Value, ws: Sequence[Value], stride: int, padding: Padding) -> Geometry:
    """The sizes of the joined convolution; y is the first column's output."""
    N, _, *places = y.shape
    shape = N, sum(w.shape[0] for w in ws), *places
    return geometry(x.shape, shape, ws[0].shape[2:], stride, padding)


def _tiled(sizes: Geometry) -> bool:
    """Whether Winograd's convolution is the quicker one."""
    return sizes.N >= FEW_IMAGES and winograd.fits(sizes)


def _engine(on: Buffers, sizes: Geometry) -> direct.Convolution | winograd.Convolution:
    kind = winograd.Convolution if _tiled(sizes) else direct.Convolution
    return kind(on.threads, sizes, on.dtype)


def conv2d_node(
    on: Buffers, results: Sequence[Value], x: Value, ws: Sequence[Value], bs: Sequence[Value], *, stride: int,
    padding: Padding, relu: bool = False,
) -> Bind:  # fmt: skip
    """Packed weights are kept where weights do not change from step to step."""
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
        K, bias = sum(b.size for b in biases), np.zeros_like(engine.nothing)
        source, target = on.rows(x), on.rows(results[0])
        packed_version = -1

        def task(feed: Feed) -> None:
            nonlocal packed_version
            version = sum(array.version for array in arrays)
            if not keep or packed_version != version:
                engine.pack([array.data for array in arrays], turned=False)
                packed_version = version
            np.concatenate(biases, out=bias[:K])
            engine.run(source, bias, relu, target)

        return task

    return bind


def conv2d_backward_node(
    on: Buffers, results: Sequence[Value | None], dys: Sequence[Value], x: Value, ws: Sequence[Value], *, stride: int,
    padding: Padding, need_dx: bool, like: Value | None = None,
) -> Bind:  # fmt: skip
    """Results are dx (or None), the dw, and the db; with `like` dx goes through the gradient of the ReLU that made it."""
    del need_dx
    dx, *gradients = results
    dws, dbs = gradients[: len(ws)], gradients[len(ws) :]
    sizes = _sizes(x, dys[0], ws, stride, padding)
    kind = winograd.WeightGradient if _tiled(sizes) else direct.WeightGradient
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

"""Fully connected layers and dropout in compiled steps: rows [N,1,1,D], maps of one position, in words of four numbers.

In bfloat16 a product takes rows and weights in that format and returns sums in float32, which are rounded when they are
stored. Weights come rounded (`minialex_cuda.compiler.copies`); their gradients and the last layer's output are float32.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from minialex.philox import Stream
from minialex_cuda.ops.conv2d_last import add_bias, bias_gradient
from minialex_cuda.ops.dropout import LOW, philox
from minialex_cuda.ops.words import STORAGES, Storage, in_rows, storage_of
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import GridKernel
from minialex_cuda.runtime.place import Place

_ZERO = np.float32(0)


def linear(on: Place, x: CudaArray, w: CudaArray, b: CudaArray, *, rectify: bool) -> CudaArray:
    """y = x wᵀ + b [N,K] in float32; with `rectify`, as rows, with the ReLU applied as the bias is added."""
    N, D, K = x.shape[0], x.shape[3], b.size
    y = on.empty((N, 1, 1, K), x.dtype) if rectify else on.empty((N, K), np.float32)
    sums = y if y.dtype == np.float32 else on.scratch((N, K), np.float32)
    on.multiply(x, w, sums, N, K, D, transpose_b=True)
    add_bias(on, sums, b, y, 0, N, rectify)
    return y


def linear_dx(on: Place, dy: CudaArray, w: CudaArray) -> CudaArray:
    """dx = dy w."""
    N, K, D = dy.shape[0], dy.shape[3], w.size // dy.shape[3]
    dx = on.empty((N, 1, 1, D), dy.dtype)
    on.multiply(dy, w, dx, N, D, K)
    return dx


def linear_dw(on: Place, dy: CudaArray, x: CudaArray) -> tuple[CudaArray, CudaArray]:
    """dw = dyᵀ x;  db = 1 · dy; both float32."""
    N, K, D = dy.shape[0], dy.shape[3], x.shape[3]
    dw, db = on.empty((K, D), np.float32), on.empty((K,), np.float32)
    on.multiply(dy, x, dw, K, D, N, transpose_a=True)
    bias_gradient(on, dy, None, db)
    return dw, db


def linear_backward(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, *, need_dx: bool
) -> tuple[CudaArray | None, CudaArray, CudaArray]:
    """The gradients dx, dw and db."""
    return linear_dx(on, dy, w) if need_dx else None, *linear_dw(on, dy, x)


# ---- dropout, section 4.2 -------------------------------------------------------------------------------------


def _dropout(storage: Storage) -> GridKernel:
    load, store = storage.load, storage.store

    def body(
        tile, n, _, lane, __, x, y, mask, words, lanes, threshold, factor, key, first_block, first_sample, step, purpose
    ):  # fmt: skip
        """Like `dropout_kernel`, for rows that begin at a block of four elements."""
        word = np.int32(tile * lanes + lane)
        if word < words:
            drawn = philox(
                (first_block + np.uint64(word)) & LOW, (first_sample + np.uint64(n)) & LOW, step[0], purpose, key
            )
            j = np.uint64(n) * np.uint64(words) + np.uint64(word)
            a, b, c, d = load(x, j)
            a = factor * a if drawn[0] >= threshold else _ZERO
            b = factor * b if drawn[1] >= threshold else _ZERO
            c = factor * c if drawn[2] >= threshold else _ZERO
            d = factor * d if drawn[3] >= threshold else _ZERO
            store(y, j, a, b, c, d)
            speaks = np.uint32(drawn[0] >= threshold) | np.uint32(np.uint32(drawn[1] >= threshold) << np.uint32(8))
            speaks |= np.uint32(np.uint32(drawn[2] >= threshold) << np.uint32(16))
            mask[j] = np.uint32(speaks | np.uint32(np.uint32(drawn[3] >= threshold) << np.uint32(24)))

    return GridKernel(f"dropout_{storage.name}", ("y", "mask"), body)


def _dropout_backward(storage: Storage) -> GridKernel:
    load, store = storage.load, storage.store

    def body(tile, _, __, lane, ___, dy, mask, dx, words, lanes, factor):
        """dx = factor · dy where the unit was kept, else 0."""
        j = np.uint64(tile) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            a, b, c, d = load(dy, j)
            spoke = mask[j]
            a = factor * a if spoke & np.uint32(1) else _ZERO
            b = factor * b if spoke & np.uint32(1 << 8) else _ZERO
            c = factor * c if spoke & np.uint32(1 << 16) else _ZERO
            d = factor * d if spoke & np.uint32(1 << 24) else _ZERO
            store(dx, j, a, b, c, d)

    return GridKernel(f"dropout_backward_{storage.name}", ("dx",), body)


DROPOUT = {storage.name: _dropout(storage) for storage in STORAGES}
DROPOUT_BACKWARD = {storage.name: _dropout_backward(storage) for storage in STORAGES}


def dropout(
    on: Place, x: CudaArray, step: CudaArray, *, rate: float, factor: float, stream: Stream
) -> tuple[CudaArray, CudaArray]:
    """`minialex_cuda.ops.dropout.dropout_at` for rows; the mask is [N,D]."""
    (N, _, _, D), storage = x.shape, storage_of(x)
    y, mask = on.empty(x.shape, x.dtype), on.empty((N, D), np.uint8)
    grid = in_rows(D // 4, N)
    first = (np.uint64(value) for value in (stream.seed, stream.first_element // 4, stream.first_sample))
    on.launch(
        DROPOUT[storage.name], grid, storage.words(on, x), storage.words(on, y),
        on.view(mask, np.uint32, (N * D // 4,)), D // 4, grid.threads[0],
        np.uint64(int(rate * 2**32)), np.float32(factor), *first, step, np.uint64(stream.purpose),
    )  # fmt: skip
    return y, mask


def dropout_backward(on: Place, dy: CudaArray, mask: CudaArray, *, factor: float) -> CudaArray:
    """dx = factor · dy where the unit was kept, else 0."""
    storage, dx = storage_of(dy), on.empty(dy.shape, dy.dtype)
    grid = in_rows(dy.size // 4)
    on.launch(
        DROPOUT_BACKWARD[storage.name], grid, storage.words(on, dy), on.view(mask, np.uint32, (mask.size // 4,)),
        storage.words(on, dx), dy.size // 4, grid.threads[0], np.float32(factor),
    )  # fmt: skip
    return dx

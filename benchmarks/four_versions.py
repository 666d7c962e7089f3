"""The launches of `minialex_cuda.lesson`'s four kernels: for counting, and for the test of what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minialex_cuda import lesson
from minialex_cuda.ops.words import BFLOAT16
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import KERNELS, Grid, GridKernel, Kernel
from minialex_cuda.runtime.place import Place

NAMES = ("flat", "grid", "shared", "words")
NUMBERS = (np.float32(2), np.float32(2e-5), np.float32(0.75))


@contextmanager
def kernels() -> Iterator[dict[str, Kernel]]:
    """The four; they are no kernels of the backend, and are not among them."""
    made = {
        "flat": Kernel(lesson.flat, ("dx",)),
        "grid": GridKernel("grid", ("dx",), lesson.grid),
        "shared": GridKernel("shared", ("dx",), lesson.shared_first, lesson.shared_second),
        "words": GridKernel("words", ("dx",), lesson.words_first, lesson.words_second),
    }
    for kernel in made.values():
        del KERNELS[kernel.name]
    yield made


def launch(on: Place, kernel: Kernel, dy: CudaArray, x: CudaArray, numbers: tuple[Any, ...] = NUMBERS) -> CudaArray:
    """One version: [N,C,places] for the flat one, else [N,places,C], and bfloat16 for that with words."""
    N, C, places = x.shape if kernel.name == "flat" else (x.shape[0], x.shape[2], x.shape[1])
    dx = on.empty(x.shape, x.dtype)
    if kernel.name == "flat":
        on.launch(kernel, x.size, dy, x, dx, C, places, *numbers)
        return dx
    arrays = (dy, x, dx)
    if kernel.name == "words":
        C //= 4
        arrays = tuple(BFLOAT16.words(on, array) for array in arrays)
    many = max(1, 256 // C)
    shared = {"shared": C * many, "words": 4 * C * many}.get(kernel.name, 0)
    on.launch(kernel, Grid((-(-places // many), N, 1), (C, many, 1), shared), *arrays, C, places, many, *numbers)
    return dx

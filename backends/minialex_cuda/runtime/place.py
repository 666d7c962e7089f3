"""`Place`: where an operation works - a device, one of its streams, and where results and scratch memory come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Kernel
from minialex_cuda.runtime.protocol import Convolution, Precision, Product, Runtime, Stream

Touched = tuple[Sequence[CudaArray], Sequence[CudaArray]]
"""Arrays that are read, arrays that are written."""

Make = Callable[[tuple[int, ...], Any], CudaArray]

SCRATCH = 256 << 20
"""Bytes of a matrix of patches at most, where one image's own are fewer: larger batches are cut into pieces."""


class Place:
    """What operations are given first.

    Attributes
    ----------
    runtime, device, stream : where work goes
    precision : of matrix products
    """

    def __init__(self, runtime: Runtime, device: str, stream: Stream, precision: Precision = "float32") -> None:
        self.runtime = runtime
        self.device = device
        self.stream = stream
        self.precision = precision

    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An array for a result, whatever is in it."""
        return self._make(shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An array that is not needed beyond the operation."""
        return self._make(shape, dtype)

    def _make(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        count, kind = math.prod(shape), np.dtype(dtype)
        memory = self.runtime.allocate(count * kind.itemsize, self.device, self.stream)
        return CudaArray(self.runtime.flat(memory, 0, count, kind), shape, kind)

    def arrive(self, *arrays: Any) -> None:
        """Let this stream wait for what is still on its way from the host."""
        for array in arrays:
            if isinstance(array, CudaArray):
                array.flat.memory.read = None
                if array.flat.arrives is not None:
                    self.runtime.wait(self.stream, array.flat.arrives)
                    array.flat.arrives = None

    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        """Scratch memory for a convolution by a library; None here: patches are easier to read, and take any array."""
        return None

    def bits(self, x: CudaArray) -> CudaArray:
        """A float32 array as the integers of its bits."""
        flat = self.runtime.flat(x.flat.memory, x.flat.offset, x.size, np.uint32)
        self.arrive(x)
        return CudaArray(flat, x.shape, np.uint32)

    def convolve(
        self, convolution: Convolution, a: CudaArray, b: CudaArray, out: CudaArray, workspace: CudaArray
    ) -> None:
        """A convolution that `library` gave scratch memory for."""
        self.runtime.convolve(self.stream, convolution, a.flat, b.flat, out.flat, workspace.flat)

    def launch(self, kernel: Kernel, count: int, *arguments: Any, touched: Touched | None = None) -> None:
        """Run a kernel over so many indices; arrays are passed flat.

        `touched` tells which arrays are read and which written where the arguments are blocks that hold more.
        """
        if count > 0:
            self.arrive(*arguments)
            plain = [a.flat if isinstance(a, CudaArray) else a for a in arguments]
            flats = None if touched is None else ([a.flat for a in touched[0]], [a.flat for a in touched[1]])
            self.runtime.launch(self.stream, kernel, count, plain, flats)

    def copy(self, source: CudaArray, target: CudaArray) -> None:
        """Copy all numbers of an array."""
        self.arrive(source)
        if source.size:
            self.runtime.copy(self.stream, source.flat, target.flat)

    def clear(self, target: CudaArray) -> None:
        """Fill with zeros."""
        if target.size:
            self.runtime.clear(self.stream, target.flat)

    def multiply(
        self,
        a: CudaArray,
        b: CudaArray,
        out: CudaArray,
        m: int,
        n: int,
        k: int,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
        exact: bool = False,
    ) -> None:
        """out [m,n] = a · b (see `Product`); with `exact` in float32 whatever the precision."""
        if not m or not n:
            return
        if not k:
            if not accumulate:
                self.clear(out)
            return
        precision: Precision = "float32" if exact else self.precision
        self.arrive(a, b, out)
        product = Product(m, n, k, transpose_a, transpose_b, accumulate, precision)
        self.runtime.multiply(self.stream, a.flat, b.flat, out.flat, product)

"""`Place`: where an operation works - a device, one of its streams, and where results and scratch memory come from.

An operation is a function of a place and arrays. At an `EagerPlace` it is done; at a
`minialex_cuda.compiler.recording.RecordingPlace` it is written down, once, for a compiled step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Grid, Kernel
from minialex_cuda.runtime.protocol import Convolution, Precision, Product, Runtime, Stream

Touched = tuple[Sequence[CudaArray], Sequence[CudaArray]]
"""Arrays that are read, arrays that are written."""

Work = Callable[[], None]
"""Something asked of the runtime; arrays have their memory when it is called, and need not have it before."""

SCRATCH = 256 << 20
"""Bytes of a matrix of patches at most, where one image's own are fewer: larger batches are cut into pieces."""


class Place(ABC):
    """What operations are given first.

    Attributes:
        runtime: what work is asked of
        device: where
        stream: in which queue
        precision: of matrix products
    """

    def __init__(self, runtime: Runtime, device: str, stream: Stream, precision: Precision) -> None:
        self.runtime = runtime
        self.device = device
        self.stream = stream
        self.precision = precision

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An array for a result, whatever is in it."""

    @abstractmethod
    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An array that is not needed beyond the operation."""

    @abstractmethod
    def view(self, x: CudaArray, dtype: Any, shape: tuple[int, ...] | None = None) -> CudaArray:
        """The bits of an array as numbers of another dtype, of that size or as many as the shape tells."""

    @abstractmethod
    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        """Scratch memory for a convolution of such an array by a library, or None where there is none to be used."""

    @abstractmethod
    def do(self, work: Work, *arguments: Any) -> None:
        """Some work that these arrays (or numbers) go into."""

    def convolve(
        self,
        convolution: Convolution,
        a: CudaArray,
        b: CudaArray,
        out: CudaArray,
        workspace: CudaArray,
        bias: CudaArray | None = None,
    ) -> None:
        """A convolution that `library` gave scratch memory for."""

        def work() -> None:
            more = () if bias is None else (bias.flat,)
            self.runtime.convolve(self.stream, convolution, a.flat, b.flat, out.flat, workspace.flat, *more)

        self.do(work, *(array for array in (a, b, bias) if array is not None))

    def launch(self, kernel: Kernel, count: int | Grid, *arguments: Any, touched: Touched | None = None) -> None:
        """Run a kernel over so many indices, or over a grid, whose kernels take whole numbers as int32.

        `touched` tells which arrays are read and which written where the arguments are blocks that hold more.
        """

        def work() -> None:
            plain = [a.flat if isinstance(a, CudaArray) else a for a in arguments]
            if isinstance(count, Grid):
                plain = [np.int32(a) if type(a) is int else a for a in plain]
            flats = None if touched is None else ([a.flat for a in touched[0]], [a.flat for a in touched[1]])
            self.runtime.launch(self.stream, kernel, count, plain, flats)

        if not (count.empty if isinstance(count, Grid) else count <= 0):
            self.do(work, *arguments)

    def copy(self, source: CudaArray, target: CudaArray) -> None:
        """Copy all numbers of an array."""
        if source.size:
            self.do(lambda: self.runtime.copy(self.stream, source.flat, target.flat), source)

    def clear(self, target: CudaArray) -> None:
        """Fill with zeros."""
        if target.size:
            self.do(lambda: self.runtime.clear(self.stream, target.flat))

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
        product = Product(m, n, k, transpose_a, transpose_b, accumulate, "float32" if exact else self.precision)
        self.do(lambda: self.runtime.multiply(self.stream, a.flat, b.flat, out.flat, product), a, b, out)


class EagerPlace(Place):
    """Work is asked of the runtime at once, and every array has memory of its own."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        count, kind = math.prod(shape), np.dtype(dtype)
        memory = self.runtime.allocate(count * kind.itemsize, self.device, self.stream)
        return CudaArray(self.runtime.flat(memory, 0, count, kind), shape, kind)

    scratch = empty

    def view(self, x: CudaArray, dtype: Any, shape: tuple[int, ...] | None = None) -> CudaArray:
        self.arrive(x)
        shape = x.shape if shape is None else shape
        return CudaArray(self.runtime.flat(x.flat.memory, x.flat.offset, math.prod(shape), dtype), shape, dtype)

    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        """None: patches are easier to read, and take any array."""
        return None

    def do(self, work: Work, *arguments: Any) -> None:
        self.arrive(*arguments)
        work()

    def arrive(self, *arrays: Any) -> None:
        """Let this stream wait for what is still on its way from the host."""
        for array in arrays:
            if isinstance(array, CudaArray):
                array.flat.memory.read = None
                if array.flat.arrives is not None:
                    self.runtime.wait(self.stream, array.flat.arrives)
                    array.flat.arrives = None

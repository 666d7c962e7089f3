"""`Place`: where an operation runs: a device, one of its streams, and the source of memory for results and scratch.

An operation is a function of a place and arrays. At an `EagerPlace` it is executed; at a
`minialex_cuda.compiler.recording.RecordingPlace` it is recorded, once, for a compiled step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Grid, Kernel
from minialex_cuda.runtime.protocol import Convolution, Precision, Product, Runtime, Stream

Touched = tuple[Sequence[CudaArray], Sequence[CudaArray]]
"""Arrays that are read, and arrays that are written."""

Work = Callable[[], None]
"""A call of the runtime; arrays must have their memory when it runs, but not before."""

SCRATCH = 256 << 20
"""The most bytes in a matrix of patches, unless one image needs more: larger batches are split into pieces."""


class Place(ABC):
    """The first argument of every operation.

    Attributes:
        runtime: the runtime that does the work
        device: name of the device
        stream: the stream on it
        precision: precision of matrix products
    """

    def __init__(self, runtime: Runtime, device: str, stream: Stream, precision: Precision) -> None:
        self.runtime = runtime
        self.device = device
        self.stream = stream
        self.precision = precision

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An uninitialised array for a result."""

    @abstractmethod
    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An uninitialised array that is not needed after the operation."""

    @abstractmethod
    def view(self, x: CudaArray, dtype: Any, shape: tuple[int, ...] | None = None) -> CudaArray:
        """The bits of an array as numbers of another dtype of the same size, or as many numbers as `shape` has."""

    @abstractmethod
    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        """Scratch memory for a convolution of such an array by a library; None if no library can do it."""

    @abstractmethod
    def do(self, work: Work, arguments: Iterable[Any], written: Iterable[CudaArray]) -> None:
        """Do some work that uses some arrays (or numbers), and writes to some of them or to others."""

    def convolve(
        self,
        convolution: Convolution,
        a: CudaArray,
        b: CudaArray,
        out: CudaArray,
        workspace: CudaArray,
        bias: CudaArray | None = None,
    ) -> None:
        """Run a convolution for which `library` returned scratch memory."""

        def work() -> None:
            more = () if bias is None else (bias.flat,)
            self.runtime.convolve(self.stream, convolution, a.flat, b.flat, out.flat, workspace.flat, *more)

        self.do(work, (a, b, bias), (out, workspace))

    def launch(self, kernel: Kernel, count: int | Grid, *arguments: Any, touched: Touched | None = None) -> None:
        """Run a kernel over `count` indices, or over a grid; grid kernels take integers as int32.

        If the arguments are blocks that hold more, `touched` names the arrays that are read and written.
        """

        def work() -> None:
            plain = [a.flat if isinstance(a, CudaArray) else a for a in arguments]
            if isinstance(count, Grid):
                plain = [np.int32(a) if type(a) is int else a for a in plain]
            flats = None if touched is None else ([a.flat for a in touched[0]], [a.flat for a in touched[1]])
            self.runtime.launch(self.stream, kernel, count, plain, flats)

        if not (count.empty if isinstance(count, Grid) else count <= 0):
            written = [arguments[i] for i in kernel.writes] if touched is None else touched[1]
            self.do(work, arguments, written)

    def copy(self, source: CudaArray, target: CudaArray) -> None:
        """Copy all numbers of an array."""
        if source.size:
            self.do(lambda: self.runtime.copy(self.stream, source.flat, target.flat), (source,), (target,))

    def clear(self, target: CudaArray) -> None:
        """Fill with zeros."""
        if target.size:
            self.do(lambda: self.runtime.clear(self.stream, target.flat), (), (target,))

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
        """out [m,n] = a · b (see `Product`); with `exact`, in float32 whatever the precision."""
        if not m or not n:
            return
        if not k:
            if not accumulate:
                self.clear(out)
            return
        product = Product(m, n, k, transpose_a, transpose_b, accumulate, "float32" if exact else self.precision)
        self.do(lambda: self.runtime.multiply(self.stream, a.flat, b.flat, out.flat, product), (a, b, out), (out,))


class EagerPlace(Place):
    """Work is submitted to the runtime at once, and every array has its own memory."""

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
        """None: patches are easier to read, and work for any array."""
        return None

    def do(self, work: Work, arguments: Iterable[Any], written: Iterable[CudaArray]) -> None:
        self.arrive(*arguments)
        for array in written:
            array.flat.memory.changed()
        work()

    def arrive(self, *arrays: Any) -> None:
        """Make this stream wait for arrays that are still being copied from the host."""
        for array in arrays:
            if isinstance(array, CudaArray):
                array.flat.memory.read = None
                if array.flat.arrives is not None:
                    self.runtime.wait(self.stream, array.flat.arrives)
                    array.flat.arrives = None

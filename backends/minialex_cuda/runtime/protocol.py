"""The runtime protocol: the few things that a device must do. Everything else in this package is built on them.

There are two: `minialex_cuda.runtime.device` (CuPy and Numba, for a GPU) and `minialex_cuda.runtime.fake` (NumPy and
Numba, or Numba's CUDA simulator, on any machine). The backend's own code, its schedule and its kernels are the same on
both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minialex.backend.arrays import Padding
from minialex_cuda.runtime.array import Flat, Memory
from minialex_cuda.runtime.kernel import Grid, Kernel

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")

Stream = Any
"""A queue of work on one device: done in order, beside that of other streams."""

Event = Any
"""A moment in a stream, that another stream can wait for."""


@dataclass(frozen=True)
class Product:
    """A matrix product, out [m,n] = a [m,k] · b [k,n], in row-major order.

    Attributes:
        m, n, k: sizes
        transpose_a, transpose_b: whether a lies as [k,m], b as [n,k]
        accumulate: whether it is added to what `out` holds
        precision: what float32 operands are rounded to first; bfloat16 ones (uint16) are as they are. Sums are in
            float32, and what comes out is that or, from bfloat16 operands and not accumulated, bfloat16 too
    """

    m: int
    n: int
    k: int
    transpose_a: bool = False
    transpose_b: bool = False
    accumulate: bool = False
    precision: Precision = "float32"


Touched = tuple[Sequence[Flat], Sequence[Flat]]
"""What is read, what is written."""


def owner(array: NDArray[Any]) -> Any:
    """What an array's memory belongs to, of whatever part of it the array is a view."""
    found: Any = array
    while isinstance(found, np.ndarray) and found.base is not None:
        found = found.base
    return found.obj if isinstance(found, memoryview) else found


Kind = Literal["fprop", "dgrad", "wgrad"]


@dataclass(frozen=True)
class Convolution:
    """A convolution for a library: forward, or one of its two gradients.

    Attributes:
        kind: what is computed: ``"fprop"`` y from x and w, ``"dgrad"`` dx from dy and w, ``"wgrad"`` dw from dy and x
        N, C, H, W, K, R, S, P, Q, stride, padding: as in `Backend.conv2d`
        precision: float32 and tf32 take and give float32 in N C H W; bfloat16 takes and gives that format, as uint16,
            with the channels last
        last: whether float32 and tf32 have the channels last, too
        bias: whether ``"fprop"`` adds one number a channel, in the operands' format, to sums that are not rounded yet
        rectify: whether what is negative then is cut; what is no number stays
    """

    kind: Kind
    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride: int
    padding: Padding
    precision: Precision
    last: bool = False
    bias: bool = False
    rectify: bool = False


class Runtime(ABC):
    """What is asked of devices. Work on a stream is done later, in order; only what says so waits.

    Attributes:
        devices: names of the devices, ``"cuda:0"`` first
    """

    def __init__(self, devices: int) -> None:
        self.devices = tuple(f"cuda:{index}" for index in range(devices))
        self._in_use: Counter[str] = Counter()

    def in_use(self, device: str) -> int:
        """Bytes of memory that somebody holds."""
        return self._in_use[device]

    def has_bfloat16(self, device: str) -> bool:
        """Whether a device has instructions for it."""
        return True

    def flat(self, memory: Memory, offset: int, count: int, dtype: Any) -> Flat:
        """Numbers within a block, from a byte on."""
        kind = np.dtype(dtype)
        return Flat(memory, offset, memory.raw[offset : offset + count * kind.itemsize].view(kind))

    @abstractmethod
    def stream(self, device: str) -> Stream:
        """A new stream."""

    @abstractmethod
    def allocate(self, nbytes: int, device: str, stream: Stream) -> Memory:
        """Memory for work on a stream; given back for other work of that stream when nobody holds it.

        Raises:
            MemoryError: With what was needed and what is free.
        """

    @abstractmethod
    def free(self, device: str) -> int:
        """Bytes of memory that could still be had."""

    @abstractmethod
    def upload(self, stream: Stream, source: NDArray[Any], target: Flat) -> None:
        """From the host; `source` is contiguous, and may be changed as soon as this returns.

        Memory of `host_bytes` is sent from where it is, later: it must not be changed any more.
        """

    @abstractmethod
    def host_bytes(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-locked memory of the host, whatever is in it. What nobody holds any more is given again."""

    @abstractmethod
    def download(self, stream: Stream, source: Flat, target: NDArray[Any] | None = None) -> NDArray[Any]:
        """To the host, flat, to `target` if that is given; waits for the stream."""

    @abstractmethod
    def clear(self, stream: Stream, target: Flat) -> None:
        """Zeros."""

    @abstractmethod
    def copy(self, stream: Stream, source: Flat, target: Flat) -> None:
        """From one place to another, on one device or from device to device."""

    @abstractmethod
    def launch(
        self,
        stream: Stream,
        kernel: Kernel,
        count: int | Grid,
        arguments: Sequence[Any],
        touched: Touched | None = None,
    ) -> None:
        """A kernel over ``count`` > 0 indices, or a `GridKernel` over a grid; arguments are `Flat` or numbers.

        What is read and written are the arguments, unless `touched` tells that it is parts of them.
        """

    @abstractmethod
    def multiply(self, stream: Stream, a: Flat, b: Flat, out: Flat, product: Product) -> None:
        """A matrix product with m, n, k > 0."""

    @abstractmethod
    def convolution_bytes(self, device: str, convolution: Convolution) -> int | None:
        """Bytes of scratch memory for a convolution by a library, or None where there is none that can do it."""

    @abstractmethod
    def convolve(
        self,
        stream: Stream,
        convolution: Convolution,
        a: Flat,
        b: Flat,
        out: Flat,
        workspace: Flat,
        bias: Flat | None = None,
    ) -> None:
        """A convolution by the library; operands in the order that `Convolution.kind` names them."""

    @property
    def has_nccl(self) -> bool:
        """Whether there is NCCL, which `communicator` and what takes one need."""
        return False

    def nccl_id(self) -> tuple[int, ...]:
        """A new id for `communicator`."""
        raise NotImplementedError

    def communicator(self, device: str, size: int, ident: Sequence[int], rank: int) -> Any:
        """What joins a device of every process; all make it at once.

        Args:
            device: this process's
            size, rank: processes, and which of them this is
            ident: `nccl_id` of the first

        Raises:
            ResourceError: If it fails.
        """
        raise NotImplementedError

    def exchange(
        self, stream: Stream, communicator: Any, sends: Sequence[tuple[Flat, int]],
        receives: Sequence[tuple[Flat, int]],
    ) -> None:  # fmt: skip
        """Send numbers to other processes' devices and receive others from them, all at once; each with the rank."""
        raise NotImplementedError

    def all_reduce(self, stream: Stream, communicator: Any, pairs: Sequence[tuple[Flat, Flat]]) -> None:
        """The library's own sums over the processes' devices, each from some numbers to others."""
        raise NotImplementedError

    @abstractmethod
    def record(self, stream: Stream) -> Event:
        """This moment of a stream."""

    @abstractmethod
    def wait(self, stream: Stream, event: Event) -> None:
        """Let a stream's later work wait for an event; the host does not."""

    @abstractmethod
    def synchronize(self, stream: Stream) -> None:
        """Let the host wait until all of a stream's work is done."""

    @abstractmethod
    def namespace(self, stream: Stream) -> AbstractContextManager[Any]:
        """A context in which an array namespace, CuPy's or NumPy's, computes on a stream with raw arrays."""

    @abstractmethod
    def begin_capture(self, stream: Stream) -> bool:
        """Begin to write down what is asked of a stream, and of those that wait for it, instead of doing it.

        Nothing may be allocated, uploaded or waited for by the host meanwhile. False if there are no graphs.
        """

    @abstractmethod
    def end_capture(self, stream: Stream) -> Any:
        """What was written down, as a graph."""

    @abstractmethod
    def replay(self, stream: Stream, graph: Any) -> None:
        """Do all of a graph's work."""

"""The runtime protocol: the few things that a device must do. Everything else in this package builds on them.

There are two runtimes: `minialex_cuda.runtime.device` (CuPy and Numba, for a GPU) and `minialex_cuda.runtime.fake`
(NumPy and Numba, or Numba's CUDA simulator, on any machine). The backend's own code, its schedule and its kernels are
the same on both.
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
"""A queue of work on one device: executed in order, concurrently with other streams."""

Event = Any
"""A point in a stream that another stream can wait for."""


@dataclass(frozen=True)
class Product:
    """A matrix product, out [m,n] = a [m,k] · b [k,n], in row-major order.

    Attributes:
        m, n, k: sizes
        transpose_a, transpose_b: whether a is stored as [k,m], b as [n,k]
        accumulate: whether to add the product to `out`
        precision: what float32 operands are rounded to first; bfloat16 ones (uint16) are used as they are. Sums are
            float32, and so is the result; it may also be bfloat16, from bfloat16 operands without accumulation
    """

    m: int
    n: int
    k: int
    transpose_a: bool = False
    transpose_b: bool = False
    accumulate: bool = False
    precision: Precision = "float32"


Touched = tuple[Sequence[Flat], Sequence[Flat]]
"""What is read, and what is written."""


def owner(array: NDArray[Any]) -> Any:
    """The object that owns an array's memory, however small a view of it the array is."""
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
        precision: float32 and tf32 take and return float32 in N C H W; bfloat16 takes and returns that format, as
            uint16, with the channels last
        last: whether the channels are last in float32 and tf32, too
        bias: whether ``"fprop"`` adds one number per channel, in the operands' format, to the sums before rounding
        rectify: whether negative results become 0 after that; NaN stays
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
    """What devices must do. Work on a stream runs later, in order; no method waits unless it says so.

    Attributes:
        devices: names of the devices, ``"cuda:0"`` first
    """

    def __init__(self, devices: int) -> None:
        self.devices = tuple(f"cuda:{index}" for index in range(devices))
        self._in_use: Counter[str] = Counter()

    def in_use(self, device: str) -> int:
        """Bytes of memory that are referenced."""
        return self._in_use[device]

    def has_bfloat16(self, device: str) -> bool:
        """Whether a device has instructions for bfloat16."""
        return True

    def flat(self, memory: Memory, offset: int, count: int, dtype: Any) -> Flat:
        """Numbers within a block, from a byte offset on."""
        kind = np.dtype(dtype)
        return Flat(memory, offset, memory.raw[offset : offset + count * kind.itemsize].view(kind))

    @abstractmethod
    def stream(self, device: str) -> Stream:
        """A new stream."""

    @abstractmethod
    def allocate(self, nbytes: int, device: str, stream: Stream) -> Memory:
        """Memory for work on a stream; when no longer referenced, it is reused for other work of that stream.

        Raises:
            MemoryError: With the bytes needed and the bytes free.
        """

    @abstractmethod
    def free(self, device: str) -> int:
        """Bytes of memory that can still be allocated."""

    @abstractmethod
    def upload(self, stream: Stream, source: NDArray[Any], target: Flat) -> None:
        """Copy from the host; `source` is contiguous, and may be changed as soon as this returns.

        Memory from `host_bytes` is sent later, in place: it must not be changed any more.
        """

    @abstractmethod
    def host_bytes(self, nbytes: int) -> NDArray[np.uint8]:
        """Uninitialised pinned host memory. Memory that is no longer referenced is reused."""

    @abstractmethod
    def download(self, stream: Stream, source: Flat) -> NDArray[Any]:
        """Copy to the host, flat; waits for the stream."""

    @abstractmethod
    def fetch(self, stream: Stream, source: Flat, target: NDArray[Any]) -> Event:
        """Copy to memory from `host_bytes`, which is then held until the copy is done; the event tells when it is."""

    @abstractmethod
    def clear(self, stream: Stream, target: Flat) -> None:
        """Fill with zeros."""

    @abstractmethod
    def copy(self, stream: Stream, source: Flat, target: Flat) -> None:
        """Copy within a device or from device to device."""

    @abstractmethod
    def launch(
        self,
        stream: Stream,
        kernel: Kernel,
        count: int | Grid,
        arguments: Sequence[Any],
        touched: Touched | None = None,
    ) -> None:
        """Run a kernel over ``count`` > 0 indices, or a `GridKernel` over a grid; arguments are `Flat` or numbers.

        It reads and writes its arguments, or only the parts of them that `touched` names.
        """

    @abstractmethod
    def multiply(self, stream: Stream, a: Flat, b: Flat, out: Flat, product: Product) -> None:
        """Compute a matrix product with m, n, k > 0."""

    @abstractmethod
    def convolution_bytes(self, device: str, convolution: Convolution) -> int | None:
        """Bytes of scratch memory for a convolution by a library; None if no library can do it."""

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
        """Run a convolution by the library; operands in the order in which `Convolution.kind` names them."""

    @property
    def has_nccl(self) -> bool:
        """Whether NCCL is available, which `communicator` and all that take one need."""
        return False

    def nccl_id(self) -> tuple[int, ...]:
        """A new id for `communicator`."""
        raise NotImplementedError

    def communicator(self, device: str, size: int, ident: Sequence[int], rank: int) -> Any:
        """Create a communicator of one device of every process; all processes call this together.

        Args:
            device: this process's device
            size, rank: number of processes, and number of this one
            ident: the first process's `nccl_id`

        Raises:
            ResourceError: If it fails.
        """
        raise NotImplementedError

    def exchange(
        self, stream: Stream, communicator: Any, sends: Sequence[tuple[Flat, int]],
        receives: Sequence[tuple[Flat, int]],
    ) -> None:  # fmt: skip
        """Send numbers to other processes' devices and receive others from them, all at once; each with its rank."""
        raise NotImplementedError

    def all_reduce(self, stream: Stream, communicator: Any, pairs: Sequence[tuple[Flat, Flat]]) -> None:
        """The library's own all-reduce over the processes' devices, of pairs (source, target)."""
        raise NotImplementedError

    @abstractmethod
    def record(self, stream: Stream) -> Event:
        """Record an event on a stream."""

    @abstractmethod
    def wait(self, stream: Stream, event: Event) -> None:
        """Make a stream's later work wait for an event; the host does not wait."""

    @abstractmethod
    def wait_on_host(self, event: Event) -> None:
        """Make the host wait for an event."""

    @abstractmethod
    def synchronize(self, stream: Stream) -> None:
        """Make the host wait until all of a stream's work is done."""

    @abstractmethod
    def namespace(self, stream: Stream) -> AbstractContextManager[Any]:
        """A context in which an array namespace, CuPy's or NumPy's, computes on a stream with raw arrays."""

    @abstractmethod
    def begin_capture(self, stream: Stream) -> bool:
        """Begin to capture the work of a stream, and of those that wait for it, instead of running it.

        Meanwhile the host must not allocate, upload or wait. False if graphs are not supported.
        """

    @abstractmethod
    def end_capture(self, stream: Stream) -> Any:
        """End the capture and return it as a graph."""

    @abstractmethod
    def replay(self, stream: Stream, graph: Any) -> None:
        """Run all of a graph's work."""

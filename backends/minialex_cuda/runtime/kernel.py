"""`kernel` makes a kernel of a plain function of one flat output index; `GridKernel`, of a function of a thread's place
in a grid of blocks. A kernel is written once.

The same body runs in three ways: compiled by Numba for a CUDA device, in Numba's CUDA simulator
(``NUMBA_ENABLE_CUDASIM=1``), and compiled by Numba for the processor, for laptops and tests. A flat kernel is a
grid-stride loop over its index, so the size of the grid is a detail of the launch: it is the easiest to read, and
operations called one by one use it. But an index into four dimensions must be divided to find the position, and each
thread must compute what its neighbours compute too. Compiled steps use kernels whose grid has a meaning: a block is
some positions in a row of an image, a thread is four channels at one of them, and neighbours share values through the
block's shared memory (docs/how-to/one-kernel.md counts what that saves).

Bodies take flat arrays and numbers, gather, and write each output once: without atomics, so results are bitwise
reproducible. A number literal takes the arrays' dtype (``kind = x.dtype.type; kind(0)``): in single precision nothing
may become double precision, which is slow on a device and which ``tests/cuda/test_compile.py`` looks for. That test
also checks the machine code: no kernel may spill registers to memory. Indices are 64 bits wide, since Numba widens all
integers; the compiler divides them in 32 bits if both numbers are small enough, and the test checks that it does. Grid
kernels get their numbers as int32, keep offsets within an image in 32 bits (`int32`), and never divide.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import config, float32, njit

if not hasattr(np, "row_stack"):  # removed in NumPy 2.5; numba-cuda 0.30 uses it for every compilation
    np.row_stack = np.vstack  # noqa: NPY201 - the very name

Body = Callable[..., None]

KERNELS: dict[str, Kernel] = {}
"""All kernels by name."""

BEFORE_DEVICE: list[Callable[[], None]] = []
"""Called once before anything is compiled for a device: numba-cuda is not imported earlier, since its import looks for
a driver."""

_LOOPS = """
def host(count, {names}):
    for i in range(count):
        body(i, {names})

def device(count, {names}):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        body(i, {names})
"""


_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Compiling wrappers that nothing calls took half of the time for a kernel with many functions."""


def function(body: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call: compiled with them, or plain Python in the simulator. Python never calls it."""
    if config.ENABLE_CUDASIM:
        return body
    compiled: Callable[..., Any] = njit(error_model="numpy", **_INNER)(body)
    return compiled


def _call(loop: Any, name: str) -> None:
    """Set the names from which Numba mangles a kernel's entry: profilers then show ``minialex_cuda::name``."""
    loop.__name__ = loop.__qualname__ = name
    loop.__module__ = "minialex_cuda"


class Kernel:
    """A body ``(i, arguments …)`` with the loops around it.

    Attributes:
        name: name of its function
        parameters: names of the arguments after the index, or after the place in a grid
        writes: positions, among the parameters, of the arrays that are written
    """

    def __init__(self, body: Body, writes: tuple[str, ...], places: int = 1) -> None:
        self.body = body
        self.name = body.__name__
        self.parameters = tuple(inspect.signature(body).parameters)[places:]
        self.writes = tuple(self.parameters.index(name) for name in writes)
        self.__doc__ = body.__doc__
        if self.name in KERNELS:
            raise ValueError(f"two kernels are called {self.name}")
        KERNELS[self.name] = self

    @cached_property
    def host(self) -> Callable[..., None]:
        """``host(count, arguments …)``: runs all indices in order, compiled for the processor."""
        loop: Callable[..., None] = njit(error_model="numpy")(self._loops["host"])
        return loop

    @cached_property
    def device(self) -> Any:
        """``device[blocks, threads, stream](count, arguments …)``, for a device or the simulator."""
        from numba import cuda

        return cuda.jit(self.device_function)

    @property
    def device_function(self) -> Callable[..., None]:
        """The function that `device` compiles."""
        while BEFORE_DEVICE:
            BEFORE_DEVICE.pop()()
        loop: Callable[..., None] = self._loops["device"]
        return loop

    @cached_property
    def _loops(self) -> dict[str, Any]:
        from numba import cuda

        space: dict[str, Any] = {"body": function(self.body), "cuda": cuda}
        # Numba supports no *arguments in a kernel, so the loops are generated with the body's own parameter names
        exec(_LOOPS.format(names=", ".join(self.parameters)), space)
        _call(space["device"], self.name)
        return space

    def __repr__(self) -> str:
        return f"Kernel({self.name})"


Three = tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """Blocks and threads per block, each (x, y, z), and the float32 numbers that a block's threads share."""

    blocks: Three
    threads: Three
    shared: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return 0 in self.blocks or 0 in self.threads


_GRID_LOOPS = """
def host(blocks_x, blocks_y, blocks_z, threads_x, threads_y, shared_size, {names}):
    shared = np.empty(shared_size, np.float32)
    for block_z in range(blocks_z):
        for block_y in range(blocks_y):
            for block_x in range(blocks_x):
                {host}

def device({names}):
    {device}
"""

_AT = "block_x, block_y, block_z, thread_x, thread_y"
_ON_DEVICE = "cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockIdx.z, cuda.threadIdx.x, cuda.threadIdx.y"
_EACH_THREAD = """for thread_y in range(threads_y):
                    for thread_x in range(threads_x):
                        """
_ONE = (f"{_EACH_THREAD}body({_AT}, {{names}})", f"body({_ON_DEVICE}, {{names}})")
_TWO = (
    # the host has no barrier: it runs the first body once for the shared memory, and again for what each thread keeps
    f"""{_EACH_THREAD}body({_AT}, shared, {{names}})
                {_EACH_THREAD}then({_AT}, shared, body({_AT}, shared, {{names}}), {{names}})""",
    f"""shared = cuda.shared.array(0, float32)
    kept = body({_ON_DEVICE}, shared, {{names}})
    cuda.syncthreads()
    then({_ON_DEVICE}, shared, kept, {{names}})""",
)
"""What a block does, on the host and on a device, with one body and with two."""


class GridKernel(Kernel):
    """A body ``(block x, block y, block z, thread x, thread y, arguments …)``, or two with a barrier between them.

    Two bodies take the block's shared memory (float32) after the indices. The second also takes what the first
    returned, numbers that its thread keeps: ``first(x, y, z, i, j, shared, arguments …)`` and, after the barrier,
    ``second(x, y, z, i, j, shared, kept, arguments …)``. The first may run twice, so it writes nothing that it reads.

    Args:
        name: its name in a profile
        writes: names of the parameters that it writes
        first, second: the bodies
    """

    def __init__(self, name: str, writes: tuple[str, ...], first: Body, second: Body | None = None) -> None:
        first.__name__ = name
        super().__init__(first, writes, 5 if second is None else 6)
        self.then = second

    @cached_property
    def host(self) -> Callable[..., None]:
        """``host(grid's numbers …, arguments …)``: runs block by block, compiled for the processor."""
        loop: Callable[..., None] = njit(error_model="numpy")(self._loops["host"])
        return loop

    @cached_property
    def _loops(self) -> dict[str, Any]:
        from numba import cuda

        space: dict[str, Any] = {"body": function(self.body), "cuda": cuda, "np": np, "float32": float32}
        if self.then is not None:
            space["then"] = function(self.then)
        names = ", ".join(self.parameters)
        host, device = (text.format(names=names) for text in (_ONE if self.then is None else _TWO))
        exec(_GRID_LOOPS.format(names=names, host=host, device=device), space)
        _call(space["device"], self.name)
        return space


def kernel(*writes: str) -> Callable[[Body], Kernel]:
    """Decorator that makes a kernel of a body; takes the names of the parameters that it writes."""
    return lambda body: Kernel(body, writes)

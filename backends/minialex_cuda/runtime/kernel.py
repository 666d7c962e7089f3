"""`kernel`: a kernel is written once, as a plain function of one flat output index; `GridKernel`: as one of a thread's
place in a grid of blocks.

The same body is run three ways: compiled by Numba for a CUDA device, run by Numba's CUDA simulator
(``NUMBA_ENABLE_CUDASIM=1``), and compiled by Numba for the processor, where a laptop and the tests run it. A flat
kernel is a grid-stride loop over its index, so that the size of the grid is a detail of the launch: it is the easiest
to read, and what walked operations use. But an index that means a place in four dimensions must be divided to find
it, and what two threads both need each must compute. Compiled steps use kernels whose grid has a meaning: a block is
some places of a row of an image, a thread four channels at one of them, and what neighbours need goes through the
block's shared memory (docs/how-to/one-kernel.md counts what that saves).

Bodies take flat arrays and numbers, gather, and write each output once: no atomics, so results are the same bits
every time. A number literal takes the arrays' dtype (``kind = x.dtype.type; kind(0)``): in single precision nothing
may become double precision, which is slow on a device and which ``tests/cuda/test_compile.py`` looks for. That test
looks at the machine code too: no kernel may put registers into memory. Indices are 64 bits wide, since Numba widens
whatever is given; the compiler divides them in 32 bits where both numbers are small enough, and the test sees that it
does. Kernels of a grid get their numbers as int32, keep what they compute within an image in 32 bits (`int32`), and
divide by nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import config, float32, njit

if not hasattr(np, "row_stack"):  # gone from NumPy 2.5; numba-cuda 0.30 asks for it whenever it compiles
    np.row_stack = np.vstack  # noqa: NPY201 - the very name

Body = Callable[..., None]

KERNELS: dict[str, Kernel] = {}
"""Every kernel by its name."""

BEFORE_DEVICE: list[Callable[[], None]] = []
"""What is done, once, before anything is compiled for a device: numba-cuda is not imported for less, since that looks
for a driver."""

_LOOPS = """
def host(count, {names}):
    for i in range(count):
        body(i, {names})

def device(count, {names}):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        body(i, {names})
"""


_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Making what nobody calls took half of the time of a kernel with many functions."""


def function(body: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call: compiled with them, or plain Python in the simulator. Python itself calls none."""
    if config.ENABLE_CUDASIM:
        return body
    compiled: Callable[..., Any] = njit(error_model="numpy", **_INNER)(body)
    return compiled


def _call(loop: Any, name: str) -> None:
    """What a profile calls a kernel, ``minialex_cuda::name``, comes of these: Numba mangles them into its entry."""
    loop.__name__ = loop.__qualname__ = name
    loop.__module__ = "minialex_cuda"


class Kernel:
    """A body ``(i, arguments …)`` with the loops around it.

    Attributes:
        name: of its function
        parameters: names of the arguments after the index, or what else tells a thread its place
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
        """``host(count, arguments …)``: all indices, one after another, compiled for the processor."""
        loop: Callable[..., None] = njit(error_model="numpy")(self._loops["host"])
        return loop

    @cached_property
    def device(self) -> Any:
        """``device[blocks, threads, stream](count, arguments …)``, for a device or the simulator."""
        from numba import cuda

        return cuda.jit(self.device_function)

    @property
    def device_function(self) -> Callable[..., None]:
        """What `device` compiles."""
        while BEFORE_DEVICE:
            BEFORE_DEVICE.pop()()
        loop: Callable[..., None] = self._loops["device"]
        return loop

    @cached_property
    def _loops(self) -> dict[str, Any]:
        from numba import cuda

        space: dict[str, Any] = {"body": function(self.body), "cuda": cuda}
        # Numba compiles no *arguments in a kernel's signature, so the loops are written out with the body's own names
        exec(_LOOPS.format(names=", ".join(self.parameters)), space)
        _call(space["device"], self.name)
        return space

    def __repr__(self) -> str:
        return f"Kernel({self.name})"


Three = tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """How many blocks of how many threads, each (x, y, z), and how many float32 numbers the threads of one share."""

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
    # the host has no barrier: it does the first body once for all that threads share, and again for what each keeps
    f"""{_EACH_THREAD}body({_AT}, shared, {{names}})
                {_EACH_THREAD}then({_AT}, shared, body({_AT}, shared, {{names}}), {{names}})""",
    f"""shared = cuda.shared.array(0, float32)
    kept = body({_ON_DEVICE}, shared, {{names}})
    cuda.syncthreads()
    then({_ON_DEVICE}, shared, kept, {{names}})""",
)
"""What a block does, on the host and on a device, of one body and of two."""


class GridKernel(Kernel):
    """A body ``(block x, block y, block z, thread x, thread y, arguments …)``, or two with a barrier between them.

    Two bodies have the block's shared memory (float32) after the places. What the first returns, numbers that its
    thread keeps, the second gets after that: ``first(x, y, z, i, j, shared, arguments …)``, then, when all threads of
    the block are there, ``second(x, y, z, i, j, shared, kept, arguments …)``. The first may be done twice: it writes
    nothing that it reads.

    Args:
        name: how it is called in a profile
        writes: names of the parameters that it writes
        first, second: the bodies
    """

    def __init__(self, name: str, writes: tuple[str, ...], first: Body, second: Body | None = None) -> None:
        first.__name__ = name
        super().__init__(first, writes, 5 if second is None else 6)
        self.then = second

    @cached_property
    def host(self) -> Callable[..., None]:
        """``host(grid's numbers …, arguments …)``: block by block, compiled for the processor."""
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
    """Decorator of a body: the names of the parameters that it writes."""
    return lambda body: Kernel(body, writes)

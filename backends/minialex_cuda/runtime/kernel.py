"""`kernel`: a kernel is written once, as a plain function of one flat output index.

The same body is run three ways: compiled by Numba for a CUDA device (a grid-stride loop over the index, so that the
size of the grid is a detail of the launch), run by Numba's CUDA simulator (``NUMBA_ENABLE_CUDASIM=1``), and compiled
by Numba for the processor, where a laptop and the tests run it.

Bodies take flat arrays and numbers, gather, and write each output once: no atomics, so results are the same bits
every time. A number literal takes the arrays' dtype (``kind = x.dtype.type; kind(0)``): in single precision nothing
may become double precision, which is slow on a device and which ``tests/cuda/test_compile.py`` looks for. That test
looks at the machine code too: no kernel may put registers into memory. Indices are 64 bits wide, since Numba widens
whatever is given; the compiler divides them in 32 bits where both numbers are small enough, which costs a comparison,
and the test sees that it does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numba import config, njit

if not hasattr(np, "row_stack"):  # gone from NumPy 2.5; numba-cuda 0.30 asks for it whenever it compiles
    np.row_stack = np.vstack  # noqa: NPY201 - the very name

Body = Callable[..., None]

KERNELS: dict[str, Kernel] = {}
"""Every kernel by its name."""

_LOOPS = """
def host(count, {names}):
    for i in range(count):
        body(i, {names})

def device(count, {names}):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        body(i, {names})
"""


def function(body: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call: compiled with them, or plain Python in the simulator."""
    if config.ENABLE_CUDASIM:
        return body
    compiled: Callable[..., Any] = njit(error_model="numpy")(body)
    return compiled


class Kernel:
    """A body ``(i, arguments …)`` with the loops around it.

    Attributes:
        name: of its function
        parameters: names of the arguments after the index
        writes: positions, among the parameters, of the arrays that are written
    """

    def __init__(self, body: Body, writes: tuple[str, ...]) -> None:
        self.body = body
        self.name = body.__name__
        self.parameters = tuple(inspect.signature(body).parameters)[1:]
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

        return cuda.jit(self._loops["device"])

    @property
    def device_function(self) -> Callable[..., None]:
        """What `device` compiles."""
        loop: Callable[..., None] = self._loops["device"]
        return loop

    @cached_property
    def _loops(self) -> dict[str, Any]:
        from numba import cuda

        space: dict[str, Any] = {"body": function(self.body), "cuda": cuda}
        # Numba compiles no *arguments in a kernel's signature, so the loops are written out with the body's own names
        exec(_LOOPS.format(names=", ".join(self.parameters)), space)
        space["device"].__name__ = self.name
        return space

    def __repr__(self) -> str:
        return f"Kernel({self.name})"


def kernel(*writes: str) -> Callable[[Body], Kernel]:
    """Decorator of a body: the names of the parameters that it writes."""
    return lambda body: Kernel(body, writes)

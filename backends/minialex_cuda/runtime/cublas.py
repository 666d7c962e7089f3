"""Matrix products by cuBLAS, called directly: CuPy refuses them while a graph is captured.

Every stream has its own handle and workspace, so that results are bitwise reproducible and a captured product allocates
no memory. Handles are never destroyed, since that makes the host wait for the device, which is forbidden while a graph
is captured; there are as many as a backend has streams.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from minialex.errors import ResourceError
from minialex_cuda.runtime.protocol import Product

WORKSPACE = 32 << 20
"""Bytes, as NVIDIA recommends for Hopper; older devices need less."""

OP_N, OP_T = 0, 1
KINDS = {np.dtype(np.float32): 0, np.dtype(np.float64): 1, np.dtype(np.uint16): 14}
"""cudaDataType_t; two-byte numbers are bfloat16."""

COMPUTE = {"float32": 68, "tf32": 77, "bfloat16": 75}
"""cublasComputeType_t: 32F, 32F_FAST_TF32, 32F_FAST_16BF. Operands are rounded as named, sums are in float32."""
COMPUTE_64F = 70  # bfloat16 operands use float32's: they are already rounded
DEFAULT_ALGORITHM = -1


def library() -> ctypes.CDLL:
    """The cuBLAS from CuPy's wheels, or the system's."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


class Multiplier:
    """cuBLAS for one stream. Must be created while the stream's device is current.

    Args:
        stream: address of the stream
        workspace: address of `WORKSPACE` bytes on its device
    """

    def __init__(self, stream: int, workspace: int) -> None:
        self._library = library()
        self._handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream))
        self._call("cublasSetWorkspace_v2", self._handle, ctypes.c_void_p(workspace), ctypes.c_size_t(WORKSPACE))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise ResourceError(f"cuBLAS failed: {name} gave status {status}; see cublasStatus_t in NVIDIA's manual")

    def multiply(
        self, a: int, b: int, out: int, dtype: np.dtype[Any], out_dtype: np.dtype[Any], product: Product
    ) -> None:
        """out = a · b at these addresses; both factors have the same dtype.

        cuBLAS is column-major. A row-major out [m,n] in memory is a column-major outᵀ, and outᵀ = bᵀ aᵀ: so b comes
        first, and no additional transposition is needed.
        """
        m, n, k = product.m, product.n, product.k
        double = dtype == np.float64
        kind = KINDS[dtype]
        compute = COMPUTE_64F if double else COMPUTE["float32" if dtype == np.uint16 else product.precision]
        number = ctypes.c_double if double else ctypes.c_float
        self._call(
            "cublasGemmEx",
            self._handle,
            ctypes.c_int(OP_T if product.transpose_b else OP_N),
            ctypes.c_int(OP_T if product.transpose_a else OP_N),
            ctypes.c_int(n),
            ctypes.c_int(m),
            ctypes.c_int(k),
            ctypes.byref(number(1.0)),
            ctypes.c_void_p(b),
            ctypes.c_int(kind),
            ctypes.c_int(k if product.transpose_b else n),
            ctypes.c_void_p(a),
            ctypes.c_int(kind),
            ctypes.c_int(m if product.transpose_a else k),
            ctypes.byref(number(1.0 if product.accumulate else 0.0)),
            ctypes.c_void_p(out),
            ctypes.c_int(KINDS[out_dtype]),
            ctypes.c_int(n),
            ctypes.c_int(compute),
            ctypes.c_int(DEFAULT_ALGORITHM),
        )

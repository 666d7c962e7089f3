"""A pretend cuBLAS over a pretend driver, for `minialex_cuda.runtime.cublas` (by ctypes) and for CuPy's own module.

The library has every function that CuPy expects; those that nobody here calls are refused.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pretend_driver import Driver, Refused, library, put, undefined

PRECISIONS = {68: "float32", 77: "tf32", 75: "bfloat16", 70: "float64"}
"""Of ``cublasComputeType_t``."""

WORKSPACE = 32 << 20


def install(driver: Driver, folder: Path) -> None:
    """Make and load the library, for the rest of this process.

    Parameters
    ----------
    driver : the pretend driver, which is installed already
    folder : for the library that is made
    """
    from minialex_cuda.runtime.fake import rounded  # not before there is a driver: Numba looks for it once

    handles: dict[int, dict[str, int]] = {}

    def create(out: int) -> None:
        driver.not_captured("cuBLAS is initialised")
        made = driver.handle()
        handles[made] = {"device": max(driver.current, 0)}
        put(out, made, "Q")

    def set_stream(handle: int, stream: int) -> None:
        if driver.stream(stream).device != handles[handle]["device"]:
            raise Refused(14, "cuBLAS of one device on a stream of another")
        handles[handle]["stream"] = stream

    def set_workspace(handle: int, address: int, size: int) -> None:
        driver.on(handles[handle]["device"], address, size, "cuBLAS's workspace")
        if "stream" not in handles[handle]:
            raise Refused(14, "a workspace before its stream: setting the stream takes it away")
        handles[handle]["workspace"] = size

    def multiply(
        handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a: int, a_kind: int, lda: int, b: int,
        b_kind: int, ldb: int, beta: int, c: int, c_kind: int, ldc: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        of_handle = handles[handle]
        queue = driver.stream(of_handle["stream"])
        if queue.device != max(driver.current, 0):
            raise Refused(14, "cuBLAS with another device current")
        if queue.graph is not None and of_handle.get("workspace", 0) < WORKSPACE:
            raise Refused(14, "a product without a workspace of its own: cuBLAS allocates one, in a capture too")
        narrow = a_kind == 14 and c_kind == 0  # bfloat16 factors may give float32
        if a_kind != b_kind or not (b_kind == c_kind or narrow) or (a_kind == 1) != (compute == 70):
            raise Refused(15, f"types {a_kind}, {b_kind}, {c_kind} in computation {compute}")
        dtypes = {0: np.float32, 1: np.float64, 14: np.uint16}  # the last is bfloat16
        rows_a, columns_a = (k, m) if op_a else (m, k)
        rows_b, columns_b = (n, k) if op_b else (k, n)
        if lda < rows_a or ldb < rows_b or ldc < m:
            raise Refused(7, f"leading dimensions {lda}, {ldb}, {ldc} of ({m}, {n}, {k})")
        number = (ctypes.c_double if a_kind == 1 else ctypes.c_float).from_address
        scales = number(alpha).value, number(beta).value

        def matrix(
            address: int, rows: int, columns: int, apart: int, kind: int
        ) -> Any:  # by columns, as cuBLAS sees it
            dtype = np.dtype(dtypes[kind])
            count = apart * (columns - 1) + rows
            driver.on(queue.device, address, count * dtype.itemsize, "a factor")
            flat = np.frombuffer((ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address), dtype)
            strides = dtype.itemsize, apart * dtype.itemsize
            return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

        first, second = matrix(a, rows_a, columns_a, lda, a_kind), matrix(b, rows_b, columns_b, ldb, b_kind)
        out = matrix(c, m, n, ldc, c_kind)
        precision = PRECISIONS[compute]

        def read(x: Any) -> Any:
            if x.dtype == np.uint16:
                return (x.astype(np.uint32) << 16).view(np.float32)
            return x if precision == "float64" else rounded(x, precision)  # type: ignore[arg-type]

        def work() -> None:
            with np.errstate(all="ignore"):
                left, right = read(first), read(second)
                made = (right if op_b else right.T).copy() @ (left if op_a else left.T).copy()  # the transpose of c
                made = (made * scales[0] + read(out.T) * scales[1]) if scales[1] else made
                if c_kind == 14:
                    made = (rounded(made, "bfloat16").view(np.uint32) >> 16).astype(np.uint16)
                np.copyto(out.T, made, casting="same_kind")

        driver.ask(queue, work)

    def version(handle: int, out: int) -> None:
        put(out, 130000)

    def nothing(handle: int, anything: int) -> None:
        """Modes are as they are."""

    known = {
        "cublasCreate_v2": (create, "p"), "cublasDestroy_v2": (lambda handle: handles.pop(handle) and None, "p"),
        "cublasSetStream_v2": (set_stream, "pp"), "cublasSetWorkspace_v2": (set_workspace, "ppz"),
        "cublasGemmEx": (multiply, "piiiiippiipiippiiii"), "cublasGetVersion_v2": (version, "pp"),
        "cublasSetMathMode": (nothing, "pi"), "cublasSetPointerMode_v2": (nothing, "pi"),
    }  # fmt: skip
    found = find_spec("cupy_backends.cuda.libs.cublas")
    assert found is not None
    assert found.origin is not None
    functions = {name: driver.missing(name) for name in undefined(found.origin, "cublas")}
    functions |= {name: driver.function(name, *parts) for name, parts in known.items()}
    other = {"cublasLtCreate": driver.missing("cublasLtCreate")}  # of a library that is looked for first
    library(driver, "libcublasLt.so.13", other, folder)
    library(driver, "libcublas.so.13", functions, folder)

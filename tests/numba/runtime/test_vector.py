"""Vectors: their tails and what is done lane by lane; and the same operations on a processor with short vectors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex_numba.runtime import vector
from minialex_numba.runtime.jit import kernel
from minialex_numba.runtime.tiles import lanes as lanes_of

Array = np.ndarray[Any, Any]
DTYPES = ["float32", "float64"]
GUARD = 40
"""Numbers on either side that must not be touched: more than a vector."""


@kernel
def _lanes(x):  # type: ignore[no-untyped-def]
    return vector.lanes(x)


@kernel
def _copy(x, i, n, y, j, m):  # type: ignore[no-untyped-def]
    vector.store(y, j, vector.load(x, i, n), m)


@kernel
def _counts(x, i, like, y, z, n):  # type: ignore[no-untyped-def]
    v = vector.load_counts(x, i, vector.load(like, 0, vector.WHOLE), n)
    vector.store(y, GUARD, v, vector.WHOLE)
    vector.store_counts(z, i, v, n)


@kernel
def _choose(a, b, yes, no, out):  # type: ignore[no-untyped-def]
    width = vector.lanes(a)
    for i in range(0, a.size, width):
        n = a.size - i
        first, second = vector.load(a, i, n), vector.load(b, i, n)
        then, otherwise = vector.load(yes, i, n), vector.load(no, i, n)
        vector.store(out[0], i, vector.where_more(first, second, then, otherwise), n)
        vector.store(out[1], i, vector.where_same(first, second, then, otherwise), n)
        vector.store(out[2], i, vector.where_wins(first, second, then, otherwise), n)
        vector.store(out[3], i, vector.where_finite(first, then, otherwise), n)
        vector.store(out[4], i, vector.root(first), n)
        vector.store(out[5], i, (first + second) * then / (otherwise - second), n)
        vector.store(out[6], i, vector.spread(a, 3), n)


@kernel
def _beside(before, here, after, out, first, last):  # type: ignore[no-untyped-def]
    a, b, c = (
        vector.load(before, 0, vector.WHOLE),
        vector.load(here, 0, vector.WHOLE),
        vector.load(after, 0, vector.WHOLE),
    )
    vector.store(out[0], 0, vector.near(a, b, c, -2), vector.WHOLE)
    vector.store(out[1], 0, vector.near(a, b, c, -1), vector.WHOLE)
    vector.store(out[2], 0, vector.near(a, b, c, 1), vector.WHOLE)
    vector.store(out[3], 0, vector.near(a, b, c, 2), vector.WHOLE)
    vector.store(out[4], 0, vector.load_lanes(here, 0, first, last, a), vector.WHOLE)
    vector.store_lanes(out[5], 0, first, last, b)
    vector.store(out[6], 0, vector.lane_numbers(here), vector.WHOLE)


@kernel
def _powers(x, power, inverse):  # type: ignore[no-untyped-def]
    for i in range(0, x.size, vector.lanes(x)):
        p, q = vector.powers(vector.load(x, i, x.size - i))
        vector.store(power, i, p, x.size - i)
        vector.store(inverse, i, q, x.size - i)


@kernel
def _total(x, n):  # type: ignore[no-untyped-def]
    return vector.total(vector.load(x, 0, n)), vector.count_finite(vector.load(x, 0, vector.WHOLE), n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails(dtype: str) -> None:
    width = _lanes(np.zeros(1, dtype))
    assert width == lanes_of(dtype)
    x = np.arange(1, 101).astype(dtype)
    for n in [*range(width + 2), width * 3, vector.WHOLE]:
        for m in (0, 1, width - 1, width, vector.WHOLE):
            y = np.full(2 * GUARD + width, -1, dtype)
            _copy(x, 3, n, y, GUARD, m)
            loaded = np.zeros(width, dtype)
            loaded[: min(n, width)] = x[3 : 3 + min(n, width)]
            expected = np.full_like(y, -1)
            expected[GUARD : GUARD + min(m, width)] = loaded[: min(m, width)]
            np.testing.assert_array_equal(y, expected)


def test_a_tail_at_the_end_of_memory_is_not_read_beyond() -> None:
    """A page that must not be touched follows the last number."""
    code = """
import ctypes, mmap
import numba
import numpy as np
from minialex_numba.runtime import vector
from minialex_numba.runtime.tiles import lanes

@numba.njit
def copy(x, i, n, y):
    vector.store(y, i, vector.load(x, i, n), n)

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE
for dtype in ("float32", "float64"):
    arrays = []
    for _ in range(2):
        room = mmap.mmap(-1, 2 * page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        assert libc.mprotect(ctypes.c_void_p(address + page), page, 0) == 0
        arrays.append(np.frombuffer(room, dtype, page // np.dtype(dtype).itemsize))
    x, y = arrays
    x[:] = np.arange(x.size)
    for n in range(1, lanes(dtype)):
        copy(x, x.size - n, n, y)
        assert y[x.size - n :].tolist() == x[x.size - n :].tolist()
print("done", flush=True)
import os
os._exit(0)
"""
    if sys.platform != "linux":
        pytest.skip("mprotect is asked for as on Linux")
    assert run_in_child(code).endswith("done\n")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32"])
def test_counts(dtype: str, kind: str) -> None:
    width = lanes_of(dtype)
    random = np.random.default_rng(0)
    x = random.integers(0, min(np.iinfo(kind).max, 1 << 24), 100, endpoint=True).astype(kind)
    x[5:8] = [0, min(np.iinfo(kind).max, 1 << 24), 1]  # what a float32 counts exactly
    for n in range(1, width + 2):
        count = min(n, width)
        y, z = np.full(2 * GUARD + width, -1, dtype), np.full(100, 7, kind)
        _counts(x, 5, np.zeros(width, dtype), y, z, n)
        expected = np.zeros(width)
        expected[:count] = x[5 : 5 + count]
        np.testing.assert_array_equal(y[GUARD : GUARD + width], expected)
        assert (y[:GUARD] == -1).all()
        assert (y[GUARD + width :] == -1).all()
        np.testing.assert_array_equal(z[5 : 5 + count], x[5 : 5 + count])
        assert (np.delete(z, range(5, 5 + count)) == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 37])
def test_lane_by_lane(dtype: str, size: int) -> None:
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, float(np.finfo(dtype).max), float(np.finfo(dtype).tiny)]
    random = np.random.default_rng(size)
    a, b = (random.choice(special, size).astype(dtype) for _ in range(2))
    yes, no = (random.standard_normal(size).astype(dtype) for _ in range(2))
    out = [np.full(size + GUARD, -7, dtype) for _ in range(7)]
    _choose(a, b, yes, no, tuple(out))
    with np.errstate(all="ignore"):
        expected = [
            np.where(a > b, yes, no),
            np.where(a == b, yes, no),
            np.where((a > b) | np.isnan(a), yes, no),
            np.where(np.isfinite(a), yes, no),
            np.sqrt(a),
            (a + b) * yes / (no - b),
            np.full(size, 3, dtype),
        ]
    for found, wanted in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found[:size], wanted)
        assert (found[size:] == -7).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_totals_and_counts_of_finite_numbers(dtype: str) -> None:
    width = lanes_of(dtype)
    x = np.random.default_rng(0).standard_normal(width).astype(dtype)
    for n in range(width + 2):
        in_order = np.zeros((), dtype)
        for value in x[: min(n, width)]:
            in_order += value
        total, finite = _total(x, n)
        assert total == in_order  # the very bits: added from the first to the last
        assert finite == min(n, width)
    for place, value in enumerate([np.inf, np.nan, -np.inf, np.inf][:width]):
        x[place] = value
        for n in range(width + 1):
            assert _total(x, n)[1] == np.isfinite(x[:n]).sum()


@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbouring_lanes_and_some_of_them(dtype: str) -> None:
    width = lanes_of(dtype)
    row = np.arange(3 * width).astype(dtype)
    parts = tuple(row.reshape(3, width).copy())
    out = tuple(np.full(width, -1, dtype) for _ in range(7))
    first, last = 1, width - 1
    _beside(*parts, out, first, last)
    for found, far in zip(out, (-2, -1, 1, 2), strict=False):
        np.testing.assert_array_equal(found, row[width + far : 2 * width + far])
    np.testing.assert_array_equal(out[4], [*parts[0][:first], *parts[1][first:last], *parts[0][last:]])
    np.testing.assert_array_equal(out[5], [*[-1] * first, *parts[1][first:last], *[-1] * (width - last)])
    np.testing.assert_array_equal(out[6], np.arange(width))


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_of_all_sizes(dtype: str) -> None:
    """Four units in the last place at most; of what is infinite 0, and of what is not a number nothing else."""
    x = np.exp(np.linspace(np.log(1e-30), np.log(1e38), 100_003)).astype(dtype)
    found = np.empty_like(x), np.empty_like(x)
    _powers(x, *found)
    for y, power in zip(found, (-0.75, -1.0), strict=True):
        exact = x.astype(np.float64) ** power
        normal = exact > np.finfo(dtype).tiny
        assert np.abs(y / exact - 1)[normal].max() <= 4 * np.finfo(dtype).eps
    odd = np.array([np.inf, np.nan], dtype)
    found = np.empty_like(odd), np.empty_like(odd)
    _powers(odd, *found)
    for y in found:
        assert y[0] == 0
        assert np.isnan(y[1])


# ---- other processors -----------------------------------------------------------------------------------------------

OPERATIONS = """
import sys
import numpy as np
from minialex_numba import NumbaBackend
from minialex_numba.runtime import vector
from minialex_numpy import NumpyBackend

print(vector.BYTES, vector.REGISTERS)
numba, numpy = NumbaBackend(threads=2), NumpyBackend()
random = np.random.default_rng(0)

def agree(what, dtype, *arrays, **options):
    results = []
    for backend in (numba, numpy):
        given = [backend.to_device(a.astype(dtype) if a.dtype.kind == "f" else a, "cpu:0") for a in arrays]
        made = getattr(backend, what)(*given, **options)
        made = [m for m in (made if isinstance(made, tuple) else (made,)) if m is not None]
        results.append([m.data for m in [*made, *(given[:2] if what == "sgd_update" else [])]])
    for found, wanted in zip(*results, strict=True):
        limit = {"float32": 2e-5, "float64": 1e-13}[dtype] * np.max(np.abs(wanted), initial=1)
        assert found.shape == wanted.shape and np.max(np.abs(found - wanted), initial=0) <= limit, (what, dtype)
    return results[0]

def normal(*shape):
    return random.standard_normal(shape)

for dtype in sys.argv[1:]:
    pad = ((0, 2), (1, 1))
    for channels, kernels, size, stride in ((3, 7, 5, 2), (9, 19, 3, 1)):
        x, w = normal(2, channels, 9, 11), normal(kernels, channels, size, size)
        (y,) = agree("conv2d", dtype, x, w, normal(kernels), stride=stride, padding=pad)
        agree("conv2d_backward", dtype, normal(*y.shape), x, w, stride=stride, padding=pad, need_dx=True)
    x = normal(2, 11, 7, 5)
    (y,) = agree("max_pool2d", dtype, x, size=3, stride=2, ceil=True)
    for ties in ("first", "all"):
        agree("max_pool2d_backward", dtype, normal(*y.shape), x, y, size=3, stride=2, ceil=True, ties=ties)
    y, scale = agree("local_response_norm", dtype, x, size=5, k=2.0, alpha=0.1, beta=0.75)
    agree("local_response_norm_backward", dtype, normal(*x.shape), x, y, scale, size=5, alpha=0.1, beta=0.75)
    for N in (1, 3, 9):
        x, w = normal(N, 37), normal(21, 37)
        agree("linear", dtype, x, w, normal(21))
        agree("linear_backward", dtype, normal(N, 21), x, w, need_dx=True)
    agree("relu", dtype, normal(3, 37))
    agree("tanh", dtype, normal(3, 37))
    logits = normal(3, 13)
    loss, probs = agree("softmax_cross_entropy", dtype, logits, np.array([0, 12, 5]))
    w, v, dw = normal(5, 37), normal(5, 37), normal(5, 37)
    agree("sgd_update", dtype, w, v, normal(5, 37), learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    dw[1, 2], dw[4, 36], v[3, 3] = np.inf, np.nan, -np.inf
    given = [numba.to_device(a.astype(dtype), "cpu:0") for a in (w, v, dw)]
    assert int(numba.sgd_update(*given, learning_rate=0.1, momentum=0.9, weight_decay=0.0).data) == 3
"""


def run_in_child(code: str, *arguments: str, **environment: str) -> str:
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=600, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


SHORT = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
"""A processor as one of x86-64 without AVX and FMA: vectors of 16 bytes, and masks that the compiler writes out."""


def test_a_processor_with_short_vectors() -> None:
    found = run_in_child(OPERATIONS, "float32", **SHORT)
    assert found.split()[0] == "16"


STEPS = """
import re
import llvmlite.binding as llvm
from numba import njit
from numba.core import event

ARM = "aarch64-unknown-linux-gnu"
njit(lambda: 0)()  # the compiler is this processor's
llvm.get_process_triple, here = (lambda: ARM), llvm.get_process_triple
from minialex_numba.runtime.vector import BYTES, REGISTERS
llvm.get_process_triple = here

from minialex.backend import registry
from minialex.conformance.steps import check_steps

with event.install_recorder("numba:compile") as compiled:
    check_steps(registry.load("numba", threads=1), ("float32",))

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
machine = llvm.Target.from_triple(ARM).create_target_machine(cpu="generic", opt=1)
kernels = {e.data["dispatcher"] for _, e in compiled.buffer}
kernels = [kernel for kernel in kernels if kernel.py_func.__name__.endswith("_kernel")]
instructions = ""
for kernel in kernels:
    for text in kernel.inspect_llvm().values():
        text = re.sub("target (triple|datalayout) = .*", "", text)
        # how this processor counts references, where the arguments are taken from Python
        text = re.sub("(tail )?call i8 @llvm.x86.atomic.*", "add i8 0, 0", text)
        module = llvm.parse_assembly(text)
        module.triple, module.data_layout = ARM, str(machine.target_data)
        instructions += machine.emit_assembly(module)
print(BYTES, REGISTERS, len(kernels), "fmla" in instructions)
"""


def test_the_kit_agrees_with_the_steps_of_a_processor_of_arm(tmp_path: Path) -> None:
    """Vectors of 16 bytes and 32 registers for them: compiled steps agree here, and their kernels compile for it."""
    found = run_in_child(STEPS, NUMBA_CACHE_DIR=str(tmp_path), **SHORT).split()
    assert found[:2] == ["16", "32"]
    assert int(found[2]) > 30
    assert found[3] == "True"

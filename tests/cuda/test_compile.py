"""Every kernel is compiled for every generation of devices, on a machine without one.

The compiler is numba-cuda's (``pip install 'numba-cuda[cu13]>=0.30,<0.31' 'numpy<2.5'``); where it is not installed
these tests are skipped, unless ``MINIALEX_REQUIRE_CUDA_COMPILER`` is set, as it is in CI.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numba import typeof, types

from minialex.conformance.case import Case
from minialex.conformance.checks import PROFILES, STRATEGIES, check_operation, perform
from minialex.conformance.steps import compile_on, data, program_of
from minialex.philox import Stream
from minialex_cuda import CudaBackend
from minialex_cuda.compiler import layout
from minialex_cuda.ops import channels_last, conv2d_last, full_last
from minialex_cuda.ops.norm_pool_words import max_pool2d_backward, norm_pool, norm_pool_backward
from minialex_cuda.ops.take_rows import take_rows
from minialex_cuda.ops.words import storage_for
from minialex_cuda.runtime.array import Flat
from minialex_cuda.runtime.fake import FakeRuntime, FakeStream
from minialex_cuda.runtime.kernel import KERNELS, Grid, GridKernel, Kernel

Signatures = dict[str, set[tuple[Any, ...]]]

if not os.environ.get("MINIALEX_REQUIRE_CUDA_COMPILER"):
    pytestmark = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")


class Recording(FakeRuntime):
    """Writes down with which types every kernel is launched, and does nothing; with or without a library."""

    def __init__(self, library: bool) -> None:
        super().__init__()
        self.library = library
        self.signatures: Signatures = defaultdict(set)

    def launch(
        self, stream: FakeStream, kernel: Kernel, count: int | Grid, arguments: Sequence[Any], touched: Any = None
    ) -> None:
        plain = [a.raw if isinstance(a, Flat) else a for a in arguments]
        first = () if isinstance(count, Grid) else (types.int64,)
        self.signatures[kernel.name].add((*first, *map(typeof, plain)))

    def convolution_bytes(self, device: str, convolution: Any) -> int | None:
        return 100 if self.library and not convolution.bias else None  # what adds a bias is compiled, too

    def convolve(self, stream: FakeStream, convolution: Any, a: Flat, b: Flat, out: Flat, *rest: Flat) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def launched() -> Signatures:
    """The types of every launch, from a few examples of every operation and from whole steps."""
    signatures: Signatures = defaultdict(set)
    runtime = Recording(False)
    backend = CudaBackend(runtime=runtime)
    for name in STRATEGIES:
        few = settings(PROFILES["ci"], max_examples=3)
        check_operation(backend, name, few, check_case=asked)
    recorded = program_of("train", "float32", ("cuda:0", "cuda:1"), backend.devices, more=False)
    unfused = program_of("train", "float32", ("cuda:0", "cuda:1"), backend.devices, more=True)
    runtimes = [runtime]
    for library, precision, last in itertools.product((False, True), ("float32", "bfloat16"), (False, True)):
        runtimes.append(Recording(library))
        there = CudaBackend(runtime=runtimes[-1], precision=precision)
        with pytest.MonkeyPatch.context() as patch:
            if not last:  # as a network is compiled whose channels do not come in fours
                patch.setattr(layout, "fits", lambda dtype, *maps: False)
            for program in (recorded, unfused):
                compile_on(there, program, data("float32"))
        as_in_the_paper(there)
    for one in runtimes:
        for name, found in one.signatures.items():
            signatures[name] |= found
    return signatures


def asked(backend: Any, case: Case) -> None:
    """A call, whatever comes of it: nothing is done."""
    perform(backend, case, backend.devices[0])


def as_in_the_paper(backend: CudaBackend) -> None:
    """Normalisation and pooling with the paper's windows, where the kit's network has others; and what few need."""
    on = backend.place("cuda:0")
    x = on.empty((1, 5, 5, 8), storage_for(backend.precision).dtype)
    numbers = {"window": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75, "size": 3, "stride": 2}
    y, where = norm_pool(on, x, ceil=False, **numbers)
    norm_pool_backward(on, y, x, where, rectify=True, **numbers)
    y, where = norm_pool(on, x, size=3, stride=2, ceil=False)
    max_pool2d_backward(on, y, x, where, rectify=True)
    channels_last.to_last(on, channels_last.to_first(on, x))
    channels_last.to_last(on, channels_last.to_first(on, x, rows=True), (1, 8, 5, 5))
    full_layers(on)
    first = on.empty((1, 3, 6, 6), np.float32)
    conv2d_last.space_to_depth(on, first, stride=2, padding=((0, 0), (0, 0)), kernel=(3, 3))
    channels_last.relu_backward(on, channels_last.relu(on, x), x)
    for size in (3, 4):  # rows that are no multiple of four bytes, and such that are
        take_rows(on, on.empty((9, 3, size, size), np.uint8), on.empty((2,), np.int64))


def full_layers(on: Any) -> None:
    """Rows of eight features, which the kit's network has not."""
    x, w = on.empty((2, 1, 1, 8), storage_for(on.precision).dtype), on.empty((8, 8), np.float32)
    w = w if x.dtype == w.dtype else channels_last.converted(on, w, dtype=x.dtype)
    y, mask = full_last.dropout(
        on, full_last.linear(on, x, w, on.empty((8,), np.float32), rectify=True), on.empty((1,), np.uint64),
        rate=0.5, factor=1.0, stream=Stream(0, 0),
    )  # fmt: skip
    full_last.linear_backward(on, full_last.dropout_backward(on, y, mask, factor=1.0), x, w, need_dx=True)


def capabilities() -> list[tuple[int, int]]:
    """Turing, and the newest that the installed toolchain knows; Hopper is `test_instructions`'s."""
    from numba.cuda.cudadrv import nvrtc

    return [(7, 5), max(nvrtc.get_supported_ccs())]


AMPERE = (8, 0)
"""Assembled from Turing's PTX, as a driver may do it: a quarter of the work of compiling once more."""


def compiled(kernel: Kernel, signature: tuple[Any, ...], capability: tuple[int, int]) -> str:
    """A kernel as PTX. Numba asks the current device for its capability, and there is none here."""
    from numba import cuda
    from numba.cuda import dispatcher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=capability))
        ptx, _ = cuda.compile(kernel.device_function, signature, cc=capability, abi="numba", device=False, output="ptx")
    return str(ptx)


@dataclass(frozen=True)
class Machine:
    """A kernel as machine code: what every thread of it holds."""

    code: bytes
    registers: int
    spilled: int
    stack: int


def linked(ptx: str, capability: tuple[int, int]) -> Machine:
    """PTX as machine code, with what the assembler says of it: bytes of registers that did not fit, of local arrays."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}", ptxas_options=["-v"], verbose=True)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    code = bytes(linker.link("cubin").code)
    told = linker.get_info_log()
    patterns = (r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes stack frame")
    found = [re.search(pattern, told) for pattern in patterns]
    assert all(found), told
    return Machine(code, *(int(number[1]) for number in found if number))


REGISTERS = 128
"""Of a thread at most, in single precision: two blocks of 256 threads then fit on every multiprocessor."""


def test_every_kernel_is_launched_and_compiles(launched: Signatures) -> None:
    assert set(launched) == set(KERNELS)
    newest = capabilities()[-1]
    assert newest > (9, 0)  # kernels in double precision are compiled for this one alone
    for name, signatures in launched.items():
        for signature in sorted(signatures, key=str):
            double_asked = any("float64" in str(kind) for kind in signature)
            once = double_asked or isinstance(KERNELS[name], GridKernel)
            for capability in [newest] if once else capabilities():
                ptx = compiled(KERNELS[name], signature, capability)
                assert f".target sm_{capability[0]}{capability[1]}" in ptx, (name, capability)
                assert f".entry _ZN13minialex_cuda{len(name)}{name}B" in ptx, "profiles call it something else"
                assert not re.search(r"\.extern \.func", ptx), f"{name} calls something that nobody links"
                if not double_asked:
                    double = [line.strip() for line in ptx.splitlines() if ".f64" in line]
                    assert not double, f"{name} {signature} computes in double precision: {double[:3]}"
                for where in (capability, AMPERE) if capability < AMPERE else (capability,):
                    made = linked(ptx, where)
                    assert len(made.code) > 500
                    assert (made.spilled, made.stack) == (0, 0), f"{name} {signature}: registers go to memory: {made}"
                    assert double_asked or made.registers <= REGISTERS, (name, where, made.registers)
                wide, short = (len(re.findall(rf"(?:div|rem)\.[su]{bits}", ptx)) for bits in (64, 32))
                assert short >= wide, f"{name}: an index is divided in 64 bits without a shorter way for small numbers"


def test_registers_that_do_not_fit_would_be_seen() -> None:
    """A kernel that keeps a hundred numbers in a local array, at places that the compiler cannot know."""
    from numba import cuda, float32

    def keeping(i, x, y):  # type: ignore[no-untyped-def]
        kept = cuda.local.array(100, float32)
        for j in range(100):
            kept[j] = x[i + j]
        y[i] = kept[int(x[i])]

    kernel = Kernel(keeping, ("y",))
    try:
        array = typeof(np.zeros(1, np.float32))
        assert linked(compiled(kernel, (types.int64, array, array), (9, 0)), (9, 0)).stack >= 400
    finally:
        del KERNELS["keeping"]


def test_double_precision_would_be_seen() -> None:
    """The trap: a literal without a dtype."""

    def creeping(i, x, y):  # type: ignore[no-untyped-def]
        y[i] = x[i] * 0.1

    kernel = Kernel(creeping, ("y",))
    try:
        array = typeof(np.zeros(1, np.float32))
        assert ".f64" in compiled(kernel, (types.int64, array, array), (9, 0))
    finally:
        del KERNELS["creeping"]

"""What NCCL is asked for: CuPy's own module over a pretend library, on pretend devices (`tests.cuda.test_pretend`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PRETEND = ROOT / "tests" / "cuda" / "pretend"

if not os.environ.get("MINIALEX_REQUIRE_CUDA_COMPILER"):
    lacks = [name for name in ("cupy", "numba_cuda") if find_spec(name) is None]
    lacks += [name for name in ("gcc", "nm") if shutil.which(name) is None]
    pytestmark = pytest.mark.skipif(bool(lacks), reason=f"needs {', '.join(lacks)}")

BEGIN = """
import pretend_devices as pretend
import numpy as np
from types import SimpleNamespace
from pretend_nccl import in_order
from minialex.backend.program import Call, Program, Value, ArrayName
from minialex.errors import ResourceError
from minialex.ranks.group import bound
from minialex_cuda import CudaBackend
from minialex_cuda.compiler.compiled import Step
driver, nccl = pretend.DRIVER, pretend.NCCL
SHAPES = ((), (3,), (5, 7), (4, 3, 2, 2), (1001,))

class Group:
    def __init__(self, rank, size):
        self.rank, self.size, self.told = rank, size, []
    def exchange(self, item):  # the others say the same; of ids the first one's counts
        self.told.append(item)
        return [item if item is not None else list(range(128))] * self.size

def recorded(group, how, device, dtype):
    # two buckets, of what is computed just before: as of two columns
    kind, calls, fed, outputs, number = np.dtype(dtype), [], {}, {}, 0
    def value(shape):
        nonlocal number
        number += 1
        return Value(number, shape, kind, device)
    for bucket in range(2):
        doubled, sums = [], []
        for index, shape in enumerate(SHAPES):
            name = ArrayName(role=f"x{bucket}{index}", device=device)
            fed[name] = value(shape)
            doubled.append(value(shape))
            calls.append(Call("scale", (fed[name], 2.0), {}, (doubled[-1],), "fc8", bucket, "backward"))
            sums.append(value(shape))
        given = {"group": group, "how": how}
        calls.append(Call("sum_over_ranks", (doubled,), given, tuple(sums), "fc8", bucket, "reduce"))
        for index, total in enumerate(sums):
            done = value(total.shape)
            calls.append(Call("scale", (total, 1.0), {}, (done,), "fc8", bucket, "update"))
            outputs[ArrayName(role=f"y{bucket}{index}")] = done
    return Program({}, fed, (), tuple(calls), outputs)

def drawn(seed, dtype):
    random = np.random.default_rng(seed)
    return [np.asarray(random.standard_normal(s), dtype) for s in SHAPES]
"""


def run(text: str, seed: int = 0) -> None:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", PRETEND)))
    environment = {**os.environ, "PYTHONPATH": path, "PRETEND_SEED": str(seed), "PRETEND_NCCL": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + text], cwd=ROOT, env={**environment, "MINIALEX_CUDA_PLANS": "off"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_sums_of_every_dtype_and_number_of_ranks() -> None:
    """In the fixed order the bits; NCCL's own within the bound. Walked at first, then as a graph, in random orders."""
    run("""
for rank, size, dtype, how in [(0, 1, "float32", "fixed"), (0, 1, "float32", "engine"), (1, 2, "float64", "fixed"),
                               (2, 3, "float32", "fixed"), (0, 4, "float32", "fixed"), (3, 4, "float32", "engine"),
                               (5, 8, "float64", "engine")]:
    backend, group, device = CudaBackend(), Group(rank, size), "cuda:1"
    program = recorded(group, how, device, dtype)
    step = backend.compile_step(program, {})
    assert isinstance(step, Step)
    assert {s[2] for s in step.schedule.streams} == {"compute", "reduce"}
    assert sum(s[2] == "reduce" for s in step.schedule.streams) == 1  # one order for all columns of a device
    (comm,) = nccl.comms.values()
    assert (comm.device, comm.size, comm.rank) == (1, size, rank)
    asked = set()
    for call in range(3):  # plain, captured and replayed, replayed
        every = {r: drawn(100 * call + r, dtype) for r in range(size)}
        nccl.theirs = {r: [2 * x.reshape(-1) for x in every[r]] for r in range(size) if r != rank}
        feed = {name: backend.to_device(every[rank][int(name.role[2])], device) for name in program.fed}
        nccl.streams.clear()
        found = step(feed)
        asked |= nccl.streams
        for name, array in found.items():
            parts = [2 * every[r][int(name.role[2])] for r in range(size)]
            wanted = in_order(parts)
            limit = bound(size, np.abs(parts).sum(axis=0)) if how == "engine" else 0 * wanted
            got = backend.to_numpy(array)
            assert (np.abs(got - wanted) <= limit).all(), (rank, size, how, call, name)
    assert step._graph is not None
    alone = (size, how) == (1, "fixed")  # nobody is asked
    assert asked == (set() if alone else {step._streams["cuda:1", 0, "reduce"].stream.ptr})
    assert not driver.broken, driver.broken
    backend._nccl.close()
    assert not nccl.comms, "not freed"
assert not driver.unknown, driver.unknown
""")


def test_a_sum_that_is_read_too_early_is_seen() -> None:
    """Without its events the reduce stream goes its own way: then some order gives other numbers."""
    run("""
from minialex_cuda.runtime.device import DeviceRuntime
wrong = 0
for waits in (True, False):
    if not waits:
        DeviceRuntime.wait = lambda *rest: None
    backend, group = CudaBackend(), Group(0, 2)
    program = recorded(group, "engine", "cuda:0", "float32")
    step = Step(backend._places, backend._workspace, backend._nccl.joined(program), {}, graphs=False)
    for call in range(8):
        mine, nccl.theirs = drawn(call, "float32"), {1: [x.reshape(-1) for x in drawn(99, "float32")]}
        feed = {name: backend.to_device(mine[int(name.role[2])], "cuda:0") for name in program.fed}
        for name, array in step(feed).items():
            n = int(name.role[2])
            good = np.array_equal(backend.to_numpy(array), 2 * mine[n] + drawn(99, "float32")[n])
            assert good or not waits
            wrong += not good
assert wrong
""")


def test_errors_are_one_line_with_the_reason_and_code_six() -> None:
    run("""
def refused(what, code, words):
    nccl.fails = {what: code} if what else {}
    try:
        work()
    except ResourceError as error:
        assert error.exit_code == 6
        assert str(error).startswith("NCCL failed: ") and words in str(error) and "\\n" not in str(error), str(error)
    else:
        raise AssertionError("not refused: " + words)
    nccl.fails = {}

program = recorded(Group(0, 2), "engine", "cuda:0", "float32")
nccl.theirs = {1: [x.reshape(-1) for x in drawn(1, "float32")]}

def work():
    CudaBackend().compile_step(program, {})
refused("ncclCommInitRankConfig", 5, "invalid usage")

backend = CudaBackend()
step = backend.compile_step(program, {})
feed = {name: backend.to_device(drawn(0, "float32")[int(name.role[2])], "cuda:0") for name in program.fed}
def work():
    for array in step(feed).values():
        backend.to_numpy(array)
work()
for what, code, words in (("ncclAllReduce", 4, "invalid argument"), ("ncclGroupEnd", 2, "unhandled system error")):
    backend = CudaBackend()
    step = backend.compile_step(program, {})
    refused(what, code, words)
backend = CudaBackend()
step = backend.compile_step(program, {})
nccl.broke = 6  # meanwhile
refused("", 0, "remote process exited")
""")


def test_a_lost_rank_is_asked_for() -> None:
    """A step that never ends is not waited for by the driver: the watch is asked, which names who is lost."""
    run("""
from minialex_cuda.compiler import joining
joining.SHORT = 0.01
waited = []
class Watch:
    def wait(self, request):
        waited.append(request.Test())
group = Group(0, 2)
group.watch = Watch()
backend = CudaBackend()
backend.compile_step(recorded(group, "engine", "cuda:0", "float32"), {})
backend._nccl.wait(SimpleNamespace(done=False))
assert waited == [False]
backend._nccl.wait(SimpleNamespace(done=True))
assert waited == [False]
""")

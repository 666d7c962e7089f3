"""The real CuPy and the real Numba CUDA on a pretend driver (`pretend`): what a device is to be proved with runs here.

``tests/gpu`` and ``benchmarks/gpu.py`` cannot be debugged for long on a borrowed GPU. Under the pretend driver all of
their code runs, and with it every call that `minialex_cuda.runtime.device` makes: in random legal orders, with CUDA's
rules for captures, devices and memory held. Needs CuPy and numba-cuda (see `test_compile`), gcc and nm.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRETEND = Path(__file__).parent / "pretend"

if not os.environ.get("MINIALEX_REQUIRE_CUDA_COMPILER"):
    lacks = [name for name in ("cupy", "numba_cuda") if find_spec(name) is None]
    lacks += [name for name in ("gcc", "nm") if shutil.which(name) is None]
    lacks += [] if (sys.platform, platform.machine()) == ("linux", "x86_64") else ["Linux on x86-64"]
    pytestmark = pytest.mark.skipif(bool(lacks), reason=f"needs {', '.join(lacks)}")


def python(*arguments: str, seed: int = 0, timeout: int = 900, **more: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, as on a bare machine: a source tree and nothing installed of minialex."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", PRETEND)))
    environment = {**os.environ, "PYTHONPATH": path, "PRETEND_SEED": str(seed), "MINIALEX_CUDA_PLANS": "off"}
    environment |= {"PRETEND_NCCL": "1", **more}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=timeout,
    )  # fmt: skip


def devices_tests(*arguments: str, seed: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    """``pytest -m gpu tests/gpu`` on pretend devices."""
    options = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pretend_plugin", "-m", "gpu", "tests/gpu")
    return python(*options, *arguments, seed=seed, **more)


def test_the_tests_of_devices_pass() -> None:
    """Those of two formats; of the kit, what is done by a product, by a kernel with many arguments, and in place."""
    some = "not kit and not tf32 or float32-conv2d_backward or bfloat16-linear or tf32-augment or float32-sgd_update"
    done = devices_tests("-k", some)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"\d+ skipped", done.stdout)
    assert "18 passed" in done.stdout
    assert "bias_bfloat16_bfloat16" not in done.stdout


def test_with_cudnn_too(tmp_path: Path) -> None:
    """Captured steps of both formats whose convolutions are cuDNN's (a pretend one), in another order of streams.

    In float32 a kernel adds the bias, in bfloat16 cuDNN does.
    """
    some = "graph and float32 or two_devices and bfloat16"
    done = devices_tests("-k", some, seed=1, PRETEND_CUDNN="1", MINIALEX_CUDA_PLANS=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    chosen = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()]
    assert {choice["asked"]["precision"] for choice in chosen} == {"float32", "bfloat16"}
    assert {choice["asked"]["precision"] for choice in chosen if choice["asked"]["bias"]} == {"bfloat16"}
    assert all(set(choice["microseconds"]) == {"eng0", "eng2"} >= {choice["plan"]} for choice in chosen)


def test_a_plan_that_loses_what_is_no_number_is_not_taken(tmp_path: Path) -> None:
    """Found out while plans are timed; those that keep it have the scratch memory of the plan that runs."""
    code = (
        RULES.format(path=[str(ROOT), str(ROOT / "backends"), str(PRETEND)])
        + """
import logging, pretend_cudnn
from minialex_cuda.runtime.protocol import Convolution
told = []
logging.getLogger("minialex").addHandler(type("", (logging.Handler,), {"emit": lambda self, r: told.append(r)})())
asked = [
    Convolution("fprop", N, 8, 5, 5, 8, 3, 3, 5, 5, 1, ((1, 1), (1, 1)), precision, True, True, True)
    for N in (1, 2) for precision in ("bfloat16", "tf32")
]
assert [runtime.convolution_bytes("cuda:1", it) for it in asked[:2]] == [pretend_cudnn.WORKSPACE] * 2
assert not told
pretend_cudnn.RECTIFIED = np.fmax
assert [runtime.convolution_bytes("cuda:1", it) for it in asked] == [pretend_cudnn.WORKSPACE] * 2 + [None] * 2
assert [runtime.convolution_bytes("cuda:0", it) for it in asked] == [pretend_cudnn.WORKSPACE] * 2 + [None] * 2
assert len(told) == 4 and all("loses NaN values" in record.getMessage() for record in told)
assert not driver.broken, driver.broken
"""
    )
    done = python("-c", code, PRETEND_CUDNN="1", MINIALEX_CUDA_PLANS=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(tmp_path.iterdir())) == 4


RULES = """
import sys
sys.path[:0] = {path!r}
import pretend_devices as pretend
import numpy as np, cupy
from minialex_cuda.runtime.device import DeviceRuntime, address
from minialex_cuda.ops.conv2d import fill_kernel
runtime, driver, said = DeviceRuntime(), pretend.DRIVER, []

def array(device, stream):
    return runtime.flat(runtime.allocate(4 * 100, device, stream), 0, 100, np.float32)

def fill(stream, target, value):
    runtime.launch(stream, fill_kernel, 100, [target, np.float32(value)])

def refused(what, expected):
    driver.broken.clear()
    try:
        what()
    except Exception as error:
        assert expected in str(error), repr(error)
    else:
        raise AssertionError("not refused: " + expected)
    assert driver.broken, expected
    driver.broken.clear()

one, two = runtime.stream("cuda:0"), runtime.stream("cuda:0")
other = runtime.stream("cuda:1")
a, b = array("cuda:0", one), array("cuda:1", other)
"""


def rules(text: str) -> None:
    """Some lines with what `RULES` defines; they must end well."""
    code = RULES.format(path=[str(ROOT), str(ROOT / "backends"), str(PRETEND)]) + text
    done = python("-c", code)
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_no_event_orders_comes_in_another_order() -> None:
    rules("""
found = set()
for _ in range(40):
    fill(one, a, 1)
    fill(two, a, 2)
    runtime.synchronize(one)
    runtime.synchronize(two)
    found.add(float(runtime.download(one, a)[0]))
assert found == {1, 2}, found
for _ in range(40):
    fill(one, a, 1)
    runtime.wait(two, runtime.record(one))
    fill(two, a, 2)
    runtime.synchronize(two)
    runtime.synchronize(one)
    assert runtime.download(one, a)[0] == 2
assert not driver.broken
""")


def test_cudas_rules_are_held() -> None:
    rules("""
refused(lambda: runtime.launch(other, fill_kernel, 100, [a, np.float32(1)]), "InvalidValue")
copy = cupy.cuda.runtime.memcpyAsync
refused(lambda: copy(address(a), address(b), 400, 3, one.stream.ptr), "InvalidValue")
refused(lambda: copy(address(a), address(a) + 300, 400, 3, one.stream.ptr), "InvalidValue")
with cupy.cuda.Device(1):
    event = cupy.cuda.Event()
refused(lambda: one.stream.record(event), "InvalidResourceHandle")
before = runtime.record(two)
runtime.begin_capture(one)
refused(lambda: runtime.synchronize(one), "StreamCaptureUnsupported")
refused(lambda: copy(address(a), np.zeros(100, np.float32).ctypes.data, 400, 1, one.stream.ptr), "CaptureUnsupported")
refused(lambda: runtime.wait(one, before), "StreamCaptureIsolation")
inside = runtime.record(one)
runtime.wait(two, inside)
fill(two, a, 3)
refused(lambda: runtime.end_capture(one), "StreamCaptureUnjoined")
""")


def test_devices_reach_each_other_if_they_can() -> None:
    """Switched on once, by whoever; where it is not to be had, that is said, and copies go on."""
    rules("""
import logging
told = []
logging.getLogger("minialex").addHandler(type("", (logging.Handler,), {"emit": lambda self, r: told.append(r)})())

def copied():
    made = DeviceRuntime()
    source, target = made.stream("cuda:0"), made.stream("cuda:1")
    x = made.flat(made.allocate(400, "cuda:0", source), 0, 100, np.float32)
    y = made.flat(made.allocate(400, "cuda:1", target), 0, 100, np.float32)
    made.upload(source, np.arange(100, dtype=np.float32), x)
    made.wait(target, made.record(source))
    made.copy(target, x, y)
    assert np.array_equal(made.download(target, y), np.arange(100))

for _ in range(2):
    copied()
assert driver.peers == {(0, 1), (1, 0)}
assert driver.calls["cudaDeviceEnablePeerAccess"] == 4  # of each runtime both ways, of copies none
assert not told
driver.reachable = False
copied()
assert len(told) == 2
assert "through the host's memory" in told[0].getMessage()
assert not driver.broken
""")


@pytest.mark.parametrize("fault", ["", "no_waits", "pinned_memory_too_early", "blocks_too_early"])
def test_a_batch_that_is_used_too_early_is_seen(fault: str) -> None:
    """Batches on their way while others are computed with: right as it is, and wrong with each of three faults."""
    rules(f"""
from minialex_cuda.runtime import arrivals
from minialex_cuda.runtime import device
from minialex_cuda import CudaBackend
fault = {fault!r}
if fault == "no_waits":
    DeviceRuntime.wait = lambda *rest: None
if fault == "pinned_memory_too_early":
    original = device.Staging.block
    def block(self, nbytes):
        found = original(self, nbytes)
        if found is not None and self.blocks[nbytes]:
            found = self.blocks[nbytes].pop()
        return found
    device.Staging.block = block
if fault == "blocks_too_early":
    original = arrivals.Arrivals._settle
    def settle(self):
        original(self)
        early = type(runtime).record(runtime, runtime.stream("cuda:0"))
        self.idle = arrivals.defaultdict(list, {{n: [(b, early) for b, _ in old] for n, old in self.idle.items()}})
    arrivals.Arrivals._settle = settle
backend = CudaBackend(runtime=runtime)
wrong = 0
for attempt in range(6):
    made = [backend.scale(backend.to_device(np.full(200, k, np.float32), "cuda:0"), 1.0) for k in range(12)]
    wrong += sum(not (backend.to_numpy(x) == k).all() for k, x in enumerate(made))
assert (wrong > 0) == bool(fault), wrong
assert not driver.broken, driver.broken
""")


@pytest.mark.parametrize("held", [True, False])
def test_memory_that_is_sent_from_is_held_until_it_is_sent(held: bool) -> None:
    """Batches lie in page-locked memory that is used again: never before its copy is done, and without one more."""
    rules(f"""
from collections import deque
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.device import Staging
Staging.block = lambda self, nbytes: None if nbytes < 1000 else [][0]  # nothing large is copied on the host
backend = CudaBackend(runtime=runtime)
coming, addresses, wrong = backend._arrivals["cuda:0"].stream, set(), 0
for attempt in range(6):
    made = []
    for k in range(12):
        batch = backend.host_bytes((40, 50))
        batch[...] = k
        addresses.add(batch.ctypes.data)
        made.append(backend.reshape(backend.to_device(batch[:20], "cuda:0"), (1000,)))
        if not {held}:
            coming.held = deque()
            backend.place("cuda:0").stream.held = deque()
        del batch
    wrong += sum(not (backend.to_numpy(x) == k).all() for k, x in enumerate(made))
assert (wrong == 0) == {held}, wrong
assert len(addresses) < 72, addresses  # of the pool, again and again
assert not driver.broken, driver.broken
""")


@pytest.mark.parametrize("held", [True, False])
def test_memory_that_results_come_into_is_held_until_they_have_come(held: bool) -> None:
    """Even if nobody takes them: else they would come into what is used for something else by then."""
    rules(f"""
from collections import deque
from minialex_cuda import CudaBackend
backend = CudaBackend(runtime=runtime)
on = backend.place("cuda:0")
wrong = 0
for k in range(60):
    x = backend.scale(backend.to_device(np.full(1000, k, np.float32), "cuda:0"), 1.0)
    waits = [number for name, number in driver.calls.items() if name.endswith("Synchronize")]
    later = backend.to_numpy_later([x, x])
    assert [number for name, number in driver.calls.items() if name.endswith("Synchronize")] == waits  # nobody waits
    if k % 3:
        backend.sgd_update(x, x, x, learning_rate=1.0, momentum=0.0, weight_decay=0.0)  # comes after the copy
        assert all((array == k).all() for array in later())
    del later
    if not {held}:
        on.stream.held = deque()
    mine = backend.host_bytes((4000,))
    mine[...] = 255
    backend.synchronize("cuda:0")
    wrong += bool((mine != 255).any())
    del mine
assert (wrong == 0) == {held}, wrong
assert not driver.broken, driver.broken
""")


def test_without_memory_that_can_be_locked_everything_is_copied_once_more() -> None:
    """Batches, numbers of a size that comes again, and results."""
    rules("""
import cupy
from cupy.cuda import runtime as cuda_runtime
from minialex_cuda import CudaBackend
def refused(nbytes):
    raise cuda_runtime.CUDARuntimeError(2)
cupy.cuda.alloc_pinned_memory = refused
backend = CudaBackend(runtime=runtime)
for k in range(6):
    batch = backend.host_bytes((40, 50))
    batch[...] = k
    x = backend.to_device(batch, "cuda:0")
    batch[...] = 255
    for found in (backend.to_numpy(x), *backend.to_numpy_later([x])()):
        assert (found == k).all()
assert not driver.broken, driver.broken
""")


def test_images_that_are_to_stay_do_not_pile_up_on_their_way() -> None:
    """However slowly they are sent: their page-locked memory is used again."""
    rules("""
from minialex_cuda import CudaBackend
backend, addresses, most = CudaBackend(runtime=runtime), set(), 0
def blocks():
    global most
    for k in range(60):
        block = backend.host_bytes((2, 3, 8, 8))
        block[...] = k
        addresses.add(block.ctypes.data)
        yield block
        most = max(most, *(len(backend.place(device).stream.held) for device in backend.devices))
take = backend.keep_rows(blocks(), (120, 3, 8, 8), backend.devices)
for device in backend.devices:
    found = backend.to_numpy(take(np.arange(120)[::-1].copy(), device))
    assert (found == np.arange(120, dtype=np.uint8)[::-1, None, None, None] // 2).all()
assert most <= 2 and len(addresses) <= 4, (most, len(addresses))
assert not driver.broken, driver.broken
""")


def test_a_batch_that_is_collected_during_a_capture_leaves_no_trace_in_it() -> None:
    """What Python's collector may do at any moment: an event then would belong to the graph."""
    rules("""
from minialex_cuda import CudaBackend
backend = CudaBackend(runtime=runtime)
array = np.arange(1000, dtype=np.float32)
kept = [backend.to_device(array, "cuda:0") for _ in range(3)]
stream = backend.place("cuda:0").stream
backend.synchronize("cuda:0")
runtime.begin_capture(stream)
events = driver.calls["cudaEventRecord"]
del kept[1:]
assert driver.calls["cudaEventRecord"] == events
runtime.end_capture(stream)
for _ in range(5):
    assert np.array_equal(backend.to_numpy(backend.to_device(array, "cuda:0")), array)
assert not driver.broken, driver.broken
""")


BENCHMARK = """
import sys
sys.path[:0] = {path!r}
import pretend_devices as pretend
from minialex_cuda.diagnose import meter
meter.SIDE, meter.COPIED, meter.FROM_HOST, meter.SIZES = 64, 1 << 16, 1 << 16, (1, 4097)
import gpu_busy
gpu_busy.HELD_UP = (2, 1 << 16)
import gpu
code = gpu.main({arguments!r})
assert not pretend.DRIVER.broken, pretend.DRIVER.broken
sys.exit(code)
"""


TOOLKITS = ["/usr/local/cuda", *map(str, Path("/usr/local").glob("cuda-13*"))]


def test_the_benchmark_runs(tmp_path: Path) -> None:
    """``benchmarks/gpu.py`` on the pretend device with its rates measured there; without PyTorch, which is missed."""
    out = tmp_path / "gpu.json"
    arguments = ["--recipe", str(PRETEND / "tiny.toml"), "--batch-sizes", "4,6", "--peers", "pytorch"]
    arguments += ["--precisions", "tf32,bfloat16", "--rounds", "2", "--steps", "2", "--images", "8"]
    arguments += ["--out", str(out)]
    path = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks"), str(PRETEND)]
    done = python("-c", BENCHMARK.format(path=path, arguments=arguments))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["rates"]["cuda:0"]["matrix"]) == {"float32", "tf32", "bfloat16"}
    assert [(entry["precision"], entry["batch_size"]) for entry in found["entries"]] == [
        (precision, batch) for precision in ("tf32", "bfloat16") for batch in (4, 6)
    ]
    for entry in found["entries"]:
        assert set(entry["errors"]) == {"PyTorch", "pytorch", "minialex, traced"}, entry["errors"]
        assert all("No module named 'torch'" in error for error in entry["errors"].values())
        assert set(entry["step"]) == {"minialex", "minialex, one column"}
        assert entry["complete"]
        asked = {row["name"]: row for row in entry["asked"]}
        assert any(name.startswith("product N·N, ") for name in asked)
        assert any("_pool" in name for name in asked)
        assert all(row["microseconds"] > 0 and row["calls"] >= 1 for row in asked.values())
    assert "| bfloat16 | 6 |" in done.stdout


def script_of(tmp_path: Path) -> Any:
    """``benchmarks/device.sh`` on pretend devices: what it is called with, and more environment."""
    out, kept = tmp_path / "out", tmp_path / "kept"
    environment = {**os.environ, "OUT": str(out), "KEPT": str(kept), "PYTHON": sys.executable, "REHEARSAL": "1"}
    environment |= {"SITE": str(tmp_path / "site"), "PYTHONPATH": ""}

    def script(*parts: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(ROOT / "benchmarks" / "device.sh"), *parts]
        return subprocess.run(
            command, cwd=tmp_path, env={**environment, **more}, capture_output=True, text=True, check=False, timeout=300
        )

    return script


def test_the_script_for_a_device_of_minutes_runs(tmp_path: Path) -> None:
    """The machine is tried, a convolution is timed, results are packed; the other parts are tested by themselves."""
    script = script_of(tmp_path)
    done = script("machine", "convolutions", CONV_OPTIONS="--precisions bfloat16 --seconds 0")
    assert done.returncode == 0, done.stdout + done.stderr
    log = (tmp_path / "kept" / "machine.log").read_text(encoding="utf-8")
    assert "a graph of 5 (kernel, cuBLAS, cuDNN, float32, cuDNN, tf32, cuDNN, bfloat16): 20 replays, same bits" in log
    assert "plans at batch 1,024: all there" in log
    assert "the cuda backend can be used" in done.stdout
    assert done.stdout.count("ended well after") == 4  # of both parts, and again in the summary at the end
    with tarfile.open(tmp_path / "out" / "device.tar") as packed:
        names = {Path(name).name for name in packed.getnames()}
    assert {"machine.log", "convolutions.json", "convolutions.status"} <= names
    table = json.loads((tmp_path / "kept" / "convolutions.json").read_text(encoding="utf-8"))["convolutions"]
    assert [len(row["plans"]) for row in table] == [2]  # of three, one of which is not to be had
    summary = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
    assert "machine: ended well after" in summary


def test_the_script_takes_no_recorded_result_for_its_own() -> None:
    """They are of another commit: parts that ended well then would be left out."""
    text = (ROOT / "benchmarks" / "device.sh").read_text(encoding="utf-8")
    code = [line for line in text.splitlines() if not line.startswith("#")]
    assert not any("results/device" in line for line in code)


def test_the_script_knows_its_parts(tmp_path: Path) -> None:
    """A part that is not there is an error, before anything is run."""
    for name in ("mashine", "kit", "--help", ""):
        done = script_of(tmp_path)("machine", name)
        assert done.returncode == 2
        assert f"error: there is no part '{name}'; there are: machine proof kit-float32 " in done.stderr
        assert "==" not in done.stdout


def test_the_script_spends_no_time_on_what_cannot_be(tmp_path: Path) -> None:
    """What is done is not done again, what failed comes last, and what has not half its time waits."""
    script, kept = script_of(tmp_path), tmp_path / "kept"
    kept.mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
    (kept / "machine.status").write_text(f"ended well after 20 s\nboot {boot}", encoding="utf-8")
    (kept / "proof.status").write_text("failed with 1 after 100 s\n", encoding="utf-8")
    (kept / "tf32.status").write_text("ended well after 100 s\n", encoding="utf-8")
    late = script(LIMIT="5")
    lines = [line for line in late.stdout.splitlines() if line.startswith("== ")]
    assert lines[0] == "== kit-float32: left for the next call"
    assert lines[-1] == "== proof: left for the next call"
    assert not {"machine", "tf32"} & {line.split()[1].rstrip(":") for line in lines}
    (kept / "machine.status").write_text("ended well after 20 s\nboot another\n", encoding="utf-8")
    broken = script(PYTHON="false")
    assert broken.returncode == 1
    assert "failed with 1" in (kept / "machine.status").read_text(encoding="utf-8")
    assert "nothing else is tried" in broken.stdout
    assert [line.split()[1] for line in broken.stdout.splitlines() if line.startswith("== ")] == ["machine"]


def test_a_toolkit_is_known_by_its_libdevice(tmp_path: Path) -> None:
    """Not by where nvcc lies, which may be a wrapper; and none is named that has none."""
    made = tmp_path / "toolkit"
    (made / "nvvm" / "libdevice").mkdir(parents=True)
    (made / "bin").mkdir()
    wrapper = made / "bin" / "nvcc"
    wrapper.write_text(f"#!/bin/sh\necho '#$ TOP={made}/bin/..' >&2\n", encoding="utf-8")
    wrapper.chmod(0o755)
    script = script_of(tmp_path)
    begin = {"PATH": f"{made / 'bin'}:{os.environ['PATH']}", "PYTHON": "false", "CUDA_HOME": str(made)}

    def home() -> str:
        script("machine", **begin)
        text = (tmp_path / "kept" / "machine.log").read_text(encoding="utf-8")
        return next(line for line in text.splitlines() if line.startswith("CUDA_HOME"))

    assert home() != f"CUDA_HOME {made}"
    (made / "nvvm" / "libdevice" / "libdevice.10.bc").write_bytes(b"BC")
    assert home() == f"CUDA_HOME {made}"
    del begin["CUDA_HOME"]
    if not any(Path(p, "nvvm/libdevice/libdevice.10.bc").exists() for p in TOOLKITS):
        assert home() == f"CUDA_HOME {made}"  # as nvcc itself says

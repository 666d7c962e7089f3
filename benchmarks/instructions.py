"""How many instructions each kernel issues for a value that it writes, on the full network's shapes; without a device.

    python benchmarks/instructions.py            counts, and compares with results/instructions.json
    python benchmarks/instructions.py --write    counts, and writes it

Needs numba-cuda (as ``tests/cuda/test_compile.py``). The paper's network is recorded and compiled, and walked, by a
runtime that does nothing but note what would be launched. Of every kernel the launch that touches most memory is taken;
its PTX is interpreted for some of its blocks (`ptx`), and assembled, which tells its registers and whether they spill.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import four_versions
import numpy as np
import ptx
from numba import typeof, types
from numpy.typing import NDArray

from minialex.backend.program import ArrayName
from minialex.backend.recorder import interpret
from minialex.engine.step import Plan, record
from minialex.network import variants
from minialex.recipe.toml import load
from minialex_cuda import CudaBackend
from minialex_cuda.compiler import layout
from minialex_cuda.ops import channels_last, conv2d_last
from minialex_cuda.ops.norm_pool_words import norm_pool, norm_pool_backward
from minialex_cuda.ops.take_rows import take_rows
from minialex_cuda.ops.words import STORAGES
from minialex_cuda.runtime.array import Flat, Memory
from minialex_cuda.runtime.fake import FakeRuntime, FakeStream
from minialex_cuda.runtime.kernel import KERNELS, Grid, Kernel

TABLE = Path(__file__).parent / "results" / "instructions.json"
CAPABILITY = (9, 0)
BATCH, LIBRARY_BATCH = 32, 1024
"""Of a step where patches are made, of all images at once; and of one as it is on a device, with a library: the larger
batch of the goals, so that what threads walk is as long as it gets."""
THREADS = 256
GROWTH = 0.10
"""A kernel may not issue so much more than the table says."""

TILE = 1 << 16
MOST_SERIAL = 1 << 20
"""Values of a launch of the kernel whose threads each have more to do, the more there are."""

VALUES = {"sgd_update_kernel": "w", "dropout_kernel": "x"}
"""Arrays that tell how many values there are, where that is not the first one that a kernel writes."""


@dataclass(frozen=True)
class Launch:
    """A launch that was noted. `known` tells which arguments hold numbers that were uploaded: tables; `nbytes`, how
    large all arrays are that it touches."""

    kernel: Kernel
    count: int | Grid
    arguments: tuple[Any, ...]
    known: frozenset[int]
    nbytes: int = 0

    @property
    def values(self) -> int:
        """How many it writes."""
        if self.kernel.name == "sgd_updates_kernel":
            return 64 * int(self.count)  # type: ignore[arg-type] # elements of a thread; the array is a block of others
        name = VALUES.get(self.kernel.name)
        at = self.kernel.writes[0] if name is None else self.kernel.parameters.index(name)
        flat = self.arguments[at]
        written: int = flat.raw.nbytes // 2 if flat.raw.dtype == np.uint64 else flat.raw.size
        return written

    @property
    def signature(self) -> tuple[Any, ...]:
        """Numba's types of the arguments."""
        plain = [a.raw if isinstance(a, Flat) else a for a in self.arguments]
        first = () if isinstance(self.count, Grid) else (types.int64,)
        return (*first, *map(typeof, plain))


class Noting(FakeRuntime):
    """Nothing is done but uploads; memory is never touched, so the full network costs none."""

    def __init__(self) -> None:
        super().__init__(memory=1 << 50)
        self.noted: dict[str, Launch] = {}
        self.uploaded: list[Memory] = []

    def allocate(self, nbytes: int, device: str, stream: FakeStream) -> Memory:
        return Memory(np.zeros(nbytes, np.uint8), nbytes, device, self._in_use)

    def upload(self, stream: FakeStream, source: NDArray[Any], target: Flat) -> None:
        self.uploaded.append(target.memory)
        super().upload(stream, source, target)

    def launch(
        self, stream: FakeStream, kernel: Kernel, count: int | Grid, arguments: Sequence[Any], touched: Any = None
    ) -> None:
        flats = {i for i, a in enumerate(arguments) if isinstance(a, Flat) and a.memory in self.uploaded}
        arrays = [a for a in arguments if isinstance(a, Flat)] if touched is None else [*touched[0], *touched[1]]
        launch = Launch(kernel, count, tuple(arguments), frozenset(flats), sum(a.nbytes for a in arrays))
        if kernel.name == "sgd_update_kernel" and launch.values > MOST_SERIAL:
            return
        if kernel.name not in self.noted or launch.nbytes > self.noted[kernel.name].nbytes:
            self.noted[kernel.name] = launch

    def clear(self, stream: FakeStream, target: Flat) -> None:
        """Nothing."""

    def copy(self, stream: FakeStream, source: Flat, target: Flat) -> None:
        """Nothing."""

    def multiply(self, stream: FakeStream, a: Flat, b: Flat, out: Flat, product: Any) -> None:
        """Nothing."""

    def convolve(self, stream: FakeStream, convolution: Any, a: Flat, b: Flat, out: Flat, *rest: Flat) -> None:
        """Nothing."""


class Library(Noting):
    """As if there were a library of convolutions."""

    def convolution_bytes(self, device: str, convolution: Any) -> int | None:
        return 256


class Unfused(Library):
    """One that cannot add a bias."""

    def convolution_bytes(self, device: str, convolution: Any) -> int | None:
        return None if convolution.bias else super().convolution_bytes(device, convolution)


def launches() -> dict[str, Launch]:
    """Every kernel's largest launch."""
    noted: dict[str, Launch] = {}
    recipe = load("alexnet-2012")
    plan = Plan(variants.build(recipe), ("cuda:0", "cuda:0"), recipe)
    programs = {
        make: record(plan, "train", batch, ("cuda:0", "cuda:1"))
        for make, batch in ((Noting, BATCH), (Library, LIBRARY_BATCH), (Unfused, LIBRARY_BATCH))
    }
    for make, precision, compiled, last in (
        (Noting, "float32", False, False), (Noting, "float32", True, True), (Noting, "bfloat16", True, True),
        (Unfused, "bfloat16", True, True), (Unfused, "float32", True, True), (Library, "float32", True, False),
        (Library, "bfloat16", True, False),
    ):  # fmt: skip
        runtime, program = make(), programs[make]
        backend = CudaBackend(runtime=runtime, precision=precision)  # type: ignore[arg-type]
        bound = {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in program.bound.items()}
        with nullcontext() if last else flat_layout():
            step = backend.compile_step(program, bound) if compiled else interpret(program, backend, bound)
        assert step is not None
        feed: dict[ArrayName, Any] = dict.fromkeys(program.symbols, 1)
        feed |= {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in program.fed.items()}
        step(feed)
        if not compiled:
            _others(backend)
        for name, launch in runtime.noted.items():
            if name not in noted or launch.nbytes > noted[name].nbytes:
                noted[name] = launch
    return noted


def lesson() -> dict[str, Launch]:
    """The page's four versions of one kernel, on the same shape."""
    runtime = Noting()
    on = CudaBackend(runtime=runtime).place("cuda:0")
    with four_versions.kernels() as kernels:
        for kernel in kernels.values():
            shape = (BATCH, 48, 3025) if kernel.name == "flat" else (BATCH, 3025, 48)
            x = on.empty(shape, np.uint16 if kernel.name == "words" else np.float32)
            four_versions.launch(on, kernel, x, x)
    return {f"lesson, {name}": launch for name, launch in runtime.noted.items()}


def flat_layout() -> Any:
    """A context in which steps are compiled as those of a network whose channels do not come in fours."""
    return patch.object(layout, "fits", lambda dtype, *maps: False)


def _others(backend: CudaBackend) -> None:
    """Operations that the paper's network has not, on the shape of its first maps."""
    x = backend.zeros((BATCH, 48, 55, 55), "float32", "cuda:0")
    backend.tanh_backward(x, backend.tanh(x))
    backend.scale(x, 2.0)
    w = backend.zeros((MOST_SERIAL,), "float32", "cuda:0")
    backend.scale_by_trust_ratio(w, w, trust_coefficient=0.001, weight_decay=0.0005)
    on = backend.place("cuda:0")
    images = on.empty((4 * BATCH, 3, 256, 256), np.uint8)
    take_rows(on, images, backend.to_device(np.arange(BATCH), "cuda:0"))
    for storage in STORAGES:
        x = on.empty((LIBRARY_BATCH, 55, 55, 48), storage.dtype)
        first = on.empty((LIBRARY_BATCH, 3, 224, 224), np.float32)
        with patch.object(on, "precision", storage.name):
            channels_last.to_last(on, channels_last.to_first(on, x))
            conv2d_last.space_to_depth(on, first, stride=4, padding=((0, 3), (0, 3)), kernel=(11, 11))
        channels_last.relu_backward(on, channels_last.relu(on, x), x)
        numbers = {"window": 3, "k": 2.0, "alpha": 2e-5, "beta": 0.75, "size": 3, "stride": 2}
        y, where = norm_pool(on, x, ceil=True, **numbers)  # type: ignore[arg-type]
        norm_pool_backward(on, y, x, where, rectify=True, **numbers)  # type: ignore[arg-type]


def tile(name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Plausible numbers for an array of that name and dtype."""
    random = np.random.default_rng(len(name))
    if name == "where" or dtype == np.uint8:
        return random.integers(0, 9, TILE * dtype.itemsize).astype(np.uint8).view(dtype)
    if dtype.kind == "f":
        return random.standard_normal(TILE).astype(dtype)
    if dtype in (np.uint16, np.uint64) and name != "step":  # bfloat16, or words of four
        return (random.standard_normal(4 * TILE).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(dtype)
    if dtype == np.uint32:
        return random.standard_normal(TILE).astype(np.float32).view(dtype)
    return random.integers(0, 32, TILE).astype(dtype)


def parameters_of(values: Iterable[tuple[int, int, int] | Any]) -> list[Any]:
    """The parameters of a kernel as Numba passes them: of an array (address, size, bytes of a number) seven."""
    passed: list[Any] = []
    for value in values:
        if isinstance(value, tuple):
            address, size, itemsize = value
            passed += [0, 0, size, itemsize, address, size, itemsize]
        else:
            passed.append(value)
    return passed


def compiled(launch: Launch, capability: tuple[int, int] = CAPABILITY) -> str:
    """A launch's kernel as PTX. Numba asks the current device for its capability, and there is none here."""
    from numba import cuda
    from numba.cuda import dispatcher

    with patch.object(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=capability)):
        made, _ = cuda.compile(
            launch.kernel.device_function, launch.signature, cc=capability, abi="numba", device=False, output="ptx"
        )
    return str(made)


def assembled(text: str, capability: tuple[int, int] = CAPABILITY) -> tuple[int, int]:
    """Registers of a thread, and bytes of them that did not fit."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}", ptxas_options=["-v"], verbose=True)
    linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
    linker.link("cubin")
    told = linker.get_info_log()
    found = [re.search(p, told) for p in (r"Used (\d+) registers", r"(\d+) bytes spill st", r"(\d+) bytes stack")]
    registers, spilled, stack = (int(number[1]) for number in found if number)
    return registers, spilled + stack


def grid_of(launch: Launch) -> tuple[tuple[int, int, int], tuple[int, int, int], int]:
    """Blocks, threads, bytes of shared memory."""
    if isinstance(launch.count, Grid):
        return launch.count.blocks, launch.count.threads, 4 * launch.count.shared
    return (-(-launch.count // THREADS), 1, 1), (THREADS, 1, 1), 0


def samples(blocks: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Two blocks of a grid, neighbours in every direction; off its middle, which may be where an image begins."""
    x, y, z = ((max(2 * n // 5 - 1, 0), 2 * n // 5) for n in blocks)
    return sorted({(x[0], y[0], z[0]), (x[1], y[1], z[0])})


def count(launch: Launch, text: str) -> dict[str, float]:
    """Of the launch ``per_value``: instructions of a warp's threads; ``lines`` of memory that they reach for, a value,
    too; ``cycles`` that a block takes where it is alone, and how many ``bytes`` there are for each thread of the grid:
    with fewer a thread walks less."""
    memory, passed = ptx.Memory(), []
    if not isinstance(launch.count, Grid):
        passed.append(launch.count)
    for position, argument in enumerate(launch.arguments):
        if isinstance(argument, Flat):
            raw, name = argument.raw, launch.kernel.parameters[position]
            if position in launch.known and raw.nbytes < 1 << 24:
                address = memory.add(raw)
            else:
                address = memory.add(tile(name, raw.dtype), raw.nbytes)
            passed.append((address, raw.size, raw.itemsize))
        else:
            passed.append(argument)
    program = ptx.Program(text)
    blocks, threads, shared = grid_of(launch)
    chosen = samples(blocks)
    runs = [ptx.Block(program, parameters_of(passed), memory, block, threads, blocks, shared).run() for block in chosen]
    many = math.prod(blocks)
    share = many / launch.values / len(chosen)
    return {
        "per_value": round(32 * share * sum(run["issued"] for run in runs), 1),
        "lines": round(share * sum(run["lines"] for run in runs), 3),
        "cycles": max(run["cycles"] for run in runs),
        "bytes": round(launch.nbytes / (many * math.prod(threads)), 3),
    }


def counted(names: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """The table of all kernels, or of some."""
    found = {}
    for name, launch in sorted((launches() | lesson()).items()):
        if names and name not in names:
            continue
        text = compiled(launch)
        if ".f64" in text:
            raise SystemExit(f"{name} computes in double precision")
        registers, spills = assembled(text)
        found[name] = count(launch, text) | {"registers": registers, "spills": spills}
    return found


def faults(found: dict[str, dict[str, float]], table: dict[str, dict[str, float]]) -> list[str]:
    """What is worse than the table says, or not in it."""
    told = [f"{name}: not in the table" for name in found if name not in table]
    told += [f"{name}: in the table, but there is no such kernel" for name in table if name not in found]
    for name, entry in found.items():
        before = table.get(name, entry)["per_value"]
        if entry["per_value"] > (1 + GROWTH) * before:
            told.append(f"{name}: {entry['per_value']} instructions a value, {before} before")
        if entry["spills"]:
            told.append(f"{name}: {entry['spills']} bytes of registers go to memory")
    return told


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("names", nargs="*", help="kernels; all where none is named")
    options = parser.parse_args(arguments)
    found = counted(options.names)
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    for name, entry in found.items():
        before = table.get(name, {}).get("per_value", "-")
        print(f"{name:36} {entry['per_value']:8} a value (table: {before}), {entry['registers']} registers")
    missing = set(KERNELS) - set(found) if not options.names else set()
    if options.write:
        kept = table if options.names else {}
        TABLE.write_text(json.dumps(dict(sorted((kept | found).items())), indent=1) + "\n", encoding="utf-8")
        return 0
    known = {name: table[name] for name in options.names if name in table} if options.names else table
    told = faults(found, known) + [f"{name}: never launched" for name in sorted(missing)]
    print("\n".join(told))
    return bool(told)


if __name__ == "__main__":
    sys.exit(main())

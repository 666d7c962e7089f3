"""minialex's Numba backend beside PyTorch and other engines on the same CPU, everything in one command:

    pip install -e '.[export]' torch==2.13.0 onnxruntime openvino jax
    python benchmarks/cpu.py                      # everything, some twenty minutes; leave the machine alone meanwhile
    python benchmarks/cpu.py --only train --only parts

Every side is a process of its own (`benchmarks/side.py`) that does one repetition when it is asked, and the sides are
asked in turn, so that all see the same machine. Figures go to the processor's own file in ``benchmarks/results/cpu``
(with ``--only`` the other parts stay as they were recorded), and from there into ``docs/performance.md``
(`benchmarks/page.py`).

All sides do a user's whole step: uint8 images come in, are cropped, reflected, shifted in colour and freed of their
mean; then forward, cost, backward, update, and the loss back as a number. Inference is one centre view. An engine that
is not installed is left out, and the page says so; one that gives other probabilities for the same weights ends the
comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import page

from minialex.errors import MinialexError
from minialex.speed import machine
from minialex.speed.peaks import BLAS_THREADS, cores
from minialex.storage import atomic

HERE = Path(__file__).resolve().parent
RESULTS = page.file_of(machine.describe()["machine"])
OURS, INSTALLED, TUNED, REFERENCE = "minialex", "pytorch", "pytorch-tuned", "numpy"
COMPILED, ONNXRUNTIME, OPENVINO, JAX = "pytorch-compiled", "onnxruntime", "openvino", "jax"
PROGRAMS = {
    OURS: "minialex:numba", INSTALLED: "pytorch", TUNED: "pytorch", REFERENCE: "minialex:numpy",
    COMPILED: "pytorch:compiled", ONNXRUNTIME: "onnxruntime", OPENVINO: "openvino", JAX: "jax",
}  # fmt: skip
ENGINES = {"infer": (ONNXRUNTIME, OPENVINO, COMPILED), "train": (JAX, COMPILED)}
"""Who is compared with us besides PyTorch as it is."""
SMALL = "cifar10"  # the recipe of the small network

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}
DECAY = "oversize_threshold:1,background_thread:true,dirty_decay_ms:-1,muzzy_decay_ms:-1"
ALLOCATORS: dict[str, dict[str, str]] = {
    "glibc, pages kept": KEEP,
    "glibc, pages kept, huge": {**KEEP, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "jemalloc, pages kept": {"LD_PRELOAD": "libjemalloc.so.2", "MALLOC_CONF": DECAY},
    "tcmalloc, pages kept": {"LD_PRELOAD": "libtcmalloc_minimal.so.4", "TCMALLOC_RELEASE_RATE": "0"},
}
"""Environments for PyTorch. Those with a library that is not installed are left out (and said so)."""


PLAIN = (OURS, INSTALLED, REFERENCE, OPENVINO)
"""Sides that run with the system's allocator; OpenVINO crashes with another one before it."""
TOGETHER_STEPS = 300
"""Steps of each run where several run at once."""
PAUSE = 0.2
"""Seconds before each repetition."""


class Server:
    """A side in its process, on as many cores as threads, from the core `first` on."""

    def __init__(self, side: str, threads: int, environment: Mapping[str, str] | None = None, first: int = 0) -> None:
        self.side = side
        variables = {**os.environ, **dict.fromkeys(BLAS_THREADS, str(threads)), **(environment or {})}
        command = [sys.executable, str(HERE / "side.py"), PROGRAMS[side], str(threads), str(first)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )
        self._reply()

    def ask(self, do: str, **asked: Any) -> Any:
        """Have something done and wait for the answer."""
        return self.begin(do, **asked)()

    def begin(self, do: str, **asked: Any) -> Callable[[], Any]:
        """Have something done; what is returned waits for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **asked}) + "\n")
        self.process.stdin.flush()
        return self._reply

    def _reply(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: the side '{self.side}' ended (exit code {self.process.wait()}); see above")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with self.process:  # closes the pipes, at which the side ends, and waits for it
            pass


@contextmanager
def servers(sides: Sequence[str], threads: int, tuned: Mapping[str, str]) -> Iterator[dict[str, Server]]:
    """The sides that are asked for, ended whatever happens."""
    with ExitStack() as stack:
        started = {}
        for side in sides:
            started[side] = Server(side, threads, None if side in PLAIN else tuned)
            stack.callback(started[side].close)
        yield started


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """The median and the spread of repetitions."""
    return {
        "median": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
        "seconds": [round(s, 5) for s in seconds],
    }


def in_turn(
    started: Mapping[str, Server], repeats: int, run: Callable[[Server, int], float], warm: int = 2
) -> dict[str, dict[str, Any]]:
    """Repetitions of all sides, one after another, each round beginning with another side.

    Before each is a pause, since threads of the side before may look for more work for some time.
    """
    seconds: dict[str, list[float]] = {side: [] for side in started}
    order = list(started)
    for n in range(warm + repeats):
        for side in order[n % len(order) :] + order[: n % len(order)]:
            time.sleep(PAUSE)
            taken = run(started[side], n)
            if n >= warm:
                seconds[side].append(taken)
    return {side: summary(found) for side, found in seconds.items()}


def step(kind: str, batch: int, recipe: str = "alexnet-2012") -> dict[str, Any]:
    """What a side is asked for; of a short work the median of some in a row, the first of which wakes its threads."""
    return {"recipe": recipe, "kind": kind, "batch": batch, "runs": 7 if batch == 1 else 1}


class Benchmark:
    """The parts of the comparison; each returns what is recorded under its name."""

    def __init__(self, threads: int, data: str, known: Mapping[str, Any]) -> None:
        self.threads, self.data, self.known = threads, data, known

    @property
    def tuned(self) -> dict[str, str]:
        """The environment that makes PyTorch fastest, of those that were measured on such a processor and are here."""
        return dict(self.known["allocators"]["environments"][self.allocator])

    @property
    def allocator(self) -> str:
        """Its name; empty if none was measured, or none of them is here."""
        found = self.known.get("allocators", {"environments": {}})
        here = [name for name, variables in found["environments"].items() if loadable(variables.get("LD_PRELOAD", ""))]
        return min(here, key=lambda name: float(found["sides"][name]["low"]), default="")

    def check(self, parts: Sequence[str]) -> None:
        """Say at once, before anything is measured for minutes, that the images of one of the parts are missing."""
        if {"epoch", "together"} & set(parts):
            count_images(self.data)

    def allocators(self) -> dict[str, Any]:
        """Which environment makes PyTorch's training step at batch 128 fastest."""
        seconds: dict[str, Any] = {}
        missing = []
        for name, environment in ALLOCATORS.items():
            library = environment.get("LD_PRELOAD")
            if not loadable(library or ""):
                missing.append(name)
                continue
            server = Server(TUNED, self.threads, environment)
            try:
                work = step("train", 128)
                server.ask("run", **work)
                seconds[name] = summary([server.ask("run", **work) for _ in range(2)])
            finally:
                server.close()
            say(f"  {name}: {seconds[name]['median']:.2f} s")
        fastest = min(seconds, key=lambda name: float(seconds[name]["low"]))
        return {
            "fastest": fastest,
            "environments": {name: ALLOCATORS[name] for name in seconds},
            "sides": seconds,
            "not installed": missing,
        }

    def train(self) -> dict[str, Any]:
        """The training step of the full network, and the memory of the one at batch 128."""
        found: dict[str, Any] = {"memory": {}}
        with closing(Server(OURS, self.threads)) as first:  # compiling takes memory of its own
            first.ask("run", **step("train", 128))
        with servers((OURS, INSTALLED, TUNED), self.threads, self.tuned) as started:
            for side, server in started.items():
                before = server.ask("memory", reset=True)["now"]
                for _ in range(2):
                    server.ask("run", **step("train", 128))
                found["memory"][side] = {"before": before, "peak": server.ask("memory")["peak"]}
            for batch, repeats in ((128, 5), (32, 7)):
                work = step("train", batch)
                found[f"train-{batch}"] = in_turn(started, repeats, lambda s, n, w=work: s.ask("run", **w), warm=1)
                say_sides(f"train, batch {batch}", found[f"train-{batch}"])
        return found

    def infer(self) -> dict[str, Any]:
        """Inference of the full network."""
        found: dict[str, Any] = {}
        with servers((OURS, INSTALLED, TUNED), self.threads, self.tuned) as started:
            for batch, repeats in ((128, 5), (32, 9), (1, 21)):
                work = step("infer", batch)
                found[f"infer-{batch}"] = in_turn(started, repeats, lambda s, n, w=work: s.ask("run", **w))
                say_sides(f"inference, batch {batch}", found[f"infer-{batch}"])
        return found

    def epoch(self) -> dict[str, Any]:
        """One epoch of the small network on CIFAR-10, data and augmentation included; batches as the recipe has them,
        and of 128."""
        found: dict[str, Any] = {}
        with servers((OURS, INSTALLED, TUNED), self.threads, self.tuned) as started:
            for name, batch in (("epoch", None), ("epoch-128", 128)):

                def run(server: Server, number: int, steps: int = 1 << 30, batch: int | None = batch) -> float:
                    asked = {"recipe": SMALL, "data": self.data, "number": number + 1, "steps": steps, "batch": batch}
                    return float(server.ask("epoch", **asked))

                for server in started.values():
                    run(server, 0, steps=20)
                found[name] = in_turn(started, 3, run, warm=0)
                say_sides(name, found[name])
        return {**found, "recipe": SMALL, "images": count_images(self.data)}

    def together(self) -> dict[str, Any]:
        """Steps of the small network on one thread, alone and beside as many more runs as there are cores."""
        count, asked = cores(), {"recipe": SMALL, "data": self.data, "number": 1, "steps": TOGETHER_STEPS}
        seconds: dict[str, list[float]] = {"alone": [], "together": []}
        with ExitStack() as stack:
            runs = [stack.enter_context(closing(Server(OURS, 1, first=core))) for core in range(count)]
            for run in runs:
                run.ask("epoch", **asked)
            for _ in range(5):
                for run in runs:
                    seconds["alone"].append(run.ask("epoch", **asked))
                seconds["together"] += [reply() for reply in [run.begin("epoch", **asked) for run in runs]]
        found = {kind: summary(values) for kind, values in seconds.items()}
        say_sides(f"{count} runs", found)
        return {**found, "runs": count}

    def reference(self) -> dict[str, Any]:
        """The training step at batch 32 beside the NumPy reference's."""
        with servers((OURS, REFERENCE), self.threads, {}) as started:
            work = step("train", 32)
            found = in_turn(started, 3, lambda server, n: float(server.ask("run", **work)), warm=1)
        say_sides("train, batch 32", found)
        return {"train-32": found}

    def engines(self, kind: str, batch: int) -> dict[str, Any]:
        """One work beside other engines, with the allocator that suits PyTorch where they can, after a comparison."""
        reasons = {side: missing(side) for side in ENGINES[kind]}
        sides = [OURS, *(side for side, reason in reasons.items() if not reason)]
        left_out = {side: reason for side, reason in reasons.items() if reason}
        for side, reason in left_out.items():
            say(f"  {side} is left out: {reason}")
        work = {**step(kind, batch), "checked": True}
        with servers(sides, self.threads, self.tuned) as started:
            agree({side: server.ask("check", **work) for side, server in started.items()})
            repeats, warm = {128: (5, 1), 32: (7, 1), 1: (15, 2)}[batch]
            found = in_turn(started, repeats, lambda server, n: float(server.ask("run", **work)), warm=warm)
        say_sides(f"{kind}, batch {batch}", found)
        return {"sides": found, "left out": left_out}

    def parts(self) -> dict[str, Any]:
        """Where the time goes, layer by layer, on both sides, beside the floor."""
        found: dict[str, Any] = {}
        with servers((OURS, INSTALLED, TUNED), self.threads, self.tuned) as started:
            peaks = started[OURS].ask("peaks")
            for kind, batch, repeats in (("train", 128, 3), ("infer", 128, 3), ("infer", 1, 9)):
                work = step(kind, batch)
                for server in started.values():
                    server.ask("run", **work)
                in_turn(started, repeats, lambda s, n, w=work: s.ask("watch", **w), warm=0)
                found[f"{kind}-{batch}"] = {
                    side: server.ask("parts", **work, peaks=peaks) for side, server in started.items()
                }
                say(f"  {kind}, batch {batch}")
            peaks_after = started[OURS].ask("peaks")
        return {"peaks": [max(pair) for pair in zip(peaks, peaks_after, strict=True)], "parts": found}

    def starts(self) -> dict[str, Any]:
        """Seconds from the command to its first step's end: kernels compiled (cold), and kept (warm)."""
        found: dict[str, list[float]] = {"cold": [], "warm": []}
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                for kind in ("cold", "warm"):
                    found[kind].append(self.start(Path(folder), f"run-{kind}"))
        for kind, seconds in found.items():
            say(f"  {kind} start: {', '.join(f'{s:.1f} s' for s in seconds)}")
        return {kind: summary(seconds) for kind, seconds in found.items()}

    def start(self, folder: Path, run: str) -> float:
        """One start of `minialex train` with a cache folder."""
        variables = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
        script = str(HERE / "first_step.py")
        options = ["--backend", "numba", "--threads", str(self.threads), "--out", str(folder / run)]
        ended = subprocess.run(
            [sys.executable, script, str(time.time()), "train", *options],
            env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        shutil.rmtree(folder / run, ignore_errors=True)
        for line in ended.stderr.splitlines():
            if line.startswith("first step after"):
                return float(line.split()[3])
        raise SystemExit(f"error: `minialex train {' '.join(options)}` made no step:\n{ended.stderr}")


WITH_ENGINES = {f"engines-{kind}-{batch}": (kind, batch) for kind, batch in page.ENGINE_WORKS}
PARTS = ("allocators", "train", "infer", "epoch", "together", "reference", "parts", *WITH_ENGINES, "starts")
TUNES = {"train", "infer", "epoch", "parts", *WITH_ENGINES}  # what needs the allocator that was chosen


def missing(side: str) -> str:
    """Why a side cannot be run here; empty if it can."""
    needed = {ONNXRUNTIME: ("onnx", "onnxruntime"), OPENVINO: ("onnx", "openvino"), JAX: ("jax",), COMPILED: ("torch",)}
    absent = [name for name in needed[side] if find_spec(name) is None]
    if absent:
        return f"{absent[0]} is not installed"
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if side == COMPILED and not any(name and shutil.which(name) for name in compilers):
        return "there is no C++ compiler"
    return ""


def engine_versions(sides: Collection[str]) -> dict[str, str]:
    """Versions of the engines' packages that were compared; `machine.versions` has PyTorch's."""
    return {side: version(side) for side in (ONNXRUNTIME, OPENVINO, JAX) if side in sides}


def agree(probabilities: Mapping[str, Any]) -> None:
    """End the program if sides do not give our probabilities for the same weights and images."""
    ours = np.array(probabilities[OURS])
    if not ours.std() > 1e-3:
        raise SystemExit("error: the probabilities that sides are compared by are all the same")
    for side, found in probabilities.items():
        difference = np.abs(np.array(found) - ours)
        if not (difference <= 2e-3 * ours + 2e-5).all():  # as in tests/benchmarks
            raise SystemExit(f"error: '{side}' is not the same network: probabilities differ by {difference.max():.2g}")


def loadable(library: str) -> bool:
    """Whether the system's loader finds a library; none at all is found everywhere."""
    if not library:
        return True
    variables = {**os.environ, "LD_PRELOAD": library}
    ended = subprocess.run(["/bin/true"], env=variables, capture_output=True, text=True, check=False)
    return not ended.stderr


def count_images(source: str) -> int:
    """Training images of a data set."""
    from minialex.data import load

    return len(load(source).train)


def default_data() -> str:
    """CIFAR-10: the folder that MINIALEX_TEST_DATA names, that of the developers, or where `download` puts it."""
    for folder in (os.environ.get("MINIALEX_TEST_DATA"), HERE.parents[1] / "shared" / "data"):
        if folder and (Path(folder) / "cifar-10-python.tar.gz").is_file():
            return f"cifar10:{Path(folder) / 'cifar-10-python.tar.gz'}"
    return "cifar10"


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def say_sides(what: str, sides: Mapping[str, Mapping[str, float]]) -> None:
    """The medians of one comparison."""
    told = ", ".join(f"{side} {1000 * found['median']:,.1f} ms" for side, found in sides.items())
    say(f"  {what}: {told}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, record, and write the page."""
    parser = argparse.ArgumentParser(description="minialex beside PyTorch and other engines on this CPU")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part (may be given several times)")
    parser.add_argument("--threads", type=int, default=2, help="of every side (default 2)")
    parser.add_argument("--data", default=default_data(), help="CIFAR-10 as `minialex train --data` takes it")
    options = parser.parse_args(arguments)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    chosen = [part for part in PARTS if not options.only or part in options.only]
    command = "python benchmarks/cpu.py" + "".join(f" --only {part}" for part in options.only or ())
    benchmark = Benchmark(options.threads, options.data, known)
    if TUNES & set(chosen) and "allocators" not in chosen and not benchmark.allocator:
        chosen.insert(0, "allocators")
    try:
        benchmark.check(chosen)
    except MinialexError as error:
        sys.exit(f"error: {error}")
    for part in chosen:
        began = time.perf_counter()
        say(f"{part} …")
        found = benchmark.engines(*WITH_ENGINES[part]) if part in WITH_ENGINES else getattr(benchmark, part)()
        took = time.perf_counter() - began
        recorded = {"command": command, "threads": options.threads, "took": round(took, 1), **machine.describe()}
        if part in WITH_ENGINES:
            recorded["versions"] = {**machine.versions(), **engine_versions(found["sides"])}
        if part in TUNES:
            recorded["allocator"] = benchmark.allocator
        known[part] = {**found, "recorded": recorded}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(RESULTS, known)
        say(f"  {took:.0f} s")
    page.main()


if __name__ == "__main__":
    main()

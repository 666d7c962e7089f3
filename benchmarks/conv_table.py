"""Every plan that cuDNN has for the paper's convolutions, timed on a GPU: which is the quickest, and by how much.

    python benchmarks/conv_table.py --out benchmarks/results/conv_table.json

Of one column, as the backend asks for them, and the same work asked for in other ways (both columns at once, conv1 over
blocks of 4 × 4 pixels). Each plan is a CUDA graph of some calls, timed by events; what is written beside the time is
its share of what the products alone would take. A plan that is not the likely best by cuDNN's own guess but quicker is
what timing plans would win. Written after every convolution.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]  # not installed on a bare machine

import numpy as np  # noqa: E402

from minialex.speed import machine  # noqa: E402
from minialex.storage import atomic  # noqa: E402
from minialex_cuda.runtime.cudnn import Plan, frontend, handle  # noqa: E402
from minialex_cuda.runtime.protocol import PRECISIONS, Convolution  # noqa: E402

from convolutions import LAYERS, OTHERS, convolution  # noqa: E402  isort: skip

CALLS, TRIES, PLANS = 5, 3, 12
"""Calls of one graph; replays, of which the quickest counts; plans at most of one convolution."""
ROOM = 2 << 30
"""Bytes of scratch memory that a plan may have."""


def sizes(it: Convolution) -> dict[str, int]:
    """How many numbers the operands and the result have, in the order that the kind names them."""
    x, w, y = it.N * it.C * it.H * it.W, it.K * it.C * it.R * it.S, it.N * it.K * it.P * it.Q
    return {"fprop": {"a": x, "b": w, "out": y}, "dgrad": {"a": y, "b": w, "out": x}}.get(
        it.kind, {"a": y, "b": x, "out": w}
    )


def products(it: Convolution) -> int:
    """Floating-point operations."""
    return 2 * it.N * it.K * it.P * it.Q * it.C * it.R * it.S


class Timer:
    """cuDNN on one stream of the first GPU."""

    def __init__(self) -> None:
        import cupy

        self.cupy, self.cudnn = cupy, frontend()
        if self.cudnn is None:
            raise SystemExit("error: there is no cuDNN here")
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.handle = handle(self.cudnn)
        self.cudnn.set_stream(handle=self.handle, stream=self.stream.ptr)

    def plans(self, asked: Convolution) -> list[dict[str, Any]]:
        """Name, scratch memory and microseconds of the plans, cuDNN's own choice first."""
        cupy = self.cupy
        kind = np.uint16 if asked.precision == "bfloat16" else np.float32
        with self.stream:
            arrays = {name: self.random(size, kind) for name, size in sizes(asked).items()}
            made = Plan(self.cudnn, asked, build=False, handle=self.handle)
            addresses = made.operands(*(array.data.ptr for array in arrays.values()))
            found: list[dict[str, Any]] = []
            for index in range(made.graph.get_execution_plan_count()):
                try:
                    made.graph.build_plan_at_index(index)
                    nbytes = int(made.graph.get_workspace_size_plan_at_index(index))
                except RuntimeError:  # it was deselected, or does not fit after all
                    continue
                if nbytes <= ROOM:
                    workspace = cupy.empty(max(nbytes, 1), cupy.uint8)
                    taken = self.time(made, addresses, workspace, index)
                    name = str(made.graph.get_plan_name_at_index(index))
                    found.append({"plan": name, "workspace": nbytes, "microseconds": taken})
                if len(found) == PLANS:
                    break
        return found

    def random(self, size: int, kind: Any) -> Any:
        """Random numbers, since with zeros a device takes less power and is quicker: some, copied over and over."""
        cupy, runtime = self.cupy, self.cupy.cuda.runtime
        numbers = np.random.default_rng(0).standard_normal(min(size, 1 << 16), np.float32)
        numbers = (numbers.view(np.uint32) >> 16).astype(np.uint16) if kind is np.uint16 else numbers
        made = cupy.empty(size, kind)
        made[: len(numbers)].set(numbers, stream=self.stream)
        done, nbytes = numbers.nbytes, made.nbytes
        while done < nbytes:
            many = min(done, nbytes - done)
            to_device = runtime.memcpyDeviceToDevice
            runtime.memcpyAsync(made.data.ptr + done, made.data.ptr, many, to_device, self.stream.ptr)
            done += many
        return made

    def time(self, made: Plan, addresses: Any, workspace: Any, index: int) -> float:
        """Microseconds of one call."""
        cupy, stream = self.cupy, self.stream

        def call() -> None:
            made.graph.execute_plan_at_index(addresses, workspace.data.ptr, index, handle=self.handle)

        call()
        stream.synchronize()
        stream.begin_capture()
        for _ in range(CALLS):
            call()
        graph = stream.end_capture()
        best = float("inf")
        for _ in range(TRIES):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(stream)
            graph.launch(stream=stream)
            end.record(stream)
            end.synchronize()
            best = min(best, 1e3 * cupy.cuda.get_elapsed_time(begin, end) / CALLS)
        return round(best, 2)


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| convolution | batch | plans | cuDNN's choice | quickest | TFLOP/s | quickest plan | scratch memory |"]
    lines += ["|---|---:|---:|---:|---:|---:|---|---:|"]
    for row in found["convolutions"]:
        if not row["plans"]:
            lines.append(f"| {row['name']} | {row['batch']:,} | **none** | – | – | – | {row.get('error', '')} | – |")
            continue
        best = min(row["plans"], key=lambda plan: plan["microseconds"])
        rate = row["operations"] / best["microseconds"] / 1e6
        cells = [
            row["name"], f"{row['batch']:,}", len(row["plans"]), f"{row['plans'][0]['microseconds']:,.1f} us",
            f"{best['microseconds']:,.1f} us", f"{rate:,.0f}", best["plan"], f"{best['workspace'] / 2**20:.1f} MiB",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time, record, print."""
    parser = argparse.ArgumentParser(description="cuDNN's plans for the paper's convolutions, timed")
    parser.add_argument("--precisions", default="bfloat16,tf32")
    parser.add_argument("--batch-sizes", default="1024,128")
    parser.add_argument("--seconds", type=float, default=60, help="after which no further convolution is begun")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "conv_table.json")
    options = parser.parse_args(arguments)
    began, timer = time.perf_counter(), Timer()
    found: dict[str, Any] = {**machine.describe(), "cudnn": timer.cudnn.backend_version(), "convolutions": []}
    for precision in options.precisions.split(","):
        if precision not in PRECISIONS:
            parser.error(f"no precision '{precision}'; there are {', '.join(PRECISIONS)}")
    asked = [
        (f"{precision} {name} {kind}", batch, it)
        for precision in options.precisions.split(",")
        for batch in map(int, options.batch_sizes.split(","))
        for name in (*LAYERS, *OTHERS)
        for kind in ("fprop", "dgrad", "wgrad")
        if (it := convolution(name, kind, batch, precision)) is not None  # type: ignore[arg-type]
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, batch, it in asked:
        if found["convolutions"] and time.perf_counter() - began > options.seconds:
            print(f"{len(asked) - len(found['convolutions'])} of {len(asked)} were not begun: time is up")
            break
        row: dict[str, Any] = {"name": name, "batch": batch, "operations": products(it), "plans": []}
        try:
            row["plans"] = timer.plans(it)
        except Exception as error:  # cuDNN's errors are kinds of its own
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        found["convolutions"].append(row)
        atomic.write_json(options.out, found)
    print(table(found))
    return 0 if any(row["plans"] for row in found["convolutions"]) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Every plan that cuDNN has for the paper's convolutions, timed on a GPU: which is the quickest, and by how much.

    python benchmarks/conv_table.py --out benchmarks/results/conv_table.json

Of one column, as the backend asks for them, and the same work asked for in other ways (both columns at once, conv1 over
single pixels). Timed as the backend times them when it chooses (`minialex_cuda.runtime.timing`); here nothing is chosen
or kept, all are written down, after every convolution. A plan that is not cuDNN's own first choice but quicker is what
timing wins.
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

from minialex.speed import machine  # noqa: E402
from minialex.storage import atomic  # noqa: E402
from minialex_cuda.runtime.cudnn import PLANS, Plans, frontend, handle  # noqa: E402
from minialex_cuda.runtime.protocol import PRECISIONS, Convolution  # noqa: E402

from convolutions import KINDS, LAYERS, OTHERS, convolution  # noqa: E402  isort: skip


def products(it: Convolution) -> int:
    """Floating-point operations."""
    return 2 * it.N * it.K * it.P * it.Q * it.C * it.R * it.S


class Times:
    """cuDNN's plans on the first GPU, as the backend times them."""

    def __init__(self) -> None:
        self.cudnn: Any = frontend()
        if self.cudnn is None:
            raise SystemExit("error: there is no cuDNN here")
        from minialex_cuda.runtime.timing import Timer  # needs CuPy, as the options do not

        self.handle, self.timer = handle(self.cudnn), Timer(self.cudnn)

    def plans(self, asked: Convolution) -> list[dict[str, Any]]:
        """Name, scratch memory and microseconds of the plans, cuDNN's own choice first."""
        return [
            {"plan": one.ready.name, "workspace": one.ready.workspace, "microseconds": one.microseconds}
            for one in self.timer(Plans(self.cudnn, asked, handle=self.handle), PLANS)
        ]


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
    began, times = time.perf_counter(), Times()
    found: dict[str, Any] = {**machine.describe(), "cudnn": times.cudnn.backend_version(), "convolutions": []}
    for precision in options.precisions.split(","):
        if precision not in PRECISIONS:
            parser.error(f"no precision '{precision}'; choose from {', '.join(PRECISIONS)}")
    asked = [
        (f"{precision} {name} {kind}", batch, it)
        for precision in options.precisions.split(",")
        for batch in map(int, options.batch_sizes.split(","))
        for name in (*LAYERS, *OTHERS)
        for kind in KINDS
        if (it := convolution(name, kind, batch, precision)) is not None  # type: ignore[arg-type]
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, batch, it in asked:
        if found["convolutions"] and time.perf_counter() - began > options.seconds:
            print(f"{len(asked) - len(found['convolutions'])} of {len(asked)} were not begun: time is up")
            break
        row: dict[str, Any] = {"name": name, "batch": batch, "operations": products(it), "plans": []}
        try:
            row["plans"] = times.plans(it)
        except Exception as error:  # cuDNN's errors are kinds of its own
            row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        found["convolutions"].append(row)
        atomic.write_json(options.out, found)
    print(table(found))
    return 0 if any(row["plans"] for row in found["convolutions"]) else 1


if __name__ == "__main__":
    sys.exit(main())

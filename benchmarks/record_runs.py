"""Record what finished runs reached, and put the table into README.md.

    minialex train --backend numpy --out /tmp/shapes
    python benchmarks/record_runs.py /tmp/shapes "minialex train --backend numpy" …

Reads each run's metrics and recipe; writes ``benchmarks/results/runs.json`` (machine, versions, date, command) and
the table between README's marks, which a test compares with the file.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

from minialex.recipe.toml import load
from minialex.runs.run_folder import RunPaths, read_metrics
from minialex.speed import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "runs.json"
BEGIN, END = "<!-- runs: begin -->\n", "<!-- runs: end -->\n"


def entry(folder: Path, command: str) -> dict[str, object]:
    """One run's figures."""
    paths = RunPaths(folder)
    last = [record for record in read_metrics(paths.metrics) if record["kind"] == "validation"][-1]
    recipe = load(str(paths.recipe))
    return {
        "command": command,
        "data": recipe.data.partition(":")[0],
        "columns": recipe.columns,
        "epochs": last["epoch"],
        "seconds": round(last["seconds"], 1),
        "top1_error": last["top1_error"],
        "top5_error": last["top5_error"],
        "machine": f"{machine.processor()}, {os.cpu_count()} cores",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}",
        "date": datetime.date.today().isoformat(),
    }


def table(results: list[dict[str, object]]) -> str:
    """The recorded runs as a Markdown table."""
    lines = ["| command | epochs | training time | validation top-1 error | top-5 |", "|---|---|---|---|---|"]
    lines += [
        f"| `{r['command']}` | {r['epochs']} | {r['seconds']:.0f} s | {r['top1_error']:.1%} | {r['top5_error']:.1%} |"
        for r in results
    ]
    first = results[0]
    where = f"{first['machine']}; {first['versions']}; {first['date']}"
    return "\n".join([*lines, "", f"Recorded in `benchmarks/results/runs.json` on {where}.", ""])


def with_table(readme: str, results: list[dict[str, object]]) -> str:
    """README's text with the table in its place."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + table(results) + END + rest.partition(END)[2]


def main(arguments: list[str]) -> None:
    """Pairs of a run folder and the command that made it."""
    results = [entry(Path(folder), command) for folder, command in zip(arguments[::2], arguments[1::2], strict=True)]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

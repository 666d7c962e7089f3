"""What the site says of several processes, made from ``benchmarks/results/ranks.json`` whenever it is built:

    python benchmarks/ranks_page.py docs/made/ranks

writes ``speed.md`` (a table of sides and their goals), ``timeline.md`` (what a picture shows, in numbers) and
``timeline.png``, from what `ranks.py` recorded; and ``kills.md``, what `tests/ranks/kills.py` did.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends")]

from minialex.figures import pictures, timeline  # noqa: E402
from minialex.storage.atomic import write_text  # noqa: E402
from minialex.studies.words import markdown  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "ranks.json"
KILLS = RESULTS.with_name("kills.json")
NOTHING = "Nothing is recorded yet: run `python benchmarks/ranks.py`.\n"
NAMES = {
    "one": "one process, two threads",
    "one under mpiexec": "the same, started by `mpiexec -n 1`",
    "two": "two processes, a thread each",
    "two, full layers divided": "the same with `--full-layers divided`",
    "two, engine": "the same with `--sum engine`",
    "two, nothing hidden": "two processes that compute nothing while they sum",
}
GOALS = {"one under mpiexec": 0.99, "two": 0.95, "two, full layers divided": 0.95}


def speed(found: Mapping[str, Any]) -> str:
    """The table of sides: a step's time, and how many images a second beside one process."""
    rows = []
    for side, name in NAMES.items():
        if side not in found["sides"]:
            continue
        one, ratio = found["sides"][side], found["speed"][side]
        times = f"{1000 * one['median']:,.0f} ({1000 * one['least']:,.0f} to {1000 * one['most']:,.0f})"
        goal = GOALS.get(side)
        met = "" if goal is None else f" (goal {goal:g}: {'met' if ratio >= goal else 'not met'})"
        rows.append([name, times, "" if side == "one" else f"{ratio:.2f}{met}"])
        if "processor" in found:
            rows[-1].append(f"{1000 * found['processor'][side]['median']:,.0f}")
    head = ["", f"training step, batch {found['batch']}, ms", "images a second, beside one process"]
    head += ["processor time of all, ms"] if "processor" in found else []
    return f"{markdown(head, rows)}\n{provenance(found)}\n"


def provenance(found: Mapping[str, Any]) -> str:
    """Where, with what and when it was measured."""
    rounds = max(len(seconds) for seconds in found["seconds"].values())
    versions = ", ".join(
        f"{name} {found['versions'][name]}" for name in ("numpy", "numba") if name in found["versions"]
    )
    return (
        f"(The full network, Numba; medians of {rounds} rounds in which all sides took turns, smallest and largest in "
        f"brackets; {found['machine']['processor']}, {found['machine']['cores']} cores; {versions}, {found['mpi']}; "
        f"{found['date']}; `{found['command']}`.)"
    )


def told(found: Mapping[str, Any]) -> str:
    """What the timeline comes to."""
    line = found["timeline"]
    shares = [rank["hidden"] for rank in line["hidden"]]
    summing = statistics.mean(rank["summing"] for rank in line["hidden"])
    waited = statistics.mean(rank["waited"] for rank in line["hidden"])
    updating = [
        sum(one["end"] - one["begin"] for one in rank["work"] if one["phase"] == "update") for rank in line["ranks"]
    ]
    return (
        f"Sums took {1000 * summing:,.0f} ms of each process's step of {line['batch']} images. For "
        f"{1000 * waited:,.0f} ms of that it had nothing left to compute: "
        f"{statistics.mean(shares):.0%} of the sums' time was hidden. Then each updated all weights, in "
        f"{1000 * statistics.mean(updating):,.0f} ms; one process alone does that while it makes the gradients.\n"
    )


def kills(found: Mapping[str, Any]) -> str:
    """What killing processes came to, in a paragraph."""
    by = [trial["killed"] for trial in found["trials"]]
    left, damaged = found["processes_left"], found["damaged_checkpoints"]
    same = "all have" if found["all_runs_have_this_sha256"] else "**not all have**"
    versions = found["versions"]
    mpi = versions["mpi"].replace("Version:", "").split()
    return (
        f"Of {found['kills']} kills ({by.count('rank')} of one rank, {by.count('launcher')} of the launcher, "
        f"{by.count('process')} of a process alone) {left or 'none'} left a process, and {damaged or 'none'} a damaged "
        f"checkpoint. {found['runs_completed']} runs came to their end: {same} the weights and momentum, bit for bit, "
        f"of one that was never killed. ({found['minutes']:.0f} minutes; {found['machine']}; minialex "
        f"{versions['minialex']}, mpi4py {versions['mpi4py']}, {' '.join(mpi)}; {found['date']}; "
        f"`{found['command']}`.)\n"
    )


def main(folder: Path) -> None:
    """Write all that there is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "kills.md", kills(json.loads(KILLS.read_text(encoding="utf-8"))))
    if not RESULTS.is_file():
        for name in ("speed", "timeline"):
            write_text(folder / f"{name}.md", NOTHING)
        return
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    write_text(folder / "speed.md", speed(found))
    pictures.save(timeline.picture(found["timeline"]["ranks"]), folder / "timeline.png")
    alt = timeline.words(found["timeline"]["ranks"])
    write_text(folder / "timeline.md", f"![{alt}](../made/ranks/timeline.png){{ loading=lazy }}\n\n{told(found)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

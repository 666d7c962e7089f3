"""The page docs/performance.md from the recorded figures: ``python benchmarks/page.py``.

Text around the tables is written by hand; what stands between the marks is made here and compared with the recorded
file by a test. Every part of a step that takes more than twice its floor must be explained in
``benchmarks/results/explanations.toml``, else the page cannot be made.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cpu"
EXPLANATIONS = ROOT / "benchmarks" / "results" / "explanations.toml"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- cpu: begin -->\n", "<!-- cpu: end -->\n"
NOTHING = "Nothing is recorded yet: run `python benchmarks/cpu.py`.\n"

OURS, INSTALLED, TUNED, REFERENCE = "minialex", "pytorch", "pytorch-tuned", "numpy"
NAMES = {
    OURS: "minialex (Numba)",
    INSTALLED: "PyTorch, as installed",
    TUNED: "PyTorch, tuned allocator",
    REFERENCE: "minialex (NumPy reference)",
}
WORKS = {
    "train-128": ("train", "training step, batch 128"),
    "train-32": ("train", "training step, batch 32"),
    "infer-128": ("infer", "inference, batch 128"),
    "infer-32": ("infer", "inference, batch 32"),
    "infer-1": ("infer", "inference, batch 1"),
    "epoch": ("epoch", "small network, one epoch of CIFAR-10"),
    "epoch-128": ("epoch", "small network, one epoch of CIFAR-10, batch 128"),
}
GOALS = {  # PyTorch's time over ours: as installed, tuned
    "train-128": {INSTALLED: 2.2, TUNED: 3.5},  # with AVX-512; without it 3.2
    "infer-128": {INSTALLED: 2.4, TUNED: 1.6},
    "infer-1": {INSTALLED: 1.3, TUNED: 1.3},
    "epoch": {INSTALLED: 4.0, TUNED: 3.5},
    "epoch-128": {INSTALLED: 4.0, TUNED: 3.5},
}
ENGINES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "jax": "JAX",
    "pytorch-compiled": "PyTorch, `torch.compile`",
}
ENGINE_WORKS = {
    ("infer", 128): "inference, batch 128",
    ("infer", 32): "inference, batch 32",
    ("infer", 1): "inference, batch 1",
    ("train", 128): "training step, batch 128",
    ("train", 32): "training step, batch 32",
}
ENGINE_GOAL = 1.3  # an engine's time over ours, everywhere
COLD_GOAL = 6.0
TOGETHER_GOAL = 1.1
TWICE = 2.0
SMALL_SHARE = 0.01  # of the step: parts below are not listed one by one


class Unexplained(Exception):
    """Parts that take more than twice their floor, and nobody says why."""


def milliseconds(seconds: float) -> str:
    """About three digits: ``"0.12"``, ``"12.3"``, ``"1,230"``."""
    value = 1000 * seconds
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def rows_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def verdict(ratio: float, goal: float | None) -> str:
    """A ratio beside its goal."""
    if goal is None:
        return f"{ratio:.2f}"
    return f"**{ratio:.2f}** (goal {goal:g}: {'met' if ratio >= goal else 'not met'})"


def times(results: Mapping[str, Any]) -> str:
    """All comparisons with PyTorch: medians, spreads, ratios, goals."""
    rows = []
    for name, (part, title) in WORKS.items():
        sides = results.get(part, {}).get(name)
        if sides is None:
            continue
        row = [title]
        for side in (OURS, INSTALLED, TUNED):
            found = sides[side]
            spread = f"{milliseconds(found['low'])} to {milliseconds(found['high'])}"
            row.append(f"{milliseconds(found['median'])} ({spread})")
        for side in (INSTALLED, TUNED):
            ratio = sides[side]["median"] / sides[OURS]["median"]
            row.append(verdict(ratio, GOALS.get(name, {}).get(side)))
        rows.append(row)
    heads = [f"{NAMES[side]}, ms" for side in (OURS, INSTALLED, TUNED)]
    return rows_of(["", *heads, "as installed / ours", "tuned / ours"], rows)


def engines(results: Mapping[str, Any]) -> str:
    """Comparisons with other engines: the median and spread of each, and its time over ours."""
    rows, left_out = [], {}
    for (kind, batch), title in ENGINE_WORKS.items():
        found = results.get(f"engines-{kind}-{batch}")
        if found is None:
            continue
        left_out |= found["left out"]
        ours = found["sides"][OURS]
        for side, theirs in found["sides"].items():
            ratio = "" if side == OURS else verdict(theirs["median"] / ours["median"], ENGINE_GOAL)
            spread = f"{milliseconds(theirs['low'])} to {milliseconds(theirs['high'])}"
            name = NAMES[OURS] if side == OURS else ENGINES[side]
            rows.append([title, name, milliseconds(theirs["median"]), spread, ratio])
    lines = [f"{ENGINES[side]} was left out: {reason}.\n" for side, reason in left_out.items()]
    lines += [f"{text}\n" for text in out_of_reach(results)]
    return "\n".join([rows_of(["", "", "ms", "smallest to largest", "time / ours"], rows), *lines])


def out_of_reach(results: Mapping[str, Any]) -> list[str]:
    """Of goals that are not met, those that our work's floor is above."""
    texts = []
    for (kind, batch), title in ENGINE_WORKS.items():
        sides = results.get(f"engines-{kind}-{batch}", {}).get("sides", {})
        works = results.get("parts", {}).get("parts", {}).get(f"{kind}-{batch}")
        if not sides or works is None:
            continue
        floor = sum(row["floor"] for row in part_rows(works))
        for side, found in sides.items():
            needed = found["median"] / ENGINE_GOAL
            if side != OURS and needed < min(sides[OURS]["median"], floor):
                texts.append(
                    f"{title[0].upper()}{title[1:]}: to be {ENGINE_GOAL:g} times as fast as {ENGINES[side]} ours would "
                    f"have to take {milliseconds(needed)} ms, and its floor is "
                    f"[{milliseconds(floor)} ms](#where-the-time-goes)."
                )
    return texts


def memory(results: Mapping[str, Any]) -> str:
    """Peak memory of a training step at batch 128."""
    found = results["train"]["memory"]
    rows = []
    for side, sizes in found.items():
        grown = sizes["peak"] - sizes["before"]
        rows.append([NAMES[side], *(f"{size / 2**20:,.0f}" for size in (sizes["before"], sizes["peak"], grown))])
    least = min(found[side]["peak"] - found[side]["before"] for side in (INSTALLED, TUNED))
    met = found[OURS]["peak"] - found[OURS]["before"] < least
    table = rows_of(["", "before, MiB", "peak, MiB", "step, MiB"], rows)
    return f"{table}\nBelow PyTorch's (the goal): {'met' if met else 'not met'}.\n"


def allocators(results: Mapping[str, Any]) -> str:
    """The environments that were tried for PyTorch."""
    found = results["allocators"]
    rows = []
    for name, environment in found["environments"].items():
        text = " ".join(f"`{key}={value}`" for key, value in environment.items())
        chosen = " (chosen)" if name == found["fastest"] else ""
        rows.append([name + chosen, milliseconds(found["sides"][name]["median"]), text])
    left_out = found["not installed"]
    rest = f"\nNot installed there, and not tried: {', '.join(left_out)}.\n" if left_out else ""
    return rows_of(["allocator", "training step, batch 128, ms", "environment"], rows) + rest


def together(results: Mapping[str, Any]) -> str:
    """Several runs at once beside each alone."""
    found = results["together"]
    alone, beside = (found[kind]["median"] for kind in ("alone", "together"))
    met = "met" if beside / alone < TOGETHER_GOAL else "not met"
    return (
        f"{found['runs']} runs of the small network at once, of one thread each, as `minialex ablate` starts them, "
        f"take {beside / alone:.2f} times as long as each alone (goal: under {TOGETHER_GOAL:g}, {met}).\n"
    )


def reference(results: Mapping[str, Any]) -> str:
    """The NumPy reference beside ours: it is there to be read, and has no goal."""
    sides = results["reference"]["train-32"]
    ratio = sides[REFERENCE]["median"] / sides[OURS]["median"]
    ours, theirs = (milliseconds(sides[side]["median"]) for side in (OURS, REFERENCE))
    return (
        f"Training step of the full network at batch 32: {theirs} ms with the NumPy reference, which is there to be "
        f"read, {ours} ms with Numba: {ratio:.1f} times as fast.\n"
    )


def starts(results: Mapping[str, Any]) -> str:
    """Cold and warm starts."""
    cold, warm = (results["starts"][kind]["median"] for kind in ("cold", "warm"))
    met = "met" if cold < COLD_GOAL else "not met"
    return (
        f"From the command `minialex train` (generated shapes, drawn first) to the end of its first step: {cold:.1f} s "
        f"with an empty cache of kernels (goal: under {COLD_GOAL:.0f} s, {met}), {warm:.1f} s with a full one.\n"
    )


def part_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Our parts with what PyTorch takes for the same layers and phases, in the order of the step.

    Updates are one row: PyTorch does them all at once.
    """
    theirs = {side: {(layer, phase): s for layer, phase, s in found[side]} for side in (INSTALLED, TUNED)}
    rows = []
    updates = {"layer": "all", "phase": "update", "includes": [], "ours": 0.0, "floor": 0.0}
    for layer, phase, seconds, floor, includes in found[OURS]:
        if phase == "update":
            updates["ours"] += seconds
            updates["floor"] += floor
            continue
        members = [(layer, phase), *map(tuple, includes)]
        row = {"layer": layer, "phase": phase, "includes": members[1:], "ours": seconds, "floor": floor}
        for side in (INSTALLED, TUNED):
            known = [theirs[side][member] for member in members if member in theirs[side]]
            row[side] = sum(known) if known else None
        rows.append(row)
    if any(("all", "update") in theirs[side] for side in theirs):
        rows.append({**updates, **{side: theirs[side].get(("all", "update")) for side in theirs}})
    return rows


def above(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Parts of more than a hundredth of the step that take more than twice their floor."""
    whole = sum(row["ours"] for row in rows)
    return [row for row in rows if row["ours"] > SMALL_SHARE * whole and row["ours"] > TWICE * row["floor"]]


def explanations() -> dict[str, dict[str, str]]:
    """The reasons by work and part; several parts may share one: ``"norm1 forward, norm2 forward" = "…"``."""
    tables = tomllib.loads(EXPLANATIONS.read_text(encoding="utf-8")) if EXPLANATIONS.is_file() else {}
    return {
        work: {name: text for names, text in table.items() for name in names.split(", ")}
        for work, table in tables.items()
    }


def parts(results: Mapping[str, Any], reasons: Mapping[str, Mapping[str, str]]) -> str:
    """Layer by layer, with the reasons for what is far above its floor.

    Raises
    ------
    Unexplained
        If a reason is missing.
    """
    texts, missing = [], []
    for work, found in results["parts"]["parts"].items():
        rows = part_rows(found)
        whole = sum(row["ours"] for row in rows)
        shown = [row for row in rows if row["ours"] > SMALL_SHARE * whole]
        rest = [row for row in rows if row["ours"] <= SMALL_SHARE * whole]
        far = [name_of(row) for row in above(rows)]
        lines = [_line(row, name_of(row) in far) for row in shown]
        if rest:
            total = {key: sum(row[key] or 0.0 for row in rest) for key in ("ours", "floor", INSTALLED, TUNED)}
            lines.append(_line({"layer": f"{len(rest)} smaller parts", "phase": "", "includes": [], **total}, False))
        every = {key: sum(row[key] or 0.0 for row in rows) for key in ("ours", "floor", INSTALLED, TUNED)}
        lines.append(_line({"layer": "sum", "phase": "", "includes": [], **every}, False))
        heads = ["part", "with it", f"{NAMES[OURS]}, ms", "floor, ms", "× floor", NAMES[INSTALLED], NAMES[TUNED]]
        texts.append(f"### {WORKS[work][1][0].upper()}{WORKS[work][1][1:]}\n\n{rows_of(heads, lines)}")
        known = reasons.get(work, {})
        missing += [f'[{work}] "{name}"' for name in far if name not in known]
        said: dict[str, list[str]] = {}
        for name in far:
            said.setdefault(known.get(name, ""), []).append(name)
        if said:
            items = "\n".join(f"- {', '.join(names)}: {text}" for text, names in said.items())
            texts.append(f"More than twice the floor:\n\n{items}\n")
    if missing:
        raise Unexplained(
            f"more than twice the floor, and not explained in {EXPLANATIONS.relative_to(ROOT)}: {'; '.join(missing)}"
        )
    multiply_adds, copied = results["parts"]["peaks"]
    texts.append(
        f"Measured peak of the machine in that run: {multiply_adds / 1e9:,.1f} billion multiply-adds a second, "
        f"{copied / 1e9:,.1f} GB/s read and written. What a floor counts is said in `minialex/speed/roofline.py`.\n"
    )
    return "\n".join(texts)


def name_of(row: Mapping[str, Any]) -> str:
    """A part's name in the explanations."""
    return f"{row['layer']} {row['phase']}".strip()


def _line(row: Mapping[str, Any], far: bool) -> list[str]:
    ratio = row["ours"] / row["floor"] if row["floor"] > 1e-6 else None
    times_floor = "" if ratio is None else f"**{ratio:.1f}**" if far else f"{ratio:.1f}"
    included = []
    for layer, phase in row["includes"]:
        included.append(layer if phase == row["phase"] else f"{layer} {phase}" if layer != row["layer"] else phase)
    cells = [name_of(row), ", ".join(dict.fromkeys(included)), milliseconds(row["ours"]), milliseconds(row["floor"])]
    return [*cells, times_floor, *("" if row[side] is None else milliseconds(row[side]) for side in (INSTALLED, TUNED))]


def where(results: Mapping[str, Any]) -> str:
    """Commands, dates and versions of all parts, a table for each machine."""
    tables: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for part, found in results.items():
        recorded, machine = found["recorded"], found["recorded"]["machine"]
        place = (
            f"{machine['processor']}, {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB, "
            f"{machine['system']}; {recorded['threads']} threads on every side"
        )
        versions = ", ".join(f"{name} {text}" for name, text in recorded["versions"].items())
        line = f"`{recorded['command']}`", recorded["date"], versions
        tables.setdefault(place, {}).setdefault(line, []).append(part)
    texts = []
    for place, lines in tables.items():
        rows = [[", ".join(parts), *line] for line, parts in lines.items()]
        texts.append(f"On {place}:\n\n{rows_of(['parts', 'command', 'date', 'versions'], rows)}")
    return "## Where these figures come from\n\nThey are kept in `benchmarks/results/cpu`.\n\n" + "\n".join(texts)


def name_of_processor(machine: Mapping[str, Any]) -> str:
    """What figures are kept under: ``"AMD EPYC 9B14, 2 cores"``."""
    return f"{machine['processor']}, {machine['cores']} cores"


def file_of(machine: Mapping[str, Any]) -> Path:
    """Where a processor's figures are kept."""
    return RESULTS / (re.sub(r"[^a-z0-9]+", "-", name_of_processor(machine).lower()).strip("-") + ".json")


def render_all(recorded: Sequence[Mapping[str, Any]], reasons: Mapping[str, Mapping[str, str]]) -> str:
    """Everything between the marks: one processor's figures, or those of several under their names."""
    if len(recorded) < 2:
        return render(recorded[0], reasons) if recorded else NOTHING
    names, rows, sections = [], [], []
    for results in recorded:
        names.append(name_of_processor(next(iter(results.values()))["recorded"]["machine"]))
        lower = re.sub("^#", "##", render(results, reasons), flags=re.MULTILINE)
        sections.append(f"## {names[-1]}\n\n{lower}")
    for name, (part, title) in WORKS.items():
        cells = []
        for results in recorded:
            sides = results.get(part, {}).get(name)
            ratios = [sides[side]["median"] / sides[OURS]["median"] for side in (INSTALLED, TUNED)] if sides else []
            goals = [GOALS.get(name, {}).get(side) for side in (INSTALLED, TUNED)]
            cells.append(", ".join(verdict(ratio, goal) for ratio, goal in zip(ratios, goals, strict=False)))
        if any(cells):
            rows.append([title, *cells])
    head = "## All processors\n\nPyTorch's time over ours, as installed and tuned:\n\n" + rows_of(["", *names], rows)
    return "\n".join([head, *sections])


def render(results: Mapping[str, Any], reasons: Mapping[str, Mapping[str, str]]) -> str:
    """One processor's figures."""
    if not results:
        return NOTHING
    texts = []
    if any(part in results for part in ("train", "infer", "epoch")):
        texts += ["## Times\n", times(results)]
    if "epoch" in results:
        texts.append(f"The epoch has {results['epoch']['images']:,} images (recipe `{results['epoch']['recipe']}`).\n")
    if "together" in results:
        texts.append(together(results))
    if "reference" in results:
        texts.append(reference(results))
    if any(f"engines-{kind}-{batch}" in results for kind, batch in ENGINE_WORKS):
        texts += ["## Other engines\n", engines(results)]
    if "train" in results:
        texts += ["## Memory of a training step at batch 128\n", memory(results)]
    if "starts" in results:
        texts += ["## Start\n", starts(results)]
    if "parts" in results:
        texts += ["## Where the time goes\n", parts(results, reasons)]
    if "allocators" in results:
        texts += ["## Allocators tried for PyTorch\n", allocators(results)]
    return "\n".join([*texts, where(results)])


def with_figures(text: str, figures: str) -> str:
    """The page's text with the figures in their place."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + figures + END + rest.partition(END)[2]


def recorded() -> list[dict[str, Any]]:
    """The recorded figures of each processor."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def main() -> None:
    """Write the page."""
    text = PAGE.read_text(encoding="utf-8")
    try:
        made = with_figures(text, render_all(recorded(), explanations()))
    except Unexplained as error:
        raise SystemExit(f"error: {error}") from None
    PAGE.write_text(made, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

"""What the site says of GPUs, made from ``benchmarks/results/device`` whenever the site is built, never typed:

    python benchmarks/device_page.py docs/made/device

writes ``gpu.md`` (a part of docs/performance.md), ``took.md`` (what ran and for how long), ``said.md`` and ``norm.md``
(sentences for other pages) and ``step.png``. Results are what `device.sh` keeps: statuses and logs, the rates of the
card, and what `gpu.py` and `conv_table.py` wrote. The model's prediction is computed anew from those rates.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]

from minialex.figures import pictures  # noqa: E402
from minialex.recipe.toml import load  # noqa: E402
from minialex.speed import machine as machine_of  # noqa: E402
from minialex.speed.rates import Rates  # noqa: E402
from minialex.storage.atomic import write_bytes, write_text  # noqa: E402

from gpu_goals import COMPILED, OURS, SIDES, TUNED, goals, quickest, step  # noqa: E402  isort: skip

RESULTS = ROOT / "benchmarks" / "results" / "device"
REASONS = ROOT / "benchmarks" / "results" / "device.toml"
PRECISIONS = ("bfloat16", "tf32", "float32")
LONGEST = 12
QUARTER = 0.25
NOTHING = "No GPU's figures are recorded.\n"
PARTS = {
    "machine": "one kernel, one product, one convolution: compiled, right, captured in a graph",
    "proof": "graphs and streams give the same bits; the paper's network trains as the reference does",
    "kit-float32": "the conformance kit, float32",
    "kit-bfloat16": "graphs, streams and the kit, bfloat16",
    "kit-tf32": "graphs, streams and the kit, tf32",
    "train": "the paper's network learns photographs, is stopped, goes on, is evaluated; the README's command gives "
    "the same bits with both columns named and stopped on the way",
    "nccl": "one process with NCCL gives the bits of one without",
    "memory": "a thousand steps lose no memory",
    "bfloat16": "the step's time, bfloat16",
    "tf32": "the step's time, tf32",
    "float32": "the step's time, float32",
    "bfloat16-256": "the step's time, bfloat16, one more batch size",
    "convolutions": "cuDNN's plans for every convolution, timed",
    "doctor": "`minialex doctor`",
}

KINDS = {
    "input": ("#8a6d1d", r"augment|index_permute|arange|unshuffle|HtoD"),
    "normalisation and pooling": ("#b94a00", r"norm\d|avg_pool|max_pool|_pow_|rsqrt"),
    "update": ("#3f7d3a", r"sgd|multi_tensor|skipped|share_kernel"),
    "bias, ReLU, dropout": (
        "#9aa4ad",
        r"triton|bias|mask|sums|relu|dropout|add_|block_words|copy|Memcpy|Memset",
    ),
    "convolutions": ("#0069a6", r"fprop|dgrad|wgrad|conv|cutlass|xmma|nhwc|kernels_(first|last)"),
    "full layers": ("#7b5aa6", r"product|nvjet|gemm|splitK"),
    "others": ("#d5dade", r""),
}
"""Kinds of work with their colours, and what a kernel's name then has in it; the first that fits."""
ORDER = (
    "convolutions",
    "normalisation and pooling",
    "bias, ReLU, dropout",
    "full layers",
    "update",
    "input",
    "others",
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """A Markdown table, each column to the left (``<``) or right (``>``)."""
    rule = "|".join({"<": "---", ">": "---:"}[one] for one in align)
    return (
        "\n".join(["| " + " | ".join(head) + " |", f"|{rule}|", *("| " + " | ".join(row) + " |" for row in rows)])
        + "\n"
    )


def kind(name: str) -> str:
    """The kind of work of a kernel."""
    return next(kind for kind, (_, pattern) in KINDS.items() if re.search(pattern, name))


def readable(name: str) -> str:
    """A kernel's name as far as somebody can read it."""
    inner = re.search(r"Kernel<(cutlass\w+)", name)
    name = inner[1] if inner else name.removeprefix("void ").partition("<")[0]
    mangled = re.match(r"_Z\w*?(ImplicitGemm\w*?Convolution)", name)
    name = f"cutlass {mangled[1]}" if mangled else name
    return name if len(name) <= 60 else name[:59] + "…"


def read(name: str) -> Any:
    """A file of results, or None."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def text_of(name: str) -> str:
    """A log or a status; nothing where there is none."""
    path = RESULTS / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def recorded(earlier: str = "") -> dict[str, Any]:
    """What `gpu.py` wrote, by precision; of an earlier run if its folder is named."""
    found = {precision: read(f"{earlier}{precision}.json") for precision in PRECISIONS}
    return {precision: results for precision, results in found.items() if results and results["entries"]}


def entries_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All precisions and batch sizes that were measured whole, large batches first."""
    entries = [entry for results in found.values() for entry in results["entries"] if entry["complete"]]
    return sorted(entries, key=lambda e: (PRECISIONS.index(e["precision"]), -e["batch_size"]))


def card(results: Mapping[str, Any]) -> str:
    """The name of the card that was measured."""
    return str(next(iter(results["rates"].values()))["name"])


def milliseconds(seconds: float | None) -> str:
    """About three digits, or a dash."""
    return "–" if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def predictions(found: Mapping[str, Any]) -> dict[tuple[str, int], Any]:
    """What the model says of each step with the rates and convolutions that were measured: (seconds, by name)."""
    import step_model

    counted = json.loads(step_model.TABLE.read_text(encoding="utf-8"))
    timed = RESULTS / "convolutions.json"
    made = {}
    for precision, results in found.items():
        name = next((known for known in step_model.CHIPS if known in card(results).lower()), None)
        if name is None:
            continue
        rates = Rates(**next(iter(results["rates"].values())))
        model = step_model.Model(rates, step_model.chip(name), counted)
        model.convolutions = step_model.measured_convolutions(timed) if timed.exists() else {}
        for entry in results["entries"]:
            base, batch = load(results["recipe"]), entry["batch_size"]
            recipe = base.replace(classes=base.classes or 10, batch_size=batch, precision=precision)
            asked = step_model.predicted(model, recipe, batch)
            made[precision, batch] = sum(part.seconds for part in asked.parts.values()), asked.named
    return made


def commands(found: Mapping[str, Any]) -> str:
    """What was typed."""
    lines = "\n".join(machine_of.anywhere(results["command"]) for results in found.values())
    return f"```text\n{lines}\n```\n"


def where(found: Mapping[str, Any]) -> str:
    """Cards, machines, versions, dates and commands; those of several precisions once."""
    log = text_of("machine.log")
    driver, toolkit = re.search(r"Driver Version: ([\d.]+)", log), re.search(r"release ([\d.]+)", log)
    around = f" Driver {driver[1]}, CUDA {toolkit[1]}." if driver and toolkit else ""
    told: dict[str, list[str]] = {}
    for precision, results in found.items():
        machine = results["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        text = (
            f"one {card(results)}, {results['date']}; {machine['cores']} cores of {machine['processor']}, "
            f"{machine['memory_gib']:.0f} GiB; {versions}"
        )
        told.setdefault(text, []).append(precision)
    lines = [f"- {', '.join(precisions)}: {text}." for text, precisions in told.items()]
    return (
        f"Recorded in `benchmarks/results/device`; `bash benchmarks/device.sh` does it again.{around}\n\n"
        + "\n".join(lines) + f"\n\n{commands(found)}"
    )  # fmt: skip


def named(entry: Mapping[str, Any]) -> str:
    """What was measured."""
    return f"{entry['precision']}, batch {entry['batch_size']:,}"


def steps(entries: Sequence[Mapping[str, Any]]) -> str:
    """Our step beside PyTorch's."""
    rows, told = [], []
    for entry in entries:
        ours, theirs = step(entry, OURS), quickest(entry)
        assert ours is not None
        cells = [f"**{milliseconds(ours)}**", milliseconds(step(entry, COMPILED)), milliseconds(step(entry, TUNED))]
        rows.append(
            [named(entry), *cells, f"{theirs / ours:.2f}" if theirs else "–", f"{entry['batch_size'] / ours:,.0f}"]
        )
        if theirs:
            told.append(
                f"A step of {entry['batch_size']:,} images in {entry['precision']} takes {milliseconds(ours)} ms, and "
                f"{milliseconds(theirs)} with PyTorch, compiled."
            )
    head = ["training step, ms", "minialex", "torch.compile", "tuned", "quicker of the two / ours", "our images/s"]
    return f"{' '.join(told[:1])}\n\n{table(head, rows, '<>>>>>')}"


def allowed(entries: Sequence[Mapping[str, Any]], predicted: Mapping[tuple[str, int], Any]) -> str:
    """Our step beside its floor and what the model predicts."""
    rows = []
    for entry in entries:
        ours, floor = step(entry, OURS), entry.get("floor_seconds")
        assert ours is not None
        guess = predicted.get((entry["precision"], entry["batch_size"]), (None,))[0]
        rows.append([
            named(entry), f"**{milliseconds(ours)}**", milliseconds(floor), f"{floor / ours:.0%}" if floor else "–",
            f"{entry['busy']:.0%}" if "busy" in entry else "–", milliseconds(guess),
            f"{ours / guess - 1:+.0%}" if guess else "–",
        ])  # fmt: skip
    head = ["training step, ms", "minialex", "floor", "of its speed", "card busy", "model", "measured beside it"]
    return table(head, rows, "<>>>>>>")


def fed(entries: Sequence[Mapping[str, Any]]) -> str:
    """End to end, with the images from the host's memory and, where that was timed, with all of them on the card."""
    rows, there = [], any("kept" in entry.get("fed", {}) for entry in entries)
    for entry in entries:
        ends = {side: entry["end_to_end"][side]["images_per_second"] for side in SIDES if side in entry["end_to_end"]}
        ours = step(entry, OURS)
        if OURS in ends and ours:
            share = ends[OURS] / (entry["batch_size"] / ours)
            cells = [f"{ends[side]:,.0f}" if side in ends else "–" for side in (OURS, COMPILED, TUNED)]
            kept = entry.get("fed", {}).get("kept")
            more = [f"{entry['batch_size'] / kept:,.0f}" if kept else "–"] if there else []
            rows.append([named(entry), *cells, f"{share:.0%}", *more])
    head = ["images/s", "minialex", "torch.compile", "tuned", "ours, of the step's rate"]
    return table([*head, "ours, images on the card"] if there else head, rows, "<>>>>>" if there else "<>>>>")


AIMS = ["goal, set for one H200", "measured", ""]


def aims(entries: Sequence[Mapping[str, Any]], memory: float | None = None) -> str:
    """The goals that were set, met or not."""
    words = {True: "met", False: "**not met**", None: "not known"}
    rows = [
        [one.goal, one.measured if one.measured != "not measured" else "–", words[one.met]]
        for one in goals(entries, memory)
    ]
    return table(AIMS, rows, "<<<")


def kernels_of(entry: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """A side's longest kernels; ours as they were asked for where the tracer's names say nothing."""
    rows = list(entry.get("kernels", {}).get(side, []))
    return list(entry.get("asked", rows)) if side == OURS and any("device[abi" in row["name"] for row in rows) else rows


def kinds_of(entry: Mapping[str, Any], side: str) -> dict[str, float]:
    """Seconds of a step by kind of work: shares of all kernels' time, of the step's."""
    rows, whole = kernels_of(entry, side), step(entry, side)
    total = sum(row["microseconds"] for row in rows)
    found = dict.fromkeys(ORDER, 0.0)
    for row in rows:
        name = "others" if re.match(r"\d+ others$", row["name"]) else kind(row["name"])
        found[name] += row["microseconds"] / total * (whole or 0.0)
    return found


def drawn(entry: Mapping[str, Any]) -> list[str]:
    """The sides whose kernels are known."""
    return [side for side in (OURS, COMPILED, TUNED) if kernels_of(entry, side) and step(entry, side)]


def picture(entry: Mapping[str, Any]) -> bytes:
    """A bar a side, its kinds of work beside each other."""
    sides = drawn(entry)
    height = 1.25 + 0.52 * len(sides)
    with pictures.style():
        figure = pictures.blank(7.6, height)
        axes = pictures.panel(figure, 1.55, 0.98, 5.75, 0.52 * len(sides))
        parts = {side: kinds_of(entry, side) for side in sides}
        shown = [name for name in ORDER if any(parts[side][name] for side in sides)]
        for n, side in enumerate(sides):
            left = 0.0
            for name in shown:
                wide = 1e3 * parts[side][name]
                axes.barh(-n, wide, 0.66, left, color=KINDS[name][0], label=name if n == 0 else None)
                left += wide
            axes.text(left, -n, f" {left:.1f}", va="center", color=pictures.INK)
        axes.set_yticks([-n for n in range(len(sides))], sides)
        axes.set_xlim(0, 1.1 * max(1e3 * (step(entry, side) or 0.0) for side in sides))
        axes.set_xlabel("milliseconds of a step")
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
        pictures.caption(axes, named(entry))
        figure.legend(loc="lower left", ncols=4, frameon=False, fontsize=8.5, bbox_to_anchor=(0.01, 0.0))
    return pictures.png(figure)


def words_of(entry: Mapping[str, Any]) -> str:
    """The picture in words."""
    told = []
    for side in drawn(entry):
        parts = [f"{name} {1e3 * seconds:.1f}" for name, seconds in kinds_of(entry, side).items() if seconds]
        told.append(f"{side} {1e3 * (step(entry, side) or 0):.1f} ms: {', '.join(parts)}")
    return "Milliseconds of a training step by kind of work. " + "; ".join(told)


def longest(entry: Mapping[str, Any]) -> str:
    """The longest kernels of each side."""
    texts = []
    for side in drawn(entry):
        rows = [row for row in kernels_of(entry, side) if not re.match(r"\d+ others$", row["name"])][:LONGEST]
        cells = [
            [f"{row['microseconds']:,.0f}", f"{row['calls']:g}", f"`{readable(row['name'])}`", kind(row["name"])]
            for row in rows
        ]
        head = ["µs a step", "calls", side, "kind"]
        made = table(head, cells, ">><<")
        texts.append(f"<details markdown>\n<summary>The longest kernels of {side}</summary>\n\n{made}\n</details>\n")
    return "\n".join(texts)


def beside(entry: Mapping[str, Any], predicted: tuple[float, Mapping[str, Any]], reasons: Mapping[str, str]) -> str:
    """What was measured beside what the model says, by what is asked for; what differs by more than a quarter."""
    whole, (guess, named) = step(entry, OURS), predicted
    assert whole is not None
    total = sum(row["microseconds"] for row in entry["asked"]) / 1e6
    measured: dict[str, list[float]] = {}
    for row in entry["asked"]:
        held = measured.setdefault(re.split(r"[ ,]", row["name"])[0], [0.0, 0.0])
        held[0] += row["microseconds"] / 1e6
        held[1] += row["calls"]
    rows, far = [], []
    for name, (seconds, calls) in sorted(measured.items(), key=lambda item: -item[1][0]):
        if name not in named:
            continue
        mine = seconds / total * whole
        ratio, all_there = mine / named[name].seconds, calls >= named[name].asked
        differs = ratio > 1 + QUARTER or (ratio < 1 - QUARTER and all_there)
        far += [name] if differs else []
        shown = f"{ratio:.1f}" if all_there else f"at least {ratio:.1f}"
        rows.append([
            f"`{name}`", f"{calls:g} of {named[name].asked}", f"{1e6 * mine:,.0f}", f"{1e6 * named[name].seconds:,.0f}",
            f"**{shown}**" if differs else shown,
        ])  # fmt: skip
    differs = abs(whole / guess - 1) > QUARTER
    verdict = "**more than a quarter**" if abs(whole / guess - 1) > QUARTER else "within a quarter"
    text = (
        f"Measured {milliseconds(whole)} ms, predicted {milliseconds(guess)}: {whole / guess - 1:+.0%}, {verdict}. By "
        f"what is asked for (one by one these add up to {milliseconds(total)} ms; shown are shares of the step):\n\n"
        + table(["asked for", "calls", "measured, µs", "model, µs", "measured / model"], rows, "<>>>>")
    )
    why = [f"- `{name}`: {reasons.get(name, 'not explained yet')}\n" for name in far]
    return text + ("\nMore than a quarter beside the model:\n\n" + "".join(why) if why else "")


def took() -> str:
    """The parts of `device.sh` that ran: outcome, time, tests."""
    rows = []
    for name, what in PARTS.items():
        status = text_of(f"{name}.status").splitlines()
        if not status:
            continue
        ended = re.match(r"(ended well|failed with \d+) after (\d+) s", status[0])
        outcome, after = (ended[1], f"{ended[2]} s") if ended else (status[0], "–")
        log = text_of(f"{name}.log")
        tests = re.findall(r"^=*\s*((?:\d+ (?:passed|failed|skipped|error\w*)(?:, )?)+)", log, re.MULTILINE)
        said = tests[-1].strip(" ,") if tests else "–"
        rows.append([f"`{name}`", what, outcome if outcome == "ended well" else f"**{outcome}**", after, said])
    never = [f"`{name}`" for name in PARTS if not (RESULTS / f"{name}.status").exists()]
    text = table(["part", "what it does", "outcome", "took", "tests"], rows, "<<<>>") if rows else NOTHING
    return text + (f"\nNot run on a device yet: {', '.join(never)}.\n" if never else "")


def said(found: Mapping[str, Any]) -> str:
    """A sentence for other pages: what has run, where, when."""
    if not found:
        return "It has **not yet been run on a device**.\n"
    cards = dict.fromkeys(f"one {card(results)} ({results['date']})" for results in found.values())
    proved = re.findall(r"(\d+) passed", text_of("proof.log"))
    proof = f", where {proved[-1]} tests of graphs, streams and whole networks passed" if proved else ""
    return f"It **has run on a device**, {' and '.join(cards)}{proof}.\n"


def norm(found: Mapping[str, Any]) -> str:
    """A sentence on the normalisation's kernels, of the largest batch that was measured."""
    entry = next((entry for entry in entries_of(found) if "asked" in entry), None)
    if entry is None:
        return "They have not been run on a device yet.\n"
    whole = sum(row["microseconds"] for row in entry["asked"])
    rows = [(row["microseconds"], row["name"].startswith("norm5_pool_backward")) for row in entry["asked"]
            if row["name"].startswith("norm5_pool")]  # fmt: skip
    up, down = (sum(taken for taken, backward in rows if backward is way) for way in (False, True))
    if not up or not down:
        return "Their times are not among the longest that were recorded.\n"
    step_of = f"a step of {entry['batch_size']:,} images in {entry['precision']} on {card(found[entry['precision']])}"
    return (
        f"In {step_of} they took {up:,.0f} µs forward and {down:,.0f} µs backward, {(up + down) / whole:.0%} of what "
        "all kernels took, one by one while the other column was at work, too. What the model of instructions and "
        "bytes says stands [among the measured times](../performance.md#on-a-gpu).\n"
    )


ABOUT = """The step is the whole of it, with the images on the card: crops, reflections and colours, forward, cost,
backward, update. `torch.compile` is the network as a PyTorch user writes it, with grouped convolutions and PyTorch's
own normalisation; *tuned* is what somebody writes who knows where PyTorch is slow: columns as convolutions of their
own, conv1's stride put into channels, a normalisation of which the compiler makes one kernel, CUDA graphs for small
batches. Both are the same network as ours (tests compare their gradients), with channels last, PyTorch's fused update
and, in bfloat16, its automatic mixed precision. Goals are judged against the quicker.
"""
ALLOWED = """The *floor* is what [shapes and the card's own measured rates
allow](two-gpus.md#the-floor-of-a-step); *busy* says how much of the time the card computes at all; the *model*
(`benchmarks/step_model.py`) is [told below](#measured-beside-predicted).
"""
BARS = """A bar is as long as its side's step takes. Its parts are shares of the time of all kernels, since those of two
columns overlap; a kernel's name tells the kind, and *others* are those beyond the thirty longest.
"""
EARLIER = """In the run above PyTorch was not timed: the card was there for minutes, and they went into the proof. In
the first run, on another machine with such a card and with the kernels and plans of before, it was timed beside ours:
"""
LEARNED = """The longest kernels of that run told what to mend: sums over places that one block added up, plans of cuDNN
that nobody had timed, bias and ReLU in a pass of their own (see [one kernel in four versions](how-to/one-kernel.md) and
[which plan of cuDNN](two-gpus.md#which-plan-of-cudnn-and-the-same-bits)).
"""
MODEL = """The model adds up, for all that a step asks for, the longest of its bytes, its products and its instructions
at the card's measured rates; convolutions take the time of the quickest plan that was timed alone. Of single kernels
only the longest are kept, so some calls may be missing.
"""


def page(found: Mapping[str, Any]) -> str:
    """The part of docs/performance.md."""
    entries = entries_of(found)
    if not entries:
        return NOTHING
    predicted, reasons = predictions(found), tomllib.loads(REASONS.read_text(encoding="utf-8"))
    before = entries_of(first_run := recorded("first/"))
    shown_entry = next((entry for entry in [*entries, *before] if drawn(entry) not in ([], [OURS])), None)
    texts = [where(found), "### A step beside PyTorch\n", steps(entries)]
    if before:
        texts += [EARLIER, commands(first_run), steps(before), LEARNED]
    texts.append(ABOUT)
    if not any(step(entry, TUNED) for entry in [*entries, *before]):
        texts.append("The tuned peer has **not been timed on a device yet**; beside stands the plain one alone.\n")
    texts += ["### Beside what the card allows\n", ALLOWED, allowed(entries, predicted)]
    texts += ["### With the data\n", "Images come from the host's memory through the library's loader.\n", fed(entries)]
    rates = next(iter(next(iter(found.values()))["rates"].values()))
    texts += ["### Goals\n", aims(entries, rates["copy"])]
    if before:
        ratios = [one for one in aims(before).splitlines(keepends=True) if "torch.compile" in one and "–" not in one]
        texts.append(f"And in the first run:\n\n{table(AIMS, [], '<<<')}{''.join(ratios)}")
    texts += ["### Where the time of a step goes\n"]
    if shown_entry:
        if shown_entry in before:
            texts.append("In the first run:\n")
        texts += [f"![{words_of(shown_entry)}](made/device/step.png){{ loading=lazy }}\n", BARS]
        if shown_entry in before:
            texts.append(longest(shown_entry))
    if shown_entry is not entries[0]:
        texts += ["Now:\n" if shown_entry else "", longest(entries[0])]
    else:
        texts.append(longest(entries[0]))
    compared = [
        f"#### {named(entry)}\n\n{beside(entry, predicted[key], reasons)}"
        for entry in entries
        if (key := (entry["precision"], entry["batch_size"])) in predicted and "asked" in entry
    ]
    texts += ["### Measured beside predicted\n", MODEL, *compared]
    return "\n".join([*texts, "### What ran\n", took()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all."""
    parser = argparse.ArgumentParser(description="What the site says of GPUs, from benchmarks/results/device.")
    parser.add_argument("folder", type=Path, help="is made if need be")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    found = recorded()
    for name, text in (("gpu", page(found)), ("took", took()), ("said", said(found)), ("norm", norm(found))):
        write_text(folder / f"{name}.md", text)
    entries = [*entries_of(found), *entries_of(recorded("first/"))]
    first = next((entry for entry in entries if drawn(entry) not in ([], [OURS])), None)
    if first:
        write_bytes(folder / "step.png", picture(first))
    return 0


if __name__ == "__main__":
    sys.exit(main())

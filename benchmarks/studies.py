"""The pages docs/ablations.md and docs/fooled.md from the recorded studies: ``python benchmarks/studies.py``.

Text around the tables is written by hand; what stands between the marks is made here and compared with the records by
a test. To make the records themselves: ``minialex ablate --all --data cifar10.tar.gz --record``; for docs/fooled.md
``minialex ablate benchmarks/edge/before.toml benchmarks/edge/after.toml --data cifar10.tar.gz``, whose two JSON files
go into benchmarks/results as edge-before.json and edge-after.json.
"""

from __future__ import annotations

import json
from pathlib import Path

from minialex import studies as ablations
from minialex.studies import outcome, words

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ablations.md"
FOOLED = ROOT / "docs" / "fooled.md"
BEGIN, END = "<!-- studies: begin -->\n", "<!-- studies: end -->\n"


def section(name: str) -> str:
    """One study: question, claim, table, verdicts, where it comes from, what a longer run would be."""
    found, result = ablations.study(name), ablations.recorded(name)
    lines = [f"### {found.title}", "", f"{found.question} The paper (section {found.section}): {found.claim}.", ""]
    if result is None:
        lines += [f"Not recorded yet: `minialex ablate {name} --record`.", ""]
    else:
        lines += [ablations.table(result), *(f"- {line}" for line in ablations.verdict(result)), ""]
        others = [each for other in ablations.names() if (each := ablations.recorded(other)) is not None]
        lines += [line for line in (ablations.shared(result, others),) if line] + [""]
        lines += [f"({ablations.provenance(result)})", ""]
        more = words.at_full_scale(result)
        if more:
            lines += [
                "At the paper's scale, with ImageNet in a store and a GPU:",
                "",
                *(f"- {line}" for line in more),
                "",
            ]
    return "\n".join(lines)


def page(before: str) -> str:
    """The page with every study in its place."""
    head, _, rest = before.partition(BEGIN)
    return head + BEGIN + "\n".join(section(name) for name in ablations.names()) + END + rest.partition(END)[2]


def edge(name: str) -> outcome.Outcome:
    """What the arms of ``benchmarks/edge/NAME.toml`` gave."""
    text = (ROOT / "benchmarks" / "results" / f"edge-{name}.json").read_text(encoding="utf-8")
    return outcome.from_json(json.loads(text), ablations.study(str(ROOT / "benchmarks" / "edge" / f"{name}.toml")))


def differences(found: outcome.Outcome) -> str:
    """A table of the arms: their errors, and how they differ from the first one."""
    rows = []
    for arm in found.arms:
        row = [found.study.arm(arm.name).words, f"{found.means[arm.name].mean:.1f}", "", ""]
        if arm is not found.base:
            difference = found.differences[arm.name]
            row[2:] = [words.signed(difference.mean), words.interval(difference)]
        rows.append(row)
    head = ["", "top-1 error, %: mean of five seeds", "difference from the first", "its 95% interval"]
    return f"{words.markdown(head, rows)}\n({words.provenance(found)})\n"


def fooled(before: str) -> str:
    """The page with its two tables in their places."""
    for name in ("before", "after"):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        head, _, rest = before.partition(begin)
        before = f"{head}{begin}{differences(edge(name))}{end}{rest.partition(end)[2]}"
    return before


if __name__ == "__main__":
    for path, made in ((PAGE, page), (FOOLED, fooled)):
        path.write_text(made(path.read_text(encoding="utf-8")), encoding="utf-8")

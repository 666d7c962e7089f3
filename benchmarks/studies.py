"""The page docs/ablations.md from the recorded studies: ``python benchmarks/studies.py``.

Text around the tables is written by hand; what stands between the marks is made here and compared with the records by
a test. To make the records themselves: ``minialex ablate --all --data cifar10.tar.gz --record``.
"""

from __future__ import annotations

from pathlib import Path

from minialex import studies as ablations
from minialex.studies import words

PAGE = Path(__file__).resolve().parents[1] / "docs" / "ablations.md"
BEGIN, END = "<!-- studies: begin -->\n", "<!-- studies: end -->\n"


def section(name: str) -> str:
    """One study: question, claim, table, verdicts, where it comes from, what a longer run would be."""
    found, outcome = ablations.study(name), ablations.recorded(name)
    lines = [f"### {found.title}", "", f"{found.question} The paper (section {found.section}): {found.claim}.", ""]
    if outcome is None:
        lines += [f"Not recorded yet: `minialex ablate {name} --record`.", ""]
    else:
        lines += [ablations.table(outcome), *(f"- {line}" for line in ablations.verdict(outcome)), ""]
        others = [found for other in ablations.names() if (found := ablations.recorded(other)) is not None]
        lines += [line for line in (ablations.shared(outcome, others),) if line] + [""]
        lines += [f"({ablations.provenance(outcome)})", ""]
        more = words.at_full_scale(outcome)
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


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

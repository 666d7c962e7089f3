"""The pages docs/ablations.md and docs/fooled.md from the recorded studies: ``python benchmarks/studies.py``.

Text around the tables is written by hand; what stands between the marks is made here and compared with the records by
a test. To make the records themselves: ``minialex ablate --all --data cifar10.tar.gz --record``; for docs/fooled.md
``minialex ablate benchmarks/edge/before.toml benchmarks/edge/after.toml --data cifar10.tar.gz``, whose two JSON files
go into benchmarks/results as edge-before.json and edge-after.json; for the table of other seeds
``python benchmarks/studies_again.py cifar10.tar.gz``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from minialex import studies as ablations
from minialex.studies import outcome, words

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ablations.md"
FOOLED = ROOT / "docs" / "fooled.md"
OTHER_SEEDS = ROOT / "benchmarks" / "results" / "studies-again.json"
AGAIN = {"relu": ("relu-2012", "tanh-2012"), "bias": ("0", "1"), "dropout": ("half", "none")}
"""Which arms of which studies were trained again with other seeds."""


def section(name: str) -> str:
    """One study: question, claim, table, verdicts, where it comes from, what a longer run would be."""
    found, result = ablations.study(name), ablations.recorded(name)
    lines = [f"### {found.title}", "", f"{found.question} The paper (section {found.section}): {found.claim}.", ""]
    if result is None:
        lines += [f"Not recorded yet: `minialex ablate {name} --record`.", ""]
    else:
        lines += [ablations.table(result), *(f"- {line}" for line in ablations.verdict(result)), ""]
        others = [ablations.study(other) for other in ablations.names()]
        lines += [line for line in (ablations.shared(found, others),) if line] + [""]
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
    """The page with every study in its place, and the table of other seeds."""
    before = between(before, "studies", "\n".join(section(name) for name in ablations.names()))
    return between(before, "again", other_seeds())


def between(before: str, name: str, text: str) -> str:
    """A page with a text between two of its marks."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    head, _, rest = before.partition(begin)
    return head + begin + text + end + rest.partition(end)[2]


def again(name: str) -> ablations.Study:
    """Two arms of a study, with seeds that are neither the recorded ones nor those of the search."""
    study = ablations.study(name)
    arms = tuple(study.arm(arm) for arm in AGAIN[name])
    return replace(study, seeds=(201, 202, 203, 204, 205), arms=arms, full_scale=(), published=())


def other_seeds() -> str:
    """Two arms of some studies as they are recorded, beside themselves with other seeds (studies_again.py)."""
    rows, where, minutes = [], "", 0.0
    for name, value in json.loads(OTHER_SEEDS.read_text(encoding="utf-8")).items():
        second, first = outcome.from_json(value, again(name)), ablations.recorded(name)
        assert first is not None, f"{name} is not recorded"
        digits = words.DIGITS[second.study.measure]
        lines = [(second.study.arm(arm.name).words, arm.name, "means") for arm in second.arms]
        for label, arm, kind in [*lines, ("their difference", second.arms[1].name, "differences")]:
            old, new = getattr(first, kind)[arm], getattr(second, kind)[arm]
            meet = old.low <= new.high and new.low <= old.high
            both = [part for each in (old, new) for part in (mean(each.mean, digits), words.interval(each, digits))]
            study = second.study.title if arm == second.arms[0].name else ""
            rows.append([study, label, *both, "yes" if meet else "**no**"])
        minutes += second.facts["seconds"] / 60
        where = words.provenance(second).partition(" minutes of training ")[2]
    head = ["study", "arm", "recorded", "95% interval", "other seeds", "95% interval", "the intervals meet"]
    command = "python benchmarks/studies_again.py cifar-10-python.tar.gz"
    return f"{words.markdown(head, rows)}\n(`{command}`; {minutes:.0f} minutes of training {where})\n"


def mean(value: float, digits: int) -> str:
    """A mean, with a minus sign and not a hyphen."""
    return f"{value:.{digits}f}".replace("-", "−")


def edge(name: str) -> outcome.Outcome:
    """What the arms of ``benchmarks/edge/NAME.toml`` gave."""
    text = (ROOT / "benchmarks" / "results" / f"edge-{name}.json").read_text(encoding="utf-8")
    return outcome.from_json(json.loads(text), ablations.study(str(ROOT / "benchmarks" / "edge" / f"{name}.toml")))


def differences(found: outcome.Outcome) -> str:
    """A table of the arms: their errors, and how they differ from the first one."""
    rows = []
    for arm in found.arms:
        of = found.study.arm(arm.name)
        row = [of.words, f"{of.fields['learning_rate']:g}", f"{found.means[arm.name].mean:.1f}", "", ""]
        if arm is not found.base:
            difference = found.differences[arm.name]
            row[3:] = [words.signed(difference.mean), words.interval(difference)]
        rows.append(row)
    head = ["", "learning rate", "top-1 error, %: mean of five seeds", "difference from the first", "its 95% interval"]
    return f"{words.markdown(head, rows)}\n({words.provenance(found)})\n"


def fooled(before: str) -> str:
    """The page with its two tables in their places."""
    for name in ("before", "after"):
        before = between(before, name, differences(edge(name)))
    return before


if __name__ == "__main__":
    for path, made in ((PAGE, page), (FOOLED, fooled)):
        path.write_text(made(path.read_text(encoding="utf-8")), encoding="utf-8")

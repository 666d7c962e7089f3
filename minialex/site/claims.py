"""The page "the paper, claim by claim": each claim of ``claims.toml`` with its command and our recorded result."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from minialex import studies
from minialex.engine.summary import PAPER_TOTALS
from minialex.site import ROOT
from minialex.speed.energy import PAPER_DAYS, paper_kilowatt_hours
from minialex.speed.rates import KNOWN
from minialex.studies import words

NONE = ("not recorded", "Here: not recorded.")


def listed() -> list[Mapping[str, Any]]:
    """The claims from ``claims.toml``, in the order of the paper."""
    text = (resources.files("minialex.site") / "claims.toml").read_text(encoding="utf-8")
    found: list[Mapping[str, Any]] = tomllib.loads(text)["claim"]
    return found


def page() -> str:
    """The page: a table of all claims, then a section for each."""
    rows, sections = [], []
    for number, claim in enumerate(listed(), 1):
        short, long = _ours(claim)
        rows.append([f"[{number}](#claim-{number})", claim["text"], claim["paper"], short])
        commands = "\n".join(part.strip() for part in claim["command"].split(";"))
        sections.append(
            f"## {number}. {claim['text']} {{ #claim-{number} }}\n\nThe paper ({_where(claim['section'])}): "
            f"{claim['paper']}.\n\n```bash\n{commands}\n```\n\n{long}\n"
        )
    return (
        "---\nhide: [toc]\n---\n\n# The paper, claim by claim\n\nOur results come from small networks on small "
        "photographs, trained for minutes on two processor cores (see [the studies](studies.md), with the rules of the "
        "verdicts): they say whether an effect shows at that scale, not what it is worth on ImageNet. Where nothing is "
        "recorded, nobody has run it yet; the command is there.\n\n"
        + words.markdown(["", "the paper says", "its number", "here"], rows)
        + "\n"
        + "\n".join(sections)
    )


def _where(section: str) -> str:
    return f"section {section}" if section[0].isdigit() else section


def _ours(claim: Mapping[str, Any]) -> tuple[str, str]:
    """Our result in a few words, and in full."""
    if claim.get("ours") == "summary":
        said = f"{PAPER_TOTALS['parameters']:,} parameters, {PAPER_TOTALS['neurons']:,} neurons"
        return said, f"Here: {said}."
    if claim.get("ours") == "energy":
        return _energy()
    if claim.get("ours") in RECORDED:
        name, said_of = RECORDED[claim["ours"]]
        paths = sorted((ROOT / "benchmarks" / "results").glob(name))
        return said_of(json.loads(paths[0].read_text(encoding="utf-8"))) if paths else NONE
    found = studies.recorded(claim["study"]) if "study" in claim else None
    if found is None:
        return NONE
    verdicts, sentences = [], []
    for arm, sentence in zip(found.arms[1:], studies.verdict(found), strict=True):
        if arm.name in claim["arms"] if "arms" in claim else found.study.arm(arm.name).expect != "none":
            verdict = words.judgement(found, arm)
            if found.study.measure == "training" and not words.not_comparable(found, arm):  # a value, no difference
                verdict = f"training error {found.means[arm.name].mean:.1f}% ({found.study.arm(arm.name).words})"
            verdicts += [verdict] if verdict not in verdicts else []
            sentences.append(f"- {sentence[0].upper()}{sentence[1:]}")
    from markdown.extensions.toc import slugify  # mkdocs has it; an installed minialex need not

    title = found.study.title
    link = f"[{title}](studies.md#{slugify(title, '-')})"
    return "; ".join(verdicts), "\n".join(["Here:", "", *sentences, "", f"The study: {link}."])


def _energy() -> tuple[str, str]:
    """The energy of the paper's GPUs at their stated watts."""
    least, most = (f"{value:.0f}" for value in paper_kilowatt_hours())
    card = KNOWN["gtx580"]
    return f"{least} to {most} kWh for the two cards, by stated watts", (
        f"By arithmetic: two cards of {card.watts:g} W ([stated]({card.watts_source})) for {PAPER_DAYS[0]} to "
        f"{PAPER_DAYS[1]} days take {least} to {most} kWh, without the machine around them and without the trainings "
        "that led to this one. The command has the same for a card of today."
    )


def _bench(recorded: Mapping[str, Any]) -> tuple[str, str]:
    """The full network's training step on the processor where it was recorded."""
    found = recorded["train"]
    seconds, where = found["train-128"]["minialex"]["median"], found["recorded"]
    cores = where["machine"]["cores"]
    machine = f"{where['machine']['processor']}, {cores} cores, {where['date']}"
    days = round(90 * 1_281_167 / 128 * seconds / 86_400)
    return f"{days} days on {cores} processor cores, by a step's time", (
        f"Here: a step of 128 images takes {seconds:.2f} s with the Numba backend ({machine}), so 90 epochs of "
        f"1,281,167 images would take {days} days; see [Performance](../performance.md)."
    )


def _source(found: Mapping[str, Any]) -> str:
    """Which networks were examined, and with which command."""
    where = found["recorded"]
    return (
        f"({len(found['runs'])} small networks, those of the study of columns; `{found['command']}`; "
        f"{where['machine']['processor']}, {where['machine']['cores']} cores, {where['date']})"
    )


def _kernels(found: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the columns differ in colour."""
    runs = found["runs"]
    count = sum(run["p"] < words.SIGNIFICANT for run in runs)
    listed = ", ".join(f"{run['p']:.2g}" for run in runs)
    short = f"columns differ in {count} of {len(runs)} runs (p < {words.SIGNIFICANT})"
    return short, f"Here: the {short}; p is {listed}. {_source(found)}"


def _moved(found: Mapping[str, Any]) -> tuple[str, str]:
    """How often a class is still recognised when the image is off-centre."""
    runs = found["runs"]
    shares = {
        shift: sum(run["right_when_moved"][shift] for run in runs) / len(runs) for shift in runs[0]["right_when_moved"]
    }
    first, *rest = [f"{100 * share:.0f}%" for share in shares.values()]
    moved = [f"{100 * int(shift) / runs[0]['crop']:.0f}%" for shift in list(shares)[1:]]
    listed = ", ".join(f"{share} moved by {by}" for share, by in zip(rest, moved, strict=True))
    return f"right: {first} unmoved, {rest[0]} moved by {moved[0]} of the view", (
        f"Here: of {found['moved_images']} validation images {first} are rightly classified where they are, {listed} "
        f"of the view's side (the longer way, down or sideways). {_source(found)}"
    )


def _alike(found: Mapping[str, Any]) -> tuple[str, str]:
    """Whether neighbours in feature space have the same class, and are close in pixels."""
    same, chance, nearer = (
        found["intervals"][key] for key in ("same_class", "same_class_by_chance", "nearer_in_pixels")
    )
    return f"{100 * same[0]:.0f}% of the neighbours have its class ({100 * chance[0]:.0f}% by chance)", (
        f"Here: of the {found['neighbours']} nearest of {found['library']:,} training images, {100 * same[0]:.0f}% "
        f"(95% interval over the runs {100 * same[1]:.0f} to {100 * same[2]:.0f}) have the image's own class, where "
        f"chance would give {100 * chance[0]:.0f}%; as pixels, {100 * nearer[0]:.0f}% of the training images are "
        f"nearer to it than such a neighbour. {_source(found)}"
    )


def _within(found: Mapping[str, Any]) -> tuple[str, str]:
    """How many errors stay within a super-class."""
    if "within_super_class" not in found["intervals"]:  # recorded before they were counted
        return NONE
    share, chance = (found["intervals"][key] for key in ("within_super_class", "within_super_class_by_chance"))
    return f"{100 * share[0]:.0f}% of the errors ({100 * chance[0]:.0f}% by chance)", (
        f"Here: of the wrongly classified CIFAR-10 images {100 * share[0]:.0f}% (95% interval over the runs "
        f"{100 * share[1]:.0f} to {100 * share[2]:.0f}) were taken for another animal where they show an animal, or "
        f"another vehicle where they show a vehicle; chance would give {100 * chance[0]:.0f}%. {_source(found)}"
    )


RECORDED: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], tuple[str, str]]]] = {
    "bench": ("cpu/*.json", _bench),
    "kernels": ("looked.json", _kernels),
    "moved": ("looked.json", _moved),
    "alike": ("looked.json", _alike),
    "within": ("looked.json", _within),
}
"""Results in ``benchmarks/results``: the file (of several, the first), and functions for a short and a long text."""

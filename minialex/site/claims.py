"""The page "the paper, claim by claim": each claim of ``claims.toml`` with its command and our recorded result."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from markdown.extensions.toc import slugify

from minialex import ablations
from minialex.ablations import words
from minialex.ablations.words import markdown
from minialex.site import ROOT
from minialex.summary import PAPER_TOTALS

NOT_RECORDED = "not recorded"


def listed() -> list[Mapping[str, Any]]:
    """The claims in the order of the paper, as ``claims.toml`` has them."""
    text = (resources.files("minialex.site") / "claims.toml").read_text(encoding="utf-8")
    found: list[Mapping[str, Any]] = tomllib.loads(text)["claim"]
    return found


def page() -> str:
    """The page: a table of all, then a section each."""
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
        + markdown(["", "the paper says", "its number", "here"], rows)
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
    if claim.get("ours") == "bench":
        return _bench()
    found = ablations.recorded(claim["study"]) if "study" in claim else None
    if found is None:
        return NOT_RECORDED, "Here: not recorded."
    verdicts, sentences = [], []
    for arm, sentence in zip(found.arms[1:], ablations.verdict(found), strict=True):
        if arm.name in claim.get("arms", [arm.name]) and found.study.arm(arm.name).expect != "none":
            verdict = words.judgement(found, arm)
            verdicts += [verdict] if verdict not in verdicts else []
            sentences.append(f"- {sentence[0].upper()}{sentence[1:]}")
    title = found.study.title
    link = f"[{title}](studies.md#{slugify(title, '-')})"
    return "; ".join(verdicts), "\n".join(["Here:", "", *sentences, "", f"The study: {link}."])


def _bench() -> tuple[str, str]:
    """The full network's training step on the processor that it was recorded on."""
    path = ROOT / "benchmarks" / "results" / "cpu.json"
    if not path.is_file():
        return NOT_RECORDED, "Here: not recorded."
    found = json.loads(path.read_text(encoding="utf-8"))["train"]
    seconds, where = found["train-128"]["minialex"]["median"], found["recorded"]
    cores = where["machine"]["cores"]
    machine = f"{where['machine']['processor']}, {cores} cores, {where['date']}"
    days = round(90 * 1_281_167 / 128 * seconds / 86_400)
    return f"{days} days on {cores} processor cores, by a step's time", (
        f"Here: a step of 128 images takes {seconds:.2f} s with the Numba backend ({machine}), so 90 epochs of "
        f"1,281,167 images would take {days} days; see [Performance](../performance.md)."
    )

"""The entries of the ImageNet competition, ``competition.toml``: the drawing's data, and the table of a page."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from minialex.site import bibliography
from minialex.studies.words import markdown

HUMAN = 5.1
"""Top-5 error, in per cent, of one trained person on 1,500 pictures (Russakovsky and others 2015)."""


@dataclass(frozen=True)
class Entry:
    """An entry: its year and team, top-5 test error in per cent, what it was, and the number's source."""

    year: int
    team: str
    error: float
    what: str
    network: bool
    source: str
    extra: bool = False


def entries() -> list[Entry]:
    """All entries, by year and error."""
    text = (resources.files("minialex.site") / "competition.toml").read_text(encoding="utf-8")
    return sorted((Entry(**found) for found in tomllib.loads(text)["entry"]), key=lambda e: (e.year, e.error))


def table() -> str:
    """The table, each number with its source; included by pages of the tutorial."""
    works: Mapping[str, bibliography.Work] = bibliography.works()
    rows = [
        [str(e.year), f"**{e.team}**" if e.network else e.team, f"{e.error:.1f}%", e.what, works[e.source].cited()]
        for e in entries()
    ]
    return markdown(["year", "team (bold: a convolutional network)", "top-5 error", "what it was", "source"], rows)

"""The page of works cited, from ``bibliography.toml``, and how a page cites one.

A citation is a link to the work's anchor with the work's label as text, the same everywhere:
``[He and others 2015](../made/bibliography.md#he-2015)``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from minialex.site import ROOT

CITATION = re.compile(r"\[([^][]+)\]\([^)\s]*\bbibliography\.md#([^)\s]+)\)", re.DOTALL)


@dataclass(frozen=True)
class Work:
    """A work: its anchor, label, authors, title, year, place and link, as shown on the page."""

    key: str
    label: str
    authors: Sequence[str]
    title: str
    year: str
    where: str
    link: str

    def cited(self, page: str = "../made/bibliography.md") -> str:
        """A link to the work, as written in a page."""
        return f"[{self.label}]({page}#{self.key})"


def works() -> dict[str, Work]:
    """Every work, by its anchor."""
    text = (resources.files("minialex.site") / "bibliography.toml").read_text(encoding="utf-8")
    return {key: _work(key, found) for key, found in tomllib.loads(text).items()}


def _work(key: str, found: Mapping[str, str | list[str]]) -> Work:
    """A table of the file as a work."""
    authors, year = list(found["authors"]), str(found["year"])
    surnames = [name.split()[-1] for name in authors]
    named = (
        surnames[0]
        if len(authors) == 1
        else " and ".join(surnames)
        if len(authors) == 2
        else f"{surnames[0]} and others"
    )
    if "arxiv" in found:
        link = f"[arXiv:{found['arxiv']}](https://arxiv.org/abs/{found['arxiv']})"
    elif "doi" in found:
        link = f"[doi:{found['doi']}](<https://doi.org/{found['doi']}>)"
    else:
        link = f"<{found['url']}>"
    title, where = str(found["title"]), str(found["where"])
    return Work(key, str(found.get("label", f"{named} {year}")), authors, title, year, where, link)


def citing() -> dict[str, list[Path]]:
    """The pages that cite each work, by its anchor; a page that cites twice is listed once."""
    pages = sorted(path for path in (ROOT / "docs").rglob("*.md") if "made" not in path.parts)
    found: dict[str, list[Path]] = {}
    for path in pages:
        for key in dict.fromkeys(key for _, key in CITATION.findall(path.read_text(encoding="utf-8"))):
            found.setdefault(key, []).append(path)
    return found


def page() -> str:
    """The page: each work with its link and the pages that cite it, in the order of labels."""
    cited, lines = citing(), []
    for work in sorted(works().values(), key=lambda work: work.label.casefold()):
        places = "; ".join(
            f"[{_title(path)}](../{path.relative_to(ROOT / 'docs').as_posix()})" for path in cited.get(work.key, ())
        )
        title = work.title if work.title.endswith("?") else f"{work.title}."
        lines.append(
            f"**{work.label}**{{ #{work.key} }}: {', '.join(work.authors)}. *{title}* {work.where}. {work.link}"
            f"{f'. Cited in: {places}' if places else ''}.\n"
        )
    return (
        "# Works cited\n\nEvery work that these pages cite, with a stable link where there is one. "
        "“The paper” is always Krizhevsky, Sutskever, Hinton 2012; “the program” is the one of which the Computer "
        "History Museum has published the source.\n\n" + "\n".join(lines)
    )


def _title(path: Path) -> str:
    """A page's first heading."""
    return next(line[2:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# "))

"""Works cited: every citation has its entry and says its label, every entry is cited, and links are well formed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from minialex.site import bibliography, competition

ROOT = Path(__file__).resolve().parents[2]
WORKS = bibliography.works()
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "made" not in path.parts)


def citations() -> Iterator[tuple[str, str, str]]:
    """Every citation: the page, its words and its anchor."""
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in PAGES]
    for name, text in [*texts, ("competition", competition.table())]:
        for said, key in bibliography.CITATION.findall(text):
            yield name, " ".join(said.split()), key


def test_every_citation_has_its_entry_and_is_written_as_all_are() -> None:
    for page, said, key in citations():
        assert key in WORKS, f"{page}: {said}"
        assert said == WORKS[key].label or (page, said) == ("index.md", "the paper"), page


def test_every_entry_is_cited() -> None:
    assert set(WORKS) == {key for _, _, key in citations()}


@pytest.mark.parametrize("work", WORKS.values(), ids=lambda work: work.key)
def test_an_entry_is_whole(work: bibliography.Work) -> None:
    assert re.fullmatch(r"[a-z-]+-\d{4}[a-z]?", work.key)
    assert re.fullmatch(r".+ (19|20)\d\d[a-z]?", work.label)
    assert work.authors
    assert work.title
    assert not work.title.endswith(".")
    assert re.fullmatch(
        r"\[arXiv:(\d{4}\.\d{4,5})\]\(https://arxiv\.org/abs/\1\)|\[doi:(10\.\S+)\]\(<https://doi\.org/\2>\)|<https://\S+>",
        work.link,
    )


def test_labels_tell_works_apart() -> None:
    assert len({work.label for work in WORKS.values()}) == len(WORKS)


def test_chapters_cite_through_the_page_and_not_past_it() -> None:
    for path in PAGES:
        if path.parent.name == "tutorial":
            assert not re.search(r"\]\(<?https?://(arxiv|doi)\.org", path.read_text(encoding="utf-8")), path


def test_the_page_has_an_anchor_a_link_and_the_citing_pages_for_each() -> None:
    page = bibliography.page()
    for work in WORKS.values():
        (line,) = [line for line in page.splitlines() if f"{{ #{work.key} }}" in line]
        assert work.link in line
        assert "Cited in: [" in line


def test_the_competition_is_drawn_and_told_from_one_file() -> None:
    found = competition.entries()
    assert [e.error for e in found if e.year == 2012][:3] == [15.3, 16.4, 26.2]
    assert min(e.error for e in found if not e.network) > max(e.error for e in found if e.network)
    table = competition.table()
    for entry in found:
        assert f"| {entry.year} |" in table
        assert f"{entry.error:.1f}% | {entry.what} | {WORKS[entry.source].cited()}" in table


def test_the_glossary_is_in_order_and_its_chapters_use_the_words() -> None:
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs/reference/glossary.md").read_text().splitlines()[7:]]
    terms = [row[0].strip() for row in rows if row]
    assert len(terms) > 40
    assert terms == sorted(terms, key=str.casefold)
    for row in rows:
        (chapter,) = re.findall(r"\(\.\./tutorial/([\w-]+\.md)\)", row[3])
        text = " ".join((ROOT / "docs/tutorial" / chapter).read_text(encoding="utf-8").casefold().split())
        names = [re.sub(r"\(.*?\)|^(strictly|or|one|gradients) ", "", n.strip()) for n in re.split(r"[,;]", row[0])]
        assert any(name.strip().casefold() in text for name in names), f"{row[0]}: {chapter}"

"""Slides: every chapter becomes a deck that holds its headings, drawings and programs, and runs off no slide."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from minialex.site import ROOT, slides


class Whole(HTMLParser):
    """Whether every element that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    files = slides.write(tmp_path_factory.mktemp("slides"), slides.chapters())
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


def test_every_chapter_has_a_deck_with_its_sections_drawings_and_programs(decks: dict[str, str]) -> None:
    assert len(decks) >= 20
    for name, deck in decks.items():
        text = (ROOT / "docs" / "tutorial" / f"{name}.md").read_text(encoding="utf-8")
        for heading in re.findall(r"^##? (.+?)(?: \{.*)?$", text, re.MULTILINE):
            assert slides.inline(heading) in deck, (name, heading)
        assert deck.count('<div class="drawing"><svg') == text.count('--8<-- "docs/made/diagrams/')
        assert "--8<--" not in deck
        assert 6 <= deck.count("<section") <= 40 or name in ("04-relu", "09-augmentation", "16-after-2012")
        assert Whole(deck).open in ([], ["html"])


def test_no_slide_holds_more_than_fits(decks: dict[str, str]) -> None:
    for name, deck in decks.items():
        for shown in re.findall(r"<pre>(.*?)</pre>", deck, re.DOTALL):
            assert shown.count("\n") < slides.LINES, name


def test_what_is_too_much_for_a_screen_is_made_smaller(decks: dict[str, str]) -> None:
    """All sizes on a slide follow one number; that the script lowers it is tested in a browser."""
    styles = decks["04-relu"].partition("<style>")[2].partition("</style>")[0]
    assert re.findall(r"^(?:h1|pre|code|table)\b.*?font-size: [\d.]+rem", styles, re.MULTILINE) == []


def test_what_leads_to_something_that_runs_in_the_page_is_left_out(decks: dict[str, str]) -> None:
    assert "And kernels:" in (ROOT / "docs" / "tutorial" / "03-convolution.md").read_text(encoding="utf-8")
    shown = re.sub(r"<aside.*?</aside>", "", decks["03-convolution"], flags=re.DOTALL)
    assert "<p>And kernels:</p>" not in shown


def test_a_short_first_sentence_is_not_alone(decks: dict[str, str]) -> None:
    assert "<p>There is a trick.</p>" not in decks["03-convolution"]


def test_sentences_are_not_cut_within_formulas_code_and_brackets() -> None:
    text = "It is $a.b. c$ (see e.g. `x. y` there). **So it is.** Is it?"
    assert slides.sentences(text) == ["It is $a.b. c$ (see e.g. `x. y` there).", "**So it is.**", "Is it?"]
    assert slides.inline("a *b* [c](d.md) `e*f*` $g*h*$ <i>") == (
        'a <i>b</i> c <code>e*f*</code> <span class="math">$g*h*$</span> &lt;i&gt;'
    )


def test_a_chapter_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert slides.main([str(tmp_path / "s"), "--only", "04-relo"]) == 2
    assert "no chapter '04-relo'" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()

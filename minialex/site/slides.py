"""A deck of slides for each chapter, made from its sections, drawings and programs, as one HTML file.

``python -m minialex.site.slides FOLDER [--only 04-relu,12-depth]`` writes ``FOLDER/04-relu.html`` and so on. A file
needs nothing else but the folder ``katex``, for formulas. Arrow keys turn the slides, ``n`` shows the text of the
chapter as the speaker's notes, and printed it is a handout.

A slide is made of what a class should see: a heading, the first sentence of each paragraph (or those that are bold),
formulas, tables, drawings, programs and what they print. The whole text is the notes.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

from minialex import studies
from minialex.errors import ConfigurationError, MinialexError, nearest
from minialex.site import ROOT, competition, diagrams, listings, pages
from minialex.storage.atomic import write_text

KATEX = ROOT / "docs" / "made" / "katex"
"""The script for formulas, if ``python -m minialex.site`` has fetched it; without it formulas stay TeX."""
LINES = 17
"""Lines of a program per slide; longer ones continue on the next."""

_BLOCK = re.compile(
    r"(?P<fence>^```\w+[^\n]*\n(?P<code>.*?)^```$)|(?P<figure><figure.*?</figure>)|(?P<math>\$\$.*?\$\$)",
    re.DOTALL | re.MULTILINE,
)
_FRAMES = re.compile(r"</?(?:div|details)[^>]*>|<(?P<tag>summary|noscript)>.*?</(?P=tag)>", re.DOTALL)
"""Frames of live parts and collapsed boxes: their contents are shown, the frames are not."""
_INCLUDED = re.compile(r'--8<-- "([^"]+)"')


@dataclass
class Slide:
    """A slide: its heading, what it shows (HTML), and the speaker's notes (plain text)."""

    heading: str
    shown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def chapters() -> list[str]:
    """The chapters' names, in order."""
    return sorted(path.stem for path in (ROOT / "docs" / "tutorial").glob("[0-9]*.md"))


def inline(text: str) -> str:
    """A line of Markdown as HTML: code, formulas, bold, italics; links become their text."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)(\{[^}]*\})?", r"\1", text)
    parts = []
    for part in re.split(r"(`[^`]+`|\$[^$]+\$)", text):
        if part.startswith("`"):
            parts.append(f"<code>{escape(part.strip('`'))}</code>")
        elif part.startswith("$"):
            parts.append(f'<span class="math">{escape(part)}</span>')
        else:
            strong = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(part, quote=False))
            parts.append(re.sub(r"\*(.+?)\*", r"<i>\1</i>", strong))
    return "".join(parts)


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph; formulas, code and brackets are not split."""
    found, depth, closed, begin = [], 0, "", 0
    for place, sign in enumerate(paragraph):
        if sign in "$`":
            closed = "" if closed == sign else closed or sign
        depth += 0 if closed else (sign in "([{") - (sign in ")]}")
        ends = re.match(r"[.?!][*\"]*(?= |$)", paragraph[place:])
        if ends and not depth and not closed:
            found.append(paragraph[begin : place + ends.end()].strip())
            begin = place + ends.end()
    return [sentence for sentence in [*found, paragraph[begin:].strip()] if sentence]


def slides(name: str, made: Path) -> list[Slide]:
    """The slides of a chapter; `made` has the drawings and listings that it includes."""
    text = (ROOT / "docs" / "tutorial" / f"{name}.md").read_text(encoding="utf-8")
    deck: list[Slide] = []
    for section in re.split(r"^(?=##? )", text, flags=re.MULTILINE):
        head, _, body = section.partition("\n")
        if head.startswith("#"):
            deck += _section(head.lstrip("# ").split(" {")[0], _FRAMES.sub("", body), made)
    return [slide for slide in deck if slide.shown or slide.notes]


def _section(heading: str, body: str, made: Path) -> Iterator[Slide]:
    """The slides of one section: anything that no longer fits begins a new one."""
    slide, place = Slide(heading), 0
    for match in [*_BLOCK.finditer(body), None]:
        prose = body[place : match.start() if match else len(body)]
        place = match.end() if match else place
        for paragraph in re.split(r"\n\s*\n", prose):
            shown, note = _paragraph(paragraph.strip(), made)
            if shown and sum(map(_weight, slide.shown)) + _weight(shown) > LINES and slide.shown:
                yield slide
                slide = Slide(heading)
            slide.shown += [shown] if shown else []
            slide.notes += [note] if note else []
        for shown in _shown(match, made) if match else ():
            if sum(map(_weight, slide.shown)) + _weight(shown) > LINES and slide.shown:
                yield slide
                slide = Slide(heading)
            slide.shown.append(shown)
    yield slide


def _paragraph(text: str, made: Path) -> tuple[str, str]:
    """The part of a paragraph that a slide shows (HTML), and the notes (plain text)."""
    if not text or text.startswith(("<!--", "---")):
        return "", ""
    if found := _INCLUDED.fullmatch(text):
        return _included(Path(found[1]), made)
    if text.startswith("|"):
        return _table(text), ""
    flat = " ".join(text.split())
    note = re.sub(r"<[^>]+>", "", inline(flat))
    if text.startswith(("- ", "> ")):
        items = [" ".join(item.split()) for item in re.split(r"^[->] ", text, flags=re.MULTILINE) if item.strip()]
        return "<ul>" + "".join(f"<li>{inline(sentences(item)[0])}</li>" for item in items) + "</ul>", note
    if text.startswith(("Do it yourself:", "Next:", "Last:")) or text[0].islower():  # the end of a sentence: notes
        return "", note
    if flat.endswith(":") and len(flat) < 20:  # "And kernels:", of something that runs in the page
        return "", note
    said = sentences(flat)
    first = " ".join(said[: 1 + (len(said[0]) < 40)])  # "There is a trick." alone says nothing
    strong = [f"{a} {b}" if len(a) < 40 else a for a, b in pairwise([*said, ""]) if "**" in a]
    return "".join(f"<p>{inline(sentence.strip())}</p>" for sentence in strong or [first]), note


def _included(path: Path, made: Path) -> tuple[str, str]:
    """An included part of a page: a study's table, with its verdict as notes; another table; or a drawing."""
    if path.parent.name == "ablations":
        outcome = studies.recorded(path.stem)
        return (_table(studies.table(outcome)), " ".join(studies.verdict(outcome))) if outcome else ("", "")
    text = (made / path.relative_to("docs/made")).read_text(encoding="utf-8")
    if path.suffix == ".svg":
        return f'<div class="drawing">{text}</div>', ""
    return _table("\n".join(line for line in text.splitlines() if line.startswith("|"))), ""


def _shown(match: re.Match[str], made: Path) -> Iterator[str]:
    """A block's content, in pieces that fit on a slide."""
    if match["figure"]:
        for path in _INCLUDED.findall(match["figure"]):
            yield _included(Path(path), made)[0]
    elif match["math"]:
        yield f'<p class="math">{escape(" ".join(match["math"].split()))}</p>'
    elif match["fence"]:
        code = _INCLUDED.sub(lambda found: _source(found[1], made), match["code"])
        lines = code.strip("\n").splitlines()
        for begin in range(0, len(lines), LINES):
            yield f"<pre>{escape(chr(10).join(lines[begin : begin + LINES]))}</pre>"


def _source(path: str, made: Path) -> str:
    """The text of a listing that a page includes."""
    file = made / Path(path).relative_to("docs/made") if path.startswith("docs/made/") else ROOT / path
    return file.read_text(encoding="utf-8")


def _table(text: str) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines()]
    head, *rest = [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    body = "".join(f"<tr>{''.join(f'<td>{inline(cell)}</td>' for cell in row)}</tr>" for row in rest)
    return f"<table><tr>{''.join(f'<th>{inline(cell)}</th>' for cell in head)}</tr>{body}</table>"


def _weight(shown: str) -> int:
    """Roughly how many lines a piece takes."""
    if shown.startswith('<div class="drawing">'):
        return LINES
    return shown.count("\n") + shown.count("<tr>") + 2 * shown.count("<li>") + 2 * shown.count("<p>") + 1


def deck(name: str, made: Path) -> str:
    """A chapter's deck as one HTML page."""
    found = slides(name, made)
    parts = []
    for number, slide in enumerate(found, 1):
        notes = "".join(f"<p>{escape(note, quote=False)}</p>" for note in slide.notes)
        tag = "h1" if number == 1 else "h2"
        parts.append(
            f'<section id="s{number}"><{tag}>{inline(slide.heading)}</{tag}>{"".join(slide.shown)}'
            f"<aside>{notes}</aside><footer>{number} / {len(found)}</footer></section>"
        )
    return _PAGE.replace("TITLE", escape(found[0].heading)).replace("SLIDES", "\n".join(parts))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>TITLE</title>
<link rel="stylesheet" href="katex/katex.min.css">
<style>
body { margin: 0; font: 1.5rem/1.4 Roboto, Helvetica, Arial, sans-serif; color: #1f2328; background: #fff; }
section { box-sizing: border-box; min-height: 100vh; padding: 3vh 6vw 6vh; position: relative; }
section { font-size: calc(1em * var(--fit, 1)); }
.turned section { display: none; }
.turned section.now { display: block; }
h1 { font-size: 2em; margin-top: 20vh; } h2 { color: #0069a6; font-size: 1.33em; margin: 0 0 2vh; }
pre { background: #f4f5f7; font-size: .7em; line-height: 1.35; overflow-x: auto; padding: .8em; }
code { background: #f4f5f7; font-size: .9em; } .math { text-align: center; }
.drawing svg { display: block; height: calc(66vh * var(--fit, 1)); margin: 0 auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .63em; } td, th { border: 1px solid #b8bec8; padding: .2em .5em; }
th { text-align: left; } li { margin: .4em 0; }
aside { border-top: 1px solid #b8bec8; color: #40464f; display: none; font-size: 1rem; margin-top: 3vh; }
.noted aside { display: block; }
footer { bottom: 2vh; color: #59606b; font-size: 1rem; position: absolute; right: 6vw; }
@media print { section { break-after: page; min-height: 0; } .turned section { display: block; } }
</style>
<body>
SLIDES
<script src="katex/katex.min.js"></script>
<script>
for (const place of window.katex ? document.querySelectorAll(".math") : []) {
  const text = place.textContent.trim();
  const inner = text.replace(/^\\$+|\\$+$/g, "");
  window.katex.render(inner, place, { displayMode: text.startsWith("$$"), throwOnError: false });
}
const all = [...document.querySelectorAll("section")];
let now = 0;
function wide(slide) {  // a program, table or formula that ends beyond the slide's text
  const edge = slide.querySelector("h1, h2").getBoundingClientRect().right + 1;
  return [...slide.querySelectorAll("pre")].some(part => part.scrollWidth > part.clientWidth + 1)
    || [...slide.querySelectorAll("table, .base")].some(part => part.getBoundingClientRect().right > edge);
}
function fit(slide) {  // what is too much for the screen is made smaller, down to half
  for (let size = 1; size > 0.49; size -= 0.04) {
    slide.style.setProperty("--fit", size);
    if (slide.scrollHeight <= innerHeight + 1 && !wide(slide)) return;
  }
}
function show(number) {
  now = Math.max(0, Math.min(all.length - 1, number));
  all.forEach((slide, place) => slide.classList.toggle("now", place === now));
  if (!document.body.classList.contains("noted")) fit(all[now]);
  history.replaceState(null, "", "#s" + (now + 1));
}
document.body.classList.add("turned");
addEventListener("keydown", event => {
  if (["ArrowRight", "ArrowDown", "PageDown", " "].includes(event.key)) show(now + 1);
  else if (["ArrowLeft", "ArrowUp", "PageUp"].includes(event.key)) show(now - 1);
  else if (event.key === "n") document.body.classList.toggle("noted");
  else return;
  event.preventDefault();
});
addEventListener("resize", () => show(now));
document.fonts.ready.then(() => show(now));
show(Number(location.hash.slice(2)) - 1 || 0);
</script>
</body></html>
"""


def write(folder: Path, names: Sequence[str]) -> list[Path]:
    """Write decks into a folder, which is created if needed; return the files.

    Raises:
        ConfigurationError: If there is no such chapter.
    """
    known = chapters()
    for name in names:
        if name not in known:
            raise ConfigurationError(f"no chapter '{name}'; there are {', '.join(known)}.{nearest(name, known)}")
    folder.mkdir(parents=True, exist_ok=True)
    if KATEX.is_dir():
        shutil.copytree(KATEX, folder / "katex", dirs_exist_ok=True)
    files = []
    with tempfile.TemporaryDirectory() as work:
        made = Path(work)
        diagrams.write(made / "diagrams")
        listings.write(made / "code", [ROOT / "docs" / "tutorial" / f"{name}.md" for name in names])
        (made / "tables").mkdir()
        for table, text in (("competition", competition.table()), ("video", pages.films())):
            write_text(made / "tables" / f"{table}.md", text)
        for name in names:
            files.append(folder / f"{name}.html")
            write_text(files[-1], deck(name, made))
    return files


def main(arguments: Sequence[str]) -> int:
    """Write the decks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m minialex.site.slides", description="A deck of slides a chapter.")
    parser.add_argument("folder", type=Path, help="where the decks go")
    parser.add_argument("--only", help="chapters, with commas: 04-relu,12-depth (default: all)")
    asked = parser.parse_args(arguments)
    try:
        write(asked.folder, asked.only.split(",") if asked.only else chapters())
    except MinialexError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

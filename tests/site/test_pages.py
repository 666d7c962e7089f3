"""What the site is made of: generated pages, programs in pages, the local server."""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from minialex import studies as ablations
from minialex.cli import app as cli
from minialex.cli import server
from minialex.course.sources import source
from minialex.errors import ConfigurationError
from minialex.recipe import toml as recipe
from minialex.site import blocks, claims, pages

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = sorted(path for path in (ROOT / "docs").rglob("*.md") if "made" not in path.parts)
PROGRAMS = [
    path for path in WRITTEN if blocks.blocks(path.read_text(encoding="utf-8")) and path.stem != "teach"
]  # it has its own test
# a developer may be without
NEEDS = {"weights": ("torch", "onnxruntime"), "look-inside": ("pyarrow",), "many-machines": ("mpi4py",)}


def test_every_page_with_programs_is_run() -> None:
    found = {path.relative_to(ROOT / "docs").as_posix() for path in PROGRAMS}
    assert {"imagenet.md", "weights.md", "look-inside.md", "two-gpus.md", "performance.md", "ablations.md"} <= found


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_programs_are_marked_so_that_they_are_found(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^ *```(?:sh|shell|console|python3|pycon)\b", text, re.MULTILINE) == []


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_program_of_a_page_runs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in () if os.environ.get("CI") else NEEDS.get(path.stem, ()):
        pytest.importorskip(name)
    assert "```text\n\n```" not in text
    assert blocks.faults(blocks.run(text, path.name), path.name) == []


def test_programs_are_run_in_order_and_their_output_is_compared() -> None:
    page = "```python\nx = 2\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n4\n```\n"
    assert "but it prints\n3" in blocks.faults(blocks.run(page))[0]
    assert blocks.faults(blocks.run(page.replace("4", "3"))) == []
    assert "the bash block fails" in blocks.faults(blocks.run("```bash\nfalse\n```\n"))[0]
    skipped = "<!-- not run: why -->\n```bash\nfalse\n```\n\n```bash\ntrue\n```\n"
    assert [block.source for block in blocks.blocks(skipped)] == ["true\n"]
    assert blocks.with_outputs(page, blocks.run(page)).endswith("```text\n3\n```\n")


def test_the_command_line_page_has_every_command_and_option() -> None:
    page = pages.command_line()
    for name in ("train", "ablate", "look kernels", "store check", "docs", "grade", "notebooks"):
        assert f"# minialex {name}\n" in page
    assert "`--learning-rate" not in page
    assert "`--resume`" in page
    assert "`--quick`" in page


def test_the_recipe_page_has_every_field_and_recipe() -> None:
    page = pages.recipes()
    for name in recipe.fields():
        assert f"| `{name}` |" in page
    for name in recipe.built_in():
        assert f"- **{name}**:" in page


def test_every_claim_has_a_command_that_exists_and_its_own_result() -> None:
    pytest.importorskip("markdown", reason="pip install 'minialex[docs]'")
    page, known = claims.page(), pages.command_line()
    for number, claim in enumerate(claims.listed(), 1):
        section = page.split(f"\n## {number}. ")[1].split("\n## ")[0]
        assert section.startswith(claim["text"])
        for command in claim["command"].split(";"):
            words = command.split()
            assert words[0] == "minialex"
            assert f"minialex {words[1]}" in known
            if words[1] == "ablate":
                assert words[2] in ablations.names()
            if "--recipe" in words:
                assert words[words.index("--recipe") + 1] in recipe.built_in()
        if "study" in claim:
            found = ablations.recorded(claim["study"])
            if found is None:  # its design has changed, and nobody has run it since
                assert "not recorded" in section
                continue
            said = [sentence for sentence in ablations.verdict(found) if sentence[1:] in section]
            assert said, "a claim with a study shows what it found"
            assert all("paper's claim" in sentence for sentence in said) or "arms" in claim
        assert not re.search(r"\d", str(claim.get("ours", ""))), "results of ours are read, not typed"
    assert f"training error {ablations.recorded('random-labels').means['random'].mean:.1f}%" in claims.page()


def test_margins_over_earlier_results_are_what_their_numbers_give() -> None:
    number, checked = r"(\d+\.\d)%", 0
    for claim in claims.listed():
        if " fewer" in claim["paper"]:
            mine, theirs = (re.findall(number, side) for side in claim["paper"].split(": ")[0].split(" against "))
            fewer = re.findall(r"(\d+)%", claim["paper"].split(": ")[1])
            assert len(mine) == len(theirs) == len(fewer) >= 1
            for a, b, margin in zip(mine, theirs, fewer, strict=True):
                assert round(100 * (1 - float(a) / float(b))) == int(margin)
                checked += 1
    assert checked == 7


def test_the_energy_of_the_papers_training_is_on_the_page() -> None:
    pytest.importorskip("markdown", reason="pip install 'minialex[docs]'")
    assert "two cards of 244 W ([stated](https://" in claims.page()
    assert "take 59 to 70 kWh" in claims.page()


def test_errors_within_a_super_class_come_from_the_record() -> None:
    known = {"within_super_class": [0.8, 0.78, 0.82], "within_super_class_by_chance": [0.474, 0.47, 0.48]}
    where = {"machine": {"processor": "x", "cores": 2}, "date": "2026-01-01"}
    found = {"intervals": known, "runs": [{}] * 5, "command": "c", "recorded": where}
    short, long = claims.RECORDED["within"][1](found)
    assert short == "80% of the errors (47% by chance)"
    assert "80% (95% interval over the runs 78 to 82)" in long
    assert claims.RECORDED["within"][1]({**found, "intervals": {}}) == claims.NONE


def test_notebooks_become_pages_with_pictures_and_words_for_them(tmp_path: Path) -> None:
    for path in pages.notebooks.paths():
        (tmp_path / path.stem).mkdir()
    names, words = pages.notebook_pages(tmp_path), dict[str, str]()
    assert len(names) == len(pages.notebooks.paths()) >= 16
    for name in names:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.startswith("# ")
        for alt, target in re.findall(r"!\[([^\n]*?)\]\(([^)]+)\)", text):
            assert len(alt.split()) >= 8, target
            words[alt] = f"{words.get(alt, '')} {target}"
            assert (tmp_path / target).stat().st_size > 500
        assert f"({name})" in (tmp_path / "index.md").read_text(encoding="utf-8")
    assert len(words) > 50, "each picture has words of its own; two studies are shown twice"


def test_docs_serves_a_built_site(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>minialex</title>")
    with server.serve(tmp_path, 0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        port = found.server_address[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html") as answer:
            assert b"minialex" in answer.read()
        with pytest.raises(ConfigurationError, match=f"port {port} cannot be used"):
            server.serve(tmp_path, port)
        found.shutdown()
        thread.join()


def answers(site: Path, pyodide: str, *paths: str) -> list[bytes]:
    """What a server of a site with a Pyodide of the reader's answers."""
    with server.serve(site, 0, pyodide) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            bodies = []
            for path in paths:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{found.server_address[1]}{path}") as answer:
                        bodies.append(answer.read())
                except urllib.error.HTTPError as error:
                    bodies.append(str(error.code).encode())
                    error.close()
            return bodies
        finally:
            found.shutdown()
            thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A site's settings, in ``site/made/live``."""
    path = tmp_path / "site" / "made" / "live" / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"pyodide": "https://elsewhere/", "wheel": "x.whl"}')
    return path


def test_docs_takes_pyodide_from_a_folder(tmp_path: Path, settings: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "pyodide"
    folder.mkdir()
    (tmp_path / "secret").write_text("not to be served")
    (folder / "pyodide-lock.json").write_text('{"packages": {"numpy": {"file_name": "numpy.whl"}}}')
    (folder / "pyodide.js").write_text("the script")
    with pytest.raises(ConfigurationError, match=r"no numpy\.whl there; unpack a full release of Pyodide"):
        server.serve(site, 0, str(folder))
    (folder / "numpy.whl").write_text("the wheel")
    before = settings.read_text()
    told, script, outside = answers(
        site, str(folder), server.SETTINGS, f"{server.PYODIDE}pyodide.js", f"{server.PYODIDE}../secret"
    )
    assert json.loads(told) == {"pyodide": "made/pyodide/", "wheel": "x.whl"}
    assert (script, outside) == (b"the script", b"404")
    assert settings.read_text() == before


@pytest.mark.parametrize("address", ["https://example.org/pyodide", "https://example.org/pyodide/"])
def test_docs_takes_pyodide_from_an_address(tmp_path: Path, settings: Path, address: str) -> None:
    (told,) = answers(tmp_path / "site", address, server.SETTINGS)
    assert json.loads(told)["pyodide"] == "https://example.org/pyodide/"


def test_docs_with_a_folder_that_is_no_pyodide(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["docs", "--no-browser", "--pyodide", str(tmp_path / "nothing")]) == 2
    assert "no pyodide.js and no pyodide-lock.json there" in capfd.readouterr().err


def test_without_a_site_and_a_source_tree_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "PACKAGE", tmp_path / "minialex")
    monkeypatch.setattr(server, "PACKAGED", tmp_path / "built")
    assert cli.run(["docs", "--no-browser"]) == 2
    assert "clone the source" in capfd.readouterr().err


COLUMN = blocks.COLUMN
WIDER = {  # what programs print there is wider than the column, and scrolls on a narrow screen
    "12-depth": "the table of `minialex summary`",
    "13-whole-network": "the table of `minialex plan`",
    "layer": "an error's one line",
    "resume": "an error's one line",
}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_code_on_pages_fits_the_column(path: Path) -> None:
    """130 characters are what fits beside the navigation on a screen of 1440 pixels (docs/assets/site.css)."""
    fences = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    wide = {
        (language, line)
        for language, text in fences
        for line in text.splitlines()
        if len(line) > COLUMN and not line.startswith("--8<--")
    }
    if path.stem in WIDER:
        assert {language for language, _ in wide} == {"text"}, wide
        assert max(len(line) for _, line in wide) <= 130
    else:
        assert wide == set()


OWN = r"philox|bit[ -]for[ -]bit|\bplacements?\b|checkpoint"  # the library's matters, not AlexNet's


def test_chapters_tell_alexnets_story_and_one_tells_the_librarys() -> None:
    """Random numbers as functions, exact resuming and placement are told in chapter 15, which is optional."""
    for path in sorted((ROOT / "docs" / "tutorial").glob("[0-9]*.md")):
        text = re.sub(r"\]\([^)]*\)", "]", path.read_text(encoding="utf-8"))  # links may lead there
        found = re.findall(OWN, text, re.IGNORECASE)
        if path.stem == "15-backends":
            assert {word.lower() for word in found} >= {"philox", "bit for bit", "placement"}
            assert "Optional" in text.partition("\n## ")[0]
        elif path.stem != "21-many-machines":
            assert len(found) <= 1, (path.name, found)


def test_chapter_0_and_the_derivations_fit_the_column() -> None:
    tutorial = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
    derived = {page.stem[:2]: _derived(page) for page in tutorial}
    assert {number for number, text in derived.items() if text} == {"03", "04", "07", "08", "10"}
    for text in (tutorial[0].read_text(encoding="utf-8"), *derived.values()):
        shown = [part.partition("\n")[2] for part in text.split("```")[1::2]]
        shown += [source(name) for name in re.findall(r"docs/made/code/([\w.]+)\.py", text)]
        assert [
            line for part in shown for line in part.splitlines() if len(line) > COLUMN and "--8<--" not in line
        ] == []


def _derived(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition('<details class="derived"')[2].partition("</details>")[0]

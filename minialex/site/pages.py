"""The generated pages of the site, made from the program, the recipes, the records and the notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minialex import studies
from minialex.course import notebooks, video
from minialex.errors import ConfigurationError
from minialex.figures import pictures
from minialex.recipe import toml as recipe
from minialex.recipe.differences import DIFFERENCES
from minialex.recipe.fields import Recipe, fields
from minialex.site import ROOT, bibliography, carried, claims, competition, quiz
from minialex.storage.atomic import write_bytes, write_text
from minialex.studies.words import markdown

WIDE = "---\nhide: [toc]\n---\n\n"
"""Front matter of a page whose table needs the full width."""


LATER = "{ loading=lazy }"
"""After a picture: it is fetched only when the reader scrolls near it."""


def cell(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def command_line() -> str:
    """The command line, command by command, from the program itself."""
    import typer

    from minialex.cli.app import app

    root: Any = typer.main.get_command(app)
    lines = [
        "# Command line\n\nMade from the program: `minialex COMMAND --help` says the same.\n\nExit codes: 0 success; "
        "2 wrong usage or configuration; 3 data; 4 checkpoint or weights; 5 numbers that are not finite; 6 memory, "
        "disk or device; 75 stopped by SIGTERM, safe to run again; 130 Ctrl-C. If the reader of the output stops "
        "(`| head`), nothing else stops; output that cannot be written ends with 6, except in `train`, which continues "
        "and says so.\n\n"
        "Names and texts from files are shown with control characters escaped (`\\x1b`). `minialex "
        "--install-completion` lets the shell complete commands, options and recipes.\n"
    ]
    for name, command in sorted(root.commands.items()):
        children = getattr(command, "commands", {})
        lines += [f"## minialex {name}\n\n{_sentences(command.help)}\n"] if children else [_command(name, command, 2)]
        lines += [_command(f"{name} {child}", children[child], 3) for child in sorted(children)]
    return "\n".join(lines)


def _sentences(text: str | None) -> str:
    return re.sub(r"[ \t]*\n[ \t]*", "\n", (text or "").strip()).replace("<", "&lt;")


def _command(name: str, command: Any, level: int) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name != "argument"]
    usage = " ".join([f"minialex {name}", *map(_argument, arguments), "[options]"])
    rows = [[f"`{p.name}`", cell(p.help or ""), ""] for p in arguments]
    rows += [[f"`{'`, `'.join(p.opts)}`", cell(p.help or ""), _default(p)] for p in options]
    table = markdown(["", "what", "default"], rows) if rows else ""
    return f"{'#' * level} minialex {name}\n\n```text\n{usage}\n```\n\n{_sentences(command.help)}\n\n{table}"


def _argument(parameter: Any) -> str:
    shown = parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
    return shown if parameter.required else f"[{shown}]"


def _default(parameter: Any) -> str:
    value = parameter.default
    shown = value is not None and value is not False and not callable(value) and value != () and str(value)
    return f"`{value}`" if shown else ""


def recipes() -> str:
    """All recipe fields with the paper's values, and the recipes of the package."""
    base = Recipe()
    lines = [
        "# Recipes\n\nA recipe is a TOML file (UTF-8) of four tables, and may begin with `base`, the name of another. "
        "Every field can be given on the command line: `--learning-rate 0.02`. Numbers in brackets are the paper's "
        "sections.\n",
        "An option overrides the recipe file, the file overrides its base, and the base overrides the paper's values. "
        "Without `--recipe` the data decides: the recipe of the same name (shapes, cifar10, fashion-mnist), "
        "alexnet-2012 for a prepared store, otherwise small. `--resume` uses the run's own recipe.\n",
    ]
    for table in ("network", "training", "images", "place"):
        rows = []
        for name, (home, info) in fields().items():
            if home == table:
                choices = f" ({', '.join(info.metadata['choices'])})" if info.metadata["choices"] else ""
                rows.append([f"`{name}`", f"`{getattr(base, name)}`", cell(info.metadata["doc"] + choices)])
        lines += [f"## {table.capitalize()}\n", markdown(["field", "the paper's value", "meaning"], rows)]
    lines += ["## The built-in recipes\n"]
    for name in recipe.built_in():
        different = recipe.load(name).differences(base)
        said = ", ".join(f"`{field}`" for field in different) or "the paper's values in every field"
        lines += [f"- **{name}**: {said}"]
    return "\n".join(lines) + "\n"


def differences() -> str:
    """The points where paper and program differ."""
    rows = [
        [str(p.number), *map(cell, (p.topic, p.paper, p.program)), ", ".join(f"`{f}`" for f in p.fields), cell(p.note)]
        for p in DIFFERENCES
    ]
    head = ["", "about", "the paper", "the 2012 program", "fields", "note"]
    return (
        f"{WIDE}# Where the paper and the 2012 program differ\n\nThe original program was published by the Computer "
        "History Museum in 2025. It differs from the paper in places; each open choice is a recipe "
        "field here. `minialex differences` prints this table; the recipe `code145` follows the program.\n\n"
        + markdown(head, rows)
    )


def notebook_pages(folder: Path) -> list[str]:
    """Write every executed notebook as a page with its pictures as files; return the names of the pages.

    Raises:
        ConfigurationError: If nbconvert is not installed.
    """
    try:
        from nbconvert import MarkdownExporter
    except ImportError as error:
        raise ConfigurationError(f"{error}; the site needs more: pip install 'minialex[docs]'") from None
    exporter: Any = MarkdownExporter()  # type: ignore[no-untyped-call]
    names, rows = [], []
    for path in notebooks.paths():
        name = path.stem
        text, found = exporter.from_filename(str(path))
        outputs: Mapping[str, bytes] = found["outputs"]
        for file, data in outputs.items():
            write_bytes(folder / name / file, data)
        title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), name)
        text = _images(text, name, json.loads(path.read_text(encoding="utf-8"))["cells"])
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        note = f"[Notebook {name}](index.md): `minialex notebooks FOLDER` gives it to you, to run and change.\n\n"
        head, _, rest = text.lstrip().partition("\n")
        write_text(folder / f"{name}.md", f"{head}\n\n{note}{rest}")
        names.append(f"{name}.md")
        rows.append([name[:2], f"[{title}]({name}.md)"])
    intro = (
        "# The course\n\nOne notebook for each innovation of the paper, in order. Each has the idea, the reference "
        "operation from its source, a small experiment, the recorded study, and exercises that a cell checks.\n\n"
        "<!-- not run: it installs, and Jupyter never ends -->\n```bash\npip "
        'install "minialex[notebooks]"\nminialex notebooks course\njupyter lab course\n```\n\nFor a course: '
        "[Teaching with minialex](../../how-to/teach.md).\n\n"
    )
    write_text(folder / "index.md", intro + markdown(["", "notebook"], rows))
    return names


def _images(text: str, name: str, cells: Sequence[Mapping[str, Any]]) -> str:
    """Replace pictures by links to their new places, with the notebook's alternative texts."""

    def replaced(match: re.Match[str]) -> str:
        alt = cells[int(match[2])]["outputs"][int(match[3])]["metadata"]["image/png"]["alt"]
        plain = re.sub(r"([][*_`])", r"\\\1", alt)  # nothing in it is Markdown
        return f"![{plain}]({name}/{match[1]}){LATER}"

    return re.sub(r"!\[\w*\]\((output_(\d+)_(\d+)\.png)\)", replaced, text)


def study_pages(folder: Path) -> None:
    """Write each study's table and text, to be included in pages, and its picture."""
    for name in studies.names():
        outcome = studies.recorded(name)
        if outcome is None:
            write_text(folder / f"{name}.md", f"The study *{studies.study(name).title}* is not recorded yet.\n")
            continue
        sentences = "".join(f"- {sentence}\n" for sentence in studies.verdict(outcome))
        text = f"{sentences}\n{studies.table(outcome)}\n({studies.provenance(outcome)})\n"
        write_text(folder / f"{name}.md", text)
        pictures.save(studies.picture(outcome), folder / f"{name}.png")
        if (searched := studies.tuning_picture(outcome)) is not None:
            pictures.save(searched, folder / f"{name}-search.png")


def films() -> str:
    """The results of the two ways to show a video, from the recorded run of ``python -m minialex.course.video``."""
    found = json.loads((ROOT / "benchmarks" / "results" / "video.json").read_text(encoding="utf-8"))
    seeds, clips = len(found["seeds"]), f"{found['train_clips']:,} training clips, {found['test_clips']:,} test clips"
    said = f"(Errors, mean and range of {seeds} seeds; {clips}, {found['steps']} steps of 32 pictures.)"
    return f"{markdown(['', 'guessing', *video.SHOWN], video.table(found))}\n{said}\n"


def studies_page() -> str:
    """The page of the studies (``docs/ablations.md``), with their pictures."""
    text = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    for name in studies.names():
        if (outcome := studies.recorded(name)) is not None:
            head = f"### {outcome.study.title}\n"
            shown = f"![{studies.picture_text(outcome)}](ablations/{name}.png){LATER}"
            if studies.searched(outcome.study):
                shown += f"\n\n![{studies.tuning_text(outcome)}](ablations/{name}-search.png){LATER}"
            text = text.replace(head, f"{head}\n{shown}\n", 1)
    return text


def write(folder: Path) -> Sequence[Path]:
    """Write all generated pages into a folder (``docs/made``); return the files."""
    parts = ("ablations", "learned", "tables", "notebooks", *(f"notebooks/{path.stem}" for path in notebooks.paths()))
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
    made = {
        "command-line": command_line, "recipes": recipes, "differences": differences, "claims": claims.page,
        "studies": studies_page, "bibliography": bibliography.page, "quiz": quiz.page,
        "tables/competition": competition.table, "tables/video": films,
    }  # fmt: skip
    for name, page in made.items():
        write_text(folder / f"{name}.md", page())
    study_pages(folder / "ablations")
    carried.write(folder / "learned")
    notebook_pages(folder / "notebooks")
    outcomes = {name: studies.recorded(name) for name in studies.names()}
    write_text(folder / "studies.json", json.dumps({n: found and found.to_json() for n, found in outcomes.items()}))
    return sorted(path for path in folder.rglob("*") if path.is_file())

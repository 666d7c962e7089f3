"""Runs the programs in a page: everything that a reader can run, in order, with the output compared.

In a Markdown page, ``bash`` and ``python`` blocks are run one after another in an empty folder; Python keeps its names
from block to block, as in a session. A ``text`` block directly after one of them is its output; ``…`` in it stands for
anything. Listings are ``py`` blocks and are not run; neither is anything after ``<!-- not run: why -->``.

``python -m minialex.site.blocks [--write] PAGE…`` runs pages; ``--write`` puts the outputs into them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\s*$")
RUNS = ("bash", "python")
COLUMN = 84
"""Characters of code in the column of text on a wide screen; as wide is the terminal on which a page's commands run."""

_DRIVER = r"""
import contextlib, io, json, subprocess, sys, traceback
names = {"__name__": "__main__"}
results = []
for language, source, where in json.load(sys.stdin):
    if language == "bash":
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", source], capture_output=True, text=True)
        results.append([done.returncode, done.stdout, done.stderr])
    else:
        caught = io.StringIO()
        failed = ""
        try:
            with contextlib.redirect_stdout(caught):
                exec(compile(source, where, "exec"), names)
        except BaseException:
            failed = traceback.format_exc()
        results.append([int(bool(failed)), caught.getvalue(), failed])
    if results[-1][0]:
        break
json.dump(results, sys.stdout)
"""


@dataclass(frozen=True)
class Block:
    """A program in a page.

    Attributes:
        language: ``"bash"`` or ``"python"``
        source: its text
        line: the line of the page where it begins, from 1
        output: its output according to the page; None if the page shows none
        place: where that output is in the page (begin, end)
    """

    language: str
    source: str
    line: int
    output: str | None = None
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Run:
    """A block and its result; `code` is 0 if it ran to its end."""

    block: Block
    code: int
    printed: str
    errors: str


def blocks(page: str) -> list[Block]:
    """The programs of a page, in order, each with the output that directly follows it."""
    found: list[Block] = []
    end = -1
    for match in _FENCE.finditer(page):
        language, text = match[1], match[2]
        between = page[end + 1 : match.start()]
        if language in RUNS:
            if not _NOT_RUN.search(between):
                found.append(Block(language, text, page.count("\n", 0, match.start()) + 1))
        elif language == "text" and found and not between.strip() and found[-1].output is None:
            found[-1] = replace(found[-1], output=text, place=match.span(2))
        else:
            continue
        end = match.end()
    return found


def run(page: str, name: str = "page", timeout: float = 300) -> list[Run]:
    """Run a page's blocks in an empty folder; stop at the first failure."""
    found = blocks(page)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "COLUMNS": str(COLUMN), "MPLBACKEND": "agg", "NO_COLOR": "1", "PATH": path}
    given = json.dumps([[block.language, block.source, f"{name}:{block.line}"] for block in found])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER],
            input=given, capture_output=True, text=True, cwd=folder, env=environment, timeout=timeout, check=True,
        )  # fmt: skip
    results = json.loads(done.stdout)
    return [Run(block, *result) for block, result in zip(found, results, strict=False)]


def agrees(said: str, printed: str) -> bool:
    """Whether a page's output matches what was printed; ``…`` stands for anything, trailing spaces are ignored."""
    a, b = ("\n".join(line.rstrip() for line in text.strip("\n").splitlines()) for text in (said, printed))
    return re.fullmatch(".*".join(map(re.escape, a.split("…"))), b, flags=re.DOTALL) is not None


def faults(results: Sequence[Run], name: str = "page") -> list[str]:
    """The faults of a page's programs, one text each."""
    wrong = []
    for ran in results:
        where = f"{name}:{ran.block.line}"
        if ran.code:
            wrong.append(f"{where}: the {ran.block.language} block fails:\n{ran.errors}")
        elif ran.block.output is not None and not agrees(ran.block.output, ran.printed):
            wrong.append(f"{where}: the page says\n{ran.block.output}but it prints\n{ran.printed}")
    return wrong


def with_outputs(page: str, results: Sequence[Run]) -> str:
    """The page with its programs' actual outputs; matching ones stay unchanged."""
    for ran in reversed(results):
        said, (begin, end) = ran.block.output, ran.block.place
        if said is not None and not ran.code and not agrees(said, ran.printed):
            text = "\n".join(line.rstrip() for line in ran.printed.strip("\n").splitlines())
            page = page[:begin] + text + "\n" + page[end:]
    return page


def main(arguments: Sequence[str]) -> int:
    """Run pages, and write outputs if asked; 1 if anything is wrong."""
    write = "--write" in arguments
    wrong: list[str] = []
    for path in (Path(argument) for argument in arguments if argument != "--write"):
        page = path.read_text(encoding="utf-8")
        results = run(page, path.name)
        if write:
            path.write_text(with_outputs(page, results), encoding="utf-8")
            results = [ran for ran in results if ran.code]
        wrong += faults(results, path.name)
    print("\n".join(wrong) if wrong else "every block runs")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

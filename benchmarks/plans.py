"""Write the tables of the pages on two GPUs and on many machines: each is what the command in the mark above it prints.

    python benchmarks/plans.py

A mark is ``<!-- begin: minialex plan … | BEGINNING OF A TABLE'S TITLE -->``; what follows, up to ``<!-- end -->``, is
replaced by the command and that table. A test compares the page with what this would write.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import lru_cache
from pathlib import Path

from minialex.cli import app as cli

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = DOCS / "two-gpus.md", DOCS / "tutorial" / "21-many-machines.md"
MARK = re.compile(r"(<!-- begin: (minialex plan [^|]+) \| ([^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@lru_cache
def tables(command: str) -> dict[str, str]:
    """The tables that a command prints, by their titles."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.run([*shlex.split(command)[1:], "--markdown"])
    if code:
        raise SystemExit(f"error: `{command}` ends with {code}")
    found = {}
    title = ""
    for block in said.getvalue().split("\n\n"):
        if block.startswith("|"):
            found[title] = block.strip()
        title = block.strip()
    return found


def with_tables(page: str) -> str:
    """The page with every table as its command prints it now."""

    def filled(match: re.Match[str]) -> str:
        begin, command, wanted, end = match.groups()
        title, table = next((t, b) for t, b in tables(command).items() if t.startswith(wanted))
        return f"{begin}`{command}`\n\n{title}:\n\n{table}\n{end}"

    return MARK.sub(filled, page)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")

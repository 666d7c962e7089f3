"""``minialex differences``."""

from __future__ import annotations


def differences() -> None:
    """List where the paper and the original 2012 program differ, and the recipe field that chooses between them."""
    from minialex.recipe.differences import DIFFERENCES
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console

    header = ("", "about", "the paper", "the program", "fields", "note")
    rows = [(str(p.number), p.topic, p.paper, p.program, ", ".join(p.fields), p.note) for p in DIFFERENCES]
    console(least=130, fold=True).print(Sheet("", header, rows, "l").rich(lines=True))

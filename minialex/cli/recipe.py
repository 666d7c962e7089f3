"""``minialex recipe``."""

from __future__ import annotations

from typing import Annotated

import typer


def recipe(name: Annotated[str | None, typer.Argument(help="the recipe to print in full")] = None) -> None:
    """List all recipes and what each field means, or print one recipe as TOML."""
    from minialex.recipe.fields import Recipe, fields
    from minialex.recipe.toml import built_in, load
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console, document

    if name is not None:
        document(load(name).to_toml().rstrip("\n"))
        return
    base = Recipe()
    rows = []
    for field, (table, info) in fields().items():
        choices = f" ({' | '.join(info.metadata['choices'])})" if info.metadata["choices"] else ""
        rows.append((table, field, str(getattr(base, field)), info.metadata["doc"] + choices))
    screen = console(least=110, fold=True)
    screen.print("recipes: " + ", ".join(built_in()))
    screen.print(Sheet("", ("table", "field", "the paper's value", "meaning"), rows, "l").rich())

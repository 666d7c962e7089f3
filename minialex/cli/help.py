"""The list of commands in ``--help``, in groups and with whole sentences."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup


class Groups(TyperGroup):
    """Lists commands under the name of their group (Typer's panel), with nothing cut off."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """Write the groups in the order in which their first commands were added."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            line = (command.help or "").partition("\n")[0]
            groups.setdefault(command.rich_help_panel or "Commands", []).append(
                (name, line.partition(". ")[0].rstrip("."))
            )
        width = max((len(name) for rows in groups.values() for name, _ in rows), default=0)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in rows])

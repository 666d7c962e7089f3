"""docs/look-inside.md shows every command of `minialex look`; tests/site runs them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from minialex.cli.look import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "look-inside.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [
        line.partition("#")[0].strip() for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()
    ]


def test_the_page_shows_every_command() -> None:
    shown = {shlex.split(line)[2] for line in commands() if line.startswith("minialex look ")}
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert shown == names
    assert any(line.startswith("minialex features ") for line in commands())

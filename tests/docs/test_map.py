"""docs/design.md is the map of the house, and no page names a module or a file that is not there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from minialex.course.sources import source

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "made" not in p.parts)]
MAP = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def test_the_map_has_every_room_on_its_floor() -> None:
    rooms = re.findall(r"`(\w+)(?:/|\.py)`", MAP.partition("Beside it")[0].partition("| floor |")[2])
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    floors = {room: n for n, layer in enumerate(contract["layers"]) for room in layer.split(" | ")}
    rooms = [room for room in rooms if room in floors]  # and not the folders within them
    assert sorted(rooms) == sorted(floors)
    assert [floors[room] for room in rooms] == sorted(floors.values())
    assert {path.name for path in (ROOT / "minialex").iterdir() if path.is_dir() and "__" not in path.name} <= set(
        rooms
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"docs/made/code/([\w.]+)\.py", text):
        assert source(name)  # of a function, or of some statements in it
    text = re.sub(r"docs/made/code/[\w.]+", "", text)
    for name in re.findall(r"(?<!steps\.)\b(minialex(?:_numpy)?(?:\.\w+)+)", text):
        if name not in ("minialex.backends", "minialex.networks"):  # entry points
            resolve_name(name.removesuffix(".py"))
    for path in re.findall(r"(?<![\w./-])((?:minialex|backends|tests|benchmarks|notebooks)/[\w./-]+\w)", text):
        assert (ROOT / path).exists() or "NN_name" in path, path

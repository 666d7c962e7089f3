"""docs/imagenet.md: its figures are the recorded ones, and its commands have the options that it names."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from minialex.cli.app import app
from minialex.data.store import store
from minialex.recipe.fields import fields
from minialex.recipe.toml import built_in
from minialex.speed.loading import bench_data

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "imagenet.md"
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("minialex ")
]


@pytest.fixture(scope="module")
def module() -> ModuleType:
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("prepare_benchmark", ROOT / "benchmarks" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_the_recorded_ones(module: ModuleType) -> None:
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    assert page.count("<!-- rates: begin -->") == page.count("<!-- try: begin -->") == 1
    assert module.with_tables(page, results) == page


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist_with_their_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {f"--{name.replace('_', '-')}" for name in fields()} if command.name in ("train", "bench") else set()
    assert not hasattr(command, "commands"), f"{line}: no command"
    for word in words:
        assert not word.startswith("--") or word in known, f"{line}: no option {word}"
    if "--recipe" in words:
        assert words[words.index("--recipe") + 1] in built_in()


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 8


def test_the_benchmarks_synthetic_store_is_a_sound_one(module: ModuleType, tmp_path: Path) -> None:
    """The scale test in small: 20 GB are read by benchmarks/prepare.py, by hand."""
    module.synthetic(tmp_path / "s", 300)
    assert store.check(tmp_path / "s") == []
    found = bench_data(str(tmp_path / "s"), 64, 30.0, threads=3, most=256)
    assert (found["images"], found["images_in_set"], found["first_readings"]) == (256, 300, 256)

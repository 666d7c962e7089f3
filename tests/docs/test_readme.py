"""README's figures are those of the recorded result file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_table_of_runs_is_the_recorded_one() -> None:
    spec = importlib.util.spec_from_file_location("record_runs", ROOT / "benchmarks" / "record_runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = json.loads(module.RESULTS.read_text(encoding="utf-8"))
    assert module.BEGIN in readme
    assert module.with_table(readme, results) == readme


def test_chapters_and_notebooks_are_as_many_as_are_said() -> None:
    chapters = len([*(ROOT / "docs" / "tutorial").glob("[0-9][0-9]-*.md")])
    notebooks = len([*(ROOT / "notebooks").glob("[0-9][0-9]_*.py")])
    words = {17: "seventeen", 18: "eighteen", 21: "twenty-one", 22: "twenty-two", 23: "twenty-three", 24: "twenty-four"}
    said = {
        "README.md": f"in {words[chapters]} chapters",
        "docs/index.md": f"[{words[notebooks]} notebooks]",
        "docs/how-to/teach.md": f"{words[notebooks].capitalize()} notebooks",
        "docs/live/notebooks.md": f"all {words[notebooks]}.",
    }
    for name, phrase in said.items():
        assert phrase in (ROOT / name).read_text(encoding="utf-8"), name

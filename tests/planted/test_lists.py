"""The planted faults can still be planted: else the tool would find out when somebody runs it, months later."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.parametrize("path", sorted(HERE.glob("*.toml")), ids=lambda path: path.stem)
def test_the_text_of_every_fault_stands_in_its_file_once(path: Path) -> None:
    faults = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    assert faults
    for fault in faults:
        assert (ROOT / fault["file"]).read_text(encoding="utf-8").count(fault["old"]) == 1, fault["what"]
        assert fault["new"] != fault["old"], fault["what"]
        tests = [word.partition("::")[0] for word in fault.get("tests", "").split() if word.startswith("tests/")]
        assert all((ROOT / test).exists() for test in tests), fault["what"]

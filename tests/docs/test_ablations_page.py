"""docs/ablations.md: what stands between the marks is what the records say, and its commands exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from minialex import studies as ablations
from minialex.cli.app import run

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("studies", ROOT / "benchmarks" / "studies.py")
assert spec is not None
assert spec.loader is not None
studies = importlib.util.module_from_spec(spec)
spec.loader.exec_module(studies)
TEXT = studies.PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_records_say() -> None:
    assert studies.page(TEXT) == TEXT, "run `python benchmarks/studies.py`"


def test_studies_on_the_page_exist() -> None:
    for words in re.findall(r"^minialex ablate (\w[\w-]*)", TEXT, re.MULTILINE):
        assert words in ablations.names()
    assert run(["recipe", "ablations/no-norm"]) == 0

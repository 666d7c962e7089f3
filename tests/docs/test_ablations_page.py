"""docs/ablations.md: what stands between the marks is what the records say, and its commands exist."""

from __future__ import annotations

import importlib.util
import json
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


def test_intervals_of_other_seeds_meet() -> None:
    """What the page says of the arms that were trained again, and what it says of the initial biases."""
    table = TEXT.partition("<!-- again: begin -->\n")[2].partition("<!-- again: end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 3 * len(studies.AGAIN)
    assert all(row.endswith("| yes |") for row in rows)
    widths = {}
    again = {
        n: studies.outcome.from_json(v, studies.again(n))
        for n, v in json.loads(studies.OTHER_SEEDS.read_text()).items()
    }
    for name, found in again.items():
        if name == "dropout":
            continue  # measured in points
        widths |= {(name, arm): (mean.high - mean.low) / mean.mean for arm, mean in found.means.items()}
    assert max(widths, key=lambda which: widths[which]) == ("bias", "0")
    first = ablations.recorded("bias")
    assert first is not None
    for found in (first, again["bias"]):
        assert found.differences["1"].low < 0 < found.differences["1"].high


def test_seeds_are_not_added_until_something_shows() -> None:
    for name in ("depth", "bias", "norm-constants"):
        found = ablations.recorded(name)
        assert found is not None
        assert found.seeds == tuple(range(11, 21))


def test_studies_on_the_page_exist() -> None:
    for words in re.findall(r"^minialex ablate (\w[\w-]*)", TEXT, re.MULTILINE):
        assert words in ablations.names()
    assert run(["recipe", "ablations/no-norm"]) == 0


def test_how_we_fooled_ourselves() -> None:
    """Its two tables are the records, which say what the words around them say."""
    text = studies.FOOLED.read_text(encoding="utf-8")
    assert studies.fooled(text) == text, "run `python benchmarks/studies.py`"
    before, after = studies.edge("before"), studies.edge("after")
    assert sum(found.high < 0 for found in before.differences.values()) >= 4
    assert not any(found.high < 0 for found in after.differences.values())
    assert [arm.values for arm in before.arms[1:]] == [arm.values for arm in after.arms[1:]], "the same runs"

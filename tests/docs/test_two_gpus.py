"""The page on two GPUs: its tables are what `minialex plan` prints now, and so is every number in its text."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from minialex.network import models
from minialex.speed.plan import lay_out
from minialex.speed.rates import PRECISIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "two-gpus.md").read_text(encoding="utf-8")
LAYOUT = lay_out(models.ALEXNET, (0, 1))


@pytest.fixture(scope="module")
def plans():
    spec = importlib.util.spec_from_file_location("plans", ROOT / "benchmarks" / "plans.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_what_the_commands_print(plans):
    assert len(plans.MARK.findall(PAGE)) >= 8
    assert plans.with_tables(PAGE) == PAGE


def test_a_table_that_was_changed_by_hand_is_written_anew(plans):
    assert plans.with_tables(PAGE.replace("| pool2 | conv3 | 21,632 |", "| pool2 | conv3 | 21,633 |")) == PAGE


def test_numbers_in_the_text_are_computed(plans):
    """Beside the tables, the page may say numbers that follow from the network, and few others, each named here."""
    text = re.sub(r"```.*?```|`[^`]*`|--8<-- ", "", plans.MARK.sub("", PAGE), flags=re.DOTALL)
    found = set(
        re.findall(r"\d[\d,.]*\d|\d", re.sub(r"(?:conv|fc|pool|norm)\d|(?:float|bfloat|tf)\d+|PCIe \d", "", text))
    )
    stages = {stage.layer.name: stage for stage in models.ALEXNET.stages(2)}
    maps, size, _ = stages["pool2"].output
    assert stages["pool5"].output[0] == maps
    computed = {
        f"{LAYOUT.parameters:,}",
        f"{LAYOUT.exchanged:,}",
        f"{LAYOUT.crossover:,.0f}",
        f"{LAYOUT.crossover_both:,.0f}",
        f"{LAYOUT.exchanges[0].values:,}",
        f"{LAYOUT.exchanges[2].values:,}",
        str(maps),  # and the paper's batch size
        str(size),
        str(stages["pool5"].output[1]),
    }
    timed = json.loads((ROOT / "benchmarks" / "results" / "device" / "convolutions.json").read_text(encoding="utf-8"))
    first = next(one for one in timed["convolutions"] if one["name"] == "bfloat16 conv1 wgrad")
    taken = [plan["microseconds"] for plan in first["plans"]]
    computed |= {f"{taken[0]:,.0f}", f"{min(taken):,.0f}"}  # cuDNN's own choice, and the quickest
    said = {"2012", "2014", "90", "1.2", "40"}  # years, the paper's epochs and millions of images, a share
    said |= {
        "7.5",
        "8.0",
        "9.0",
        "3",
        "100",
    }  # the card's name; compute capabilities, the pooling windows that are quick
    assert found == computed | said
    assert PRECISIONS["bfloat16"] * 2 == PRECISIONS["float32"]  # "half of what it sends in float32"


def test_what_was_not_run_is_said():
    assert PAGE.count("**not yet been run") == 2  # on two cards
    assert '--8<-- "docs/made/device/said.md"' in PAGE  # on one: as recorded

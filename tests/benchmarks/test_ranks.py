"""What is measured of several processes: shares, the picture, and the page that is made of the recorded file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from minialex.figures import timeline

ROOT = Path(__file__).resolve().parents[2]


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def part(layer: str, phase: str, begin: float, end: float) -> dict[str, Any]:
    return {"layer": layer, "phase": phase, "begin": begin, "end": end}


STEP = {
    "work": [
        part("conv1", "forward", 0.0, 0.2), part("fc8", "backward", 0.2, 0.4), part("fc8", "reduce", 0.4, 0.401),
        part("conv1", "backward", 0.401, 0.7), part("fc8", "reduce", 0.7, 0.8), part("fc8", "update", 0.8, 0.9),
        part("conv1", "update", 0.9, 1.0),
    ],
    "sums": [{"begin": 0.4, "end": 0.75, "bytes": 84e6}, {"begin": 0.75, "end": 0.8, "bytes": 9e6}],
    "seconds": 1.0,
}  # fmt: skip


def test_what_is_hidden_is_what_was_not_waited_for() -> None:
    (found,) = loaded("ranks").hidden([STEP])
    assert found["summing"] == pytest.approx(0.4)
    assert found["waited"] == pytest.approx(0.101)
    assert found["hidden"] == pytest.approx(1 - 0.101 / 0.4)


def test_rounds_are_compared_with_their_own() -> None:
    assert loaded("ranks").paired([1.0, 20.0, 3.0], [1.0, 10.0, 6.0]) == 1.0  # medians alone would say 2


def test_the_picture_has_a_bar_for_every_rank_and_a_word_for_every_bucket() -> None:
    figure = timeline.picture([STEP, STEP])
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts.count("84 MB") == texts.count("9 MB") == 2
    assert texts.count("conv1") == 4  # forwards and backwards; updates have no names
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rank 0", "its sums", "rank 1", "its sums"]
    assert len(axes.patches) == 2 * (6 + 2)  # the two updates are one
    assert axes.get_xlim() == (0, 1000)
    assert timeline.words([STEP]).endswith("rank 0: 1 of 2 sums begin while it still goes backwards")


def test_the_page_is_what_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = loaded("ranks_page")
    monkeypatch.setattr(page, "RESULTS", tmp_path / "none.json")
    page.main(tmp_path / "empty")
    assert (tmp_path / "empty" / "speed.md").read_text() == page.NOTHING
    record = {
        "command": "python benchmarks/ranks.py", "machine": {"processor": "P", "cores": 2}, "date": "2026-11-28",
        "versions": {"numpy": "2.4", "numba": "0.68"}, "mpi": "MPICH", "batch": 128,
        "seconds": {"one": [1.0], "two": [1.1]},
        "sides": {side: {"median": t, "least": t, "most": t} for side, t in (("one", 1.0), ("two", 1.1))},
        "speed": {"one": 1.0, "two": 0.91},
        "processor": {side: {"median": t, "least": t, "most": t} for side, t in (("one", 1.9), ("two", 2.1))},
        "timeline": {"batch": 32, "ranks": [STEP], "hidden": loaded("ranks").hidden([STEP])},
    }  # fmt: skip
    (tmp_path / "some.json").write_text(json.dumps(record))
    monkeypatch.setattr(page, "RESULTS", tmp_path / "some.json")
    page.main(tmp_path / "made")
    speed = (tmp_path / "made" / "speed.md").read_text()
    assert "| two processes, a thread each | 1,100 (1,100 to 1,100) | 0.91 (goal 0.95: not met) | 2,100 |" in speed
    assert "2026-11-28" in speed
    told = (tmp_path / "made" / "timeline.md").read_text()
    assert "Sums took 400 ms" in told
    assert "75% of the sums' time was hidden" in told
    assert "updated all weights, in 200 ms" in told
    killed = json.loads(page.KILLS.read_text())
    assert len([trial for trial in killed["trials"] if trial["killed"]]) == killed["kills"]
    assert f"Of {killed['kills']} kills (" in (tmp_path / "made" / "kills.md").read_text()
    assert (tmp_path / "made" / "timeline.png").read_bytes()[1:4] == b"PNG"

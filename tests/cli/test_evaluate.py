"""``minialex evaluate`` of several runs, and files that other commands would write over."""

from __future__ import annotations

from pathlib import Path

import pytest

from minialex.cli.app import run

TINY = ("--recipe", "shapes", "--epochs", "1", "--batch-size", "8", "--kernels", "4,4,4,4,4", "--features", "8,8")


def test_runs_that_kept_other_images_for_validation_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, images in (("a", 16), ("b", 16), ("c", 20)):
        words = ("--train-images", "16", "--validation-images", str(images), "--backend", "numpy", "--out", name)
        assert run(["train", *TINY, *words]) == 0
    capsys.readouterr()
    assert run(["evaluate", "a", "b", "--backend", "numpy"]) == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert "expected calibration error" in " ".join(said.out.split()), "not to be taken for an error of the network"
    assert run(["evaluate", "a", "b", "c", "--backend", "numpy"]) == 0
    assert "c: other validation images than the first run" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_a_grade_is_never_written_over_a_submission(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "relu.py"
    theirs.write_text("def relu(x):\n    return x\n")
    what = [str(theirs)] if option == "--json" else ["--each", str(tmp_path)]
    assert run(["grade", *what, option, str(theirs)]) == 2
    assert option in capsys.readouterr().err
    assert theirs.read_text().startswith("def relu")

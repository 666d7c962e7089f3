"""Errors within a super-class, on numbers that can be counted by hand, from files, and from the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.cli import app as cli
from minialex.data.sets.cifar10 import CLASS_NAMES
from minialex.errors import DataError
from minialex.evaluation import super_classes
from minialex.evaluation.errors import Evaluation


def taken_for(labels: list[int], classes: list[int], outputs: int) -> Evaluation:
    return Evaluation(np.eye(outputs, dtype=np.float32)[classes], np.array(labels))


def test_counted_by_hand() -> None:
    groups = ("cat", "cat", "cat", "dog", "dog")
    found = super_classes.within(taken_for([0, 0, 1, 3, 3, 4], [0, 1, 3, 4, 0, 3], 5), groups)
    assert (found.errors, found.share) == (5, 3 / 5)  # of two cats one was taken for a cat, of three dogs two for dogs
    assert found.chance == pytest.approx((2 + 2 + 1 + 1 + 1) / 5 / 4)
    assert found.words() == "60.0% (95%: 23.1 to 88.2%); by chance 35.0%"


def test_outputs_without_a_name_are_of_no_super_class_and_no_error_has_no_share() -> None:
    assert super_classes.within(taken_for([0, 1], [3, 0], 4), ("a", "a")).share == 0.5
    none = super_classes.within(taken_for([0, 1], [0, 1], 2), ("a", "b"))
    assert none.words() == "no error"
    assert math.isnan(none.share)


def test_errors_at_random_are_at_chance() -> None:
    groups = super_classes.known(CLASS_NAMES)
    assert groups is not None
    assert (groups.count("vehicle"), groups.count("animal")) == (4, 6)
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 20_000)
    found = super_classes.within(taken_for(labels.tolist(), random.integers(0, 10, 20_000).tolist(), 10), groups)
    assert found.chance == pytest.approx(0.4 * 3 / 9 + 0.6 * 5 / 9, abs=0.01)
    assert found.share == pytest.approx(found.chance, abs=0.02)
    assert super_classes.known(("cat", "dog")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cat,pet\n", "no super-class for 'dog'"),
        ("cat,pet\ndog,pet\ndgo,pet\n", "line 3: no class 'dgo'. Did you mean 'dog'"),
        ("cat,pet\ncat,pet\n", "line 2: class 'cat' occurs twice"),
        ("cat pet\n", "line 1: expected a class, a tab or comma"),
        ("cat,\n", "line 1: expected a class"),
        ('"cat,pet\n', "line 1: expected a class"),
        ('"cat","dog","pet"\n', "line 1: expected a class"),
        ("", "no super-class for 'cat' and 1 more"),
        ("\0", "zero bytes"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "super.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        super_classes.read(path, ("cat", "dog"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_with_commas_comments_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "super.tsv"
    path.write_text("# ours\ntabby, tabby cat\tfeline\n\nrex,dog\n", encoding="utf-8")
    assert super_classes.read(path, ("rex", "tabby, tabby cat")) == ("dog", "feline")


@pytest.mark.parametrize("divider", [",", ", ", "\t"])
def test_a_spreadsheet_quotes_its_cells(tmp_path: Path, divider: str) -> None:
    path = tmp_path / "super.csv"
    names = ("tabby, tabby cat", 'a 12" record', "rex")
    rows = [divider.join(row) for row in (('"rex"', '"dog"'), ('"tabby, tabby cat"', '"cats, small"'),
                                          ('"a 12"" record"', "disc"))]  # fmt: skip
    path.write_text("\r\n".join(rows), encoding="utf-8-sig")
    assert super_classes.read(path, names) == ("cats, small", "disc", "dog")


def test_evaluate_tells_of_classes_that_a_file_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog", "car"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(4):
            pixels = np.random.default_rng(n + 10 * len(name)).integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{n}.png")
    Path("super.csv").write_text("cat,animal\ndog,animal\ncar,thing\n")
    tiny = ("--batch-size", "4", "--kernels", "4,4,4,4,4", "--features", "8,8", "--backend", "numpy")
    assert cli.run(["train", "--data", "photos", "--recipe", "small", "--epochs", "1", *tiny, "--out", "run"]) == 0
    capsys.readouterr()
    assert cli.run(["evaluate", "run", "--part", "all", "--backend", "numpy"]) == 0
    assert "super-class" not in capsys.readouterr().out, "nobody said what belongs together"
    options = ["--part", "all", "--super-classes", "super.csv", "--backend", "numpy"]
    assert cli.run(["evaluate", "run", *options]) == 0
    assert "errors within a super-class" in capsys.readouterr().out
    assert cli.run(["evaluate", "run", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["within_super_class"]
    assert found["errors"] > 0
    assert 0 <= found["share"] <= 1
    Path("super.csv").write_text("cat,animal\n")
    assert cli.run(["evaluate", "run", *options]) == 3
    assert "no super-class for" in capsys.readouterr().err

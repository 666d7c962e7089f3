"""A class in one command: every submission has its grade, in order, with a seed of its own; nothing stops it."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from minialex.cli.app import run as minialex
from minialex.course.grading import formats
from minialex.course.grading.folder import common_failures, plain, seed_of
from minialex.course.grading.process import Grade, Limits
from minialex.course.grading.result import Result

GOOD = "import numpy as np\n\ndef relu(x):\n    return np.maximum(x, 0)\n\ndef tanh(x):\n    return np.tanh(x)\n"
CLASS = {
    "anna.py": GOOD,
    "ben.py": GOOD.replace("np.maximum(x, 0)", "np.abs(x)"),
    "carla/relu.py": GOOD,
    "dora.py": "def relu(x:\n",
    "eve.py": "import os\nos._exit(3)\n",
    "fred.py": "class A:\n    def relu(self, x): ...\n\nclass B:\n    def relu(self, x): ...\n",
    "gus.py": GOOD.replace("np.maximum(x, 0)", "np.abs(x)"),
    "=HYPERLINK(1).py": GOOD,
    "notes.txt": "not a submission",
    "_old.py": GOOD,
    ".hidden.py": GOOD,
    "empty/notes.txt": "",
}
OPTIONS = ("--only", "relu,tanh", "--points", "10", "--examples", "5", "--timeout", "2", "--csv", "points.csv")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A class in a folder, graded once: the folder, the exit code, and what was printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("class")
    for name, text in CLASS.items():
        (folder / "class" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "class" / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        code = minialex(["grade", "--each", "class", *OPTIONS, "--json", "grades"])
    return folder, code, out.getvalue()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "points.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_everybody_has_a_line_in_order_with_the_same_columns(graded: Any) -> None:
    folder, code, _ = graded
    assert code == 0
    found = rows(folder)
    names = ["'=HYPERLINK(1)", "anna", "ben", "carla", "dora", "eve", "fred", "gus"]
    assert [row["name"] for row in found] == names
    assert list(found[0]) == [
        "name",
        "points",
        "of_points",
        "passed",
        "of",
        "seed",
        "examples",
        "fault",
        "relu",
        "tanh",
    ]
    by_name = {row["name"]: row for row in found}
    assert [by_name[name]["points"] for name in names] == ["10.0", "10.0", "5.0", "10.0", "0.0", "0.0", "0.0", "5.0"]
    assert (by_name["ben"]["relu"], by_name["ben"]["tanh"]) == ("failed", "passed")
    assert (by_name["dora"]["relu"], by_name["dora"]["tanh"]) == ("missing", "missing")
    assert "SyntaxError" in by_name["dora"]["fault"]
    assert by_name["eve"]["fault"] == "importing it ended the process (exit code 3)"
    assert "several classes" in by_name["fred"]["fault"]


def test_the_screen_has_a_table_and_what_went_wrong_most_often(graded: Any) -> None:
    _, _, text = graded
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "most common failures" in text
    (line,) = [line for line in text.splitlines() if "differs" in line]
    assert line.split()[:2] == ["2", "relu"]
    assert "ben, gus" in line
    assert "8 submissions, 3 with everything passed" in text
    assert "not graded, no .py file: empty, notes.txt" in text


def test_each_has_a_json_file_and_a_seed_that_repeats_it(graded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = graded
    assert sorted(path.stem for path in (folder / "grades").iterdir()) == sorted(
        ["=HYPERLINK(1)", "anna", "ben", "carla", "dora", "eve", "fred", "gus"]
    )
    ben, gus = (json.loads((folder / "grades" / f"{name}.json").read_text()) for name in ("ben", "gus"))
    assert ben["seed"] == seed_of("ben", None) != gus["seed"]
    code = minialex(
        ["grade", str(folder / "class" / "ben.py"), *OPTIONS[:-2], "--seed", str(ben["seed"]),
         "--json", str(folder / "again.json")]
    )  # fmt: skip
    assert code == 1
    again = json.loads((folder / "again.json").read_text())["operations"]
    of = {row["operation"]: row for row in again}
    for row in ben["operations"]:
        assert of[row["operation"]]["example"] == row["example"]


def test_what_is_graded_already_is_not_graded_again(graded: Any, monkeypatch: Any, capsys: Any) -> None:
    folder, _, _ = graded
    monkeypatch.chdir(folder)
    before = (folder / "points.csv").read_text()
    (folder / "class" / "ben.py").write_text(GOOD)
    assert minialex(["grade", "--each", "class", *OPTIONS, "--json", "grades"]) == 0
    assert "7 had been graded before" in " ".join(capsys.readouterr().out.split())
    after = (folder / "points.csv").read_text()
    changed = set(after.splitlines()) - set(before.splitlines())
    assert [line.split(",")[:2] for line in changed] == [["ben", "10.0"]]


def test_seeds_follow_the_name_and_the_seed() -> None:
    assert len({seed_of(name, seed) for name in ("a", "b") for seed in (None, 0, 1)}) == 6
    assert seed_of("a", 1) == seed_of("a", 1)


def test_a_name_is_no_formula_and_can_be_written() -> None:
    assert [plain(text) for text in ("=1", "+1", "@x", "-1", "a=1")] == ["'=1", "'+1", "'@x", "'-1", "a=1"]
    assert plain("a\udcff").encode()


def test_failures_are_counted_by_what_they_are() -> None:
    def student(name: str, message: str) -> Any:
        from minialex.course.grading.folder import Student

        return Student(name, Grade(name, Limits(), [Result("relu", "failed", message=message)]))

    class_ = [student("a", "'y' differs from the reference in 1 of 2 elements"), student("b", "raised ValueError: 3")]
    class_ += [student("c", "'y' differs from the reference in 7 of 9 elements")]
    assert common_failures(class_) == [
        (2, "relu", "'y' differs from the reference", ["a", "c"]),
        (1, "relu", "raised ValueError: #", ["b"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--each", "nowhere"], "'nowhere' is not a folder"),
        (["--each", "empty"], "no submission in 'empty'"),
        (["--each", "empty", "x.py"], "give one of these"),
        (["x.py", "--csv", "a.csv"], "--csv is for a class"),
        (["--each", "empty", "--format", "gradescope"], "--format is for one submission"),
        (["x.py", "--format", "gradescop", "--json", "a"], "Did you mean 'gradescope'?"),
        (["x.py", "--format", "gradescope"], "name it with --json FILE"),
        (["--each", "twins"], "would belong to the same student"),
        (["--each", "twins", "--only", "rellu"], "would belong to the same student"),
    ],
)
def test_usage(tmp_path: Path, monkeypatch: Any, capsys: Any, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "twins" / "a").mkdir(parents=True)
    (tmp_path / "twins" / "a" / "a.py").write_text(GOOD)
    (tmp_path / "twins" / "a.py").write_text(GOOD)
    (tmp_path / "x.py").write_text(GOOD)
    assert minialex(["grade", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_an_unknown_operation_is_said_before_anything_is_graded(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.py").write_text(GOOD)
    assert minialex(["grade", "--each", str(tmp_path), "--only", "rellu"]) == 2
    assert "Did you mean 'relu'?" in capsys.readouterr().err


# ---- other programs' formats ------------------------------------------------------------------------------------


def a_grade() -> Grade:
    example: dict[str, Any] = {
        "call": "relu(x)",
        "arguments": {"x": {"dtype": "float32", "shape": [1], "text": "[-1.]"}},
        "got": {"dtype": "float32", "shape": [1], "text": "[1.]"},
        "expected": {"dtype": "float32", "shape": [1], "text": "[0.]"},
    }
    wrong = Result("relu", "failed", "o.py:4", message="'y' differs", at="o.py:5", example=example)
    return Grade("o.py", Limits(seed=3), [wrong, Result("tanh", "passed", "o.py:9"), Result("linear", "not theirs")])


def test_gradescope() -> None:
    value = formats.gradescope(a_grade(), 10)
    assert value["score"] == 5
    assert sum(test["max_score"] for test in value["tests"]) == 10
    assert [(test["name"], test["score"], test["status"]) for test in value["tests"]] == [
        ("relu", 0, "failed"), ("tanh", 5, "passed"),
    ]  # fmt: skip
    assert "expected: float32 (1,) [0.]" in value["tests"][0]["output"]
    assert {"execution_time", "output_format", "visibility", "stdout_visibility", "extra_data"} <= set(value)
    broken = formats.gradescope(Grade("o.py", Limits(), faults=["o.py:1: SyntaxError"]), None)
    assert broken["score"] == 0
    assert "SyntaxError" in broken["output"]
    assert json.dumps(broken)


def test_github_classroom() -> None:
    value = json.loads(base64.b64decode(base64.b64encode(json.dumps(formats.classroom(a_grade(), 10)).encode())))
    assert (value["version"], value["status"], value["max_score"]) == (1, "fail", 10)
    assert sum(test["score"] for test in value["tests"]) == 5
    assert [test["status"] for test in value["tests"]] == ["fail", "pass"]
    assert (value["tests"][0]["filename"], value["tests"][0]["line_no"]) == ("o.py", 4)
    broken = formats.classroom(Grade("o.py", Limits(), faults=["o.py:1: SyntaxError"]), 10)
    assert broken["status"] == "error"
    assert broken["tests"][0]["message"] == "o.py:1: SyntaxError"


def test_the_command_writes_them(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.py").write_text(GOOD)
    command = ["grade", "x.py", "--examples", "3", "--points", "4", "--only", "relu,conv2d"]
    assert minialex([*command, "--format", "gradescope", "--json", "results.json"]) == 1
    value = json.loads((tmp_path / "results.json").read_text())
    assert value["score"] == 2
    assert {test["name"]: test["status"] for test in value["tests"]} == {"conv2d": "failed", "relu": "passed"}

"""Assignments for nbgrader and otter: what each program looks for is there, and answers only where they belong."""

import json
import re

import numpy as np
import pytest

from minialex.cli.app import run
from minialex.course import checks as check
from minialex.course import notebooks
from minialex.course.notebooks import assign

PATHS = notebooks.paths()
SLOW = {"repaired_norm", "tanh_gradient"}  # held to the kit, by `test_agreement`
REQUIRED = {"grade", "solution", "locked", "task", "grade_id", "schema_version"}


def cells(path, form, solutions):
    return json.loads(assign.assignment(path, form, solutions))["cells"]


def text(cell):
    return "".join(cell["source"])


def without_answers(source):
    """A teacher's cell as nbgrader makes the students' of it."""
    return re.sub(
        r"( *)### BEGIN SOLUTION\n.*?### END SOLUTION", r"\1raise NotImplementedError()", source, flags=re.DOTALL
    )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_nbgraders_metadata(path):
    made = cells(path, "nbgrader", True)
    tagged = [cell for cell in made if "nbgrader" in cell["metadata"]]
    names = [cell["metadata"]["nbgrader"]["grade_id"] for cell in tagged]
    assert len(set(names)) == len(names) >= 4
    for exercise, test in zip(tagged[::2], tagged[1::2], strict=True):
        of_exercise, of_test = (cell["metadata"]["nbgrader"] for cell in (exercise, test))
        assert set(of_exercise) == REQUIRED
        assert set(of_test) == {*REQUIRED, "points"}
        assert (of_exercise["grade"], of_exercise["solution"], of_exercise["locked"]) == (False, True, False)
        assert (of_test["grade"], of_test["solution"], of_test["locked"], of_test["points"]) == (True, False, True, 1)
        assert of_test["schema_version"] == 3
        assert re.fullmatch(r"[\w-]+", of_test["grade_id"])
        assert text(exercise).count("### BEGIN SOLUTION") == text(exercise).count("### END SOLUTION") == 1
    assert not any(cell.get("outputs") for cell in made)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_teachers_answers_get_the_point_and_a_students_cell_does_not(path):
    tagged = [cell for cell in cells(path, "nbgrader", True) if "nbgrader" in cell["metadata"]]
    for exercise, test in zip(tagged[::2], tagged[1::2], strict=True):
        if any(name in text(test) for name in SLOW):
            continue
        space = {"np": np, "check": check}
        exec(text(exercise), space)
        exec(text(test), space)
        space = {"np": np, "check": check}
        student = without_answers(text(exercise))
        with pytest.raises((NotImplementedError, NameError, AssertionError)):
            exec(f"{student}\n{text(test)}", space)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_teachers_copy_has_answers_without_marks_and_what_to_expect(path):
    made = cells(path, "", True)
    assert len({cell["id"] for cell in made}) == len(made)
    assert "BEGIN SOLUTION" not in json.dumps(made)
    asked = [n for n, cell in enumerate(made) if "exercise" in cell["metadata"].get("tags", ())]
    for n in asked:
        compile(text(made[n]), path.stem, "exec")
        assert not re.search(r"(= |return )\.\.\.$", text(made[n]))
        call = text(made[n + 1])
        if path.stem in ("05_normalisation", "06_pooling") and not any(name in call for name in SLOW):
            space = {"np": np, "check": check}
            exec(text(made[n]), space)
            assert eval(call, space)
    (n,) = (n for n, cell in enumerate(made) if assign.OPEN in text(cell))
    assert re.match(r"\*\*For the teacher.\*\* [A-Z]", text(made[n + 1]))
    assert len(text(made[n + 1])) > 100
    assert made[n + 1]["cell_type"] == "markdown"
    assert any(cell.get("outputs") for cell in made)


@pytest.mark.parametrize("form", assign.FORMATS)
def test_there_are_no_answers_without_solutions(form):
    for path in PATHS:
        plain, teachers = (json.dumps(cells(path, form, solutions)) for solutions in (False, True))
        assert plain != teachers
        answers = assign.Answers(notebooks.solutions() / f"{path.stem}.py")
        for name, answer in answers.right.items():
            body = answers.source(answer)
            assert len(body) < 12 or json.dumps(body)[1:-1] not in plain or body in text_of(path), name


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_otters_blocks_are_balanced_and_its_questions_named(path):
    made = cells(path, "otter", True)
    raw = [text(cell).splitlines() for cell in made if cell["cell_type"] == "raw"]
    assert raw[0][0] == "# ASSIGNMENT CONFIG"
    heads = [lines[0] for lines in raw[1:]]
    question = [
        "# BEGIN QUESTION",
        "# BEGIN SOLUTION",
        "# END SOLUTION",
        "# BEGIN TESTS",
        "# END TESTS",
        "# END QUESTION",
    ]
    assert heads == question * (len(heads) // 6)
    names = [lines[1] for lines in raw if lines[0] == "# BEGIN QUESTION"]
    assert len(names) == len(set(names)) >= 2
    assert len({cell["id"] for cell in made}) == len(made)
    for cell in made:
        if "BEGIN SOLUTION" in text(cell) and cell["cell_type"] == "code":
            compile(text(cell), path.stem, "exec")


def test_the_command(tmp_path, capsys):
    assert run(["notebooks", str(tmp_path / "source"), "--format", "nbgrader", "--solutions"]) == 0
    assert (tmp_path / "source" / "03_relu" / "03_relu.ipynb").is_file()
    assert "nbgrader generate_assignment" in capsys.readouterr().out
    assert run(["notebooks", str(tmp_path / "teacher"), "--solutions"]) == 0
    assert "return np.maximum(x, 0)" in (tmp_path / "teacher" / "03_relu.ipynb").read_text()
    assert "the teacher's copy" in capsys.readouterr().out
    assert run(["notebooks", str(tmp_path / "otter"), "--format", "otter"]) == 0
    assert (tmp_path / "otter" / "03_relu.ipynb").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("there", "--format", "nbgradr"), "Did you mean 'nbgrader'?"),
        (("--format", "otter"), "say where to"),
    ],
)
def test_usage(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert run(["notebooks", *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1

"""The notebooks as assignments for nbgrader and otter: exercises to fill in, checks as tests, one point each.

Only the teacher's copies contain answers: with ``minialex notebooks --format nbgrader --solutions``, between the marks
that the two programs cut out (``nbgrader generate_assignment`` and ``otter assign`` make the students' copies), and
without a format, as a notebook to read.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minialex.course import notebooks

FORMATS = ("nbgrader", "otter")
PLACEHOLDER = "..."
OPEN = "## Two harder ones"
TEST = "answer = {call}\nassert answer, answer.message"
Cell = dict[str, Any]


def assignment(path: Path, form: str, solutions: bool) -> str:
    """A notebook as the text of an assignment's file, or of the teacher's copy.

    Args:
        path: path of the executed notebook
        form: one of `FORMATS`; empty for a notebook without a grader's marks, which also says what to expect of the
            open exercises
        solutions: whether to include the answers
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    answers = Answers(notebooks.solutions() / f"{path.stem}.py") if solutions else None
    cells: list[Cell] = []
    if form == "otter":
        lines = ["name: " + path.stem, "check_all_cell: true", "export_cell: false", "generate: true"]
        cells.append(_raw(0, "# ASSIGNMENT CONFIG", *lines, *([] if solutions else ["run_tests: false"])))
    waiting: Cell | None = None
    for number, written in enumerate(notebook["cells"], 1):
        cell = copy.deepcopy(written)
        source = "".join(cell["source"])
        call = re.fullmatch(r"check\.(\w+)\((.+)\)", source)
        asked = "exercise" in cell["metadata"].get("tags", ())
        if cell["cell_type"] == "code" and (form or asked or call):
            cell |= {"outputs": [], "execution_count": None}
        if asked:
            waiting = cell
        elif waiting is not None and call:
            test = {**cell, "source": TEST.format(call=source).splitlines(keepends=True)}
            text = "".join(waiting["source"])
            exercise = {**waiting, "source": _filled(text, call[1], form, answers).splitlines(keepends=True)}
            make = _nbgrader if form == "nbgrader" else _otter
            cells += make(path.stem, call[1], exercise, test, number) if form else [exercise, cell]
            waiting = None
        else:
            cells.append(cell)
            if answers and not form and OPEN in source:
                said = {
                    "id": f"expected-{number}",
                    "metadata": {},
                    "source": f"**For the teacher.** {answers.expected}",
                }
                cells.append({"cell_type": "markdown", **said})
    assert waiting is None, f"{path.name}: an exercise without a check"
    return json.dumps({**notebook, "cells": cells}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _nbgrader(stem: str, name: str, exercise: Cell, test: Cell, number: int) -> list[Cell]:
    """The two cells with nbgrader's metadata (schema 3)."""
    plain = {"schema_version": 3, "task": False}
    of_exercise = {"grade": False, "solution": True, "locked": False, "grade_id": f"{stem}-{name}", **plain}
    of_test = {
        "grade": True,
        "solution": False,
        "locked": True,
        "points": 1,
        "grade_id": f"{stem}-{name}-test",
        **plain,
    }
    exercise["metadata"] = {**exercise["metadata"], "nbgrader": of_exercise}
    test["metadata"] = {**test["metadata"], "nbgrader": of_test}
    return [exercise, test]


def _otter(stem: str, name: str, exercise: Cell, test: Cell, number: int) -> list[Cell]:
    """An otter question between its raw cells."""
    exercise["metadata"] = {}
    return [
        _raw(number, "# BEGIN QUESTION", f"name: {name}", "points: 1"),
        _raw(number, "# BEGIN SOLUTION"),
        exercise,
        _raw(number, "# END SOLUTION"),
        _raw(number, "# BEGIN TESTS"),
        test,
        _raw(number, "# END TESTS"),
        _raw(number, "# END QUESTION"),
    ]


def _raw(number: int, *lines: str) -> Cell:
    name = re.sub(r"\W+", "-", lines[0].strip("# ").lower())
    return {"cell_type": "raw", "id": f"{name}-{number}", "metadata": {}, "source": "\n".join(lines).splitlines(True)}


# ---- answers --------------------------------------------------------------------------------------------------


class Answers:
    """The published answers to a notebook's exercises (``notebooks/solutions``), as source code."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.defined: dict[str, ast.stmt] = {}
        self.changed: dict[str, list[ast.stmt]] = {}  # statements that change what was defined
        right: ast.expr | None = None
        for node in ast.parse(self.text).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.defined |= {alias.asname or alias.name: node for alias in node.names}
            elif isinstance(node, ast.FunctionDef):
                self.defined[node.name] = node
            elif isinstance(node, ast.Assign):
                targets = {part.id for part in ast.walk(node.targets[0]) if isinstance(part, ast.Name)}
                if targets == {"RIGHT"}:
                    right = node.value
                elif isinstance(node.targets[0], ast.Subscript):  # `dx[2, 2] = 4` belongs to what it changes
                    for name in targets:
                        self.changed.setdefault(name, []).append(node)
                elif targets != {"WRONG"}:
                    self.defined |= dict.fromkeys(targets, node)
        assert isinstance(right, ast.Dict)
        self.right = {
            str(ast.literal_eval(key)): value for key, value in zip(right.keys, right.values, strict=True) if key
        }

    @property
    def expected(self) -> str:
        """What to expect of the open exercises: the docstring from the second paragraph on."""
        return (ast.get_docstring(ast.parse(self.text)) or "").partition("\n\n")[2]

    def source(self, node: ast.AST) -> str:
        """The source of a statement or an expression, as written."""
        return textwrap.dedent(ast.get_source_segment(self.text, node, padded=True) or "")

    def helpers(self, node: ast.AST, without: str = "") -> list[str]:
        """Sources of everything that an answer needs, in order."""
        needed: dict[str, ast.stmt] = {}
        rest = [node]
        while rest:
            for name in _names(rest.pop()) - needed.keys() - {without, "np"}:
                if name in self.defined:
                    needed[name] = self.defined[name]
                    rest += [self.defined[name], *self.changed.get(name, ())]
        statements = [*needed.values(), *(part for name in needed for part in self.changed.get(name, ()))]
        return list(dict.fromkeys(self.source(part) for part in sorted(statements, key=lambda part: part.lineno)))

    def body(self, name: str, parameters: ast.arguments) -> list[str]:
        """The lines of a function of these parameters that returns the answer."""
        answer = self.right[name]
        function = self.defined.get(answer.id) if isinstance(answer, ast.Name) else answer
        same = isinstance(function, ast.FunctionDef | ast.Lambda) and ast.dump(function.args) == ast.dump(parameters)
        if same and isinstance(function, ast.FunctionDef):
            return [*self.helpers(function, function.name), *(self.source(part) for part in function.body)]
        if same and isinstance(function, ast.Lambda):
            return [*self.helpers(function), f"return {self.source(function.body)}"]
        given = [argument.arg for argument in parameters.args]
        given += [f"{argument.arg}={argument.arg}" for argument in parameters.kwonlyargs]
        return [*self.helpers(answer), f"return {self.source(answer)}({', '.join(given)})"]

    def value(self, name: str, target: str) -> list[str]:
        """The lines that assign the answer to a variable."""
        answer = self.right[name]
        helpers = self.helpers(answer)
        text = self.source(answer).strip()
        return helpers if text == target else [*helpers, f"{target} = {text}"]


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


MARKS: Mapping[str, tuple[str, str]] = {
    "nbgrader": ("### BEGIN SOLUTION", "### END SOLUTION"),
    "otter": ("# BEGIN SOLUTION", "# END SOLUTION"),
    "": ("", ""),
}


def _filled(text: str, name: str, form: str, answers: Answers | None) -> str:
    """An exercise's cell with its answer, between a format's marks if it has any."""
    begin, end = MARKS[form]
    (node,) = ast.parse(text).body
    *head, last = text.splitlines()
    assert last.endswith(PLACEHOLDER), text
    if isinstance(node, ast.FunctionDef):
        lines = ["return ..."] if answers is None else answers.body(name, node.args)
        indent = " " * 4
    else:
        assert isinstance(node, ast.Assign)
        target = ast.unparse(node.targets[0])
        lines, indent = [last] if answers is None else answers.value(name, target), ""
        if form == "otter":  # the prompt is a text for Python, and code for the students
            head, begin = [*head, '""" # BEGIN PROMPT', last, '""" # END PROMPT'], f"{begin} NO PROMPT"
        elif form:
            head = [*head, f"# {target} = …"]
    if answers is None and form == "nbgrader":
        return text
    filled = [begin, *lines, end] if form else lines
    return "\n".join([*head, *textwrap.indent("\n".join(filled), indent).splitlines()])

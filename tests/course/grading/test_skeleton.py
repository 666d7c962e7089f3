"""`minialex grade --new`: an empty submission is valid Python, follows the protocol, and fails."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from minialex.backend import registry
from minialex.backend.protocol import OPERATIONS, Backend
from minialex.cli.app import run as minialex
from minialex.course.grading import complete
from minialex.course.grading.process import Limits, grade
from minialex.course.grading.skeleton import families, write


def test_every_operation_has_its_signature_and_docstring(tmp_path: Path) -> None:
    found = {}
    for path in write(tmp_path / "empty"):
        scope: dict[str, Any] = {}
        exec(compile(path.read_text(encoding="utf-8"), path.name, "exec"), scope)
        found |= {name: scope[name] for name in OPERATIONS if name in scope}
    assert set(found) == set(OPERATIONS)
    for name, function in found.items():
        assert registry.signature_fault(name, function) is None
        assert function.__doc__.split() == (getattr(Backend, name).__doc__ or "").split()


def test_lines_are_not_long(tmp_path: Path) -> None:
    lines = [line for path in write(tmp_path / "empty") for line in path.read_text(encoding="utf-8").splitlines()]
    assert max(map(len, lines)) <= 120


def test_it_fails_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "empty", ["conv2d", "conv2d_backward", "dropout", "sgd_update"])
    graded = grade(str(tmp_path / "empty"), limits=Limits(examples=5))
    assert {result.operation: result.status for result in graded.counted} == dict.fromkeys(
        ("conv2d", "conv2d_backward", "dropout", "sgd_update"), "stub"
    )
    assert not graded.good


def test_filled_in_it_passes(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "mine", ["relu"])
    text = path.read_text(encoding="utf-8").replace("raise NotImplementedError", "return np.maximum(x, 0)")
    ast.parse(text)
    path.write_text(text, encoding="utf-8")
    assert grade(str(tmp_path / "mine"), limits=Limits(examples=5)).good


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert minialex(["grade", "--new", "week-3", "--only", "relu,relu_backward,tanh"]) == 0
    assert sorted(path.name for path in (tmp_path / "week-3").iterdir()) == ["relu.py", "tanh.py"]
    assert "minialex grade week-3" in capsys.readouterr().out
    assert minialex(["grade", "--new", "week-3"]) == 2
    assert "'week-3' already exists" in capsys.readouterr().err
    assert minialex(["grade", "--new", "other", "--only", "reluu"]) == 2
    assert "no operation 'reluu' to write. Did you mean 'relu'?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_gradient_goes_into_the_file_of_its_operation() -> None:
    assert families(["relu_backward", "relu", "augment"]) == {"relu": ["relu", "relu_backward"], "augment": ["augment"]}


def test_complete_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"no operation 'relou'\. Did you mean 'relu'"):
        complete({"relou": lambda x: x})
    with pytest.raises(ValueError, match=r"'relu' takes \(y\), expected \(x\)"):
        complete({"relu": lambda y: y})
    assert complete({}).name == "theirs"

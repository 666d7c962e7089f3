"""What `import minialex` gives: a few names, each with an example that runs, and nothing imported before its time."""

from __future__ import annotations

import ast
import doctest
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minialex

ROOT = Path(minialex.__file__).parents[1]
EXAMPLES = ("load", "train", "load_recipe", "new_session", "TrainedNet")


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import minialex; new = set(sys.modules) - before\n"
        "print(*sorted(name for name in new if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["minialex"]


def test_every_public_name_is_there_and_the_stub_names_the_same() -> None:
    for name in minialex.__all__:
        assert getattr(minialex, name) is getattr(minialex, name)
    assert sorted(minialex.__all__) == dir(minialex)
    stub = ast.parse((ROOT / "minialex" / "__init__.pyi").read_text(encoding="utf-8"))
    (listed,) = (node.value for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == sorted(minialex.__all__)
    imported = [(node.module, alias) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    for module, alias in imported:
        homes = f"{module}:{alias.name}", f"{module or 'minialex'}.{alias.name}"  # of a member, of a module
        assert minialex._HOMES[alias.asname or alias.name] in homes
    assert len(imported) == len(minialex.__all__) - 1
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = minialex.trian


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_docstrings_run(name: str, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minialex.backend.registry.default_name", lambda: "numpy")
    member = getattr(minialex, name)
    assert inspect.getdoc(member)
    tests = [test for test in doctest.DocTestFinder().find(member, name, globs={"minialex": minialex}) if test.examples]
    assert tests
    for test in tests:
        assert doctest.DocTestRunner(verbose=False).run(test).failed == 0

"""Source code that pages and notebooks show: extracted from the library, never pasted."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pkgutil import resolve_name

from minialex.errors import ConfigurationError


def source(name: str) -> str:
    """The source of a function, class, method or constant by its dotted name (``package.module.Class.method``).

    ``package.module.function.variable`` selects the statements of a function that set a local variable, in the
    function's order and without the loops around them; ``package.module.function.return`` selects what it returns. So
    a page can show the lines that belong to one equation.

    Raises:
        ConfigurationError: If there is nothing of that name.
    """
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError):  # ValueError: a keyword is not a name
        if statements := _statements(*name.rpartition(".")[::2]):
            return statements
        raise ConfigurationError(f"the source of '{name}' is asked for, but nothing has that name") from None
    if callable(found) and hasattr(found, "__qualname__"):
        return textwrap.dedent(inspect.getsource(found))
    module, _, constant = name.rpartition(".")
    text = inspect.getsource(resolve_name(module))
    for node in ast.parse(text).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            return f"{ast.get_source_segment(text, node)}\n"
    raise ConfigurationError(f"the source of '{name}' is asked for, which is neither defined nor a constant")


def _statements(function: str, variable: str) -> str:
    """The simple statements of a function that set a local variable, or ``return``; empty if there are none."""
    try:
        whole = resolve_name(function)
    except (ImportError, AttributeError, ValueError):
        return ""
    if not inspect.isfunction(whole):
        return ""
    text = textwrap.dedent(inspect.getsource(whole))
    simple = (node for node in ast.walk(ast.parse(text)) if isinstance(node, _SIMPLE) and variable in _set_by(node))
    found = sorted(simple, key=lambda node: node.lineno)
    return "".join(f"{ast.get_source_segment(text, node)}\n" for node in found)


_SIMPLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return)


def _set_by(statement: ast.stmt) -> set[str]:
    """The variables that a simple statement sets, wholly or in part; a returned value counts as ``return``."""
    if isinstance(statement, ast.Return):
        return {"return"}
    targets: list[ast.expr] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Name | ast.Subscript) and isinstance(node.ctx, ast.Store):
            targets.append(node.value if isinstance(node, ast.Subscript) else node)
        elif isinstance(node, ast.keyword) and node.arg == "out":
            targets.append(node.value)
    return {target.id for target in targets if isinstance(target, ast.Name)}

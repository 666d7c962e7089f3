"""Source code that pages and notebooks show: cut out of the library as it is, never pasted."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pkgutil import resolve_name

from minialex.errors import ConfigurationError


def source(name: str) -> str:
    """The source of a function, class, method or constant by its dotted name (``package.module.Class.method``).

    Raises:
        ConfigurationError: If there is none of that name.
    """
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError):
        raise ConfigurationError(f"the source of '{name}' is asked for, and there is nothing of that name") from None
    if callable(found) and hasattr(found, "__qualname__"):
        return textwrap.dedent(inspect.getsource(found))
    module, _, constant = name.rpartition(".")
    text = inspect.getsource(resolve_name(module))
    for node in ast.parse(text).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            return f"{ast.get_source_segment(text, node)}\n"
    raise ConfigurationError(f"the source of '{name}' is asked for, which is neither defined nor a constant")

"""A fingerprint of what a user-defined network computes, to detect whether its file was edited after training.

It is computed from the recorded training step, so a comment, a different name or a rewritten loop that makes the same
layers changes nothing. If a step has user-defined arithmetic, of which the record has only the name, the source of its
module counts, too, without comments and docstrings.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minialex.backend.operations import FUNCTIONS
from minialex.backend.program import Program, Value
from minialex.engine.step import Kind, Plan, record
from minialex.network import variants
from minialex.recipe.fields import Recipe, is_own


def of_network(recipe: Recipe, kind: Kind = "train") -> str:
    """SHA-256, in hexadecimal, of what a recipe's network computes in a step; empty for built-in networks.

    Raises:
        ConfigurationError: If the network is missing, or does not fit the recipe.
    """
    if not is_own(recipe.model):
        return ""
    fields = recipe.table("network")
    alone = Recipe().replace(**fields, image_size=recipe.crop)  # the rest of the recipe is compared separately
    plan = Plan(variants.build(alone), ("here",) * recipe.columns, alone)
    program = record(plan, kind, 1, ("here",))
    sum_ = hashlib.sha256()
    for line in (*_calls(program), *_sources(program)):
        sum_.update(line.encode() + b"\n")
    return sum_.hexdigest()


def _calls(program: Program) -> Iterator[str]:
    for call in program.calls:
        # of two operations of one name in a process, the second has a number
        operation = re.sub(r"-\d+$", "", call.operation) if call.operation in FUNCTIONS else call.operation
        yield f"{call.layer} {call.column} {call.phase} {operation} {text((call.args, call.kwargs))}"


def text(item: Any) -> str:
    """Everything that an item holds, the same in every process."""
    if isinstance(item, Value):
        return f"#{item.index}{item.shape}{item.dtype}"
    if isinstance(item, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(item).tobytes()).hexdigest()
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{key}: {text(value)}" for key, value in item.items()) + "}"
    if isinstance(item, list | tuple):
        return "(" + ", ".join(map(text, item)) + ")"
    if isinstance(item, set | frozenset):
        return "{" + ", ".join(sorted(map(text, item))) + "}"
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        fields = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
        return f"{type(item).__qualname__}{text(fields)}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(item))


def _sources(program: Program) -> Iterator[str]:
    """The modules of user-defined arithmetic."""
    functions = [FUNCTIONS[call.operation] for call in program.calls if call.operation in FUNCTIONS]
    plain = [plain for function in functions for plain in (function.plain, *function.fast.values())]
    for name in sorted({plain.__module__ for plain in plain}):
        try:
            tree = ast.parse(inspect.getsource(sys.modules[name]))
        except (OSError, TypeError, KeyError, SyntaxError):  # a notebook's cells are not a file
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [line for line in node.body if not _is_text(line)] or [ast.Pass()]
        yield ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)

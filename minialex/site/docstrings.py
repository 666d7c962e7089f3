"""For mkdocstrings: a docstring's ``name : words`` is a description, and the type is that of the signature.

NumPy's style puts a type after the colon; minialex has type hints and says there what the value is (shapes, units).
Griffe would print those words in the column of types and leave the descriptions empty.
"""

from __future__ import annotations

from typing import Any

import griffe

_KINDS = (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes)


def _hint(owner: griffe.Object, name: str) -> str | griffe.Expr | None:
    """The type hint of a function's parameter or a class's member, None where there is none."""
    bare = name.lstrip("*")
    if isinstance(owner, griffe.Function):
        return next((p.annotation for p in owner.parameters if p.name.lstrip("*") == bare), None)
    member, begin = owner.members.get(bare), owner.members.get("__init__")
    hint = None
    if isinstance(member, griffe.Attribute):
        hint = member.annotation
    elif isinstance(member, griffe.Function):
        hint = member.returns
    return hint if hint is not None or not isinstance(begin, griffe.Function) else _hint(begin, name)


def _mend(owner: griffe.Object) -> None:
    for section in owner.docstring.parsed if owner.docstring else ():
        if section.kind in _KINDS:
            for item in section.value:
                words = str(item.annotation) if item.annotation is not None else ""
                hint = _hint(owner, item.name)
                if words and hint is not None and words != str(hint):
                    item.description = f"{words}\n{item.description}".strip()
                    item.annotation = hint


class Described(griffe.Extension):
    """Puts the words of parameters and attributes where a reader looks for them."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Every function and class of a package, once it is loaded."""
        waiting: list[griffe.Object] = [pkg]
        while waiting:
            owner = waiting.pop()
            _mend(owner)
            waiting.extend(member for member in owner.members.values() if isinstance(member, griffe.Object))

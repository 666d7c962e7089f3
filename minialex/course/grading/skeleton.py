"""Empty submissions: one file per operation and its gradient, with the protocol's signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from minialex.backend.protocol import OPERATIONS, Backend
from minialex.errors import ConfigurationError, nearest
from minialex.storage.atomic import make_folder, translate_os_errors, write_text

FLOATS, BYTES, LABELS, PLACES = "Floats", "NDArray[np.uint8]", "NDArray[np.int64]", "NDArray[np.int32]"
LINE = 120
KINDS = {"mask": BYTES, "images": BYTES, "flip": BYTES, "labels": LABELS, "top": PLACES, "left": PLACES}
"""Types of array parameters by name; the others are floats."""
RESULTS = {"sgd_update": LABELS, "dropout": f"tuple[{FLOATS}, {BYTES}]"}
"""Result types of operations that return more than floats."""


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """Operations by file: a gradient is in the same file as its operation.

    Raises:
        ConfigurationError: If a name is not an operation's.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        if name not in OPERATIONS:
            raise ConfigurationError(f"no operation '{name}' to write.{nearest(name, OPERATIONS)}")
        found.setdefault(name.removesuffix("_backward"), []).append(name)
    return {family: sorted(set(members)) for family, members in found.items()}


def write(folder: Path, names: Sequence[str] = OPERATIONS) -> list[Path]:
    """Write an empty submission into a new folder.

    Returns:
        The files written.

    Raises:
        ConfigurationError: If a name is not an operation's, or the folder exists and is not empty.
    """
    groups = families(names)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"'{folder}' already exists: an empty submission needs a new folder")
    with translate_os_errors(folder):
        make_folder(folder)
    files = []
    for family, members in groups.items():
        files.append(folder / f"{family}.py")
        write_text(files[-1], module(family, members))
    return files


def module(family: str, names: Sequence[str]) -> str:
    """The text of one file."""
    source = "\n\n\n".join(function(name) for name in names)
    imports = ["from minialex.backend.protocol import Padding"] if "Padding" in source else []
    imports += ["from minialex.philox import Stream, words"] if "Stream" in source else []
    return f'''"""{family}: to be written. Results have the dtype of the arguments."""

from __future__ import annotations

from typing import Any

{chr(10).join(["import numpy as np", *imports, "from numpy.typing import NDArray"])}

{FLOATS} = NDArray[np.floating[Any]]  # float32 or float64


{source}
'''


def function(name: str) -> str:
    """One function: the protocol's signature on NumPy arrays, its docstring, and no body."""
    method = getattr(Backend, name)
    signature = inspect.signature(method)
    parameters = [
        parameter.replace(annotation=parameter.annotation.replace("Array", KINDS.get(parameter.name, FLOATS)))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    result = RESULTS.get(name, signature.return_annotation.replace("Array", FLOATS))
    text = re.sub(r"'([^']*)'", r"\1", str(signature.replace(parameters=parameters, return_annotation="RESULT")))
    head = f"def {name}{text}:".replace("RESULT", result)
    if len(head) > LINE:  # one parameter per line
        texts = re.sub(r"'([^']*)'", r"\1", ",\n    ".join(str(parameter) for parameter in parameters))
        keyword = next((p.name for p in parameters if p.kind is p.KEYWORD_ONLY), None)
        texts = re.sub(rf"^    {keyword}:", f"    *,\n    {keyword}:", texts, flags=re.MULTILINE) if keyword else texts
        head = f"def {name}(\n    {texts},\n) -> {result}:"
    docstring = inspect.getdoc(method) or ""
    body = f'"""{docstring}"""' if "\n" not in docstring else f'"""{docstring}\n"""'
    return f"{head}\n{textwrap.indent(body, '    ')}\n    raise NotImplementedError"

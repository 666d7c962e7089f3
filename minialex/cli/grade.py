"""``minialex grade``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from minialex.errors import ConfigurationError


def grade(
    theirs: Annotated[
        str | None,
        typer.Argument(help="a .py file, a folder of them, an importable name, module:Class, or an installed backend"),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="operations to grade: relu,conv2d; one left out fails")] = None,
    examples: Annotated[int, typer.Option(min=1, help="calls drawn for an operation in each dtype")] = 100,
    seed: Annotated[int | None, typer.Option(min=0, help="draw other examples; default the same for everybody")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="processor seconds for one call of an operation")] = 20.0,
    memory: Annotated[float, typer.Option(min=0, help="GiB that it may allocate (Linux); 0: no limit")] = 4.0,
    points: Annotated[float | None, typer.Option(min=0, help="say how many of so many points")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="ask for all that a backend's author is asked for")] = False,
    json: Annotated[Path | None, typer.Option("--json", help="write everything there too")] = None,
    new: Annotated[Path | None, typer.Option("--new", help="write an empty submission into this new folder")] = None,
) -> int:
    """Hold a student's operations to the reference: a table, and the smallest failing call of each that is wrong.

    Ends with 0 if all passed, 1 if not, 2 if there is nothing to grade. It runs their code with your rights.
    """
    if (theirs is None) == (new is None):
        raise ConfigurationError("say what to grade, or --new FOLDER for an empty submission, and not both")
    if new is None and find_spec("hypothesis") is None:
        raise ConfigurationError('grading needs Hypothesis: pip install "minialex[conformance]"')
    from minialex.backend.protocol import OPERATIONS
    from minialex.course.grading import process, skeleton, table
    from minialex.screen.terminal import console
    from minialex.storage.atomic import write_json

    operations = process.names(only or [])
    if new is not None:
        for path in skeleton.write(new, operations or OPERATIONS):
            print(path)
        print(f"fill them in, then: minialex grade {new}")
        return 0
    screen = console(least=0)
    limits = process.Limits(examples, seed, timeout, memory, strict)
    with screen.status("importing …") as status:
        graded = process.grade(
            theirs or "", operations or None, limits, lambda name, count: status.update(f"{name}, example {count}")
        )
    table.show(screen, graded, points)
    if json is not None:
        write_json(json, graded.as_json(points))
    return 0 if graded.good else 1

"""``minialex grade``: what the command does, apart from its options."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from minialex.backend.protocol import OPERATIONS
from minialex.errors import ConfigurationError


def run(
    theirs: str,
    only: Sequence[str],
    examples: int,
    seed: int | None,
    timeout: float,
    memory: float,
    points: float | None,
    json_path: Path | None,
) -> int:
    """Grade and show; 0 if everything passed, else 1."""
    if find_spec("hypothesis") is None:
        raise ConfigurationError('grading needs Hypothesis: pip install "minialex[conformance]"')
    from minialex.course.grading.process import Limits, grade, names
    from minialex.course.grading.table import show
    from minialex.storage.atomic import write_json

    console = Console()
    limits = Limits(examples, seed, timeout, memory)
    with console.status("importing …") as status:
        graded = grade(
            theirs,
            names(only) or None,
            limits,
            lambda name, count: status.update(f"{name}, example {count}"),
        )
    show(console, graded, points)
    if json_path is not None:
        write_json(json_path, graded.as_json(points))
    return 0 if graded.good else 1


def new(folder: Path, only: Sequence[str]) -> int:
    """Write an empty submission."""
    from minialex.course.grading.process import names
    from minialex.course.grading.skeleton import write

    for path in write(folder, names(only) or OPERATIONS):
        print(path)
    print(f"fill them in, then: minialex grade {folder}")
    return 0

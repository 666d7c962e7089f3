"""The command ``minialex train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from minialex.api.run import TrainingRun
from minialex.api.run import train as train_run
from minialex.cli.commands import console
from minialex.errors import ConfigurationError
from minialex.training.display import duration
from minialex.training.loop import Result


def train(
    recipe_name: str | None, changes: dict[str, Any], threads: int | None, resume: Path | None, out: Path | None
) -> int:
    """Train in a new run folder, or go on in an old one; returns the exit code."""
    if resume is None:
        run = train_run(recipe_name, out=out, threads=threads, **changes)
    elif out is None and recipe_name is None:
        run = TrainingRun(resume).resume(threads=threads, **changes)
    else:
        raise ConfigurationError("--resume goes on with the run's own folder and recipe: leave out --out and --recipe")
    assert run.result is not None
    tell(run, run.result, console())
    return run.result.exit_code


def tell(run: TrainingRun, result: Result, screen: Console) -> None:
    """What came of a finished run; for a stopped one, how to go on."""
    if result.evaluation is None:
        screen.print(f"stopped by {result.stopped} after step {result.progress.step}; go on with:", highlight=False)
        screen.print(f"  minialex train --resume {run.path}", highlight=False)
        return
    found = result.evaluation
    screen.print(
        f"validation top-1 error {found.words(1)}, top-5 {found.error(5):.2%}, after "
        f"{len(result.progress.errors)} epochs, {duration(result.progress.seconds)}; "
        f"guessing would be {100 * (1 - 1 / run.recipe.classes):.3g}%",
        highlight=False,
    )
    screen.print(f"report       {run.report()}", highlight=False)
    screen.print(f"evaluate     minialex evaluate {run.path} --views 10", highlight=False)
    screen.print(f"predict      minialex predict {run.path} IMAGE…", highlight=False)

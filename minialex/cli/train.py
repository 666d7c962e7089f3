"""The command ``minialex train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from minialex.api.run import TrainingRun, begin_run, choose_recipe, resume_run
from minialex.cli.commands import console
from minialex.errors import ConfigurationError
from minialex.training.display import TrainingDisplay, duration


def train(
    recipe_name: str | None, changes: dict[str, Any], threads: int | None, resume: Path | None, out: Path | None
) -> int:
    """Train in a new run folder, or go on in an old one; returns the exit code."""
    screen = console()
    if resume is not None:
        if out is not None or recipe_name is not None:
            raise ConfigurationError(
                "--resume goes on with the run's own folder and recipe: leave out --out and --recipe"
            )
        with TrainingDisplay(screen) as display:
            run = resume_run(resume, changes, threads, display)
    else:
        recipe = choose_recipe(recipe_name, changes)
        with TrainingDisplay(screen) as display:
            run = begin_run(recipe, out, threads, display)
    assert run.result is not None
    tell(run, screen)
    return run.result.exit_code


def tell(run: TrainingRun, screen: Console) -> None:
    """What came of a finished run; for a stopped one, how to go on."""
    result = run.result
    assert result is not None
    if result.evaluation is None:
        screen.print(f"stopped by {result.stopped} after step {result.progress.step}; go on with:", highlight=False)
        screen.print(f"  minialex train --resume {run.path}", highlight=False)
        return
    found = result.evaluation
    screen.print(
        f"validation top-1 error {found.words(1)}, top-5 {found.error(5):.2%}, after "
        f"{result.epochs} epochs, {duration(result.progress.seconds)}; "
        f"guessing would be {100 * (1 - 1 / run.recipe.classes):.3g}%",
        highlight=False,
    )
    screen.print(f"report       {run.report()}", highlight=False)
    screen.print(f"evaluate     minialex evaluate {run.path} --views 10", highlight=False)
    screen.print(f"predict      minialex predict {run.path} IMAGE…", highlight=False)

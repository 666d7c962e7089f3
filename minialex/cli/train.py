"""``minialex train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minialex.cli.options import HostsOption, Machine, RanksOption, is_launcher, overrides, recipe_names
from minialex.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from minialex.api.run import TrainingRun
    from minialex.training.loop import Result


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(
            help="shapes, cifar10, fashion-mnist (or NAME:PATH), a store, a folder or a list of images; default shapes"
        ),
    ] = None,
    *,
    machine: Machine,
    recipe: Annotated[
        str | None,
        typer.Option(help="a recipe's name or a .toml file; see `minialex recipe`", autocompletion=recipe_names),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="your own network: FILE.py:NAME, MODULE:NAME, or one that an installed package provides"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training set")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images in one step")] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="leave out image files that cannot be read, instead of stopping")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="seed of every random number in the run")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="start from the layers of a run, checkpoint or weights file; or gaussian, he: draw new weights"
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="continue the run in this folder")] = None,
    out: Annotated[Path | None, typer.Option(help="the new run's folder; default runs/NAME-DATE")] = None,
    ranks: RanksOption = None,
    hosts: HostsOption = None,
    rank_timeout: Annotated[
        float, typer.Option(min=1, help="seconds of silence after which a rank counts as lost")
    ] = 30,
) -> int:
    """Train a network. Any recipe field is also an option: --learning-rate 0.02 --dropout 0 …

    Without options it trains the small two-column AlexNet on generated shapes, in about a minute on two cores.

    An option overrides the recipe file, the file overrides its base, and the base overrides the paper's values, which
    `minialex recipe` lists. Without --recipe, the data decides: the recipe of the same name (shapes, cifar10,
    fashion-mnist), alexnet-2012 for a prepared store, otherwise small. --resume uses the run's own recipe.
    """
    from minialex.api import run as training
    from minialex.ranks import joining
    from minialex.screen import streams
    from minialex.screen.terminal import console
    from minialex.training.listening import reached

    streams.go_on_without_output()
    joining.set_timeout(rank_timeout)
    launches = is_launcher(ranks, hosts)
    fields = {"epochs": epochs, "batch_size": batch_size, "seed": seed, "data": data, "init": init,
              "backend": machine.backend, "devices": machine.devices, "skip_broken": skip_broken or None}  # fmt: skip
    changes = overrides(context.args) | {name: value for name, value in fields.items() if value is not None}
    if launches:
        return start(context.obj, ranks or 1, hosts, resume or out or training.new_folder(recipe, changes))
    if resume is None:
        run = training.train(recipe, network=network, out=out, threads=machine.threads, **changes)
    elif out is None and recipe is None and network is None:
        run = training.TrainingRun(resume).resume(threads=machine.threads, **changes)
    else:
        raise ConfigurationError(
            "--resume continues with the run's own folder, recipe and network: leave out --out, --recipe and --network"
        )
    result = run.result
    assert result is not None
    if joining.join().rank == 0:
        reached(lambda: tell(run, result, console()))
    return result.exit_code


def start(words: Sequence[str], ranks: int, hosts: str | None, folder: Path) -> int:
    """Run the same command as `ranks` processes; if one is lost, say how to continue.

    Args:
        words: the arguments of the command, beginning with ``train``
        folder: the run's folder
    """
    from minialex.errors import ResourceError
    from minialex.ranks import launch
    from minialex.runs import checkpoint
    from minialex.runs.run_folder import RunPaths
    from minialex.screen.formats import shell
    from minialex.screen.terminal import console

    named = [] if any(word.partition("=")[0] in ("--out", "--resume") for word in words) else ["--out", str(folder)]
    code = launch.start(ranks, hosts, ["minialex", *words, *named])
    if code == ResourceError.exit_code:
        last = checkpoint.latest(RunPaths(folder).checkpoints, lambda message: None)
        if last is not None:
            screen = console(stderr=True)
            screen.print(f"the last checkpoint is {last.path}; continue with:")
            screen.print("  " + shell("minialex", "train", "--ranks", ranks, "--resume", folder))
    return code


def tell(run: TrainingRun, result: Result, screen: Console) -> None:
    """Show the result of a finished run; for a stopped one, how to continue."""
    from minialex.ranks import joining
    from minialex.runs.run_folder import trained_epochs
    from minialex.screen.formats import duration, plural, shell

    if result.stopped:
        what = f"after step {result.progress.step}; continue with:"
        if result.evaluation is not None:
            what = "before the report was written; training is complete, and this writes the report:"
        screen.print(f"stopped by {result.stopped} {what}")
        size = joining.join().size
        ranks = [] if size == 1 else ["--ranks", size]
        screen.print("  " + shell("minialex", "train", *ranks, "--resume", run.path))
    if result.evaluation is None:
        return
    evaluation, classes = result.evaluation, run.recipe.classes
    screen.print(f"error        {evaluation.words(1)}; guessing: {100 * (1 - 1 / classes):.3g}%")
    if classes > 5:
        screen.print(f"top-5 error  {evaluation.words(5)}")
    screen.print(f"trained      {plural(trained_epochs(run.metrics), 'epoch')} in {duration(result.progress.seconds)}")
    if not result.stopped:
        screen.print(f"report       {run.report()}")
    screen.print("evaluate     " + shell("minialex", "evaluate", run.path, "--views", 10))
    screen.print(f"predict      {shell('minialex', 'predict', run.path)} IMAGE…")

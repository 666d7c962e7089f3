"""``minialex look kernels``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import Machine


def kernels(
    runs: Annotated[list[Path], typer.Argument(help="one or more run folders or checkpoints")],
    picture: Annotated[Path, typer.Option(help="file to save the first run's picture in")] = Path("kernels.png"),
) -> None:
    """Show the first layer's kernels by column: how colourful each is, and whether the columns differ (figure 3)."""
    import numpy as np

    from minialex.cli.look.subject import open_run, save
    from minialex.errors import ConfigurationError
    from minialex.figures import look as figures
    from minialex.look.kernels import colour_selectivity, colour_share, column_difference
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console

    rows: list[list[str]] = []
    figure = None
    for run in runs:
        subject = open_run(run, Machine())
        arrays, columns = subject.session.weights(), subject.recipe.columns
        weights = arrays.get("conv1.weight", next((a for a in arrays.values() if a.ndim == 4), None))
        if weights is None:
            raise ConfigurationError(f"{run} has no convolution whose kernels could be shown")
        scores = colour_selectivity(weights)
        difference = column_difference(scores, columns) if columns > 1 else None
        for n, (part, block) in enumerate(zip(np.split(scores, columns), np.split(weights, columns), strict=True)):
            numbers = (float(np.nanmean(part)), float(np.nanmedian(part)), colour_share(block))
            test = ["", ""]
            if difference is not None and n == 0:
                test = [f"{difference.statistic:.3f}", f"{difference.p_value:.4g}"]
            texts = [f"{number:.3f}" for number in numbers]
            rows.append([str(run) if n == 0 else "", str(n + 1), str(len(part)), *texts, *test])
        figure = figure or figures.kernels(weights, scores, columns, difference)
    screen = console()
    header = ("run", "column", "kernels", "mean", "median", "of all weights", "η²", "p")
    screen.print(Sheet("", header, rows).rich(frame=False))
    screen.print(
        "mean, median: of the kernels' colour selectivity, the share of a kernel's squared weights that remains when "
        "the mean over red, green and blue is taken away: 0 grey, 1 colour alone, 0.667 random weights on average. "
        "η²: share of the kernels' variance that lies between the columns; p: share of divisions of the same kernels "
        "into columns at random that differ as much (permutation test)."
    )
    assert figure is not None
    save(screen, figure, picture)

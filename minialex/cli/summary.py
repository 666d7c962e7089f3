"""``minialex summary``."""

from __future__ import annotations

from typing import Annotated

import typer

from minialex.cli.options import of_network, overrides


def summary(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option(help="a recipe's name or a .toml file; default alexnet-2012")] = None,
    network: Annotated[str | None, typer.Option(help="your own network: FILE.py:NAME or MODULE:NAME")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="batch size for which the memory of a step is given")
    ] = None,
) -> None:
    """Show a network in numbers: shapes, connections, parameters, neurons, multiply-adds, memory."""
    from minialex.engine.summary import PAPER_TOTALS, summarise
    from minialex.recipe.fields import is_own
    from minialex.recipe.toml import load
    from minialex.screen.formats import plural, three_digits
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console

    changes = overrides(context.args) | ({} if network is None else of_network(network) or {"model": network})
    own = is_own(changes.get("model", ""))
    subject = load(recipe or ("small" if own else "alexnet-2012"))
    subject = subject.replace(**({"classes": 0} if own and recipe is None else {}) | changes)
    numbers = summarise(subject, batch_size)
    rows = []
    for row in numbers.rows:
        shape = "×".join(map(str, row.output)) + (f" ×{row.columns}" if row.columns > 1 else "")
        counts = (row.parameters, row.neurons, row.multiply_adds, row.received)
        rows.append([row.layer, shape, row.reads, row.kernel, *(f"{n:,}" if n else "" for n in counts)])
    sums = (numbers.parameters, numbers.neurons, numbers.multiply_adds, sum(row.received for row in numbers.rows))
    total = [["total", "", "", "", *(f"{n:,}" for n in sums)]]
    if subject.model == "alexnet":
        paper = [f"{PAPER_TOTALS[name]:,}" for name in ("parameters", "neurons", "multiply_adds")]
        total.append(["the paper's", "", "", "says 60 million, 650,000", *paper, ""])
    header = ("layer", "output of a column", "reads", "kernels", "parameters", "neurons", "multiply-adds",
              "values exchanged")  # fmt: skip
    title = f"{subject.model}, {plural(subject.columns, 'column')}"
    screen = console(least=130)
    screen.print(Sheet(title, header, rows, "llllr", total).rich())
    screen.print(
        f"a training step takes {numbers.training_multiply_adds:,} multiply-adds an image; with a batch of "
        f"{numbers.batch_size}: weights, momentum and gradients {three_digits(numbers.parameter_bytes / 2**20)} MiB, "
        f"activations and their gradients {three_digits(numbers.activation_bytes / 2**20)} MiB at most"
    )

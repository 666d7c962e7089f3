"""``minialex doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    backend: Annotated[
        str | None, typer.Option("--backend", help="the backend to check; default this machine's")
    ] = None,
    devices: Annotated[str | None, typer.Option("--devices", help="check a network on two devices: 0,1 or 0,0")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="write everything to this JSON file; with --devices, default minialex-doctor.json"),
    ] = None,
    precision: Annotated[str, typer.Option(help="precision of the network on two devices")] = "float32",
    steps: Annotated[int, typer.Option(min=1, help="training steps in the long check of two devices")] = 1000,
    quick: Annotated[bool, typer.Option("--quick", help="skip measuring rates")] = False,
) -> int:
    """Check whether this machine can train, and print the command that fixes what does not work.

    Started by mpiexec, it reports where each process runs, what it has, and how fast they all-reduce together.

    Exits with 0 if what you asked for works (training on the processor, --backend cuda, or --devices), else with 6.
    """
    from minialex.doctor import examine, ranks
    from minialex.ranks import joining

    group = joining.join()
    if group.size > 1:
        return ranks.together(group, backend, quick)
    return examine.run(backend, devices, report, precision, steps, quick)

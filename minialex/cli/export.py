"""``minialex export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import Network, OverwriteOption, refuse_existing
from minialex.errors import ConfigurationError

FORMATS = (".safetensors", ".onnx", ".pt", ".pth")


def export(
    run: Network,
    out: Annotated[
        Path,
        typer.Argument(
            help="file to write: .safetensors, .onnx, or .pt with a module beside it; .csv or .tfevents for the metrics"
        ),
    ],
    overwrite: OverwriteOption = False,
) -> None:
    """Export a network's weights (a weights file, ONNX or PyTorch, with a model card), or a run's metrics."""
    from minialex.exchange import card, metrics_file, onnx_file, pytorch_module
    from minialex.runs import weights_file
    from minialex.screen.formats import plural
    from minialex.screen.terminal import console
    from minialex.storage import atomic

    endings = (*FORMATS, *metrics_file.ENDINGS)
    if out.suffix not in endings:
        raise ConfigurationError(f"{out}: give it one of the endings {', '.join(endings)}, which choose the format")
    if out.suffix in metrics_file.ENDINGS:
        refuse_existing([out], overwrite)
        records = metrics_file.write(out, run)
        console().print(f"{out}: {plural(records, 'record')} of the metrics")
        return
    module = pytorch_module.module_path(out) if out.suffix in (".pt", ".pth") else None
    page = out.with_name(out.name + ".md")
    written = [out, *([module] if module else []), page]
    refuse_existing(written, overwrite)
    weights = weights_file.find(run)
    if module:
        pytorch_module.write(out, weights)
    elif out.suffix == ".onnx":
        onnx_file.write(out, weights)
    else:
        weights_file.write(out, weights)
    atomic.write_text(page, card.card(weights, out, module.stem if module else ""))
    for path in written:
        console().print(str(path))

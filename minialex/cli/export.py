"""``minialex export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import Network, OverwriteOption, refuse_existing
from minialex.errors import ConfigurationError
from minialex.screen.formats import shell

FORMATS = (".safetensors", ".onnx", ".pt", ".pth")


def export(
    run: Network,
    out: Annotated[Path, typer.Argument(help="the new file: .safetensors, .onnx, or .pt with a module beside it")],
    overwrite: OverwriteOption = False,
) -> None:
    """Write a network's weights for others: a weights file, ONNX, or PyTorch; each with a model card."""
    from minialex.exchange import card, onnx_file, pytorch_module
    from minialex.runs import weights_file
    from minialex.screen.terminal import console
    from minialex.storage import atomic

    if out.suffix not in FORMATS:
        raise ConfigurationError(f"{out}: give it one of the endings {', '.join(FORMATS)}, which name the formats")
    if out.stem == "torch":
        raise ConfigurationError(f"{out}: the module beside it would hide PyTorch itself: choose another name")
    page = out.with_name(out.name + ".md")
    written = [out, *([out.with_suffix(".py")] if out.suffix in (".pt", ".pth") else []), page]
    refuse_existing(written, overwrite)
    weights = weights_file.find(run)
    if out.suffix == ".safetensors":
        weights_file.write(out, weights)
        use = [
            f"{shell('minialex', 'predict', Path(out.name))} IMAGE",
            f"{shell('minialex', 'train', '--init', Path(out.name))} --data FOLDER",
        ]
    elif out.suffix == ".onnx":
        onnx_file.write(out, weights)
        use = [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{out.name}")',
            f"crop = {weights.recipe.crop}",
            "# pixels: float32 array [N, 3, crop, crop], RGB, 0 to 255",
            '(probabilities,) = session.run(["probabilities"], {"pixels": pixels})',
        ]
    else:
        pytorch_module.write(out, weights)
        use = [
            f"from {out.stem} import load" if out.stem.isidentifier() else f"# the module is {out.stem}.py",
            f'network = load("{out.name}")',
            "# pixels: float32 tensor [N, 3, crop, crop], RGB, 0 to 255",
            "probabilities = network(pixels).softmax(1)",
        ]
    atomic.write_text(page, card.card(weights, out, out.stat().st_size, use))
    for path in written:
        console().print(str(path))

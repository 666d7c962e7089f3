"""The model card: one page of Markdown beside every exported file, for whoever finds it there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from minialex import __version__
from minialex.runs.weights_file import Weights
from minialex.storage.atomic import readable_size

CLASSES_SHOWN = 20


def card(weights: Weights, out: Path, size: int, use: Sequence[str]) -> str:
    """The card's text.

    Args:
        weights: what was exported
        out: the exported file
        size: its bytes
        use: lines of code that load and run it
    """
    recipe, origin = weights.recipe, weights.origin
    parameters = sum(math.prod(array.shape) for array in weights.tensors.values())
    columns = f"{recipe.columns} column{'s' if recipe.columns > 1 else ''}"
    shown = weights.titles[:CLASSES_SHOWN]
    rest = len(weights.titles) - len(shown)
    module = "'s module" if out.suffix in (".pt", ".pth") else ""
    text = [
        f"# {out.name}",
        "",
        f"AlexNet (Krizhevsky, Sutskever, Hinton 2012) as `{recipe.model}` of minialex {__version__}: {columns}, "
        f"{parameters:,} parameters, {recipe.classes} classes. {readable_size(size)}; SHA-256 of the weights' names "
        f"and values: `{weights.digest()}`.",
        "",
        "## Trained on",
        "",
        f"{weights.data}. The weights come from {origin.get('from', 'an unknown place')}{_trained(weights)}.",
        "",
        "## Errors",
        "",
        *_errors(weights),
        "",
        "## Preprocessing",
        "",
        *_preprocessing(weights, out),
        "",
        "## Use",
        "",
        *(["```bash" if use[0].startswith("minialex") else "```python", *use, "```"]),
        "",
        "## Classes",
        "",
        ", ".join(f"{i} {name}" for i, name in enumerate(shown))
        + (f", and {rest} more (in the file{module})" if rest else "")
        if weights.class_names
        else f"Nobody said what the {recipe.classes} classes are (`minialex import --class-names FILE`).",
        "",
        "## Licence",
        "",
        "LICENCE OF THE WEIGHTS: to be filled in by whoever publishes them.",
        "",
        "LICENCE AND SOURCE OF THE TRAINING DATA: to be filled in. (minialex itself is under the MIT licence, which "
        "says nothing of weights or data.)",
        "",
        "## Limits",
        "",
        *_limits(weights, out),
        "",
        "## Recipe",
        "",
        "```toml",
        recipe.to_toml().rstrip(),
        "```",
        "",
    ]
    return "\n".join(text)


def _trained(weights: Weights) -> str:
    recipe, epochs, other = weights.recipe, weights.origin.get("epochs"), weights.origin.get("begun_with")
    begun = f", begun with layers of {other}" if other else ""
    if epochs is None:
        return begun
    return (
        f"{begun}, {epochs} epochs of at most {recipe.epochs} with batches of {recipe.batch_size}, seed {recipe.seed}"
    )


def _errors(weights: Weights) -> list[str]:
    origin = weights.origin
    if not isinstance(origin.get("top1_error"), float):
        return ["Not known here. `minialex evaluate` measures them on any data set with these classes."]
    views = "the centre view" if origin.get("views", 1) == 1 else f"{origin['views']} views averaged"
    rows = [("top-1", origin["top1_error"]), ("top-5", origin.get("top5_error"))]
    return [
        f"On the validation images of {weights.data}, {views}, during training:",
        "",
        "| error | |",
        "|---|---|",
        *(f"| {name} | {value:.2%} |" for name, value in rows if isinstance(value, float)),
    ]


def _preprocessing(weights: Weights, out: Path) -> list[str]:
    recipe = weights.recipe
    colours = ", ".join(f"{value:.3f}" for value in weights.statistics.mean.mean(axis=(1, 2), dtype=float))
    mean = {
        "pixel": "the mean image at the same pixels",
        "centre": "the centre crop of the mean image",
        "channel": "each channel's mean",
    }[recipe.mean]
    ours = out.suffix == ".safetensors"
    return [
        f"1. The central square of the image, resized to {recipe.image_size} × {recipe.image_size} (bilinear, "
        f"antialiased), RGB, 0 to 255; of it the central {recipe.crop} × {recipe.crop} (minialex resizes after cutting "
        "the square).",
        f"2. Minus {mean} (by channel on average {colours}), times {recipe.pixel_scale:g}. "
        + ("minialex does both." if ours else "The file does this itself: feed it the pixels."),
    ]


def _limits(weights: Weights, out: Path) -> list[str]:
    recipe = weights.recipe
    limits = [
        "- It knows its classes and no others: of any image it names the most probable one of them.",
        "- Its errors hold for images like those of its validation set; nothing is known here of others, of its "
        "behaviour on people, or of images made to deceive it.",
        "- Its probabilities are as good as their calibration: see `minialex evaluate --reliability`.",
    ]
    if out.suffix != ".safetensors" and recipe.mean == "pixel":
        limits.append(
            "- The mean image in it is that of the centre crop: feeding it other crops, as for ten views, takes off "
            "slightly wrong means."
        )
    if recipe.dtype != "float32" and out.suffix != ".safetensors":
        limits.append(f"- It was trained in {recipe.dtype} and is exported in float32.")
    return limits

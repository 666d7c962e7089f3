"""The model card: one page of Markdown beside every exported file, for whoever finds it there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from minialex import __version__
from minialex.runs.weights_file import Weights
from minialex.screen.formats import readable_size

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
    language = "bash" if use[0].startswith("minialex") else "python"
    code = "\n".join(use)
    return f"""# {out.name}

AlexNet (Krizhevsky, Sutskever, Hinton 2012) as `{recipe.model}` of minialex {__version__}: {columns}, \
{parameters:,} parameters, {recipe.classes} classes. {readable_size(size)}; SHA-256 of the weights' names \
and values: `{weights.digest()}`.

## Trained on

{weights.data}. The weights come from {origin.get("from", "an unknown place")}{_trained(weights)}.

## Errors

{_errors(weights)}

## Preprocessing

{_preprocessing(weights, out)}

## Use

```{language}
{code}
```

## Classes

{_classes(weights, out)}

## Licence

LICENCE OF THE WEIGHTS: to be filled in by whoever publishes them.

LICENCE AND SOURCE OF THE TRAINING DATA: to be filled in. (minialex itself is under the MIT licence, which \
says nothing of weights or data.)

## Limits

{_limits(weights, out)}

## Recipe

```toml
{recipe.to_toml().rstrip()}
```
"""


def _classes(weights: Weights, out: Path) -> str:
    if not weights.class_names:
        count = weights.recipe.classes
        return f"Nobody said what the {count} classes are (`minialex import --class-names FILE`)."
    shown = ", ".join(f"{number} {name}" for number, name in enumerate(weights.titles[:CLASSES_SHOWN]))
    rest = len(weights.titles) - CLASSES_SHOWN
    module = "'s module" if out.suffix in (".pt", ".pth") else ""
    return shown + (f", and {rest} more (in the file{module})" if rest > 0 else "")


def _trained(weights: Weights) -> str:
    recipe, epochs, other = weights.recipe, weights.origin.get("epochs"), weights.origin.get("begun_with")
    begun = f", begun with layers of {other}" if other else ""
    if epochs is None:
        return begun
    return (
        f"{begun}, {epochs} epochs of at most {recipe.epochs} with batches of {recipe.batch_size}, seed {recipe.seed}"
    )


def _errors(weights: Weights) -> str:
    origin = weights.origin
    if not isinstance(origin.get("top1_error"), float):
        return "Not known here. `minialex evaluate` measures them on any data set with these classes."
    views = "the centre view" if origin.get("views", 1) == 1 else f"{origin['views']} views averaged"
    errors = {"top-1": origin["top1_error"], "top-5": origin.get("top5_error")}
    rows = "".join(f"\n| {name} | {error:.2%} |" for name, error in errors.items() if isinstance(error, float))
    return f"On the validation images of {weights.data}, {views}, during training:\n\n| error | |\n|---|---|{rows}"


def _preprocessing(weights: Weights, out: Path) -> str:
    recipe = weights.recipe
    colours = ", ".join(f"{value:.3f}" for value in weights.statistics.mean.mean(axis=(1, 2), dtype=float))
    means = {
        "pixel": "the mean image at the same pixels",
        "centre": "the centre crop of the mean image",
        "channel": "each channel's mean",
    }
    who = "minialex does both." if out.suffix == ".safetensors" else "The file does this itself: feed it the pixels."
    return f"""\
1. The central square of the image, resized to {recipe.image_size} × {recipe.image_size} (bilinear, antialiased), RGB, \
0 to 255; of it the central {recipe.crop} × {recipe.crop} (minialex resizes after cutting the square).
2. Minus {means[recipe.mean]} (by channel on average {colours}), times {recipe.pixel_scale:g}. {who}"""


def _limits(weights: Weights, out: Path) -> str:
    recipe, foreign = weights.recipe, out.suffix != ".safetensors"
    text = """\
- It knows its classes and no others: of any image it names the most probable one of them.
- Its errors hold for images like those of its validation set; nothing is known here of others, of its behaviour on \
people, or of images made to deceive it.
- Its probabilities are as good as their calibration: see `minialex evaluate --reliability`."""
    if foreign and recipe.mean == "pixel":
        text += """
- The mean image in it is that of the centre crop: feeding it other crops, as for ten views, takes off slightly wrong \
means."""
    if foreign and recipe.dtype != "float32":
        text += f"\n- It was trained in {recipe.dtype} and is exported in float32."
    return text

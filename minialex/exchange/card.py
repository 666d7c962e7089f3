"""The model card: one page of Markdown beside every exported file, for anyone who finds that file."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from minialex import __version__
from minialex.data.draws import centre_crop_offset
from minialex.recipe.fields import is_own
from minialex.runs.weights_file import Weights
from minialex.screen.formats import plain, plural, readable_size

CLASSES_SHOWN = 20
PAPER = "Krizhevsky, Sutskever, Hinton 2012"
NETWORKS = {
    "alexnet": f"AlexNet ({PAPER})",
    "alexnet_small": f"a small network with AlexNet's kinds of layers ({PAPER}), for small images",
}


def card(weights: Weights, out: Path, module: str = "") -> str:
    """The card's text.

    Args:
        weights: the exported weights
        out: the exported file, which already exists
        module: for PyTorch, the name of the module beside the file
    """
    recipe = weights.recipe
    rows = "".join(f"| {name} | {_cell(value)} |\n" for name, value in _facts(weights, out))
    return f"""# {_line(out.name)}

| | |
|---|---|
{rows}
## Input and output

{_input(weights, out)}

```python
{_snippet(weights, out, module)}
```
{_commands(out)}
## Classes

{_classes(weights, out)}

## Licence

- of the weights: TO BE FILLED IN by whoever publishes them
- of the training data, and its source: TO BE FILLED IN

minialex itself is under the MIT licence, which says nothing of weights or data.

## Limits

{_limits(weights, out)}

## Recipe

```toml
{recipe.to_toml().rstrip()}
```
"""


def _facts(weights: Weights, out: Path) -> list[tuple[str, str]]:
    recipe, origin = weights.recipe, weights.origin
    own = f"a user's own network, {recipe.model}"
    facts = [
        ("network", own if is_own(recipe.model) else NETWORKS.get(recipe.model, recipe.model)),
        ("columns", f"{recipe.columns}"),
        ("parameters", f"{sum(math.prod(array.shape) for array in weights.tensors.values()):,}"),
        ("classes", f"{recipe.classes}"),
        ("trained on", weights.data),
        ("weights from", str(origin.get("from", "an unknown place"))),
    ]
    if "begun_with" in origin:
        facts.append(("started from layers of", str(origin["begun_with"])))
    if "epochs" in origin:
        trained = f"{plural(origin['epochs'], 'epoch')} of at most {recipe.epochs}, batches of {recipe.batch_size}"
        facts.append(("training", f"{trained}, seed {recipe.seed}"))
    errors = {"top-1 error": origin.get("top1_error")}
    if recipe.classes > 5:
        errors["top-5 error"] = origin.get("top5_error")
    facts += [(name, f"{error:.2%}") for name, error in errors.items() if isinstance(error, float)]
    if isinstance(origin.get("top1_error"), float):
        views = "the centre view" if origin.get("views", 1) == 1 else f"{origin['views']} views averaged"
        facts.append(("measured on", f"the validation images of {weights.data}, {views}, during training"))
    else:
        facts.append(("errors", "not known here; minialex evaluate measures them on data with these classes"))
    return [
        *facts,
        ("file", readable_size(out.stat().st_size)),
        ("SHA-256 of names and values", weights.digest()),
        ("written by", f"minialex {__version__}"),
    ]


def _input(weights: Weights, out: Path) -> str:
    recipe = weights.recipe
    S, crop = recipe.image_size, recipe.crop
    colours = ", ".join(f"{value:.3f}" for value in weights.statistics.mean.mean(axis=(1, 2), dtype=float))
    means = {
        "pixel": "the mean image at the same pixels",
        "centre": "the centre crop of the mean image",
        "channel": "each channel's mean",
    }
    who = "minialex does all of this" if out.suffix == ".safetensors" else "the file does this itself"
    return f"""\
- the central square of the image, upright, resized to {S} × {S} (bilinear, antialiased)
- of it the central {crop} × {crop} pixels: float32 [N, 3, {crop}, {crop}], RGB, from 0 to 255
- minus {means[recipe.mean]} ({colours} for red, green, blue on average), times {recipe.pixel_scale:g}; {who}
- the output is a probability for each of the {plural(recipe.classes, "class")}"""


def _snippet(weights: Weights, out: Path, module: str) -> str:
    """A program that prepares an image file as input, and computes the network's prediction."""
    recipe = weights.recipe
    S, crop = recipe.image_size, recipe.crop
    first = centre_crop_offset(S, crop)
    make = f"""
def pixels(path):
    image = Image.open(path)
    image.draft(image.mode, ({2 * S}, {2 * S}))  # a JPEG much larger than this is decoded at a fraction of its size
    image = ImageOps.exif_transpose(image).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.resize(({S}, {S}), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    image = image.crop(({first}, {first}, {first + crop}, {first + crop}))
    return np.asarray(image, np.float32).transpose(2, 0, 1)[None]
"""
    name = out.name
    if out.suffix == ".onnx":
        imports, use = (
            "import numpy as np\nimport onnxruntime\n",
            f"""
session = onnxruntime.InferenceSession({name!r})
(probabilities,) = session.run(["probabilities"], {{"pixels": pixels("photo.png")}})
""",
        )
    elif module:
        imports, use = (
            "import numpy as np\nimport torch\n",
            f"""
from {module} import load

network = load({name!r})
with torch.no_grad():
    probabilities = network(torch.from_numpy(pixels("photo.png"))).softmax(1).numpy()
""",
        )
    else:
        part = f"[:, {first}:{first + crop}, {first}:{first + crop}]"
        part = ".mean(axis=(1, 2), keepdims=True)" if recipe.mean == "channel" else part
        imports, use = (
            "import minialex\nimport numpy as np\n",
            f"""
probabilities = minialex.load({name!r}).probabilities("photo.png")

# for programs of your own: what the first layer sees
from safetensors.numpy import load_file

mean = load_file({name!r})["data.mean"]{part}
first_input = (pixels("photo.png") - mean) * {recipe.pixel_scale!r}
""",
        )
    return f"{imports}from PIL import Image, ImageOps\n\n{make}\n{use}".rstrip()


def _commands(out: Path) -> str:
    """What minialex itself can do with the file."""
    if out.suffix != ".safetensors":
        return ""
    name = shlex.quote(out.name)
    lines = (f"predict {name} IMAGE", f"evaluate {name} --data FOLDER", f"train --init {name} --data FOLDER")
    return "\n```bash\n" + "".join(f"minialex {line}\n" for line in lines) + "```\n"


def _classes(weights: Weights, out: Path) -> str:
    if not weights.class_names:
        count = weights.recipe.classes
        return f"Nobody said what the {plural(count, 'class')} are (`minialex import --class-names FILE`)."
    shown = ", ".join(f"{number} {_line(name)}" for number, name in enumerate(weights.titles[:CLASSES_SHOWN]))
    rest = len(weights.titles) - CLASSES_SHOWN
    module = "'s module" if out.suffix in (".pt", ".pth") else ""
    return shown + (f", and {rest} more (in the file{module})" if rest > 0 else "")


def _limits(weights: Weights, out: Path) -> str:
    recipe, foreign = weights.recipe, out.suffix != ".safetensors"
    text = """\
- It knows its classes and no others: of any image it names the most probable one of them.
- Its errors hold for images like those of its validation set; nothing is known here of others, of its behaviour on \
people, or of images made to deceive it.
- Its probabilities are as good as their calibration: see `minialex evaluate --reliability`."""
    if foreign and recipe.mean == "pixel":
        text += """
- The mean image in it is that of the centre crop: of other crops, as for ten views, slightly wrong means are \
subtracted."""
    if foreign and recipe.dtype != "float32":
        text += f"\n- It was trained in {recipe.dtype} and is exported in float32."
    return text


def _line(text: str) -> str:
    """Text that stays text in Markdown: no tags, no line breaks."""
    return plain(text).replace("<", "&lt;").replace("\n", " ")


def _cell(text: str) -> str:
    """Text that stays within one cell of a table."""
    return _line(text).replace("|", "\\|")

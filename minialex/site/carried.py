"""The small trained network that the site includes: its file, what it has learned, and how it was made.

``docs/assets/live/classify.safetensors`` is a network of the recipe ``figure3``, with its errors; ``classify.json``
beside it records which command made it, when, where, and how long that took.
"""

from __future__ import annotations

import json
from pathlib import Path

from minialex.backend import registry
from minialex.course import notebooks
from minialex.engine.session import Session, placement_of
from minialex.figures import look as drawings
from minialex.figures import pictures
from minialex.look.gradients import maximise
from minialex.look.kernels import colour_selectivity, column_difference
from minialex.runs.weights_file import read
from minialex.storage.atomic import write_text

WEIGHTS = notebooks.trained()
RECORD = WEIGHTS.with_suffix(".json")


def session() -> Session:
    """The network on the reference backend."""
    network = read(WEIGHTS)
    backend = registry.load("numpy")
    placement = placement_of(backend, None, network.recipe.columns)
    return Session(network.recipe, backend, placement, network.statistics, network.tensors)


def write(folder: Path) -> None:
    """Draw its kernels and the images that excite its classes most, and write how it was made and its errors."""
    network = read(WEIGHTS)
    kernels, columns = network.tensors["conv1.weight"], network.recipe.columns
    scores = colour_selectivity(kernels)
    drawn = drawings.kernels(kernels, scores, columns, column_difference(scores, columns))
    pictures.save(drawn, folder / "kernels.png")
    pictures.save(pictures.kernels(kernels, columns), folder / "first-layer.png")
    opened, classes = session(), network.class_names
    made_images = maximise(opened, opened.network.layers[-1].name, range(len(classes)), steps=60)
    pictures.save(drawings.maximised(made_images, None, columns, len(classes), classes), folder / "maximise.png")
    write_text(folder / "classify.md", words())


def words() -> str:
    """How it was made, and its errors, as a paragraph."""
    made, how = read(WEIGHTS), json.loads(RECORD.read_text(encoding="utf-8"))
    images = f"{how['train_images']:,} photographs of {made.data}"
    return (
        f"`{how['command']}` trained it on {images}, {made.origin['epochs']} of {made.recipe.epochs} epochs in "
        f"{how['minutes']} minutes of processor time ({how['machine']}; minialex {how['minialex']}; {how['date']}). Of "
        f"{how['validation_images']:,} validation photographs, which it had not seen, it takes "
        f"{100 * made.origin['top1_error']:.0f}% for another class; the right one is among its first five for "
        f"{100 - 100 * made.origin['top5_error']:.0f}%. So says `minialex evaluate` with its file, "
        "`docs/assets/live/classify.safetensors`.\n"
    )

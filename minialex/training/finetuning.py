"""Starting from another network's weights: what is copied, what is initialised anew, and why (paper, section 6).

The paper's best networks were first trained on 22,000 classes and then "fine-tuned" on ILSVRC-2012. Whole layers are
copied by name if every array has the same shape; the last layer only if the classes are the same, too. What was done is
written once to the run's ``init.json``; checkpoints hold everything else, so resuming a run does not need the other
network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import CheckpointError, ConfigurationError
from minialex.network import variants
from minialex.network.parameters import initial_parameters, join_columns, whole_shapes
from minialex.recipe.fields import Recipe
from minialex.runs import weights_file as weights
from minialex.storage import atomic, sums

FACTS = "init.json"
SAME_FUNCTION = (
    "model", "crop", "conv1_padding", "paddings", "connect", "omit", "conv6", "activation",
    "norm_layers", "norm_scope", "norm_size", "norm_k", "norm_alpha", "norm_alpha_over_n", "norm_beta", "norm_place",
    "spatial_norm", "pool_size", "pool_stride", "pool_ceil", "image_size", "mean", "pixel_scale",
)  # fmt: skip
"""Fields in which a network may differ from the one that its weights come from, although the arrays fit."""


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        weights: whole layers' arrays, complete
        mean: the other network's mean image [3,S,S], which its first layer expects; None if conv1 is initialised anew
            or images have another size: the new data's mean is then used
        source, digest: the source, and the SHA-256 of all weights there
        taken: layers that were copied
        drawn: layers that were initialised anew, each with the reason
        different: recipe fields that differ, with the values there and here, as text
        same_seed: whether the same random numbers would be drawn again (see `recipe_for`)
    """

    weights: Mapping[str, NDArray[Any]]
    mean: NDArray[np.float32] | None
    source: str
    digest: str
    taken: tuple[str, ...]
    drawn: Mapping[str, str]
    different: tuple[str, ...]
    same_seed: bool

    def warnings(self) -> list[str]:
        """Warnings that the user should see before training starts."""
        found = []
        if self.different:
            found.append(f"the network differs from that of {self.source}: {'; '.join(self.different)}")
        if self.same_seed:
            found.append(
                f"{self.source} was trained with the same seed: on the same images the same crops and dropout masks "
                "come again, which a network may know by heart"
            )
        return found

    def words(self) -> str:
        """A one-line description."""
        drawn = ", ".join(f"{layer} ({reason})" for layer, reason in self.drawn.items())
        mean = "its mean image" if self.mean is not None else "not its mean image"
        return f"begins with {', '.join(self.taken)} and {mean} of {self.source}; drawn anew: {drawn or 'nothing'}"


def recipe_for(source: Path) -> Recipe:
    """Another network's recipe, for further training: without what belongs to its own data, and with the next seed.

    With the same seed, the same images would get the same crops and dropout masks again, by which a network that has
    memorised them could recognise the images.
    """
    other = weights.recipe_at(source)
    left_out = {"classes": 0, "train_images": 0, "validation_images": 0, "init_from": "", "init_layers": ()}
    return other.replace(**left_out, seed=(other.seed + 1) % 2**64, backend="", devices="")


def begin(recipe: Recipe, class_names: tuple[str, ...]) -> Start:
    """The starting point of a recipe with ``init_from``.

    Args:
        recipe: with `classes` set
        class_names: the data's class names

    Raises:
        CheckpointError: If the other network is missing or damaged, or none of its layers, or not all of
            ``init_layers``, fit.
        ConfigurationError: If this network lacks one of ``init_layers``.
    """
    found = weights.find(Path(recipe.init_from))
    network = variants.build(recipe)
    first, last = network.layers[0].name, network.layers[-1].name
    shapes = whole_shapes(network, recipe.columns)
    layers = tuple(dict.fromkeys(name.partition(".")[0] for name in shapes))
    for layer in recipe.init_layers:
        if layer not in layers:
            raise ConfigurationError(
                f"recipe field 'init_layers': this network has no '{layer}', but {', '.join(layers)}"
            )
    taken: list[str] = []
    drawn: dict[str, str] = {}
    for layer in layers:
        reason = _misfit(layer, shapes, found.tensors)
        if recipe.init_layers:
            if layer in recipe.init_layers and reason:
                raise CheckpointError(f"layer '{layer}' cannot be taken from {recipe.init_from}: {reason}")
            reason = reason or ("" if layer in recipe.init_layers else "not named in init_layers")
        elif layer == last and not reason and found.class_names != class_names:
            reason = "other classes" if found.class_names else "its classes are unknown"
        if reason:
            drawn[layer] = reason
        else:
            taken.append(layer)
    if not taken:
        raise CheckpointError(
            f"no layer of {recipe.init_from} fits into this network ({'; '.join(map(': '.join, drawn.items()))}): "
            "name no recipe, to train the same network"
        )
    fresh = join_columns(
        initial_parameters(network, recipe.columns, recipe.seed, recipe.dtype, layers=frozenset(drawn))
    )
    mean = found.statistics.mean
    differences = found.recipe.differences(recipe).items()
    return Start(
        weights={name: fresh[name] if name in fresh else found.tensors[name].astype(recipe.dtype) for name in shapes},
        mean=mean if first in taken and mean.shape == (3, recipe.image_size, recipe.image_size) else None,
        source=recipe.init_from,
        digest=found.digest(),
        taken=tuple(taken),
        drawn=drawn,
        different=tuple(
            f"{n} is {there} there and {here} here" for n, (there, here) in differences if n in SAME_FUNCTION
        ),
        same_seed=found.recipe.seed == recipe.seed,
    )


def _misfit(layer: str, shapes: Mapping[str, tuple[int, ...]], tensors: weights.Arrays) -> str:
    """Why a layer's arrays cannot be copied; empty if they can."""
    for name, shape in shapes.items():
        if name.partition(".")[0] == layer:
            if name not in tensors:
                return "not there"
            if tensors[name].shape != tuple(shape):
                return f"{'×'.join(map(str, tensors[name].shape))} there, {'×'.join(map(str, shape))} here"
    return ""


def remember(folder: Path, start: Start) -> None:
    """Write a run's ``init.json``; if it exists, check that nothing has changed.

    Raises:
        CheckpointError: If the run began with other weights, and was stopped before its first checkpoint.
    """
    known = facts(folder)
    if known is not None and known.get("sha256") != start.digest:
        raise CheckpointError(f"{start.source} holds other weights than this run began with: train into another folder")
    if known is None:
        about = {
            "from": start.source,
            "sha256": start.digest,
            "taken": list(start.taken),
            "drawn_anew": dict(start.drawn),
            "mean_image": "taken" if start.mean is not None else "of the new data",
            "different_fields": list(start.different),
        }
        sums.write(folder, {FACTS: atomic.json_bytes(about, folder / FACTS)})


def facts(folder: Path) -> dict[str, Any] | None:
    """The content of ``init.json``; None if the run did not start from another network."""
    path = folder / FACTS
    if not path.is_file():
        return None
    sums.check(path)
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it to continue without it") from None
    return known if isinstance(known, dict) else None

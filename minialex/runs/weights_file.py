"""Weights files: one safetensors file with everything that evaluation and fine-tuning need.

A weights file holds the arrays of whole layers, ``conv1.weight`` and so on, the mean image ``data.mean`` and the colour
covariance ``data.covariance`` of the training set, and in its metadata the recipe as TOML, the class names and the
origin of the weights. ``minialex export`` and ``minialex import`` write it; any program that reads safetensors can read
it. `find` gets the same from a run folder or a checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import __version__
from minialex.data.statistics import Statistics
from minialex.errors import CheckpointError, ConfigurationError, DataError
from minialex.network import variants
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load as load_recipe
from minialex.recipe.toml import parse
from minialex.runs import checkpoint
from minialex.runs.run_folder import Record, RunPaths, check_format, is_run, read_data, read_metrics
from minialex.screen.formats import plural, shell
from minialex.storage import safetensors, sums

FORMAT = "minialex weights"
VERSION = "1"
MEAN, COVARIANCE = "data.mean", "data.covariance"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Weights:
    """A trained network."""

    recipe: Recipe  # with `classes` set
    class_names: tuple[str, ...]  # one per class; empty if unknown
    statistics: Statistics  # of the training set
    tensors: Arrays  # of whole layers (see `minialex.network.parameters.join_columns`), float32 or float64
    data: str  # name of the data set
    # where they come from, as JSON values: "from" as text, and as far as known "step", "epochs", "top1_error",
    # "top5_error" (fractions of 1), "views", "begun_with", "network_sha256" (of a user-defined network)
    origin: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ()  # readable names of the classes, if different from their names

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, or ``"class 0"``, … if they are unknown."""
        return self.class_names or tuple(f"class {i}" for i in range(self.recipe.classes))

    @property
    def titles(self) -> tuple[str, ...]:
        """The text to show for each class: its words if known, else its label."""
        return self.words or self.labels

    def digest(self) -> str:
        """SHA-256 of the arrays' names and values, in hexadecimal: the same for the same network in any file."""
        sum_ = hashlib.sha256()
        for name, array in sorted(self.tensors.items()):
            sum_.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
            sum_.update(np.ascontiguousarray(array).data.cast("B"))
        return sum_.hexdigest()


def write(path: Path, weights: Weights) -> None:
    """Write a weights file, completely or not at all; ResourceError or ConfigurationError if it cannot be written."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "recipe": weights.recipe.to_toml(),
        "class_names": json.dumps(list(weights.class_names)),
        "words": json.dumps(list(weights.words)),
        "data": weights.data,
        "origin": json.dumps({"minialex": __version__, **weights.origin}),
    }
    statistics: Arrays = {MEAN: weights.statistics.mean, COVARIANCE: weights.statistics.covariance}
    safetensors.write(path, {**weights.tensors, **statistics}, metadata)


def read(path: Path) -> Weights:
    """Read a weights file, even from an untrusted source.

    Raises:
        CheckpointError: If it is missing, damaged or of another type, or its arrays do not match its recipe; the
            message names the array.
    """
    metadata = safetensors.read_metadata(path)
    recipe = _recipe_in(metadata, path)
    try:
        class_names, words = (json.loads(metadata[name]) for name in ("class_names", "words"))
        origin = json.loads(metadata["origin"])
        if not isinstance(origin, dict) or not all(isinstance(name, str) for name in [*class_names, *words]):
            raise ValueError("not the values that belong there")
        data = metadata["data"]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the metadata of {path} is damaged: {error}") from None
    tensors = safetensors.read(path)
    S = recipe.image_size
    statistics = {name: tensors.pop(name) for name in (MEAN, COVARIANCE) if name in tensors}
    checkpoint.check_against(statistics, {MEAN: (3, S, S), COVARIANCE: (3, 3)}, str(path))
    check(tensors, recipe, str(path))
    if len(class_names) > recipe.classes or len(words) not in (0, len(class_names)):
        named = f"{plural(len(class_names), 'class')}, with words for {len(words)}"
        raise CheckpointError(f"{path} names {named}; its network has {recipe.classes}")
    of_training = Statistics(statistics[MEAN], statistics[COVARIANCE])
    return Weights(recipe, tuple(class_names), of_training, tensors, data, origin, tuple(words))


def _recipe_in(metadata: Mapping[str, str], path: Path) -> Recipe:
    if metadata.get("format") != FORMAT:
        convert = f"`{shell('minialex', 'import', path, 'OUT.safetensors')}` makes one of it that has one"
        raise CheckpointError(f"{path} is a safetensors file without a minialex recipe: {convert}")
    if metadata.get("version") != VERSION:
        versions = f"version {metadata.get('version')!r} and this minialex reads {VERSION!r}"
        raise CheckpointError(f"{path} is of {versions}: update minialex")
    try:
        return parse(metadata["recipe"], "its recipe")
    except (ConfigurationError, KeyError) as error:
        raise CheckpointError(f"the metadata of {path} is damaged: {error}") from None


def check(tensors: Arrays, recipe: Recipe, what: str) -> None:
    """Check that arrays match a recipe's network; CheckpointError names the first that does not."""
    first = tensors.get("conv1.weight")
    if first is not None and recipe.columns > len(first):  # before any work per column
        raise CheckpointError(f"{what}: {len(first)} kernels of conv1 cannot be divided into {recipe.columns} columns")
    try:
        shapes = whole_shapes(variants.build(recipe), recipe.columns)
    except ConfigurationError as error:
        raise CheckpointError(f"{what}: its recipe makes no network: {error}") from None
    checkpoint.check_against(tensors, shapes, what)


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run folder."""
    if not is_run(folder):
        raise CheckpointError(f"no run at {folder}: recipe.toml is missing; check the path")
    check_format(folder)
    path = RunPaths(folder).recipe
    sums.check(path)
    return load_recipe(str(path))


def recipe_at(path: Path) -> Recipe:
    """The recipe of what `find` would find, without reading the arrays."""
    path = _meant(path)
    if path.is_file():
        _refuse_foreign(path)
        return _recipe_in(safetensors.read_metadata(path), path)
    return recipe_of(path.parent.parent if (path / checkpoint.MANIFEST).is_file() else path)


def _meant(path: Path) -> Path:
    """A path after following files that name a checkpoint; for a run's ``checkpoints``, the run."""
    if path.name == "checkpoints" and is_run(path.parent):
        return path.parent
    return checkpoint.follow(path)


def find(path: Path) -> Weights:
    """The weights in a weights file, the best ones in a run folder, or those in a checkpoint inside one.

    Args:
        path: a checkpoint may also be named by the files ``latest`` and ``best`` beside it

    Raises:
        CheckpointError: If there are none, or they are damaged.
    """
    path = _meant(path)
    if path.is_file():
        _refuse_foreign(path)
        return read(path)
    if not path.is_dir() and path.suffix in (".safetensors", ".pt", ".pth", ".onnx", ".caffemodel"):
        raise CheckpointError(f"no file {path}; check the path")  # nobody names a run like that
    if not path.is_dir():
        raise CheckpointError(f"no run folder {path}; train one with `{shell('minialex', 'train', '--out', path)}`")
    if (path / checkpoint.MANIFEST).is_file():
        home, saved = path.parent.parent, checkpoint.load(path)
    else:
        recipe_of(path)  # a folder of something else is no run that lacks a checkpoint
        home, saved = path, checkpoint.best(path / "checkpoints")
    recipe, data = recipe_of(home), read_data(home)
    recipe = recipe if recipe.classes else recipe.replace(classes=len(data.class_names))
    begun_with = Path(recipe.init_from).name
    # drop what applies only to this machine
    recipe = recipe.replace(init_from="", init_layers=(), backend="", devices="")
    check(saved.weights, recipe, f"weights of {saved.path}")
    origin = {"from": f"a run of minialex, {home.resolve().name}, step {saved.step}", **_facts(home, saved, recipe)}
    if begun_with:
        origin["begun_with"] = begun_with
    if network := data.decides.get("network sha256"):
        origin["network_sha256"] = network
    return Weights(recipe, data.class_names, data.statistics, saved.weights, data.name, origin, tuple(data.words))


def _facts(home: Path, saved: checkpoint.Checkpoint, recipe: Recipe) -> dict[str, Any]:
    """A run's facts about one of its checkpoints."""
    facts: dict[str, Any] = {"step": saved.step, "seed": recipe.seed}
    errors, epoch = saved.state.get("errors"), saved.state.get("epoch")
    if isinstance(errors, list):
        facts["epochs"] = epoch - 1 if isinstance(epoch, int) else len(errors)  # that of the next step
    records: list[Record] = []
    with contextlib.suppress(DataError):  # the weights are usable without them
        records = read_metrics(RunPaths(home).metrics)
    for record in records:
        if record.get("kind") == "validation" and record.get("step") == saved.step:
            facts |= {name: record[name] for name in ("top1_error", "top5_error") if name in record}
            facts["views"] = recipe.views
    return facts


def _refuse_foreign(path: Path) -> None:
    """Refuse another program's file, and say what to do with it."""
    kind = kind_of(path)
    if kind != "safetensors":
        raise CheckpointError(
            f"{path} is {KINDS[kind]}: first `{shell('minialex', 'import', path, 'OUT.safetensors')}`"
        )


KINDS = {
    "safetensors": "a safetensors file",
    "pytorch": "a PyTorch file",
    "caffe": "no weights file of ours (perhaps one of Caffe)",
    "onnx": "an ONNX file, which is for other programs to run",
}


def kind_of(path: Path) -> str:
    """The apparent type of a file: a key of `KINDS`. PyTorch files are recognised by their first bytes."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if start[:4] == b"PK\x03\x04" or start[:4] == b"\x80\x02\x8a\x0a" or path.suffix in (".pt", ".pth"):
        return "pytorch"
    if path.suffix == ".onnx":
        return "onnx"
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return "safetensors"
    return "caffe"

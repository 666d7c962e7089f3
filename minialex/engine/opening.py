"""Opens networks and data: the data set that a recipe names, a new session, and a session with a run's weights."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.data import DataSet, Split, checked, load
from minialex.data.dataset import Relabelled, statistics_of, with_random_labels
from minialex.engine import fingerprint
from minialex.engine.columns import Placement
from minialex.engine.session import Session, placement_of
from minialex.engine.step import HOST
from minialex.errors import ConfigurationError, DataError
from minialex.ranks.group import ALONE, Group, admissible
from minialex.recipe.fields import Recipe
from minialex.runs import weights_file
from minialex.runs.checkpoint import to_standard_error
from minialex.runs.weights_file import Weights
from minialex.screen.formats import plural


def load_data(recipe: Recipe, part: str = "") -> DataSet:
    """The data set that a recipe names.

    Args:
        part: the part to be measured as validation part, see `minialex.data.load`

    Raises:
        DataError: If its files are missing or damaged.
        ConfigurationError: If there is no such data set.
    """
    if recipe.data == "imagenet":
        raise DataError(
            "no ImageNet here: make a store with `minialex prepare ARCHIVES STORE` and give its path as data, or the "
            "path of a folder of images"
        )
    data = load(
        recipe.data,
        size=recipe.image_size,
        train_images=recipe.train_images or None,
        validation_images=recipe.validation_images or None,
        resize=recipe.resize,
        part=part,
    )
    data = checked(data, skip_broken=True) if recipe.skip_broken else data
    if part == "train" and recipe.labels != "own":  # the labels to be learned, not what the images show
        data = replace(data, validation=labelled(recipe, replace(data, train=data.validation)).train)
    return data


def labelled(recipe: Recipe, data: DataSet) -> DataSet:
    """The data as used in training: training images have the labels chosen by the field `labels`."""
    if recipe.labels == "own":
        return data
    return replace(data, train=with_random_labels(data.train, len(data.class_names), seed=recipe.seed))


def prepare(recipe: Recipe, data: DataSet, ranks: int = 1) -> Recipe:
    """Complete a recipe with what only the data determines: the number of classes.

    Args:
        ranks: number of ranks that share a batch

    Raises:
        ConfigurationError: If the data has more classes than the recipe, too few images for a batch, or images of
            another size; or if this number of ranks cannot share the recipe's shards.
    """
    sizes = admissible(max(1, recipe.shards))
    if ranks not in sizes:
        fit = f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]} ranks" if len(sizes) > 1 else "1 rank"
        raise ConfigurationError(
            f"this run's batch is summed in {max(1, recipe.shards)} shard{'s' if recipe.shards > 1 else ''}: start "
            f"{fit}, not {ranks} (or begin a new run with --shards {ranks}, with other rounding errors)"
        )
    classes = len(data.class_names)
    if recipe.classes == 0:
        recipe = recipe.replace(classes=classes)
    if recipe.classes < classes:
        raise ConfigurationError(
            f"'{data.name}' has {plural(classes, 'class')}, the recipe {recipe.classes}: set classes to {classes}"
        )
    if len(data.train) < recipe.batch_size:
        raise ConfigurationError(
            f"a batch of {recipe.batch_size} images is larger than the training set, {len(data.train)}: "
            f"set batch_size to {max(1, len(data.train) // 4)}"
        )
    if data.train.size != recipe.image_size:
        raise ConfigurationError(
            f"'{data.name}' has images of {data.train.size} rows, the recipe says {recipe.image_size}: "
            f"set image_size to {data.train.size} (and crop)"
        )
    return recipe


VISIBLE = ("CUDA_VISIBLE_DEVICES",)
"""Environment variables by which a launcher gives every rank its own devices."""


def placement_of_rank(backend: Backend, placement: Placement, group: Group) -> Placement:
    """The devices of a rank's columns: each rank of a machine takes the next devices.

    Args:
        placement: the first rank's, see `minialex.engine.session.placement_of`

    Raises:
        ConfigurationError: If there are not enough devices.
    """
    if group.size == 1 or placement[0].startswith(HOST):
        return placement
    own = group.places[group.rank]
    visible = group.exchange([os.environ.get(name, "") for name in VISIBLE])
    here = [seen for seen, place in zip(visible, group.places, strict=True) if place.host == own.host]
    if len(here) > 1 and all(here.count(seen) == 1 for seen in here):  # the launcher has already assigned them
        return placement
    each = len(set(placement))
    numbers = [backend.devices.index(device) + own.local * each for device in placement]
    if max(numbers) >= len(backend.devices):
        there, fit = ", ".join(backend.devices), len(backend.devices) // each
        raise ConfigurationError(
            f"rank {group.rank} on {own.host} has no device of its own: {len(backend.devices)} are there ({there}), "
            f"and each rank needs {each}: start {fit} on this machine"
        )
    return tuple(backend.devices[number] for number in numbers)


def threads_of_rank(group: Group, backend: str) -> int | None:
    """Threads for a rank: ranks of one machine share its cores, if the backend has a number of threads."""
    if group.size == 1 or "threads" not in inspect.signature(registry.kind(backend)).parameters:
        return None
    return cores_of_rank(group)


def cores_of_rank(group: Group) -> int:
    """A rank's share of the cores of its machine, at least one."""
    here = sum(place.host == group.places[group.rank].host for place in group.places) if group.size > 1 else 1
    return max(1, (os.cpu_count() or 1) // here)


def new_session(recipe: Recipe, data: DataSet, backend: Backend | None = None) -> Session:
    """A session with an untrained network for some data.

    Args:
        backend: the backend; None: the recipe's, or the fastest on this machine

    Raises:
        ConfigurationError: If recipe and data do not fit.

    Examples:
        >>> import minialex
        >>> images = minialex.data.load("shapes", train_images=64, validation_images=16)
        >>> session = minialex.new_session(minialex.load_recipe("small"), images)
        >>> session.weights()["conv1.weight"].shape
        (16, 3, 5, 5)
    """
    recipe = prepare(recipe, data)
    backend = backend or registry.load(recipe.backend or None, precision=recipe.precision)
    placement = placement_of(backend, recipe.devices or None, recipe.columns)
    return Session(recipe, backend, placement, data.statistics or statistics_of(data.train))


def session_of(found: Weights, backend: Backend, devices: str | None, group: Group = ALONE) -> Session:
    """A session with a network's weights; `devices` is as for `placement_of`, for a group's first rank.

    It warns on standard error if a user-defined network was edited after its training.
    """
    trained = found.origin.get("network_sha256")
    if trained and trained != fingerprint.of_network(found.recipe):
        to_standard_error(
            f"the network '{found.recipe.model}' was edited after these weights were trained and computes something "
            "else: its answers are not those of the trained network"
        )
    placement = placement_of_rank(backend, placement_of(backend, devices, found.recipe.columns), group)
    return Session(found.recipe, backend, placement, found.statistics, found.tensors)


def open_session(
    path: Path, backend: Backend, devices: str | None, group: Group = ALONE
) -> tuple[Session, Recipe, tuple[str, ...]]:
    """A session with the weights found at a path (`weights_file.find`), its recipe and its class names."""
    found = weights_file.find(path)
    return session_of(found, backend, devices, group), found.recipe, found.labels


def precision_of(recipe: Recipe, asked: str | None) -> str:
    """The requested precision, or else the one in which a network was trained.

    Raises:
        ConfigurationError: If there is no such precision, or it does not match the recipe's dtype.
    """
    found: str = recipe.precision if asked is None else recipe.replace(precision=asked).precision
    return found


def validation_for(network: Weights, data: DataSet, where: str) -> tuple[tuple[str, ...], Split]:
    """The names of a network's classes, and the validation images with labels that index them.

    Args:
        where: the network's name in messages

    Raises:
        ConfigurationError: If the data has a class that the network does not know, or images of another size.
    """
    if data.validation.size != network.recipe.image_size:
        S, own = data.validation.size, network.recipe.image_size
        raise ConfigurationError(
            f"'{data.name}' has images of {S} × {S} pixels, and {where} was trained on {own} × {own}: load it with "
            f"size {own}"
        )
    known = network.class_names
    if not known:  # unknown: in the data's order, if the numbers match
        if len(data.class_names) != network.recipe.classes:
            raise ConfigurationError(
                f"{where} does not say what its {plural(network.recipe.classes, 'class')} are, and '{data.name}' has "
                f"{len(data.class_names)}: import it with --class-names FILE"
            )
        known = data.class_names
    number = {name: number for number, name in enumerate(known)}
    for name in data.class_names:
        if name not in number:
            raise ConfigurationError(
                f"'{data.name}' has other classes than {where} was trained on: '{name}' is not among those"
            )
    numbers = np.array([number[name] for name in data.class_names], np.int64)
    return known, Relabelled(data.validation, numbers[data.validation.labels])

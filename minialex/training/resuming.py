"""Resuming a run: what must be unchanged since it began, and what may change.

A run continues to the same bits only with the same images, network and numbers. So its recipe, its images and a
user-defined network are compared with those that it began with; if any of them differs, nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from minialex.data import DataSet
from minialex.data.dataset import statistics_of
from minialex.data.digest import digest
from minialex.engine import fingerprint
from minialex.errors import CheckpointError
from minialex.recipe.fields import Recipe
from minialex.runs.run_folder import RunData

SAFE = ("epochs", "validation_epochs", "checkpoint_steps", "keep_checkpoints", "loader_threads", "backend", "devices")
"""Recipe fields that may change when a run is resumed: none of them changes what the next step computes, except for
another backend's rounding, and ``epochs`` if the schedule depends on their number."""


def deciding(recipe: Recipe, data: DataSet) -> dict[str, str]:
    """What determines a run's numbers besides its recipe, by name, for `minialex.runs.run_folder.RunData`."""
    found: dict[str, str] = {}
    for part, split in (("training", data.train), ("validation", data.validation)):
        found |= {f"{part} images": str(len(split)), f"{part} sha256": digest(split)}
    network = fingerprint.of_network(recipe)
    return {**found, "network sha256": network} if network else found


def compare_recipes(folder: Path, before: Recipe, now: Recipe) -> None:
    """Refuse another recipe, except for `SAFE` fields and the data's location, since its images are compared.

    Raises:
        CheckpointError: With a list of the differences.
    """
    wrong = now.differences(before)
    lines = [f"{name} is {a!r}, was {b!r}" for name, (a, b) in wrong.items() if name not in (*SAFE, "data")]
    _refuse(folder, lines)


def compare(folder: Path, known: RunData, recipe: Recipe, data: DataSet, now: Mapping[str, str]) -> str:
    """Refuse different images, or an edited network.

    Args:
        known: the run's record
        now: see `deciding`

    Returns:
        A warning; empty if there is none.

    Raises:
        CheckpointError: With a list of the differences.
    """
    if known.class_names != data.class_names:
        raise CheckpointError(f"{folder} was trained on other classes than '{data.name}' has")
    if not known.decides:
        return _compare_old(folder, known, data)
    lines = []
    for part in ("training", "validation"):
        count, before = (values.get(f"{part} images", "?") for values in (now, known.decides))
        if count != before:
            lines.append(f"the number of {part} images is {count}, was {before}")
        elif now[f"{part} sha256"] != known.decides.get(f"{part} sha256"):
            lines.append(f"the {part} images of '{data.name}' are others than they were, or have other labels")
    if now.get("network sha256") != known.decides.get("network sha256"):
        lines.append(f"the network '{recipe.model}' was edited and computes something else")
    _refuse(folder, lines)
    return ""


def _compare_old(folder: Path, known: RunData, data: DataSet) -> str:
    """The same for a run that does not record its images: their covariance is known."""
    found = (data.statistics or statistics_of(data.train)).covariance
    if not np.allclose(found, known.statistics.covariance, rtol=1e-5):
        _refuse(
            folder,
            ["it was made by an older minialex, and the training images are others than they were (their covariance "
             "differs; folders are divided into training and validation images by another rule now)"],
        )  # fmt: skip
    return (
        "this run was made by an older minialex, which did not note its validation images or the text of its network: "
        "those could not be compared; from now on they can"
    )


def remembered(known: RunData, now: Mapping[str, str]) -> RunData:
    """The run's record, extended by what determines its numbers."""
    return replace(known, decides=dict(now))


def _refuse(folder: Path, lines: Iterable[str]) -> None:
    if found := "; ".join(lines):
        raise CheckpointError(
            f"{folder} cannot continue with anything but what it began with: {found}. Safe to change on resume are "
            f"{', '.join(SAFE)}, threads, and the place of the same images. For the rest begin a new run with these "
            f"weights: minialex train --init {folder}, or init={str(folder)!r} in Python"
        )

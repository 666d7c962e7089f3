"""Errors within a super-class: how many of a network's mistakes are among related classes.

The paper shows that wrong labels look plausible (section 6.1: only other cats for the leopard). We count, of the images
whose most probable class is wrong, those whose most probable class is in the right super-class, and compare with
chance. CIFAR-10's super-classes are built in; others come from a file.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minialex.data.sets.lists import text_of
from minialex.errors import DataError, nearest
from minialex.evaluation.errors import Evaluation, wilson

CIFAR10: Mapping[str, str] = {
    **dict.fromkeys(("airplane", "automobile", "ship", "truck"), "vehicle"),
    **dict.fromkeys(("bird", "cat", "deer", "dog", "frog", "horse"), "animal"),
}


@dataclass(frozen=True)
class Within:
    """The wrong images of an evaluation.

    Attributes:
        errors: number of wrong images
        share: the fraction mistaken for a class of the same super-class; NaN without errors
        chance: the expected fraction if all wrong classes were equally likely; NaN without errors
    """

    errors: int
    share: float
    chance: float

    def words(self) -> str:
        """The share with its interval and chance: ``"82.1% (95%: 81.1 to 83.1%); by chance 47.4%"``."""
        if not self.errors:
            return "no error"
        low, high = wilson(self.share, self.errors)
        return f"{self.share:.1%} (95%: {100 * low:.1f} to {high:.1%}); by chance {self.chance:.1%}"


def within(evaluation: Evaluation, groups: tuple[str, ...]) -> Within:
    """The share of errors within a super-class.

    Args:
        groups: the super-class of each class; outputs beyond these have none
    """
    number = {name: n for n, name in enumerate(dict.fromkeys(groups))}
    of = np.full(max(evaluation.probs.shape[1], len(groups)), -1)
    of[: len(groups)] = [number[name] for name in groups]
    taken = evaluation.probs.argmax(axis=1)
    wrong = taken != evaluation.labels
    if not wrong.any():
        return Within(0, float("nan"), float("nan"))
    mine, theirs = of[evaluation.labels[wrong]], of[taken[wrong]]
    relatives = np.bincount(of[: len(groups)])[mine] - 1
    chance = float(relatives.mean()) / max(1, len(groups) - 1)
    return Within(int(wrong.sum()), float(np.mean(mine == theirs)), chance)


def known(class_names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The super-class of each class, if known without a file; else None."""
    return tuple(CIFAR10[name] for name in class_names) if set(class_names) == set(CIFAR10) else None


def read(path: Path, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Read each class's super-class from a text file: a line per class, name and super-class separated by tab or comma.

    Either may stand in double quotes, as spreadsheets write what contains commas; without quotes the last comma counts.

    Raises:
        DataError: If the file is unreadable, a line is invalid, or a class is missing, unknown or named twice.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, group = _cells(line)
        if not name or not group:
            raise DataError(f"{path}, line {number}: expected a class, a tab or comma, and its super-class")
        if name not in class_names:
            raise DataError(f"{path}, line {number}: no class '{name}'.{nearest(name, class_names)}")
        if name in found:
            raise DataError(f"{path}, line {number}: class '{name}' occurs twice")
        found[name] = group
    missing = [name for name in class_names if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{path}: no super-class for '{missing[0]}'{more}; every class needs a line")
    return tuple(found[name] for name in class_names)


def _cells(line: str) -> tuple[str, str]:
    """A class and its super-class, stripped; empty texts if the line is something else."""
    divider = "\t" if "\t" in line else ","
    cells = [*line.rpartition(divider)[::2]]
    if '"' in line:
        try:
            cells = next(csv.reader([line], delimiter=divider, skipinitialspace=True, strict=True))
        except csv.Error:  # a quote that nothing closes
            return "", ""
    return (cells[0].strip(), cells[1].strip()) if len(cells) == 2 else ("", "")

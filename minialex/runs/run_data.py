"""What a run remembers of its data: the name, the classes, the mean image and the colour covariance.

Evaluation and prediction need them, long after the data itself may have gone. Two files in the run folder:
``data.json`` and ``data.safetensors``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minialex.data.statistics import Statistics
from minialex.errors import CheckpointError
from minialex.runs import checkpoint
from minialex.storage import atomic


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        name: of the data set
        class_names: one a class
        words: what a person calls each class; empty if that is its name
        statistics: of the training set
    """

    name: str
    class_names: tuple[str, ...]
    statistics: Statistics
    words: tuple[str, ...] = ()

    @property
    def titles(self) -> tuple[str, ...]:
        """What to show for each class: its words where they are known, else its name."""
        return self.words or self.class_names


def write(folder: Path, data: RunData) -> None:
    """Write both files; what names the classes comes last and makes them complete."""
    from safetensors.numpy import save

    arrays = {"mean": data.statistics.mean, "covariance": data.statistics.covariance}
    atomic.write_bytes(folder / "data.safetensors", save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))
    known = {"name": data.name, "class_names": list(data.class_names), "words": list(data.words)}
    atomic.write_json(folder / "data.json", known)


def is_there(folder: Path) -> bool:
    """Whether both files were written."""
    return (folder / "data.json").is_file()


def read(folder: Path) -> RunData:
    """Read both files.

    Raises:
        CheckpointError: If they are missing or damaged.
    """
    path = folder / "data.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        name, class_names = str(known["name"]), tuple(str(item) for item in known["class_names"])
        words = tuple(str(item) for item in known.get("words", ()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}): this is no complete run folder") from None
    arrays = checkpoint.read_safetensors(folder / "data.safetensors")
    checkpoint.check_against(
        arrays, {"mean": arrays["mean"].shape, "covariance": (3, 3)} if "mean" in arrays else {}, str(path)
    )
    return RunData(name, class_names, Statistics(arrays["mean"], arrays["covariance"]), words)

"""Record what section 6.1 sees in trained networks: colour by column, moved images, nearest images, plausible errors.

    minialex ablate columns --data cifar10.tar.gz --out studies
    python benchmarks/looked.py studies/runs/…          # the runs of one arm, a seed each

Writes ``benchmarks/results/looked.json``, from which the page "the paper, claim by claim" takes its results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minialex.backend import registry
from minialex.engine.opening import load_data, open_session
from minialex.evaluation import super_classes
from minialex.evaluation.errors import evaluate
from minialex.look.kernels import colour_selectivity, column_difference
from minialex.look.neighbours import feature_layer, nearest, pixel_ranks
from minialex.look.sensitivity import translation
from minialex.speed.machine import anywhere, describe
from minialex.storage.atomic import write_text
from minialex.studies.statistics import estimate

RESULTS = Path(__file__).resolve().parent / "results" / "looked.json"
MOVED, QUERIES, LIBRARY, NEIGHBOURS = 200, 500, 5000, 6


def look(folder: Path) -> dict[str, Any]:
    """One run's figures."""
    session, recipe, _ = open_session(folder, registry.load("numba"), None)
    data = load_data(recipe)
    scores = colour_selectivity(session.weights()["conv1.weight"])
    difference = column_difference(scores, recipe.columns)

    spread = np.unique(np.linspace(0, len(data.validation) - 1, MOVED).astype(np.int64))
    labels = np.asarray(data.validation.labels)
    moved = translation(session, data.validation.read(spread), labels[spread], reach=0.5, steps=9)
    apart = np.maximum.outer(np.abs(moved.shifts), np.abs(moved.shifts))
    right = {int(d): float(moved.within(1)[apart == d].mean()) for d in np.unique(apart)}

    layer = feature_layer(session.network)
    asked = np.arange(QUERIES)
    known = np.arange(min(LIBRARY, len(data.train)))

    def features(split: Any, indices: Any) -> Any:
        blocks = [indices[n : n + 100] for n in range(0, len(indices), 100)]
        return np.concatenate([session.activations(split.read(block), [layer])[layer] for block in blocks])

    found = nearest(features(data.train, known), features(data.validation, asked), NEIGHBOURS)
    train_labels = np.asarray(data.train.labels)[known]
    queries = data.validation.read(asked[:100])
    ranks = pixel_ranks(queries, np.stack([data.train.read(row) for row in found.images[:100]]), data.train.read(known))
    groups = super_classes.known(data.class_names)
    mistakes = None if groups is None else super_classes.within(evaluate([session], data.validation), groups)
    return {
        "seed": recipe.seed,
        "selectivity": [float(part.mean()) for part in np.split(scores, recipe.columns)],
        "eta2": difference.statistic,
        "p": difference.p_value,
        "crop": recipe.crop,
        "right_when_moved": right,
        "same_class": float((train_labels[found.images] == labels[asked][:, None]).mean()),
        "same_class_by_chance": float((train_labels[None] == labels[asked][:, None]).mean()),
        "nearer_in_pixels": float(ranks.mean()),
        **({} if mistakes is None else {"errors": mistakes.errors, "within_super_class": mistakes.share,
                                        "within_super_class_by_chance": mistakes.chance}),
    }  # fmt: skip


def main(folders: list[str]) -> None:
    """Look at the runs and record."""
    runs = sorted((look(Path(folder)) for folder in folders), key=lambda run: run["seed"])
    written = {
        "command": anywhere(f"python benchmarks/looked.py {' '.join(folders)}"),
        "recorded": describe(),
        "moved_images": MOVED,
        "queries": QUERIES,
        "library": LIBRARY,
        "neighbours": NEIGHBOURS,
        "runs": runs,
        "intervals": {
            key: list(_interval([run[key] for run in runs]))
            for key in runs[0]
            if key.startswith(("same_class", "nearer_in_pixels", "within_super_class"))
        },
    }
    write_text(RESULTS, json.dumps(written, indent=1) + "\n")


def _interval(values: list[float]) -> tuple[float, float, float]:
    found = estimate(values)
    return found.mean, found.low, found.high


if __name__ == "__main__":
    main(sys.argv[1:])

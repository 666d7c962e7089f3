"""Moving shapes, and two ways to show a video to a network: frames as channels, and the mean over frames.

``python -m minialex.course.video`` trains the library's small network on clips of three grey frames with two questions:
*what* is it (ten figures), and *which way* does it move (right, left, down, up). A clip is shown in two ways:

- **frames as channels** (early fusion): the three frames are the three channels of one picture, so that kernels of
  the first layer can compare them;
- **mean over frames**: each frame is a grey picture by itself, and the clip's answer is the mean of the three answers.

The figure moves over a static background, leaves the picture on one side and re-enters on the other, so its position is
uniform in every frame: a single frame says nothing about the direction.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.course.notebooks import experiment
from minialex.data.dataset import ArraySplit, DataSet
from minialex.data.sets.figures import FIGURES
from minialex.philox import Stream, purpose, uniform
from minialex.recipe import toml as recipe
from minialex.storage.atomic import write_text

FRAMES, SIZE, PACE = 3, 32, 3  # frames per clip, pixels per side, pixels moved per frame
WAYS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
NAMES = tuple(FIGURES)
QUESTIONS = {"what": NAMES, "which way": tuple(WAYS)}
SHOWN = ("frames as channels", "mean over frames")
_FIGURES, _WAYS = list(FIGURES.values()), list(WAYS.values())


def clips(count: int, *, seed: int, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Draw clips, each a function of seed, part and its number.

    Returns:
        frames uint8 [count, 3, 32, 32], each clip's figure int64 [count], and its direction int64 [count]
    """
    draws = uniform(Stream(seed, purpose(f"video/{part}")), np.arange(count), 8)
    noise = np.random.default_rng([seed, part == "train"])
    figures, ways = (draws[:, :2] * (len(FIGURES), len(WAYS))).astype(np.int64).T
    centres = ((np.arange(SIZE) + 0.5) * (2 / SIZE) - 1).astype(np.float32)
    frames = np.empty((count, FRAMES, SIZE, SIZE), np.uint8)
    for n in range(count):
        scale, dark, bright, *place = draws[n, 2:7]
        x, y = np.meshgrid(centres, centres)
        inside = np.clip(0.5 - _FIGURES[figures[n]](x / (0.35 + 0.2 * scale), y / (0.35 + 0.2 * scale)) * 4, 0, 1)
        ground = 0.45 * dark + 0.12 * noise.random((SIZE, SIZE))
        for t in range(FRAMES):
            shift = [int(at * SIZE) + PACE * t * way for at, way in zip(place, _WAYS[ways[n]], strict=True)]
            here = np.roll(inside, shift, (0, 1))
            frames[n, t] = 255 * (ground + here * (0.65 + 0.3 * bright - ground))
    return frames, figures, ways


def pictures(frames: NDArray[np.uint8], labels: NDArray[np.int64], shown: str) -> ArraySplit:
    """Clips as pictures: one per clip with frames as channels, or one per frame with three equal grey channels."""
    if shown == SHOWN[0]:
        return ArraySplit(frames, labels)
    single = frames.reshape(-1, 1, SIZE, SIZE).repeat(3, axis=1)
    return ArraySplit(single, labels.repeat(FRAMES))


def error(question: str, shown: str, *, seed: int, train_clips: int, test_clips: int, steps: int) -> float:
    """Share of test clips, in per cent, that a network gets wrong after `steps` steps."""
    parts = {}
    for part, count in (("train", train_clips), ("test", test_clips)):
        frames, figures, ways = clips(count, seed=seed, part=part)
        parts[part] = pictures(frames, figures if question == "what" else ways, shown)
    data = DataSet("clips", parts["train"], parts["test"], QUESTIONS[question])
    each = len(parts["train"]) // 32
    choices = recipe.load("small").replace(
        seed=seed, epochs=-(-steps // each), schedule="constant", colour=0, reflect=False, classes=0
    )  # reflections off: in a mirror what goes right goes left
    trained = experiment.train(choices, data, validate=False, steps=steps)
    probs = experiment.validation(trained.session, data).probs
    if shown == SHOWN[1]:
        probs = probs.reshape(-1, FRAMES, probs.shape[1]).mean(axis=1)
    labels = parts["test"].labels[:: len(parts["test"]) // test_clips]
    return float(100 * np.mean(probs.argmax(axis=1) != labels))


def measure(seeds: Sequence[int], **sizes: int) -> Mapping[str, Any]:
    """The errors for every question and way of showing, one per seed, with the settings."""
    errors = {
        question: {shown: [error(question, shown, seed=seed, **sizes) for seed in seeds] for shown in SHOWN}
        for question in QUESTIONS
    }
    return {"seeds": list(seeds), **sizes, "errors": errors}


def table(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of question, chance, and the error with both ways of showing: mean, and smallest to largest over seeds."""
    rows: list[tuple[str, ...]] = []
    for question, names in QUESTIONS.items():
        cells = []
        for shown in SHOWN:
            errors = found["errors"][question][shown]
            cells.append(f"{np.mean(errors):.1f}% ({min(errors):.1f} to {max(errors):.1f})")
        rows.append((question, f"{100 - 100 / len(names):.0f}%", *cells))
    return rows


def main(arguments: Sequence[str]) -> int:
    """Train, print the table, and write the numbers if asked to."""
    parser = argparse.ArgumentParser(prog="python -m minialex.course.video", description="Two ways to look at a video.")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--train-clips", type=int, default=4000, help="default 4000")
    parser.add_argument("--test-clips", type=int, default=1000, help="default 1000")
    parser.add_argument("--steps", type=int, default=1000, help="of 32 pictures each (default 1000)")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    asked = parser.parse_args(arguments)
    if min(asked.seeds, asked.test_clips, asked.steps) < 1 or asked.train_clips < 32:
        parser.error("seeds, test clips and steps: 1 or more; training clips: 32 or more")
    found = measure(
        range(1, asked.seeds + 1), train_clips=asked.train_clips, test_clips=asked.test_clips, steps=asked.steps
    )
    print(f"{'':10} {'guessing':>9} {SHOWN[0]:>26} {SHOWN[1]:>26}")
    for row in table(found):
        print("{:10} {:>9} {:>26} {:>26}".format(*row))
    if asked.json:
        write_text(asked.json, json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

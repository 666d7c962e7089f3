"""How far differences between pictures get through an untrained network: the paper's weights need raw pixels.

``python -m minialex.site.signal`` repeats the measurement (about ten seconds on two cores) and writes the file that the
tutorial's diagram is drawn from. Sources: section 5 of the paper for N(0, 0.01²) and biases of 1; He et al. 2015.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minialex.backend import registry
from minialex.data import load
from minialex.data.dataset import statistics_of
from minialex.engine.session import Session
from minialex.recipe import toml as recipe
from minialex.speed.machine import describe
from minialex.storage.atomic import write_text

RECORDED = Path(__file__).with_name("signal.json")
IMAGES = 8
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
SCALED = 1 / 64
ARMS: dict[str, dict[str, Any]] = {
    "σ = 0.01, raw pixels (the paper)": {},
    "σ = 0.01, pixels scaled to ±2": {"pixel_scale": SCALED},
    "He, pixels scaled to ±2": {"pixel_scale": SCALED, "init": "he", "bias": 0.0},
}
"""Each network's name, and its changes to the paper's recipe."""


@dataclass(frozen=True)
class Line:
    """A network and, for each of `LAYERS`, the mean over its neurons of their standard deviation over the images."""

    name: str
    spread: list[float]


def read() -> list[Line]:
    """The recorded lines."""
    return [Line(**line) for line in json.loads(RECORDED.read_text(encoding="utf-8"))["lines"]]


def measure(changes: dict[str, Any]) -> list[float]:
    """The spread of each layer's outputs in the paper's network with some changes, before any training."""
    data = load("shapes", size=256, train_images=IMAGES, validation_images=1)
    chosen = recipe.load("alexnet-2012").replace(**changes)
    session = Session(chosen, registry.load("numpy"), ("cpu:0",) * 2, statistics_of(data.train))
    found = session.activations(data.train.read(np.arange(IMAGES)), LAYERS)
    return [float(f"{found[layer].std(axis=0).mean():.4g}") for layer in LAYERS]


def main() -> None:
    """Measure and record."""
    lines = [asdict(Line(name, measure(changes))) for name, changes in ARMS.items()]
    command = "python -m minialex.site.signal"
    written = {"command": command, "machine": describe(), "images": IMAGES, "layers": LAYERS, "lines": lines}
    write_text(RECORDED, json.dumps(written, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

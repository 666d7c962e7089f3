"""The network that the site carries: what the recipe says it is, small, and with kernels worth looking at."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from minialex.recipe import toml as recipe
from minialex.runs.weights_file import read
from minialex.site import carried, recorded


def neighbours_alike(kernels: np.ndarray) -> float:
    """The correlation of weights that lie beside each other in a kernel: 0 for weights drawn at random."""
    across = np.corrcoef(kernels[..., 1:].ravel(), kernels[..., :-1].ravel())[0, 1]
    down = np.corrcoef(kernels[..., 1:, :].ravel(), kernels[..., :-1, :].ravel())[0, 1]
    return float(across + down) / 2


def test_it_is_a_network_of_its_recipe_and_small() -> None:
    network = read(carried.WEIGHTS)
    assert set(network.recipe.differences(recipe.load("figure3"))) == {"classes"}, "which the data set says"
    assert carried.WEIGHTS.stat().st_size < 1 << 20
    assert network.origin["epochs"] <= network.recipe.epochs


def test_its_first_kernels_have_directions_and_colours() -> None:
    kernels = read(carried.WEIGHTS).tensors["conv1.weight"]
    assert kernels.shape == (32, 3, 7, 7)
    assert neighbours_alike(kernels) > 0.3
    assert abs(neighbours_alike(np.random.default_rng(0).normal(size=kernels.shape))) < 0.1


def test_the_words_say_how_it_was_made() -> None:
    network, how = read(carried.WEIGHTS), json.loads(carried.RECORD.read_text(encoding="utf-8"))
    words = carried.words()
    assert f"`{how['command']}`" in words
    assert "--recipe figure3" in how["command"]
    assert f"{network.origin['epochs']} of {network.recipe.epochs} epochs" in words
    assert f"{100 * network.origin['top1_error']:.0f}% for another class" in words


def test_the_map_is_small_and_fits_dark_pages() -> None:
    assert recorded.MAP.stat().st_size < 120_000
    with Image.open(recorded.MAP) as image:
        pixels = np.asarray(image.convert("RGBA"))
    assert pixels[0, 0, 3] == 0, "the ground is transparent"
    assert (pixels[..., 3] == 255).mean() > 0.2

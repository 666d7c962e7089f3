"""Full layers in pieces: the same arrays, rows by rows, and what cannot be divided."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.network import models
from minialex.network.divided import divide
from minialex.network.layers import Linear, LocalResponseNorm, Tanh
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters, join_columns, whole_shapes

SMALL = models.ALEXNET_SMALL
FULL = ("fc6", "fc7", "fc8")


@pytest.mark.parametrize("pieces", [1, 2, 4, 16])
def test_pieces_are_rows_of_the_whole_layers(pieces: int) -> None:
    whole = join_columns(initial_parameters(SMALL, 2, 0))
    divided = divide(SMALL, 2, pieces)
    cut = divided.split(range(pieces), whole)
    assert {name: array.shape for name, array in cut.items()} == {
        name: parameter.shape for name, parameter in divided.parameters(range(pieces)).items()
    }
    back = join_columns(cut)
    for name, shape in whole_shapes(SMALL, 2).items():
        np.testing.assert_array_equal(back[name][: shape[0]], whole[name], err_msg=name)
        assert not back[name][shape[0] :].any(), "padding"
    assert {name.layer for name in cut if divided.full(name)} == set(FULL)
    assert {divided.rows(name) for name in cut if name.layer == "fc8"} == {10}


def test_a_rank_has_its_share_of_the_papers_parameters() -> None:
    divided = divide(models.ALEXNET, 2, 8)
    assert divided.above.input_shape == (9216,)
    count = sum(math.prod(parameter.shape) for parameter in divided.parameters(range(1)).values())
    assert count == 60_965_224 - 58_631_144 + 58_631_144 // 8


def changed(**layers: Any) -> Network:
    return replace(SMALL, layers=tuple(layers.get(layer.name, layer) for layer in SMALL.layers))


@pytest.mark.parametrize(
    ("network", "pieces", "words"),
    [
        (SMALL, 3, "layer 'fc6': 128 units cannot be divided over ranks in 3 pieces"),
        (changed(fc7=Linear("fc7", 128)), 4, "layer 'fc7': it reads its own column alone"),
        (changed(relu7=LocalResponseNorm("norm7")), 4, "layer 'norm7'"),
        (Network("maps", (3, 28, 28), SMALL.layers[:3]), 4, "network 'maps' has no full layers"),
    ],
)
def test_what_cannot_be_divided_is_said(network: Network, pieces: int, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        divide(network, 2, pieces)
    assert "\n" not in str(caught.value)


def test_a_layer_that_mixes_units_is_refused_by_its_name() -> None:
    class Mixing(Tanh):
        pass

    with pytest.raises(ConfigurationError, match="layer 'mix': a Mixing among the full layers cannot be divided"):
        divide(changed(relu7=Mixing("mix")), 2, 4)

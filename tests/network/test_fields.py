"""Layers and networks that cannot be meant are refused when they are made, by the layer's name and the field's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.network.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    SpatialResponseNorm,
    Tanh,
)
from minialex.network.network import Network

NAN = float("nan")
PAIRS = "padding must be ((above, below), (left, right)), such as ((2, 2), (2, 2)), got"
WHOLE = "must be a whole number from 1, got"
WRONG: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    *((Conv2d, (16, 5), {"padding": padding}, f"{PAIRS} {padding!r}")
      for padding in (2, (2, 2), "same", ((-1, 0), (0, 0)), ((1, 1),), [[1, 1], [1, 1]], ((1.5, 1), (1, 1)))),
    (Conv2d, ("16", 5), {}, f"kernels {WHOLE} '16'"),
    (Conv2d, (16, 0), {}, f"size {WHOLE} 0"),
    (Conv2d, (16, 5.0), {}, f"size {WHOLE} 5.0"),
    (Conv2d, (16, (5, 5)), {}, f"size {WHOLE} (5, 5)"),
    (Conv2d, (16, True), {}, f"size {WHOLE} True"),
    (Conv2d, (16, 5), {"stride": 0}, f"stride {WHOLE} 0"),
    (Conv2d, (16, 5), {"std": -1}, "std must be a number from 0, got -1"),
    (Conv2d, (16, 5), {"std": NAN}, "std must be a number from 0, got nan"),
    (Conv2d, (16, 5), {"bias": None}, "bias must be a finite number, got None"),
    (Conv2d, (16, 5), {"on": "second"}, "on must be 'each' or 'first', got 'second'"),
    (Conv2d, (16, 5), {"sees": True}, "sees must be 'own' or 'all', got True"),
    (Linear, (0,), {}, f"features {WHOLE} 0"),
    (Linear, (10,), {"std": "0.1"}, "std must be a number from 0, got '0.1'"),
    *((Dropout, (rate,), {}, f"rate must be a number from 0 and below 1, got {rate!r}")
      for rate in (2.0, 1.0, -0.1, "0.5", NAN)),
    (Dropout, (0.5, "other"), {}, "mode must be 'paper' or 'inverted', got 'other'"),
    (MaxPool2d, (0,), {}, f"size {WHOLE} 0"),
    (MaxPool2d, (3, 0), {}, f"stride {WHOLE} 0"),
    (MaxPool2d, (3, 2, "yes"), {}, "ceil must be True or False, got 'yes'"),
    (MaxPool2d, (3,), {"ties": "last"}, "ties must be 'first' or 'all', got 'last'"),
    (LocalResponseNorm, (0,), {}, f"size {WHOLE} 0"),
    (LocalResponseNorm, (), {"beta": "0.75"}, "beta must be a finite number, got '0.75'"),
    (LocalResponseNorm, (), {"alpha_over_n": 1}, "alpha_over_n must be True or False, got 1"),
    (SpatialResponseNorm, (), {"k": NAN}, "k must be a finite number, got nan"),
    *((kind, (), {"on": "both"}, "on must be 'each' or 'first', got 'both'") for kind in (ReLU, Tanh, Flatten)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "named", "words"), WRONG)
def test_a_field_that_cannot_be_meant(
    kind: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        kind("mine", *given, **named)
    assert str(caught.value) == f"layer 'mine': {words}"


@pytest.mark.parametrize("name", [1, None, ""])
def test_a_name_that_is_none(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="name must be a string, got"):
        ReLU(name)


def test_numbers_of_numpy_are_numbers() -> None:
    Conv2d("conv", np.int64(4), np.int32(3), std=np.float32(0.1), bias=1)
    Dropout("drop", np.float64(0.25))


ROW = (Conv2d("conv1", 4, 3), Flatten("flatten"), Linear("fc2", 10))


@pytest.mark.parametrize(
    ("shape", "layers", "words"),
    [
        ((3, 8, 8), (), "network 'mine' has no layers"),
        ((3, 8, 8), (ROW[0], "relu"), "network 'mine': layer number 2 is a str ('relu'), expected a layer"),
        ((3, 8, 8), (ReLU, *ROW), "layer number 1 is the class ReLU, expected a layer: write ReLU(…)"),
        ((3, 8, 8), ((ROW[0], ROW[1]), ROW[2]), "layer number 1 is a tuple"),
        ((3, 8, 8), (layer for layer in ROW), "layers must be a tuple or a list of layers, got a generator"),
        ((3, 8, 8), ROW[0], "layers must be a tuple or a list of layers, got a Conv2d"),
        (8, ROW, "input_shape must be whole numbers such as (3, 28, 28), got 8"),
        ((3, 8.0, 8), ROW, "input_shape must be whole numbers such as (3, 28, 28), got (3, 8.0, 8)"),
        ((3, 0, 8), ROW, "input_shape must be whole numbers such as (3, 28, 28), got (3, 0, 8)"),
    ],
)
def test_a_row_that_is_none(shape: Any, layers: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Network("mine", shape, layers)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_of_a_network_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="a network's name must be a string, got 3"):
        Network(3, (3, 8, 8), ROW)  # type: ignore[arg-type]


def test_a_list_is_a_row() -> None:
    made: Any = Network("mine", [3, 8, 8], list(ROW))  # type: ignore[arg-type]
    assert made == Network("mine", (3, 8, 8), ROW)
    assert made.stages(1) == Network("mine", (3, 8, 8), ROW).stages(1)


def test_after_a_layer_on_the_first_column_there_is_the_first_column_alone() -> None:
    row = (*ROW[:2], Linear("fc2", 10, sees="all", on="first"))
    words = "layer 'fc3': it is computed in 2 columns, the one before it in 1 column, so it must also be on 'first'"
    with pytest.raises(ConfigurationError, match=words):
        Network("mine", (3, 8, 8), (*row, Linear("fc3", 10, sees="all"))).stages(2)
    with pytest.raises(
        ConfigurationError, match=r"layer 'fc2': it is computed in 1 column, .* in 2 columns, so it must see 'all'"
    ):
        Network("mine", (3, 8, 8), (*ROW[:2], Linear("fc2", 10, on="first"))).stages(2)
    Network("mine", (3, 8, 8), (*row, Linear("fc3", 10, on="first"))).stages(2)

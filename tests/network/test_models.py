"""The paper's network in numbers, and the variants of it. Numbers computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from minialex.engine.summary import PAPER_TOTALS, summarise
from minialex.errors import ConfigurationError
from minialex.network import models, variants
from minialex.network.parameters import initial_parameters, join_columns, split_columns, whole_shapes
from minialex.recipe import toml as recipe
from minialex.recipe.fields import NetworkFields

PAPER_LAYERS = {  # parameters, multiply-adds, shape of the whole layer
    "conv1": (34_944, 105_415_200, (96, 55, 55)),
    "conv2": (307_456, 223_948_800, (256, 27, 27)),
    "conv3": (885_120, 149_520_384, (384, 13, 13)),
    "conv4": (663_936, 112_140_288, (384, 13, 13)),
    "conv5": (442_624, 74_760_192, (256, 13, 13)),
    "fc6": (37_752_832, 37_748_736, (4096,)),
    "fc7": (16_781_312, 16_777_216, (4096,)),
    "fc8": (4_097_000, 4_096_000, (1000,)),
}


def parameters(name: str) -> int:
    chosen = recipe.load(name)
    network = variants.build(chosen)
    return sum(math.prod(p.shape) for p in network.parameters(chosen.columns).values())


def test_papers_network_layer_by_layer() -> None:
    rows = {row.layer: row for row in summarise(recipe.load("alexnet-2012")).rows}
    for layer, (count, multiply_adds, shape) in PAPER_LAYERS.items():
        row = rows[layer]
        whole = (row.output[0] * row.columns, *row.output[1:])
        assert (row.parameters, row.multiply_adds, whole) == (count, multiply_adds, shape), layer


def test_papers_totals() -> None:
    found = summarise(recipe.load("alexnet-2012"))
    assert found.parameters == PAPER_TOTALS["parameters"] == 60_965_224
    assert found.neurons == PAPER_TOTALS["neurons"] == 659_272
    assert found.multiply_adds == PAPER_TOTALS["multiply_adds"] == 724_406_816
    assert found.training_multiply_adds == 2_067_805_248  # 4.136 GFLOP: all but the gradient of the image


@pytest.mark.parametrize(
    ("name", "count"),
    [("alexnet-2012", 60_965_224), ("code145", 60_965_224), ("caffe", 60_965_224), ("one-weird-trick", 61_100_840)],
)
def test_parameters_of_the_variants(name: str, count: int) -> None:
    assert parameters(name) == count


def test_one_column_with_half_the_kernels() -> None:
    half = NetworkFields(columns=1, kernels=(48, 128, 192, 192, 256))
    network = variants.build(half)
    assert sum(math.prod(p.shape) for p in network.parameters(1).values()) == 59_798_312
    assert sum(s.layer.multiply_adds(s.seen, 1) for s in network.stages(1)) == 391_514_384


def test_exchange_of_the_paper() -> None:
    network = models.ALEXNET
    received = {s.layer.name: s.values_received for s in network.stages(2) if s.values_received}
    assert received == {"conv3": 21_632, "fc6": 4_608, "fc7": 2_048, "fc8": 2_048}
    readers = {s.layer.name: s.columns for s in network.stages(2)}
    assert readers["fc7"] == 2
    assert readers["fc8"] == 1
    assert network.exchanged_bytes(2, 128)["conv3"] == 2 * 21_632 * 128 * 4


def test_nothing_is_exchanged_before_the_last_layer_without_connections() -> None:
    network = variants.build(NetworkFields(connect="never"))
    assert set(network.exchanged_bytes(2, 1)) == {"fc8"}


def test_everywhere_connected_reads_both_columns_from_conv2_on() -> None:
    network = variants.build(NetworkFields(connect="everywhere"))
    assert set(network.exchanged_bytes(2, 1)) == {"conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"}


def test_pooling_2_2_with_the_programs_paddings() -> None:
    network = variants.build(NetworkFields(pool_size=2, pool_stride=2, paddings=(1, 1, 1, 0)))
    rows = [s.output[1] for s in network.stages(2) if s.layer.name in ("pool1", "conv2", "pool2", "conv5", "pool5")]
    assert rows == [28, 26, 13, 11, 6]  # layers-147.cfg


@pytest.mark.parametrize("layer", ["conv2", "conv3", "conv4", "conv5"])
def test_depth_minus_one(layer: str) -> None:
    network = variants.build(NetworkFields(omit=(layer,)))
    assert layer not in [la.name for la in network.layers]
    assert network.stages(2)[-1].output == (1000,)


def test_initial_values_of_the_paper() -> None:
    small = NetworkFields(model="alexnet_small", crop=28, classes=10)  # the paper's initial values, smaller
    network = variants.build(small)
    arrays = join_columns(initial_parameters(network, 2, seed=1, dtype="float64"))
    for name, array in arrays.items():
        layer, _, kind = name.partition(".")
        if kind == "bias":
            assert (array == (1.0 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0)).all(), name
        else:
            error = 4 / math.sqrt(2 * array.size)
            assert abs(array.std() / 0.01 - 1) < error, name
            assert abs(array.mean()) < 4 * 0.01 / math.sqrt(array.size), name


def test_initial_values_do_not_depend_on_columns_or_on_other_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    # so that narrow layers are drawn in several pieces, too
    monkeypatch.setattr("minialex.network.parameters._CHUNK", 1 << 8)
    narrow = NetworkFields(
        model="alexnet_small", crop=28, classes=8, connect="everywhere", kernels=(8, 12, 20, 20, 12), features=(28, 28)
    )
    network = variants.build(narrow)
    one, two, four = (join_columns(initial_parameters(network, columns, 3)) for columns in (1, 2, 4))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
        np.testing.assert_array_equal(one[name], four[name])
    shorter = variants.build(replace(narrow, omit=("conv4",)))
    np.testing.assert_array_equal(join_columns(initial_parameters(shorter, 2, 3))["conv5.weight"], two["conv5.weight"])
    assert not np.array_equal(one["conv3.weight"], join_columns(initial_parameters(network, 1, 4))["conv3.weight"])


def test_split_is_the_inverse_of_join() -> None:
    network = models.ALEXNET_SMALL
    pieces = initial_parameters(network, 2, 0)
    whole = join_columns(pieces)
    assert {name: array.shape for name, array in whole.items()} == whole_shapes(network, 2)
    again = split_columns(network, 2, whole)
    assert again.keys() == pieces.keys()
    for name, piece in pieces.items():
        np.testing.assert_array_equal(again[name], piece)


def test_arrays_of_other_shapes_are_not_split() -> None:
    """A compiled step would read and write beside them."""
    network = models.ALEXNET_SMALL
    whole = join_columns(initial_parameters(network, 2, 0))
    dense = join_columns(initial_parameters(network, 1, 0))
    with pytest.raises(ConfigurationError, match=r"needs conv2.weight of shape \(32, 8, 5, 5\), and was given \("):
        split_columns(network, 2, {**whole, "conv2.weight": dense["conv2.weight"]})
    del whole["fc8.bias"]
    with pytest.raises(ConfigurationError, match=r"needs fc8.bias of shape \(10,\), and was given none"):
        split_columns(network, 2, whole)


def test_he_initialisation_follows_what_a_column_sees() -> None:
    network = models.ALEXNET_SMALL
    stds = {s.layer.name: s.layer.std for s in network.stages(2) if hasattr(s.layer, "std")}
    assert stds["conv2"] == math.sqrt(2 / (8 * 25))  # its own column's 8 channels
    assert stds["conv3"] == math.sqrt(2 / (32 * 9))  # both columns'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": (95, 256, 384, 384, 256)}, "layer 'conv1': a width of 95 cannot be divided into 2 columns"),
        ({"crop": 7}, "layer 'conv1': a kernel of size 11 does not fit"),
        ({"columns": 3}, "layer 'conv2'"),
    ],
)
def test_errors_begin_with_the_layers_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        variants.build(replace(NetworkFields(), **changes))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_the_sixth_layer_of_table_2() -> None:
    """The networks marked *: 256 kernels of 3 × 3 over pool5, reading both columns (layers-146 of the program)."""
    chosen = recipe.load("conv6")
    network = variants.build(chosen)
    stages = {stage.layer.name: stage for stage in network.stages(2)}
    assert (stages["conv6"].seen, stages["conv6"].output) == ((256, 6, 6), (128, 6, 6))
    assert stages["conv6"].gathers
    assert [layer.name for layer in network.layers][-11:-7] == ["pool5", "conv6", "relu_conv6", "flatten"]
    shapes = whole_shapes(network, 2)
    assert shapes["conv6.weight"] == (256, 256, 3, 3)
    assert sum(math.prod(shape) for shape in shapes.values()) == 61_555_304
    wide = variants.build(chosen.replace(classes=10_184))
    assert sum(math.prod(shape) for shape in whole_shapes(wide, 2).values()) == 99_182_152
    program = variants.build(recipe.load("code145").replace(conv6=256)).layer("conv6")
    assert (program.std, program.bias) == (0.03, 1.0)


def test_the_network_of_the_cifar_10_claim_is_normalised_where_it_was_in_2012() -> None:
    """Sizes of ``layers-conv-local-13pct.cfg`` on crops of 24 × 24, kernels shared between places."""
    chosen = recipe.load("cifar5").replace(classes=10)
    network = variants.build(chosen)
    names = [layer.name for layer in network.layers]
    assert names[:8] == ["conv1", "pool1", "relu1", "norm1", "conv2", "relu2", "norm2", "pool2"]
    stages = {stage.layer.name: stage for stage in network.stages(1)}
    assert [stages[name].output[1] for name in ("conv1", "pool1", "pool2", "conv4")] == [24, 12, 6, 6]
    norm = stages["norm1"].layer
    assert (norm.size, norm.k, norm.beta) == (9, 1.0, 0.75)
    assert norm.coefficient == pytest.approx(0.001 / 9)
    weights = 64 * 75 + 64 * 1600 + 32 * 576 + 32 * 288 + 10 * 32 * 36
    shapes = whole_shapes(network, 1)
    assert sum(math.prod(shape) for name, shape in shapes.items() if name.endswith("weight")) == weights
    without = variants.build(chosen.replace(norm_layers=()))
    assert [layer.name for layer in without.layers] == [name for name in names if "norm" not in name]
    one = variants.build(chosen.replace(norm_layers=("conv2",), norm_k=2.0))
    assert [layer.k for layer in one.layers if "norm" in layer.name] == [2.0]
    stds = {layer.name: layer.std for layer in network.layers if hasattr(layer, "std")}
    assert stds == {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.04, "conv4": 0.04, "fc5": 0.01}

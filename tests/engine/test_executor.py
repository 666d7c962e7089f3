"""The executor without a peer: columns against one column with zeros in its weights, counts, and planted faults.

A layer that sees its own column is a layer of one column whose weights are 0 wherever another column's channels come
in. So a network of C columns must give what that network of one column gives, forward and backward, but for rounding:
an oracle that has no gathering, scattering or copying in it. (`test_two_columns.py` compares with PyTorch.)
"""

from dataclasses import dataclass

import numpy as np
import pytest

from minialex.backend import registry
from minialex.backend.program import ArrayName
from minialex.engine.columns import Executor
from minialex.errors import DeviceMismatch
from minialex.network.layers import (
    Context,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    SpatialResponseNorm,
    Tanh,
)
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters, join_columns, split_name

BACKEND = registry.load("numpy")
NETWORK = Network(
    "executor",
    (3, 15, 18),
    (
        Conv2d("conv1", 8, 5, 2, ((0, 3), (1, 2)), std=0.2),
        ReLU("relu1"),
        SpatialResponseNorm("norm1", size=3, alpha=2.0),
        MaxPool2d("pool1"),
        Conv2d("conv2", 8, 3, 1, ((1, 1), (1, 1)), std=0.3, bias=0.1),  # its own column
        Tanh("tanh2"),
        Conv2d("conv3", 12, 3, 1, ((1, 1), (1, 1)), std=0.2, sees="all"),
        ReLU("relu3"),
        Conv2d("conv4", 8, 2, std=0.3),  # its own column
        Flatten("flatten"),
        Linear("fc5", 8, std=0.3),  # its own column
        Dropout("dropout5"),
        Linear("fc6", 12, std=0.3, sees="all"),
        ReLU("relu6"),
        Linear("fc7", 6, std=0.3, sees="all", on="first"),
    ),
)
OWN = ("conv2", "conv4", "fc5")
READS_ALL = ("conv3", "fc6", "fc7")
N = 3
IMAGES = np.random.default_rng(0).standard_normal((N, 3, 15, 18))
LABELS = np.array([5, 0, 2])
MOMENT = Context(training=True, seed=3, step=5)
PLACEMENTS = {1: ("cpu:0",), 2: ("cpu:0", "cpu:1"), 4: ("cpu:0", "cpu:1", "cpu:1", "cpu:0")}


@dataclass
class Run:
    """One batch: outputs of every layer, loss, gradients by piece, and the executor."""

    outputs: np.ndarray
    loss: float
    gradients: dict[str, np.ndarray]
    exchanged: dict[tuple[str, str], int]


def run(network, placement, pieces, dtype="float64", executor=Executor):
    columns = executor(network, BACKEND, placement)
    parameters = {name: BACKEND.to_device(a.astype(dtype), placement[name.column]) for name, a in pieces.items()}
    images = [BACKEND.to_device(IMAGES.astype(dtype), device) for device in placement]
    outputs, saved = columns.forward(parameters, images, MOMENT)
    labels = BACKEND.to_device(LABELS, placement[0])
    loss, probs = columns.loss(outputs, labels)
    gradients = columns.backward(parameters, saved, columns.loss_gradient(probs, labels), MOMENT)
    whole = np.concatenate([BACKEND.to_numpy(y) for y in outputs], axis=1)
    fetched = {name: BACKEND.to_numpy(gradient) for name, gradient in gradients.items()}
    return Run(whole, float(BACKEND.to_numpy(loss)), fetched, dict(columns.exchanged))


def seen_by(whole, columns):
    """Where a whole layer's weights of one column [K,D,…] are not 0: the blocks on the diagonal."""
    K, D = whole.shape[0] // columns, whole.shape[1] // columns
    mask = np.zeros_like(whole)
    for column in range(columns):
        mask[column * K : (column + 1) * K, column * D : (column + 1) * D] = 1
    return mask


def in_one_column(pieces, columns):
    """The weights of a network of one column that computes the same."""
    whole = {}
    for name, array in join_columns(pieces).items():
        whole[ArrayName(*split_name(name))] = array
        if name.removesuffix(".weight") in OWN:
            wide = np.zeros((array.shape[0], columns * array.shape[1], *array.shape[2:]))
            wide[seen_by(wide, columns) == 1] = array.ravel()
            whole[ArrayName(*split_name(name))] = wide
    return whole


def check_against_one_column(columns, placement, executor=Executor):
    pieces = initial_parameters(NETWORK, columns, 3, "float64")
    ours = run(NETWORK, placement, pieces, executor=executor)
    other = run(NETWORK, ("cpu:0",), in_one_column(pieces, columns))
    np.testing.assert_allclose(ours.outputs, other.outputs, rtol=1e-11, atol=1e-13)
    assert ours.loss == pytest.approx(other.loss, rel=1e-12)
    whole = join_columns(ours.gradients)
    for piece, expected in other.gradients.items():
        name = piece.whole
        found = whole[name]
        if name.removesuffix(".weight") in OWN:
            found, expected = found.ravel(), expected[seen_by(expected, columns) == 1]  # noqa: PLW2901
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max(), err_msg=name)


def check_same_bits(columns, placement, executor=Executor):
    for dtype in ("float32", "float64"):
        pieces = initial_parameters(NETWORK, columns, 3, dtype)
        here = run(NETWORK, ("cpu:0",) * columns, pieces, dtype, executor)
        there = run(NETWORK, placement, pieces, dtype, executor)
        assert here.outputs.tobytes() == there.outputs.tobytes()
        assert here.loss == there.loss
        for name, gradient in here.gradients.items():
            assert gradient.dtype == dtype
            assert gradient.tobytes() == there.gradients[name].tobytes(), name


def check_exchange(columns, placement, executor=Executor):
    for dtype, itemsize in (("float32", 4), ("float64", 8)):
        pieces = initial_parameters(NETWORK, columns, 3, dtype)
        expected = NETWORK.exchanged_bytes(columns, N, itemsize)
        assert tuple(expected) == (READS_ALL if columns > 1 else ())
        exchanged = run(NETWORK, placement, pieces, dtype, executor).exchanged
        for direction in ("forward", "backward"):
            # a layer that sees its own column is not among them: nothing crosses there
            assert {layer: n for (layer, d), n in exchanged.items() if d == direction} == expected


@pytest.mark.parametrize("columns", PLACEMENTS)
def test_columns_are_one_column_with_zeros(columns):
    check_against_one_column(columns, PLACEMENTS[columns])


@pytest.mark.parametrize("columns", PLACEMENTS)
def test_where_columns_live_changes_no_bit(columns):
    check_same_bits(columns, PLACEMENTS[columns])


@pytest.mark.parametrize("columns", PLACEMENTS)
def test_what_crosses_is_what_the_shapes_say(columns):
    check_exchange(columns, PLACEMENTS[columns])


@pytest.mark.parametrize("columns", [2, 4])
def test_bytes_from_the_shapes_by_hand(columns):
    """Every column that reads receives the other columns' channels of every image once."""
    received = {"conv3": 8 * 3 * 4, "fc6": 8, "fc7": 12}  # values an image that all columns together have
    readers = {"conv3": columns, "fc6": columns, "fc7": 1}
    by_hand = {name: 4 * N * readers[name] * received[name] * (columns - 1) // columns for name in received}
    assert [stage.seen[1:] for stage in NETWORK.stages(columns) if stage.layer.name == "conv3"] == [(3, 4)]
    assert NETWORK.exchanged_bytes(columns, N) == by_hand


@pytest.mark.parametrize("columns", [2, 4])
def test_gradients_along_random_directions(columns):
    """Of the loss of the whole network, so that every exchange on the way back is in it."""
    pieces = initial_parameters(NETWORK, columns, 3, "float64")
    random = np.random.default_rng(7)
    placement = PLACEMENTS[columns]
    computed = run(NETWORK, placement, pieces).gradients
    for name, array in pieces.items():
        direction = random.standard_normal(array.shape)
        high, low = (run(NETWORK, placement, {**pieces, name: array + t * direction}).loss for t in (1e-6, -1e-6))
        expected = float(np.sum(computed[name] * direction))
        assert (high - low) / 2e-6 == pytest.approx(expected, rel=1e-4, abs=1e-8), name


# ---- executors that are wrong ---------------------------------------------------------------------------------


class LastReaderLost(Executor):
    """On the way back the last reader's gradient is not added."""

    def _scatter(self, stage, gradients):
        return super()._scatter(stage, [*gradients[:-1], self.backend.scale(gradients[-1], 0.0)])


class OwnReaderLost(Executor):
    """Every owner adds the others' gradients and forgets its own."""

    def _scatter(self, stage, gradients):
        sums = super()._scatter(stage, gradients)
        if stage.columns == 1:
            return sums
        sizes = [stage.seen[0] // stage.sources] * stage.sources
        own = [self.backend.split(gradient, sizes)[column] for column, gradient in enumerate(gradients)]
        return [self.backend.add(total, self.backend.scale(part, -1.0)) for total, part in zip(sums, own, strict=True)]


class CountedTwice(Executor):
    """The first reader's gradient is added twice."""

    def _scatter(self, stage, gradients):
        return super()._scatter(stage, [self.backend.scale(gradients[0], 2.0), *gradients[1:]])


class Averaged(Executor):
    """The readers' mean instead of their sum."""

    def _scatter(self, stage, gradients):
        return super()._scatter(stage, [self.backend.scale(g, 1 / len(gradients)) for g in gradients])


class ForwardOrder(Executor):
    """Channels gathered with the columns in reverse."""

    def _gather(self, stage, pieces):
        moved = [self.backend.copy_to(p, d) for p, d in zip(pieces[::-1], self.placement, strict=True)]
        return super()._gather(stage, moved)


class OwnFirst(Executor):
    """Every reader puts its own channels first."""

    def _gather(self, stage, pieces):
        gathered = []
        for reader in range(stage.columns):
            owners = [(reader + i) % len(pieces) for i in range(len(pieces))]
            arrived = [self._send(pieces[owner], reader, owner, stage.layer.name, "forward") for owner in owners]
            gathered.append(self.backend.concat(arrived))
        return gathered


class BackwardOrder(Executor):
    """The sums are given to the columns in reverse."""

    def _scatter(self, stage, gradients):
        sums = super()._scatter(stage, gradients)
        return [self.backend.copy_to(s, d) for s, d in zip(sums[::-1], self.placement, strict=True)]


class OwnOnly(Executor):
    """Every reader reads its own channels over and over."""

    def _gather(self, stage, pieces):
        return [self.backend.concat([pieces[column]] * len(pieces)) for column in range(stage.columns)]


class FirstOnly(Executor):
    """What other columns send arrives as zeros."""

    def _gather(self, stage, pieces):
        return super()._gather(stage, [pieces[0], *[self.backend.scale(p, 0.0) for p in pieces[1:]]])


class CopyForgotten(Executor):
    """Nothing is copied, in either direction."""

    def _send(self, piece, receiver, sender, layer, direction):
        return piece


class CopyForgottenBackward(Executor):
    """Nothing is copied on the way back."""

    def _send(self, piece, receiver, sender, layer, direction):
        return piece if direction == "backward" else super()._send(piece, receiver, sender, layer, direction)


class Uncounted(Executor):
    """What crosses on the way back is not counted."""

    def _send(self, piece, receiver, sender, layer, direction):
        if direction == "backward":
            return self.backend.copy_to(piece, self.placement[receiver])
        return super()._send(piece, receiver, sender, layer, direction)


class CountedByDevice(Executor):
    """Only what crosses between devices is counted, not what crosses between columns on one."""

    def _send(self, piece, receiver, sender, layer, direction):
        if self.placement[receiver] == self.placement[sender]:
            return piece
        return super()._send(piece, receiver, sender, layer, direction)


class CountedWithItsOwn(Executor):
    """A column's own piece is counted as well."""

    def _send(self, piece, receiver, sender, layer, direction):
        return super()._send(piece, receiver, -1 if receiver == sender else sender, layer, direction)


class OrderByDevice(Executor):
    """The readers' gradients are added device by device, so that a placement changes the last bits."""

    def _scatter(self, stage, gradients):
        if self.placement[0] == self.placement[-1] or stage.columns == 1:
            return super()._scatter(stage, gradients)
        eps = 1 + float(np.finfo(gradients[0].dtype).eps)
        return [self.backend.scale(total, eps) for total in super()._scatter(stage, gradients)]


class SameMaskInEveryColumn(Executor):
    """Dropout draws every column's mask as the first one's."""

    def _at(self, stage, column, context):
        at = super()._at(stage, column, context)
        return at if stage.layer.name != "dropout5" else Context(True, at.seed, at.step, 0, 0, at.columns, at.need_dx)


CHECKS = {"one column": check_against_one_column, "same bits": check_same_bits, "exchange": check_exchange}
CAUGHT = {
    LastReaderLost: "one column",
    OwnReaderLost: "one column",
    CountedTwice: "one column",
    Averaged: "one column",
    ForwardOrder: "one column",
    OwnFirst: "one column",
    BackwardOrder: "one column",
    OwnOnly: "one column",
    FirstOnly: "one column",
    SameMaskInEveryColumn: "one column",
    Uncounted: "exchange",
    CountedByDevice: "exchange",
    CountedWithItsOwn: "exchange",
    OrderByDevice: "same bits",
}
"""Every planted fault and the check that sees it. Most leave the bits the same on one device and on two: agreement of
placements alone would miss them."""


@pytest.mark.parametrize("wrong", CAUGHT, ids=lambda wrong: wrong.__name__)
def test_a_wrong_executor_is_caught(wrong):
    placement = ("cpu:0", "cpu:0") if wrong is CountedByDevice else PLACEMENTS[2]
    with pytest.raises(AssertionError):
        CHECKS[CAUGHT[wrong]](2, placement, wrong)


@pytest.mark.parametrize("wrong", [CopyForgotten, CopyForgottenBackward], ids=lambda wrong: wrong.__name__)
def test_a_forgotten_copy_is_an_error_of_devices(wrong):
    with pytest.raises(DeviceMismatch, match="arrays live on different devices"):
        check_against_one_column(2, PLACEMENTS[2], wrong)


def test_agreement_of_placements_alone_would_miss_most():
    missed = []
    for wrong in CAUGHT:
        try:
            check_same_bits(2, PLACEMENTS[2], wrong)
            missed.append(wrong)
        except AssertionError:
            pass
    assert len(missed) >= 10


class Counting:
    """The backend, with a count of which gradients are computed."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name.endswith("_backward"):
            self.calls.append(name)
        return getattr(BACKEND, name)


@pytest.mark.parametrize("frozen", [{"conv1"}, {"conv1", "conv2", "conv3"}, {"conv3", "fc6"}, set(OWN) | {"fc7"}])
def test_frozen_layers_change_no_other_gradient(frozen):
    """And nothing is computed before the first layer that learns."""
    placement = PLACEMENTS[2]
    pieces = initial_parameters(NETWORK, 2, 3, "float64")
    whole = run(NETWORK, placement, pieces)

    def executor(network, backend, placement):
        return Executor(network, counting, placement, frozen=frozenset(frozen))

    counting = Counting()
    part = run(NETWORK, placement, pieces, executor=executor)
    learning = [name for name in pieces if name.layer not in frozen]
    assert set(part.gradients) >= set(learning)
    for name, gradient in part.gradients.items():
        np.testing.assert_array_equal(gradient, whole.gradients[name])
    layers = [layer.name for layer in NETWORK.layers]
    first = min(layers.index(name.layer) for name in learning)
    assert {name.layer for name in part.gradients} <= set(layers[first:])
    expected = 2 * sum(isinstance(layer, Conv2d) for layer in NETWORK.layers[first:])
    assert counting.calls.count("conv2d_backward") == expected


def test_with_everything_frozen_there_are_no_gradients():
    names = frozenset(layer.name for layer in NETWORK.layers)
    pieces = initial_parameters(NETWORK, 2, 3, "float64")
    found = run(NETWORK, PLACEMENTS[2], pieces, executor=lambda *a: Executor(*a, frozen=names))
    assert found.gradients == {}

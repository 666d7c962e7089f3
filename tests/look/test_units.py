"""Receptive fields against the network itself, and the search for exciting images against looking at all of them."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.data import ArraySplit
from minialex.errors import ConfigurationError, DataError
from minialex.look.units import excite, receptive_field, units_of
from minialex.network import models


def test_the_papers_receptive_fields() -> None:
    """conv1 sees its 11 × 11 pixels, conv5 163 × 163, sixteen pixels apart; full layers see everything."""
    network = models.ALEXNET
    found = {name: receptive_field(network, name) for name in ("conv1", "pool1", "conv2", "conv3", "conv5", "pool5")}
    assert [(f[0].size, f[0].stride) for f in found.values() if f] == [
        (11, 4), (19, 8), (51, 8), (99, 16), (163, 16), (195, 32),
    ]  # fmt: skip
    assert receptive_field(network, "fc6") is None


@pytest.mark.parametrize("layer", ["conv1", "norm1", "pool1", "spatial2", "conv2", "pool2"])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (-1, -1)])
def test_a_place_sees_its_receptive_field_and_nothing_else(make_session, shapes, layer: str, place) -> None:
    """Changing every pixel outside changes no bit; changing the first and last rows and columns inside does."""
    session = make_session(activation="tanh", spatial_norm=True, kernels=(8, 8, 8, 8, 8))
    image = shapes.validation.read(np.arange(1))
    map_ = session.activations(image, [layer])[layer]
    row, column = (n % size for n, size in zip(place, map_.shape[2:], strict=True))
    crop, first = session.recipe.crop, (session.recipe.image_size - session.recipe.crop) // 2
    field = receptive_field(session.network, layer)
    assert field is not None
    (top, bottom), (left, right) = field[0].of(row, crop), field[1].of(column, crop)
    other = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)

    def seen(changed) -> np.ndarray:
        return session.activations(changed, [layer])[layer][0, :, row, column]

    outside = other.copy()
    inside = np.s_[..., first + top : first + bottom, first + left : first + right]
    outside[inside] = image[inside]
    np.testing.assert_array_equal(seen(outside), map_[0, :, row, column])
    edges = {"top": np.s_[..., first + top, first + left : first + right],
             "bottom": np.s_[..., first + bottom - 1, first + left : first + right],
             "left": np.s_[..., first + top : first + bottom, first + left],
             "right": np.s_[..., first + top : first + bottom, first + right - 1]}  # fmt: skip
    for name, edge in edges.items():
        changed = image.copy()
        changed[edge] = np.where(image[edge] > 127, 0, 255)
        if "pool" in layer:  # a maximum may lie elsewhere: some of several changes of the edge must show
            rng = np.random.default_rng(1)
            shown = False
            for _ in range(20):
                changed[edge] = rng.integers(0, 256, image[edge].shape)
                shown = shown or not np.array_equal(seen(changed), map_[0, :, row, column])
            assert shown, name
        else:
            assert not np.array_equal(seen(changed), map_[0, :, row, column]), name


@pytest.mark.parametrize("layer", ["conv4", "fc7"])
def test_excite_finds_what_looking_at_all_finds(make_session, shapes, layer: str) -> None:
    session = make_session()
    split = shapes.validation
    told: list[int] = []
    found = excite(session, split, layer, [5, 0], count=7, batch_size=16, progress=told.append)
    assert told == [16, 32, 40]
    everything = session.activations(split.read(np.arange(40)), [layer])[layer][:, [5, 0]].reshape(40, 2, -1)
    for u in (0, 1):
        best = everything[:, u].max(axis=1)
        order = np.argsort(-best, kind="stable")[:7]
        np.testing.assert_allclose(found.values[u], best[order], rtol=1e-5)
        np.testing.assert_array_equal(found.images[u], order)
        across = 7 if layer == "conv4" else 1
        where = found.rows[u] * across + found.columns[u]
        np.testing.assert_array_equal(where, everything[order, u].argmax(axis=1))


def test_equal_activations_go_to_the_first_image(make_session, shapes) -> None:
    images = np.repeat(shapes.validation.read(np.arange(1)), 5, axis=0)
    found = excite(make_session(), ArraySplit(images, np.zeros(5, np.int64)), "conv1", [0], count=3, batch_size=2)
    assert found.images.tolist() == [[0, 1, 2]]


def test_fewer_images_than_asked_for_are_all_of_them(make_session, shapes) -> None:
    found = excite(make_session(), shapes.validation, "conv5", [1], count=99)
    assert sorted(found.images[0].tolist()) == list(range(40))


def test_bad_units_and_empty_sets_are_refused(make_session, shapes) -> None:
    session = make_session()
    assert units_of(session, "conv3") == 12
    assert units_of(session, "fc8") == 10
    with pytest.raises(ConfigurationError, match=r"units 0 … 11, not 12"):
        excite(session, shapes.validation, "conv3", [12])
    with pytest.raises(ConfigurationError, match="at least one unit"):
        excite(session, shapes.validation, "conv3", [])
    empty = ArraySplit(np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="no images"):
        excite(session, empty, "conv3", [1])

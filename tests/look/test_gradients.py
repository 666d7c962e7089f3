"""Gradients that go back to the image: held against trying, over columns, layers and backends."""

from __future__ import annotations

import numpy as np
import pytest

from minialex import philox
from minialex.errors import ConfigurationError
from minialex.look.gradients import JITTER, Saliency, maximise, saliency
from minialex.look.sensitivity import blank
from minialex.look.units import output_shape

DOUBLE = {"dtype": "float64"}


@pytest.fixture
def image(shapes):
    return shapes.validation.read(np.arange(3))[2]


@pytest.mark.parametrize("layer", ["conv1", "norm1", "conv3", "pool5", "relu6", "dropout6", "fc8"])
@pytest.mark.parametrize("fields", [{}, {"columns": 1}, {"dropout_mode": "inverted"}], ids=["two", "one", "inverted"])
def test_the_gradient_is_what_trying_gives(make_session, image, layer, fields) -> None:
    session = make_session(**DOUBLE, **fields)
    inputs = session.inputs(image[None])
    random = np.random.default_rng(0)
    weights = random.normal(size=(1, *output_shape(session, layer)))
    seen = []

    def above(output):
        seen.append((output * weights).sum())
        return weights

    gradient = session.input_gradient(inputs, layer, above)
    assert gradient.shape == inputs.shape
    assert np.abs(gradient).max() > 0
    direction, little = random.normal(size=inputs.shape), 1e-6
    for sign in (1, -1):
        session.input_gradient(inputs + sign * little * direction, layer, above)
    assert (seen[1] - seen[2]) / (2 * little) == pytest.approx((gradient * direction).sum(), rel=1e-4)


def test_what_goes_in_and_comes_out_is_what_inference_has(make_session, image) -> None:
    session = make_session()
    seen = []
    session.input_gradient(session.inputs(image[None]), "conv4", lambda y: seen.append(y) or np.zeros_like(y))
    np.testing.assert_allclose(seen[0], session.activations(image[None], ["conv4"])["conv4"], rtol=1e-5, atol=1e-6)


def test_devices_and_backends_agree(make_session, image) -> None:
    here = saliency(make_session(), image, 3)
    split = saliency(make_session(devices="cpu:0,cpu:1"), image, 3)
    np.testing.assert_array_equal(here.gradient, split.gradient)
    numba = saliency(make_session(backend="numba"), image, 3)
    np.testing.assert_allclose(here.gradient, numba.gradient, rtol=1e-3, atol=1e-4 * np.abs(here.gradient).max())


def test_saliency_watches_the_most_probable_class_unless_told(make_session, image) -> None:
    session = make_session()
    found = saliency(session, image)
    assert found.label == session.probabilities(image[None])[0][0].argmax()
    assert saliency(session, image, 7).label == 7
    np.testing.assert_array_equal(found.map, np.abs(found.gradient).max(axis=0))
    for label in (-1, 10):
        with pytest.raises(ConfigurationError, match="classes 0 … 9"):
            saliency(session, image, label)


def test_half_of_the_map() -> None:
    def of(*values: float) -> float:
        return Saliency(0, 1.0, np.array(values).reshape(1, 2, 2)).half()

    assert of(1, -1, 1, -1) == 0.5
    assert of(0, 9, 0, 0) == 0.25
    assert np.isnan(of(0, 0, 0, 0))


def test_a_channel_is_excited_more_than_by_any_photograph(make_session, shapes) -> None:
    session = make_session()
    found = maximise(session, "conv2", (1, 6), steps=20)
    assert found.place == (7, 7)
    assert found.images.shape == (2, 3, 28, 28)
    real = session.activations(shapes.validation.read(np.arange(40)), ["conv2"])["conv2"][:, [1, 6], 7, 7]
    assert (found.after > real.max(axis=0)).all()
    np.testing.assert_array_equal(found.images, maximise(session, "conv2", (1, 6), steps=20).images)


def test_a_neuron_climbs_and_says_so(make_session) -> None:
    told: list[int] = []
    found = maximise(make_session(), "fc8", (1,), steps=8, progress=told.append)
    assert found.place is None
    assert (found.after > found.before).all()
    assert told == list(range(1, 9))


def test_an_image_that_was_moved_about_is_moved_back(make_session) -> None:
    session = make_session()
    found = maximise(session, "conv1", (0,), steps=1)

    def middle(y):
        return np.eye(y[0].size)[[np.ravel_multi_index((0, *found.place), y.shape[1:])]].reshape(y.shape)

    seen = session.input_gradient(session.inputs(blank(session)[None]), "conv1", middle)[0].any(axis=0)
    by = philox.below(philox.Stream(0, philox.purpose("look/jitter"), 0), 1, (2 * JITTER + 1,) * 2)[0] - JITTER
    assert by.any(), "it was moved"
    difference = np.abs(found.images[0].astype(int) - blank(session)[:, 2:30, 2:30]).max(axis=0)
    changed = difference > 30  # not by noise
    assert changed.sum() > 5
    assert not (changed & ~np.roll(seen, -by, (0, 1))).any(), "the unit saw the moved image"


def test_a_unit_alone_has_the_image_that_it_has_among_others(make_session) -> None:
    session = make_session(**DOUBLE)
    both, alone = maximise(session, "conv3", (2, 5), steps=3), maximise(session, "conv3", (2,), steps=3)
    np.testing.assert_array_equal(both.images[0], alone.images[0])


@pytest.mark.parametrize(("layer", "units", "steps"), [("conv2", (8,), 1), ("conv2", (-1,), 1), ("conv9", (0,), 1),
                                                       ("conv2", (), 1), ("conv2", (0,), 0)])  # fmt: skip
def test_maximise_refuses_what_it_cannot_use(make_session, layer, units, steps) -> None:
    with pytest.raises(ConfigurationError):
        maximise(make_session(), layer, units, steps=steps)

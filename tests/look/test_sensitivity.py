"""Covering and moving images: the pictures made are those meant, and the numbers are the network's for them."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.look.sensitivity import blank, occlusion, occlusion_squares, paste, shrunk, translation


@pytest.fixture
def image(shapes):
    return shapes.validation.read(np.arange(3))[2]


def test_occlusion_is_what_covering_by_hand_gives(make_session, image) -> None:
    session = make_session()  # crops of 28 from images of 32: the crop begins at row 2
    told: list[int] = []
    found = occlusion(session, image, size=10, stride=7, label=3, batch_size=4, progress=told.append)
    assert found.offsets.tolist() == [0, 7, 14, 18]
    assert told == [4, 8, 12, 16]
    assert told[-1] == occlusion_squares(session, 10, 7)
    mean = np.rint(session.statistics.mean).astype(np.uint8)
    covered = image.copy()
    covered[:, 2 + 7 : 2 + 17, 2 + 18 : 2 + 28] = mean[:, 2 + 7 : 2 + 17, 2 + 18 : 2 + 28]
    probs = session.probabilities(np.stack([image, covered]))[0]
    assert found.whole == pytest.approx(probs[0, 3], rel=1e-5)
    assert found.probabilities[1, 3] == pytest.approx(probs[1, 3], rel=1e-5)
    assert found.answers[1, 3] == probs[1].argmax()
    assert (found.label, found.size) == (3, 10)


def test_occlusion_watches_the_most_probable_class_unless_told(make_session, image) -> None:
    session = make_session()
    found = occlusion(session, image)
    assert found.label == session.probabilities(image[None])[0][0].argmax()
    assert found.size == 4  # a seventh of 28
    assert found.offsets.tolist() == list(range(0, 25, 2))


def test_covering_what_is_blank_already_changes_nothing(make_session) -> None:
    session = make_session()
    found = occlusion(session, blank(session), size=9)
    np.testing.assert_allclose(found.probabilities, found.whole, rtol=1e-5)
    assert np.nanmax(np.abs(found.drop(28))) < 1e-5


def test_the_drop_of_a_pixel_is_the_mean_over_the_squares_on_it(make_session, image) -> None:
    found = occlusion(make_session(), image, size=10, stride=9)
    assert found.offsets.tolist() == [0, 9, 18]
    falls = found.whole - found.probabilities
    drop = found.drop(28)
    assert drop[0, 0] == pytest.approx(falls[0, 0])
    assert drop[9, 0] == pytest.approx((falls[0, 0] + falls[1, 0]) / 2)
    assert drop[9, 18] == pytest.approx(falls[:2, 1:].mean())
    assert np.isfinite(drop).all()
    sparse = occlusion(make_session(), image, size=2, stride=13)
    assert np.isnan(sparse.drop(28)[5, 5])


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 28}, {"stride": 0}, {"label": 10}, {"label": -1}])
def test_occlusion_refuses_what_it_cannot_use(make_session, image, options) -> None:
    with pytest.raises(ConfigurationError):
        occlusion(make_session(), image, **options)


def test_translation_is_what_moving_by_hand_gives(make_session, shapes) -> None:
    session = make_session()
    images, labels = shapes.validation.read(np.arange(2)), shapes.validation.labels[:2]
    told: list[int] = []
    found = translation(session, images, labels, reach=0.25, steps=3, batch_size=5, progress=told.append)
    assert told == [5, 10, 15, 18]
    assert found.shifts.tolist() == [-7, 0, 7]
    ground = blank(session)
    moved = ground.copy()
    moved[:, 7:, :-7] = images[1][:, :-7, 7:]  # 7 down, 7 left
    probs = session.probabilities(np.stack([images[1], moved]))[0]
    own = labels[1]
    assert found.probabilities[1, 1, 1] == pytest.approx(probs[0, own], rel=1e-5)
    assert found.probabilities[1, 2, 0] == pytest.approx(probs[1, own], rel=1e-5)
    assert found.ranks[1, 2, 0] == (probs[1] > probs[1, own]).sum()
    np.testing.assert_array_equal(found.within(5), (found.ranks < 5).mean(axis=0))
    assert (found.within(10) == 1).all()  # of ten classes


def test_translation_watches_the_class_of_the_whole_image_unless_told(make_session, shapes) -> None:
    session = make_session()
    images = shapes.validation.read(np.arange(3))
    found = translation(session, images, reach=0.2, steps=3, scale=0.5)
    np.testing.assert_array_equal(found.labels, session.probabilities(images)[0].argmax(axis=1))


def test_place_cuts_what_goes_over_the_edge() -> None:
    content, ground = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3), np.zeros((1, 5, 5), np.uint8)
    assert paste(content, ground, 0, 0)[0, 1:4, 1:4].tolist() == content[0].tolist()
    assert paste(content, ground, 2, -2)[0].tolist() == [[0] * 5] * 3 + [[2, 3, 0, 0, 0], [5, 6, 0, 0, 0]]
    for far in (5, -5, 99):
        assert not paste(content, ground, far, 0).any()
        assert not paste(content, ground, 0, far).any()
    assert not ground.any()


def test_shrunk_means_over_pixels() -> None:
    image = np.zeros((3, 4, 4), np.uint8)
    image[:, :2, :2] = [[0, 40], [80, 120]]
    small = shrunk(image, 0.5)
    assert small.shape == (3, 2, 2)
    assert small[:, 0, 0].tolist() == [60, 60, 60]
    assert shrunk(image, 1.0) is image


@pytest.mark.parametrize(
    "options", [{"reach": 0}, {"reach": 1.1}, {"scale": 0}, {"scale": 2}, {"steps": 4}, {"steps": 1}]
)
def test_translation_refuses_what_it_cannot_use(make_session, shapes, options) -> None:
    with pytest.raises(ConfigurationError, match="odd number of steps"):
        translation(make_session(), shapes.validation.read(np.arange(1)), **options)


def test_steps_that_fall_together_are_refused(make_session, shapes) -> None:
    with pytest.raises(ConfigurationError, match="coincide"):
        translation(make_session(), shapes.validation.read(np.arange(1)), reach=0.1, steps=9)

"""Generated figures: the same image whatever is drawn beside it, and no short cut to the class."""

import numpy as np
import pytest

from minialex.data.sets import figures as shapes
from minialex.errors import ConfigurationError


def test_an_image_depends_on_its_own_index_alone():
    together = shapes.draw(3, "train", np.arange(60), 20)
    one_by_one = np.concatenate([shapes.draw(3, "train", np.array([i]), 20) for i in range(60)])
    assert np.array_equal(together, one_by_one)
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(shapes.draw(3, "train", order, 20), together[order])


@pytest.mark.parametrize("rows", [1, 7, 25])
def test_chunks_change_nothing(monkeypatch, rows):
    whole = shapes.draw(0, "validation", np.arange(50), 16)
    monkeypatch.setattr(shapes, "_CHUNK_PIXELS", rows * 16**2)
    assert np.array_equal(shapes.draw(0, "validation", np.arange(50), 16), whole)


def test_a_part_that_does_not_fit_in_memory_is_the_same(monkeypatch):
    drawn_now = shapes.split(1, "train", 30, 12)
    monkeypatch.setattr(shapes, "IN_MEMORY", 0)
    drawn_later = shapes.split(1, "train", 30, 12)
    assert isinstance(drawn_later, shapes.DrawnSplit)
    assert (len(drawn_later), drawn_later.size) == (len(drawn_now), drawn_now.size) == (30, 12)
    indices = np.array([29, 0, 7, -1])
    assert np.array_equal(drawn_later.read(indices), drawn_now.read(indices))
    assert np.array_equal(drawn_later.labels, drawn_now.labels)


@pytest.mark.parametrize("size", [8, 33, 227])
def test_any_size(size):
    images = shapes.draw(0, "train", np.arange(10), size)
    assert images.shape == (10, 3, size, size)
    assert images.dtype == np.uint8
    assert images.std(axis=(1, 2, 3)).min() > 5


def test_sizes_show_the_same_picture():
    small, large = (shapes.draw(5, "train", np.arange(20), size).astype(float) for size in (24, 96))
    shrunk = large.reshape(20, 3, 24, 4, 24, 4).mean(axis=(3, 5))
    correlation = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, shrunk, strict=True)]
    assert min(correlation) > 0.7


def test_seeds_and_parts_have_no_image_in_common():
    images = [shapes.draw(seed, part, np.arange(400), 16) for seed in (0, 1, 2**40) for part in ("train", "validation")]
    seen = {image.tobytes() for image in np.concatenate(images)}
    assert len(seen) == 6 * 400


def test_classes_are_equally_many_and_named():
    data = shapes.load(size=8, train_images=50, validation_images=20)
    assert np.bincount(data.train.labels).tolist() == [5] * 10
    assert np.bincount(data.validation.labels).tolist() == [2] * 10
    assert len(set(data.class_names)) == 10


def test_all_figures_cover_the_same_area_and_none_is_another():
    axis = np.linspace(-1.5, 1.5, 601, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    inside = np.array([formula(x, y) < 0 for formula in shapes.FIGURES.values()])
    assert inside.mean(axis=(1, 2)) * 9 == pytest.approx(np.full(10, 2.0), rel=0.01)
    differing = (inside[:, None] ^ inside[None]).mean(axis=(2, 3)) * 9
    assert differing[~np.eye(10, dtype=bool)].min() > 0.3  # of an area of 2


def colour_features(images):
    """Mean, deviation and percentiles of every channel, and their squares."""
    pixels = images.reshape(len(images), 3, -1).astype(float)
    percentiles = np.percentile(pixels, [5, 25, 50, 75, 95], axis=2).transpose(1, 0, 2).reshape(len(images), -1)
    features = (np.concatenate([pixels.mean(2), pixels.std(2), percentiles], axis=1) - 128) / 64
    return np.concatenate([features, features**2], axis=1)


def ridge_accuracy(train, labels, test, test_labels, penalty):
    """Accuracy of a linear classifier fitted by least squares."""
    mean = train.mean(axis=0)
    train, test = train - mean, test - mean
    target = np.eye(10)[labels] - 0.1
    weights = np.linalg.solve(train.T @ train + penalty * np.eye(train.shape[1]), train.T @ target)
    return float(np.mean((test @ weights).argmax(axis=1) == test_labels))


def test_neither_pixels_nor_colours_give_the_class_away_to_a_linear_classifier():
    # At the full 8,000 and 2,000 images of 32 x 32: nearest centroid 9.7 %, linear on pixels 16 %, linear on colour
    # statistics 11 % right; chance is 10 %. A small network gets 93 % right after six epochs.
    data = shapes.load(size=16, train_images=3000, validation_images=1000)
    train = data.train.read(np.arange(3000)).reshape(3000, -1) / 255
    test = data.validation.read(np.arange(1000)).reshape(1000, -1) / 255
    labels, test_labels = data.train.labels, data.validation.labels
    centroids = np.stack([train[labels == k].mean(axis=0) for k in range(10)])
    nearest = (np.sum(centroids**2, axis=1) - 2 * test @ centroids.T).argmin(axis=1)
    assert np.mean(nearest == test_labels) < 0.2
    assert ridge_accuracy(train, labels, test, test_labels, 1000) < 0.25
    colours = [colour_features(part.read(np.arange(len(part)))) for part in (data.train, data.validation)]
    assert ridge_accuracy(colours[0], labels, colours[1], test_labels, 1) < 0.17


def test_the_figure_can_be_told_by_its_form():
    # The images do hold their class: drawn without turn, clutter, texture and noise, the mean images are the figures.
    quiet = {"TURN": 0.0, "OFFSET": 0.0, "FRAGMENTS_BEHIND": 0, "FRAGMENTS_IN_FRONT": 0, "LIGHT": 0.0,
             "GROUND_SHADE": 0.0, "FIGURE_SHADE": 0.0, "GRAIN": (0.0, 0.0), "SCALE": (0.6, 0.6)}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quiet.items():
            patch.setattr(shapes, name, value)
        images = shapes.draw(0, "train", np.arange(10), 48).astype(float)
    axis = (((np.arange(48) + 0.5) / 24 - 1) / 0.6).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    for image, formula in zip(images, shapes.FIGURES.values(), strict=True):
        distance = formula(x, y)
        figure, ground = image[:, distance < -0.1], image[:, distance > 0.1]
        assert np.abs(figure.mean(axis=1) - ground.mean(axis=1)).max() > 20
        assert max(figure.std(axis=1).max(), ground.std(axis=1).max()) < 1


@pytest.mark.parametrize(
    ("field", "value"), [("size", 7), ("size", 1025), ("train_images", 0), ("validation_images", -1)]
)
def test_what_cannot_be_drawn(field, value):
    with pytest.raises(ConfigurationError, match=str(value)):
        shapes.load(**{field: value})

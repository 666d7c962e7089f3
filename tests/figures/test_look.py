"""Pictures of what was found: what they show is what the numbers say, whatever the shapes and names are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from minialex.figures import look as pictures
from minialex.figures import pictures as base
from minialex.look.gradients import Maximised, Saliency
from minialex.look.kernels import Difference, colour_selectivity
from minialex.look.neighbours import Neighbours
from minialex.look.sensitivity import Occlusion, Translation
from minialex.look.units import Excitation, ReceptiveField

RNG = np.random.default_rng(0)
NAMES = ("$\\frac{", "中文", "x" * 300, "")


def texts(figure: Figure) -> list[str]:
    return [text for found in figure.findobj(Text) if isinstance(found, Text) and (text := found.get_text())]


def rendered(figure: Figure) -> np.ndarray:
    with Image.open(io.BytesIO(base.png(figure))) as image:
        return np.asarray(image.convert("RGB"))


def images(*shape: int, size: int = 20) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, 3, size, size)).astype(np.uint8)


@pytest.mark.parametrize(("K", "columns"), [(96, 2), (8, 1), (12, 3)])
def test_kernels_show_every_score_and_the_test(K: int, columns: int) -> None:
    weights = RNG.normal(size=(K, 3, 11, 11))
    scores = colour_selectivity(weights)
    difference = Difference((0.5,) * columns, 0.25, 0.0312, 9999) if columns > 1 else None
    figure = pictures.kernels(weights, scores, columns, difference)
    plot = figure.axes[-1]
    drawn = np.concatenate([c.get_offsets() for c in plot.collections if len(c.get_offsets()) > 1 or columns == K])
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(scores))
    shown = texts(figure)
    assert any("η² = 0.25, p = 0.031" in text for text in shown) == (columns > 1)
    assert len([text for text in shown if text.startswith("mean ")]) == columns
    rendered(figure)


def test_a_kernel_without_a_score_is_left_out() -> None:
    weights = RNG.normal(size=(4, 3, 5, 5))
    weights[:2] = 0
    figure = pictures.kernels(weights, colour_selectivity(weights), 2, None)
    assert len([text for text in texts(figure) if text.startswith("mean ")]) == 1
    rendered(figure)


@pytest.mark.parametrize("shape", [(16, 7, 7), (2, 55, 55), (600, 3, 4), (4096,), (14,), (2,)])
def test_activations_draw_every_value_once(shape: tuple[int, ...]) -> None:
    output = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + 1
    figure = pictures.activations(images(), output, "layer", 2)
    sheets = [np.ma.filled(axes.get_images()[0].get_array(), np.nan) for axes in figure.axes[1:3]]
    shown = [np.sort(sheet[np.isfinite(sheet)]) for sheet in sheets]
    halves = np.split(output, 2)
    most = pictures.MOST_MAPS // 2 if len(shape) == 3 else len(output)
    for values, half in zip(shown, halves, strict=True):
        np.testing.assert_array_equal(values, np.sort(half[:most].ravel()))
    assert any(f"column 2: {'maps' if len(shape) == 3 else 'neurons'}" in text for text in texts(figure))
    rendered(figure)


def test_activations_of_zeros_and_of_one_sign() -> None:
    for output in (np.zeros((4, 3, 3)), -np.ones((4, 3, 3))):
        rendered(pictures.activations(images(), output, "x", 1))


def test_occlusion_shows_the_drop() -> None:
    offsets = np.array([0, 10])
    found = Occlusion(1, 0.9, 10, offsets, np.array([[0.9, 0.4], [0.95, 0.0]]), np.zeros((2, 2), np.int64))
    figure = pictures.occlusion(images(), found, NAMES)
    drop = np.ma.filled(figure.axes[1].get_images()[-1].get_array(), np.nan)
    assert drop[0, 0] == pytest.approx(0)
    assert drop[0, 19] == pytest.approx(0.5)
    assert drop[19, 19] == pytest.approx(0.9)
    assert "中文: 90.0 %" in [text.replace("\xa0", " ") for text in texts(figure)]
    rendered(figure)


@pytest.mark.parametrize("N", [1, 3])
def test_translation_shows_both_maps(N: int) -> None:
    shifts = np.array([-5, 0, 5])
    ranks = RNG.integers(0, 9, (N, 3, 3))
    found = Translation(shifts, 1.0, np.zeros(N, np.int64), RNG.uniform(size=(N, 3, 3)), ranks)
    figure = pictures.translation(list(images(9)), found, NAMES)
    probability, top = (np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes[9:11])
    np.testing.assert_allclose(probability, found.probabilities.mean(axis=0))
    np.testing.assert_allclose(top, (ranks < 5).mean(axis=0))
    rendered(figure)


def test_excitation_frames_what_the_unit_sees() -> None:
    field = (ReceptiveField(6, 2, -1), ReceptiveField(6, 2, -1))
    where = np.array([[0, 3]]), np.array([[0, 5]])
    found = Excitation("conv2", (3,), np.array([[7, 1]]), np.array([[2.5, 1.25]]), *where)
    figure = pictures.excitation([list(images(2))], found, field, 2, 8)
    frames = [patch for axes in figure.axes for patch in axes.patches if isinstance(patch, Rectangle)]
    boxes = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in frames[::2]]
    assert boxes == [(-0.5, -0.5, 5, 5), (8.5, 4.5, 6, 6)]
    assert figure.axes[3].get_images()[0].get_array().shape == (6, 6, 3)
    assert {"2.5", "1.25"} <= set(texts(figure))
    assert any(text == "unit 3\ncolumn 1" for text in texts(figure))
    rendered(figure)
    rendered(pictures.excitation([list(images(2))], found, None, 1, 8))


def test_neighbours_show_names_and_distances() -> None:
    found = Neighbours(np.array([[4, 2], [1, 0]]), np.array([[0.5, 12.25], [3, 4]]))
    labels = np.array([[0, 1], [2, 3]])
    figure = pictures.neighbours(list(images(2)), ["a photo", "x" * 99], list(images(2, 2)), found, labels, NAMES)
    shown = texts(figure)
    assert {"a photo", "中文", "$\\frac{", "class 3", "0.5", "12.2", "3", "4"} <= set(shown)
    assert len([axes for axes in figure.axes if axes.get_images()]) == 6
    rendered(figure)


@pytest.mark.parametrize("size", [0.0, 3.0])
def test_saliency_shows_the_largest_magnitude(size: float) -> None:
    gradient = size * RNG.normal(size=(3, 20, 20))
    figure = pictures.saliency(images(), Saliency(1, 0.25, gradient), NAMES)
    np.testing.assert_array_equal(figure.axes[1].get_images()[0].get_array(), np.abs(gradient).max(axis=0))
    assert "中文: 25.0 %" in [text.replace("\xa0", " ") for text in texts(figure)]
    rendered(figure)


def test_maximised_images_are_cut_to_what_a_channel_sees() -> None:
    field = (ReceptiveField(6, 2, -1), ReceptiveField(6, 2, -1))
    units = tuple(range(10))
    found = Maximised("conv2", units, images(10), np.zeros(10), np.arange(10) / 4, (5, 5))
    figure = pictures.maximised(found, field, 2, 16, [""] * 10)
    np.testing.assert_array_equal(
        figure.axes[9].get_images()[0].get_array(), found.images[9, :, 9:15, 9:15].T.swapaxes(0, 1)
    )
    assert {"unit 7, column 1", "unit 8, column 2", "2.25"} <= set(texts(figure))
    rendered(figure)
    whole = Maximised("fc8", (0,), images(1), np.zeros(1), np.ones(1), None)
    figure = pictures.maximised(whole, None, 1, 10, [NAMES[2]])
    assert figure.axes[0].get_images()[0].get_array().shape == (20, 20, 3)
    rendered(figure)

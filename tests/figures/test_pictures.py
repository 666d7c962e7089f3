"""Pictures: what they show is what the numbers say."""

from __future__ import annotations

import io
import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from minialex.figures import pictures

HOSTILE = ["$\\frac{", "<b>&amp;", "中文", "a\u202eb\x00c\nd", "\udcff", "x" * 300, "", "_^{", "\\alpha$", "\ufffe"]


def records(losses: list[float | None], rates: list[float] | None = None) -> list[dict[str, Any]]:
    """Two training records and a validation an epoch."""
    made: list[dict[str, Any]] = []
    for n, loss in enumerate(losses):
        rate = rates[n] if rates else 0.01
        for part in (0.5, 1.0):
            train = {
                "kind": "train",
                "step": int(10 * (n + part)),
                "epoch": n + part,
                "loss": loss,
                "top1": 0.25 + n / 10,
            }
            made.append({**train, "learning_rate": rate, "images_per_second": 100.0})
        validation = {"kind": "validation", "epoch": n + 1, "step": 10 * (n + 1), "loss": loss}
        made.append({**validation, "top1_error": 0.5 - n / 10, "top5_error": 0.1 - n / 100})
    made.append({"kind": "event", "step": 3, "message": "resumed"})
    return made


def texts(figure: Figure) -> list[str]:
    return [text for found in figure.findobj(Text) if isinstance(found, Text) and (text := found.get_text())]


def lines(axes: Axes) -> dict[str, Any]:
    return {str(line.get_label()): line.get_xydata() for line in axes.get_lines()}


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray(image.convert("RGB"))


def test_curves_show_the_records() -> None:
    figure = pictures.curves(records([2.0, 1.0, 0.5]), classes=10)
    loss, error = figure.axes
    np.testing.assert_allclose(lines(loss)["training"], [[0.5, 2], [1, 2], [1.5, 1], [2, 1], [2.5, 0.5], [3, 0.5]])
    np.testing.assert_allclose(lines(loss)["validation"], [[1, 2], [2, 1], [3, 0.5]])
    np.testing.assert_allclose(lines(error)["training"][:, 1], [75, 75, 65, 65, 55, 55])
    np.testing.assert_allclose(lines(error)["validation"], [[1, 50], [2, 40], [3, 30]])
    np.testing.assert_allclose(lines(error)["top-5"], [[1, 10], [2, 9], [3, 8]])
    shown = texts(figure)
    for text in ("validation 0.5", "training 0.5", "validation 30.0 %", "training 55.0 %", "top-5 8.0 %"):
        assert text in shown
    assert "guessing 2.30" in shown
    assert "guessing 90.0 %" in shown


def test_few_classes_have_no_top5_curve() -> None:
    _, error = pictures.curves(records([1.0]), classes=5).axes
    assert "top-5" not in lines(error)


def test_cuts_of_the_learning_rate_stand_where_the_rate_changed() -> None:
    loss, _ = pictures.curves(records([2.0, 1.0, 0.5], [0.01, 0.001, 0.001]), 10).axes
    cuts = [data[0, 0] for data in (line.get_xydata() for line in loss.get_lines()) if data[0, 0] == data[-1, 0]]
    assert cuts == [1.0]
    assert "epoch; dashed: rate 0.001" in texts(pictures.loss_curve(records([2.0, 1.0, 0.5], [0.01, 0.001, 0.001])))
    many = pictures.loss_curve(records([2.0] * 6, [0.1, 0.01, 0.003, 0.001, 0.0003, 0.0001]))
    assert "epoch; dashed: rate 0.01, 0.003, 0.001, …" in texts(many)


@pytest.mark.parametrize("losses", [[2.4, 2.3, 2.3], [2.3] * 9, [9.0, 2.31, 2.30, 0.1], [1.0]])
def test_no_label_lies_across_a_curve(losses: list[float]) -> None:
    """Whatever is written stands outside the axes, where no curve is, and apart from what else is written there."""
    figure = pictures.curves(records(losses, [0.01 / (n + 1) for n in range(len(losses))][:7] * 2), classes=10)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for axes in figure.axes:
        inside = axes.get_window_extent(renderer)
        boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
        assert len(boxes) >= 3
        for box in boxes:
            assert box.x0 > inside.x1 or box.y1 < inside.y0
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)


def test_a_rate_that_slopes_is_no_cut() -> None:
    metrics = records([1.0] * 20, [0.01 * 0.9**n for n in range(20)])
    assert not [text for text in texts(pictures.loss_curve(metrics)) if text.startswith("rate")]


def test_labels_of_close_ends_do_not_overlap() -> None:
    figure = pictures.error_curve(records([1.0]), 1000)
    figure.canvas.draw()
    ends = [t for t in figure.axes[0].texts if t.get_text().startswith(("training", "validation", "top-5"))]
    assert len(ends) == 3
    boxes = sorted((t.get_window_extent() for t in ends), key=lambda box: box.y0)
    for below, above in itertools.pairwise(boxes):
        assert below.y1 <= above.y0 + 1
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        records([None, None]),
        records([math.nan, math.inf, 1.0]),
        records([2.3, 1e30]),
        records([0.0]),
        [{"kind": "train", "step": 1, "epoch": 0.1, "loss": 2.0}],
        [{"kind": "event", "step": 0, "message": "x"}, {"kind": "validation"}],
    ],
)
def test_curves_bear_what_a_broken_run_leaves(metrics: list[dict[str, Any]]) -> None:
    assert pixels(pictures.png(pictures.curves(metrics, 10))).std() > 0


def test_many_records_are_averaged_not_dropped() -> None:
    metrics = [{"kind": "train", "epoch": n / 1000, "loss": float(n % 2)} for n in range(6000)]
    drawn = lines(pictures.loss_curve(metrics).axes[0])["training"]
    assert len(drawn) == pictures.RECORDS_DRAWN
    np.testing.assert_allclose(drawn[:, 1], 0.5)


def test_kernels_are_scaled_each_over_its_channels_together() -> None:
    weights = np.zeros((2, 3, 11, 11))
    weights[0, 0, 0, 0], weights[0, 2, 10, 10] = -3, 1  # red lowest, blue highest
    weights[1] = 7  # no range
    tiles = pictures.tile_kernels(weights)
    assert tiles.shape == (11, 23, 4)
    assert tiles[0, 0].tolist() == [0, 191, 191, 255]
    assert tiles[10, 10].tolist() == [191, 191, 255, 255]
    assert (tiles[:, 11, 3] == 0).all()
    assert (tiles[:, 12:] == [128, 128, 128, 255]).all()


@pytest.mark.parametrize("channels", [1, 4])
def test_kernels_of_other_channels_are_grey(channels: int) -> None:
    weights = np.random.default_rng(0).normal(size=(5, channels, 3, 3))
    tiles = pictures.tile_kernels(weights)
    assert (tiles[..., 0] == tiles[..., 1]).all()
    assert (tiles[..., 0] == tiles[..., 2]).all()
    zoom = 4
    for k in range(5):
        mean = weights[k].mean(axis=0)
        block = tiles[::zoom, k * (3 * zoom + 1) :: zoom, 0][:3, :3]
        np.testing.assert_allclose(block / 255, (mean - mean.min()) / np.ptp(mean), atol=0.002)


def test_kernels_that_are_not_finite_or_huge_leave_the_others_alone() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 3, 11, 11))
    sound = pictures.tile_kernels(weights)
    weights[0, 1, 5, 5] = np.nan
    weights[1] *= np.finfo(np.float64).max / 8
    tiles = pictures.tile_kernels(weights)
    assert tiles[5, 5, 3] == 0
    assert (tiles[:, :11, 3] == 0).sum() == 1
    np.testing.assert_array_equal(tiles[:, 12:], sound[:, 12:])
    assert (pictures.tile_kernels(np.full((1, 3, 2, 2), np.nan))[..., 3] == 0).all()


def test_kernels_have_a_block_a_column() -> None:
    weights = np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32)
    figure = pictures.kernels(weights, 2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "column 1: 48 kernels, 11 × 11 × 3",
        "column 2: 48 kernels, 11 × 11 × 3",
    ]
    for axes, half in zip(figure.axes, (weights[:48], weights[48:]), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), pictures.tile_kernels(half))
    assert pictures.kernels(weights, 1).axes[0].get_title(loc="left") == "96 kernels, 11 × 11 × 3"


def test_confusion_is_normalised_by_rows() -> None:
    matrix = np.array([[9, 1, 0], [0, 0, 0], [300, 2, 98]])
    figure = pictures.confusion(matrix, ["a", "b"])
    (axes,) = figure.axes
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "90", (1, 0): "10", (0, 2): "75", (1, 2): "<1", (2, 2): "24"}
    opacity = np.asarray(axes.images[0].get_array())[..., 3]
    np.testing.assert_allclose(opacity**2, [[0.9, 0.1, 0], [0, 0, 0], [0.75, 0.005, 0.245]], atol=1e-12)
    assert to_hex(np.asarray(axes.images[0].get_array())[0, 0, :3]) == pictures.BLUE
    assert to_hex(np.asarray(axes.images[0].get_array())[2, 0, :3]) == pictures.ORANGE
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "class 2"]


@pytest.mark.parametrize("K", [1, 2, 20, 21, 100])
def test_class_names_of_the_matrix_fit(K: int) -> None:
    names = [f"a class with a long name {k}" for k in range(K)]
    figure = pictures.confusion(np.eye(K, dtype=np.int64) * 5, names)
    figure.canvas.draw()
    (axes,) = figure.axes
    page = figure.bbox
    for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        box = label.get_window_extent()
        assert box.x0 >= page.x0 - 1
        assert box.y0 >= page.y0 - 1
    heights = sorted(label.get_window_extent().y0 for label in axes.get_yticklabels())
    apart = float(np.diff(heights).min(initial=np.inf))
    assert apart >= 0.9 * axes.get_yticklabels()[0].get_fontsize() * figure.dpi / 72


def test_more_classes_than_a_matrix_can_show_become_pairs() -> None:
    matrix = np.eye(101, dtype=np.int64) * 10
    matrix[3, 7], matrix[50, 2] = 30, 10
    figure = pictures.confusion(matrix, [f"name {k}" for k in range(101)])
    shown = texts(figure)
    assert "name 3 → name 7" in shown
    assert "75.0\N{NO-BREAK SPACE}% (30)" in shown
    assert "50.0\N{NO-BREAK SPACE}% (10)" in shown
    assert "no wrong answer" in texts(pictures.confusion(np.eye(101, dtype=np.int64), []))


def test_most_confused_counts_images_and_ignores_right_answers() -> None:
    matrix = np.array([[50, 2, 0], [4, 4, 0], [0, 2, 0]])
    assert pictures.most_confused(matrix, 3) == [(1, 0, 4, 0.5), (0, 1, 2, 2 / 52), (2, 1, 2, 1.0)]
    assert pictures.most_confused(matrix, 9) == pictures.most_confused(matrix, 3)


def bars(axes: Axes) -> list[tuple[str, float, str]]:
    """Names, lengths and colours of the bars, from the top."""
    names = [text.get_text() for text in axes.texts[::2]]
    return [(n, float(p.get_width()), to_hex(p.get_facecolor())) for n, p in zip(names, axes.patches, strict=True)]


def test_predictions_show_the_five_most_probable_and_mark_the_right_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    probs = np.array([[0.1, 0.4, 0.05, 0.3, 0.02, 0.13], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    figure = pictures.predictions(images, probs, ["a", "b", "c", "d", "e", "f"], np.array([3, 5]))
    picture, first, _, second = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), images[0].transpose(1, 2, 0))
    assert [text.get_text() for text in picture.texts] == ["d"]
    blue, orange = pictures.BLUE, pictures.ORANGE
    assert bars(first) == [
        ("b", 0.4, orange), ("✓ d", 0.3, blue), ("f", 0.13, orange), ("a", 0.1, orange), ("c", 0.05, orange)
    ]  # fmt: skip
    assert [name for name, *_ in bars(second)] == ["a", "b", "c", "d", "e"]  # the truth, f, is not among five


def test_predictions_without_truth_mark_nothing() -> None:
    images = np.zeros((1, 3, 100, 100), np.uint8)
    figure = pictures.predictions(images, np.array([[0.2, np.nan, 0.8]]), ["a", "b", "c"], None)
    assert [name for name, *_ in bars(figure.axes[1])] == ["c", "a", "b"]
    assert {colour for *_, colour in bars(figure.axes[1])} == {pictures.BLUE}
    assert not figure.axes[0].texts


def test_predictions_of_many_images_say_how_many_are_left_out() -> None:
    images = np.zeros((103, 3, 4, 4), np.uint8)
    figure = pictures.predictions(images, np.ones((103, 2)) / 2, ["a", "b"], np.zeros(103, np.int64))
    assert len(figure.axes) == 200
    assert "the first 100 of 103 images" in texts(figure)


@pytest.mark.parametrize("few", [True, False])
def test_hostile_class_names_are_drawn_as_they_are(few: bool) -> None:
    names = HOSTILE if few else HOSTILE * 11
    K = len(names)
    images = np.zeros((K, 3, 4, 4), np.uint8)
    probs = np.full((K, K), 1 / K)
    for figure in (
        pictures.confusion(np.ones((K, K), np.int64), names),
        pictures.predictions(images[:10], probs[:10], names, np.arange(10)),
    ):
        pictures.png(figure)
        pictures.svg(figure, "x").encode()
    assert "$\\frac{" in texts(pictures.predictions(images[:1], probs[:1], names, np.zeros(1, np.int64)))


def test_a_class_without_a_name_has_its_number() -> None:
    assert pictures.name_of(["  "], 0) == "class 0"


def test_save_writes_the_same_png_every_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        pictures.save(pictures.curves(records([2.0, 1.0]), 10), tmp_path / name)
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert b"tEXt" not in data
    assert pixels(data).shape[1] > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_svg_is_the_same_every_time_and_its_ids_depend_on_the_name() -> None:
    first, again, other = (pictures.svg(pictures.loss_curve(records([2.0])), name) for name in ("a", "a", "b"))
    assert first == again
    assert first != other


def test_the_readers_own_settings_change_nothing() -> None:
    import matplotlib

    expected = pictures.png(pictures.curves(records([2.0, 1.0]), 10))
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "savefig.dpi": 10, "text.usetex": True}):
        assert pictures.png(pictures.curves(records([2.0, 1.0]), 10)) == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_matplotlib_is_imported_on_drawing_and_pyplot_never() -> None:
    program = (
        "import sys; from minialex.figures import pictures, report; assert 'matplotlib' not in sys.modules\n"
        "pictures.png(pictures.curves([])); assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

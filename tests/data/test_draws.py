"""Draws for training views: their range and spread, and that they depend on seed, step and position alone."""

import numpy as np
import pytest

from minialex.data.draws import centre_crop_offset, ten_crop_offsets, training_draws
from minialex.data.statistics import Statistics
from minialex.errors import ConfigurationError

AXES = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
VARIANCES = np.array([9000.0, 400.0, 60.0])
STATISTICS = Statistics(np.zeros((3, 32, 32), np.float32), AXES @ np.diag(VARIANCES) @ AXES.T)


def draw(count=64, **changed):
    values = {"seed": 0, "step": 5, "size": 32, "crop": 28, "statistics": STATISTICS, **changed}
    return training_draws(count, **values)


def fields(draws):
    return draws.top, draws.left, draws.flip, draws.shift


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(fields(a), fields(b), strict=True))


def test_shapes_and_dtypes():
    top, left, flip, shift = fields(draw(7))
    assert [a.shape for a in (top, left, flip, shift)] == [(7,), (7,), (7,), (7, 3)]
    assert [a.dtype for a in (top, left, flip, shift)] == [np.int32, np.int32, np.uint8, np.float32]
    assert all(a.flags.c_contiguous for a in (top, left, flip, shift))
    assert [len(a) for a in fields(draw(0))] == [0, 0, 0, 0]


@pytest.mark.parametrize("chunk", [1, 32])
@pytest.mark.parametrize("pieces", [[1] * 100, [50, 50], [3, 90, 7], [31, 33, 36]])
def test_splitting_a_batch_changes_no_draw(chunk, pieces):
    whole = draw(100, crop_chunk=chunk)
    starts = np.cumsum([0, *pieces[:-1]])
    parts = [draw(n, first_sample=int(s), crop_chunk=chunk) for n, s in zip(pieces, starts, strict=True)]
    for together, apart in zip(fields(whole), zip(*map(fields, parts), strict=True), strict=True):
        assert np.array_equal(together, np.concatenate(apart))


def test_seed_and_step_change_all_draws():
    assert same(draw(), draw())
    for changed in ({"seed": 1}, {"step": 6}, {"first_sample": 64}):
        for a, b in zip(fields(draw()), fields(draw(**changed)), strict=True):
            assert np.mean(a == b) < 0.8


def test_crop_positions():
    # FACTS row 11: 33 offsets each way in the program, 32 in the paper's count of 2048 = 32 * 32 * 2
    for positions, last in (("inclusive", 32), ("exclusive", 31)):
        draws = draw(20_000, size=256, crop=224, crop_positions=positions)
        for offsets in (draws.top, draws.left):
            assert (offsets.min(), offsets.max()) == (0, last)
            counts = np.bincount(offsets) / 20_000
            assert np.abs(counts - 1 / (last + 1)).max() < 5 * np.sqrt(1 / (last + 1) / 20_000)
        correlation = np.corrcoef([draws.top, draws.left, draws.flip, *draws.shift.T])
        assert np.abs(correlation[:3] - np.eye(6)[:3]).max() < 0.03
        assert abs(draws.flip.mean() - 0.5) < 0.02
    assert set(draw(crop=32).top) == {0}


def test_consecutive_images_share_a_crop_and_a_reflection_but_no_colour():
    draws = draw(96, crop_chunk=32, size=256, crop=224)
    for offsets in (draws.top, draws.left, draws.flip):
        blocks = offsets.reshape(3, 32)
        assert (blocks == blocks[:, :1]).all()
    assert len({(t, x) for t, x in zip(draws.top, draws.left, strict=True)}) == 3
    assert len(np.unique(draws.shift, axis=0)) == 96


@pytest.mark.parametrize(("scale", "deviations"), [("stdev", np.sqrt(VARIANCES)), ("eigenvalue", VARIANCES / 255)])
def test_colour_shifts_lie_along_the_principal_components(scale, deviations):
    shift = draw(20_000, colour=0.1, colour_scale=scale).shift.astype(float)
    along = shift @ AXES
    assert along.std(axis=0) == pytest.approx(0.1 * deviations, rel=0.03)
    assert np.abs(along.mean(axis=0) / along.std(axis=0)).max() < 0.03
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.03
    assert np.array_equal(draw(colour=0.0).shift, np.zeros((64, 3)))
    for a, b in zip(fields(draw(colour=0.0))[:3], fields(draw())[:3], strict=True):
        assert np.array_equal(a, b)  # switching colour off moves no crop


def test_ten_crops():
    assert ten_crop_offsets(256, 224) == [
        (0, 0, 0), (0, 32, 0), (32, 0, 0), (32, 32, 0), (16, 16, 0),
        (0, 0, 1), (0, 32, 1), (32, 0, 1), (32, 32, 1), (16, 16, 1),
    ]  # fmt: skip
    assert ten_crop_offsets(32, 27)[4] == (2, 2, 0)
    assert set(ten_crop_offsets(8, 8)) == {(0, 0, 0), (0, 0, 1)}
    assert centre_crop_offset(256, 227) == 14


@pytest.mark.parametrize("changed", [
    {"crop": 33}, {"crop": 0}, {"crop_positions": "inclusiv"}, {"colour_scale": "variance"}, {"crop_chunk": 0},
    {"colour": -0.1}, {"colour": float("nan")}, {"crop": 32, "crop_positions": "exclusive"}])  # fmt: skip
def test_what_cannot_be_drawn(changed):
    with pytest.raises(ConfigurationError):
        draw(**changed)

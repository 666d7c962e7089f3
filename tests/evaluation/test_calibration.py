"""Scores of an evaluation, by classes and as calibration, on numbers that can be counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.evaluation import calibration as scores
from minialex.evaluation.errors import Evaluation, wilson
from minialex.figures import pictures

PROBS = np.array(
    [
        [0.7, 0.2, 0.1],  # right
        [0.6, 0.3, 0.1],  # wrong, label 1
        [0.1, 0.3, 0.6],  # wrong, label 1
        [0.8, 0.1, 0.1],  # wrong, label 1
        [0.0, 0.0, 1.0],  # right
        [0.5, 0.5, 0.0],  # a tie counts against us
    ],
    np.float32,
)
FOUND = Evaluation(PROBS, np.array([0, 1, 1, 1, 2, 0]))


def test_by_class() -> None:
    first, second, third = scores.by_class(FOUND)
    assert (first.label, first.images, first.top1_error, first.top5_error) == (0, 2, 0.5, 0.0)
    assert first.probability == pytest.approx(0.6)
    assert (second.images, second.top1_error, second.taken_for, second.taken) == (3, 1.0, 0, 2)
    assert (third.top1_error, third.taken_for, third.taken) == (0.0, None, 0)
    whole = sum(score.images * score.top1_error for score in (first, second, third)) / 6
    assert whole == pytest.approx(FOUND.error(1))


def test_classes_without_images_are_left_out() -> None:
    assert [score.label for score in scores.by_class(Evaluation(PROBS[:2], np.array([0, 2])))] == [0, 2]


def test_calibration_by_hand() -> None:
    measured = scores.calibration(FOUND, 4)
    assert measured.images.tolist() == [0, 1, 3, 2]  # 0.5 belongs to the bin below it
    np.testing.assert_allclose(measured.confidence[1:], [0.5, 1.9 / 3, 0.9], rtol=1e-6)
    np.testing.assert_allclose(measured.accuracy[1:], [0, 1 / 3, 0.5])
    gaps = [0.5, 1.9 / 3 - 1 / 3, 0.4]
    assert measured.expected_error == pytest.approx((gaps[0] + 3 * gaps[1] + 2 * gaps[2]) / 6)
    assert measured.largest_error == pytest.approx(0.5)
    assert measured.overconfidence == pytest.approx(PROBS.max(axis=1).mean() - 2 / 6)


def test_probabilities_that_mean_what_they_say_are_calibrated() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 40_000)
    probs = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    labels = (random.uniform(size=len(probs)) > confidence).astype(np.int64)
    honest = scores.calibration(Evaluation(probs, labels))
    assert honest.expected_error < 0.01
    boastful = Evaluation(np.where(probs > 0.5, 0.999, 0.001).astype(np.float32), labels)
    assert scores.calibration(boastful).expected_error == pytest.approx(0.25, abs=0.01)
    assert scores.calibration(boastful).overconfidence > 0.2


def test_no_bins() -> None:
    with pytest.raises(ConfigurationError, match="at least one bin"):
        scores.calibration(FOUND, 0)


def test_json_holds_the_same() -> None:
    told = json.loads(json.dumps(scores.as_json(FOUND, ("a", "b"), ("A", "B"))))
    assert told["top1_error"] == FOUND.error(1)
    assert told["expected_calibration_error"] == scores.calibration(FOUND).expected_error
    assert [entry["images"] for entry in told["classes"]] == [2, 3, 1]
    assert told["classes"][1]["taken_for"] == "a"
    assert [entry["title"] for entry in told["classes"]] == ["A", "B", "class 2"]
    assert sum(entry["images"] for entry in told["calibration"]) == 6


def test_the_diagram_shows_the_bins() -> None:
    measured = scores.calibration(FOUND, 4)
    top, bottom = pictures.reliability(measured).axes
    heights = [bar.get_height() for bar in top.patches]
    np.testing.assert_allclose(heights[:4], [0, 0, 1 / 3, 0.5])
    np.testing.assert_allclose(heights[4:8], [0, 0.5, 1.9 / 3 - 1 / 3, 0.4], atol=1e-6)
    assert [bar.get_height() for bar in bottom.patches] == [0, 1, 3, 2]
    assert f"{100 * measured.expected_error:.1f} %" in top.get_title(loc="left")
    assert pictures.png(pictures.reliability(measured))[:4] == b"\x89PNG"


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for wrong, images, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(wrong / images, images) == pytest.approx((low, high), abs=6e-5)
    assert wilson(1.0, 25)[0] < 0.9, "25 wrong of 25 do not prove that all are"
    assert FOUND.words(1).startswith("66.67% (95%: ")

"""Checks of notebook 08: colour augmentation along the principal components."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex import philox
from minialex.course.checks.feedback import NotYet, as_array, call, exercise, same_array, same_number
from minialex.data import ArraySplit, load
from minialex.data.dataset import Split, statistics_of
from minialex.data.draws import training_draws
from minialex.data.statistics import Statistics


def _some_images() -> Split:
    return load("shapes", train_images=40, validation_images=1).train


@exercise
def covariance(answer: Any) -> str:
    """A function (pixels [N,3]) -> their covariance [3,3], the sum divided by N."""
    split = _some_images()
    images = split.read(np.arange(12))
    pixels = images.transpose(0, 2, 3, 1).reshape(-1, 3).astype(np.float64)
    truth = statistics_of(ArraySplit(images, np.zeros(12, np.int64))).covariance
    N = len(pixels)
    mistakes = [
        (truth * N / (N - 1), "that is divided by N − 1; here we divide by N (over many pixels that is the same)."),
        (pixels.T @ pixels / N, "the mean of each channel was not subtracted."),
        (truth * N, "the sum is not divided by the number of pixels yet."),
        (np.asarray(np.corrcoef(pixels.T)), "that is the correlation: do not divide by the standard deviations."),
        (np.diag(np.diag(truth)), "red, green and blue vary together; the products of two channels are missing."),
        (np.diag(truth), "those are the variances; the covariance is [3, 3]."),
    ]  # fmt: skip
    same_array(call(answer, pixels), truth, "the covariance", mistakes, axes=("row", "column"), tolerance=1e-9)
    return "as the library has it, which counts in whole numbers and never rounds until the end."


@exercise
def first_share(answer: Any) -> str:
    """The share of all variance of the colours that the first component has, for a function (covariance) -> share."""
    for number in range(2):
        cov = statistics_of(load("shapes", seed=number, train_images=30, validation_images=1).train).covariance
        values = Statistics(np.zeros((3, 32, 32), np.float32), cov).eigenvalues
        roots = np.sqrt(values)
        mistakes = [
            (float(values[-1] / values.sum()), "that is the last component: eigh gives the smallest first."),
            (float(roots[0] / roots.sum()), "variances add up, standard deviations do not: do not take the root."),
            (float(values[0]), "that is the variance itself; divide by the sum of all three."),
            (float(cov[0, 0] / np.trace(cov)), "that is the share of red; take the eigenvalues (np.linalg.eigvalsh)."),
            (100 * float(values[0] / values.sum()), "as a fraction of 1, please, not in per cent."),
        ]
        same_number(call(answer, cov), float(values[0] / values.sum()), "the share of the first component", mistakes)
    return "the greatest eigenvalue, divided by the sum of the three."


@exercise
def colour_shift(answer: Any) -> str:
    """A function (eigenvectors as columns, eigenvalues, alpha [3]) -> what is added to red, green, blue in 2012."""
    found = statistics_of(_some_images())
    stream = philox.Stream(5, philox.purpose("colour"), step=3)
    alpha = 0.1 * philox.normal(stream, np.arange(1, dtype=np.int64), 3)[0]
    truth = training_draws(1, seed=5, step=3, size=32, crop=28, statistics=found).shift[0].astype(np.float64)
    vectors, values = found.eigenvectors, found.eigenvalues
    result = as_array(call(answer, vectors, values, alpha), "the shift")
    if result.shape == (3, 3):
        raise NotYet("the shift should have three numbers, and yours is [3, 3]: add the three components up.")
    mistakes = [
        (vectors @ (alpha * values), "that is what the paper prints, λ itself; on the scale 0 to 255 it drowns the "
         "image. The 2012 program takes its square root, the standard deviation."),
        (vectors.T @ (alpha * np.sqrt(values)), "the components are the columns of the matrix, not its rows."),
        (vectors @ alpha, "the components are not scaled: multiply each with the root of its eigenvalue."),
        (alpha * np.sqrt(values), "those are lengths along the components; turn them into red, green and blue."),
    ]  # fmt: skip
    same_array(result, truth, "the shift", mistakes, axes=("channel",), tolerance=1e-5)
    return "the same shift that the library draws for this image."

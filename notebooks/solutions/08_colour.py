"""Answers to the exercises of notebook 08, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: grey: three times the grey variance, 0 and 0; (1, 1, 1)/√3. Independent
noise: three equal eigenvalues, and no direction is special. One direction (not run; what we expect): in
photographs the third deviation is small, so that all three lines lie nearly flat and the order is within the
noise of a single run.
"""

import numpy as np


def covariance(pixels):
    centred = pixels - pixels.mean(axis=0)
    return centred.T @ centred / len(pixels)


def first_share(cov):
    values = np.linalg.eigvalsh(cov)
    return values[-1] / values.sum()


def colour_shift(vectors, values, alpha):
    return vectors @ (alpha * np.sqrt(values))


RIGHT = {"covariance": covariance, "first_share": first_share, "colour_shift": colour_shift}
WRONG = {
    "covariance": [
        (lambda pixels: np.cov(pixels.T), "N − 1"),
        (lambda pixels: pixels.T @ pixels / len(pixels), "mean"),
        (lambda pixels: covariance(pixels) * len(pixels), "not divided"),
        (lambda pixels: np.corrcoef(pixels.T), "correlation"),
        (lambda pixels: pixels.var(axis=0), "variances"),
        (lambda pixels: covariance(pixels)[0], "shape"),
    ],
    "first_share": [
        (lambda cov: np.linalg.eigvalsh(cov)[0] / np.trace(cov), "smallest first"),
        (
            lambda cov: (
                np.sqrt(np.linalg.eigvalsh(cov))[-1]
                / np.sqrt(np.linalg.eigvalsh(cov)).sum()
            ),
            "root",
        ),
        (lambda cov: np.linalg.eigvalsh(cov)[-1], "divide by the sum"),
        (lambda cov: cov[0, 0] / np.trace(cov), "share of red"),
        (lambda cov: 100 * first_share(cov), "per cent"),
        (lambda cov: 0.9, "too"),
    ],
    "colour_shift": [
        (lambda vectors, values, alpha: vectors @ (alpha * values), "drowns"),
        (lambda vectors, values, alpha: vectors.T @ (alpha * np.sqrt(values)), "columns"),
        (lambda vectors, values, alpha: vectors @ alpha, "not scaled"),
        (lambda vectors, values, alpha: alpha * np.sqrt(values), "red, green and blue"),
        (
            lambda vectors, values, alpha: vectors * (alpha * np.sqrt(values)),
            "add the three",
        ),
        (
            lambda vectors, values, alpha: 2 * colour_shift(vectors, values, alpha),
            "numbers differ",
        ),
    ],
}

"""Answers to the exercises of notebook 07, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: about 0.155 (the product of 1 − i/2178 for i below 90; roughly
exp(−90·89/2/2178)). Upside down (not run; what we expect): the error rises towards guessing for what has a
top and a bottom (vehicles, animals on legs) and hardly for what has none (discs, rings, squares among the
generated shapes).
"""

import numpy as np


def count_views(size, crop):
    return (size - crop + 1) ** 2 * 2


def reflect(images):
    return images[:, :, :, ::-1]


def ten_views(image, crop, last=None, middle=None):
    last = image.shape[1] - crop if last is None else last
    middle = last // 2 if middle is None else middle
    corners = [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]
    five = np.stack([image[:, i : i + crop, j : j + crop] for i, j in corners])
    return np.concatenate([five, reflect(five)])


RIGHT = {"count_views": count_views, "reflect": reflect, "ten_views": ten_views}
WRONG = {
    "count_views": [
        (lambda size, crop: (size - crop) ** 2 * 2, "one more"),
        (lambda size, crop: (size - crop + 1) ** 2, "reflected"),
        (lambda size, crop: (size - crop + 1) * 2, "across"),
        (lambda size, crop: (size - crop + 1) ** 2 * 4, "upside down"),
        (lambda size, crop: 2048, "too large"),
    ],
    "reflect": [
        (lambda images: images, "as they were"),
        (lambda images: images[:, :, ::-1], "upside down"),
        (lambda images: images[:, ::-1], "red and blue"),
        (lambda images: images[::-1], "exchanges the images"),
        (lambda images: images[:, :, ::-1, ::-1], "half a turn"),
        (lambda images: images[0], "shape"),
    ],
    "ten_views": [
        (lambda image, crop: ten_views(image, crop)[:5], "shape"),
        (
            lambda image, crop: ten_views(image, crop)[[0, 1, 2, 3, 4] * 2],
            "(reflected) view is missing",
        ),
        (lambda image, crop: ten_views(image, crop, last=3), "upper right view is missing"),
        (
            lambda image, crop: ten_views(image, crop, middle=1),
            "central view is missing and 1 more",
        ),
        (lambda image, crop: image, "shape"),
    ],
}

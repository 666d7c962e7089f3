"""What a prediction depends on: which parts of the image are visible, and where in the image the object is.

Covered and vacated areas show the training set's mean image, which the network sees as zeros (if the recipe subtracts
the mean pixel by pixel): nothing, rather than something grey.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.draws import centre_crop_offset
from minialex.engine.session import Session
from minialex.errors import ConfigurationError

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Occlusion:
    """How a class's probability falls when parts of the image are covered (Zeiler and Fergus 2013).

    Attributes:
        label: the class in question
        whole: its probability when nothing is covered
        size: side of the covering square, in pixels
        offsets: int64 [P], first rows (and columns) of the squares in the network's input crop
        probabilities: float [P,P], the class's probability with the square at row offsets[i], column offsets[j]
        answers: int64 [P,P], the most probable class there
    """

    label: int
    whole: float
    size: int
    offsets: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]
    answers: NDArray[np.int64]

    def drop(self, length: int) -> NDArray[np.float64]:
        """How far the probability falls when a pixel is covered: the mean over the squares on it, [length,length].

        A pixel that no square covers has NaN.
        """
        total, count = np.zeros((2, length, length))
        for i, top in enumerate(self.offsets):
            for j, left in enumerate(self.offsets):
                on = np.s_[top : top + self.size, left : left + self.size]
                total[on] += self.whole - self.probabilities[i, j]
                count[on] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def occlusion(
    session: Session,
    image: NDArray[np.uint8],
    *,
    label: int | None = None,
    size: int | None = None,
    stride: int | None = None,
    batch_size: int = 100,
    progress: Progress = lambda done: None,
) -> Occlusion:
    """Cover one square after another of an image's centre crop, and compute a class's probability each time.

    Args:
        image: uint8 [3,S,S]
        label: the class; None: the most probable one of the whole image
        size: side of the square; if None, a seventh of the crop's
        stride: distance between squares; if None, half their side; the last ones end at the edge
        progress: called with the number of squares done; there are `occlusion_squares` of them

    Raises:
        ConfigurationError: If a size, stride or label is invalid.
    """
    offsets, size = _offsets(session, size, stride)
    crop = session.recipe.crop
    first = centre_crop_offset(session.recipe.image_size, crop)
    probs = session.probabilities(image[None])[0][0]
    if label is None:
        label = int(probs.argmax())
    if not 0 <= label < len(probs):
        raise ConfigurationError(f"there are classes 0 … {len(probs) - 1}, not {label}")
    covered = blank(session)

    def squares() -> Iterator[NDArray[np.uint8]]:
        for top, left in itertools.product(offsets + first, repeat=2):
            changed = image.copy()
            on = np.s_[:, top : top + size, left : left + size]
            changed[on] = covered[on]
            yield changed

    answers = _ask(session, squares(), batch_size, progress).reshape(len(offsets), len(offsets), -1)
    return Occlusion(label, float(probs[label]), size, offsets, answers[..., label], answers.argmax(axis=2))


def occlusion_squares(session: Session, size: int | None, stride: int | None) -> int:
    """The number of squares that `occlusion` covers."""
    return len(_offsets(session, size, stride)[0]) ** 2


@dataclass(frozen=True)
class Translation:
    """How predictions change when the image's content shifts: the paper's claim on off-centre objects (figure 4).

    Attributes:
        shifts: int64 [P], pixels down (and to the right)
        scale: fraction that the content was shrunk to before shifting
        labels: int64 [N], the class in question for each image
        probabilities: float [N,P,P], its probability with the content shifted by shifts[i] down and shifts[j] right
        ranks: int64 [N,P,P], number of other classes at least as probable: it is among the top five if < 5
    """

    shifts: NDArray[np.int64]
    scale: float
    labels: NDArray[np.int64]
    probabilities: NDArray[np.floating[Any]]
    ranks: NDArray[np.int64]

    def within(self, top: int = 5) -> NDArray[np.float64]:
        """Share of the images whose class is among the `top` most probable, float64 [P,P]."""
        return np.asarray((self.ranks < top).mean(axis=0))


def translation(
    session: Session,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64] | None = None,
    *,
    reach: float = 0.5,
    steps: int = 9,
    scale: float = 1.0,
    batch_size: int = 100,
    progress: Progress = lambda done: None,
) -> Translation:
    """Shift the images' content, and compute the probability of their class each time.

    Args:
        images: uint8 [N,3,S,S]
        labels: int64 [N]; None: the most probable class of each original image (not shrunk)
        reach: the largest shift in each direction, as a fraction of the crop's side, 0 … 1
        steps: number of shifts along each axis, odd, so that one of them is zero
        scale: the content's new side as a fraction of the old, 0 … 1: if small enough, it stays entirely in view
        progress: called with the number of shifted images done: N · steps² in all

    Raises:
        ConfigurationError: If a number is invalid.
    """
    if not 0 < reach <= 1 or not 0 < scale <= 1 or steps < 3 or not steps % 2:
        raise ConfigurationError(
            f"a translation needs 0 < reach ≤ 1, 0 < scale ≤ 1 and an odd number of steps from 3, got "
            f"reach {reach}, scale {scale}, steps {steps}"
        )
    shifts = np.rint(np.linspace(-reach, reach, steps) * session.recipe.crop).astype(np.int64)
    if len(set(shifts.tolist())) < steps:
        raise ConfigurationError(
            f"{steps} steps within {shifts[-1]} pixels coincide; use fewer steps or a longer reach"
        )
    if labels is None:
        parts = [session.probabilities(images[n : n + batch_size])[0] for n in range(0, len(images), batch_size)]
        labels = np.concatenate(parts).argmax(axis=1)
    ground = blank(session)

    def moved() -> Iterator[NDArray[np.uint8]]:
        for image in images:
            content = shrunk(image, scale)
            for down, right in itertools.product(shifts.tolist(), repeat=2):
                yield paste(content, ground, down, right)

    answers = _ask(session, moved(), batch_size, progress).reshape(len(images), steps, steps, -1)
    own = np.take_along_axis(answers, labels[:, None, None, None], axis=3)
    return Translation(shifts, scale, labels, own[..., 0], (answers >= own).sum(axis=3) - 1)


def paste(content: NDArray[np.uint8], ground: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    """Place an image [3,h,w] on the middle of a background [3,S,S], shifted; what exceeds the edge is cut off."""
    image = ground.copy()
    (h, w), S = content.shape[1:], ground.shape[1]
    top, left = (S - h) // 2 + down, (S - w) // 2 + right
    first, last = np.maximum((top, left), 0), np.minimum((top + h, left + w), S)
    if (first < last).all():
        rows, columns = (slice(begin, end) for begin, end in zip(first, last, strict=True))
        inside = np.s_[:, first[0] - top : last[0] - top, first[1] - left : last[1] - left]
        image[:, rows, columns] = content[inside]
    return image


def blank(session: Session) -> NDArray[np.uint8]:
    """The background and cover: the training set's mean image, rounded, uint8 [3,S,S]."""
    return np.clip(np.rint(session.statistics.mean), 0, 255).astype(np.uint8)


def shrunk(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Shrink an image [3,h,h] to a fraction of its side; every pixel is the mean of those that it replaces."""
    if scale == 1:
        return image
    from PIL import Image

    side = max(1, round(image.shape[1] * scale))
    small = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize((side, side), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def _offsets(session: Session, size: int | None, stride: int | None) -> tuple[NDArray[np.int64], int]:
    crop = session.recipe.crop
    size = max(1, crop // 7) if size is None else size
    stride = max(1, size // 2) if stride is None else stride
    if not 1 <= size < crop or stride < 1:
        raise ConfigurationError(
            f"occlusion needs a size from 1 to {crop - 1} pixels and a stride from 1, got size {size}, stride {stride}"
        )
    return np.unique(np.append(np.arange(0, crop - size + 1, stride), crop - size)), size


def _ask(
    session: Session, images: Iterator[NDArray[np.uint8]], batch_size: int, progress: Progress
) -> NDArray[np.floating[Any]]:
    """Probabilities for images that are made one by one, with one batch in memory at a time."""
    parts, done = [], 0
    while batch := list(itertools.islice(images, batch_size)):
        parts.append(session.probabilities(np.stack(batch))[0])
        done += len(batch)
        progress(done)
    return np.concatenate(parts)

"""What a network's gradients show about images: which pixels an answer depends on, and what excites a unit most.

Both run training's backward pass one layer further, to the image; the weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.data.draws import centre_crop_offset
from minialex.engine.session import Session
from minialex.errors import ConfigurationError
from minialex.look.units import output_shape

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Saliency:
    """How a class's logit depends on each number of an image (Simonyan, Vedaldi and Zisserman 2013).

    Attributes:
        label: the class in question
        probability: its probability
        gradient: float [3,crop,crop], gradient of the class's logit with respect to the network's input
    """

    label: int
    probability: float
    gradient: Floats

    @property
    def map(self) -> Floats:
        """The largest magnitude over the colour channels at each pixel, [crop,crop]."""
        return np.asarray(np.abs(self.gradient).max(axis=0))

    def half(self) -> float:
        """The smallest share of pixels with half of the map's sum; 0.5 if all are equal, NaN if all are 0."""
        falling = np.sort(self.map.ravel().astype(np.float64))[::-1]
        if falling[0] == 0:
            return float("nan")
        return (int(np.searchsorted(falling.cumsum(), falling.sum() / 2)) + 1) / falling.size


def saliency(session: Session, image: NDArray[np.uint8], label: int | None = None) -> Saliency:
    """The gradient of a class's logit with respect to an image's centre crop: one forward and one backward pass.

    Args:
        image: uint8 [3,S,S]
        label: the class; None: the most probable one

    Raises:
        ConfigurationError: If there is no such class.
    """
    probs = session.probabilities(image[None])[0][0]
    chosen = int(probs.argmax()) if label is None else label
    if not 0 <= chosen < len(probs):
        raise ConfigurationError(f"there are classes 0 … {len(probs) - 1}, not {chosen}")
    last = session.network.layers[-1].name
    gradient = session.input_gradient(session.inputs(image[None]), last, lambda z: np.eye(z.shape[1])[[chosen]])
    return Saliency(chosen, float(probs[chosen]), gradient[0])


@dataclass(frozen=True)
class Maximised:
    """Images made to excite units: activation maximisation (Erhan and others 2009).

    Attributes:
        layer: the layer's name
        units: numbers of the units U in the whole layer
        images: uint8 [U,3,crop,crop]
        before, after: float [U], their activations for the mean image with a little noise, and for `images`
        place: the position (row and column) in the layer's maps at which channels were maximised; None for neurons
    """

    layer: str
    units: tuple[int, ...]
    images: NDArray[np.uint8]
    before: Floats
    after: Floats
    place: tuple[int, int] | None


STEP = 0.05
"""Root mean square of an image's change per step, as a fraction of the largest change that pixels allow."""
DECAY = 0.01
"""Decay towards the mean image per step."""
JITTER = 2
"""Pixels by which an image is shifted randomly, each way, so that no speck stays aligned with a stride."""


def maximise(
    session: Session,
    layer: str,
    units: Sequence[int],
    *,
    steps: int = 100,
    progress: Callable[[int], None] = lambda done: None,
) -> Maximised:
    """Gradient ascent on the activations of units, from the mean image: all units at once, with one image each.

    After every step the image is smoothed slightly, decays slightly towards the mean and is clipped to valid pixels;
    otherwise specks win that no photograph has.

    Args:
        units: numbers of channels, maximised in the middle of their map, or of neurons
        steps: number of steps
        progress: called with the number of steps done

    Raises:
        ConfigurationError: If there is no such layer or unit, or there are no steps.
    """
    shape = output_shape(session, layer)
    for unit in units:
        if not 0 <= unit < shape[0]:
            raise ConfigurationError(f"layer '{layer}' has units 0 … {shape[0] - 1}, not {unit}")
    if not len(units) or steps < 1:
        raise ConfigurationError("give at least one unit and one step")
    place = (shape[1] // 2, shape[2] // 2) if len(shape) == 3 else None
    chosen, rows = np.asarray(units, np.int64), np.arange(len(units))
    watched = (rows, chosen, *(place or ()))
    low, high = _range(session)
    stream = philox.Stream(0, philox.purpose("look/maximise"))
    x = 0.02 * (high - low).mean() * philox.normal(stream, len(units), low.size).reshape(len(units), *low.shape)
    values: list[Floats] = []

    def above(output: Floats) -> Floats:
        values.append(output[watched])
        gradient = np.zeros_like(output)
        gradient[watched] = 1
        return gradient

    for step in range(steps):
        moved = philox.below(philox.Stream(0, philox.purpose("look/jitter"), step), 1, (2 * JITTER + 1,) * 2)[0]
        by = tuple(int(n) - JITTER for n in moved)
        g = np.roll(session.input_gradient(np.roll(x, by, (2, 3)), layer, above), (-by[0], -by[1]), (2, 3))
        size = np.sqrt((g.astype(np.float64) ** 2).mean(axis=(1, 2, 3), keepdims=True))
        x = x + STEP * (high - low).mean() * g / np.where(size > 0, size, 1)
        x = np.clip(_smoothed(x) * (1 - DECAY), low, high)
        progress(step + 1)
    images = _pixels(session, x)
    session.input_gradient(session.inputs(_framed(session, images)), layer, above)
    return Maximised(layer, tuple(int(unit) for unit in chosen), images, values[0], values[-1], place)


def _smoothed(x: Floats) -> Floats:
    """Blend each pixel with a tenth of the mean of its four neighbours."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :, :-2, 1:-1] + padded[:, :, 2:, 1:-1] + padded[:, :, 1:-1, :-2] + padded[:, :, 1:-1, 2:]
    return np.asarray(0.9 * x + 0.1 * around / 4)


def _range(session: Session) -> tuple[Floats, Floats]:
    """A black and a white image as network input, [3,crop,crop] each."""
    S = session.recipe.image_size
    black, white = session.inputs(np.stack([np.zeros((3, S, S), np.uint8), np.full((3, S, S), 255, np.uint8)]))
    return black, white


def _pixels(session: Session, x: Floats) -> NDArray[np.uint8]:
    """Network input [N,3,crop,crop] as pixels."""
    black, white = _range(session)
    return np.clip(np.rint(255 * (x - black) / (white - black)), 0, 255).astype(np.uint8)


def _framed(session: Session, crops: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Place crops in the middle of whole images [N,3,S,S]."""
    S, crop = session.recipe.image_size, session.recipe.crop
    first = centre_crop_offset(S, crop)
    images = np.zeros((len(crops), 3, S, S), np.uint8)
    images[:, :, first : first + crop, first : first + crop] = crops
    return images

"""`shapes`: ten kinds of figures, drawn by formula, that only a network can tell apart.

An image shows one figure, off-centre, rotated, in any two colours and any texture, on a textured background, among
fragments of other figures, under uneven light and noise. All ten figures cover the same area, and colours do not
depend on the class, so neither the mean image nor colour statistics reveal it.

Every image is a pure function of (seed, part, index, size), through Philox, whatever else is drawn with it. Pixels
use only arithmetic that IEEE 754 rounds correctly, except for a few sines and cosines per image.

Coordinates: x to the right and y down, both from -1 to 1 across the image.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.data.dataset import ArraySplit, DataSet, Split
from minialex.errors import ConfigurationError

Float = NDArray[np.floating[Any]]  # always float32: Python's numbers do not widen it

# The difficulty. Figures at any angle would triple a small network's error after five epochs (36 % instead of 12 %).
SCALE = (0.5, 0.7)  # radius of the figure, in units of half the image's side
OFFSET = 0.22  # of its centre, each way, in the same unit
TURN = 0.1  # its angle, each way, in full turns
CONTRAST = 0.65  # smallest distance between the colours of figure and background, in the RGB cube of side 1
GROUND_SHADE, FIGURE_SHADE = 0.3, 0.3  # depth of the textures
FRAGMENTS_BEHIND, FRAGMENTS_IN_FRONT = 3, 1
FRAGMENT_SCALE = (0.1, 0.2)
LIGHT = 0.35  # largest fall-off of the light across half the image
GRAIN = (0.01, 0.06)  # amplitude of the noise
DRAWS = 128  # uniform numbers reserved for an image's parameters
THREADS = 2  # that draw: as many as read images ahead, unless a recipe asks for more
IN_MEMORY = 256 << 20  # bytes; a larger part is drawn as it is read
_CHUNK_PIXELS = 1 << 17  # pixels drawn at a time: some 20 float32 arrays of this size are alive


# ---- the figures: negative inside, positive outside, roughly the distance to the edge; area 2 each -------------


def _star(x: Float, y: Float) -> Float:
    # Fold the plane twice along the line 36 degrees off the top point: one straight edge remains of the five points.
    x, up = np.abs(x), -y
    for _ in range(2):
        beyond = np.maximum(x * 0.8090 - up * 0.5878, 0) * 2
        x, up = np.abs(x - beyond * 0.8090), up + beyond * 0.5878
    return x * 0.9120 + up * 0.4101 - 0.4921


def _cross(x: Float, y: Float) -> Float:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - 0.2929, np.maximum(x, y) - 1.0)


def _crescent(x: Float, y: Float) -> Float:
    x = x - 0.36  # puts its centre of mass at the origin
    bite = x - 0.728
    return np.maximum(np.sqrt(x * x + y * y) - 1.05, 0.85 - np.sqrt(bite * bite + y * y))


def _chevron(x: Float, y: Float) -> Float:
    x = np.abs(x)
    slope: Float = np.abs(y + x * 0.9 - 0.4) * 0.7433 - 0.3717
    ends: Float = x - 1.0
    return np.maximum(slope, ends)


FIGURES: dict[str, Callable[[Float, Float], Float]] = {
    "disc": lambda x, y: np.sqrt(x * x + y * y) - 0.798,
    "ring": lambda x, y: np.abs(np.sqrt(x * x + y * y) - 0.79) - 0.2015,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.7071,
    "frame": lambda x, y: np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.72) - 0.1736,
    "triangle": lambda x, y: np.maximum(np.abs(x) * 0.8660 - y * 0.5, y) - 0.6204,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "bar": lambda x, y: np.maximum(np.abs(x) - 1.12, np.abs(y) - 0.4464),
    "chevron": _chevron,
}
CLASS_NAMES = tuple(FIGURES)


# ---- drawing -----------------------------------------------------------------------------------------------


class _Draws:
    """Supplies the uniform numbers of some images in sequence, shaped to broadcast over pixels."""

    def __init__(self, seed: int, part: str, indices: NDArray[np.int64]) -> None:
        stream = philox.Stream(seed, philox.purpose(f"shapes/{part}"))
        self._uniform = philox.uniform(stream, indices, DRAWS)
        self._next = 0

    def numbers(self, count: int) -> NDArray[np.float64]:
        """The next `count` numbers of every image, float64 [n, count], in (0, 1)."""
        self._next += count
        if self._next > DRAWS:
            raise AssertionError("more numbers drawn for an image than were reserved")
        return self._uniform[:, self._next - count : self._next]

    def between(self, low: float, high: float) -> Float:
        """One number per image, float32 [n, 1, 1]."""
        return (low + (high - low) * self.numbers(1)).astype(np.float32)[:, :, None]

    def direction(self, turn: float = 0.5) -> tuple[Float, Float]:
        """Cosine and sine of an angle of at most `turn` turns each way, float32 [n, 1, 1] each."""
        angle = 2 * np.pi * turn * (2 * self.numbers(1)[:, :, None] - 1)
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def colour(self) -> Float:
        """A colour, float32 [n, 3, 1, 1], in (0, 1)."""
        return self.numbers(3).astype(np.float32)[:, :, None, None]

    def figure(self) -> NDArray[np.int64]:
        """One of the ten figures per image, int64 [n]."""
        return (self.numbers(1)[:, 0] * len(FIGURES)).astype(np.int64)


def _distance(figures: NDArray[np.int64], x: Float, y: Float) -> Float:
    """Signed distance of every pixel to the edge of its image's figure; x, y [n, S, S] in the figure's frame."""
    out = np.empty_like(x)
    for number, formula in enumerate(FIGURES.values()):
        rows = np.flatnonzero(figures == number)
        if len(rows):
            out[rows] = formula(x[rows], y[rows])
    return out


def _coverage(distance: Float, size: int) -> Float:
    """The fraction of each pixel inside, from the distance to the edge in image coordinates."""
    return np.clip(0.5 - distance * size / 2, 0, 1)


def _wave(phase: Float) -> Float:
    """A triangle wave of period 1 with flattened ends, in [0, 1]."""
    wave = np.abs(2 * (phase - np.floor(phase)) - 1)
    return np.clip(2 * wave - 0.5, 0, 1)


def _texture(draws: _Draws, x: Float, y: Float) -> Float:
    """Stripes, a checkerboard, dots or a ramp, [n, S, S] in [0, 1]."""
    cos, sin = draws.direction()
    along, across = x * cos + y * sin, y * cos - x * sin
    frequency, phase = draws.between(0.8, 3.0), draws.between(0.0, 1.0)
    first = _wave(along * frequency + phase)
    second = _wave(across * draws.between(0.8, 3.0) + draws.between(0.0, 1.0))
    both = first * second
    check = 1 - first - second + 2 * both
    ramp = np.clip(0.5 + 0.4 * along, 0, 1)
    kind = draws.between(0.0, 4.0)
    return np.where(kind < 1, first, np.where(kind < 2, check, np.where(kind < 3, both, ramp)))


def _apart(colour: Float, other: Float, least: float) -> Float:
    """`other`, moved away from `colour` until they are at least `least` apart; [n, 3, 1, 1] in [0, 1]."""
    step = other - colour
    length = np.sqrt(np.sum(step * step, axis=1, keepdims=True))
    step = step * np.maximum(1, least / np.maximum(length, 1e-3))
    outside = (colour + step < 0) | (colour + step > 1)
    moved: Float = np.where(outside, colour - step, colour + step)
    return np.clip(moved, 0, 1)


def _tint(draws: _Draws, colour: Float, pattern: Float, contrast: float) -> Float:
    """A colour and a shade of it, mixed by a pattern: [n, 3, S, S]."""
    shade = (draws.colour() - 0.5) * 2 * contrast
    return colour + shade * (pattern[:, None] - 0.5)


def _cover(image: Float, coverage: Float, colour: Float) -> None:
    """Paint over `image` [n, 3, S, S] in place, by `coverage` [n, S, S]."""
    image += coverage[:, None] * (colour - image)


def _fragment(draws: _Draws, image: Float, x: Float, y: Float) -> None:
    """Paint a piece of any figure, cut off by a straight line, so that corners and arcs alone reveal nothing."""
    cos, sin = draws.direction()
    size = draws.between(*FRAGMENT_SCALE)
    x, y = x - draws.between(-0.95, 0.95), y - draws.between(-0.95, 0.95)
    distance = _distance(draws.figure(), (x * cos + y * sin) / size, (y * cos - x * sin) / size) * size
    cos, sin = draws.direction()
    cut = x * cos + y * sin - size * draws.between(0.0, 0.4)
    _cover(image, _coverage(np.maximum(distance, cut), image.shape[-1]), draws.colour())


def _draw(seed: int, part: str, indices: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Draw some images at once, uint8 [n, 3, size, size]."""
    draws = _Draws(seed, part, indices)
    centres = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    whole = (len(indices), size, size)
    x, y = np.broadcast_to(centres, whole), np.broadcast_to(centres[:, None], whole)

    ground = draws.colour()
    image = _tint(draws, ground, _texture(draws, x, y), GROUND_SHADE)
    for _ in range(FRAGMENTS_BEHIND):
        _fragment(draws, image, x, y)

    cos, sin = draws.direction(TURN)
    scale = draws.between(*SCALE)
    u, v = x - draws.between(-OFFSET, OFFSET), y - draws.between(-OFFSET, OFFSET)
    u, v = (u * cos + v * sin) / scale, (v * cos - u * sin) / scale
    figure = _apart(ground, draws.colour(), CONTRAST)
    coverage = _coverage(_distance(labels(indices), u, v) * scale, size)
    _cover(image, coverage, _tint(draws, figure, _texture(draws, u, v), FIGURE_SHADE))
    for _ in range(FRAGMENTS_IN_FRONT):
        _fragment(draws, image, x, y)

    cos, sin = draws.direction()
    image *= (draws.between(0.75, 1.15) * (1 + draws.between(0.0, LIGHT) * (x * cos + y * sin)))[:, None]

    noise = philox.words(philox.Stream(seed, philox.purpose(f"shapes/{part}/noise")), indices, size * size)
    grain = draws.between(*GRAIN)
    for channel in range(3):  # one byte of the word for each channel
        byte = ((noise >> np.uint32(8 * channel)) & np.uint32(255)).astype(np.float32).reshape(whole)
        image[:, channel] += grain * (byte * 1 / 127.5 - 1)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def labels(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Classes of the images at some indices: they alternate, so that all classes have equally many."""
    return np.asarray(indices, np.int64) % len(FIGURES)


def draw(seed: int, part: str, indices: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """The images of a part (``"train"``, ``"validation"``) at some indices, uint8 [n, 3, size, size]."""
    rows = max(1, _CHUNK_PIXELS // size**2)
    out = np.empty((len(indices), 3, size, size), np.uint8)

    def fill(start: int) -> None:
        out[start : start + rows] = _draw(seed, part, indices[start : start + rows], size)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(0, len(indices), rows)):
            pass
    return out


class DrawnSplit:
    """A part that is drawn anew whenever it is read, for images that would not fit in memory."""

    def __init__(self, seed: int, part: str, count: int, size: int) -> None:
        self.seed, self.part, self.size = seed, part, size
        self.labels = labels(np.arange(count))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Draw the images at some indices, uint8 [n, 3, size, size]."""
        return draw(self.seed, self.part, np.arange(len(self))[indices], self.size)


def split(seed: int, part: str, count: int, size: int) -> Split:
    """A part whose images are drawn now if they take at most `IN_MEMORY` bytes, else as they are read."""
    if count * 3 * size**2 > IN_MEMORY:
        return DrawnSplit(seed, part, count, size)
    indices = np.arange(count)
    return ArraySplit(draw(seed, part, indices, size), labels(indices))


def load(
    *, size: int | None = None, seed: int = 0, train_images: int | None = None, validation_images: int | None = None
) -> DataSet:
    """The data set `shapes`: by default 8,000 and 2,000 images of 32 x 32.

    Raises:
        ConfigurationError: a size below 8 or above 1024 pixels, or no images
    """
    size = 32 if size is None else size
    counts = {
        "train": 8000 if train_images is None else train_images,
        "validation": 2000 if validation_images is None else validation_images,
    }
    if not 8 <= size <= 1024:
        raise ConfigurationError(f"shapes: size = {size} cannot be drawn; use 8 to 1024 pixels.")
    for part, count in counts.items():
        if count < 1:
            raise ConfigurationError(f"shapes: {part}_images = {count}; use at least 1.")
    train, validation = (split(seed, part, count, size) for part, count in counts.items())
    return DataSet("shapes", train, validation, CLASS_NAMES)

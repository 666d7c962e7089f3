"""Random numbers as a function of a counter: Philox4x32-10 in NumPy.

Every random number in minialex is a pure function of (seed, purpose, step, sample, element). Nothing is drawn
"in order", so a resumed run continues exactly, every backend draws the same masks bit for bit, and neither the
placement of columns nor the splitting of a batch changes a draw.

The words of one Philox call are laid out so::

    key     = (seed mod 2^32, seed div 2^32)
    counter = (element div 4, sample, step, purpose)

and the four 32-bit words of the result belong to the elements ``4 * (element div 4) + (0, 1, 2, 3)``. The purpose
is the CRC-32 of a name such as ``"dropout/dropout6"`` (see `purpose`), so a layer's draws depend on its own name and
on nothing else in the network.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Random123).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

UInt32 = NDArray[np.uint32]

MULTIPLIER_0 = 0xD2511F53
MULTIPLIER_1 = 0xCD9E8D57
WEYL_0 = 0x9E3779B9
WEYL_1 = 0xBB67AE85
ROUNDS = 10

_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_BLOCK = 1 << 15  # counters at a time: the working set stays in the processor's cache


def philox4x32(counter: UInt32, key: tuple[int, int]) -> UInt32:
    """Ten rounds of Philox4x32.

    Args:
        counter: uint32 [..., 4]
        key: two integers in [0, 2^32)

    Returns:
        uint32 [..., 4], a bijection of the counter for each key.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(ROUNDS):
        product_0 = c0 * np.uint64(MULTIPLIER_0)
        product_1 = c2 * np.uint64(MULTIPLIER_1)
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            (product_0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = (k0 + WEYL_0) & 0xFFFFFFFF, (k1 + WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def purpose(name: str) -> int:
    """The counter word of a purpose: the CRC-32 of its name, e.g. ``"init/conv1.weight"``."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class Stream:
    """A position in the space of random numbers: seed, purpose and step, and where a part of a batch begins.

    Attributes:
        seed: integer in [0, 2^64)
        purpose: the CRC-32 of a name, see `purpose`
        step: the training step or epoch, in [0, 2^32). In a recorded program it may stand for "the run's current
            step"; an operation that receives a stream always gets an integer.
        first_sample: index of the piece's first sample in the whole batch
        first_element: index of the piece's first element in the whole sample (a column's first feature)
    """

    seed: int
    purpose: int
    step: int = 0
    first_sample: int = 0
    first_element: int = 0

    def at(self, step: int) -> Stream:
        """The same stream at another step."""
        return replace(self, step=step)

    @property
    def key(self) -> tuple[int, int]:
        """The two key words."""
        return self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF


def words(stream: Stream, samples: int | NDArray[np.int64], elements: int) -> UInt32:
    """Random 32-bit words for some samples and elements.

    Args:
        stream: the seed, purpose and step of the numbers, and where they begin
        samples: the number of samples from `stream.first_sample` on, or their indices (int64 [S], added to it)
        elements: the number E of elements of each sample, from `stream.first_element` on

    Returns:
        uint32 [S, E]
    """
    indices = np.arange(samples) if isinstance(samples, int) else np.asarray(samples)
    first_block = stream.first_element // 4
    lead = stream.first_element - 4 * first_block
    blocks = -(-(lead + elements) // 4)
    out = np.empty((len(indices), blocks, 4), np.uint32)
    rows = max(1, _BLOCK // max(blocks, 1))
    for row in range(0, len(indices), rows):
        for block in range(0, blocks, _BLOCK):
            piece = out[row : row + rows, block : block + _BLOCK]
            counter = np.empty(piece.shape, np.uint32)
            counter[..., 0] = (first_block + block + np.arange(piece.shape[1])).astype(np.uint32)
            counter[..., 1] = (stream.first_sample + indices[row : row + rows, None]).astype(np.uint32)
            counter[..., 2] = np.uint32(stream.step)
            counter[..., 3] = np.uint32(stream.purpose)
            piece[...] = philox4x32(counter, stream.key)
    return out.reshape(len(indices), 4 * blocks)[:, lead : lead + elements]


def together(streams: Sequence[Stream], samples: Sequence[NDArray[np.int64]]) -> UInt32:
    """The first four words of samples from several streams with one seed, in one call: faster for few samples.

    Args:
        streams: streams that begin at their first sample and element
        samples: indices for each stream, int64 [S], the same number for all

    Returns:
        uint32 [streams, S, 4]: ``words(stream, samples, 4)`` of each
    """
    counter = np.zeros((len(streams), len(samples[0]), 4), np.uint32)
    for row, stream, indices in zip(counter, streams, samples, strict=True):
        row[:, 1:] = np.uint32(0), np.uint32(stream.step), np.uint32(stream.purpose)
        row[:, 1] = indices
    return philox4x32(counter, streams[0].key)


def uniform(stream: Stream, samples: int | NDArray[np.int64], elements: int) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64 [S, E]: (word + 1/2) / 2^32."""
    return to_uniform(words(stream, samples, elements))


def to_uniform(words: UInt32) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1) from words: (word + 1/2) / 2^32."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normal(stream: Stream, samples: int | NDArray[np.int64], elements: int) -> NDArray[np.float64]:
    """Standard normal numbers, float64 [S, E], by Box and Muller: elements 2i and 2i+1 share two words.

    `stream.first_element` must be even, so that a pair is never split.
    """
    if stream.first_element % 2:
        raise ValueError(f"first_element must be even, got {stream.first_element}")
    pairs = (elements + 1) // 2
    return to_normal(words(stream, samples, 2 * pairs))[:, :elements]


def to_normal(words: UInt32) -> NDArray[np.float64]:
    """Standard normal numbers from words, uint32 [S, 2P] to float64 [S, 2P]."""
    u = to_uniform(words)
    u = u.reshape(len(u), words.shape[1] // 2, 2)
    radius = np.sqrt(-2 * np.log(u[..., 0]))
    angle = 2 * np.pi * u[..., 1]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return both.reshape(words.shape)


def below(stream: Stream, samples: int | NDArray[np.int64], bounds: tuple[int, ...]) -> NDArray[np.int64]:
    """Integers, int64 [S, len(bounds)]; column i is in [0, bounds[i]): the word times the bound, divided by 2^32."""
    return to_below(words(stream, samples, len(bounds)), bounds)


def to_below(words: UInt32, bounds: tuple[int, ...]) -> NDArray[np.int64]:
    """Integers in [0, bound) from words, uint32 [S, len(bounds)]."""
    return (words.astype(np.int64) * np.asarray(bounds, np.int64)) >> 32


def permutation(stream: Stream, n: int) -> NDArray[np.int64]:
    """A random order of 0 … n-1: the stable order of n random 64-bit keys (element 2i and 2i+1 of sample 0)."""
    return np.argsort(np.ascontiguousarray(words(stream, 1, 2 * n)).view(np.uint64)[0], kind="stable")

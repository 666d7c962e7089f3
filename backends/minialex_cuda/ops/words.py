"""Channels-last maps in words of four channels: how compiled steps store them.

A map [N,C,H,W] is stored as [N,H,W,C], and a thread takes four channels of a place at once. There are two forms of
storage: float32; and bfloat16, the upper half of float32, four to a 64-bit word. Arithmetic is float32 in both.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import config
from numba.extending import overload as overload_on_host

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import BEFORE_DEVICE, Grid, function
from minialex_cuda.runtime.place import Place

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
UPPER = np.uint32(0xFFFF0000)
QUIET = np.uint32(0x7FC0)
_16 = np.uint32(16)


@function
def _load_bfloat16(x, j):
    """Load four numbers from word j."""
    word = x[j]
    low = np.uint32(word & LOW)
    high = np.uint32(word >> HALF)
    return (
        np.uint32(low << _16).view(np.float32),
        np.uint32(low & UPPER).view(np.float32),
        np.uint32(high << _16).view(np.float32),
        np.uint32(high & UPPER).view(np.float32),
    )


@function
def finite_to_bfloat16(value):
    """The upper half of a finite float32, rounded to nearest, ties to even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint32(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + ((bits >> _16) & np.uint32(1)))) >> _16)


@function
def to_bfloat16(value):
    """The upper half of a float32, rounded to nearest, ties to even; NaN stays NaN."""
    up = finite_to_bfloat16(value)
    return up if value == value else QUIET


def _pair(a, b):
    """Two numbers as bfloat16 in 32 bits; devices have an instruction for it."""
    return np.uint32(to_bfloat16(a) | np.uint32(to_bfloat16(b) << _16))


@function
def _store_bfloat16(y, j, a, b, c, d):
    """Store four numbers to word j."""
    y[j] = np.uint64(_pair(a, b)) | (np.uint64(_pair(c, d)) << HALF)


@function
def _load_float32(x, j):
    k = np.uint64(j) * np.uint64(4)
    return x[k], x[k + np.uint64(1)], x[k + np.uint64(2)], x[k + np.uint64(3)]


@function
def _store_float32(y, j, a, b, c, d):
    k = np.uint64(j) * np.uint64(4)
    y[k] = a
    y[k + np.uint64(1)] = b
    y[k + np.uint64(2)] = c
    y[k + np.uint64(3)] = d


@function
def _one_bfloat16(x, i):
    return np.uint32(np.uint32(x[i]) << _16).view(np.float32)


@function
def _put_bfloat16(y, i, value):
    y[i] = to_bfloat16(value)


@function
def _one_float32(x, i):
    return x[i]


@function
def _put_float32(y, i, value):
    y[i] = value


@dataclass(frozen=True)
class Storage:
    """How numbers are stored.

    Attributes:
        name: name of the format
        dtype: dtype of arrays; bfloat16 is stored as its bits
        load: ``load(x, j)``: the four float32 numbers of word j
        store: ``store(y, j, a, b, c, d)``: stores them, rounded to the format
        one, put: the same for a single number of an array not viewed as words
    """

    name: str
    dtype: np.dtype[Any]
    load: Callable[..., Any]
    store: Callable[..., Any]
    one: Callable[..., Any]
    put: Callable[..., Any]

    def words(self, on: Place, x: CudaArray) -> CudaArray:
        """An array as the kernels take it."""
        return on.view(x, np.uint64, (x.size // 4,)) if self.dtype == np.uint16 else x


BFLOAT16 = Storage("bfloat16", np.dtype(np.uint16), _load_bfloat16, _store_bfloat16, _one_bfloat16, _put_bfloat16)
FLOAT32 = Storage("float32", np.dtype(np.float32), _load_float32, _store_float32, _one_float32, _put_float32)
STORAGES = (FLOAT32, BFLOAT16)
PAIRS = ((FLOAT32, FLOAT32), (FLOAT32, BFLOAT16), (BFLOAT16, BFLOAT16))
"""The supported pairs of source and target storage."""


def storage_of(x: CudaArray) -> Storage:
    """The storage of a channels-last array."""
    return BFLOAT16 if x.dtype == np.uint16 else FLOAT32


def storage_for(precision: str) -> Storage:
    """The storage that compiled steps of a precision use for maps."""
    return BFLOAT16 if precision == "bfloat16" else FLOAT32


# ---- the grid -------------------------------------------------------------------------------------------------

BLOCK = 256
"""Threads per block in a row."""

MOST = 416
"""The most threads in a block of places, unless one place has more: 13 places of 128 channels, a row of pool2."""

MOST_CHANNELS = 4 * 1024
"""The most channels: all channels of a place are in one block, and no block has more threads."""

MOST_BLOCKS = 65535
"""The most blocks along a grid's second and third axis: rows, and images."""


def over_places(N: int, H: int, W: int, C: int, shared: int = 0) -> Grid:
    """Blocks (places of a row, row, image) of threads (word of channels, place); `shared` float32 values per thread."""
    words = C // 4
    many = _places_of_a_block(words, W)
    return Grid((-(-W // many), H, N), (words, many, 1), shared * words * many)


@lru_cache
def _places_of_a_block(words: int, W: int) -> int:
    """The number that minimises warps per row: a block's last warp, and a row's last block, may be partly idle."""

    def warps(many: int) -> int:
        return -(-W // many) * -(-words * many // 32)

    return min(range(max(1, min(W, MOST // words)), 0, -1), key=warps)


def in_rows(size: int, *rows: int, most: int = BLOCK) -> Grid:
    """Blocks of at most `most` threads in a row for `size` items, and (rows, images) of them."""
    threads = max(1, min(most, size))
    y, z = (*rows, 1, 1)[:2]
    return Grid((-(-size // threads), y, z), (threads, 1, 1))


@function
def word_at(h, w, c, W, words):
    """The index, within an image [H,W,4·words], of channel word c at (h, w); every step stays within 32 bits."""
    return np.uint64(np.uint32(np.int32(np.int32(np.int32(h * W) + w) * words) + c))


@function
def image_at(n, H, W, words):
    """The index of the first word of image n."""
    return np.uint64(n) * np.uint64(np.uint32(np.int32(H * W) * words))


# ---- arithmetic, of words as tuples of four numbers ------------------------------------------------------------


ZEROS = (np.float32(0),) * 4


def each(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of two words from a function of two numbers."""
    rule = function(rule)
    return function(lambda x, y: (rule(x[0], y[0]), rule(x[1], y[1]), rule(x[2], y[2]), rule(x[3], y[3])))


plus = each(lambda x, y: x + y)
masked = each(lambda d, y: d if y > np.float32(0) else np.float32(0))
"""The gradient d through a ReLU with output y."""
larger = each(lambda x, least: least if x <= least else x)
"""max(x, least); NaN stays NaN."""


@function
def power(scale, beta):
    """scale^(−β) to float32 accuracy; β = 3/4, the paper's, by two square roots."""
    if beta == np.float32(0.75):
        root = np.float32(1) / np.float32(math.sqrt(scale))
        return root * np.float32(math.sqrt(root))
    return scale**-beta


def _approximate_power(a, b):
    """a^(−b), on a device with its approximate logarithm and exponential (see `CudaBackend.unit_roundoff`)."""
    return a**-b


def _maximum(a, b):
    """The larger; NaN wins."""
    return b if b > a or b != b else a


def _overloaded() -> None:
    """Register device versions of one or three instructions; Numba selects them when it compiles."""
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba import types
    from numba.cuda.extending import intrinsic, overload

    def instruction(text: str, result: Any, many: int) -> Any:
        """A function of `many` float32 numbers that is a single PTX instruction."""
        kinds = (ir.FloatType() if result is types.float32 else ir.IntType(32)), [ir.FloatType()] * many
        places = ("=f" if result is types.float32 else "=r") + many * ",f"

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.call(ir.InlineAsm(ir.FunctionType(*kinds), text, places), arguments)

        def one(context, x):
            return result(types.float32), code

        def two(context, x, y):
            return result(types.float32, types.float32), code

        return intrinsic(one if many == 1 else two)

    pair = instruction("cvt.rn.bf16x2.f32 $0, $2, $1;", types.uint32, 2)
    larger_of = instruction("max.NaN.f32 $0, $1, $2;", types.float32, 2)
    logarithm = instruction("lg2.approx.ftz.f32 $0, $1;", types.float32, 1)
    exponential = instruction("ex2.approx.ftz.f32 $0, $1;", types.float32, 1)
    # Numba compiles the inner functions; an intrinsic itself is not one
    overload(_pair, target="cuda")(lambda a, b: lambda a, b: pair(a, b))  # noqa: PLW0108
    overload(_maximum, target="cuda")(lambda a, b: lambda a, b: larger_of(a, b))  # noqa: PLW0108
    overload(_approximate_power, target="cuda")(lambda a, b: lambda a, b: exponential(-b * logarithm(a)))


if not config.ENABLE_CUDASIM:
    overload_on_host(_pair)(lambda a, b: _pair)
    overload_on_host(_maximum)(lambda a, b: _maximum)
    overload_on_host(_approximate_power)(lambda a, b: _approximate_power)
    BEFORE_DEVICE.append(_overloaded)


@function
def maximum(best, value):
    """The larger; NaN wins."""
    return _maximum(best, value)


@function
def approximate_power(scale, beta):
    """scale^(−β) with errors of some 2⁻²², for results that are rounded to eight bits."""
    return _approximate_power(scale, beta)

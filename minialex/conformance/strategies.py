"""Hypothesis strategies for the calls of every operation, named by axes as in the protocol.

Shapes, strides and so on are drawn and shrunk by Hypothesis. Values are drawn as a kind and a seed, so that an
example stays small and fast, however large its arrays are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minialex.backend.operations import FUNCTIONS, OPERATIONS, Example
from minialex.backend.rules import pool_size
from minialex.conformance.case import LAYOUTS, Array, Case, compute
from minialex.errors import ConfigurationError, nearest
from minialex.philox import Stream, words

Draw = Callable[[st.SearchStrategy[Any]], Any]
Cases = st.SearchStrategy[Case]


@dataclass(frozen=True)
class Floats:
    """What floating values a strategy may draw: the dtype, and the kinds of values (see `make`)."""

    dtype: str
    kinds: tuple[str, ...]


MOODS = {
    "ordinary": (("integers", "normal", "sparse"), 0.6),
    "extreme": (("zeros", "tiny", "subnormal", "huge", "mixed", "normal"), 0.3),
    "special": (("special", "normal"), 0.2),
}
"""Groups of kinds, and each one's share of the examples, since Hypothesis alone would favour some."""


def values(
    draw: Draw, shape: tuple[int, ...], floats: Floats, *, degree: int = 1, special: bool = False
) -> tuple[Array, str]:
    """An array, and a description of it in words.

    Args:
        degree: how many such values are multiplied together: huge ones stay small enough for a finite product
        special: whether infinities and NaN may be among them
    """
    kinds = floats.kinds if special else tuple(kind for kind in floats.kinds if kind != "special")
    kind = draw(st.sampled_from(kinds))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    return make(random, kind, shape, floats.dtype, degree), kind


def make(random: np.random.Generator, kind: str, shape: tuple[int, ...], dtype: str, degree: int) -> Array:
    """An array of a kind of values.

    Small integers (exact ties), standard normal numbers, normal numbers of which most are zero, zeros of both signs,
    tiny, subnormal and huge magnitudes, all magnitudes mixed, or infinities and NaN among normal numbers.
    """
    limits = np.finfo(dtype)
    normal = random.standard_normal(shape)
    exponent = np.log2(float(limits.max)) / degree
    if kind == "integers":
        drawn = random.integers(-3, 4, shape).astype(np.float64)
    elif kind == "normal":
        drawn = normal
    elif kind == "zeros":
        drawn = np.copysign(0.0, normal)
    elif kind == "sparse":
        drawn = np.where(random.random(shape) < 0.7, 0.0, normal)
    elif kind == "tiny":
        drawn = normal * 2.0 ** (-0.9 * np.log2(float(limits.max)) / max(degree, 1))
    elif kind == "subnormal":
        drawn = np.round(normal * 50) * float(limits.smallest_subnormal)
    elif kind == "huge":
        drawn = normal * 2.0 ** (0.92 * exponent - 5)
    elif kind == "mixed":
        drawn = normal * 2.0 ** random.uniform(-0.9 * exponent, 0.9 * exponent - 5, shape)
    else:
        drawn = normal.copy()
        drawn[random.random(shape) < 0.4] = np.inf
        drawn[random.random(shape) < 0.3] = -np.inf
        drawn[random.random(shape) < 0.3] = np.nan
    return np.asarray(drawn).astype(dtype).reshape(shape)


def batch() -> st.SearchStrategy[int]:
    """N: 1 first, then few, then none."""
    return st.sampled_from((1, 2, 3, 5, 1, 2, 3, 4, 0))


def axis(most: int = 5, *, wide: tuple[int, ...] = (8, 17, 33)) -> st.SearchStrategy[int]:
    """A number of channels, features or places: mostly small, sometimes beyond a fast kernel's block."""
    return (
        st.integers(0, most + 1)
        .map(lambda n: n + 1)
        .flatmap(lambda n: st.just(n) if n <= most else st.sampled_from((most, *wide)))
    )


def shape_any() -> st.SearchStrategy[tuple[int, ...]]:
    """The shape of an elementwise operation's array: [N], [N,D], [N,C,H], [N,C,H,W], at times one long axis."""
    few = st.integers(1, 5)
    return st.one_of(
        st.tuples(batch()),
        st.tuples(batch(), st.one_of(few, st.sampled_from((257, 1025)))),
        st.tuples(batch(), few, few),
        st.tuples(batch(), few, few, few),
    )


def number(draw: Draw, strategy: st.SearchStrategy[float]) -> float:
    """A coefficient: a Python float, at times one of NumPy's, which must not turn float32 results into float64."""
    drawn = draw(strategy)
    return np.float64(drawn) if draw(st.integers(0, 7)) == 7 else float(drawn)


def _case(draw: Draw, operation: str, arrays: dict[str, Any], numbers: dict[str, Any], *about: str) -> Case:
    layout = draw(st.sampled_from(LAYOUTS))
    return Case(operation, arrays, numbers, layout, ", ".join(dict.fromkeys(about)))


# ---- movers ---------------------------------------------------------------------------------------------------


@st.composite
def reshape(draw: Draw, floats: Floats) -> Case:
    """x [N,…] -> the same numbers in one of a few other shapes."""
    shape = draw(shape_any())
    x, about = values(draw, shape, floats, special=True)
    size = int(np.prod(shape))
    rest = size // shape[0] if shape[0] else 0
    targets = [(size,), (size, 1), (1, size), shape[::-1], (shape[0], rest) if shape[0] else (0, 3)]
    return _case(draw, "reshape", {"x": x}, {"shape": draw(st.sampled_from(targets))}, about)


@st.composite
def concat(draw: Draw, floats: Floats) -> Case:
    """xs: some [N, C_i, …] alike but for C_i; columns are equally wide, so half of the time these are."""
    widths = st.one_of(
        st.lists(st.integers(1, 5), min_size=1, max_size=4),
        st.builds(lambda C, count: [C] * count, st.integers(1, 5), st.integers(2, 4)),
    )
    N, *rest = draw(st.one_of(st.tuples(batch()), st.tuples(batch(), st.integers(1, 4), st.integers(1, 4))))
    parts = [values(draw, (N, C, *rest), floats, special=True) for C in draw(widths)]
    return _case(draw, "concat", {"xs": [x for x, _ in parts]}, {}, *(about for _, about in parts))


@st.composite
def split(draw: Draw, floats: Floats) -> Case:
    """x [N, sum of sizes, …]."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    N, *rest = draw(st.one_of(st.tuples(batch()), st.tuples(batch(), st.integers(1, 4), st.integers(1, 4))))
    x, about = values(draw, (N, sum(sizes), *rest), floats, special=True)
    return _case(draw, "split", {"x": x}, {"sizes": sizes}, about)


@st.composite
def add(draw: Draw, floats: Floats) -> Case:
    """x and y of one shape."""
    shape = draw(shape_any())
    (x, first), (y, second) = values(draw, shape, floats), values(draw, shape, floats)
    return _case(draw, "add", {"x": x, "y": y}, {}, first, second)


@st.composite
def scale(draw: Draw, floats: Floats) -> Case:
    """x of any shape, and a factor."""
    x, about = values(draw, draw(shape_any()), floats, degree=2)
    factor = number(draw, st.sampled_from((0.5, 1.0, 2.0, -0.3, 0.1, 1 / 3, 1e-3, 0.0)))
    return _case(draw, "scale", {"x": x}, {"factor": factor}, about)


# ---- convolution and fully connected --------------------------------------------------------------------------


def _convolution(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], tuple[int, int]]:
    """Shapes of x and w, stride and padding, and the size (P, Q) of y."""
    N, C, K = draw(batch()), draw(axis(4)), draw(axis(4))
    small = C * K <= 64
    if draw(st.integers(0, 2)) == 2:  # the paper's own layers, on smaller maps: backends have special cases for them
        size, stride, sides = draw(st.sampled_from(((3, 1, (1, 1)), (5, 1, (2, 2)), (11, 4, (0, 3)))))
        H, W = (draw(st.integers(4, 14)) + (size - 3) // 2 for _ in range(2))
        P, Q = ((n + sum(sides) - size) // stride + 1 for n in (H, W))
        return (N, C, H, W), (K, C, size, size), {"stride": stride, "padding": (sides, sides)}, (P, Q)
    stride = draw(st.integers(1, 4))
    padding = draw(st.tuples(st.tuples(*[st.integers(0, 3)] * 2), st.tuples(*[st.integers(0, 3)] * 2)))
    kernel, inside, out = [], [], []
    for before, after in padding:
        size = draw(st.integers(1, 5 if small else 3))
        fewest = max(1, size - before - after)
        length = fewest + draw(st.integers(0, 8 if small else 4))
        kernel.append(size)
        inside.append(length)
        out.append((length + before + after - size) // stride + 1)
    return (N, C, *inside), (K, C, *kernel), {"stride": stride, "padding": padding}, (out[0], out[1])


@st.composite
def conv2d(draw: Draw, floats: Floats) -> Case:
    """x [N,C,H,W], w [K,C,R,S], b [K]; H and W, R and S differ; padding on one side; stride above the kernel's size."""
    of_x, of_w, numbers, _ = _convolution(draw)
    (x, first), (w, second), (b, third) = (
        values(draw, shape, floats, degree=degree) for shape, degree in ((of_x, 2), (of_w, 2), (of_w[:1], 1))
    )
    return _case(draw, "conv2d", {"x": x, "w": w, "b": b}, numbers, first, second, third)


@st.composite
def conv2d_backward(draw: Draw, floats: Floats) -> Case:
    """dy [N,K,P,Q], x and w as in `conv2d`."""
    of_x, of_w, numbers, out = _convolution(draw)
    shapes = ((of_x[0], of_w[0], *out), of_x, of_w)
    (dy, first), (x, second), (w, third) = (values(draw, shape, floats, degree=2) for shape in shapes)
    numbers["need_dx"] = draw(st.sampled_from((True, True, True, False)))
    return _case(draw, "conv2d_backward", {"dy": dy, "x": x, "w": w}, numbers, first, second, third)


@st.composite
def linear(draw: Draw, floats: Floats) -> Case:
    """x [N,D], w [K,D], b [K]."""
    N, D, K = draw(batch()), draw(axis(6, wide=(64, 129))), draw(axis(6, wide=(64, 129)))
    (x, first), (w, second), (b, third) = (
        values(draw, shape, floats, degree=degree) for shape, degree in (((N, D), 2), ((K, D), 2), ((K,), 1))
    )
    return _case(draw, "linear", {"x": x, "w": w, "b": b}, {}, first, second, third)


@st.composite
def linear_backward(draw: Draw, floats: Floats) -> Case:
    """dy [N,K], x [N,D], w [K,D]."""
    N, D, K = draw(batch()), draw(axis(6, wide=(64, 129))), draw(axis(6, wide=(64, 129)))
    (dy, first), (x, second), (w, third) = (values(draw, shape, floats, degree=2) for shape in ((N, K), (N, D), (K, D)))
    numbers = {"need_dx": draw(st.sampled_from((True, True, True, False)))}
    return _case(draw, "linear_backward", {"dy": dy, "x": x, "w": w}, numbers, first, second, third)


# ---- element by element ---------------------------------------------------------------------------------------


@st.composite
def relu(draw: Draw, floats: Floats) -> Case:
    """x of any shape, including non-finite values."""
    x, about = values(draw, draw(shape_any()), floats, special=True)
    return _case(draw, "relu", {"x": x}, {}, about)


@st.composite
def relu_backward(draw: Draw, floats: Floats) -> Case:
    """dy and y, as a forward pass gives it: y ≥ 0, often 0."""
    shape = draw(shape_any())
    (dy, first), (y, second) = values(draw, shape, floats, special=True), values(draw, shape, floats)
    return _case(draw, "relu_backward", {"dy": dy, "y": np.maximum(y, 0)}, {}, first, second)


@st.composite
def tanh(draw: Draw, floats: Floats) -> Case:
    """x of any shape, including non-finite values."""
    x, about = values(draw, draw(shape_any()), floats, special=True)
    return _case(draw, "tanh", {"x": x}, {}, about)


@st.composite
def tanh_backward(draw: Draw, floats: Floats) -> Case:
    """dy and y in [−1, 1]."""
    shape = draw(shape_any())
    (dy, first), (x, second) = values(draw, shape, floats), values(draw, shape, floats)
    return _case(draw, "tanh_backward", {"dy": dy, "y": np.tanh(x)}, {}, first, second)


# ---- pooling --------------------------------------------------------------------------------------------------


def _pooling(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and y, and the numbers: windows that overlap, leave gaps, or extend past the edge."""
    N, C = draw(batch()), draw(axis(3))
    size, stride = draw(st.one_of(st.just((3, 2)), st.tuples(st.integers(1, 4), st.integers(1, 5))))
    ceil = draw(st.booleans())
    fewest = max(1, size - stride + 1) if ceil else size
    H, W = (fewest + draw(st.integers(0, 7)) for _ in range(2))
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    return (N, C, H, W), (N, C, P, Q), {"size": size, "stride": stride, "ceil": ceil}


@st.composite
def max_pool2d(draw: Draw, floats: Floats) -> Case:
    """x [N,C,H,W], including non-finite values."""
    of_x, _, numbers = _pooling(draw)
    x, about = values(draw, of_x, floats, special=True)
    return _case(draw, "max_pool2d", {"x": x}, numbers, about)


@st.composite
def max_pool2d_backward(draw: Draw, floats: Floats) -> Case:
    """dy [N,C,P,Q], x [N,C,H,W] with many ties (also of infinities), y = max_pool2d(x)."""
    of_x, of_y, numbers = _pooling(draw)
    dy, first = values(draw, of_y, floats)
    x, second = values(draw, of_x, floats)
    if draw(st.integers(0, 5)) == 5:
        x, second = np.where(x > 0, np.inf, -np.inf).astype(floats.dtype), "infinities"
    (y,) = compute(Case("max_pool2d", {"x": x}, numbers))
    numbers = {**numbers, "ties": draw(st.sampled_from(("first", "all")))}
    return _case(draw, "max_pool2d_backward", {"dy": dy, "x": x, "y": y}, numbers, first, second)


# ---- normalisation --------------------------------------------------------------------------------------------


def _norm(draw: Draw, spatial: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of x, and numbers: odd and even windows, some larger than the map; α mostly large enough to matter."""
    C = draw(axis(3) if spatial else axis(7))
    H, W = draw(axis(5, wide=(9,))), draw(axis(5, wide=(12,)))
    numbers: dict[str, Any] = {
        "size": draw(st.integers(1, 5 if spatial else 7)),
        "k": number(draw, st.sampled_from((1.0, 2.0, 0.1, 0.7))),
        "alpha": number(draw, st.one_of(st.floats(0.1, 1.0), st.sampled_from((1e-4, 2e-5)))),
        "beta": number(draw, st.sampled_from((0.75, 0.5, 1.0, 0.6))),
    }
    return (draw(batch()), C, H, W), numbers


def _response_norm(spatial: bool) -> Callable[[Floats], Cases]:
    operation = "spatial_response_norm" if spatial else "local_response_norm"

    @st.composite
    def strategy(draw: Draw, floats: Floats) -> Case:
        shape, numbers = _norm(draw, spatial)
        x, about = values(draw, shape, floats, degree=3)
        return _case(draw, operation, {"x": x}, numbers, about)

    return strategy


def _response_norm_backward(spatial: bool) -> Callable[[Floats], Cases]:
    operation = "spatial_response_norm" if spatial else "local_response_norm"

    @st.composite
    def strategy(draw: Draw, floats: Floats) -> Case:
        shape, numbers = _norm(draw, spatial)
        (dy, first), (x, second) = (values(draw, shape, floats, degree=3) for _ in range(2))
        y, scale_ = (np.asarray(a).astype(floats.dtype) for a in compute(Case(operation, {"x": x}, numbers).wide))
        given = {name: value for name, value in numbers.items() if name != "k"}
        return _case(draw, f"{operation}_backward", {"dy": dy, "x": x, "y": y, "scale": scale_}, given, first, second)

    return strategy


# ---- dropout, cost, update, augmentation ----------------------------------------------------------------------


@st.composite
def streams(draw: Draw) -> Stream:
    """Any place in the space of random numbers, first elements that begin within a block of four too."""
    return Stream(
        seed=draw(st.one_of(st.integers(0, 9), st.integers(2**32, 2**64 - 1))),
        purpose=draw(st.integers(0, 2**32 - 1)),
        step=draw(st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))),
        first_sample=draw(st.one_of(st.integers(0, 9), st.integers(0, 2**31))),
        first_element=draw(st.one_of(st.integers(0, 9), st.integers(0, 2**31))),
    )


@st.composite
def dropout(draw: Draw, floats: Floats) -> Case:
    """x [N,…] and a stream; often a rate that one of the words drawn meets exactly, where ≥ and > differ."""
    shape = draw(shape_any())
    x, about = values(draw, shape, floats, degree=2, special=True)
    stream = draw(streams())
    E = int(np.prod(shape[1:]))
    rates = [st.sampled_from((0.5, 0.0, 0.25, 1 / 3, 0.9)), st.floats(0, 1, exclude_max=True)]
    if shape[0] and E:
        drawn = words(stream, shape[0], E)
        rates.insert(0, st.integers(0, drawn.size - 1).map(lambda i: int(drawn.flat[i]) / 2**32))
    factor = number(draw, st.sampled_from((1.0, 2.0, 1.5, 10 / 3)))
    return _case(draw, "dropout", {"x": x}, {"rate": draw(st.one_of(rates)), "factor": factor, "stream": stream}, about)


@st.composite
def dropout_backward(draw: Draw, floats: Floats) -> Case:
    """dy, including non-finite values, and a mask."""
    shape = draw(shape_any())
    dy, about = values(draw, shape, floats, degree=2, special=True)
    mask = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 2, shape).astype(np.uint8)
    factor = number(draw, st.sampled_from((1.0, 2.0, 1.5, 10 / 3)))
    return _case(draw, "dropout_backward", {"dy": dy, "mask": mask}, {"factor": factor}, about)


def _labels(draw: Draw, N: int, K: int) -> Array:
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, K, N)


@st.composite
def softmax_cross_entropy(draw: Draw, floats: Floats) -> Case:
    """logits [N,K] with N ≥ 1, also so far apart that a probability underflows; labels, at times one out of range."""
    N, K = draw(st.sampled_from((1, 2, 3, 5))), draw(axis(10, wide=(65, 1000)))
    logits, about = values(draw, (N, K), floats)
    spread = draw(st.sampled_from((1.0, 30.0, 300.0)))
    if about in ("normal", "integers"):
        logits = (logits * spread).astype(floats.dtype)
    labels = _labels(draw, N, K)
    if draw(st.integers(0, 9)) == 9:
        labels[draw(st.integers(0, N - 1))] = draw(st.sampled_from((-1, K, 2**40)))
        about += ", a label out of range"
    return _case(draw, "softmax_cross_entropy", {"logits": logits, "labels": labels}, {}, about)


@st.composite
def softmax_cross_entropy_backward(draw: Draw, floats: Floats) -> Case:
    """probs [N,K] that add up to 1, and labels."""
    N, K = draw(st.sampled_from((1, 2, 3, 5))), draw(axis(10, wide=(65, 1000)))
    logits, about = values(draw, (N, K), floats, degree=8)
    probs = compute(Case("softmax_cross_entropy", {"logits": logits, "labels": np.zeros(N, np.int64)}).wide)[1]
    arrays = {"probs": np.asarray(probs).astype(floats.dtype), "labels": _labels(draw, N, K)}
    return _case(draw, "softmax_cross_entropy_backward", arrays, {}, about)


@st.composite
def scale_by_trust_ratio(draw: Draw, floats: Floats) -> Case:
    """w and dw of one shape; either may be zero altogether."""
    shape = draw(shape_any())
    (w, first), (dw, second) = (values(draw, shape, floats, degree=3) for _ in range(2))
    numbers = {
        "trust_coefficient": number(draw, st.sampled_from((0.001, 0.02, 1.0))),
        "weight_decay": number(draw, st.sampled_from((0.0005, 0.0, 0.1))),
    }
    return _case(draw, "scale_by_trust_ratio", {"w": w, "dw": dw}, numbers, first, second)


@st.composite
def sgd_update(draw: Draw, floats: Floats) -> Case:
    """w, v, dw of one shape; sometimes non-finite values, or gradients whose step overflows."""
    shape = draw(shape_any())
    (w, first), (v, second), (dw, third) = (values(draw, shape, floats, degree=2) for _ in range(3))
    numbers = {
        "learning_rate": number(draw, st.sampled_from((0.01, 0.1, 1.0, 4.0))),
        "momentum": number(draw, st.sampled_from((0.9, 0.0, 0.5))),
        "weight_decay": number(draw, st.sampled_from((0.0005, 0.0, 0.1))),
    }
    poison = draw(st.sampled_from(("none", "none", "overflow", "w", "v", "dw")))
    if poison != "none":
        random = np.random.default_rng(draw(st.integers(0, 99)))
        where = random.random(shape) < 0.3
        if poison == "overflow":
            numbers["learning_rate"] = 4.0
            dw = np.where(where, np.copysign(0.9 * float(np.finfo(floats.dtype).max), dw), dw).astype(floats.dtype)
        else:
            bad = random.choice([np.inf, -np.inf, np.nan], shape)
            w, v, dw = (
                np.where(where, bad, a).astype(floats.dtype) if name == poison else a
                for name, a in (("w", w), ("v", v), ("dw", dw))
            )
    return _case(draw, "sgd_update", {"w": w, "v": v, "dw": dw}, numbers, first, second, third, f"poisoned: {poison}")


@st.composite
def augment(draw: Draw, floats: Floats) -> Case:
    """images uint8 [N,C,H,W], crops anywhere inside, reflected or not; the mean of the image's or the crop's size."""
    N, C = draw(batch()), draw(st.integers(1, 4))
    H, W = draw(axis(8, wide=(17,))), draw(axis(8, wide=(18,)))
    crop = draw(st.integers(1, min(H, W)))
    follows = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 999)))
    # the colour shift and the mean are never huge compared with pixels: 0 … 255
    mean = random.uniform(0, 255, (C, H, W) if follows else (C, crop, crop)).astype(floats.dtype)
    shift = (25 * random.standard_normal((N, C))).astype(floats.dtype)
    arrays = {
        "images": random.integers(0, 256, (N, C, H, W)).astype(np.uint8),
        "mean": mean,
        "shift": shift,
        "top": random.integers(0, H - crop + 1, N).astype(np.int32),
        "left": random.integers(0, W - crop + 1, N).astype(np.int32),
        "flip": random.integers(0, 2, N).astype(np.uint8),
    }
    factor = number(draw, st.sampled_from((1.0, 1 / 128, 1 / 255, 2.0)))
    return _case(draw, "augment", arrays, {"crop": crop, "factor": factor, "mean_follows": follows})


STRATEGIES: dict[str, Callable[[Floats], Cases]] = {
    **{
        function.__name__: function
        for function in (
            reshape, concat, split, add, scale, conv2d, conv2d_backward, linear, linear_backward, relu, relu_backward,
            tanh, tanh_backward, max_pool2d, max_pool2d_backward, dropout, dropout_backward, softmax_cross_entropy,
            softmax_cross_entropy_backward, scale_by_trust_ratio, sgd_update, augment,
        )
    },
    "local_response_norm": _response_norm(spatial=False),
    "local_response_norm_backward": _response_norm_backward(spatial=False),
    "spatial_response_norm": _response_norm(spatial=True),
    "spatial_response_norm_backward": _response_norm_backward(spatial=True),
}  # fmt: skip
"""The strategy of each operation by name; called with the values that it may draw."""


def registered(name: str, examples: Sequence[Example] = ()) -> Callable[[Floats], Cases]:
    """The strategy of a registered operation, forward or backward: one of its examples, with ordinary numbers.

    Raises:
        ConfigurationError: If there is no such operation, or it has no examples.
    """
    operation = OPERATIONS.get(name) or OPERATIONS.get(name.removesuffix("_backward"))
    if operation is None:
        raise ConfigurationError(f"no operation '{name}'.{nearest(name, [*STRATEGIES, *FUNCTIONS])}")
    examples = examples or operation.examples
    if not examples:
        raise ConfigurationError(f"nothing to try '{name}' with: register it with examples of shapes and numbers")

    @st.composite
    def strategy(draw: Draw, floats: Floats) -> Case:
        shapes, numbers = draw(st.sampled_from(examples))
        drawn = [values(draw, shape, floats) for shape in shapes]
        arrays = dict(zip(operation.arrays, (array for array, _ in drawn), strict=True))
        about = [kind for _, kind in drawn]
        if name != operation.name:
            y, *saved = compute(Case(operation.name, arrays, dict(numbers)))
            assert y is not None
            dy, kind = values(draw, y.shape, floats)
            arrays = {
                "dy": dy,
                **arrays,
                **{f"saved{number}": array for number, array in enumerate(saved) if array is not None},
            }
            about.append(kind)
        return _case(draw, name, arrays, dict(numbers), *about)

    return strategy


WRONG_NUMBERS: dict[str, tuple[Any, ...]] = {
    "stride": (0, -1),
    "padding": (((-1, 0), (0, 0)), ((0, 0), (0, -2))),
    "size": (0, 99),
    "ties": ("last",),
    "rate": (1.0, -0.1),
    "crop": (0, 99),
    "sizes": ([1, 1, 1, 1, 1, 99], [-1, 2]),
    "shape": ((7, 77), (-1,)),
}


def wrong_calls(case: Case, refuses: Callable[[Case], bool]) -> list[tuple[str, Case]]:
    """Variants of a call that the rules (`refuses`) do not allow, each with what is wrong with it."""
    found = []
    for name, value in case.arrays.items():
        first = value[0] if isinstance(value, list) else value
        rest = value[1:] if isinstance(value, list) else None
        longer = [np.concatenate([first, first[:1]])] if first.ndim and first.shape[0] else []
        other = np.float32 if first.dtype == np.float64 else np.float64
        for what, array in (
            *((f"{name} one longer", array) for array in longer),
            (f"{name} with one axis more", first[None]),
            (f"{name} of another dtype", np.zeros(first.shape, other)),
            (f"{name} of dtype int16", np.zeros(first.shape, np.int16)),
        ):
            found.append((what, case.with_arrays(**{name: [array, *rest] if rest is not None else array})))
    for name, candidates in WRONG_NUMBERS.items():
        if name in case.numbers:
            found += [
                (f"{name}={candidate}", Case(case.operation, case.arrays, {**case.numbers, name: candidate}))
                for candidate in candidates
            ]
    return [(what, wrong) for what, wrong in found if refuses(wrong)]


def refused(case: Case, rule: Callable[..., Any]) -> bool:
    """Whether the rule of an operation (`minialex.backend.rules`) refuses a call."""
    try:
        rule(*case.arrays.values(), **case.numbers)
    except ConfigurationError:
        return True
    return False

"""What each operation accepts and returns: shapes and dtypes, checked before any number is touched.

One function per operation, with the operation's own name and parameters (`minialex.backend.protocol.Backend`). It takes
anything that has ``shape`` and ``dtype``, raises `ConfigurationError` if the arguments do not fit, and returns
the `Spec` of each result. Backends call them through `check`; layers use the size rules; `minialex.backend.program`
records with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex.backend.arrays import Padding
from minialex.errors import ConfigurationError
from minialex.philox import Stream

FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Spec:
    """The shape and dtype of an array, which need not exist."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def conv_size(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> int:
    """Rows (or columns) of a convolution's output: ⌊(size + padding − kernel)/stride⌋ + 1."""
    if stride < 1:
        raise ConfigurationError(f"stride must be at least 1, got {stride}")
    if min(padding) < 0:
        raise ConfigurationError(f"padding must not be negative, got {padding}")
    out = (size + sum(padding) - kernel) // stride + 1
    if out < 1:
        raise ConfigurationError(f"a kernel of size {kernel} does not fit into {size} + padding {padding}")
    return out


def pool_size(size: int, window: int, stride: int, ceil: bool) -> int:
    """Rows (or columns) of a pooling's output; with `ceil` the last window begins inside but may pass the edge."""
    if window < 1 or stride < 1:
        raise ConfigurationError(f"pooling size and stride must be at least 1, got {window} and {stride}")
    steps = -(-(size - window) // stride) if ceil else (size - window) // stride
    if ceil and steps * stride >= size:
        steps -= 1
    if steps < 0 or size < 1:
        raise ConfigurationError(f"a pooling window of {window} does not fit into {size}")
    return steps + 1


def _fail(operation: str, what: str, **arrays: Any) -> ConfigurationError:
    shapes = ", ".join(f"{name} {tuple(a.shape)} {a.dtype}" for name, a in arrays.items())
    return ConfigurationError(f"{operation}: {what}; got {shapes}")


def _floats(operation: str, **arrays: Any) -> np.dtype[Any]:
    dtypes = {np.dtype(a.dtype) for a in arrays.values()}
    if len(dtypes) != 1 or next(iter(dtypes)).name not in FLOATS:
        raise _fail(operation, "expected float32 or float64, the same for all", **arrays)
    return next(iter(dtypes))


def _rank(operation: str, rank: int, letters: str, name: str, array: Any) -> None:
    if len(array.shape) != rank:
        raise _fail(operation, f"expected {name} [{letters}]", **{name: array})


def _alike(operation: str, **arrays: Any) -> Spec:
    dtype = _floats(operation, **arrays)
    if len({tuple(a.shape) for a in arrays.values()}) != 1:
        raise _fail(operation, "expected arrays of one shape", **arrays)
    return Spec(tuple(next(iter(arrays.values())).shape), dtype)


def reshape(x: Any, shape: tuple[int, ...]) -> Spec:
    """See `Backend.reshape`."""
    if math.prod(shape) != math.prod(x.shape) or min(shape, default=0) < 0:
        raise _fail("reshape", f"{tuple(shape)} has another size", x=x)
    return Spec(tuple(shape), np.dtype(x.dtype))


def concat(xs: Sequence[Any]) -> Spec:
    """See `Backend.concat`."""
    if not xs or any(len(x.shape) < 2 for x in xs) or len({(x.shape[0], *x.shape[2:], x.dtype) for x in xs}) != 1:
        raise _fail(
            "concat", "expected arrays of equal shape except along axis 1", **{f"xs[{i}]": x for i, x in enumerate(xs)}
        )
    return Spec((xs[0].shape[0], sum(x.shape[1] for x in xs), *xs[0].shape[2:]), np.dtype(xs[0].dtype))


def split(x: Any, sizes: Sequence[int]) -> list[Spec]:
    """See `Backend.split`."""
    if len(x.shape) < 2 or min(sizes, default=-1) < 0 or sum(sizes) != x.shape[1]:
        raise _fail("split", f"sizes {tuple(sizes)} must add up to axis 1", x=x)
    return [Spec((x.shape[0], size, *x.shape[2:]), np.dtype(x.dtype)) for size in sizes]


def add(x: Any, y: Any) -> Spec:
    """See `Backend.add`."""
    return _alike("add", x=x, y=y)


def scale(x: Any, factor: float) -> Spec:
    """See `Backend.scale`."""
    return _alike("scale", x=x)


def sum_over_ranks(xs: Sequence[Any], group: Any, how: str = "fixed") -> list[Spec]:
    """See `minialex.backend.operations.sum_over_ranks`."""
    if not xs:
        raise ConfigurationError("sum_over_ranks: expected at least one array")
    dtype = _floats("sum_over_ranks", **{f"xs[{i}]": x for i, x in enumerate(xs)})
    return [Spec(tuple(x.shape), dtype) for x in xs]


def gather_over_ranks(xs: Sequence[Any], *, axis: int, group: Any) -> Spec:
    """See `minialex.ranks.dividing.gather`."""
    own = _joined("gather_over_ranks", xs, axis)
    return _times(own, axis, group.size)


def scatter_over_ranks(xs: Sequence[Any], *, parts: int, axis: int, group: Any) -> list[Spec]:
    """See `minialex.ranks.dividing.scatter`."""
    for x in xs:
        _alike("scatter_over_ranks", x=xs[0], y=x)
    own = _joined("scatter_over_ranks", xs[:1], axis)
    if own.shape[axis] % (group.size * parts):
        raise _fail("scatter_over_ranks", f"axis {axis} cannot be cut in {group.size} × {parts} parts", x=xs[0])
    return [_share(own, axis, group.size * parts)] * parts


def swap_over_ranks(xs: Sequence[Any], *, parts: int, axis: int, width: int, group: Any) -> list[Spec]:
    """See `minialex.ranks.dividing.swap`."""
    own = _joined("swap_over_ranks", xs, axis)
    N, D = own.shape
    fits = N % (group.size * parts) == 0 and width <= D * group.size if axis else width >= D
    if not fits or (axis == 0 and width % (group.size * parts)):
        raise _fail("swap_over_ranks", f"{width} units cannot be had in {group.size} × {parts} parts", x=xs[0])
    whole = Spec((N, width), own.dtype) if axis else Spec((N * group.size, width), own.dtype)
    return [_share(whole, 1 - axis, group.size * parts)] * parts


def _joined(name: str, xs: Sequence[Any], axis: int) -> Spec:
    """The arrays [N, D] of a rank, concatenated."""
    if not xs or axis not in (0, 1):
        raise ConfigurationError(f"{name}: expected at least one array, and axis 0 or 1")
    dtype = _floats(name, **{f"xs[{i}]": x for i, x in enumerate(xs)})
    for x in xs:
        _rank(name, 2, "N,D", "xs", x)
        if x.shape[1 - axis] != xs[0].shape[1 - axis]:
            raise _fail(name, f"arrays differ along axis {1 - axis}", x=x)
    N, D = xs[0].shape
    count = sum(x.shape[axis] for x in xs)
    return Spec((N, count) if axis else (count, D), dtype)


def _times(x: Spec, axis: int, factor: int) -> Spec:
    N, D = x.shape
    return Spec((N, D * factor) if axis else (N * factor, D), x.dtype)


def _share(x: Spec, axis: int, parts: int) -> Spec:
    N, D = x.shape
    return Spec((N, D // parts) if axis else (N // parts, D), x.dtype)


def conv2d(x: Any, w: Any, b: Any, *, stride: int, padding: Padding) -> Spec:
    """See `Backend.conv2d`."""
    dtype = _floats("conv2d", x=x, w=w, b=b)
    _rank("conv2d", 4, "N,C,H,W", "x", x)
    _rank("conv2d", 4, "K,C,R,S", "w", w)
    if x.shape[1] != w.shape[1] or tuple(b.shape) != (w.shape[0],):
        raise _fail("conv2d", "channels of x and w, or kernels of w and b, differ", x=x, w=w, b=b)
    rows = conv_size(x.shape[2], w.shape[2], stride, padding[0])
    columns = conv_size(x.shape[3], w.shape[3], stride, padding[1])
    return Spec((x.shape[0], w.shape[0], rows, columns), dtype)


def conv2d_backward(
    dy: Any, x: Any, w: Any, *, stride: int, padding: Padding, need_dx: bool
) -> tuple[Spec | None, Spec, Spec]:
    """See `Backend.conv2d_backward`."""
    bias = Spec((w.shape[0],), np.dtype(w.dtype))
    out = conv2d(x, w, bias, stride=stride, padding=padding)
    if tuple(dy.shape) != out.shape or np.dtype(dy.dtype) != out.dtype:
        raise _fail("conv2d_backward", f"expected dy {out.shape} {out.dtype}", dy=dy, x=x, w=w)
    return Spec(tuple(x.shape), out.dtype) if need_dx else None, Spec(tuple(w.shape), out.dtype), bias


def linear(x: Any, w: Any, b: Any) -> Spec:
    """See `Backend.linear`."""
    dtype = _floats("linear", x=x, w=w, b=b)
    _rank("linear", 2, "N,D", "x", x)
    _rank("linear", 2, "K,D", "w", w)
    if x.shape[1] != w.shape[1] or tuple(b.shape) != (w.shape[0],):
        raise _fail("linear", "features of x and w, or of w and b, differ", x=x, w=w, b=b)
    return Spec((x.shape[0], w.shape[0]), dtype)


def linear_backward(dy: Any, x: Any, w: Any, *, need_dx: bool) -> tuple[Spec | None, Spec, Spec]:
    """See `Backend.linear_backward`."""
    bias = Spec((w.shape[0],), np.dtype(w.dtype))
    out = linear(x, w, bias)
    if tuple(dy.shape) != out.shape or np.dtype(dy.dtype) != out.dtype:
        raise _fail("linear_backward", f"expected dy {out.shape} {out.dtype}", dy=dy, x=x, w=w)
    return Spec(tuple(x.shape), out.dtype) if need_dx else None, Spec(tuple(w.shape), out.dtype), bias


def relu(x: Any) -> Spec:
    """See `Backend.relu`."""
    return _alike("relu", x=x)


def relu_backward(dy: Any, y: Any) -> Spec:
    """See `Backend.relu_backward`."""
    return _alike("relu_backward", dy=dy, y=y)


def tanh(x: Any) -> Spec:
    """See `Backend.tanh`."""
    return _alike("tanh", x=x)


def tanh_backward(dy: Any, y: Any) -> Spec:
    """See `Backend.tanh_backward`."""
    return _alike("tanh_backward", dy=dy, y=y)


def max_pool2d(x: Any, *, size: int, stride: int, ceil: bool) -> Spec:
    """See `Backend.max_pool2d`."""
    dtype = _floats("max_pool2d", x=x)
    _rank("max_pool2d", 4, "N,C,H,W", "x", x)
    n, c, h, w = x.shape
    return Spec((n, c, pool_size(h, size, stride, ceil), pool_size(w, size, stride, ceil)), dtype)


def max_pool2d_backward(dy: Any, x: Any, y: Any, *, size: int, stride: int, ceil: bool, ties: str) -> Spec:
    """See `Backend.max_pool2d_backward`."""
    if ties not in ("first", "all"):
        raise ConfigurationError(f"max_pool2d_backward: ties must be 'first' or 'all', got {ties!r}")
    _floats("max_pool2d_backward", dy=dy, x=x, y=y)
    out = max_pool2d(x, size=size, stride=stride, ceil=ceil)
    if tuple(dy.shape) != out.shape or tuple(y.shape) != out.shape:
        raise _fail("max_pool2d_backward", f"expected dy and y {out.shape}", dy=dy, x=x, y=y)
    return Spec(tuple(x.shape), out.dtype)


def _norm(operation: str, x: Any, size: int) -> Spec:
    _rank(operation, 4, "N,C,H,W", "x", x)
    if size < 1:
        raise ConfigurationError(f"{operation}: size must be at least 1, got {size}")
    return _alike(operation, x=x)


def local_response_norm(x: Any, *, size: int, k: float, alpha: float, beta: float) -> tuple[Spec, Spec]:
    """See `Backend.local_response_norm`."""
    return (_norm("local_response_norm", x, size),) * 2


def local_response_norm_backward(
    dy: Any,
    x: Any,
    y: Any,
    scale: Any,
    *,
    size: int,
    alpha: float,
    beta: float,
) -> Spec:
    """See `Backend.local_response_norm_backward`."""
    _norm("local_response_norm_backward", x, size)
    return _alike("local_response_norm_backward", dy=dy, x=x, y=y, scale=scale)


def spatial_response_norm(x: Any, *, size: int, k: float, alpha: float, beta: float) -> tuple[Spec, Spec]:
    """See `Backend.spatial_response_norm`."""
    return (_norm("spatial_response_norm", x, size),) * 2


def spatial_response_norm_backward(
    dy: Any,
    x: Any,
    y: Any,
    scale: Any,
    *,
    size: int,
    alpha: float,
    beta: float,
) -> Spec:
    """See `Backend.spatial_response_norm_backward`."""
    _norm("spatial_response_norm_backward", x, size)
    return _alike("spatial_response_norm_backward", dy=dy, x=x, y=y, scale=scale)


def dropout(x: Any, *, rate: float, factor: float, stream: Stream) -> tuple[Spec, Spec]:
    """See `Backend.dropout`."""
    if not 0 <= rate < 1:
        raise ConfigurationError(f"dropout: rate must be in [0, 1), got {rate}")
    if len(x.shape) < 1:
        raise _fail("dropout", "expected x [N,…]", x=x)
    spec = _alike("dropout", x=x)
    return spec, Spec(spec.shape, np.dtype(np.uint8))


def dropout_backward(dy: Any, mask: Any, *, factor: float) -> Spec:
    """See `Backend.dropout_backward`."""
    if tuple(dy.shape) != tuple(mask.shape) or np.dtype(mask.dtype) != np.uint8:
        raise _fail("dropout_backward", "expected a uint8 mask of dy's shape", dy=dy, mask=mask)
    return _alike("dropout_backward", dy=dy)


def softmax_cross_entropy(logits: Any, labels: Any) -> tuple[Spec, Spec]:
    """See `Backend.softmax_cross_entropy`."""
    dtype = _floats("softmax_cross_entropy", logits=logits)
    _rank("softmax_cross_entropy", 2, "N,K", "logits", logits)
    if tuple(labels.shape) != (logits.shape[0],) or np.dtype(labels.dtype) != np.int64:
        raise _fail("softmax_cross_entropy", "expected labels int64 [N]", logits=logits, labels=labels)
    if 0 in logits.shape:
        raise _fail("softmax_cross_entropy", "expected at least one image and one class", logits=logits)
    return Spec((), dtype), Spec(tuple(logits.shape), dtype)


def softmax_cross_entropy_backward(probs: Any, labels: Any) -> Spec:
    """See `Backend.softmax_cross_entropy_backward`."""
    return softmax_cross_entropy(probs, labels)[1]


def scale_by_trust_ratio(w: Any, dw: Any, *, trust_coefficient: float, weight_decay: float) -> Spec:
    """See `Backend.scale_by_trust_ratio`."""
    return _alike("scale_by_trust_ratio", w=w, dw=dw)


def sgd_update(
    w: Any,
    v: Any,
    dw: Any,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> Spec:
    """See `Backend.sgd_update`."""
    _alike("sgd_update", w=w, v=v, dw=dw)
    return Spec((), np.dtype(np.int64))


def augment(
    images: Any, mean: Any, shift: Any, top: Any, left: Any, flip: Any,
    *, crop: int, factor: float, mean_follows: bool,
) -> Spec:  # fmt: skip
    """See `Backend.augment`."""
    _rank("augment", 4, "N,C,H,W", "images", images)
    dtype = _floats("augment", mean=mean, shift=shift)
    n, c, h, w = images.shape
    if not 1 <= crop <= min(h, w):
        raise _fail("augment", f"a crop of {crop} does not fit", images=images)
    if tuple(mean.shape) != ((c, h, w) if mean_follows else (c, crop, crop)):
        raise _fail("augment", "mean has the wrong shape", images=images, mean=mean)
    for name, array, shape, kind in (
        ("images", images, (n, c, h, w), np.uint8),
        ("shift", shift, (n, c), dtype),
        ("top", top, (n,), np.int32),
        ("left", left, (n,), np.int32),
        ("flip", flip, (n,), np.uint8),
    ):
        if tuple(array.shape) != shape or np.dtype(array.dtype) != kind:
            raise _fail("augment", f"expected {name} {shape} {np.dtype(kind)}", **{name: array})
    return Spec((n, c, crop, crop), dtype)


RULES: dict[str, Callable[..., Any]] = {
    rule.__name__: rule
    for rule in (
        reshape, concat, split, add, scale, sum_over_ranks, gather_over_ranks, scatter_over_ranks, swap_over_ranks,
        conv2d, conv2d_backward, linear, linear_backward,
        relu, relu_backward, tanh, tanh_backward, max_pool2d, max_pool2d_backward, local_response_norm,
        local_response_norm_backward, spatial_response_norm, spatial_response_norm_backward, dropout,
        dropout_backward, softmax_cross_entropy, softmax_cross_entropy_backward, scale_by_trust_ratio,
        sgd_update, augment,
    )
}  # fmt: skip
"""The rule of each operation by name; `RULES[name](*arguments)` checks and returns the results' specs."""

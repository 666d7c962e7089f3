"""Backends that are wrong on purpose: each is the NumPy backend with one fault, and the kit must catch it.

Every fault is a plausible slip; its name is the test's. The kit's own check of that operation is run, with the
examples of its ordinary profile.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings

from minialex import conformance
from minialex.backend import pretend
from minialex.backend.pretend import HostArray, operation
from minialex.backend.program import LABELS, PROBS
from minialex.backend.recorder import interpret
from minialex.backend.rules import pool_size
from minialex.conformance.checks import CHECKS, PROFILES
from minialex.conformance.compare import Disagreement
from minialex.philox import words
from minialex_numpy import NumpyBackend
from minialex_numpy import augment as augmentation
from minialex_numpy import conv2d as convolution
from minialex_numpy import dropout as dropping
from minialex_numpy import linear as full
from minialex_numpy import local_response_norm as channels
from minialex_numpy import max_pool2d as pooling
from minialex_numpy import sgd_update as descent
from minialex_numpy import softmax_cross_entropy as cost
from minialex_numpy import spatial_response_norm as places

AS_ALWAYS = settings(PROFILES["ci"], phases=(Phase.explicit, Phase.generate))  # the same examples, not made smaller


@dataclass(frozen=True)
class Fault:
    """One fault: which check must catch it, what is wrong, and the backend's members that are replaced."""

    check: str
    what: str
    members: Mapping[str, Any]


FAULTS: list[Fault] = []


def backend_with(members: Mapping[str, Any]) -> Any:
    """The NumPy backend with some members replaced: functions on arrays become operations."""
    body = {name: value for name, value in vars(NumpyBackend).items() if name not in ("__dict__", "__weakref__")}
    return type("Faulty", (), {**body, **members})()


def fault(name: str, what: str, check: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A faulty operation, as a plain function on NumPy arrays."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(check or name, what, {name: operation(function)}))
        return function

    return add


def mover(name: str, what: str, check: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A faulty mover, which takes the backend's own arrays."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(check or name, what, {name: staticmethod(function)}))
        return function

    return add


# ---- conv2d ---------------------------------------------------------------------------------------------------


@fault("conv2d", "kernel transposed")
def _(x, w, b, *, stride, padding):
    square = w.shape[2] == w.shape[3]
    return convolution.conv2d(x, w.swapaxes(2, 3) if square else w, b, stride=stride, padding=padding)


@fault("conv2d", "kernel mirrored, a convolution in the sense of mathematics")
def _(x, w, b, *, stride, padding):
    return convolution.conv2d(x, w[..., ::-1, ::-1], b, stride=stride, padding=padding)


@fault("conv2d", "padding above and below swapped")
def _(x, w, b, *, stride, padding):
    return convolution.conv2d(x, w, b, stride=stride, padding=(padding[0][::-1], padding[1]))


@fault("conv2d", "padding left and right swapped")
def _(x, w, b, *, stride, padding):
    return convolution.conv2d(x, w, b, stride=stride, padding=(padding[0], padding[1][::-1]))


@fault("conv2d", "bias missing")
def _(x, w, b, *, stride, padding):
    return convolution.conv2d(x, w, 0 * b, stride=stride, padding=padding)


@fault("conv2d", "bias by place, not by kernel")
def _(x, w, b, *, stride, padding):
    y = convolution.conv2d(x, w, 0 * b, stride=stride, padding=padding)
    return y + np.resize(b, y.shape[3])


@fault("conv2d", "strides counted from the far edge")
def _(x, w, b, *, stride, padding):
    mirrored = convolution.conv2d(
        x[..., ::-1, :], w[..., ::-1, :], b, stride=stride, padding=(padding[0][::-1], padding[1])
    )
    return mirrored[..., ::-1, :]


@fault("conv2d", "input channels in reverse")
def _(x, w, b, *, stride, padding):
    return convolution.conv2d(x[:, ::-1], w, b, stride=stride, padding=padding)


@fault("conv2d", "float64 results for float32 arrays")
def _(x, w, b, *, stride, padding):
    return convolution.conv2d(x, w, b.astype(np.float64), stride=stride, padding=padding)


def _coarse(x, bits):
    """x rounded to so many bits of significand."""
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(fraction * 2.0**bits) / 2.0**bits, exponent).astype(x.dtype)


def _coarse_conv2d(x, w, b, *, stride, padding):
    return convolution.conv2d(_coarse(x, 11), _coarse(w, 11), b, stride=stride, padding=padding)


fault("conv2d", "operands rounded to eleven bits, undeclared")(_coarse_conv2d)


@fault("conv2d", "input written: its border is set to zero")
def _(x, w, b, *, stride, padding):
    x[..., 0, 0] = 0
    return convolution.conv2d(x, w, b, stride=stride, padding=padding)


@fault("conv2d", "the last kernel of more than eight is forgotten, a partial block")
def _(x, w, b, *, stride, padding):
    y = convolution.conv2d(x, w, b, stride=stride, padding=padding)
    y[:, len(w) // 8 * 8 if len(w) > 8 else len(w) :] = 0
    return y


@fault("conv2d_backward", "kernel's gradient transposed")
def _(dy, x, w, *, stride, padding, need_dx):
    dx, dw, db = convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=need_dx)
    return dx, dw.swapaxes(2, 3) if w.shape[2] == w.shape[3] else dw, db


@fault("conv2d_backward", "bias gradient missing")
def _(dy, x, w, *, stride, padding, need_dx):
    dx, dw, db = convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=need_dx)
    return dx, dw, np.zeros_like(db)


@fault("conv2d_backward", "gradients averaged over the batch")
def _(dy, x, w, *, stride, padding, need_dx):
    dx, dw, db = convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=need_dx)
    return dx, dw / np.asarray(max(len(x), 1), dw.dtype), db


@fault("conv2d_backward", "kernel not mirrored for the input's gradient")
def _(dy, x, w, *, stride, padding, need_dx):
    dx, dw, db = convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=need_dx)
    if dx is not None:
        dx = convolution.conv2d_backward(dy, x, w[..., ::-1, :], stride=stride, padding=padding, need_dx=True)[0]
    return dx, dw, db


@fault("conv2d_backward", "padding's sides swapped when the input's gradient is cut")
def _(dy, x, w, *, stride, padding, need_dx):
    dx, dw, db = convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=need_dx)
    if dx is not None:
        swapped = (padding[0][::-1], padding[1])
        dx = convolution.conv2d_backward(dy, x, w, stride=stride, padding=swapped, need_dx=True)[0]
    return dx, dw, db


@fault("conv2d_backward", "the input's gradient takes one image's")
def _(dy, x, w, *, stride, padding, need_dx):
    dx, dw, db = convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=need_dx)
    return (None if dx is None else np.ascontiguousarray(np.broadcast_to(dx[:1], dx.shape))), dw, db


@fault("conv2d_backward", "input's gradient computed though not needed")
def _(dy, x, w, *, stride, padding, need_dx):
    return convolution.conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=True)


# ---- linear ---------------------------------------------------------------------------------------------------


@fault("linear", "weights transposed where they are square")
def _(x, w, b):
    return full.linear(x, w.T if w.shape[0] == w.shape[1] else w, b)


@fault("linear", "bias missing")
def _(x, w, b):
    return full.linear(x, w, 0 * b)


@fault("linear", "sums in half precision")
def _(x, w, b):
    return full.linear(_coarse(x, 11), w, b)


@fault("linear_backward", "bias gradient averaged over the batch")
def _(dy, x, w, *, need_dx):
    dx, dw, db = full.linear_backward(dy, x, w, need_dx=need_dx)
    return dx, dw, db / np.asarray(max(len(x), 1), db.dtype)


@fault("linear_backward", "weights transposed where they are square")
def _(dy, x, w, *, need_dx):
    return full.linear_backward(dy, x, w.T if w.shape[0] == w.shape[1] else w, need_dx=need_dx)


@fault("linear_backward", "weights' gradient of the first image alone")
def _(dy, x, w, *, need_dx):
    dx, _, db = full.linear_backward(dy, x, w, need_dx=need_dx)
    return dx, dy[:1].T @ x[:1], db


@fault("linear_backward", "input's gradient never given")
def _(dy, x, w, *, need_dx):
    return full.linear_backward(dy, x, w, need_dx=False)


# ---- element by element ---------------------------------------------------------------------------------------


@fault("relu", "not a number becomes zero")
def _(x):
    return np.fmax(x, 0)


@fault("relu", "computed in place")
def _(x):
    return np.maximum(x, 0, out=x)


@fault("relu", "a small slope below zero")
def _(x):
    return np.where(x < 0, x / 1024, x).astype(x.dtype)


@fault("relu", "numbers below 1e-6 taken for zero")
def _(x):
    return np.where(x < 1e-6, np.minimum(np.maximum(x, 0), 0), x)


@fault("relu_backward", "gradient passes at zero")
def _(dy, y):
    return np.where(y >= 0, dy, np.zeros_like(dy))


@fault("relu_backward", "multiplied with a mask, so that 0 times infinity leaks")
def _(dy, y):
    return dy * (y > 0)


@fault("relu_backward", "switched by the gradient's own sign")
def _(dy, y):
    return np.where(dy > 0, dy, np.zeros_like(dy))


@fault("tanh", "a rational approximation")
def _(x):
    near = np.clip(x, -3, 3)
    return near * (27 + near * near) / (27 + 9 * near * near)


@fault("tanh", "as a quotient of exponentials, which overflow")
def _(x):
    return (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))


@fault("tanh_backward", "1 - y instead of 1 - y squared")
def _(dy, y):
    return dy * (1 - y)


@fault("tanh_backward", "of the input instead of the output")
def _(dy, y):
    return dy * (1 - np.tanh(y) ** 2)


# ---- pooling --------------------------------------------------------------------------------------------------


@fault("max_pool2d", "not a number does not win")
def _(x, *, size, stride, ceil):
    return pooling.max_pool2d(
        np.nan_to_num(x, nan=-np.inf, posinf=np.inf, neginf=-np.inf), size=size, stride=stride, ceil=ceil
    )


@fault("max_pool2d", "zeros beyond the edge")
def _(x, *, size, stride, ceil):
    P, Q = (pool_size(n, size, stride, ceil) for n in x.shape[2:])
    padded = pooling.extend(x, P, Q, size, stride, 0.0)
    return np.maximum.reduce(list(pooling.corners(padded, P, Q, size, stride)))


@fault("max_pool2d", "the maximum begins at zero")
def _(x, *, size, stride, ceil):
    return np.maximum(pooling.max_pool2d(x, size=size, stride=stride, ceil=ceil), 0)


@fault("max_pool2d", "windows one smaller")
def _(x, *, size, stride, ceil):
    P, Q = (pool_size(n, size, stride, ceil) for n in x.shape[2:])
    padded = pooling.extend(x, P, Q, size, stride, -np.inf)
    return np.maximum.reduce(list(pooling.corners(padded, P, Q, max(1, size - 1), stride)))


@fault("max_pool2d", "the window over the edge dropped")
def _(x, *, size, stride, ceil):
    return pooling.max_pool2d(x, size=size, stride=stride, ceil=ceil and min(x.shape[2:]) < size)


@fault("max_pool2d_backward", "the last maximum instead of the first")
def _(dy, x, y, *, size, stride, ceil, ties):
    if ties == "all":
        return pooling.max_pool2d_backward(dy, x, y, size=size, stride=stride, ceil=ceil, ties=ties)
    P, Q = y.shape[2:]
    padded = pooling.extend(x, P, Q, size, stride, -np.inf)
    dx, free = np.zeros_like(padded), np.ones(y.shape, bool)
    both = zip(pooling.corners(padded, P, Q, size, stride), pooling.corners(dx, P, Q, size, stride), strict=True)
    for corner, into in reversed(list(both)):
        hit = free & (corner == y)
        np.add(into, dy, out=into, where=hit)
        free &= ~hit
    return dx[:, :, : x.shape[2], : x.shape[3]]


@fault("max_pool2d_backward", "every maximum gets the gradient, whatever is asked")
def _(dy, x, y, *, size, stride, ceil, ties):
    return pooling.max_pool2d_backward(dy, x, y, size=size, stride=stride, ceil=ceil, ties="all")


@fault("max_pool2d_backward", "the first maximum gets the gradient, whatever is asked")
def _(dy, x, y, *, size, stride, ceil, ties):
    return pooling.max_pool2d_backward(dy, x, y, size=size, stride=stride, ceil=ceil, ties="first")


@fault("max_pool2d_backward", "overlapping windows overwrite one another")
def _(dy, x, y, *, size, stride, ceil, ties):
    dx = pooling.max_pool2d_backward(dy, x, y, size=size, stride=stride, ceil=ceil, ties=ties)
    largest = max(np.abs(dy).max(initial=0), 0)
    return np.clip(dx, -largest, largest)


@fault("max_pool2d_backward", "first in column order")
def _(dy, x, y, *, size, stride, ceil, ties):
    turned = (np.ascontiguousarray(a.swapaxes(2, 3)) for a in (dy, x, y))
    return pooling.max_pool2d_backward(*turned, size=size, stride=stride, ceil=ceil, ties=ties).swapaxes(2, 3)


@fault("max_pool2d_backward", "windows over the edge give nothing")
def _(dy, x, y, *, size, stride, ceil, ties):
    P = (x.shape[2] - size) // stride + 1
    inside = dy.copy()
    inside[:, :, max(P, 0) :] = 0
    return pooling.max_pool2d_backward(inside, x, y, size=size, stride=stride, ceil=ceil, ties=ties)


# ---- normalisation, over channels and over places -------------------------------------------------------------


def _norm(x, sums, *, size, k, alpha, beta, before=None, after=None):
    before = size // 2 if before is None else before
    scale = k + alpha * sums(x * x, before, size - 1 - before if after is None else after)
    return x * scale**-beta, scale


def _norm_backward(dy, x, y, scale, sums, *, size, alpha, beta, before=None, factor=2.0):
    before = size - 1 - size // 2 if before is None else before
    inhibition = sums(dy * y / scale, before, size - 1 - before)
    return dy * scale**-beta - factor * alpha * beta * x * inhibition


for _name, _module in (("local_response_norm", channels), ("spatial_response_norm", places)):
    _sums = _module.window_sum
    _forward, _backward = getattr(_module, _name), getattr(_module, f"{_name}_backward")

    @fault(_name, "window one short")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        return _norm(x, sums, size=size, k=k, alpha=alpha, beta=beta, after=max(0, size - 2 - size // 2))

    @fault(_name, "window one long")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        return _norm(x, sums, size=size, k=k, alpha=alpha, beta=beta, after=size - size // 2)

    @fault(_name, "window mirrored for even sizes")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        return _norm(x, sums, size=size, k=k, alpha=alpha, beta=beta, before=size - 1 - size // 2)

    @fault(_name, "alpha divided by the size")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        return _norm(x, sums, size=size, k=k, alpha=alpha / size, beta=beta)

    @fault(_name, "k always 1")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        return _norm(x, sums, size=size, k=1.0, alpha=alpha, beta=beta)

    @fault(_name, "beta always 3/4")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        return _norm(x, sums, size=size, k=k, alpha=alpha, beta=0.75)

    @fault(_name, "the power as exp of log in half precision")
    def _(x, *, size, k, alpha, beta, sums=_sums):
        scale = _norm(x, sums, size=size, k=k, alpha=alpha, beta=beta)[1]
        return x * np.exp(-beta * _coarse(np.log(scale), 12)), scale

    @fault(_name, "windows summed from running totals, which cancel")
    def _(x, *, size, k, alpha, beta, name=_name):
        axis = 1 if name.startswith("local") else 3
        squares = x * x
        if axis == 3:
            squares = places.window_sum(squares, 0, 0)
            before = size // 2
            padded = np.pad(squares, ((0, 0), (0, 0), (before, size - 1 - before), (0, 0)))
            squares = sum((padded[:, :, r : r + x.shape[2]] for r in range(size)), np.zeros_like(x))
        total = np.pad(np.cumsum(squares, axis=axis), [(1, 0) if a == axis else (0, 0) for a in range(4)])
        index = np.arange(x.shape[axis])
        upper = np.minimum(index - size // 2 + size, x.shape[axis])
        lower = np.minimum(np.maximum(index - size // 2, 0), x.shape[axis])
        scale = k + alpha * (total.take(upper, axis) - total.take(lower, axis))
        return x * scale**-beta, scale

    @fault(f"{_name}_backward", "the factor 2 missing")
    def _(dy, x, y, scale, *, size, alpha, beta, sums=_sums):
        return _norm_backward(dy, x, y, scale, sums, size=size, alpha=alpha, beta=beta, factor=1.0)

    @fault(f"{_name}_backward", "window not mirrored for even sizes")
    def _(dy, x, y, scale, *, size, alpha, beta, sums=_sums):
        return _norm_backward(dy, x, y, scale, sums, size=size, alpha=alpha, beta=beta, before=size // 2)

    @fault(f"{_name}_backward", "the second term missing")
    def _(dy, x, y, scale, *, size, alpha, beta):
        return dy * scale**-beta

    @fault(f"{_name}_backward", "beta missing from the second term")
    def _(dy, x, y, scale, *, size, alpha, beta, sums=_sums):
        return _norm_backward(dy, x, y, scale, sums, size=size, alpha=alpha, beta=beta, factor=2 / beta)

    @fault(f"{_name}_backward", "the second term of its own place alone")
    def _(dy, x, y, scale, *, size, alpha, beta):
        return dy * scale**-beta - 2 * alpha * beta * x * (dy * y / scale)

    @fault(f"{_name}_backward", "y taken for x in the sum")
    def _(dy, x, y, scale, *, size, alpha, beta, sums=_sums):
        return _norm_backward(dy, x, x, scale, sums, size=size, alpha=alpha, beta=beta)


@fault("local_response_norm", "windows wrap around from the last channel to the first")
def _(x, *, size, k, alpha, beta):
    squares = sum(np.roll(x * x, size // 2 - offset, axis=1) for offset in range(min(size, x.shape[1])))
    scale = k + alpha * squares
    return x * scale**-beta, scale


@fault("spatial_response_norm", "over rows alone")
def _(x, *, size, k, alpha, beta):
    turned, scale = channels.local_response_norm(x.swapaxes(1, 2), size=size, k=k, alpha=alpha, beta=beta)
    return turned.swapaxes(1, 2), scale.swapaxes(1, 2)


# ---- dropout --------------------------------------------------------------------------------------------------


def _dropout(x, mask, factor):
    return np.where(mask, x * factor, np.zeros_like(x)), mask.astype(np.uint8)


def _drawn(x, stream):
    return words(stream, x.shape[0], int(np.prod(x.shape[1:]))).reshape(x.shape)


@fault("dropout", "words equal to the threshold are dropped")
def _(x, *, rate, factor, stream):
    return _dropout(x, _drawn(x, stream) > int(rate * 2**32), factor)


@fault("dropout", "the rate is that of keeping")
def _(x, *, rate, factor, stream):
    return _dropout(x, _drawn(x, stream) < int(rate * 2**32), factor)


@fault("dropout", "the threshold in single precision")
def _(x, *, rate, factor, stream):
    return _dropout(x, _drawn(x, stream) >= int(np.float32(rate) * 2**32), factor)


@fault("dropout", "the mask scaled twice")
def _(x, *, rate, factor, stream):
    return _dropout(x, _drawn(x, stream) >= int(rate * 2**32), factor * factor)


@fault("dropout", "the column's first element ignored")
def _(x, *, rate, factor, stream):
    return dropping.dropout(x, rate=rate, factor=factor, stream=replace(stream, first_element=0))


@fault("dropout", "the column's first element taken in whole blocks of four")
def _(x, *, rate, factor, stream):
    return dropping.dropout(
        x, rate=rate, factor=factor, stream=replace(stream, first_element=stream.first_element // 4 * 4)
    )


@fault("dropout", "the piece's first sample ignored")
def _(x, *, rate, factor, stream):
    return dropping.dropout(x, rate=rate, factor=factor, stream=replace(stream, first_sample=0))


@fault("dropout", "the same mask at every step")
def _(x, *, rate, factor, stream):
    return dropping.dropout(x, rate=rate, factor=factor, stream=stream.at(0))


@fault("dropout", "the same mask for every image")
def _(x, *, rate, factor, stream):
    mask = np.broadcast_to(_drawn(x[:1], stream) >= int(rate * 2**32), x.shape)
    return _dropout(x, mask, factor)


@fault("dropout", "half of the seed ignored")
def _(x, *, rate, factor, stream):
    return dropping.dropout(x, rate=rate, factor=factor, stream=replace(stream, seed=stream.seed & 0xFFFFFFFF))


@fault("dropout", "multiplied with the mask, so that infinities leak")
def _(x, *, rate, factor, stream):
    _, mask = dropping.dropout(x, rate=rate, factor=factor, stream=stream)
    return x * factor * mask.astype(x.dtype), mask


@fault("dropout", "the mask a bool")
def _(x, *, rate, factor, stream):
    y, mask = dropping.dropout(x, rate=rate, factor=factor, stream=stream)
    return y, mask.astype(bool)


@fault("dropout_backward", "the factor missing")
def _(dy, mask, *, factor):
    return np.where(mask, dy, np.zeros_like(dy))


@fault("dropout_backward", "the factor twice")
def _(dy, mask, *, factor):
    return np.where(mask, dy * factor * factor, np.zeros_like(dy))


@fault("dropout_backward", "multiplied with the mask, so that infinities leak")
def _(dy, mask, *, factor):
    return dy * factor * mask.astype(dy.dtype)


@fault("dropout_backward", "the mask inverted")
def _(dy, mask, *, factor):
    return dropping.dropout_backward(dy, 1 - mask, factor=factor)


# ---- the cost -------------------------------------------------------------------------------------------------


@fault("softmax_cross_entropy", "the largest logit not taken off")
def _(logits, labels):
    exponentials = np.exp(logits)
    probs = exponentials / exponentials.sum(axis=1, keepdims=True)
    loss, _ = cost.softmax_cross_entropy(logits, labels)
    return loss, probs


@fault("softmax_cross_entropy", "the largest logit of the batch taken off instead of the image's")
def _(logits, labels):
    exponentials = np.exp(logits - logits.max())
    probs = exponentials / exponentials.sum(axis=1, keepdims=True)
    return cost.softmax_cross_entropy(logits, labels)[0], probs


@fault("softmax_cross_entropy", "the sum over the batch, not the mean")
def _(logits, labels):
    loss, probs = cost.softmax_cross_entropy(logits, labels)
    return loss * np.asarray(len(labels), loss.dtype), probs


@fault("softmax_cross_entropy", "minus log of a probability that underflowed")
def _(logits, labels):
    loss, probs = cost.softmax_cross_entropy(logits, labels)
    valid = (labels >= 0) & (labels < logits.shape[1])
    own = probs[np.arange(len(labels)), np.where(valid, labels, 0)]
    return (np.asarray(np.mean(-np.log(own)), loss.dtype) if valid.all() else loss), probs


@fault("softmax_cross_entropy", "a label out of range taken for the nearest class")
def _(logits, labels):
    return cost.softmax_cross_entropy(logits, np.clip(labels, 0, logits.shape[1] - 1))


@fault("softmax_cross_entropy", "the label before it")
def _(logits, labels):
    _, probs = cost.softmax_cross_entropy(logits, labels)
    before = np.where((labels > 0) & (labels < logits.shape[1]), labels - 1, labels)
    return cost.softmax_cross_entropy(logits, before)[0], probs


@fault("softmax_cross_entropy", "the loss as an array of one element")
def _(logits, labels):
    loss, probs = cost.softmax_cross_entropy(logits, labels)
    return loss.reshape(1), probs


@fault("softmax_cross_entropy_backward", "1/N missing")
def _(probs, labels):
    return cost.softmax_cross_entropy_backward(probs, labels) * np.asarray(len(probs), probs.dtype)


@fault("softmax_cross_entropy_backward", "the label's 1 not taken off")
def _(probs, labels):
    return probs / np.asarray(len(probs), probs.dtype)


@fault("softmax_cross_entropy_backward", "the label's 1 not divided by N")
def _(probs, labels):
    return probs / np.asarray(len(probs), probs.dtype) - (labels[:, None] == np.arange(probs.shape[1]))


@fault("softmax_cross_entropy_backward", "the sign")
def _(probs, labels):
    return -cost.softmax_cross_entropy_backward(probs, labels)


# ---- the update -----------------------------------------------------------------------------------------------


def _trust(w, dw, coefficient, decay, ratio):
    """λ·(dw + decay·w), with λ of a function of the norms."""
    w_norm, dw_norm = np.linalg.norm(w), np.linalg.norm(dw)
    known = w_norm > 0 and dw_norm > 0
    scale = np.asarray(coefficient * ratio(w_norm, dw_norm) if known else 1, w.dtype)
    return np.asarray(scale * (dw + np.asarray(decay, w.dtype) * w))


@fault("scale_by_trust_ratio", "the decay missing from the denominator")
def _(w, dw, *, trust_coefficient, weight_decay):
    return _trust(w, dw, trust_coefficient, weight_decay, lambda a, b: a / b)


@fault("scale_by_trust_ratio", "the norms the other way round")
def _(w, dw, *, trust_coefficient, weight_decay):
    return _trust(w, dw, trust_coefficient, weight_decay, lambda a, b: b / (a + weight_decay * b))


@fault("scale_by_trust_ratio", "the norm of the decayed gradient")
def _(w, dw, *, trust_coefficient, weight_decay):
    whole = np.linalg.norm(dw + np.asarray(weight_decay, w.dtype) * w)
    return _trust(w, dw, trust_coefficient, weight_decay, lambda a, b: a / whole if whole else 1)


@fault("scale_by_trust_ratio", "nothing where a norm is 0")
def _(w, dw, *, trust_coefficient, weight_decay):
    made = _trust(w, dw, trust_coefficient, weight_decay, lambda a, b: a / (b + weight_decay * a))
    return made if np.any(w) and np.any(dw) else 0 * made


@fault("sgd_update", "momentum with the other sign")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    return descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=-momentum, weight_decay=weight_decay)


@fault("sgd_update", "weight decay not times the rate")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    decay = weight_decay / learning_rate
    return descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=decay)


@fault("sgd_update", "weight decay missing")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    return descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=0.0)


@fault("sgd_update", "weights updated with the momentum before")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    old = v.copy()
    start = w.copy()
    kept = descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    w[...] = start + old
    return kept


@fault("sgd_update", "Nesterov's momentum")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    start = w.copy()
    kept = descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    w[...] = start + momentum * v - learning_rate * dw
    return kept


@fault("sgd_update", "not in place")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    return descent.sgd_update(
        w.copy(), v.copy(), dw, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay
    )


@fault("sgd_update", "values that are not finite written")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    v[...] = momentum * v - weight_decay * learning_rate * w - learning_rate * dw
    w += v
    return np.array(w.size - np.count_nonzero(np.isfinite(w)), np.int64)


@fault("sgd_update", "momentum of an element that keeps its value is overwritten")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    new_v = momentum * v - weight_decay * learning_rate * w - learning_rate * dw
    kept = descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    v[...] = new_v
    return kept


@fault("sgd_update", "number of kept elements always 0")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    kept = descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    return 0 * kept


@fault("sgd_update", "the gradient scaled in place")
def _(w, v, dw, *, learning_rate, momentum, weight_decay):
    kept = descent.sgd_update(w, v, dw, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    dw *= learning_rate
    return kept


# ---- augmentation ---------------------------------------------------------------------------------------------


@fault("augment", "reflected upside down")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    y = augmentation.augment(
        images, mean, shift, top, left, 0 * flip, crop=crop, factor=factor, mean_follows=mean_follows
    )
    return np.where(flip[:, None, None, None] == 1, y[:, :, ::-1], y)


@fault("augment", "the image reflected before the crop is cut")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    other = images.shape[3] - crop - left
    left = np.where(flip == 1, other, left).astype(np.int32)
    return augmentation.augment(
        images, mean, shift, top, left, flip, crop=crop, factor=factor, mean_follows=mean_follows
    )


@fault("augment", "top and left swapped")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    highest = np.array([n - crop for n in images.shape[2:]], np.int32)
    top, left = np.minimum(left, highest[0]), np.minimum(top, highest[1])
    return augmentation.augment(
        images, mean, shift, top, left, flip, crop=crop, factor=factor, mean_follows=mean_follows
    )


@fault("augment", "the mean does not follow the crop")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    return augmentation.augment(
        images, mean[:, :crop, :crop], shift, top, left, flip, crop=crop, factor=factor, mean_follows=False
    )


@fault("augment", "the mean follows the crop, but not the reflection")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    numbers = {"crop": crop, "factor": factor}
    y = augmentation.augment(images, 0 * mean, shift, top, left, flip, **numbers, mean_follows=mean_follows)
    still = augmentation.augment(0 * images, mean, 0 * shift, top, left, 0 * flip, **numbers, mean_follows=mean_follows)
    return y + still


@fault("augment", "the mean reflected although it stays put")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    y = augmentation.augment(
        images, 0 * mean, shift, top, left, flip, crop=crop, factor=factor, mean_follows=mean_follows
    )
    cut = augmentation.augment(
        images, mean, shift, top, left, flip, crop=crop, factor=factor, mean_follows=mean_follows
    )
    return cut if mean_follows else y - factor * np.where(flip[:, None, None, None] == 1, mean[None, ..., ::-1], mean)


@fault("augment", "colour shift missing")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    return augmentation.augment(
        images, mean, 0 * shift, top, left, flip, crop=crop, factor=factor, mean_follows=mean_follows
    )


@fault("augment", "the factor applied before the mean is taken off")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    return augmentation.augment(
        images, mean / np.asarray(factor, mean.dtype), shift, top, left, flip,
        crop=crop, factor=factor, mean_follows=mean_follows,
    )  # fmt: skip


@fault("augment", "float64 results for float32 arrays")
def _(images, mean, shift, top, left, flip, *, crop, factor, mean_follows):
    return np.float64(factor) * augmentation.augment(
        images, mean, shift, top, left, flip, crop=crop, factor=1.0, mean_follows=mean_follows
    )


# ---- movers ---------------------------------------------------------------------------------------------------


@fault("add", "the second array doubled")
def _(x, y):
    return x + y + y


@fault("add", "in place")
def _(x, y):
    x += y
    return x


@fault("scale", "divided by the factor")
def _(x, factor):
    return x / np.asarray(factor or 1.0, x.dtype)


@fault("scale", "NumPy's float64 factor turns float32 into float64")
def _(x, factor):
    return x * np.float64(factor)


@fault("scale", "the shape (N) becomes (N, 1)")
def _(x, factor):
    return (x * factor)[..., None]


@fault("reshape", "column order")
def _(x, shape):
    return x.reshape(shape, order="F")


@fault("reshape", "not a number becomes zero on the way")
def _(x, shape):
    return np.nan_to_num(x).reshape(shape)


@fault("concat", "in reverse order")
def _(xs):
    return np.concatenate(xs[::-1], axis=1)


@fault("concat", "side by side on the last axis where it fits")
def _(xs):
    return np.concatenate(xs, axis=1) if len({x.shape for x in xs}) > 1 else np.concatenate(xs, axis=-1)


@fault("split", "pieces in reverse order")
def _(x, sizes):
    return np.split(x, np.cumsum(sizes)[:-1], axis=1)[::-1]


@fault("split", "equal pieces whatever the sizes")
def _(x, sizes):
    return np.array_split(x, len(sizes), axis=1)


@mover("to_device", "the host's memory is shared")
def _(array, device):
    return (
        HostArray(np.ascontiguousarray(array), device)
        if device in pretend.DEVICES
        else pretend.to_device(array, device)
    )


@mover("to_device", "memory order instead of row order")
def _(array, device):
    return HostArray(array.ravel(order="K").reshape(array.shape).copy(), pretend.to_device(array, device).device)


@mover("to_device", "an unknown device is taken for the first")
def _(array, device):
    return pretend.to_device(array, device if device in pretend.DEVICES else pretend.DEVICES[0])


@mover("to_device", "float64 becomes float32")
def _(array, device):
    return pretend.to_device(array.astype(np.float32) if array.dtype == np.float64 else array, device)


@mover("to_numpy", "the device's memory is shared")
def _(x):
    return x.data


@mover("to_numpy_later", "copied when the numbers are asked for, not before", "to_numpy")
def _(arrays):
    return lambda: [pretend.to_numpy(x) for x in arrays]


@mover("to_numpy_later", "in another order", "to_numpy")
def _(arrays):
    found = [pretend.to_numpy(x) for x in arrays]
    return lambda: found[::-1]


@mover("to_numpy_later", "the last one is forgotten", "to_numpy")
def _(arrays):
    found = [pretend.to_numpy(x) for x in arrays]
    return lambda: found[:-1]


@mover("keep_rows", "the last block is forgotten", "to_device")
def _(blocks, shape, devices):
    whole = np.zeros(shape, np.uint8)
    first = next(blocks)
    whole[: len(first)] = first
    return lambda rows, device: pretend.to_device(whole[rows], device)


@mover("keep_rows", "rows in the order in which they lie", "to_device")
def _(blocks, shape, devices):
    whole = np.concatenate(list(blocks))
    return lambda rows, device: pretend.to_device(whole[np.sort(rows)], device)


@mover("keep_rows", "all on the first device", "to_device")
def _(blocks, shape, devices):
    whole = np.concatenate(list(blocks))
    return lambda rows, device: pretend.to_device(whole[rows], devices[0])


@mover("copy_to", "the tag alone changes", "copy_to")
def _(x, device):
    return x if x.device == device else HostArray(x.data, device)


@mover("copy_to", "nothing is copied, so that the array stays where it is")
def _(x, device):
    return x


@mover("copy_to", "copied although it is there already")
def _(x, device):
    return pretend.to_device(x.data, device)


@mover("zeros", "always float32")
def _(shape, dtype, device):
    return pretend.zeros(shape, "float32", device)


@mover("zeros", "ones")
def _(shape, dtype, device):
    return pretend.to_device(np.ones(shape, dtype), device)


@mover("memory_in_use", "results are not counted")
def _(device, start=pretend.memory_in_use):
    return start(device) // (8 << 20) * (4 << 20)


@mover("memory_in_use", "it never shrinks", "memory_in_use")
def _(device, most=[0]):  # noqa: B006 - it is to remember
    most[0] = max(most[0], pretend.memory_in_use(device))
    return most[0]


@mover("memory_in_use", "all devices together")
def _(device):
    return sum(pretend.memory_in_use(each) for each in pretend.DEVICES)


# ---- what surrounds every operation ---------------------------------------------------------------------------


class Unchecked(operation):
    """An operation that looks neither at shapes nor at devices."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        device = next(a.device for a in args if isinstance(a, HostArray))
        plain = [a.data if isinstance(a, HostArray) else a for a in args]
        made = self.function(*plain, **kwargs)
        return tuple(HostArray(m, device) for m in made) if isinstance(made, tuple) else HostArray(made, device)


class OnFirst(operation):
    """An operation whose results are tagged with the first device, wherever the arguments are."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return HostArray(super().call(*args, **kwargs).data, pretend.DEVICES[0])


class DevicesMixed(operation):
    """An operation that copies arrays to the first one's device unasked."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return super().call(
            *(pretend.copy_to(a, args[0].device) if isinstance(a, HostArray) else a for a in args), **kwargs
        )


class NotTheSame(operation):
    """An operation whose last bits depend on how often it was called, as with atomic additions."""

    calls = count()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        made = super().call(*args, **kwargs)
        return HostArray(
            made.data * made.dtype.type(1 + np.finfo(made.dtype).eps * (next(self.calls) % 2)), made.device
        )


class OneDeviceDiffers(operation):
    """An operation whose last bits depend on the device."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        made = super().call(*args, **kwargs)
        more = made.device == pretend.DEVICES[1]
        return HostArray(made.data * made.dtype.type(1 + np.finfo(made.dtype).eps * more), made.device)


class Transposed(operation):
    """An operation whose result does not lie contiguously, and reaches the host like that."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        made = super().call(*args, **kwargs)
        return HostArray(np.asfortranarray(made.data), made.device)


FAULTS += [
    Fault("add", "shapes are not checked", {"add": Unchecked(lambda x, y: np.resize(x, y.shape) + y)}),
    Fault("add", "devices are not checked", {"add": DevicesMixed(lambda x, y: x + y)}),
    Fault("linear", "devices are not checked", {"linear": DevicesMixed(full.linear)}),
    Fault("relu", "results on the first device", {"relu": OnFirst(lambda x: np.maximum(x, 0))}),
    Fault("linear", "other bits at every call", {"linear": NotTheSame(full.linear)}),
    Fault("linear", "other bits on the second device", {"linear": OneDeviceDiffers(full.linear)}),
    Fault(
        "add",
        "not contiguous",
        {"add": Transposed(lambda x, y: x + y), "to_numpy": staticmethod(lambda x: x.data.copy(order="K"))},
    ),
    Fault("relu", "raises", {"relu": operation(lambda x: 1 // 0)}),
    Fault("signatures", "an operation left out", {"tanh": None}),
    Fault("signatures", "a parameter renamed", {"scale": operation(lambda x, by: x * by)}),
    Fault(
        "signatures", "a parameter no longer by keyword", {"linear_backward": operation(lambda dy, x, w, need_dx: None)}
    ),
    Fault("signatures", "no devices", {"devices": ()}),
]


# ---- whole steps ----------------------------------------------------------------------------------------------


def compiled(what: str, walk: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A faulty `compile_step`: a function of (program, bindings) that returns other ones, or a step."""

    def add(change: Callable[..., Any]) -> Callable[..., Any]:
        def compile_step(self: Any, program: Any, bindings: Any) -> Any:
            made = change(program, bindings)
            return (
                interpret(made[0], self, made[1])
                if isinstance(made, tuple)
                else made(interpret(program, self, bindings))
            )

        FAULTS.append(Fault("compile_step", what, {"compile_step": compile_step}))
        return change

    return add


def _without(program, index, operation_, result=0):
    """The program without one call of an operation: what used its result uses its first argument instead."""
    calls = list(program.calls)
    places_ = [i for i, call in enumerate(calls) if call.operation == operation_]
    if not places_:
        return program
    gone = calls.pop(places_[index])
    if operation_ == "sgd_update":
        outputs = {name: value for name, value in program.outputs.items() if value is not gone.results[0]}
        return replace(program, calls=tuple(calls), outputs=outputs)
    new = {id(gone.results[result]): gone.args[0]}

    def resolve(argument):
        if isinstance(argument, list | tuple):
            return type(argument)(resolve(item) for item in argument)
        return new.get(id(argument), argument)

    return replace(program, calls=tuple(replace(call, args=resolve(call.args)) for call in calls))


@compiled("one parameter is not updated")
def _(program, bindings):
    return _without(program, 3, "sgd_update"), bindings


@compiled("one reader's gradient is lost")
def _(program, bindings):
    return _without(program, 0, "add"), bindings


@compiled("a dropout without its gradient")
def _(program, bindings):
    return _without(program, 1, "dropout_backward"), bindings


@compiled("a ReLU left out")
def _(program, bindings):
    return _without(program, 0, "relu"), bindings


@compiled("the first step's masks and rates for ever")
def _(program, bindings):
    def make(step):
        first = {}

        def faulty(feed):
            numbers = {name: first.setdefault(name, feed[name]) for name in program.symbols}
            return step({**feed, **numbers})

        return faulty

    return make


@compiled("the first step's images for ever")
def _(program, bindings):
    def make(step):
        first = {}

        def faulty(feed):
            arrays = {name: first.setdefault(name, feed[name]) for name in program.fed if name != LABELS}
            return step({**feed, **arrays})

        return faulty

    return make


@compiled("weights copied when compiled, and never written back")
def _(program, bindings):
    return program, {name: pretend.to_device(array.data, array.device) for name, array in bindings.items()}


@compiled("an output left out")
def _(program, bindings):
    return lambda step: lambda feed: {name: array for name, array in step(feed).items() if name != PROBS}


@compiled("an operation in low precision")
def _(program, bindings):
    coarse = backend_with({"conv2d": operation(_coarse_conv2d)})
    return lambda step: interpret(program, coarse, bindings)


@compiled("the second device computes with other bits")
def _(program, bindings):
    other = backend_with({"linear": OneDeviceDiffers(full.linear)})
    return lambda step: interpret(program, other, bindings)


# ---- the tests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: f"{planted.check}: {planted.what}")
def test_is_caught(planted):
    with pytest.raises(Disagreement, match=planted.check if planted.check not in ("signatures",) else None):
        CHECKS[planted.check](backend_with(planted.members), AS_ALWAYS)


def test_every_operation_has_at_least_two_faults():
    few = [
        name for name in CHECKS if name not in ("synchronize", "to_numpy") and sum(f.check == name for f in FAULTS) < 2
    ]
    assert few == []


def test_without_a_fault_nothing_is_caught():
    """The backend is built as the faulty ones are, from plain functions, so that building it is not what is caught."""
    plain = backend_with({"conv2d": operation(convolution.conv2d), "relu": operation(lambda x: np.maximum(x, 0))})
    assert [
        r.message for r in conformance.run(plain, ("signatures", "conv2d", "relu", "compile_step")) if not r.passed
    ] == []

"""Fuses adjacent operations of a recorded step if nothing else needs the values between them.

`fuse` looks at what reads what, not at layers: a convolution or fully connected layer whose only reader is a ReLU; a
normalisation that is only pooled, together with both gradients and that of the ReLU before them; a ReLU's gradient that
only a convolution or a pooling passes on; the updates of all parameters of a column. The fused operations are in
`minialex_cuda.compiler.recording`.

One operation becomes two: if the gradient of a layer's input goes to other columns, it is computed and sent before the
gradients of the weights begin, so that the exchange overlaps with them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.backend.program import Call, Program
from minialex.backend.rewrite import Rewrite
from minialex_cuda.compiler import layout
from minialex_cuda.ops.norm_pool_words import SIZE, STRIDE, WINDOWS


def fuse(program: Program, dtype: Any = np.float32) -> Program:
    """A program in which fused calls replace groups of calls; `dtype` is the one in which maps will be stored.

    Normalised maps and their scales, the largest arrays of AlexNet, are then never in memory: the backward pass
    recomputes them from the ReLU's output and one byte per window that says where its maximum was.
    """
    step = Rewrite(program)
    for norm in step.of("local_response_norm"):
        _fuse_norm_pool(step, norm, np.dtype(dtype))
    for pool in step.of("max_pool2d_backward"):
        relu = step.sole_reader(pool.results[0], "relu_backward", 0)
        if relu is not None and relu.args[1] is pool.args[1]:
            step.replace([pool, relu], "max_pool2d_relu_backward", pool.args, pool.kwargs, relu.results)
    for product in step.of("conv2d", "linear"):
        relu = step.sole_reader(product.results[0], "relu")
        if relu is not None:
            step.replace([product, relu], f"{product.operation}_relu", product.args, product.kwargs, relu.results)
    for relu in step.of("relu_backward"):
        conv = step.sole_reader(relu.results[0], "conv2d_backward", 0)
        if conv is not None:
            dy, y = relu.args
            step.replace([relu, conv], "relu_conv2d_backward", (dy, *conv.args[1:], y), conv.kwargs, conv.results)
    _sum_whole(step)
    for gradient in step.of("linear_backward", "conv2d_backward", "relu_conv2d_backward"):
        _send_first(step, gradient)
    _fuse_updates(step)
    return step.program


def _sum_whole(step: Rewrite) -> None:
    """Let columns on one device sum over all channels at once and split the sum: the same bits, half the copies."""
    while True:
        makers = {piece: call for call in step.of("split") for piece in call.results}
        for add in step.of("add"):
            first, second = (makers.get(value) for value in add.args)
            if first is None or second is None or first.args[1:] != second.args[1:]:
                continue
            adds = [step.sole_reader(piece, "add", 0) for piece in first.results]
            others = [step.sole_reader(piece, "add", 1) for piece in second.results]
            found = [one for one, other in zip(adds, others, strict=True) if one is not None and one is other]
            if len(found) == len(adds):
                break
        else:
            return
        a, b = first.args[0], second.args[0]
        total = step.value(a.shape, a.dtype, a.device)
        step.replace([first, second], "add", (a, b), {}, [total])
        step.replace(found, "split", (total, *first.args[1:]), {}, [add.results[0] for add in found], at_first=True)


def _fuse_updates(step: Rewrite) -> None:
    """Fuse the updates of a column's parameters into one (see `minialex_cuda.compiler.updates`).

    Its last argument is for rounded weights, which `minialex_cuda.compiler.layout` adds.
    """
    groups: dict[Any, list[Call]] = defaultdict(list)
    for call in step.of("sgd_update"):
        w = call.args[0]
        groups[w.device, call.column, w.dtype, call.kwargs["momentum"]].append(call)
    for (*_, momentum), calls in groups.items():
        numbers = {
            "learning_rates": tuple(call.kwargs["learning_rate"] for call in calls),
            "momentum": momentum,
            "weight_decays": tuple(call.kwargs["weight_decay"] for call in calls),
        }
        args = [*zip(*(call.args for call in calls), strict=True), (None,) * len(calls)]
        step.replace(calls, "sgd_updates", args, numbers, [call.results[0] for call in calls])


def _send_first(step: Rewrite, call: Call) -> None:
    """Put a gradient that other columns wait for first; those of the weights follow once it has been split for them.

    If something reads a weight gradient before that, nothing is moved.
    """
    dx, *rest = call.results
    cut = step.sole_reader(dx, "split", 0)
    if cut is None:
        return
    readers = [reader for value in rest if value for reader in step.readers(value)]
    if any(step.position(reader) < step.position(cut) for reader in readers):
        return
    numbers = {name: value for name, value in call.kwargs.items() if name != "need_dx"}
    name = call.operation.removesuffix("_backward")
    first, second = call.args, call.args
    if name == "linear":
        dy, x, w = call.args
        first, second = (dy, w), (dy, x)
    step.insert_before(call, replace(call, operation=f"{name}_dx", args=first, kwargs=numbers, results=(dx,)))
    step.insert_after(cut, replace(call, operation=f"{name}_dw", args=second, kwargs=numbers, results=tuple(rest)))
    step.remove(call)


def _fuse_norm_pool(step: Rewrite, norm: Call, dtype: np.dtype[Any]) -> None:
    """Fuse normalisation, pooling and, in training, both gradients, in words, if nothing else reads y or scale."""
    (x,), (y, scale) = norm.args, norm.results
    assert y is not None
    assert scale is not None
    readers = {call.operation: call for call in step.readers(y)}
    if step.is_output(y) or step.is_output(scale) or len(readers) != len(step.readers(y)):
        return
    pool = readers.pop("max_pool2d", None)
    unpool, unnorm = (readers.pop(f"{name}_backward", None) for name in ("max_pool2d", "local_response_norm"))
    if readers or pool is None or (unpool is None) != (unnorm is None):
        return
    kind = norm.kwargs["size"], pool.kwargs["size"], pool.kwargs["stride"]
    if kind not in ((window, SIZE, STRIDE) for window in WINDOWS) or not layout.fits(dtype, x, pool.results[0]):
        return
    numbers = {"window": norm.kwargs["size"], **{name: norm.kwargs[name] for name in ("k", "alpha", "beta")}}
    (pooled,) = pool.results
    assert pooled is not None
    where = step.value(pooled.shape, np.uint8, pooled.device)
    if unpool is None or unnorm is None:
        if step.readers(scale):
            return
    else:
        chained = step.sole_reader(unpool.results[0], "local_response_norm_backward", 0) is unnorm
        if not chained or unpool.kwargs["ties"] != "first" or step.sole_reader(scale, unnorm.operation) is not unnorm:
            return
        back, result = [unpool, unnorm], unnorm.results[0]
        relu = step.sole_reader(result, "relu_backward", 0)
        rectify = relu is not None and relu.args[1] is x
        if relu is not None and rectify:
            back, result = [*back, relu], relu.results[0]
        options = {**numbers, "size": pool.kwargs["size"], "stride": pool.kwargs["stride"], "rectify": rectify}
        step.replace(back, "norm_pool_backward", (unpool.args[0], x, where), options, [result])
    step.replace([norm, pool], "norm_pool", (x,), {**numbers, **pool.kwargs}, [pooled, where])

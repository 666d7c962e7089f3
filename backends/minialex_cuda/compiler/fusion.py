"""Neighbouring operations of a recorded step as one, where nobody else needs what is between them.

`fuse` looks at who reads what, not at layers: a convolution or full layer whose only reader is a ReLU; a normalisation
that is only pooled, together with both gradients and the ReLU's before them; a ReLU's gradient that only a convolution
or a pooling passes on; the updates of all parameters of a column. What they become is in `fused`.

One operation becomes two: where the gradient of a layer's input goes to other columns, it is computed and on its way
before the gradients of the weights are begun, so that the exchange and they go on at the same time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.program import Call, Program, Value, values


class _Program:
    """A program's calls by their position, with who reads each value."""

    def __init__(self, program: Program) -> None:
        self.calls: dict[float, Call] = dict(enumerate(program.calls))
        self.outputs = set(program.outputs.values())
        self.readers: dict[Value, list[float]] = defaultdict(list)
        for index, call in self.calls.items():
            for value in values((call.args, call.kwargs)):
                self.readers[value].append(index)
        self.made = 0

    def of(self, operation: str) -> list[float]:
        """Positions of an operation's calls."""
        return [index for index, call in self.calls.items() if call.operation == operation]

    def sole(self, value: Value | None, operation: str, position: int = 0) -> float | None:
        """The one call that reads a value, if it is that operation and reads it as the argument at that position."""
        if value is None or value in self.outputs or len(self.readers[value]) != 1:
            return None
        index = self.readers[value][0]
        call = self.calls.get(index)
        return index if call and call.operation == operation and call.args[position] is value else None

    def replace(self, indices: list[float], operation: str, args: Any, kwargs: dict[str, Any], results: Any) -> None:
        """One call where the last of some was, in the place of all; it counts as the first one's."""
        first = self.calls[min(indices)]
        call = Call(operation, tuple(args), kwargs, tuple(results), first.layer, first.column, first.phase)
        for index in indices:
            del self.calls[index]
        self.calls[max(indices)] = call
        for readers in self.readers.values():
            readers[:] = list(dict.fromkeys(max(indices) if index in indices else index for index in readers))

    def value(self, shape: tuple[int, ...], dtype: Any, device: str) -> Value:
        """A value that the program did not have."""
        self.made += 1
        return Value(-self.made, shape, np.dtype(dtype), device)


def fuse(program: Program) -> list[Call]:
    """The calls of a program, with fused ones in the place of those that they do at once."""
    found = _Program(program)
    for index in found.of("local_response_norm"):
        _fuse_norm_pool(found, index)
    for index in found.of("max_pool2d_backward"):
        pool = found.calls[index]
        relu = found.sole(pool.results[0], "relu_backward")
        if relu is not None and found.calls[relu].args[1] is pool.args[1]:
            results = found.calls[relu].results
            found.replace([index, relu], "max_pool2d_relu_backward", pool.args, pool.kwargs, results)
    for operation in ("conv2d", "linear"):
        for index in found.of(operation):
            call = found.calls[index]
            relu = found.sole(call.results[0], "relu")
            if relu is not None:
                found.replace([index, relu], f"{operation}_relu", call.args, call.kwargs, found.calls[relu].results)
    for index in found.of("relu_backward"):
        dy, y = found.calls[index].args
        product_ = found.sole(found.calls[index].results[0], "conv2d_backward")
        if product_ is not None:
            call = found.calls[product_]
            found.replace([index, product_], "relu_conv2d_backward", (dy, y, *call.args[1:]), call.kwargs, call.results)
    for operation in ("linear_backward", "conv2d_backward", "relu_conv2d_backward"):
        for index in found.of(operation):
            _send_first(found, index)
    _fuse_updates(found)
    return [found.calls[index] for index in sorted(found.calls)]


def _fuse_updates(found: _Program) -> None:
    """The updates of a column's parameters as one (see `minialex_cuda.compiler.updates`)."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for index in found.of("sgd_update"):
        call = found.calls[index]
        w = call.args[0]
        groups[w.device, call.column, w.dtype, call.kwargs["momentum"]].append(index)
    for (*_, momentum), indices in groups.items():
        calls = [found.calls[index] for index in indices]
        numbers = {
            "learning_rates": tuple(call.kwargs["learning_rate"] for call in calls),
            "momentum": momentum,
            "weight_decays": tuple(call.kwargs["weight_decay"] for call in calls),
        }
        args = zip(*(call.args for call in calls), strict=True)
        found.replace(indices, "sgd_updates", args, numbers, [call.results[0] for call in calls])


def _send_first(found: _Program, index: float) -> None:
    """A gradient that other columns wait for comes first; those of the weights come after it was cut up for them."""
    call = found.calls[index]
    dx, *rest = call.results
    cut = found.sole(dx, "split")
    if cut is None:
        return
    numbers = {name: value for name, value in call.kwargs.items() if name != "need_dx"}
    name = call.operation.removesuffix("_backward")
    first, second = (call.args[0], call.args[2]), call.args[:2]
    if name != "linear":
        first = second = call.args
    found.calls[index] = replace(call, operation=f"{name}_dx", args=first, kwargs=numbers, results=(dx,))
    after = replace(call, operation=f"{name}_dw", args=second, kwargs=numbers, results=tuple(rest))
    found.calls[cut + 0.5] = after


def _fuse_norm_pool(found: _Program, index: float) -> None:
    """Normalisation, pooling and, in training, both gradients: fused if nobody else reads y or scale."""
    norm = found.calls[index]
    (x,), (y, scale) = norm.args, norm.results
    assert y is not None
    assert scale is not None
    readers = {found.calls[i].operation: i for i in found.readers[y]}
    if {y, scale} & found.outputs or len(readers) != len(found.readers[y]) or "max_pool2d" not in readers:
        return
    forward = readers.pop("max_pool2d")
    pool = found.calls[forward]
    (pooled,) = pool.results
    assert pooled is not None
    if pool.kwargs["size"] ** 2 > 256 or found.readers[scale] != list(readers.values())[-1:]:
        return
    numbers = {"window": norm.kwargs["size"], **{name: norm.kwargs[name] for name in ("k", "alpha", "beta")}}
    back: list[float] = []
    if readers:
        if set(readers) != {"max_pool2d_backward", "local_response_norm_backward"}:
            return
        back = [readers["max_pool2d_backward"], readers["local_response_norm_backward"]]
        unpool, unnorm = (found.calls[i] for i in back)
        chained = found.sole(unpool.results[0], "local_response_norm_backward") == back[1]
        if not chained or unpool.kwargs["ties"] != "first" or found.readers[scale] != [back[1]]:
            return
    where = found.value(pooled.shape, np.uint8, pooled.device)
    if back:
        result, rectify = unnorm.results[0], False
        relu = found.sole(result, "relu_backward")
        if relu is not None and found.calls[relu].args[1] is x:
            result, rectify = found.calls[relu].results[0], True
            back.append(relu)
        shape = {name: pool.kwargs[name] for name in ("size", "stride")}
        found.readers[where] = [max(back)]
        found.replace(
            back, "norm_pool_backward", (unpool.args[0], x, where), {**numbers, **shape, "rectify": rectify}, [result]
        )
    found.replace([index, forward], "norm_pool", (x,), {**numbers, **pool.kwargs}, [pooled, where])

"""Keeps maps channels last throughout a step: `channels_last` rewrites a program after `fusion`.

Operations with a form in words of four channels (`minialex_cuda.ops.words`) use it; maps are converted for the others
and back. The rows [N,D] of fully connected layers are maps of one place, [N,1,1,D]. In bfloat16 both are stored in that
format, two bytes per number, from the first convolution to the input of the last fully connected layer; weights and
their gradients are float32. Layers whose channels or features are not a multiple of four (in bfloat16, of eight) keep
the flat kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minialex.backend.program import Call, Program, Value, values
from minialex_cuda.ops import channels_last as last
from minialex_cuda.ops import conv2d_last, full_last
from minialex_cuda.ops.norm_pool_words import SIZE, STRIDE, WINDOWS, max_pool2d_backward, norm_pool, norm_pool_backward
from minialex_cuda.ops.words import MOST_BLOCKS, MOST_CHANNELS

OPERATIONS: dict[str, Callable[..., Any]] = {
    "to_last": last.to_last,
    "to_first": last.to_first,
    "space_to_depth": conv2d_last.space_to_depth,
    "augment_deep": conv2d_last.augment_deep,
    "conv2d_last": conv2d_last.conv2d,
    "conv2d_relu_last": partial(conv2d_last.conv2d, rectify=True),
    "conv2d_backward_last": conv2d_last.conv2d_backward,
    "relu_conv2d_backward_last": conv2d_last.conv2d_backward,
    "conv2d_dx_last": conv2d_last.conv2d_dx,
    "relu_conv2d_dx_last": conv2d_last.conv2d_dx,
    "conv2d_dw_last": conv2d_last.conv2d_dw,
    "relu_conv2d_dw_last": conv2d_last.conv2d_dw,
    "norm_pool_last": norm_pool,
    "norm_pool_backward_last": norm_pool_backward,
    "max_pool2d_last": norm_pool,
    "max_pool2d_backward_last": partial(max_pool2d_backward, rectify=False),
    "max_pool2d_relu_backward_last": partial(max_pool2d_backward, rectify=True),
    "relu_last": last.relu,
    "relu_backward_last": last.relu_backward,
    "add_last": last.add,
    "concat_last": last.concat,
    "split_last": last.split,
    "converted": last.converted,
    "rows_last": partial(last.to_first, rows=True),
    "linear_last": partial(full_last.linear, rectify=False),
    "linear_relu_last": partial(full_last.linear, rectify=True),
    "linear_backward_last": full_last.linear_backward,
    "linear_dx_last": full_last.linear_dx,
    "linear_dw_last": full_last.linear_dw,
    "dropout_last": full_last.dropout,
    "dropout_backward_last": full_last.dropout_backward,
}
"""The operations that this module puts into a program."""

MOST_WORDS = 1 << 31
"""The most words in a map: they are counted in 32 bits."""


def channels_last(program: Program, dtype: np.dtype[Any]) -> tuple[Program, dict[Value, Value]]:
    """Rewrite a program so that its maps are channels last wherever possible.

    Args:
        program: the result of `minialex_cuda.compiler.fusion.fuse`; its maps are [N,C,H,W]
        dtype: dtype in which maps are stored: float32 or, for bfloat16, uint16

    Returns:
        The program, and of bound arrays that it reads rounded, the rounded ones: it takes them as given, and its
        updates write them.
    """
    made = _Layout(program, dtype)
    return made.program, made.rounded


def fits(dtype: np.dtype[Any], *maps: Value | None) -> bool:
    """Whether all of these maps (or rows) can be stored channels last in `dtype`."""
    for value in maps:
        if value is None or len(value.shape) not in (2, 4) or value.dtype != np.float32:
            return False
        N, C, H, W = (*value.shape, 1, 1)[:4]
        together = 8 if dtype == np.uint16 else 4  # tensor cores need multiples of eight two-byte numbers
        if (
            C % together
            or not 0 < C <= (MOST_CHANNELS if len(value.shape) == 4 else MOST_WORDS)
            or max(N, H) > MOST_BLOCKS
            or N * C * H * W // 4 >= MOST_WORDS
        ):
            return False
    return True


class _Layout:
    """A program that is being rewritten. Maps are identified by their values in the original program."""

    def __init__(self, program: Program, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._made: list[Call] = []
        self._last: dict[Value, Value] = {}  # maps that exist channels last
        self._elsewhere: set[Value] = set()  # those of them that do not exist channels first
        self._deep: dict[Any, Value] = {}  # images in the layout of the first convolution
        self._augmented: dict[Value, Call] = {}  # images not made yet, and the call that would make them
        self._narrow: dict[Value, Value] = {}  # weights of fully connected layers, rounded
        self._bound = set(program.bound.values())
        self.rounded: dict[Value, Value] = {}  # those of them that outlive the step, as their copies do
        self._where: dict[Value, Value] = {}  # for pooled maps: where in each window its maximum was
        self._now: Call
        for self._now in program.calls:
            if not self._done(self._now):
                self._keep(self._now)
        for value in program.outputs.values():
            self._first(value)
        self.program = replace(program, calls=tuple(map(self._updated, self._made)))

    # ---- values -------------------------------------------------------------------------------------------------

    def _value(self, shape: Sequence[int], dtype: Any, device: str) -> Value:
        return Value(-1, tuple(shape), np.dtype(dtype), device)

    def _fits(self, *maps: Value | None) -> bool:
        return fits(self._dtype, *maps)

    def _to(self, value: Value) -> Value:
        """The channels-last form of a result of the program."""
        N, C, H, W = (*value.shape, 1, 1)[:4]
        made = self._value((N, H, W, C), self._dtype if value.dtype == np.float32 else value.dtype, value.device)
        self._last[value] = made
        self._elsewhere.add(value)
        return made

    def _at(self, value: Value) -> Value:
        """The channels-last form of a map, converted if needed."""
        if value not in self._last:
            self._first(value)
            made = self._to(value)
            self._elsewhere.discard(value)
            if len(value.shape) == 4:
                self._add("to_last", (value,), {}, (made,))
            else:
                self._stored(value, made)
        return self._last[value]

    def _first(self, value: Value) -> None:
        """Make sure that the channels-first form of a map exists."""
        if value in self._augmented:
            self._made.append(self._augmented.pop(value))
        if value in self._elsewhere:
            self._elsewhere.discard(value)
            if len(value.shape) == 4:
                self._add("to_first", (self._last[value],), {}, (value,))
            else:
                self._stored(self._last[value], value)

    def _stored(self, value: Value, made: Value) -> None:
        """The same numbers, in the same order, in the storage of `made`."""
        if value.dtype != made.dtype:
            between = self._value(value.shape, made.dtype, made.device)
            self._add("converted", (value,), {"dtype": made.dtype}, (between,))
            value = between
        self._add("reshape", (value, made.shape), {}, (made,))

    def _weights(self, w: Value) -> Value:
        """Weights of a fully connected layer in the form that products take."""
        if self._dtype == w.dtype:
            return w
        if w not in self._narrow:
            made = self._narrow[w] = self._value(w.shape, self._dtype, w.device)
            if w in self._bound:
                self.rounded[w] = made
            else:
                self._add("converted", (w,), {"dtype": self._dtype}, (made,))
        return self._narrow[w]

    def _updated(self, call: Call) -> Call:
        """A call; an update with the rounded weights that it writes, too."""
        if call.operation != "sgd_updates":
            return call
        ws, vs, dws, _ = call.args
        return replace(call, args=(ws, vs, dws, tuple(map(self.rounded.get, ws))))

    # ---- calls --------------------------------------------------------------------------------------------------

    def _add(
        self, operation: str, args: Sequence[Any], kwargs: dict[str, Any], results: Sequence[Value | None]
    ) -> None:
        now = self._now
        self._made.append(Call(operation, tuple(args), kwargs, tuple(results), now.layer, now.column, now.phase))

    def _keep(self, call: Call) -> None:
        """Keep a call unchanged."""
        for value in values((call.args, call.kwargs)):
            self._first(value)
        self._made.append(call)

    def _done(self, call: Call) -> bool:
        """Add the channels-last form of a call; returns False if it has none."""
        name = call.operation
        if name == "augment" and call.results[0] is not None and call.results[0].dtype == np.float32:
            self._augmented[call.results[0]] = call  # the first convolution may need another order
            return True
        if name in ("conv2d", "conv2d_relu"):
            return self._convolve(call)
        if name.removeprefix("relu_") in ("conv2d_backward", "conv2d_dx", "conv2d_dw"):
            return self._convolve_back(call)
        if name in ("norm_pool", "max_pool2d"):
            return self._pool(call)
        if name in ("norm_pool_backward", "max_pool2d_backward", "max_pool2d_relu_backward"):
            return self._pool_back(call)
        if name == "reshape":
            return self._reshape(call)
        if name.startswith("linear"):
            return self._multiply(call)
        if name.startswith("dropout"):
            return self._drop(call)
        there = values(call.args)
        if name in ("relu", "relu_backward", "add", "concat", "split", "copy_to"):
            if not all(value in self._last for value in there) or not self._fits(*call.results):
                return False
            args = [_exchanged(argument, self._last) for argument in call.args]
            form = name if name == "copy_to" else f"{name}_last"
            self._add(form, args, call.kwargs, [self._to(v) for v in call.results if v is not None])
            return True
        return False

    def _images(self, x: Value, w: Value, kwargs: dict[str, Any]) -> tuple[Value, dict[str, Any]] | None:
        """x in the form that a convolution takes, and its extra arguments; None if it cannot."""
        numbers = {"stride": kwargs["stride"], "padding": kwargs["padding"]}
        if self._fits(x):
            return self._at(x), numbers
        if len(x.shape) != 4 or x.dtype != np.float32:
            return None
        key = x, *numbers.values(), w.shape[2:]
        if key not in self._deep:
            asked = {**numbers, "kernel": w.shape[2:]}
            shape = conv2d_last.deep_shape(x.shape, **asked)
            if not self._fits(self._value((shape[0], shape[3], *shape[1:3]), np.float32, x.device)):
                return None
            self._deep[key] = self._value(shape, self._dtype, x.device)
            if x in self._augmented:
                now, given = self._augmented[x], self._augmented[x].kwargs
                results = (self._deep[key],)
                self._made.append(replace(now, operation="augment_deep", kwargs={**given, **asked}, results=results))
            else:
                self._add("space_to_depth", (x,), asked, (self._deep[key],))
        return self._deep[key], {**numbers, "deepened": True}

    def _convolve(self, call: Call) -> bool:
        x, w, b = call.args
        if not self._fits(*call.results):
            return False
        found = self._images(x, w, call.kwargs)
        if found is None:
            return False
        self._add(f"{call.operation}_last", (found[0], w, b), found[1], [self._to(v) for v in call.results if v])
        return True

    def _convolve_back(self, call: Call) -> bool:
        dy, x, w, *relu = call.args
        asks_dx = "_dx" in call.operation or call.kwargs.get("need_dx", False)
        if not self._fits(dy, *relu) or (asks_dx and not self._fits(x)):
            return False
        found = self._images(x, w, call.kwargs)
        if found is None:
            return False
        numbers = found[1] | {name: call.kwargs[name] for name in ("need_dx",) if name in call.kwargs}
        results = [self._to(v) if v is not None and v.shape == x.shape and asks_dx else v for v in call.results[:1]]
        results += call.results[1:]
        self._add(f"{call.operation}_last", (self._at(dy), found[0], w, *map(self._at, relu)), numbers, results)
        return True

    def _reshape(self, call: Call) -> bool:
        """Reshape maps to rows, and rows to maps."""
        (x, _), (y,) = call.args, call.results
        if x not in self._last or y is None or not self._fits(x, y) or {len(x.shape), len(y.shape)} != {2, 4}:
            return False
        if len(y.shape) == 2:
            self._add("rows_last", (self._last[x],), {}, (self._to(y),))
        else:
            self._add("to_last", (self._last[x], y.shape), {}, (self._to(y),))
        return True

    def _multiply(self, call: Call) -> bool:
        """Fully connected layers; the output of one without a ReLU (usually the last) is float32."""
        name, results = call.operation, list(call.results)
        x: Any
        args: tuple[Value, ...]
        if name in ("linear", "linear_relu"):
            x, w, b = call.args
            if not self._fits(x, *results) or b.shape[0] > MOST_CHANNELS:
                return False
            args = self._at(x), self._weights(w), b
        else:
            dy, *rest = call.args
            x = results[0] if name == "linear_dx" else rest[0]
            if not self._fits(dy, x) or dy.shape[1] > MOST_CHANNELS:
                return False
            args = self._at(dy), *(self._at(value) if value is x else self._weights(value) for value in rest)
        if name not in ("linear", "linear_dw") and results[0] is not None:
            results[0] = self._to(results[0])
        self._add(f"{name}_last", args, call.kwargs, results)
        return True

    def _drop(self, call: Call) -> bool:
        """Dropout of rows, and its gradient; the mask is unchanged."""
        (x, *mask), (y, *drawn) = call.args, call.results
        if x not in self._last or len(x.shape) != 2 or y is None:
            return False
        if not mask and call.kwargs["stream"].first_element % 4:
            return False
        self._add(f"{call.operation}_last", (self._last[x], *mask), call.kwargs, (self._to(y), *drawn))
        return True

    def _pool(self, call: Call) -> bool:
        (x,), y, it = call.args, call.results[0], call.kwargs
        if not self._fits(x, y) or (it["size"], it["stride"]) != (SIZE, STRIDE) or it.get("window", 5) not in WINDOWS:
            return False
        assert y is not None
        pooled = self._to(y)
        where = self._value(pooled.shape, np.uint8, pooled.device)
        self._where[call.results[1] if len(call.results) > 1 else y] = where  # type: ignore[index]
        self._add(f"{call.operation}_last", (self._at(x),), it, (pooled, where))
        return True

    def _pool_back(self, call: Call) -> bool:
        dy, x, pooled = call.args
        if pooled not in self._where or not self._fits(dy, x) or call.kwargs.get("ties", "first") != "first":
            return False
        (dx,) = call.results
        assert dx is not None
        names = ("window", "k", "alpha", "beta", "size", "stride", "rectify")
        numbers = {n: call.kwargs[n] for n in names if n in call.kwargs} if call.operation.startswith("norm") else {}
        args = self._at(dy), self._at(x), self._where[pooled]
        self._add(f"{call.operation}_last", args, numbers, (self._to(dx),))
        return True


def _exchanged(argument: Any, by: dict[Value, Value]) -> Any:
    if isinstance(argument, Value):
        return by[argument]
    if isinstance(argument, list | tuple):
        return type(argument)(_exchanged(item, by) for item in argument)
    return argument

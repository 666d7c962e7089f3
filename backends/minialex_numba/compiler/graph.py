"""A fused program and its slices: which values are parts of others.

A column's channels are a slice of all channels, so `concat` and `split` are free; what cannot be a slice is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minialex.backend.operations import FUNCTIONS
from minialex.backend.program import Call, Program, Value, values
from minialex.backend.rewrite import Rewrite
from minialex_numba.compiler.passes import fuse
from minialex_numba.runtime.buffers import Slices, Unsupported, row_width

KEEP_ORDER = ("add", "scale", "scale_by_trust_ratio")
"""Elementwise operations of the protocol: their results have the memory layout of their arguments."""

SUMS = ("sum_over_ranks", "await_sums")


def build(program: Program) -> tuple[Program, Slices]:
    """Fuse a program, replace its `concat` and `split` by slices, and return both.

    Raises:
        Unsupported: if the kernels of compiled steps cannot do something in the program
    """
    rewrite = Rewrite(fuse(program))
    for call in rewrite.of("sum_over_ranks"):
        _begin_and_wait(rewrite, call)
    names = {value: name for name, value in (program.bound | program.fed).items()}
    slices = Slices(names, set(program.bound.values()))
    slices.plain = _plain(rewrite.calls, slices.bound)
    for call in rewrite.of("split"):
        whole, _ = call.args
        offset = 0
        for piece in call.results:
            if piece:
                slices.parents[piece] = whole, offset
                offset += row_width(piece)
        rewrite.remove(call)
    for call in rewrite.of("conv2d"):
        if len(call.results) > 1:
            slices.join([y for y in call.results if y])
    for call in reversed(rewrite.of("conv2d_backward")):
        if len(call.args[0]) > 1:
            _side_by_side(rewrite, slices, call)
    for call in reversed(rewrite.of("concat")):
        _concatenate(rewrite, slices, call)
    return rewrite.program, slices


def _plain(calls: Sequence[Call], bound: set[Value]) -> set[Value]:
    """The values stored in the protocol's order: gradients of parameters, and what is computed from them.

    Raises:
        Unsupported: if an operation would treat such a gradient as feature maps, which are stored as rows
    """
    plain: set[Value] = set()
    for call in calls:
        read = values((call.args, call.kwargs))
        own = call.operation in FUNCTIONS
        if call.operation in ("conv2d_backward", "linear_backward"):
            plain.update(value for value in call.results[1:] if value)
            continue
        if own and call.operation.endswith("_backward"):  # a gradient has the layout of what it belongs to
            likes = zip(call.results, read[1:], strict=False)
            plain.update(value for value, like in likes if value and (like in bound or like in plain))
        if call.operation in ("sgd_update", *SUMS) or plain.isdisjoint(read):
            continue
        keeps = (own or call.operation in KEEP_ORDER) and all(value in plain or value in bound for value in read)
        if keeps:
            plain.update(value for value in call.results if value)
        elif any(value in plain and len(value.shape) > 2 for value in read):
            raise Unsupported(f"{call.operation} of a parameter's gradient")
    return plain


def _begin_and_wait(rewrite: Rewrite, call: Call) -> None:
    """Make a sum over ranks in place: it begins where it stood, and its first reader waits for it.

    Raises:
        Unsupported: if something else reads the summands, or nothing reads the sums
    """
    (xs,) = call.args
    readers = [reader for total in values(call.results) for reader in rewrite.readers(total)]
    if any(rewrite.is_output(x) or len(rewrite.readers(x)) > 1 for x in xs) or not readers:
        raise Unsupported("a sum over ranks that is not in place")
    first = min(readers, key=rewrite.position)
    begun: list[Any] = []
    where = first.layer, call.column, call.phase
    rewrite.insert_before(first, Call("await_sums", (xs,), {"begun": begun}, (), *where))
    for x, total in zip(xs, call.results, strict=True):
        if total is not None:
            rewrite.substitute(total, x)
    rewrite.replace([call], call.operation, call.args, {**call.kwargs, "begun": begun}, ())


def _concatenate(rewrite: Rewrite, slices: Slices, call: Call) -> None:
    """Make the parts slices of the whole, or copy them into it."""
    (parts,), (whole,) = call.args, call.results
    assert whole is not None
    offset = 0
    for part in parts:
        if slices.is_free(part) and slices.root(whole) is not part:
            slices.parents[part] = whole, offset
        else:
            copy = rewrite.value(part.shape, part.dtype, part.device)
            slices.parents[copy] = whole, offset
            _copy(rewrite, part, copy, call)
        offset += row_width(part)
    rewrite.remove(call)


def _side_by_side(rewrite: Rewrite, slices: Slices, call: Call) -> None:
    """Make the gradients that a joined convolution reads slices of one array; copy those that are slices of others."""
    parts, *others = call.args
    if slices.are_adjacent(parts):
        return
    if len(set(parts)) == len(parts) and all(map(slices.is_free, parts)):
        slices.join(parts)
        return
    copies = [rewrite.value(part.shape, part.dtype, part.device) for part in parts]
    slices.join(copies)
    for part, copy in zip(parts, copies, strict=True):
        _copy(rewrite, part, copy, call)
    rewrite.replace([call], call.operation, (copies, *others), call.kwargs, call.results)


def _copy(rewrite: Rewrite, source: Value, target: Value, before: Call) -> None:
    where = before.layer, before.column, before.phase
    rewrite.insert_before(before, Call("copy", (source,), {}, (target,), *where))

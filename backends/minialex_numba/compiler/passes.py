"""Rewrites a recorded step into fewer, larger operations.

All devices of this backend share one memory, so copies between them vanish, and what is fed to each device
(``NAME@DEVICE``) is one array. Work that columns repeat is done once: equal concatenations, convolutions that read the
same input, sums of their input's gradients. Then neighbours are fused: a ReLU into the operation before it, forward and
backward; normalisation and pooling; the update of a fully connected layer's weights into the kernel of their gradient.

Calls keep the protocol's names; their arguments show what is fused. Weights, biases and their gradients are lists with
one entry per column; see the node functions for all arguments.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from minialex.backend.program import ArrayName, Call, Program, Value, values
from minialex.backend.rewrite import Rewrite
from minialex_numba.ops.local_response_norm import Norm
from minialex_numba.ops.max_pool2d import winner_dtype
from minialex_numba.ops.normalised_pool import fits
from minialex_numba.ops.sgd_update import Rates
from minialex_numba.runtime.buffers import Unsupported

ONCE = ("concat", "split", "augment", "zeros", "local_response_norm", "spatial_response_norm", "reshape")
"""Operations that several columns call with equal arguments: they are computed once."""


def fuse(program: Program) -> Program:
    """Return the program with its operations fused.

    Raises:
        Unsupported: if the kernels of compiled steps cannot do something in the program
    """
    rewrite = Rewrite(program)
    _compute_once(rewrite)
    for operation in ("conv2d_backward", "linear_backward"):
        _join_backward(rewrite, operation)
    _join_forward(rewrite)
    for operation in ("conv2d", "linear"):
        _fuse_relu(rewrite, operation)
    for call in rewrite.of("local_response_norm"):
        _fuse_normalisation(rewrite, call)
    for call in rewrite.of("max_pool2d", "normalised_pool"):
        _keep_winner(rewrite, call)
    _fuse_backward(rewrite)
    if any("k" not in call.kwargs for call in rewrite.of("local_response_norm_backward")):
        raise Unsupported("the gradient of a normalisation that is not there")
    return rewrite.program


def _compute_once(rewrite: Rewrite) -> None:
    """Merge values that are the same array."""
    shared: dict[ArrayName, Value] = {}
    for name, value in (rewrite.program.bound | rewrite.program.fed).items():
        first = shared.setdefault(name._replace(device=""), value)
        if first is not value:
            rewrite.substitute(value, first)
    results: dict[Any, tuple[Value | None, ...]] = {}
    position = 0
    while position < len(rewrite.calls):
        call = rewrite.calls[position]
        existing = _existing(call, results)
        if existing is None:
            position += 1
            continue
        rewrite.remove(call)
        for result, same in zip(call.results, existing, strict=True):
            if result and same:
                rewrite.substitute(result, same)


def _existing(call: Call, results: dict[Any, tuple[Value | None, ...]]) -> tuple[Value | None, ...] | None:
    """The values that a call would make, if they exist already."""
    read = values(call.args)
    if call.operation == "copy_to" or (call.operation == "concat" and len(read) == 1):
        return tuple(read)
    result = call.results[0]
    if call.operation == "reshape" and result and result.shape == read[0].shape:
        return tuple(read)
    if call.operation not in ONCE:
        return None
    args = call.args[:2] if call.operation == "zeros" else call.args  # on whatever device
    key = call.operation, _hashable(args), tuple(sorted(call.kwargs.items()))
    earlier = results.setdefault(key, call.results)
    return None if earlier is call.results else earlier


def _hashable(argument: Any) -> Any:
    return tuple(map(_hashable, argument)) if isinstance(argument, list | tuple) else argument


def _alike(calls: list[Call], read: int, weights: int) -> list[list[Call]]:
    """Group calls that agree in the input they read, in kernel size and in options, in program order."""
    groups: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        groups[call.args[read], call.args[weights].shape[2:], tuple(sorted(call.kwargs.items()))].append(call)
    return list(groups.values())


def _join_backward(rewrite: Rewrite, operation: str) -> None:
    """Join the gradient calls of all readers of one input into one call, whose dx is the sum."""
    while single := [call for call in rewrite.of(operation) if isinstance(call.args[2], Value)]:
        group = _alike(single, 1, 2)[0]
        joins = _unread_before_last(rewrite, group) and (
            not group[0].kwargs["need_dx"] or len(group) == 1 or _take_sum(rewrite, group)
        )
        for calls in [group] if joins else [[call] for call in group]:
            dys, xs, ws = zip(*(call.args for call in calls), strict=True)
            dxs, dws, dbs = zip(*(call.results for call in calls), strict=True)
            args = list(dys), xs[0], list(ws)
            joined = rewrite.replace(calls, operation, args, calls[0].kwargs, (dxs[0], *dws, *dbs))
            for reader in rewrite.readers(dxs[0]) if dxs[0] else []:
                if reader.operation == "split":  # it may stand before the last of the calls
                    rewrite.remove(reader)
                    rewrite.insert_after(joined, reader)


def _unread_before_last(rewrite: Rewrite, group: list[Call]) -> bool:
    """Whether no weight or bias gradient of a group is read before its last call, which the joined call replaces."""
    last = max(rewrite.position(call) for call in group)
    read = [reader for call in group for result in call.results[1:] if result for reader in rewrite.readers(result)]
    return all(rewrite.position(reader) > last for reader in read)


def _take_sum(rewrite: Rewrite, group: list[Call]) -> bool:
    """If the gradients dx of a group are only added up, let the first stand for the sum of all; else return False."""
    gradients = [call.results[0] for call in group]
    splits = [split for dx in gradients if (split := rewrite.sole_reader(dx, "split"))]
    summands = list(zip(*(split.results for split in splits), strict=True)) if splits else [tuple(gradients)]
    if splits and (len(splits) < len(group) or any(split.args[1] != splits[0].args[1] for split in splits)):
        return False
    chains: list[tuple[list[Call], Value]] = []
    for terms in summands:
        chain = _chain(rewrite, [term for term in terms if term])
        if chain is None:
            return False
        chains.append(chain)
    for (adds, total), terms in zip(chains, summands, strict=True):
        for add in adds:
            rewrite.remove(add)
        if terms[0]:
            rewrite.substitute(total, terms[0])
    for split in splits[1:]:
        rewrite.remove(split)
    return True


def _chain(rewrite: Rewrite, terms: list[Value]) -> tuple[list[Call], Value] | None:
    """The calls that add the terms one after another, and the sum; None if the terms are also used otherwise."""
    total, adds = terms[0], []
    for term in terms[1:]:
        add = rewrite.sole_reader(total, "add", 0)
        if add is None or rewrite.sole_reader(term, "add", 1) is not add:
            return None
        adds.append(add)
        (result,) = add.results
        assert result is not None
        total = result
    return adds, total


def _join_forward(rewrite: Rewrite) -> None:
    """Join the convolutions that read one input into one call."""
    for group in _alike(rewrite.of("conv2d"), 0, 1):
        xs, ws, bs = zip(*(call.args for call in group), strict=True)
        results = [call.results[0] for call in group]
        rewrite.replace(group, "conv2d", (xs[0], list(ws), list(bs)), group[0].kwargs, results, at_first=True)


def _fuse_relu(rewrite: Rewrite, operation: str) -> None:
    """Fuse the ReLU into an operation if each output is read by nothing but a ReLU."""
    for call in rewrite.of(operation):
        relus = [relu for y in call.results if (relu := rewrite.sole_reader(y, "relu"))]
        if len(relus) == len(call.results):
            results = [relu.results[0] for relu in relus]
            kwargs = {**call.kwargs, "relu": True}
            rewrite.replace([call, *relus], operation, call.args, kwargs, results, at_first=True)


def _fuse_normalisation(rewrite: Rewrite, norm: Call) -> None:
    """Recompute the scale in the backward pass; fuse pooling in if nothing else reads the normalised maps."""
    y, scale = norm.results
    assert y is not None
    assert scale is not None
    for reader in rewrite.readers(scale):
        if reader.operation != "local_response_norm_backward":
            raise Unsupported("a scale that is read")
        rewrite.replace([reader], reader.operation, reader.args[:2], norm.kwargs, reader.results)
    if rewrite.is_output(scale):
        raise Unsupported("a scale that is read")
    alone = rewrite.replace([norm], norm.operation, norm.args, norm.kwargs, (y,))
    readers = rewrite.readers(y)
    pools = [reader for reader in readers if reader.operation == "max_pool2d"]
    others = [reader for reader in readers if reader.operation != "max_pool2d"]
    if len(pools) != 1 or rewrite.is_output(y) or not all(_needs_winner_alone(reader, y) for reader in others):
        return
    if not fits(Norm(**norm.kwargs)):
        return
    (pool,) = pools
    kwargs = {"norm": Norm(**norm.kwargs), **pool.kwargs}
    rewrite.replace([alone, pool], "normalised_pool", norm.args, kwargs, pool.results)


def _needs_winner_alone(reader: Call, y: Value) -> bool:
    """Whether a reader of the normalised maps y is a pooling gradient that needs them only to find the winners."""
    return reader.operation == "max_pool2d_backward" and reader.kwargs["ties"] == "first" and reader.args[0] is not y


def _keep_winner(rewrite: Rewrite, pool: Call) -> None:
    """Keep the position of each window's winner, which a backward pass with ties = "first" reads instead of x and y."""
    (y,) = pool.results
    assert y is not None
    winner: Value | None = None
    for reader in rewrite.readers(y):
        if reader.operation == "max_pool2d_backward" and reader.kwargs["ties"] == "first" and reader.args[2] is y:
            if winner is None:
                winner = rewrite.value(y.shape, winner_dtype(pool.kwargs["size"]), y.device)
                rewrite.replace([pool], pool.operation, pool.args, pool.kwargs, (y, winner))
            args = reader.args[0], winner
            rewrite.replace([reader], reader.operation, args, reader.kwargs, reader.results)


def _fuse_backward(rewrite: Rewrite) -> None:
    for unpool in rewrite.of("max_pool2d_backward"):
        norm = rewrite.sole_reader(unpool.results[0], "local_response_norm_backward", 0)
        if norm and unpool.kwargs["ties"] == "first" and fits(Norm(**norm.kwargs)):
            kwargs = {"norm": Norm(**norm.kwargs), "size": unpool.kwargs["size"], "stride": unpool.kwargs["stride"]}
            args = *unpool.args, norm.args[1]
            rewrite.replace([unpool, norm], "normalised_pool_backward", args, kwargs, norm.results)
    for call in rewrite.of(
        "max_pool2d_backward", "normalised_pool_backward", "local_response_norm_backward", "conv2d_backward",
        "linear_backward",
    ):  # fmt: skip
        _fuse_relu_backward(rewrite, call)
    for call in rewrite.of("linear_backward"):
        _fuse_update(rewrite, call)


def _fuse_relu_backward(rewrite: Rewrite, call: Call) -> None:
    """Fuse the gradient of a ReLU that is the only reader of dx; it is computed where dx was, before any reader."""
    relu = rewrite.sole_reader(call.results[0], "relu_backward", 0)
    if relu is None:
        return
    like = relu.args[1]
    kwargs: dict[str, Any] = {"like": like}
    if call.operation in ("normalised_pool_backward", "local_response_norm_backward"):
        if call.args[-1] is not like:
            return
        kwargs = {"relu": True}
    if call.operation == "max_pool2d_backward" and call.kwargs["ties"] == "all" and call.args[1] is not like:
        return
    results = relu.results[0], *call.results[1:]
    rewrite.replace([call, relu], call.operation, call.args, {**call.kwargs, **kwargs}, results, at_first=True)


def _fuse_update(rewrite: Rewrite, call: Call) -> None:
    """Fuse the updates of all columns' weights, if nothing reads the gradients, nor the weights after the update."""
    dys, x, ws = call.args
    dx, *gradients = call.results
    dws, dbs = gradients[: len(ws)], gradients[len(ws) :]
    updates = [update for dw in dws if (update := rewrite.sole_reader(dw, "sgd_update", 2))]
    if [update.args[0] for update in updates] != ws:
        return
    for w, update in zip(ws, updates, strict=True):
        if [reader for reader in rewrite.readers(w) if reader is not update][-1] is not call:
            return
    kwargs = {**call.kwargs, "rates": [Rates(**update.kwargs) for update in updates]}
    args = dys, x, ws, [update.args[1] for update in updates]
    results = dx, *(update.results[0] for update in updates), *dbs
    rewrite.replace([call, *updates], call.operation, args, kwargs, results, at_first=True)

"""A step of several ranks for a backend whose compiler cannot place sums over ranks: two halves, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.operations import OVER_RANKS, sum_over_ranks
from minialex.backend.program import ArrayName, Call, CompiledStep, Program, Value, Watch, values
from minialex.backend.protocol import Backend


def compile_halves(backend: Backend, program: Program, bound: Mapping[ArrayName, Array]) -> CompiledStep | None:
    """Compile a program with sums over ranks as two, with the sums between them, through the host.

    Args:
        bound: see `Backend.compile_step`

    Returns:
        None if there are no such sums, if ranks exchange activations too, or if the backend does not compile a half.
    """
    sums = [call for call in program.calls if call.operation == "sum_over_ranks"]
    others = any(call.operation in OVER_RANKS for call in program.calls if call.operation != "sum_over_ranks")
    if not sums or others:
        return None
    before, after, late = _halves(program)
    summands = [value for call in sums for value in values(call.args)]
    results = [value for call in sums for value in values(call.results)]
    names = [ArrayName(role=f"sum {number}") for number in range(len(results))]
    early = {name: value for name, value in program.outputs.items() if value not in late}
    first = replace(program, calls=tuple(before), outputs={**early, **dict(zip(names, summands, strict=True))})
    second = replace(
        program, fed=dict(zip(names, results, strict=True)), calls=tuple(after),
        outputs={name: value for name, value in program.outputs.items() if name not in early},
    )  # fmt: skip
    forth, back = backend.compile_step(first, bound), backend.compile_step(second, bound)
    if forth is None or back is None:
        return None

    def step(feed: Mapping[ArrayName, Any], watch: Watch | None = None) -> dict[ArrayName, Array]:
        outputs = forth(feed, watch)
        given = iter([outputs.pop(name) for name in names])
        summed: list[Array] = []
        for call in sums:
            if watch is not None:
                watch(call.layer, call.column, call.phase)
            summed += sum_over_ranks(backend, [next(given) for _ in call.results], **call.kwargs)
        numbers = {name: feed[name] for name in program.symbols}
        return outputs | back({**numbers, **dict(zip(names, summed, strict=True))}, watch)

    return step


def _halves(program: Program) -> tuple[list[Call], list[Call], set[Value]]:
    """The calls that need no sum over ranks, those that do, and the results of these and of the sums."""
    before: list[Call] = []
    after: list[Call] = []
    late: set[Value] = set()
    for call in program.calls:
        waits = not late.isdisjoint(values((call.args, call.kwargs)))
        if waits or call.operation == "sum_over_ranks":
            late.update(value for value in call.results if value)
        if call.operation != "sum_over_ranks":
            (after if waits else before).append(call)
    return before, after, late

"""The tools for passes over recorded programs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minialex.backend.program import Call, Program, Value
from minialex.backend.rewrite import Rewrite


def value(index: int) -> Value:
    return Value(index, (2, 3), np.dtype("float32"), "cpu:0")


X, A, B, C, D = map(value, range(5))


@pytest.fixture
def rewrite() -> Rewrite:
    """relu x = a; concat a, x = b; add a, b = c; relu c = d; of which b and d are returned."""
    calls = (
        Call("relu", (X,), {}, (A,), "one", 0, "forward"),
        Call("concat", ([A, X],), {}, (B,), "two", 1, "forward"),
        Call("add", (A,), {"y": B}, (C,), "three", 1, "forward"),
        Call("relu", (C,), {}, (D,), "four", 0, "forward"),
    )
    return Rewrite(Program({"x": X}, {}, (), calls, {"b": B, "d": D}))


def operations(rewrite: Rewrite) -> list[str]:
    return [call.operation for call in rewrite.calls]


def test_readers_come_in_order_and_count_nested_and_named_arguments(rewrite: Rewrite) -> None:
    assert [call.operation for call in rewrite.readers(A)] == ["concat", "add"]
    assert [call.operation for call in rewrite.readers(X)] == ["relu", "concat"]
    assert rewrite.readers(D) == []
    assert [call.layer for call in rewrite.of("relu", "add")] == ["one", "three", "four"]


def test_a_sole_reader_is_alone_of_the_kind_and_no_output(rewrite: Rewrite) -> None:
    assert rewrite.sole_reader(C, "relu") is rewrite.calls[3]
    assert rewrite.sole_reader(C, "relu", 0) is rewrite.calls[3]
    assert rewrite.sole_reader(C, "add") is None
    assert rewrite.sole_reader(A, "add") is None, "two read it"
    assert rewrite.sole_reader(A, "concat") is None, "two read it, and it is the first of them"
    assert rewrite.sole_reader(B, "add") is None, "it is returned"
    assert rewrite.sole_reader(None, "add") is None
    rewrite.replace([rewrite.calls[3]], "pair", (B, C), {}, (D,))
    assert rewrite.sole_reader(C, "pair", 1) is not None
    assert rewrite.sole_reader(C, "pair", 0) is None, "another argument"


@pytest.mark.parametrize(("at_first", "left"), [(False, ["concat", "new"]), (True, ["new", "concat"])])
def test_calls_are_replaced_by_one(rewrite: Rewrite, at_first: bool, left: list[str]) -> None:
    one, _, three, four = rewrite.calls
    new = rewrite.replace([four, one, three], "new", [X, (B,)], {"size": 3}, [A, None, D], at_first=at_first)
    assert operations(rewrite) == left
    assert new == Call("new", (X, (B,)), {"size": 3}, (A, None, D), "one", 0, "forward")
    assert rewrite.readers(C) == []
    assert rewrite.readers(B) == [new]
    assert rewrite.program.calls == tuple(rewrite.calls)


def test_calls_are_inserted_and_removed(rewrite: Rewrite) -> None:
    first, second = rewrite.calls[:2]
    rewrite.insert_after(first, replace(first, operation="after"))
    rewrite.insert_before(first, replace(first, operation="before"))
    rewrite.remove(second)
    assert operations(rewrite) == ["before", "relu", "after", "add", "relu"]
    assert [call.operation for call in rewrite.readers(X)] == ["before", "relu", "after"]


def test_equal_calls_are_told_apart(rewrite: Rewrite) -> None:
    twin = replace(rewrite.calls[0])
    rewrite.insert_after(rewrite.calls[3], twin)
    assert rewrite.position(twin) == 4
    rewrite.remove(twin)
    assert rewrite.readers(X) == rewrite.calls[:2]


def test_a_value_is_read_in_the_place_of_another(rewrite: Rewrite) -> None:
    new = rewrite.value((4, 5), "uint8", "cpu:1")
    assert (new.shape, new.dtype, new.device) == ((4, 5), np.dtype("uint8"), "cpu:1")
    assert len({new.index, rewrite.value((1,), "uint8", "cpu:1").index, *range(5)}) == 7
    rewrite.substitute(B, new)
    rewrite.substitute(A, X)
    assert operations(rewrite) == ["relu", "concat", "add", "relu"]
    assert rewrite.calls[1].args == ([X, X],)
    assert (rewrite.calls[2].args, rewrite.calls[2].kwargs) == ((X,), {"y": new})
    assert rewrite.program.outputs == {"b": new, "d": D}
    assert [call.operation for call in rewrite.readers(X)] == ["relu", "concat", "add"]
    assert rewrite.readers(A) == rewrite.readers(B) == []

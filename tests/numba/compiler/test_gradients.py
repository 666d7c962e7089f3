"""Gradients of parameters as outputs of compiled steps: they lie in the protocol's order, and are no images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minialex.backend import operations
from minialex.backend.operations import register
from minialex.backend.program import STEP, ArrayName, Program, Value
from minialex.backend.recorder import Recorder, interpret
from minialex.conformance import steps
from minialex_numba import NumbaBackend
from minialex_numba.compiler.step import Step
from minialex_numpy import NumpyBackend


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    before = dict(operations.OPERATIONS), dict(operations.FUNCTIONS)
    yield
    for held, was in zip((operations.OPERATIONS, operations.FUNCTIONS), before, strict=True):
        held.clear()
        held.update(was)


def gradients(program: Program) -> dict[ArrayName, Value]:
    """The gradients that a recorded step's updates read, by their parameters' names."""
    names = {value: name for name, value in program.bound.items()}
    updates = [call for call in program.calls if call.operation == "sgd_update"]
    return {names[call.args[0]].to("gradient"): call.args[2] for call in updates}


def after(program: Program, *operations: tuple[str, tuple[Any, ...]]) -> tuple[Program, list[Value]]:
    """A program with more operations at its end, and what they give; an argument may be a number of an earlier one."""
    recorder = Recorder(("cpu:0", "cpu:1"), list(program.calls), count=10**6)
    made: list[Value] = []
    for name, arguments in operations:
        given = [made[a] if isinstance(a, int) else a for a in arguments]
        made.append(recorder.call(name, *given))
    return replace(program, calls=tuple(recorder.calls)), made


def check(program: Program) -> None:
    """The outputs and weights of some steps, compiled, against those of the reference."""
    given = steps.data("float64")

    def compiled(program: Program, backend: Any, bound: Any) -> Any:
        step = backend.compile_step(program, bound)
        assert isinstance(step, Step), "the step was not compiled"
        return step

    run = steps.execute(NumbaBackend(threads=2), program, given, compiled)
    wanted = steps.execute(NumpyBackend(), program, given, interpret)
    for arrays, others in zip(run, wanted, strict=True):
        for name, array in arrays.items():
            assert array.shape == others[name].shape
            np.testing.assert_allclose(array, others[name], rtol=1e-7, atol=1e-10, err_msg=str(name))


@pytest.mark.parametrize("placement", [("cpu:0", "cpu:0"), ("cpu:0", "cpu:1")])
def test_they_come_out_as_the_protocol_has_them(placement: tuple[str, str]) -> None:
    program = steps.program_of("train", "float64", placement, ("cpu:0", "cpu:1"), more=False)
    assert STEP in program.symbols
    check(replace(program, outputs={**program.outputs, **gradients(program)}))


def test_so_does_what_is_made_of_them() -> None:
    program = steps.program_of("train", "float64", ("cpu:0", "cpu:0"), ("cpu:0", "cpu:1"), more=False)
    dw = next(value for name, value in gradients(program).items() if len(value.shape) == 4 and name.layer == "conv2")
    w = program.bound[ArrayName("conv2", "weight")]
    register("by_place", lambda xp, x: x * xp.arange(x.shape[-1]), lambda xp, dy, x: dy)
    longer, made = after(program, ("add", (dw, dw)), ("scale", (0, 0.5)), ("by_place", (1,)), ("add", (2, w)))
    names = [ArrayName(role=f"made {number}") for number in range(len(made))]
    check(replace(longer, outputs={**program.outputs, **dict(zip(names, made, strict=True))}))


def test_what_would_take_one_for_images_is_not_compiled() -> None:
    program = steps.program_of("train", "float64", ("cpu:0", "cpu:0"), ("cpu:0", "cpu:1"), more=False)
    dw = next(value for value in gradients(program).values() if len(value.shape) == 4)
    longer, (y,) = after(program, ("relu", (dw,)))
    longer = replace(longer, outputs={**program.outputs, ArrayName(role="y"): y})
    backend = NumbaBackend(threads=1)
    bound = {name: backend.zeros(value.shape, "float64", value.device) for name, value in program.bound.items()}
    assert backend.compile_step(longer, bound) is None

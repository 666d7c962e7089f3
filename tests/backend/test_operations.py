"""Operations of one's own: registered, recorded, run on a backend's arrays, and refused where they do not fit."""

import sys

import numpy as np
import pytest

from minialex.backend import operations, registry
from minialex.backend.imports import find
from minialex.backend.operations import Operation, register
from minialex.backend.program import Program
from minialex.backend.recorder import Recorder, interpret
from minialex.backend.rules import Spec
from minialex.errors import ConfigurationError, DeviceMismatch


@pytest.fixture(autouse=True)
def _forgotten():
    before = dict(operations.OPERATIONS), dict(operations.FUNCTIONS)
    yield
    for held, was in zip((operations.OPERATIONS, operations.FUNCTIONS), before, strict=True):
        held.clear()
        held.update(was)


def leaky() -> Operation:
    return register(
        "leaky",
        lambda xp, x, *, slope: xp.where(x > 0, x, slope * x),
        lambda xp, dy, x, *, slope: xp.where(x > 0, dy, slope * dy),
    )


def test_it_runs_forward_and_backward_on_a_backend(backend):
    own = leaky()
    x = backend.to_device(np.float32([-2, 0, 3]), "cpu:1")
    y = own(backend, x, slope=0.5)
    assert (y.device, y.dtype) == ("cpu:1", np.float32)
    assert backend.to_numpy(y).tolist() == [-1, 0, 3]
    assert backend.to_numpy(own.gradient(backend, y, x, slope=0.5)).tolist() == [-0.5, 0, 3]


def test_arrays_of_two_devices_are_refused(backend):
    own = leaky()
    x, dy = (backend.to_device(np.zeros(3, np.float32), device) for device in backend.devices)
    with pytest.raises(DeviceMismatch, match="leaky_backward"):
        own.gradient(backend, dy, x, slope=0.5)


def test_it_is_recorded_as_the_protocols_are_and_run_again(backend):
    own = leaky()
    recorder = Recorder(("cpu:0",))
    x = recorder.value((2, 3), "float32", "cpu:0")
    y = own(recorder, backend_add(recorder, x), slope=0.5)
    dx = own.gradient(recorder, y, x, slope=0.5)
    assert [call.operation for call in recorder.calls] == ["add", "leaky", "leaky_backward"]
    program = Program({}, {"x": x}, (), tuple(recorder.calls), {"y": y, "dx": dx})
    source = np.float32([[-1, 2, 3], [4, -5, 6]])
    outputs = interpret(program, backend, {})({"x": backend.to_device(source, "cpu:0")})
    assert backend.to_numpy(outputs["y"]).tolist() == np.where(source > 0, 2 * source, source).tolist()


def backend_add(recorder, x):
    return recorder.add(x, x)


def test_several_arrays_and_results(backend):
    def forward(xp, x, weight):
        return x @ weight, x.max(axis=1) > 0

    def backward(xp, dy, x, weight, positive):
        return dy @ weight.T, x.T @ (dy * positive[:, None])

    def shape(x, weight):
        return [(x.shape[0], weight.shape[1]), Spec((x.shape[0],), np.dtype(bool))]

    own = register("product", forward, backward, shape=shape)
    x, weight = (backend.to_device(np.ones(s, np.float32), "cpu:0") for s in ((2, 3), (3, 4)))
    y, positive = own(backend, x, weight)
    dx, dweight = own.gradient(backend, y, x, weight, positive)
    assert (dx.shape, dweight.shape, positive.dtype) == ((2, 3), (3, 4), np.dtype(bool))
    with pytest.raises(ConfigurationError, match=r"expected 3 arrays after dy, got 2"):
        own.gradient(backend, y, x, weight)
    with pytest.raises(ConfigurationError, match=r"product: expected 2 arrays \(x, weight\), got 1"):
        own(backend, x)
    with pytest.raises(ConfigurationError, match=r"product_backward: expected dy \(2, 4\) float32, got \(2, 3\)"):
        own.gradient(backend, x, x, weight, positive)


def test_results_that_are_not_what_the_rule_says(backend):
    own = register("wide", lambda xp, x: x * np.float64(2) * np.ones(1), lambda xp, dy, x: dy)
    x = backend.to_device(np.ones(3, np.float32), "cpu:0")
    with pytest.raises(ConfigurationError, match=r"wide gave \(3,\) float64, expected \(3,\) float32"):
        own(backend, x)
    with pytest.raises(ConfigurationError, match="wide: expected float32 or float64, the same for all; got"):
        own(backend, backend.to_device(np.ones(3, np.int64), "cpu:0"))


def test_a_backend_may_have_its_own_version():
    def fast(xp, x):
        return x + 100

    own = register("named", lambda xp, x: x + 1, lambda xp, dy, x: dy, fast={"numba": (fast, lambda xp, dy, x: 2 * dy)})
    for name, result in (("numpy", 1), ("numba", 100)):
        backend = registry.load(name)
        assert backend.to_numpy(own(backend, backend.zeros((1,), "float32", "cpu:0")))[0] == result


def test_a_backend_without_the_method_says_so():
    class Small:
        name = "small"

    with pytest.raises(ConfigurationError, match=r"the small backend runs only .*, and 'leaky' is not one"):
        leaky()(Small(), None, slope=0.1)


GATE = """
from minialex.backend.operations import register

GATE = register("gate", lambda xp, x: x / 2, lambda xp, dy, x: dy / 2)
"""


def test_copies_of_a_file_share_their_operation_and_other_files_do_not(tmp_path):
    places = [tmp_path / folder / "gate.py" for folder in ("one", "two", "three")]
    for place, text in zip(places, (GATE, GATE, GATE.replace("2", "3")), strict=True):
        place.parent.mkdir()
        place.write_text(text)
    before = set(sys.modules), list(sys.path)
    try:
        assert find("operation", f"{places[0]}:GATE").name == find("operation", f"{places[1]}:GATE").name == "gate"
        with pytest.raises(ConfigurationError) as caught:
            find("operation", f"{places[2]}:GATE")
    finally:
        for name in set(sys.modules) - before[0]:
            del sys.modules[name]
        sys.path[:] = before[1]
    # of the two copies the last one's is there
    assert f"'gate' is already defined in {places[1]}: rename the one in {places[2]}" in str(caught.value)


def test_names_that_are_taken():
    leaky()
    leaky()  # the same module defines it again, as a notebook's cell does
    with pytest.raises(ConfigurationError, match="the protocol already has an operation 'relu'"):
        register("relu", lambda xp, x: x, lambda xp, dy, x: dy)

    def other(xp, x):
        return x

    other.__module__ = "somebody_elses"
    with pytest.raises(ConfigurationError, match="an operation 'leaky' is already defined"):
        register("leaky", other, other)
    with pytest.raises(ConfigurationError, match=r"in .*test_operations.py: rename the one in somebody_elses"):
        register("leaky", other, other)
    with pytest.raises(ConfigurationError, match="must name the arrays"):
        register("many", lambda xp, *arrays: arrays[0], lambda xp, dy, *arrays: dy)
    with pytest.raises(ConfigurationError, match="at least one array"):
        register("none", lambda xp: 0, lambda xp, dy: dy)

"""Activations of any layer out of an inference step: right numbers, columns in order, any backend and devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from minialex.backend import registry
from minialex.backend.arrays import Array
from minialex.backend.program import CompiledStep, Program
from minialex.backend.recorder import interpret
from minialex.engine.step import output_name
from minialex.errors import ConfigurationError
from minialex.network.layers import SpatialResponseNorm

REFERENCE = registry.load("numpy")
COMPILING = type(REFERENCE)


def layers_of(session):
    return [layer.name for layer in session.network.layers]


def test_every_layer_follows_from_the_one_before(make_session, shapes) -> None:
    """The reference's operations, on the halves of what the layer before gave, give this layer's halves."""
    session = make_session()
    weights = session.weights()
    found = session.activations(shapes.validation.read(np.arange(5)), layers_of(session))

    def on_cpu(array):
        return REFERENCE.to_device(np.ascontiguousarray(array), "cpu:0")

    np.testing.assert_array_equal(found["relu1"], np.maximum(found["conv1"], 0))
    for name, before, reads_all in (("conv2", "pool1", False), ("conv3", "pool2", True), ("conv5", "relu4", False)):
        halves = np.split(found[before], 2, axis=1)
        pieces = []
        for column in (0, 1):
            w, b = (np.split(weights[f"{name}.{part}"], 2)[column] for part in ("weight", "bias"))
            layer = session.network.layer(name)
            seen = found[before] if reads_all else halves[column]
            y = REFERENCE.conv2d(on_cpu(seen), on_cpu(w), on_cpu(b), stride=layer.stride, padding=layer.padding)
            pieces.append(REFERENCE.to_numpy(y))
        np.testing.assert_array_equal(found[name], np.concatenate(pieces, axis=1), err_msg=name)
    flat = found["pool5"].reshape(5, -1)
    np.testing.assert_array_equal(found["flatten"], flat)
    fc6 = flat @ weights["fc6.weight"].T + weights["fc6.bias"]
    np.testing.assert_allclose(found["fc6"], fc6, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["dropout6"], found["relu6"] * 0.9, rtol=1e-6)  # the recipe's rate is 0.1
    probs = np.exp(found["fc8"] - found["fc8"].max(axis=1, keepdims=True))
    expected, _ = session.probabilities(shapes.validation.read(np.arange(5)))
    np.testing.assert_allclose(probs / probs.sum(axis=1, keepdims=True), expected, rtol=1e-5)


def test_devices_change_no_bit_and_numba_agrees(make_session, shapes) -> None:
    images = shapes.validation.read(np.arange(4))
    session = make_session()
    names = layers_of(session)
    expected = session.activations(images, names)
    split = make_session(devices="cpu:0,cpu:1").activations(images, names)
    numba = make_session("numba", devices="cpu:0,cpu:1").activations(images, names)
    assert list(expected) == names
    for name in names:
        np.testing.assert_array_equal(split[name], expected[name], err_msg=name)
        scale = float(np.abs(expected[name]).max())
        np.testing.assert_allclose(numba[name], expected[name], rtol=1e-4, atol=1e-5 * scale, err_msg=name)


def test_a_compiled_step_gives_them_too(make_session, shapes) -> None:
    class Compiling(COMPILING):
        programs: list[Program] = []  # noqa: RUF012

        def compile_step(self, program: Program, bindings: Mapping[str, Array]) -> CompiledStep | None:
            self.programs.append(program)
            return interpret(program, self, bindings)

    session = make_session(devices="cpu:0,cpu:1")
    images = shapes.validation.read(np.arange(3))
    expected = session.activations(images, ["fc7", "conv1"])
    session.backend = Compiling()
    session._steps.clear()
    found = session.activations(images, ["fc7", "conv1"])
    (program,) = Compiling.programs
    assert {name for name in program.outputs if name.role == "output"} == {
        output_name(layer, column) for layer in ("conv1", "fc7") for column in (0, 1)
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_before_columns_divide_there_is_one_piece(make_session, shapes) -> None:
    """A layer before the first division gives every column the whole: it is not joined twice."""
    session = make_session()
    first = SpatialResponseNorm("first", size=3)
    session.network = replace(session.network, layers=(first, *session.network.layers))
    session.plan = replace(session.plan, network=session.network)
    found = session.activations(shapes.validation.read(np.arange(2)), ["first", "conv1", "fc8"])
    assert found["first"].shape == (2, 3, 28, 28)
    assert found["conv1"].shape == (2, 8, 28, 28)
    assert found["fc8"].shape == (2, 10)


def test_an_unknown_layer_is_named_with_the_nearest(make_session, shapes) -> None:
    with pytest.raises(ConfigurationError, match=r"no layer 'con1'.*Did you mean 'conv1'"):
        make_session().activations(shapes.validation.read(np.arange(1)), ["con1"])

"""The kit on operations and layers of somebody's own: what is right passes, every planted fault is caught."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from minialex import conformance
from minialex.backend import operations, registry
from minialex.backend.operations import register
from minialex.conformance.compare import Disagreement
from minialex.conformance.own import check_layer, check_registered
from minialex.errors import ConfigurationError
from minialex.network.layers import ArrayLayer, Conv2d, Dropout, LocalResponseNorm, Parameter
from minialex_numpy import NumpyBackend


@pytest.fixture(autouse=True)
def _forgotten():
    before = dict(operations.OPERATIONS), dict(operations.FUNCTIONS)
    yield
    for held, was in zip((operations.OPERATIONS, operations.FUNCTIONS), before, strict=True):
        held.clear()
        held.update(was)


def forward(xp, x, *, slope):
    return xp.where(x > 0, x, slope * x)


def backward(xp, dy, x, *, slope):
    return xp.where(x > 0, dy, slope * dy)


EXAMPLES = [([(2, 3)], {"slope": 0.1}), ([(2, 3, 4, 5)], {"slope": 0.5}), ([(0, 3)], {"slope": 0.5})]


def leaky(forward=forward, backward=backward, **options):
    return register("kit_leaky", forward, backward, examples=EXAMPLES, **options)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_an_operation_that_is_right(name):
    leaky()
    check_registered(registry.load(name), "kit_leaky")


def wrote(xp, x, *, slope):
    y = np.where(x > 0, x, slope * x)
    x *= 2
    return y


COUNT = iter(range(10**6))
FAULTS = {
    "the gradient of the negative side": (
        {"backward": lambda xp, dy, x, *, slope: xp.where(x > 0, dy, 0 * dy)},
        "grad",
    ),
    "writes its argument": ({"forward": wrote}, "wrote into its argument 'x'"),
    "float64 results": ({"forward": lambda xp, x, *, slope: np.where(x > 0, x, slope * x).astype(float)}, "float64"),
    "another shape": ({"forward": lambda xp, x, *, slope: xp.where(x > 0, x, slope * x)[..., None]}, "expected"),
    "other bits every time": (
        {"forward": lambda xp, x, *, slope: x + 0 * x + x.dtype.type(next(COUNT))},
        "bits|differs",
    ),
    "raises": ({"forward": lambda xp, x, *, slope: x.nothing}, "failed: AttributeError"),
    "a fast version that is wrong": (
        {"fast": {"theirs": (lambda xp, x, *, slope: xp.where(x > 0, x, x), backward)}},
        "differs from the reference",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_an_operation_that_is_wrong(what):
    body = {key: value for key, value in vars(NumpyBackend).items() if key not in ("__dict__", "__weakref__")}
    options, message = FAULTS[what]
    leaky(**options)
    with pytest.raises(Disagreement, match=message):
        check_registered(type("Theirs", (), {**body, "name": "theirs"})(), "kit_leaky")


def test_a_run_by_name_and_what_is_not_there():
    leaky()
    backend = registry.load("numpy")
    assert [result.passed for result in conformance.run(backend, ["relu", "kit_leaky"])] == [True, True]
    with pytest.raises(ConfigurationError, match="no operation 'kit_leeky', and none was registered"):
        conformance.run(backend, ["kit_leeky"])
    register("kit_untried", lambda xp, x: x, lambda xp, dy, x: dy)
    with pytest.raises(ConfigurationError, match="register it with examples"):
        check_registered(backend, "kit_untried")


@dataclass(frozen=True)
class Centred(ArrayLayer):
    """x − running mean, in training − the batch's mean; scaled by a weight."""

    momentum: float = 0.1

    def parameters(self, shape, column, columns):
        return {"weight": Parameter((shape[0],), 0.0, 1.0), "mean": Parameter((shape[0],), learned=False)}

    def compute(self, xp, x, weight, mean, *, training):
        mean = x.mean(axis=0) if training else mean
        return (x - mean) * weight

    def gradient(self, xp, dy, x, weight, mean):
        batch = x.mean(axis=0)
        return (dy - dy.mean(axis=0)) * weight, (dy * (x - batch)).sum(axis=0), self.momentum * (mean - batch)


@dataclass(frozen=True)
class Forgetful(Centred):
    """The gradient without the part that goes through the mean."""

    def compute(self, xp, x, weight, mean, *, training):
        return super().compute(xp, x, weight, mean, training=training)

    def gradient(self, xp, dy, x, weight, mean):
        return (dy * weight, *super().gradient(xp, dy, x, weight, mean)[1:])


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_layers_that_are_right(name):
    backend = registry.load(name)
    check_layer(backend, Centred("centred"), (5,))
    check_layer(backend, Conv2d("conv", 4, 3, padding=((1, 1), (0, 0))), (2, 5, 6), columns=2)
    check_layer(backend, LocalResponseNorm("norm", alpha=0.5), (6, 3, 3))


def test_layers_that_are_wrong():
    backend = registry.load("numpy")
    with pytest.raises(Disagreement, match=r"forgetful: its gradient of 'x' \(3, 5\) is"):
        check_layer(backend, Forgetful("forgetful"), (5,))

    @dataclass(frozen=True)
    class Taller(Dropout):
        def output_shape(self, shape, columns):
            return (2 * shape[0],)

    with pytest.raises(Disagreement, match=r"taller: gave \(3, 5\), its output_shape says \(3, 10\)"):
        check_layer(backend, Taller("taller"), (5,))


class Clip(ArrayLayer):
    """Between 0 and 6."""

    def compute(self, xp, x):
        return xp.clip(x, 0, 6)

    def gradient(self, xp, dy, x):
        return dy * ((x > 0) & (x < 6))


class ClipForgotten(Clip):
    """Its gradient goes on beyond 6, where ordinary random numbers never are."""

    def compute(self, xp, x):
        return super().compute(xp, x)

    def gradient(self, xp, dy, x):
        return dy * (x > 0)


class Logarithm(ArrayLayer):
    def compute(self, xp, x):
        return xp.log(x)

    def gradient(self, xp, dy, x):
        return dy / x


class Root(ArrayLayer):
    def compute(self, xp, x):
        return abs(x) ** 1.5

    def gradient(self, xp, dy, x):
        return dy * 1.5 * xp.sqrt(x)


def test_gradients_are_tried_far_from_zero_too():
    backend = registry.load("numpy")
    check_layer(backend, Clip("clip"), (40,))
    words = r"clip: its gradient of 'x' \(3, 40\) is .* \(for arrays of a standard deviation of 8\)"
    with pytest.raises(Disagreement, match=words):
        check_layer(backend, ClipForgotten("clip"), (40,))
    register("kit_clip", lambda xp, x: xp.clip(x, 0, 6), lambda xp, dy, x: dy * (x > 0), examples=[([(3, 40)], {})])
    with pytest.raises(Disagreement, match="standard deviation of 8"):
        check_registered(backend, "kit_clip")


def test_what_is_no_number_is_said_as_such():
    backend = registry.load("numpy")
    with np.errstate(all="ignore"):
        with pytest.raises(Disagreement, match=r"log: its output has \d+ of 15 values that are not finite"):
            check_layer(backend, Logarithm("log"), (5,))
        with pytest.raises(Disagreement, match=r"root: its gradient of 'x' \(3, 5\) has \d+ of 15 values that are not"):
            check_layer(backend, Root("root"), (5,))


@pytest.mark.parametrize(("given", "words"), [
    (Clip, r"got the class Clip: write Clip\(…\)"), ("clip", "got 'clip'"), ([Clip("clip")], r"got \[")])  # fmt: skip
def test_a_layer_is_asked_for(given, words):
    with pytest.raises(ConfigurationError, match=f"check_layer checks a layer, {words}"):
        check_layer(registry.load("numpy"), given, (5,))


def test_the_command_checks_what_a_file_registers(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from minialex.backend.operations import register\n"
        "register('half', lambda xp, x: x / 2, lambda xp, dy, x: dy / 2, examples=[([(2, 3)], {})])\n"
        "register('third', lambda xp, x: x / 3, lambda xp, dy, x: dy / 2, examples=[([(2, 3)], {})])\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "minialex.conformance.plugin"]
    command += ["--pyargs", "minialex.conformance", "--backend", "numpy", "--operations", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "third: its gradient of 'x' (2, 3)" in done.stdout


def test_a_gradient_that_is_wrong_for_large_numbers_alone_is_caught():
    def wrong(xp, dy, x, *, slope):
        return xp.where(x > 6, 2 * dy, xp.where(x > 0, dy, slope * dy))

    leaky(backward=wrong)
    with pytest.raises(Disagreement, match="its gradient of 'x'"):
        check_registered(registry.load("numpy"), "kit_leaky")

"""The bounds themselves: as the theory has them, small enough to notice lost digits, and widened only when asked."""

import numpy as np
import pytest
from hypothesis import Phase, settings

from minialex import conformance
from minialex.backend import registry
from minialex.backend.pretend import HostArray, operation
from minialex.backend.program import LOSS, ArrayName
from minialex.conformance import steps
from minialex.conformance.bounds import Arithmetic, Expected, arithmetic, expected
from minialex.conformance.case import Case
from minialex.conformance.checks import CHECKS, PROFILES
from minialex.conformance.compare import Disagreement, check_value
from minialex.errors import ConfigurationError
from minialex_numpy import NumpyBackend
from minialex_numpy.conv2d import conv2d

SINGLE = Arithmetic(2.0**-24, 2.0**-149, float(np.finfo(np.float32).max))
AS_ALWAYS = settings(PROFILES["ci"], phases=(Phase.explicit, Phase.generate))
ROUNDING = (
    "scale", "conv2d", "conv2d_backward", "linear", "linear_backward", "tanh", "tanh_backward", "max_pool2d_backward",
    "local_response_norm", "local_response_norm_backward", "spatial_response_norm", "spatial_response_norm_backward",
    "dropout", "dropout_backward", "softmax_cross_entropy", "softmax_cross_entropy_backward", "augment", "add",
)  # fmt: skip


def test_gamma():
    assert SINGLE.gamma(0) == 0
    assert SINGLE.gamma(3) == pytest.approx(3 * 2.0**-24, rel=1e-6)
    assert SINGLE.gamma(3) > 3 * 2.0**-24
    with pytest.raises(ConfigurationError, match="bounds no sum of 300 terms"):
        Arithmetic(2.0**-8, 0.0, 1.0).gamma(300)


@pytest.mark.parametrize("order", ["as given", "in reverse", "largest first", "smallest first", "pairwise"])
def test_a_sum_of_products_in_any_order_is_within_its_bound(order):
    random = np.random.default_rng(0)
    used = 0.0
    for _ in range(50):
        x = (random.standard_normal(200) * 10.0 ** random.integers(-6, 6, 200)).astype(np.float32)
        w = random.standard_normal(200).astype(np.float32)
        case = Case("linear", {"x": x[None], "w": w[None], "b": np.zeros(1, np.float32)})
        (wanted,) = expected(case, registry.load("numpy"))
        products = x * w
        keys = {"in reverse": -np.arange(200), "largest first": -np.abs(products), "smallest first": np.abs(products)}
        products = products[np.argsort(keys.get(order, np.arange(200)), kind="stable")]
        if order == "pairwise":
            total = products.sum(dtype=np.float32)
        else:
            total = np.add.accumulate(products, dtype=np.float32)[-1]
        ratio = abs(float(total) - wanted.value[0, 0]) / wanted.bound[0, 0]
        assert ratio <= 1
        used = max(used, ratio)
        size = np.abs(x.astype(np.float64)) @ np.abs(w)
        assert wanted.bound[0, 0] <= 1.05 * 203 * 2.0**-24 * size  # not larger than the theory's
    assert used > 1e-4


class Coarse(operation):
    """An operation whose results keep so many bits of their significand."""

    bits = 16

    def call(self, *args, **kwargs):
        made = super().call(*args, **kwargs)
        for result in made if isinstance(made, tuple) else (made,):
            if isinstance(result, HostArray) and result.dtype.kind == "f":
                fraction, exponent = np.frexp(result.data)
                result.data[...] = np.ldexp(np.round(fraction * 2.0**self.bits) / 2.0**self.bits, exponent)
        return made


def backend_with(members):
    body = {name: value for name, value in vars(NumpyBackend).items() if name not in ("__dict__", "__weakref__")}
    return type("Coarse", (), {**body, **members})()


@pytest.mark.parametrize("name", ROUNDING)
def test_results_of_sixteen_bits_are_noticed(name):
    backend = backend_with({name: Coarse(vars(NumpyBackend)[name].function), "dtypes": ("float32",)})
    with pytest.raises(Disagreement, match="differs from the reference"):
        CHECKS[name](backend, AS_ALWAYS)


def _eleven_bits(x):
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(fraction * 2.0**11) / 2.0**11, exponent).astype(x.dtype)


def _tensor_cores(x, w, b, *, stride, padding):
    if x.dtype == np.float32:
        x, w = _eleven_bits(x), _eleven_bits(w)
    return conv2d(x, w, b, stride=stride, padding=padding)


def test_a_declared_unit_roundoff_widens_one_operation_and_is_reported():
    declared = {"unit_roundoff": {"conv2d": 2.0**-11}, "conv2d": operation(_tensor_cores)}
    (result,) = conformance.run(backend_with(declared), ["conv2d"])
    assert result.passed
    assert result.message == "within the unit roundoff 0.000488 that the backend declares"
    (undeclared,) = conformance.run(backend_with({"conv2d": operation(_tensor_cores)}), ["conv2d"])
    assert not undeclared.passed
    backend = backend_with(declared)
    assert arithmetic(backend, "conv2d", np.dtype("float32")).u == pytest.approx(2.0**-11)
    assert arithmetic(backend, "conv2d", np.dtype("float64")).u == pytest.approx(2.0**-52)
    assert arithmetic(backend, "linear", np.dtype("float32")).u == pytest.approx(2.0**-24)


def test_where_a_number_is_too_large_every_answer_is_accepted():
    x = np.full((1, 2), 3e38, np.float32)
    case = Case("linear", {"x": x, "w": np.ones((1, 2), np.float32), "b": np.zeros(1, np.float32)})
    (wanted,) = expected(case, registry.load("numpy"))
    assert np.isinf(wanted.bound).all()
    check_value(case, "here", np.array([[np.inf]], np.float32), wanted)


def test_the_message_says_what_where_and_by_how_much():
    case = Case("relu", {"x": np.zeros((2, 3), np.float32)}, layout="reversed", about="zeros")
    got = np.zeros((2, 3), np.float32)
    got[1, 2] = 0.5
    with pytest.raises(Disagreement) as caught:
        check_value(case, "cpu:0 in float32", got, Expected("y", np.zeros((2, 3)), np.full((2, 3), 0.125)))
    text = str(caught.value)
    assert text.startswith(
        "relu on cpu:0 in float32: 'y' differs from the reference in 1 of 6 elements; worst at [1, 2]: "
    )
    assert "got np.float32(0.5), expected np.float64(0.0), difference 0.5, allowed 0.125" in text
    assert "x (2, 3) float32" in text
    assert "values: zeros; host arrays reversed" in text


@pytest.mark.parametrize(("dtype", "most"), [("float32", 4e-3), ("float64", 2e-11)])
def test_what_whole_steps_may_differ_by_is_little(dtype, most):
    exact, allowed = steps.spread(registry.load("numpy"), "train", steps.data(dtype))
    for arrays, limits in zip(exact, allowed, strict=True):
        for name, limit in limits.items():
            assert limit <= most * np.abs(arrays[name]).max(), name
    losses = [float(arrays[LOSS]) for arrays in exact]
    assert len(set(losses)) == len(losses)  # the steps do something
    dropped = exact[0][ArrayName("dropout5", column=0, role="mask")]
    assert 0 < dropped.mean() < 1


def test_results_of_a_run():
    results = conformance.run(registry.load("numpy"), ["relu", "synchronize"])
    assert [(r.operation, r.passed, r.message) for r in results] == [("relu", True, ""), ("synchronize", True, "")]
    with pytest.raises(ConfigurationError, match=r"no operation 'rleu', .* Did you mean 'relu'"):
        conformance.run(registry.load("numpy"), ["rleu"])
    with pytest.raises(ConfigurationError, match="no profile 'dep'"):
        conformance.run(registry.load("numpy"), ["relu"], profile="dep")
    broken = backend_with({"synchronize": lambda self, device: {}["gone"], "tanh": operation(lambda x: x)})
    failed = conformance.run(broken, ["synchronize", "tanh"])
    assert [r.passed for r in failed] == [False, False]
    assert failed[0].message == "KeyError: 'gone'"
    assert failed[1].message.startswith("tanh on cpu:0 in float32: 'y' differs from the reference in 1 of 1 elements")

"""Every gradient of the reference in float64, along random directions, by differences of the operation itself.

For a direction d and a random weighting g of the results, ⟨g, f(a + h·d) − f(a − h·d)⟩ / 2h is compared with ⟨gradient,
d⟩. Where the function has a kink within the step (ReLU, pooling), differences of two step sizes disagree; such points
are drawn anew, and drawing in vain is a failure.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from minialex.philox import Stream
from minialex_numpy.conv2d import conv2d, conv2d_backward
from minialex_numpy.dropout import dropout, dropout_backward
from minialex_numpy.linear import linear, linear_backward
from minialex_numpy.local_response_norm import local_response_norm, local_response_norm_backward
from minialex_numpy.max_pool2d import max_pool2d, max_pool2d_backward
from minialex_numpy.relu import relu, relu_backward
from minialex_numpy.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_backward
from minialex_numpy.spatial_response_norm import spatial_response_norm, spatial_response_norm_backward
from minialex_numpy.tanh import tanh, tanh_backward

STEP = 1e-3
DRAWS = 30


class Kink(Exception):
    """The function is not smooth within the step."""


def slope(function: Callable[[float], float]) -> tuple[float, float]:
    """The derivative at 0, and how exact it is: central differences of two step sizes, their errors cancelled.

    For a smooth function the two differ by O(h²) and second differences by as little; a kink makes both jump.
    """
    low2, low, here, high, high2 = (function(n * STEP) for n in (-2, -1, 0, 1, 2))
    near, far = (high - low) / (2 * STEP), (high2 - low2) / (4 * STEP)
    bend, wider = (high - 2 * here + low) / STEP**2, (high2 - 2 * here + low2) / (4 * STEP**2)
    scale = abs(near) + abs(far) + 1
    if abs(near - far) > 1e-3 * scale or abs(bend - wider) > 1e-2 * (scale + abs(bend)):
        raise Kink
    return (4 * near - far) / 3, scale


def check_gradient(draw, forward, backward, seed):
    """`draw` gives arguments, `forward` maps them to a result, `backward` maps (dy, arguments, result) to gradients."""
    random = np.random.default_rng(seed)
    for _ in range(DRAWS):
        arguments = draw(random)
        y = forward(*arguments)
        dy = random.standard_normal(np.shape(y))
        directions = [random.standard_normal(a.shape) for a in arguments]

        def along(t, arguments=arguments, directions=directions, dy=dy):
            return float(np.sum(dy * forward(*(a + t * d for a, d in zip(arguments, directions, strict=True)))))

        try:
            measured, scale = slope(along)
        except Kink:
            continue
        gradients = backward(dy, *arguments)
        assert [g.shape for g in gradients] == [a.shape for a in arguments]
        assert [g.dtype for g in gradients] == [np.float64] * len(arguments)
        computed = sum(float(np.sum(g * d)) for g, d in zip(gradients, directions, strict=True))
        assert computed == pytest.approx(measured, abs=2e-7 * scale)
        return
    pytest.fail(f"all of {DRAWS} points drawn were at kinks")


def normal(*shapes):
    return lambda random: [random.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding"),
    [
        ((2, 3, 7, 6), (4, 3, 3, 2), 1, ((0, 0), (0, 0))),
        ((2, 3, 8, 9), (4, 3, 5, 5), 2, ((0, 3), (0, 3))),
        ((1, 2, 5, 4), (3, 2, 3, 3), 3, ((1, 2), (2, 0))),
        ((3, 1, 9, 7), (2, 1, 2, 3), 4, ((0, 0), (1, 1))),
        ((2, 2, 1, 1), (2, 2, 1, 1), 1, ((2, 0), (0, 1))),
    ],
)
def test_conv2d(x, w, stride, padding, seed):
    numbers = {"stride": stride, "padding": padding}
    check_gradient(
        normal(x, w, w[:1]),
        partial(conv2d, **numbers),
        lambda dy, x, w, b: conv2d_backward(dy, x, w, need_dx=True, **numbers),
        seed,
    )


@pytest.mark.parametrize("seed", range(3))
def test_linear(seed):
    check_gradient(
        normal((3, 7), (5, 7), (5,)), linear, lambda dy, x, w, b: linear_backward(dy, x, w, need_dx=True), seed
    )


@pytest.mark.parametrize("seed", range(3))
def test_relu(seed):
    check_gradient(normal((2, 3, 4)), relu, lambda dy, x: [relu_backward(dy, relu(x))], seed)


@pytest.mark.parametrize("seed", range(3))
def test_tanh(seed):
    check_gradient(normal((2, 3, 4)), tanh, lambda dy, x: [tanh_backward(dy, tanh(x))], seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", ["first", "all"])
@pytest.mark.parametrize(
    ("shape", "size", "stride", "ceil"),
    [((2, 3, 7, 6), 3, 2, False), ((2, 2, 6, 8), 3, 2, True), ((1, 2, 5, 5), 2, 3, True), ((1, 1, 4, 4), 4, 1, False)],
)
def test_max_pool2d(shape, size, stride, ceil, ties, seed):
    numbers = {"size": size, "stride": stride, "ceil": ceil}
    check_gradient(
        normal(shape),
        partial(max_pool2d, **numbers),
        lambda dy, x: [max_pool2d_backward(dy, x, max_pool2d(x, **numbers), ties=ties, **numbers)],
        seed,
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("beta", [0.75, 1.3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (local_response_norm, local_response_norm_backward),
        (spatial_response_norm, spatial_response_norm_backward),
    ],
    ids=["over channels", "over places"],
)
def test_response_norm(forward, backward, size, beta, seed):
    numbers = {"size": size, "alpha": 0.6, "beta": beta}
    check_gradient(
        normal((2, 7, 4, 5)),
        lambda x: forward(x, k=1.5, **numbers)[0],
        lambda dy, x: [backward(dy, x, *forward(x, k=1.5, **numbers), **numbers)],
        seed,
    )


@pytest.mark.parametrize("seed", range(3))
def test_dropout(seed):
    numbers = {"rate": 0.4, "factor": 1 / 0.6, "stream": Stream(seed, 1)}
    check_gradient(
        normal((3, 20)),
        lambda x: dropout(x, **numbers)[0],
        lambda dy, x: [dropout_backward(dy, dropout(x, **numbers)[1], factor=1 / 0.6)],
        seed,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("N", [1, 4])
def test_softmax_cross_entropy(N, seed):
    labels = np.random.default_rng(seed).integers(0, 6, N)
    check_gradient(
        normal((N, 6)),
        lambda z: softmax_cross_entropy(z, labels)[0],
        lambda dy, z: [dy * softmax_cross_entropy_backward(softmax_cross_entropy(z, labels)[1], labels)],
        seed,
    )


@pytest.mark.parametrize("kink", [0.0, 0.3 * STEP, -1.5 * STEP])
def test_kinks_are_seen(kink):
    with pytest.raises(Kink):
        slope(lambda t: abs(t - kink))


def test_smooth_functions_have_none():
    measured, scale = slope(lambda t: np.exp(t) * np.cos(3 * t))
    assert measured == pytest.approx(1, abs=1e-9)
    assert scale == pytest.approx(3, abs=1e-3)


def test_a_wrong_gradient_is_seen():
    with pytest.raises(AssertionError):
        check_gradient(normal((2, 3)), tanh, lambda dy, x: [1.00001 * tanh_backward(dy, tanh(x))], 0)

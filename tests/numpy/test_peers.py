"""The reference in float64 against PyTorch, an implementation that nobody here wrote: values and gradients.

Where PyTorch is not installed these tests are skipped; where the environment says CI they fail instead.
"""

import os

import numpy as np
import pytest

from minialex_numpy.conv2d import conv2d, conv2d_backward
from minialex_numpy.dropout import dropout_backward
from minialex_numpy.linear import linear, linear_backward
from minialex_numpy.local_response_norm import local_response_norm, local_response_norm_backward
from minialex_numpy.max_pool2d import max_pool2d, max_pool2d_backward
from minialex_numpy.relu import relu, relu_backward
from minialex_numpy.scale_by_trust_ratio import scale_by_trust_ratio
from minialex_numpy.sgd_update import sgd_update
from minialex_numpy.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_backward
from minialex_numpy.spatial_response_norm import spatial_response_norm, spatial_response_norm_backward
from minialex_numpy.tanh import tanh, tanh_backward

try:
    import torch
    from torch.nn import functional
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("PyTorch is not installed", allow_module_level=True)

pytestmark = pytest.mark.peers
SEEDS = pytest.mark.parametrize("seed", range(2))


def normal(seed, *shapes):
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape) for shape in shapes]


def differentiate(function, dy, *arrays):
    """PyTorch's value of a function of tensors, and the gradients of ⟨dy, value⟩."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    value = function(*tensors)
    value.backward(torch.as_tensor(dy))
    return value.detach().numpy(), [t.grad.numpy() for t in tensors]


def same(ours, theirs):
    """Equal but for the last digits of float64."""
    scale = float(np.max(np.abs(theirs), initial=1e-300))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13 * scale)


@SEEDS
@pytest.mark.parametrize(
    ("x", "w", "stride", "padding"),
    [
        ((2, 3, 20, 20), (4, 3, 11, 11), 4, ((0, 3), (0, 3))),  # the first layer's, one-sided as in 2012
        ((2, 4, 9, 7), (6, 4, 5, 5), 1, ((2, 2), (2, 2))),
        ((1, 5, 6, 8), (3, 5, 3, 2), 3, ((1, 0), (2, 1))),
        ((3, 2, 7, 5), (2, 2, 2, 2), 4, ((0, 0), (0, 0))),
    ],
)
def test_conv2d(x, w, stride, padding, seed):
    (above, below), (left, right) = padding

    def theirs(x, w, b):
        return functional.conv2d(functional.pad(x, (left, right, above, below)), w, b, stride=stride)

    x, w, b = normal(seed, x, w, w[:1])
    ours = conv2d(x, w, b, stride=stride, padding=padding)
    (dy,) = normal(seed + 10, ours.shape)
    value, gradients = differentiate(theirs, dy, x, w, b)
    same(ours, value)
    for mine, other in zip(
        conv2d_backward(dy, x, w, stride=stride, padding=padding, need_dx=True), gradients, strict=True
    ):
        same(mine, other)


@SEEDS
def test_linear(seed):
    dy, x, w, b = normal(seed, (4, 5), (4, 7), (5, 7), (5,))
    value, gradients = differentiate(functional.linear, dy, x, w, b)
    same(linear(x, w, b), value)
    for mine, other in zip(linear_backward(dy, x, w, need_dx=True), gradients, strict=True):
        same(mine, other)


@pytest.mark.parametrize(
    ("ours", "backward", "theirs"), [(relu, relu_backward, "relu"), (tanh, tanh_backward, "tanh")], ids=["relu", "tanh"]
)
def test_elementwise(ours, backward, theirs):
    x, dy = normal(0, (4, 50), (4, 50))
    x[:, ::7] = 0  # at 0 itself ReLU's gradient is 0
    value, (dx,) = differentiate(getattr(torch, theirs), dy, x)
    same(ours(x), value)
    same(backward(dy, ours(x)), dx)


@SEEDS
@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (3, 1), (2, 3), (4, 3)])
@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (1, 2, 13, 7), (1, 1, 5, 6)])
def test_max_pool2d(shape, size, stride, ceil, ties, seed):
    random = np.random.default_rng(seed)
    x = random.integers(-1, 2, shape).astype(np.float64) if ties else random.standard_normal(shape)
    y = max_pool2d(x, size=size, stride=stride, ceil=ceil)
    (dy,) = normal(seed + 10, y.shape)
    value, (dx,) = differentiate(lambda x: functional.max_pool2d(x, size, stride, ceil_mode=ceil), dy, x)
    assert np.array_equal(y, value)
    same(max_pool2d_backward(dy, x, y, size=size, stride=stride, ceil=ceil, ties="first"), dx)


@SEEDS
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (3, 1)])
def test_max_pool2d_gives_to_all_of_equal_maxima(size, stride, seed):
    """As a sum over windows: of each window's values those that equal its maximum, times dy."""
    random = np.random.default_rng(seed)
    x = random.integers(-1, 2, (2, 3, 9, 7)).astype(np.float64)
    y = max_pool2d(x, size=size, stride=stride, ceil=False)
    (dy,) = normal(seed + 10, y.shape)
    windows = functional.unfold(torch.tensor(x), size, stride=stride).reshape(2, 3, size * size, -1).numpy()
    given = (windows == y.reshape(2, 3, 1, -1)) * dy.reshape(2, 3, 1, -1)
    dx = functional.fold(torch.tensor(given).reshape(2, 3 * size * size, -1), x.shape[2:], size, stride=stride)
    same(max_pool2d_backward(dy, x, y, size=size, stride=stride, ceil=False, ties="all"), dx.numpy())


def _norm(x, windows_sum, k, alpha, beta):
    return x / (k + alpha * windows_sum(x * x)) ** beta


@SEEDS
@pytest.mark.parametrize(("k", "alpha", "beta"), [(2.0, 1e-4, 0.75), (1.0, 0.8, 0.75), (0.5, 0.3, 1.2)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_local_response_norm(size, k, alpha, beta, seed):
    """PyTorch divides α by the size of the window, so it is given ours times that size."""
    x, dy = normal(seed, (2, 6, 3, 4), (2, 6, 3, 4))
    x = 3 * x
    value, (dx,) = differentiate(
        lambda x: functional.local_response_norm(x, size, alpha=alpha * size, beta=beta, k=k), dy, x
    )
    y, scale = local_response_norm(x, size=size, k=k, alpha=alpha, beta=beta)
    same(y, value)
    same(local_response_norm_backward(dy, x, y, scale, size=size, alpha=alpha, beta=beta), dx)


@SEEDS
def test_local_response_norm_within_columns(seed):
    """Halves normalised apart are not the whole normalised: they differ at the border's channels, and there alone."""
    x, dy = normal(seed, (2, 8, 3, 3), (2, 8, 3, 3))
    numbers = {"size": 5, "k": 2.0, "alpha": 0.5, "beta": 0.75}

    def halves(x):
        parts = [functional.local_response_norm(h, 5, alpha=2.5, beta=0.75, k=2.0) for h in x.split(4, dim=1)]
        return torch.cat(parts, dim=1)

    value, (dx,) = differentiate(halves, dy, x)
    ours = [local_response_norm(h, **numbers) for h in np.split(x, 2, axis=1)]
    same(np.concatenate([y for y, _ in ours], axis=1), value)
    back = [
        local_response_norm_backward(d, h, y, scale, size=5, alpha=0.5, beta=0.75)
        for d, h, (y, scale) in zip(np.split(dy, 2, axis=1), np.split(x, 2, axis=1), ours, strict=True)
    ]
    same(np.concatenate(back, axis=1), dx)
    whole, _ = local_response_norm(x, **numbers)
    differs = np.abs(whole - value).max(axis=(0, 2, 3)) > 1e-9
    assert differs.tolist() == [False, False, True, True, True, True, False, False]


@SEEDS
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_spatial_response_norm(size, seed):
    """Sums over windows are a convolution with ones, padded as the protocol says."""
    x, dy = normal(seed, (2, 3, 6, 5), (2, 3, 6, 5))
    before, after = size // 2, size - 1 - size // 2

    def theirs(x):
        padded = functional.pad(x * x, (before, after, before, after))
        sums = functional.conv2d(padded, torch.ones(3, 1, size, size, dtype=x.dtype), groups=3)
        return x / (1.5 + 0.4 * sums) ** 0.75

    value, (dx,) = differentiate(theirs, dy, x)
    y, scale = spatial_response_norm(x, size=size, k=1.5, alpha=0.4, beta=0.75)
    same(y, value)
    same(spatial_response_norm_backward(dy, x, y, scale, size=size, alpha=0.4, beta=0.75), dx)


def test_dropout_with_a_mask():
    x, dy = normal(0, (4, 30), (4, 30))
    mask = np.random.default_rng(1).integers(0, 2, (4, 30)).astype(np.uint8)
    _, (dx,) = differentiate(lambda x: 2.5 * x * torch.tensor(mask), dy, x)
    same(dropout_backward(dy, mask, factor=2.5), dx)


@SEEDS
@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_softmax_cross_entropy(spread, seed):
    random = np.random.default_rng(seed)
    logits, labels = spread * random.standard_normal((5, 9)), random.integers(0, 9, 5)
    loss, probs = softmax_cross_entropy(logits, labels)
    value, (dlogits,) = differentiate(lambda z: functional.cross_entropy(z, torch.tensor(labels)), 1.0, logits)
    same(loss, value)
    same(probs, torch.softmax(torch.tensor(logits), dim=1).numpy())
    same(softmax_cross_entropy_backward(probs, labels), dlogits)


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0005), (0.9, 0.0), (0.0, 0.1), (0.5, 0.2)])
def test_sgd_update(momentum, decay):
    """PyTorch's rule keeps b ← μb + (dw + λw) and takes w ← w − εb; the paper keeps v ← μv − ε(dw + λw), w ← w + v.

    At a constant rate v = −εb, and the weights are the same. When the rate changes, the paper's momentum keeps the
    rates that it was made with: b, in units of the new rate, must be multiplied with old/new.
    """
    random = np.random.default_rng(0)
    w, v = random.standard_normal(20), np.zeros(20)
    parameter = torch.nn.Parameter(torch.tensor(w))
    optimiser = torch.optim.SGD([parameter], lr=0.1, momentum=momentum, weight_decay=decay)
    rate = 0.1
    for step in range(8):
        if step == 4:
            optimiser.param_groups[0]["lr"] = 0.01
            if momentum:
                optimiser.state[parameter]["momentum_buffer"].mul_(rate / 0.01)
            rate = 0.01
        dw = random.standard_normal(20)
        parameter.grad = torch.tensor(dw)
        optimiser.step()
        kept = sgd_update(w, v, dw, learning_rate=rate, momentum=momentum, weight_decay=decay)
        assert kept == 0
        same(w, parameter.detach().numpy())
        if momentum:
            same(v, -rate * optimiser.state[parameter]["momentum_buffer"].numpy())


class Lars(torch.optim.Optimizer):
    """LARS by the paper's algorithm 1 (You, Gitman and Ginsburg 2017), as one writes it down for PyTorch."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                v = self.state[w].setdefault("momentum", torch.zeros_like(w))
                decay, norm = group["weight_decay"], torch.linalg.vector_norm
                local = group["eta"] * norm(w) / (norm(w.grad) + decay * norm(w))
                v.mul_(group["momentum"]).add_(group["lr"] * local * (w.grad + decay * w))
                w.sub_(v)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_lars(decay):
    """The paper's rule keeps the rates that its momentum was made with, as ours does."""
    random = np.random.default_rng(1)
    ws = [random.standard_normal(shape) for shape in ((3, 4), (5,), (2, 3, 2, 2))]
    vs = [np.zeros_like(w) for w in ws]
    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in ws]
    optimiser = Lars(parameters, {"lr": 0.3, "momentum": 0.9, "weight_decay": decay, "eta": 0.02})
    for step in range(8):
        rate = optimiser.param_groups[0]["lr"] = 0.3 / (1 + step)
        for w, v, parameter in zip(ws, vs, parameters, strict=True):
            dw = random.standard_normal(w.shape)
            parameter.grad = torch.tensor(dw)
            scaled = scale_by_trust_ratio(w, dw, trust_coefficient=0.02, weight_decay=decay)
            sgd_update(w, v, scaled, learning_rate=rate, momentum=0.9, weight_decay=0.0)
        optimiser.step()
        for w, v, parameter in zip(ws, vs, parameters, strict=True):
            same(w, parameter.detach().numpy())
            same(v, -optimiser.state[parameter]["momentum"].numpy())


def test_a_trust_ratio_of_nothing_is_one():
    w, dw = np.zeros(3), np.array([1.0, -2.0, 0.5])
    np.testing.assert_array_equal(scale_by_trust_ratio(w, dw, trust_coefficient=0.001, weight_decay=0.1), dw)
    np.testing.assert_array_equal(scale_by_trust_ratio(dw, w, trust_coefficient=0.001, weight_decay=0.5), 0.5 * dw)

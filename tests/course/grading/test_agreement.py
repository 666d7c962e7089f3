"""Grading and the notebooks' checks agree: a textbook's solution gets full points in both, a wrong one in neither."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, settings

from minialex.backend.protocol import Backend
from minialex.conformance.checks import PROFILES
from minialex.course import checks as check
from minialex.course.grading import student
from minialex.course.grading.complete import complete
from minialex.course.grading.submission import Submission
from minialex.course.grading.worker import grade

SOLUTIONS = Path(__file__).parents[3] / "notebooks" / "solutions"
EXAMPLES = settings(PROFILES["ci"], max_examples=25, phases=[Phase.generate])  # the smallest is not looked for


def graded(name: str, function: Callable[..., Any], strict: bool = False) -> Any:
    """The result of one operation, as a submission's."""
    function.__wrapped__ = getattr(Backend, name)  # type: ignore[attr-defined] # the protocol's parameters
    adapted = function if strict else student.lenient(name, function, lambda remark: None)
    submission = Submission(complete({name: adapted}), {name: "o.py:1"}, inside=(Path(__file__),))
    return grade(submission, name, EXAMPLES, None, lambda **message: None, strict)


def passes(name: str, function: Callable[..., Any]) -> bool:
    result = graded(name, function)
    return bool(result.status == "passed")


def solutions(notebook: str) -> Any:
    (path,) = SOLUTIONS.glob(f"{notebook}_*.py")
    spec = importlib.util.spec_from_file_location(f"solutions_{notebook}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- an exercise's answer as the operation that it is about -----------------------------------------------------


def padded(x: Any, padding: Any) -> Any:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def of_weight_gradient(answer: Any) -> Any:
    def conv2d_backward(dy: Any, x: Any, w: Any, *, stride: int, padding: Any, need_dx: bool = True) -> Any:
        (_, _, R, S), wide = w.shape, padded(x, padding)
        rows, columns = dy.shape[2] * stride + max(R, S), dy.shape[3] * stride + max(R, S)
        room = np.zeros((*x.shape[:2], max(rows, wide.shape[2]), max(columns, wide.shape[3])))
        room[:, :, : wide.shape[2], : wide.shape[3]] = wide
        dw = answer(dy, room, max(R, S), stride)[:, :, :R, :S]
        dx = np.zeros(wide.shape)
        for p in range(dy.shape[2]):
            for q in range(dy.shape[3]):
                part = np.einsum("nk,kcrs->ncrs", dy[:, :, p, q], w)
                dx[:, :, p * stride : p * stride + R, q * stride : q * stride + S] += part
        (top, _), (left, _) = padding
        return dx[:, :, top : top + x.shape[2], left : left + x.shape[3]], dw, dy.sum(axis=(0, 2, 3))

    return conv2d_backward


def of_normalise(answer: Any) -> Any:
    def local_response_norm(x: Any, *, size: int, k: float, alpha: float, beta: float) -> Any:
        scale = np.zeros(x.shape)
        for c in range(x.shape[1]):
            first, last = max(0, c - size // 2), min(x.shape[1], c - size // 2 + size)
            scale[:, c] = k + alpha * (x[:, first:last].astype(float) ** 2).sum(axis=1)
        wide = x.astype(float)
        return np.apply_along_axis(lambda a: answer(a, size, k, alpha, beta), 1, wide), scale

    return local_response_norm


def of_inverted_dropout(answer: Any) -> Any:
    return lambda dy, mask, *, factor: answer(dy, mask, 1 - 1 / factor)


def of_paper_update(answer: Any) -> Any:
    def sgd_update(w: Any, v: Any, dw: Any, *, learning_rate: float, momentum: float, weight_decay: float) -> Any:
        w[...], v[...] = answer(w, v.copy(), dw, learning_rate, momentum, weight_decay)
        return 0

    return sgd_update


EXERCISES: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "weight_gradient": ("02", "conv2d_backward", of_weight_gradient),
    "relu_gradient": ("03", "relu_backward", functools.partial),
    "normalise": ("05", "local_response_norm", of_normalise),
    "inverted_dropout": ("09", "dropout_backward", of_inverted_dropout),
    "paper_update": ("10", "sgd_update", of_paper_update),
    "repaired_norm": ("14", "local_response_norm", functools.partial),
    "tanh_gradient": ("14", "tanh_backward", functools.partial),
}
"""Exercises that ask for an operation of the protocol, and how their answer becomes it."""
OTHER_PARAMETERS = "expected ("  # a wrong answer that the adapters here cannot call


@pytest.mark.parametrize("name", EXERCISES)
def test_the_published_answer_gets_full_points_in_both(name: str) -> None:
    notebook, operation, adapt = EXERCISES[name]
    answer = solutions(notebook).RIGHT[name]
    assert getattr(check, name)(answer)
    result = graded(operation, adapt(answer))
    assert result.status == "passed", result


@pytest.mark.parametrize("name", EXERCISES)
def test_typical_mistakes_get_none_in_either(name: str) -> None:
    notebook, operation, adapt = EXERCISES[name]
    for wrong, words in solutions(notebook).WRONG[name]:
        assert not getattr(check, name)(wrong)
        if callable(wrong) and not words.startswith(OTHER_PARAMETERS):
            assert not passes(operation, adapt(wrong)), words


# ---- textbook variants ------------------------------------------------------------------------------------------


def im2col(x: Any, w: Any, stride: int, padding: Any) -> Any:
    """Rows of patches, and how many there are of rows and columns."""
    wide, (R, S) = padded(x, padding), w.shape[2:]
    P, Q = (wide.shape[2] - R) // stride + 1, (wide.shape[3] - S) // stride + 1
    rows = [wide[:, :, i : i + R, j : j + S].reshape(len(x), -1)
            for i in range(0, P * stride, stride) for j in range(0, Q * stride, stride)]  # fmt: skip
    return np.stack(rows, axis=1), P, Q


def conv_im2col(x: Any, w: Any, b: Any, *, stride: int, padding: Any) -> Any:
    columns, P, Q = im2col(x, w, stride, padding)
    y = columns @ w.reshape(len(w), -1).T + b
    return y.transpose(0, 2, 1).reshape(len(x), len(w), P, Q)


def conv_loops(x: Any, w: Any, b: Any, *, stride: int, padding: Any) -> Any:
    wide, (K, _, R, S) = padded(x, padding), w.shape
    P, Q = (wide.shape[2] - R) // stride + 1, (wide.shape[3] - S) // stride + 1
    y = np.zeros((len(x), K, P, Q))
    for n in range(len(x)):
        for k in range(K):
            for p in range(P):
                for q in range(Q):
                    i, j = p * stride, q * stride
                    y[n, k, p, q] = np.sum(wide[n, :, i : i + R, j : j + S] * w[k]) + b[k]
    return y


def conv_strides(x: Any, w: Any, b: Any, *, stride: int, padding: Any) -> Any:
    wide, (_, _, R, S) = padded(x, padding), w.shape
    P, Q = (wide.shape[2] - R) // stride + 1, (wide.shape[3] - S) // stride + 1
    n, c, h, v = wide.strides
    shape, strides = (*wide.shape[:2], P, Q, R, S), (n, c, h * stride, v * stride, h, v)
    patches = np.lib.stride_tricks.as_strided(wide, shape, strides, writeable=False)
    return np.einsum("ncpqrs,kcrs->nkpq", patches, w) + b[:, None, None]


def softmax(logits: Any) -> Any:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy(logits: Any, labels: Any) -> Any:
    probs = softmax(logits)
    return -np.log(probs[np.arange(len(labels)), labels]).mean(), probs


def cross_entropy_one_hot(logits: Any, labels: Any) -> Any:
    probs = softmax(logits)
    return -(np.eye(logits.shape[1])[labels] * np.log(probs + 1e-30)).sum() / len(labels), probs


def cross_entropy_without_maximum(logits: Any, labels: Any) -> Any:
    e = np.exp(logits)
    probs = e / e.sum(axis=1, keepdims=True)
    return -np.log(probs[np.arange(len(labels)), labels]).mean(), probs


def one_hot(probs: Any, labels: Any) -> Any:
    return np.eye(probs.shape[1])[labels]


def pool_loops(x: Any, *, size: int, stride: int, ceil: bool) -> Any:
    up = stride - 1 if ceil else 0
    P, Q = (int((n - size + up) // stride) + 1 for n in x.shape[2:])
    if ceil:
        P, Q = (count - ((count - 1) * stride >= n) for count, n in zip((P, Q), x.shape[2:], strict=True))
    y = np.zeros((*x.shape[:2], P, Q))
    for p in range(P):
        for q in range(Q):
            y[:, :, p, q] = x[:, :, p * stride : p * stride + size, q * stride : q * stride + size].max(axis=(2, 3))
    return y


def update(w: Any, v: Any, dw: Any, *, learning_rate: float, momentum: float, weight_decay: float) -> Any:
    v[:] = momentum * v - learning_rate * (dw + weight_decay * w)
    w += v
    return np.int64(0)


RIGHT: list[tuple[str, str, Callable[..., Any]]] = [
    ("relu", "maximum", lambda x: np.maximum(x, 0)),
    ("relu", "where", lambda x: np.where(x > 0, x, 0)),
    ("relu", "times", lambda x: x * (x > 0)),
    ("relu", "absolute", lambda x: (x + np.abs(x)) / 2),
    ("relu_backward", "times", lambda dy, y: dy * (y > 0)),
    ("relu_backward", "where, float64", lambda dy, y: np.where(y > 0, dy, np.zeros(y.shape))),
    ("relu_backward", "sign", lambda dy, y: dy * np.sign(y)),
    ("tanh", "of 2 sigmoids", lambda x: 2 / (1 + np.exp(-2 * x)) - 1),
    ("tanh_backward", "square", lambda dy, y: dy * (1 - y**2)),
    ("tanh_backward", "product", lambda dy, y: dy * (1 - y) * (1 + y)),
    ("conv2d", "im2col", conv_im2col),
    ("conv2d", "loops", conv_loops),
    ("conv2d", "strides", conv_strides),
    ("linear", "matrix product", lambda x, w, b: x @ w.T + b),
    ("linear", "einsum", lambda x, w, b: np.einsum("nd,kd->nk", x, w) + b),
    ("linear_backward", "a list, dx always", lambda dy, x, w, *, need_dx=True: [dy @ w, dy.T @ x, dy.sum(axis=0)]),
    ("max_pool2d", "loops", pool_loops),
    ("softmax_cross_entropy", "mean of logarithms", cross_entropy),
    ("softmax_cross_entropy", "one-hot", cross_entropy_one_hot),
    ("softmax_cross_entropy_backward", "one-hot", lambda probs, labels: (probs - one_hot(probs, labels)) / len(probs)),
    ("dropout_backward", "times", lambda dy, mask, *, factor: dy * mask * factor),
    ("sgd_update", "in place", update),
]  # fmt: skip
WRONG: list[tuple[str, str, Callable[..., Any]]] = [
    ("relu", "leaky", lambda x: np.where(x > 0, x, 0.01 * x)),
    ("relu_backward", "at the corner", lambda dy, y: dy * (y >= 0)),
    ("tanh_backward", "without the square", lambda dy, y: dy * (1 - y)),
    ("softmax_cross_entropy", "overflow", cross_entropy_without_maximum),
    ("softmax_cross_entropy_backward", "sum, not mean", lambda probs, labels: probs - one_hot(probs, labels)),
    ("linear", "no bias", lambda x, w, b: x @ w.T),
    ("linear", "half precision", lambda x, w, b: (x.astype("float16") @ w.T.astype("float16") + b).astype(x.dtype)),
    ("max_pool2d", "begins at 0", lambda x, **numbers: np.maximum(pool_loops(x, **numbers), 0)),
    ("dropout_backward", "no factor", lambda dy, mask, *, factor: dy * mask),
]


@pytest.mark.parametrize(("name", "how", "function"), RIGHT, ids=[f"{name}: {how}" for name, how, _ in RIGHT])
def test_a_textbook_solution_gets_full_points(name: str, how: str, function: Callable[..., Any]) -> None:
    result = graded(name, function)
    assert result.status == "passed", result


@pytest.mark.parametrize(("name", "how", "function"), WRONG, ids=[f"{name}: {how}" for name, how, _ in WRONG])
def test_a_wrong_one_gets_none(name: str, how: str, function: Callable[..., Any]) -> None:
    assert graded(name, function).status == "failed"


def test_infinite_gradients_are_asked_of_authors_of_backends_alone() -> None:
    def textbook(dy: Any, y: Any) -> Any:
        return dy * (y > 0)

    assert graded("relu_backward", textbook).status == "passed"
    result = graded("relu_backward", textbook, strict=True)
    assert result.status == "failed"
    assert "inf" in str(result.example)

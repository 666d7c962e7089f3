"""How far a correct backend may be from the reference: bounds that are derived, not guessed.

Every function takes a call, computes what should come out in float64 on the same floating numbers, and bounds the
error of any reasonable way to compute it in the backend's own arithmetic. The model is the usual one: the result
of an operation on two floating numbers is exact but for a factor 1 + δ with |δ| ≤ u, the unit roundoff (2⁻²⁴ for
float32, 2⁻⁵³ for float64, or what the backend declares), and but for η, the smallest subnormal number, where a
product or quotient underflows. From it follow the rules used here (Higham, "Accuracy and Stability of Numerical
Algorithms", 2nd edition, chapters 2 to 4):

* n factors 1 + δ, or their inverses, differ from 1 by at most γ(n) = n·u / (1 − n·u).
* A sum of n products, added in any order and with or without fused multiply-add, differs from the exact one by at
  most γ(n) · Σ|aᵢ|·|bᵢ| + n·η. The sum of absolute values is the same operation on absolute arguments, so the
  reference itself computes it. Two more factors are allowed for: matrix units round the operands first.
* Where a backend declares that they round them to a coarser format, of unit roundoff v and smallest subnormal ζ, each
  product has two factors 1 + δ more with |δ| ≤ v, and where an operand is so small that it loses more than that, an
  error of at most ζ times the other one: 2n·ζ·max(|a|, |b|) in all. Sums stay in float32.
* Library functions are given a number of ulps each (`ULPS`); an ulp is at most 2u of the value.
* A coefficient (α, β, the learning rate, …) arrives as a Python float and may be rounded to the arrays' dtype.

Where a result or something on the way to it exceeds the largest finite number, every answer is accepted: the
bound is infinite. A bound of zero asks for the same number exactly, though −0 equals 0.

The reference works in float64, so it rounds too; its 2⁻⁵³ is added to u everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.operations import FUNCTIONS
from minialex.backend.protocol import Backend
from minialex.conformance.case import Array, Case, compute, each, listed
from minialex.errors import ConfigurationError

Float64 = NDArray[np.float64]

ULPS = 4
"""Error allowed to exp, log, tanh and the power function, in units in the last place.

NumPy's, LLVM's and Intel's vectorised float32 functions and CUDA's (powf 4, expf 2, logf 1, tanhf 2) are within it; the
approximate ones (``__powf``, ``tanh.approx``, exp(−β·log x) in single precision) are not: a backend that uses them
says so in its ``unit_roundoff``.
"""

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


@dataclass(frozen=True)
class Format:
    """A format to which operands of products are rounded: unit roundoff, smallest subnormal, largest finite number."""

    u: float
    smallest: float
    largest: float


FORMATS = {
    "tf32": Format(2.0**-10, 2.0**-136, (2 - 2.0**-10) * 2.0**127),
    "bfloat16": Format(2.0**-8, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
}
"""Formats of matrix units with float32's exponents and fewer bits of the fraction: ten, and seven.

bfloat16 is rounded to nearest. Whether a unit rounds or truncates what it takes as tf32 its makers leave open: u is
that of truncation, a whole unit of the last of ten bits.
"""


@dataclass(frozen=True)
class Arithmetic:
    """The numbers of a floating-point system: unit roundoff, smallest subnormal, largest finite number.

    `operand` is the coarser format that operands of products are rounded to first, if they are.
    """

    u: float
    smallest: float
    largest: float
    operand: Format | None = None

    def gamma(self, n: int) -> float:
        """Bound of |Π(1 + δᵢ)^±1 − 1| over n factors."""
        if n * self.u >= 1:
            raise ConfigurationError(f"a unit roundoff of {self.u} bounds no sum of {n} terms: declare a smaller one")
        return n * self.u / (1 - n * self.u)

    @property
    def function(self) -> float:
        """Relative error of a library function."""
        return 2 * ULPS * self.u

    def finite(self, bound: Float64, *reached: Float64) -> Float64:
        """`bound`, but infinite where a value `reached` on the way may be larger than the largest finite number."""
        for magnitude in reached:
            # `not ≤` rather than `>`: a magnitude of NaN came from an overflow
            bound = np.where(~(magnitude <= 0.99 * self.largest), np.inf, bound)
        return bound


def arithmetic(backend: Backend, operation: str, dtype: np.dtype[Any]) -> Arithmetic:
    """The arithmetic in which a backend computes an operation on arrays of a dtype.

    A backend may have an attribute ``unit_roundoff``, a mapping from names of operations to the unit roundoff that
    their float32 form has, where that is larger than 2⁻²⁴ (matrix units that round to TF32 or bfloat16, Winograd's
    convolution, approximate functions). And one ``operand_formats``, a mapping from names of sums of products to the
    format (see `FORMATS`) that their operands are rounded to, where sums are still in float32.
    """
    u, operand = UNIT_ROUNDOFF[dtype.name], None
    if dtype.name == "float32":
        u = max(u, declared(backend).get(operation, 0.0))
        name = operands(backend).get(operation)
        if name is not None:
            if name not in FORMATS:
                raise ConfigurationError(f"no operand format '{name}'; there are {', '.join(FORMATS)}")
            operand = FORMATS[name]
    limits = np.finfo(dtype)
    return Arithmetic(u + UNIT_ROUNDOFF["float64"], float(limits.smallest_subnormal), float(limits.max), operand)


def declared(backend: Backend) -> Mapping[str, float]:
    """The larger unit roundoffs that a backend declares, by operation."""
    roundoffs: Mapping[str, float] = getattr(backend, "unit_roundoff", {})
    return roundoffs


def operands(backend: Backend) -> Mapping[str, str]:
    """The coarser formats of operands that a backend declares, by operation."""
    formats: Mapping[str, str] = getattr(backend, "operand_formats", {})
    return formats


@dataclass(frozen=True)
class Expected:
    """The expected result.

    Attributes:
        name: what it is called in messages
        value: the reference's, float64 (or integers)
        bound: largest allowed |result − value|, of value's shape
    """

    name: str
    value: Array
    bound: Float64


def stored(expected: Expected, backend: Backend, operation: str) -> Expected:
    """The bound of a result that compiled steps keep in a coarser format, to which it is rounded once more.

    A backend may have an attribute ``storage_formats``, a mapping from names of operations to the format (see
    `FORMATS`) that compiled steps keep their floating results in. A result r with an error of at most e becomes
    r·(1 + δ) with |δ| ≤ v, or loses ζ where it is as small as that: e·(1 + v) + v·|r| + ζ.
    """
    name = getattr(backend, "storage_formats", {}).get(operation)
    if name is None or expected.value.dtype.kind != "f":
        return expected
    kept = FORMATS[name]
    bound = expected.bound * (1 + kept.u) + kept.u * np.abs(expected.value) + kept.smallest
    return replace(expected, bound=bound)


def compound(*relative: Any) -> Any:
    """Relative error of a product whose factors have these relative errors: Π(1 + e) − 1."""
    return np.expm1(sum(np.log1p(e) for e in relative))


def exact(name: str, value: Array) -> Expected:
    """A result without rounding."""
    return Expected(name, value, np.zeros(np.shape(value)))


def _values(case: Case) -> list[Array]:
    return [array for array in compute(case.wide) if array is not None]


def _magnitudes(case: Case) -> list[Array]:
    """The same operation on absolute values."""
    absolute = {name: np.abs(a) if a.dtype.kind == "f" else a for name, a in case.wide.arrays.items()}
    return _values(replace(case, arrays=absolute))


def _sums(case: Case, numbers: Arithmetic, terms: Mapping[str, int]) -> list[Expected]:
    """The number of products in each result that is a sum of products, by the result's name."""
    found = []
    for (name, n), value, magnitude in zip(terms.items(), _values(case), _magnitudes(case), strict=True):
        relative, absolute, reached = numbers.gamma(n + 2), n * numbers.smallest, [magnitude]
        if numbers.operand is not None:
            largest = max((float(np.abs(a).max(initial=0.0)) for a in case.wide.arrays.values()), default=0.0)
            relative = compound(numbers.operand.u, numbers.operand.u, relative)
            absolute += 2 * n * numbers.operand.smallest * largest
            # an operand beyond the format's largest number becomes infinite
            reached.append(np.asarray(largest * numbers.largest / numbers.operand.largest))
        found.append(Expected(name, value, numbers.finite(relative * magnitude + absolute, *reached)))
    return found


# ---- movers ---------------------------------------------------------------------------------------------------


def copies(case: Case, numbers: Arithmetic) -> list[Expected]:
    """Numbers that are only moved do not change."""
    return [exact(f"result {i}", value) for i, value in enumerate(_values(case))]


def add(case: Case, numbers: Arithmetic) -> list[Expected]:
    """One rounding: u·|x + y|. A sum of two floating numbers never underflows inexactly."""
    (value,) = _values(case)
    return [Expected("x + y", value, numbers.finite(numbers.gamma(1) * np.abs(value), np.abs(value)))]


def scale(case: Case, numbers: Arithmetic) -> list[Expected]:
    """Two roundings, of the factor and of the product: γ(2)·|factor·x| + η."""
    (value,) = _values(case)
    return [
        Expected(
            "factor · x", value, numbers.finite(numbers.gamma(2) * np.abs(value) + numbers.smallest, np.abs(value))
        )
    ]


# ---- sums of products -----------------------------------------------------------------------------------------


def conv2d(case: Case, numbers: Arithmetic) -> list[Expected]:
    """C·R·S products and the bias."""
    return _sums(case, numbers, {"y": int(np.prod(case.arrays["w"].shape[1:])) + 1})


def conv2d_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """dx: at most K·R·S products; dw and db: N·P·Q."""
    dy, _, w = case.arrays.values()
    K, _, R, S = w.shape
    N, _, P, Q = dy.shape
    terms = {"dx": K * R * S} if case.numbers["need_dx"] else {}
    return _sums(case, numbers, {**terms, "dw": N * P * Q, "db": N * P * Q})


def linear(case: Case, numbers: Arithmetic) -> list[Expected]:
    """D products and the bias."""
    return _sums(case, numbers, {"y": case.arrays["x"].shape[1] + 1})


def linear_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """dx: K products; dw and db: N."""
    N, K = case.arrays["dy"].shape
    terms = {"dx": K} if case.numbers["need_dx"] else {}
    return _sums(case, numbers, {**terms, "dw": N, "db": N})


# ---- element by element ---------------------------------------------------------------------------------------


def relu(case: Case, numbers: Arithmetic) -> list[Expected]:
    """No rounding."""
    return [exact("y", *_values(case))]


def relu_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """No rounding."""
    return [exact("dx", *_values(case))]


def tanh(case: Case, numbers: Arithmetic) -> list[Expected]:
    """A library function: 2·ULPS·u·|y| + η."""
    (y,) = _values(case)
    return [Expected("y", y, numbers.function * np.abs(y) + numbers.smallest)]


def tanh_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """γ(4)·|dy|·(1 + y²): the square is rounded before it is taken from 1, so its error counts in full."""
    dy, y = case.wide.arrays.values()
    (dx,) = _values(case)
    reach = np.abs(dy) * (1 + y * y)
    return [Expected("dx", dx, numbers.finite(numbers.gamma(4) * reach + 2 * numbers.smallest, reach))]


def dropout(case: Case, numbers: Arithmetic) -> list[Expected]:
    """The mask exactly; y as a product of two: γ(2)·|factor·x| + η, and exactly 0 where the mask is 0."""
    y, mask = _values(case)
    return [_masked("y", y, mask, numbers), exact("mask", mask)]


def dropout_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """As `dropout`."""
    return [_masked("dx", _values(case)[0], case.arrays["mask"], numbers)]


def _masked(name: str, value: Array, mask: Array, numbers: Arithmetic) -> Expected:
    magnitude = np.abs(value)
    bound = np.where(mask == 1, numbers.gamma(2) * magnitude + numbers.smallest, 0.0)
    # infinite and not-a-number inputs flow through exactly; only a finite product may overflow
    return Expected(name, value, np.where(np.isfinite(value), numbers.finite(bound, magnitude), 0.0))


# ---- pooling --------------------------------------------------------------------------------------------------


def max_pool2d(case: Case, numbers: Arithmetic) -> list[Expected]:
    """No rounding."""
    return [exact("y", *_values(case))]


def max_pool2d_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """A sum of as many terms as windows overlap: γ(n − 1)·Σ|dy|, routed as for dy itself."""
    n = (-(-case.numbers["size"] // case.numbers["stride"])) ** 2
    (dx,) = _values(case)
    (reach,) = _values(case.with_arrays(dy=np.abs(case.arrays["dy"])))
    return [Expected("dx", dx, numbers.finite(numbers.gamma(n - 1) * reach, reach))]


# ---- normalisation --------------------------------------------------------------------------------------------


def _window(case: Case) -> int:
    """The largest number of existing channels or places that a normalisation window holds."""
    size, shape = case.numbers["size"], case.arrays["x"].shape
    if case.operation.startswith("local"):
        return int(min(size, shape[1]))
    return int(min(size, shape[2]) * min(size, shape[3]))


def _scale_error(case: Case, scale: Float64, numbers: Arithmetic) -> Any:
    """Relative error of scale = k + α·Σx² over m values.

    All terms are at least 0, so roundings only compound: the square, m − 1 additions, α rounded, the product with
    it, k rounded, the last addition: γ(m + 4). A square may underflow by η, and so may the product with α.
    """
    m = _window(case)
    return numbers.gamma(m + 4) + (case.numbers["alpha"] * m + 2) * numbers.smallest / scale


def _power_error(case: Case, scale: Float64, numbers: Arithmetic) -> Any:
    """Relative error of scale^(−β), scale being given: the function's own, and β·u·|ln scale| for β rounded."""
    return compound(numbers.function, np.expm1(case.numbers["beta"] * numbers.u * np.abs(np.log(scale))))


def _moved_scale(case: Case, relative: Any) -> Any:
    """The relative error of scale^(−β) that follows from one of the scale: (1 − e)^(−β) − 1."""
    return np.expm1(-case.numbers["beta"] * np.log1p(-relative))


def response_norm(case: Case, numbers: Arithmetic) -> list[Expected]:
    """scale as in `_scale_error`; y = x·scale^(−β) adds what that does to the power, the power's own error, one u."""
    x = np.abs(case.wide.arrays["x"])
    y, scale = _values(case)
    of_scale = _scale_error(case, scale, numbers)
    of_y = compound(_moved_scale(case, of_scale), _power_error(case, scale, numbers), numbers.u)
    reach = scale * (1 + case.numbers["alpha"]) + _window(case) * x.max(initial=0.0) ** 2
    return [
        Expected("y", y, numbers.finite(of_y * np.abs(y) + (x + 2) * numbers.smallest, reach)),
        Expected("scale", scale, numbers.finite(of_scale * scale, reach)),
    ]


def response_norm_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """dx = T₁ − T₂ with T₁ = dy·scale^(−β) and T₂ = 2αβ·x·Σ dy·y/scale.

    y and scale must be what the forward operation gives for x, rounded: a backend may use them or recompute
    them, so their own forward errors are allowed for. T₁: the power and one product. T₂: per term the product, the
    quotient and the errors of y and of scale; m − 1 additions; α, β and the product of the coefficients (4); the
    products with x and with the sum (2). The difference adds u·(|T₁| + |T₂|).
    """
    dy, x, y, scale = (np.abs(array) for array in case.wide.arrays.values())
    alpha, beta, m = case.numbers["alpha"], case.numbers["beta"], _window(case)
    (dx,) = _values(case)

    first = dy * scale**-beta
    inhibition = _inhibition(case, dy, y, scale)
    second = 2 * alpha * beta * x * inhibition
    of_scale = compound(_scale_error(case, scale, numbers), numbers.u)
    power = compound(_moved_scale(case, of_scale), _power_error(case, scale, numbers))
    of_first = compound(power, numbers.u)
    worst = float(np.max(compound(of_scale / (1 - of_scale), power, numbers.u), initial=0.0))
    of_second = compound(worst, numbers.gamma(2 + m - 1 + 6))
    lowest = float(scale.min(initial=1.0))
    underflow = numbers.smallest * (
        (dy + 2) + (2 * alpha * beta + 1) * (x + 1) * (inhibition + m * (1 + 1 / lowest + dy.max(initial=0.0)) + 2)
    )
    bound = of_first * first + of_second * second + numbers.u * (first + second) + underflow
    largest = float(np.max(x, initial=0.0))
    reach = first + second + largest * (inhibition + m * dy.max(initial=0.0)) * (1 + alpha) + m * largest**2
    return [Expected("dx", dx, numbers.finite(bound, reach, scale))]


def _inhibition(case: Case, dy: Float64, y: Float64, scale: Float64) -> Float64:
    """Σ |dy·y|/scale over the windows that hold each place, by the reference: T₂ where 2αβ·x is the huge number −F."""
    F = 2.0**200
    numbers = {**case.numbers, "alpha": 0.5, "beta": 1.0}
    (both,) = _values(
        replace(case, arrays={"dy": dy, "x": np.full_like(dy, -F), "y": y, "scale": scale}, numbers=numbers)
    )
    own = dy / scale
    sums: Float64 = (np.maximum(both - own, 0) + UNIT_ROUNDOFF["float64"] * 4 * own) / F  # T₁ may hide all of T₂
    return sums


# ---- the cost -------------------------------------------------------------------------------------------------


def softmax_cross_entropy(case: Case, numbers: Arithmetic) -> list[Expected]:
    """With d = logits − their largest, T = Σ exp d and L = log T.

    probs = exp(d)/T: d is rounded once, which moves exp d by the factor exp(u·|d|), and once more where d − L is
    formed first, by exp(u·(|d| + 3L)); exp has its ulps, so does log. T is a sum of K positive terms with these
    errors: their weighted mean and γ(K). The quotient adds u.

    loss = mean of L − d[label]: log turns T's relative error into an absolute one and has its ulps of L; d[label] and
    the difference are rounded; the mean adds γ(N + 1) of the terms' sizes. Losing the label's probability to
    underflow is no excuse: the bound stays finite there.
    """
    logits, labels = case.wide.arrays.values()
    loss, probs = _values(case)
    N, K = logits.shape
    d = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(d)
    T = e.sum(axis=1, keepdims=True)
    L = np.log(T)
    moved = np.expm1(numbers.u * (2 * np.abs(d) + 3 * L + 2 * ULPS * L) + numbers.function)
    moved = np.where(e > 0, moved, 0.0)  # exp(−∞) stays 0
    of_T = (e * moved).sum(axis=1, keepdims=True) / T + numbers.gamma(K) + K * numbers.smallest
    of_probs = compound(moved, of_T / (1 - of_T), numbers.u)
    found = Expected("probs", probs, of_probs * probs + 2 * numbers.smallest)

    if np.any((labels < 0) | (labels >= K)):
        return [exact("loss", np.asarray(loss)), found]
    own = np.abs(d[np.arange(N), labels])
    terms = L[:, 0] + own
    per_image = (
        -np.log1p(-of_T[:, 0]) + (numbers.function + numbers.u) * L[:, 0] + numbers.u * own + 2 * numbers.u * terms
    )
    bound = np.asarray(per_image.mean() + numbers.gamma(N + 1) * terms.mean() + N * numbers.smallest)
    return [Expected("loss", loss, numbers.finite(bound, np.asarray(terms.sum()))), found]


def softmax_cross_entropy_backward(case: Case, numbers: Arithmetic) -> list[Expected]:
    """γ(3)·(probs + [the label])/N: the division before or after the subtraction, by N or times 1/N."""
    probs, labels = case.wide.arrays.values()
    (dlogits,) = _values(case)
    N, K = probs.shape
    size = (probs + (labels[:, None] == np.arange(K))) / N
    return [Expected("dlogits", dlogits, numbers.gamma(3) * size + 2 * numbers.smallest)]


# ---- update and augmentation ----------------------------------------------------------------------------------


def scale_by_trust_ratio(case: Case, numbers: Arithmetic) -> list[Expected]:
    """A sum of n squares is off by γ(n + 1), or by nη where squares underflow, and a norm by no more than that and u.

    The ratio has two of them, two coefficients, two products, a sum and a quotient: γ(6) more; its product with
    dw + λw has four roundings more. Where squares or anything else may overflow, or as good as all underflow and it is
    not sure whether a norm is 0, every answer is accepted.
    """
    w, dw = case.wide.arrays.values()
    coefficient, decay = (case.numbers[name] for name in ("trust_coefficient", "weight_decay"))
    (value,) = _values(case)
    squares = np.array([np.sum(w * w), np.sum(dw * dw)])
    lost = np.where(squares > 0, w.size * numbers.smallest / np.where(squares > 0, squares, 1), 0)
    relative = compound(*(numbers.gamma(w.size + 2) + lost), numbers.gamma(10))
    norms = np.sqrt(squares)
    ratio = coefficient * norms[0] / (norms[1] + decay * norms[0]) if norms.all() else 1.0
    size = np.abs(dw) + decay * np.abs(w)
    bound = relative * ratio * size + numbers.smallest * (2 + 2 * ratio)
    reached = np.asarray(max(*squares, ratio, *(norms * decay)))
    return [
        Expected(
            "λ·(dw + decay·w)", value, numbers.finite(np.where(lost.max() > 0.1, np.inf, bound), reached, ratio * size)
        )
    ]


def sgd_update(case: Case, numbers: Arithmetic) -> list[Expected]:
    """v: three terms with at most six roundings each (two coefficients and their product, the product, two additions):
    γ(6)·(|μv| + |λεw| + |εdw|) + 6η. w: that, and u·(|w| + the terms). Elements that keep their values do so exactly.
    """
    w, v, dw = (np.abs(array) for array in case.wide.arrays.values())
    rate, momentum, decay = (case.numbers[name] for name in ("learning_rate", "momentum", "weight_decay"))
    with np.errstate(all="ignore"):
        size = momentum * v + decay * rate * w + rate * dw
        kept = ~(np.maximum(size, w + size) <= numbers.largest)
    # what float32 cannot hold float64 can: where the kit's numbers overflow they do so by far
    _, new_w, new_v = compute(case.wide)
    assert new_w is not None
    assert new_v is not None
    of_v = numbers.gamma(6) * size + 6 * numbers.smallest
    of_w = of_v + numbers.gamma(2) * (w + size)
    return [
        exact("number kept", np.asarray(np.count_nonzero(kept))),
        Expected("w", np.where(kept, case.arrays["w"], new_w), np.where(kept, 0.0, of_w)),
        Expected("v", np.where(kept, case.arrays["v"], new_v), np.where(kept, 0.0, of_v)),
    ]


def augment(case: Case, numbers: Arithmetic) -> list[Expected]:
    """γ(4)·|factor|·(image + |shift| + |mean|) + η: two additions, the factor rounded, the product with it."""
    (y,) = _values(case)
    opposite = case.wide.with_arrays(mean=-np.abs(case.wide.arrays["mean"]), shift=np.abs(case.wide.arrays["shift"]))
    (reach,) = (np.abs(value) for value in _values(opposite))
    return [Expected("y", y, numbers.finite(numbers.gamma(4) * reach + numbers.smallest, reach))]


def registered(case: Case, numbers: Arithmetic) -> list[Expected]:
    """For a registered operation, of which nothing is known: roundings of the size of a result's largest element.

    Not derived: an operation is allowed `Function.roundings` of them, and as many of its arguments, which are moved
    at random to see what that does.
    """
    values, u, step = _values(case), numbers.u, 2.0**-20
    moved = [np.zeros(np.shape(value)) for value in values]
    random = np.random.default_rng(0)
    for _ in range(3):
        nudged = each(case.wide.arrays, lambda a: a * (1 + step * random.uniform(-1, 1, a.shape)))
        for most, value, other in zip(moved, values, _values(replace(case.wide, arrays=nudged)), strict=True):
            np.maximum(most, np.abs(other - value) / step, out=most)
    found = []
    for index, (value, most) in enumerate(zip(values, moved, strict=True)):
        size = max(float(np.max(np.abs(value), initial=0.0)), float(np.max(most, initial=0.0)))
        bound = np.full(np.shape(value), FUNCTIONS[case.operation].roundings * (u * size + numbers.smallest))
        found.append(Expected(f"result {index}", value, numbers.finite(bound, np.full(np.shape(value), size))))
    return found


BOUNDS: dict[str, Callable[[Case, Arithmetic], list[Expected]]] = {
    **dict.fromkeys(("reshape", "concat", "split"), copies),
    **{
        function.__name__: function
        for function in (
            add, scale, conv2d, conv2d_backward, linear, linear_backward, relu, relu_backward, tanh, tanh_backward,
            max_pool2d, max_pool2d_backward, dropout, dropout_backward, softmax_cross_entropy,
            softmax_cross_entropy_backward, scale_by_trust_ratio, sgd_update, augment,
        )
    },
    **dict.fromkeys(("local_response_norm", "spatial_response_norm"), response_norm),
    **dict.fromkeys(("local_response_norm_backward", "spatial_response_norm_backward"), response_norm_backward),
}  # fmt: skip
"""The bound of each operation by name."""


def expected(case: Case, backend: Backend) -> list[Expected]:
    """What a call should give on a backend, result by result; a result that should be None is left out."""
    dtype = next((a.dtype for a in listed(case.arrays.values()) if a.dtype.kind == "f"), np.dtype(np.float64))
    with np.errstate(all="ignore"):
        return BOUNDS.get(case.operation, registered)(case, arithmetic(backend, case.operation, dtype))

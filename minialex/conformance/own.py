"""Checks for user-defined operations and layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import settings

from minialex.backend.operations import OPERATIONS, Example
from minialex.backend.program import flatten
from minialex.backend.protocol import Backend
from minialex.conformance.case import Array, reference
from minialex.conformance.checks import CHECKS, PROFILES, check_operation, dtypes, expect
from minialex.conformance.compare import same_bits
from minialex.errors import ConfigurationError, nearest
from minialex.network.layers import ArrayLayer, Context, Layer

STEP = 2.0**-14
"""Step of the central differences in float64: their error is of the order of its square."""

LOOSE = 1e-6
"""The largest relative error of a difference from the directional derivative."""

SCALES = (1.0, 8.0)
"""Standard deviations of the arrays for checking gradients: clipping and saturation occur far from 0."""

ROUNDINGS = 64
"""How far a layer's numbers may be from the reference's in float64, in roundings of its largest number, times the
square root of the largest array's size (sums of n roundings grow like √n). This is a convention: nothing is known of a
user's own layer from which a bound could be derived. It finds a wrong factor or products in fewer bits, but not a wrong
last bit."""

Forward = Callable[[Backend, Mapping[str, Any]], tuple[Any, Any]]
Backward = Callable[[Backend, Any, Any], Mapping[str, Any]]


def check_registered(backend: Backend, name: str, profile: settings = PROFILES["ci"]) -> None:
    """Check a registered operation on a backend as the kit checks the protocol's operations, and its gradient.

    Args:
        backend: the backend that runs it
        name: the operation's name; it must have been registered with examples
        profile: how many examples to try

    Raises:
        ConfigurationError: If there is no such operation, or it has no examples.
    """
    check_operation(backend, name, profile)
    check_operation(backend, f"{name}_backward", profile)
    check_gradient(name)


def check_of(name: str) -> Callable[..., None]:
    """The check of a name of the protocol or of a registered operation, called with a backend and a profile.

    Raises:
        ConfigurationError: If there is neither.
    """
    if name in CHECKS:
        return CHECKS[name]
    if name not in OPERATIONS:
        hint = nearest(name, [*CHECKS, *OPERATIONS])
        raise ConfigurationError(f"the protocol has no operation '{name}', and none was registered.{hint}")
    return lambda backend, profile=PROFILES["ci"]: check_registered(backend, name, profile)


def check_gradient(name: str, examples: Sequence[Example] = (), fixed: Sequence[str] = ()) -> None:
    """Check a registered operation's gradient, in float64 on the reference, against central differences.

    Args:
        name: the operation's name
        examples: shapes and numbers, instead of the registered ones
        fixed: names of arrays for which the operation has no gradient (state that is not learned)
    """
    operation = OPERATIONS[name]
    for shapes, numbers in examples or operation.examples:

        def forward(on: Backend, arrays: Mapping[str, Any], given: Mapping[str, Any] = numbers) -> tuple[Any, Any]:
            y, *saved = flatten(operation(on, *arrays.values(), **given))
            return y, (*arrays.values(), *saved)

        def backward(on: Backend, dy: Any, saved: Any, given: Mapping[str, Any] = numbers) -> Mapping[str, Any]:
            gradients = flatten(operation.gradient(on, dy, *saved, **given))
            return dict(zip(operation.arrays, gradients, strict=True))

        _differences(name, dict(zip(operation.arrays, shapes, strict=True)), forward, backward, fixed)


def _differences(
    name: str, shapes: Mapping[str, tuple[int, ...]], forward: Forward, backward: Backward, fixed: Sequence[str]
) -> None:
    """The gradient of ⟨weights, y⟩ along a random direction of every array, against central differences."""
    for scale in SCALES:
        _differences_at(scale, name, shapes, forward, backward, fixed)


def _differences_at(
    scale: float, name: str, shapes: Mapping[str, tuple[int, ...]], forward: Forward, backward: Backward,
    fixed: Sequence[str],
) -> None:  # fmt: skip
    on, random = reference(), np.random.default_rng(0)
    device = on.devices[0]
    arrays = {key: 0.5 + random.random(shape) if key in fixed else scale * random.standard_normal(shape)
              for key, shape in shapes.items()}  # fmt: skip

    def run(given: Mapping[str, Array]) -> tuple[Any, Any]:
        return forward(on, {key: on.to_device(array, device) for key, array in given.items()})

    y, saved = run(arrays)
    size_of = f"for arrays of a standard deviation of {scale:g}"
    _finite(name, "its output", on.to_numpy(y), size_of)
    weights = random.standard_normal(y.shape)
    gradients = backward(on, on.to_device(weights, device), saved)
    for key, array in arrays.items():
        if key in fixed or not array.size:
            continue
        _finite(name, f"its gradient of '{key}' {shapes[key]}", on.to_numpy(gradients[key]), size_of)
        direction = random.standard_normal(array.shape)
        claimed = float(np.sum(on.to_numpy(gradients[key]) * direction))
        size = float(np.sum(np.abs(on.to_numpy(gradients[key]) * direction))) + 1e-9

        def along(t: float, key: str = key, array: Array = array, direction: Array = direction) -> float:
            moved = {**arrays, key: array + t * direction}
            return float(np.sum(weights * on.to_numpy(run(moved)[0])))

        # a kink between the two points spoils a difference: some are close, some far apart
        seen = [(along(h) - along(-h)) / (2 * h) for h in (STEP, STEP / 8, STEP / 64, STEP / 512)]
        near = min(abs(claimed - difference) for difference in seen)
        expect(
            near <= LOOSE * size,
            name,
            f"its gradient of '{key}' {shapes[key]} is {claimed:.9g} along a direction, differences say {seen[1]:.9g} "
            f"({size_of})",
        )


def _finite(name: str, what: str, array: Array, where: str) -> None:
    """Check that a result is finite: NaN compares with nothing, so no difference would show the fault."""
    wrong = int(array.size - np.count_nonzero(np.isfinite(array)))
    expect(not wrong, name, f"{what} has {wrong} of {array.size} values that are not finite, {where}")


def check_layer(
    backend: Backend,
    layer: Layer,
    shape: tuple[int, ...],
    *,
    columns: int = 1,
    batch: int = 3,
    profile: settings = PROFILES["ci"],
) -> None:
    """Check a layer on a backend: shapes, gradients, agreement with the reference, pure arguments, reproducible bits.

    Args:
        backend: the backend that runs it
        layer: the layer
        shape: its input's shape, without N
        columns: number of columns that compute it
        batch: images per batch
        profile: how many examples of its operation to try, if it is an `ArrayLayer`

    Raises:
        Disagreement: If something is wrong; the message says what.
        ConfigurationError: If it is not a layer.
    """
    if not isinstance(layer, Layer):
        kind = f"the class {layer.__name__}: write {layer.__name__}(…)" if isinstance(layer, type) else repr(layer)
        raise ConfigurationError(f"check_layer checks a layer, got {kind}")
    sizes = layer.parameters(shape, 0, columns)
    shapes = {"x": (batch, *shape), **{name: parameter.shape for name, parameter in sizes.items()}}
    fixed = [name for name, parameter in sizes.items() if not parameter.learned]
    for training in (True, False):
        context = Context(training, columns=columns)

        def forward(on: Backend, arrays: Mapping[str, Any], now: Context = context) -> tuple[Any, Any]:
            own = {name: arrays[name] for name in sizes}
            y, saved = layer.forward(on, own, arrays["x"], now)
            return y, (own, saved)

        def backward(on: Backend, dy: Any, saved: Any, now: Context = context) -> Mapping[str, Any]:
            own, kept = saved
            dx, gradients = layer.backward(on, own, kept, dy, now)
            return {"x": dx, **gradients}

        if training:
            _differences(layer.name, shapes, forward, backward, fixed)
        _agrees(backend, layer, shapes, columns, forward, backward if training else None, fixed)
    if isinstance(layer, ArrayLayer):
        given = [(list(shapes.values()), {"layer": layer, "columns": columns, "training": True})]
        for name in (layer.operation.name, f"{layer.operation.name}_backward"):
            check_operation(
                backend, name, settings(profile, max_examples=min(10, profile.max_examples)), examples=given
            )


def _agrees(
    backend: Backend,
    layer: Layer,
    shapes: Mapping[str, tuple[int, ...]],
    columns: int,
    forward: Forward,
    backward: Backward | None,
    fixed: Sequence[str],
) -> None:
    """Compare forward and, if given, backward on a backend's devices with the reference, in every dtype."""
    wanted = (shapes["x"][0], *layer.output_shape(shapes["x"][1:], columns))
    for dtype in dtypes(backend):
        random = np.random.default_rng(1)
        arrays = {key: (0.5 + random.random(shape) if key in fixed else random.standard_normal(shape)).astype(dtype)
                  for key, shape in shapes.items()}  # fmt: skip
        dy = random.standard_normal(wanted).astype(dtype)

        def run(on: Backend, device: str, wide: bool = False) -> dict[str, Array]:
            there = {
                key: on.to_device(a.astype(np.float64) if wide else a, device)
                for key, a in {**arrays, "dy": dy}.items()  # noqa: B023 - called within the loop
            }
            of_y = there.pop("dy")
            y, saved = forward(on, there)
            expect(tuple(y.shape) == wanted, layer.name, f"gave {tuple(y.shape)}, its output_shape says {wanted}")
            results = {"y": y} | ({f"d{k}": g for k, g in backward(on, of_y, saved).items()} if backward else {})
            found = {key: on.to_numpy(result) for key, result in results.items()}
            for key, array in there.items():
                same = same_bits(on.to_numpy(array), arrays[key].astype(np.float64) if wide else arrays[key])  # noqa: B023
                expect(same, layer.name, f"wrote into '{key}'")
            return found

        exact = run(reference(), reference().devices[0], wide=True)
        first = run(backend, backend.devices[0])
        allowed = ROUNDINGS * float(np.finfo(dtype).eps) * math.sqrt(max(math.prod(shape) for shape in shapes.values()))
        for key, result in first.items():
            expect(result.dtype == dtype, layer.name, f"'{key}' is {result.dtype}, expected {dtype}")
            _finite(layer.name, f"'{key}'", result, f"in {dtype}")
            error = float(np.max(np.abs(result - exact[key]), initial=0.0))
            limit = allowed * (1 + float(np.max(np.abs(exact[key]), initial=0.0)))
            expect(
                error <= limit, layer.name, f"'{key}' in {dtype} is {error:.3g} from the reference, allowed {limit:.3g}"
            )
        for device in backend.devices:
            for key, result in run(backend, device).items():
                expect(same_bits(result, first[key]), layer.name, f"'{key}' has other bits a second time, on {device}")

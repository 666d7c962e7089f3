"""Whole training steps: does a backend, operation by operation or compiled, train like the reference?

A small two-column network with every kind of layer is recorded as a program and run for some steps from the same
weights on the same images. Errors of single operations grow on their way through a network; the reference itself shows
by how much: the steps are run again in float64, and every result of every operation is perturbed at random within a
share of that operation's bound (`minialex.conformance.bounds`). The backend may be as far from the reference as
`MARGIN` times the farthest of these runs, array by array in the maximum norm. A tensor core may truncate its operands
to tf32, always towards zero, unlike any random numbers: one more run does that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

from minialex.backend.fetching import fetched, runs_ahead
from minialex.backend.pretend import HostArray
from minialex.backend.program import STEP, ArrayName, CompiledStep, Program, flatten
from minialex.backend.protocol import Backend
from minialex.backend.recorder import interpret
from minialex.conformance.bounds import BOUNDS, UNIT_ROUNDOFF, arithmetic, operands, stored
from minialex.conformance.case import IN_PLACE, Array, Case, reference
from minialex.conformance.compare import Disagreement, same_bits
from minialex.engine.step import Kind, Plan, record
from minialex.network.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    SpatialResponseNorm,
    Tanh,
)
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters
from minialex.recipe.fields import Recipe

NETWORK = Network(
    "conformance",
    (3, 45, 45),
    (
        Conv2d("conv1", 16, 5, stride=2, padding=((0, 3), (0, 3)), std=0.15),
        ReLU("relu1"),
        LocalResponseNorm("norm1", size=3, alpha=0.5),
        MaxPool2d("pool1", 3, 2),
        Conv2d("conv2", 16, 5, padding=((2, 2), (2, 2)), std=0.15, bias=0.1),
        ReLU("relu2"),
        Conv2d("conv3", 16, 3, padding=((1, 1), (1, 1)), std=0.2, bias=0.1),
        Tanh("tanh3"),
        SpatialResponseNorm("norm3", size=2, alpha=0.5),
        MaxPool2d("pool3", 2, 2, ceil=True, ties="all"),
        Conv2d("conv4", 16, 3, padding=((1, 1), (1, 1)), std=0.2, bias=0.1, sees="all"),
        ReLU("relu4"),
        LocalResponseNorm("norm4", size=4, k=1.0, alpha=0.2, alpha_over_n=False, sees="all"),
        Flatten("flatten"),
        Linear("fc5", 12, std=0.2, bias=0.1, sees="all"),
        ReLU("relu5"),
        Dropout("dropout5"),
        Linear("fc6", 12, std=0.3, bias=0.1, sees="all"),
        ReLU("relu6"),
        Dropout("dropout6", 0.3, "inverted"),
        Linear("fc7", 5, std=0.3, sees="all", on="first"),
    ),
)
"""Every kind of layer at least once; two columns; windows across and within them; the last layer on only one. With maps
of 22, 10 and 5 rows and eight channels per column, 3 × 3 and 5 × 5 kernels that are computed in tiles (Winograd) are
computed in tiles here, too, with complete and partial ones."""

IMAGE_SIZE = 48
BATCH = 4
RECIPE = Recipe(seed=3, image_size=IMAGE_SIZE, crop=NETWORK.input_shape[1], pixel_scale=1 / 64)
STEPS = 3
TRIALS = 4
SHARE = 1 / 8
MARGIN = 4.0
"""The perturbed runs change every result by up to `SHARE` of its bound, and a backend may be `MARGIN` times as far from
the reference as the farthest of `TRIALS` such runs. The bounds are worst-case: all roundings of a sum of n terms go one
way; observed errors are about √n times smaller (Higham and Mary, "A new approach to probabilistic rounding error
analysis", 2019). Half of every operation's worst case leaves room for both."""

Name = TypeVar("Name")
Make = Callable[[Program, Backend, Mapping[ArrayName, Any]], CompiledStep]
Run = list[dict[ArrayName, Array]]
"""For each step, the outputs and the new parameters and momentum."""


@dataclass(frozen=True)
class Data:
    """The input of the steps, on the host: weights by name, the mean image, and the batches."""

    dtype: str
    weights: dict[ArrayName, Array]
    mean: Array
    batches: list[dict[str, Array]]

    @property
    def wide(self) -> Data:
        """The same numbers in float64."""

        def widen(arrays: Mapping[Name, Array]) -> dict[Name, Array]:
            return {name: a.astype(np.float64) if a.dtype.kind == "f" else a for name, a in arrays.items()}

        return Data("float64", widen(self.weights), self.mean.astype(np.float64), [widen(b) for b in self.batches])


def data(dtype: str) -> Data:
    """Fixed weights and random images."""
    random = np.random.default_rng(5)
    batches = [
        {
            "images": random.integers(0, 256, (BATCH, 3, IMAGE_SIZE, IMAGE_SIZE)).astype(np.uint8),
            "shift": (10 * random.standard_normal((BATCH, 3))).astype(dtype),
            "top": random.integers(0, 4, BATCH).astype(np.int32),
            "left": random.integers(0, 4, BATCH).astype(np.int32),
            "flip": random.integers(0, 2, BATCH).astype(np.uint8),
            "labels": random.integers(0, 5, BATCH),
        }
        for _ in range(STEPS)
    ]
    mean = random.uniform(100, 150, (3, IMAGE_SIZE, IMAGE_SIZE)).astype(dtype)
    return Data(dtype, dict(initial_parameters(NETWORK, 2, 11, dtype)), mean, batches)


def program_of(kind: Kind, dtype: str, placement: tuple[str, str], devices: tuple[str, ...], more: bool) -> Program:
    """The recorded step of `NETWORK`; with `more`, dropout's masks or (in inference) all layers are outputs, too."""
    layers = tuple(layer.name for layer in NETWORK.layers) if more else ()
    plan = Plan(NETWORK, placement, RECIPE.replace(dtype=dtype), layers=layers)
    program = record(plan, kind, BATCH, devices)
    drawn = [call for call in program.calls if call.operation == "dropout"] if more else []
    outputs = {
        ArrayName(call.layer, column=call.column, role="mask"): mask for call in drawn if (mask := call.results[1])
    }
    return replace(program, outputs={**program.outputs, **outputs})


def execute(backend: Backend, program: Program, given: Data, make: Make = interpret) -> Run:
    """Run all steps; what each returns is fetched when all are done, if the backend can promise it."""

    def initial(name: ArrayName) -> Array:
        if name.role == "mean":
            return given.mean
        weights = given.weights[name.to("parameter")]
        return np.zeros_like(weights) if name.role == "momentum" else weights

    bound = {name: backend.to_device(initial(name), value.device) for name, value in program.bound.items()}
    step = make(program, backend, bound)
    run = []
    promised = []
    for number, batch in enumerate(given.batches):
        feed: dict[ArrayName, Any] = {name: _number(name, number) for name in program.symbols}
        for name, value in program.fed.items():
            feed[name] = backend.to_device(batch[name.role], value.device)
        outputs = step(feed)
        later = fetched(backend, list(outputs.values()))
        if not runs_ahead(backend):
            later = partial(list, later())
        promised.append((list(outputs), later))
        run.append({name: backend.to_numpy(a) for name, a in bound.items() if name.role != "mean"})
    return [
        {**dict(zip(names, later(), strict=True)), **learned}
        for (names, later), learned in zip(promised, run, strict=True)
    ]


def _number(name: ArrayName, step: int) -> float:
    """The value of a symbol at a step: the step's number, or a rate, which changes and differs for biases."""
    return 7 + step if name == STEP else (0.04 if name.array == "bias" else 0.02) / (1 + step)


class Perturbed:
    """The reference in float64, with every result perturbed within a share of the bound of a backend's arithmetic.

    Args:
        truncates: instead, products truncate their operands where the backend declares tf32
    """

    def __init__(self, backend: Backend, dtype: str, seed: int, truncates: bool = False) -> None:
        self.backend = backend
        self.truncates = truncates
        self.dtype = np.dtype(dtype)
        self.random = np.random.default_rng(seed)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        function = getattr(reference(), operation)
        if operation not in BOUNDS:
            return cast(Callable[..., Any], function)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(getattr(Backend, operation)).bind(None, *args, **kwargs).arguments
            case = Case(
                operation,
                {name: _fetch(value) for name, value in given.items() if _holds_arrays(value)},
                {name: value for name, value in given.items() if name != "self" and not _holds_arrays(value)},
            )
            if self.truncates:
                if operands(self.backend).get(operation) == "tf32":
                    given |= {name: _truncated(value) for name, value in given.items() if name != "b"}
                return function(**{name: value for name, value in given.items() if name != "self"})
            made = function(*args, **kwargs)
            moved = [result for result in flatten(made) if result is not None]
            moved += [given[name] for name in IN_PLACE.get(operation, ())]
            wanted = BOUNDS[operation](case, arithmetic(self.backend, operation, self.dtype))
            if self.dtype == np.float32:
                wanted = [stored(result, self.backend, operation) for result in wanted]
            for result, expected in zip(moved, wanted, strict=True):
                if expected.bound.any():
                    result.data += SHARE * expected.bound * self.random.uniform(-1, 1, expected.bound.shape)
            return made

        return call


def _truncated(value: Any) -> Any:
    """A float64 array truncated to tf32's ten fraction bits; anything else unchanged."""
    if not isinstance(value, HostArray) or value.dtype != np.float64:
        return value
    bits = np.ascontiguousarray(value.data).view(np.uint64) >> np.uint64(42) << np.uint64(42)
    return HostArray(bits.view(np.float64), value.device)


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, HostArray) or (isinstance(value, list) and isinstance(value[0], HostArray))


def _fetch(value: Any) -> Any:
    return [_fetch(item) for item in value] if isinstance(value, list) else reference().to_numpy(value)


def spread(backend: Backend, kind: Kind, given: Data) -> tuple[Run, list[dict[ArrayName, float]]]:
    """The reference's run in float64, and how far from it each array of each step may be."""
    there = reference().devices[0]
    program = program_of(kind, "float64", (there, there), reference().devices, more=True)
    exact = execute(reference(), program, given.wide)
    runs = []
    truncates = "tf32" in operands(backend).values()
    for seed in range(TRIALS + truncates):
        perturbed = cast(Backend, Perturbed(backend, given.dtype, seed, truncates=seed == TRIALS))

        def make(
            program: Program, backend: Backend, bound: Mapping[ArrayName, Any], by: Backend = perturbed
        ) -> CompiledStep:
            return interpret(program, by, bound)

        runs.append(execute(reference(), program, given.wide, make))
    u = UNIT_ROUNDOFF[given.dtype]
    allowed = [
        {
            name: MARGIN * max(_farthest(run[step][name], array) for run in runs) + u * float(np.max(np.abs(array)))
            for name, array in arrays.items()
            if array.dtype.kind == "f"
        }
        for step, arrays in enumerate(exact)
    ]
    return exact, allowed


_SPREADS: dict[str, tuple[Run, list[dict[ArrayName, float]]]] = {}


def _spread_once(backend: Backend, kind: Kind, given: Data) -> tuple[Run, list[dict[ArrayName, float]]]:
    """`spread` on `data`, computed once per process for all backends with the same declared arithmetic."""
    declarations = ("unit_roundoff", "operand_formats", "storage_formats")
    declared = [sorted(getattr(backend, name, {}).items()) for name in declarations]
    key = repr((kind, given.dtype, declared, NETWORK, RECIPE, IMAGE_SIZE, BATCH, STEPS))
    if key not in _SPREADS:
        _SPREADS[key] = spread(backend, kind, given)
    return _SPREADS[key]


def _farthest(first: Array, second: Array) -> float:
    return float(np.max(np.abs(first.astype(np.float64) - second)))


def check_run(what: str, run: Run, wanted: Run, allowed: list[dict[ArrayName, float]], more: bool) -> None:
    """Raise `Disagreement` if a run is farther from another than allowed; integers and masks must be equal."""
    for step, arrays in enumerate(run):
        names = set(arrays) ^ {name for name in wanted[step] if more or name.role not in ("mask", "output")}
        if names:
            raise Disagreement(
                f"compile_step: {what}: outputs left out or not asked for: {', '.join(sorted(map(str, names)))}"
            )
        for name, array in arrays.items():
            other = wanted[step][name]
            with np.errstate(invalid="ignore"):
                error = np.abs(array.astype(np.float64) - other)
            limit = allowed[step].get(name, 0.0)
            if np.all(error <= limit):
                continue
            worst: Any = np.unravel_index(int(np.argmax(np.nan_to_num(error, nan=np.inf))), array.shape)
            raise Disagreement(
                f"compile_step: {what}: step {step}: "
                f"'{name}' {array.shape} {array.dtype} at {[int(i) for i in worst]}: "
                f"got {array[worst]!r}, expected {other[worst]!r}, difference {error[worst]:.3g}, allowed {limit:.3g}"
            )


def check_steps(backend: Backend, dtypes: tuple[str, ...]) -> None:
    """Check training and inference steps, by operations and compiled, on one device and on two: close to the reference,
    and with the same bits wherever the columns are.
    """
    first, last = backend.devices[0], backend.devices[-1]
    for dtype in dtypes:
        given = data(dtype)
        kinds: tuple[Kind, ...] = ("train", "infer")
        for kind in kinds:
            exact, allowed = _spread_once(backend, kind, given)
            walked: dict[tuple[str, str], Run] = {}
            compiled: dict[bool, Run] = {}
            for placement in dict.fromkeys(((first, first), (first, last), (last, first))):
                where = f"{kind} step in {dtype} on {', '.join(placement)}"
                program = program_of(kind, dtype, placement, backend.devices, more=True)
                walked[placement] = execute(backend, program, given)
                check_run(f"{where}, walked", walked[placement], exact, allowed, more=True)
                _check_bits(f"{where}, walked", walked[placement], walked[first, first])
                for more in (True, False):
                    program = program_of(kind, dtype, placement, backend.devices, more)
                    run = compile_on(backend, program, given)
                    if run is not None:
                        check_run(f"{where}, compiled, against the reference", run, exact, allowed, more)
                        check_run(f"{where}, compiled, against walking", run, walked[placement], allowed, more)
                        _check_bits(f"{where}, compiled", run, compiled.setdefault(more, run))


def _check_bits(what: str, run: Run, other: Run) -> None:
    for step, arrays in enumerate(run):
        for name, array in arrays.items():
            if not same_bits(array, other[step][name]):
                raise Disagreement(f"compile_step: {what}: step {step}: '{name}' has other bits than on one device")


class NotCompiled(Exception):
    """The backend's `compile_step` returned None: it does not compile this program."""


def compile_on(backend: Backend, program: Program, given: Data) -> Run | None:
    """Run the steps as compiled by the backend; None if it does not compile them."""

    def make(program: Program, backend: Backend, bound: Mapping[ArrayName, Any]) -> CompiledStep:
        compiled = backend.compile_step(program, bound)
        if compiled is None:
            raise NotCompiled
        return compiled

    try:
        return execute(backend, program, given, make)
    except NotCompiled:
        return None

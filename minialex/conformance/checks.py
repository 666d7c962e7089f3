"""The checks themselves: plain functions of a backend, which pytest's tests and `minialex.conformance.run` call.

`CHECKS` has one for every name of the protocol. Each raises `Disagreement` with the smallest example that
Hypothesis finds, or returns.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from minialex.backend.fetching import fetched, runs_ahead
from minialex.backend.operations import Example, method, rule_of
from minialex.backend.program import flatten
from minialex.backend.protocol import MOVERS, OPERATIONS, Backend
from minialex.backend.registry import protocol_faults
from minialex.conformance.bounds import expected
from minialex.conformance.case import IN_PLACE, LAYOUTS, Array, Case, each, lay_out, listed
from minialex.conformance.compare import Disagreement, check_value, fail, same_bits
from minialex.conformance.strategies import MOODS, STRATEGIES, Floats, make, refused, registered, wrong_calls
from minialex.errors import ConfigurationError, DeviceMismatch

_PLAIN = settings(
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)

PROFILES = {
    "ci": settings(_PLAIN, max_examples=100, derandomize=True),
    "deep": settings(_PLAIN, max_examples=2000, print_blob=True),
}
"""How hard to check: ``"ci"`` draws the same moderate number of examples every time, ``"deep"`` many new ones."""


NOTHING = "returned None"
"""The fault of an operation that is not implemented."""


def dtypes(backend: Backend) -> tuple[str, ...]:
    """The floating dtypes that a backend takes: its attribute ``dtypes``, or float32 and float64."""
    return tuple(getattr(backend, "dtypes", ("float32", "float64")))


def at(case: Case, device: str) -> str:
    """The dtype and device of a call, for messages."""
    floats = [a.dtype.name for a in listed(case.arrays.values()) if a.dtype.kind == "f"]
    return f"{device} in {floats[0]}" if floats else device


# ---- one call -------------------------------------------------------------------------------------------------


def perform(backend: Backend, case: Case, device: str) -> list[Array | None]:
    """Make a call on a device and check everything but the numbers; return its results, flat, on the host.

    It must raise nothing; each result must have the rule's shape and dtype and be on the device; no arguments may be
    written, except those that the operation writes.
    """
    place = at(case, device)
    arrays = each(case.arrays, lambda a: backend.to_device(lay_out(a, case.layout), device))
    try:
        made = method(backend, case.operation)(*arrays.values(), **case.numbers)
    except Exception as error:
        raise fail(case, place, f"raised {type(error).__name__}: {error}") from error
    if made is None:
        raise fail(case, place, NOTHING)
    results = flatten(made)
    specs = flatten(rule_of(case.operation)(*case.arrays.values(), **case.numbers))
    if len(results) != len(specs):
        raise fail(case, place, f"gave {len(results)} results, expected {len(specs)}")
    for index, (result, spec) in enumerate(zip(results, specs, strict=True)):
        if (result is None) != (spec is None):
            raise fail(case, place, f"result {index} is {result!r}, expected {spec}")
        if spec is None:
            continue
        found = tuple(result.shape), np.dtype(result.dtype), result.device
        if found != (spec.shape, spec.dtype, device):
            there, wanted = (
                f"{shape} {dtype} on {where}" for shape, dtype, where in (found, (spec.shape, spec.dtype, device))
            )
            raise fail(case, place, f"result {index} is {there}, expected {wanted}")
    written = IN_PLACE.get(case.operation, ())
    for name, given_ in case.arrays.items():
        for before, after in zip(listed([given_]), listed([arrays[name]]), strict=True):
            if name not in written and not same_bits(before, backend.to_numpy(after)):
                raise fail(case, place, f"wrote into its argument '{name}'")
    results += [arrays[name] for name in written]
    return [None if result is None else fetch(backend, case, place, result) for result in results]


def fetch(backend: Backend, case: Case, place: str, result: Any) -> Array:
    """A result on the host: a contiguous array of its own, of the shape and dtype that the device reports."""
    array = backend.to_numpy(result)
    if not isinstance(array, np.ndarray) or not array.flags.c_contiguous:
        raise fail(case, place, "to_numpy did not give a contiguous NumPy array")
    if (array.shape, array.dtype) != (tuple(result.shape), np.dtype(result.dtype)):
        raise fail(case, place, f"to_numpy gave {array.shape} {array.dtype} for {tuple(result.shape)} {result.dtype}")
    return array


def check_case(backend: Backend, case: Case) -> None:
    """Check everything that can be checked in one call.

    Besides `perform`: every result is within its bound; a second run, and one on each other device, give the same
    bits; arguments on different devices are refused.
    """
    first, *others = backend.devices
    results = perform(backend, case, first)
    for result, wanted in zip([r for r in results if r is not None], expected(case, backend), strict=True):
        check_value(case, at(case, first), result, wanted)
    for device in (first, *others):
        for earlier, later in zip(results, perform(backend, case, device), strict=True):
            if earlier is not None and later is not None and not same_bits(earlier, later):
                again = "a second time" if device == first else f"on {device} than on {first}"
                raise fail(case, at(case, device), f"gave different bits {again}")
    if others and len(listed(case.arrays.values())) > 1:
        check_mixed_devices(backend, case)


def check_mixed_devices(backend: Backend, case: Case) -> None:
    """A call whose last array is on another device must be refused."""
    first, second = backend.devices[:2]
    left = len(listed(case.arrays.values()))

    def place(array: Array) -> Any:
        nonlocal left
        left -= 1
        return backend.to_device(array, first if left else second)

    arrays = each(case.arrays, place)
    check_refusal(backend, case, arrays, DeviceMismatch, f"arrays on {first} and {second}")


def check_refusal(backend: Backend, case: Case, arrays: dict[str, Any], kind: type[Exception], what: str) -> None:
    """Check that a call raises a given kind of error."""
    try:
        method(backend, case.operation)(*arrays.values(), **case.numbers)
    except kind:
        return
    except Exception as error:
        raise fail(
            case,
            at(case, backend.devices[0]),
            f"raised {type(error).__name__} ({error}) for {what}, expected {kind.__name__}",
        ) from error
    raise fail(case, at(case, backend.devices[0]), f"accepted {what}, expected {kind.__name__}")


# ---- one operation --------------------------------------------------------------------------------------------


def check_operation(
    backend: Backend,
    operation: str,
    profile: settings = PROFILES["ci"],
    *,
    check_case: Callable[[Backend, Case], None] = check_case,
    seed: int | None = None,
    examples: Sequence[Example] = (),
) -> None:
    """Check many calls of an operation, valid ones and some that must be refused, in each dtype that the backend takes.

    Args:
        check_case: what to do with each valid call; a caller may replace the kit's function to observe the calls
        seed: draws examples other than the profile's; None leaves the choice to the profile
        examples: shapes and numbers to try a registered operation with, instead of those that it was registered with
    """
    strategy_of = STRATEGIES.get(operation) or registered(operation, examples)
    moods = MOODS.values() if operation in STRATEGIES else [MOODS["ordinary"]]
    draw: Callable[[Callable[[], None]], Callable[[], None]]
    draw = (lambda test: test) if seed is None else hypothesis.seed(seed)
    device = backend.devices[0]
    for dtype in dtypes(backend):
        for kinds, share in moods:
            strategy = strategy_of(Floats(dtype, kinds))

            @settings(profile, max_examples=max(1, int(share * profile.max_examples)))
            @given(strategy)
            def agrees(case: Case) -> None:
                check_case(backend, case)

            draw(agrees)()

        @settings(profile, max_examples=3)
        @given(strategy_of(Floats(dtype, ("normal",))))
        def refuses(case: Case) -> None:
            for what, wrong in wrong_calls(case, partial(refused, rule=rule_of(operation))):
                arrays = each(wrong.arrays, lambda a: backend.to_device(a, device))
                check_refusal(backend, wrong, arrays, ConfigurationError, what)

        draw(refuses)()


# ---- movers ---------------------------------------------------------------------------------------------------


def expect(condition: bool, operation: str, what: str) -> None:
    """Raise `Disagreement` unless a condition holds."""
    if not condition:
        raise Disagreement(f"{operation}: {what}")


def check_signatures(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """The class has every method of the protocol with its parameters, a name, and at least one device."""
    faults = protocol_faults(type(backend))
    expect(not faults, "signatures", "; ".join(faults))
    names = backend.devices
    expect(isinstance(backend.name, str) and bool(backend.name), "name", f"expected a name, got {backend.name!r}")
    good = isinstance(names, tuple) and names and len(set(names)) == len(names)
    expect(bool(good) and all(isinstance(name, str) for name in names), "devices", f"expected names, got {names!r}")


def check_to_device(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """Arrays of every dtype and layout arrive with the same bytes, as copies; an unknown device is refused."""
    shapes = ((), (0,), (3,), (2, 3), (2, 0, 3), (2, 3, 4, 5))
    for dtype in (*dtypes(backend), "int64", "int32", "uint8"):
        for shape in shapes:
            for layout in LAYOUTS:
                source = np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape)
                for device in backend.devices:
                    _check_round_trip(backend, lay_out(source, layout), device, f"{dtype} {shape}, {layout}")
    if runs_ahead(backend):
        _check_promises(backend)
    if hasattr(backend, "keep_rows"):
        _check_kept(backend)
    try:
        backend.to_device(np.zeros(1, np.float32), "nowhere:0")
    except ConfigurationError:
        return
    raise Disagreement("to_device: accepted the device 'nowhere:0', expected ConfigurationError")


def _check_promises(backend: Backend) -> None:
    """`to_numpy_later` gives numbers as they were when it was called, whatever has been asked for since."""
    for dtype in dtypes(backend):
        wanted = [np.arange(n, n + 6, dtype=dtype).reshape(2, 3) for n in range(2 * len(backend.devices))]
        ws = [backend.to_device(array, backend.devices[n // 2]) for n, array in enumerate(wanted)]
        later = fetched(backend, ws)
        for w in ws:
            v, dw = backend.zeros((2, 3), dtype, w.device), backend.to_device(np.ones((2, 3), dtype), w.device)
            backend.sgd_update(w, v, dw, learning_rate=1.0, momentum=0.0, weight_decay=0.0)
        found = later()
        expect(len(found) == len(ws), "to_numpy_later", f"{len(found)} arrays for {len(ws)}")
        for array, numbers in zip(found, wanted, strict=True):
            expect(same_bits(array, numbers), "to_numpy_later", f"{dtype}: other numbers than when it was called")


def _check_kept(backend: Any) -> None:
    """`keep_rows` gives the rows that are asked for, in their order; rows of 75 bytes, and of 48."""
    for size in (5, 4):
        whole = np.random.default_rng(size).integers(0, 256, (7, 3, size, size), np.uint8)
        take = backend.keep_rows(iter((whole[:4].copy(), whole[4:].copy())), whole.shape, backend.devices)
        if take is None:  # no room
            continue
        rows = np.array([6, 0, 0, 3])
        for device in backend.devices:
            found = take(rows, device)
            expect(found.device == device, "to_device", f"keep_rows: rows for {device} are on {found.device}")
            expect(
                same_bits(backend.to_numpy(found), whole[rows]), "to_device", f"keep_rows: not rows {rows} on {device}"
            )


def _check_round_trip(backend: Backend, source: Array, device: str, what: str) -> None:
    wanted = source.copy(order="C")
    there = backend.to_device(source, device)
    found = tuple(there.shape), np.dtype(there.dtype), there.device
    expect(found == (wanted.shape, wanted.dtype, device), "to_device", f"{what} became {found} on {device}")
    source[...] = 7
    back = backend.to_numpy(there)
    expect(same_bits(back, wanted), "to_device", f"{what}: different numbers came back, or the array is not a copy")
    expect(bool(back.flags.c_contiguous and back.flags.writeable), "to_numpy", f"{what}: not contiguous and writable")
    back[...] = 9
    expect(same_bits(backend.to_numpy(there), wanted), "to_numpy", f"{what}: the array is not a copy")


def check_copy_to(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """On the same device, the array itself; elsewhere, an equal one that later writes to the first do not affect."""
    random = np.random.default_rng(0)
    for dtype in (*dtypes(backend), "int64", "uint8"):
        numbers = make(random, "special", (2, 3, 5), "float64", 1)
        source = numbers.astype(dtype) if np.dtype(dtype).kind == "f" else np.arange(30).astype(dtype).reshape(2, 3, 5)
        for origin in backend.devices:
            x = backend.to_device(source, origin)
            expect(backend.copy_to(x, origin) is x, "copy_to", f"to its own device {origin} made a new array")
            for target in backend.devices:
                y = backend.copy_to(x, target)
                found = tuple(y.shape), np.dtype(y.dtype), y.device
                expect(found == (x.shape, x.dtype, target), "copy_to", f"from {origin} to {target} gave {found}")
                expect(same_bits(backend.to_numpy(y), source), "copy_to", f"from {origin} to {target} changed numbers")
    if len(backend.devices) > 1:
        w, v, dw = (backend.to_device(np.ones(3, dtypes(backend)[0]), backend.devices[0]) for _ in range(3))
        copy = backend.copy_to(w, backend.devices[1])
        backend.sgd_update(w, v, dw, learning_rate=1.0, momentum=0.0, weight_decay=0.0)
        expect(bool((backend.to_numpy(copy) == 1).all()), "copy_to", "the copy changed when the original was updated")


def check_zeros(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """Zeros of every dtype, on every device, in a new array each time."""
    for device in backend.devices:
        for dtype in (*dtypes(backend), "int64", "uint8"):
            for shape in ((), (3,), (2, 0), (2, 3, 4, 5)):
                made = backend.zeros(shape, dtype, device)
                found = tuple(made.shape), np.dtype(made.dtype).name, made.device
                expect(found == (shape, dtype, device), "zeros", f"expected {(shape, dtype, device)}, got {found}")
                expect(same_bits(backend.to_numpy(made), np.zeros(shape, dtype)), "zeros", "they are not all zero")


def check_synchronize(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """It returns, on every device."""
    for device in backend.devices:
        backend.synchronize(device)


def check_memory(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """It counts the bytes of arrays from the host and of results, only on their device, as long as they live."""
    bytes_each = 4 << 20
    source = np.ones(bytes_each // 4, np.float32)
    for device in backend.devices:
        others = [other for other in backend.devices if other != device]
        gc.collect()
        backend.synchronize(device)
        before, before_others = backend.memory_in_use(device), [backend.memory_in_use(other) for other in others]
        x = backend.to_device(source, device)
        _expect_memory(backend, device, before + bytes_each, "after to_device of 4 MiB")
        y = backend.scale(x, 2.0)
        _expect_memory(backend, device, before + 2 * bytes_each, "with a result of 4 MiB more")
        found = [backend.memory_in_use(other) for other in others]
        expect(found == before_others, "memory_in_use", f"arrays on {device} changed other devices' counts")
        del x, y
        gc.collect()
        backend.synchronize(device)
        after = backend.memory_in_use(device)
        expect(after <= before, "memory_in_use", f"is {after} after both arrays are gone, was {before} before them")


def _expect_memory(backend: Backend, device: str, least: int, when: str) -> None:
    backend.synchronize(device)
    found = backend.memory_in_use(device)
    expect(least <= found <= least + (1 << 20), "memory_in_use", f"is {found} {when}, expected about {least}")


# ---- all of them ----------------------------------------------------------------------------------------------


def check_compile_step(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
    """See `minialex.conformance.steps`."""
    from minialex.conformance.steps import check_steps

    check_steps(backend, dtypes(backend))


def _check(name: str) -> Callable[..., None]:
    def check(backend: Backend, profile: settings = PROFILES["ci"]) -> None:
        check_operation(backend, name, profile)

    return check


CHECKS: dict[str, Callable[..., None]] = {
    "signatures": check_signatures,
    "to_device": check_to_device,
    "to_numpy": check_to_device,
    "copy_to": check_copy_to,
    "zeros": check_zeros,
    "synchronize": check_synchronize,
    "memory_in_use": check_memory,
    **{name: _check(name) for name in STRATEGIES},
    "compile_step": check_compile_step,
}
"""The check of every name of the protocol, called with a backend and, optionally, a profile (see `PROFILES`)."""

assert set(CHECKS) >= {*MOVERS, *OPERATIONS}, "a name of the protocol has no check"

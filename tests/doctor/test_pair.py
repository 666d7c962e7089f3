"""The checks of two devices pass where all is well, and fail where an exchange, a number or a copy is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from minialex.backend import pretend, registry
from minialex.backend.findings import Copy
from minialex.backend.protocol import Backend
from minialex.doctor.pair import Outcome, copy_check, differing, distance, outcome_check, run
from minialex.errors import ResourceError
from minialex.recipe.fields import Recipe
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime
from minialex_numpy import NumpyBackend

PAIR = ("cpu:0", "cpu:1")
Tiny = Callable[[str], Recipe]


def topics(checks: Any) -> dict[str, str]:
    return {check.topic: check.verdict for check in checks}


def test_all_is_well_on_pretend_devices(tiny: Tiny) -> None:
    entered = []

    @contextmanager
    def disturbed() -> Iterator[None]:
        entered.append(True)
        yield

    done = []
    outcomes, checks = run(
        registry.load("numba"), PAIR, tiny("float32"), 5, disturbed, None, lambda what, n: done.append((what, n))
    )
    assert topics(checks) == {
        "alexnet_small on one device": "ok", "alexnet_small on two": "ok", "columns exchanged": "ok",
        "many steps, disturbed": "ok",
    }  # fmt: skip
    assert [o.placement for o in outcomes] == [("cpu:0", "cpu:0"), PAIR, ("cpu:1", "cpu:0"), PAIR]
    assert outcomes[-1].steps == 5
    assert entered == [True]
    assert ("alexnet_small: two devices, disturbed", 5) in done
    assert 0 < outcomes[0].distance < 1e-4  # type: ignore[operator]


def test_all_is_well_on_the_cuda_backend_s_pretend_devices(tiny: Tiny) -> None:
    pair = ("cuda:0", "cuda:1")
    full = tiny("float32").replace(norm_scope="all")
    outcomes, checks = run(CudaBackend(runtime=FakeRuntime()), pair, tiny("float32"), 2, None, full)
    assert {check.verdict for check in checks} == {"ok"}
    assert "many steps" in topics(checks)
    assert len(outcomes) == 6


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_lower_precisions_stay_within_their_bounds(tiny: Tiny, precision: Any) -> None:
    backend = CudaBackend(precision=precision, runtime=FakeRuntime())
    outcomes, checks = run(backend, ("cuda:0", "cuda:1"), tiny(precision), 1, None, None)
    assert set(topics(checks).values()) == {"ok"}
    assert outcomes[0].distance > 1e-3  # type: ignore[operator]


def faulty(**replaced: Any) -> Backend:
    """A NumPy backend of which some methods are others."""
    made: Backend = type("Faulty", (), {**vars(NumpyBackend), **replaced})()
    return made


def lossy(x: Any, device: str) -> Any:
    if x.device == device:
        return x
    copy = x.data.copy()
    copy.flat[0] += 1
    return pretend.to_device(copy, device)


def stale(x: Any, device: str) -> Any:
    return x if x.device == device else pretend.to_device(np.zeros_like(x.data), device)


@pytest.mark.parametrize("copy", [lossy, stale])
def test_a_wrong_exchange_is_seen(tiny: Tiny, copy: Any) -> None:
    outcomes, checks = run(faulty(copy_to=staticmethod(copy)), PAIR, tiny("float32"), 1, None, None)
    found = topics(checks)
    assert found["alexnet_small on one device"] == "ok"
    assert found["alexnet_small on two"] == found["columns exchanged"] == found["many steps"] == "problem"
    assert outcomes[1].differ
    assert any("not the same bits as those of one device" in check.found for check in checks)


def test_a_race_in_many_steps_is_seen(tiny: Tiny) -> None:
    """Copies go wrong only while the devices are disturbed."""
    now = []

    def racing(x: Any, device: str) -> Any:
        return lossy(x, device) if now else pretend.copy_to(x, device)

    @contextmanager
    def disturbed() -> Iterator[None]:
        now.append(True)
        yield
        now.clear()

    _, checks = run(faulty(copy_to=staticmethod(racing)), PAIR, tiny("float32"), 2, disturbed, None)
    assert [topic for topic, verdict in topics(checks).items() if verdict == "problem"] == ["many steps, disturbed"]


def test_unlike_devices_are_compared_with_themselves(tiny: Tiny) -> None:
    """A device that rounds otherwise is no fault among unlike ones; one that does so only sometimes is."""
    now: list[bool] = []

    def rounding(self: Any, x: Any) -> Any:
        factor = 1 + 1e-6 * ((x.device == "cpu:1") + bool(now))
        return pretend.to_device(np.maximum(x.data, 0) * np.float32(factor), x.device)

    @contextmanager
    def disturbed() -> Iterator[None]:
        now.append(True)
        yield
        now.clear()

    def problems(disturbance: Any, alike: bool) -> list[str]:
        _, checks = run(faulty(relu=rounding), PAIR, tiny("float32"), 1, disturbance, None, alike=alike)
        return [check.topic for check in checks if check.verdict == "problem"]

    assert problems(None, True) == ["alexnet_small on two", "columns exchanged", "many steps"]
    assert problems(None, False) == []
    assert problems(disturbed, False) == ["many steps, disturbed"]


def test_a_wrong_operation_is_seen_by_the_reference_alone(tiny: Tiny) -> None:
    def relu(self: Any, x: Any) -> Any:
        return pretend.to_device(np.maximum(x.data, 0) * np.float32(1.1), x.device)

    outcomes, checks = run(faulty(relu=relu), PAIR, tiny("float32"), 1, None, None)
    assert [t for t, v in topics(checks).items() if v == "problem"] == [
        "alexnet_small on one device", "alexnet_small on two", "columns exchanged",
    ]  # fmt: skip
    assert not any(outcome.differ for outcome in outcomes)
    assert "from the reference" in checks[0].found


def test_an_error_ends_the_checks_and_is_a_finding(tiny: Tiny) -> None:
    def full(x: Any, device: str) -> Any:
        raise ResourceError("cuda:1: out of memory")

    outcomes, checks = run(faulty(copy_to=staticmethod(full)), PAIR, tiny("float32"), 1, None, None)
    assert len(outcomes) < 4
    assert (checks[-1].verdict, checks[-1].found) == ("problem", "cuda:1: out of memory")


def test_distances() -> None:
    initial = {"a": np.zeros(2, np.float32), "b": np.zeros(1, np.float32)}
    right = {"a": np.array([3, 4], np.float32), "b": np.zeros(1, np.float32)}
    assert distance(right, right, initial) == (0.0, "")
    assert distance({**right, "a": np.array([3, 4.5], np.float32)}, right, initial) == (0.1, "a")
    assert distance({**right, "b": np.ones(1, np.float32)}, right, initial) == (float("inf"), "b")
    found, whose = distance({**right, "a": np.array([np.nan, 4], np.float32)}, right, initial)
    assert (found, whose) == (float("inf"), "a")
    outcome = Outcome("x", PAIR, 2, "", (), found, whose)
    assert outcome_check(outcome, "float32").verdict == "problem"
    assert json.loads(json.dumps(outcome.as_json(), allow_nan=False))["distance"] == "infinite"
    assert differing(right, {**right, "a": -right["a"]}) == ("a",)
    assert differing(right, {**right, "b": np.array([-0.0], np.float32)}) == ("b",)  # bits, not values


def test_copies_as_findings() -> None:
    sound = copy_check(Copy(0, 1, True, True, 25e9), "theirs")
    assert (sound.topic, "25.0 GB/s" in sound.found) == ("copy theirs:0 to theirs:1", True)
    changed = copy_check(Copy(0, 1, True, False, 25e9, mend="mend it"), "theirs")
    assert (changed.verdict, "bytes arrive changed" in changed.found, changed.mend) == ("problem", True, "mend it")
    refused = copy_check(Copy(0, 1, False, False, 0.0, "cudaErrorUnknown"), "theirs")
    assert (refused.verdict, "cudaErrorUnknown" in refused.found) == ("problem", True)

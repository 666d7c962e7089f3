"""The update of all parameters in one launch, beside the update of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minialex.backend.program import LABELS, LOSS, STEP, ArrayName, Call, Program, Symbol, Value
from minialex.conformance import steps
from minialex.conformance.compare import same_bits
from minialex.engine.step import Plan, record
from minialex_cuda import CudaBackend
from minialex_cuda.compiler import updates
from minialex_cuda.compiler.compiled import Step
from minialex_cuda.runtime.array import Flat
from minialex_cuda.runtime.fake import FakeRuntime

SIZES = (1, 7, updates.LANES, updates.LANES + 1, updates.CHUNK - 1, updates.CHUNK, 2 * updates.CHUNK + 5)


def rate(number: int) -> ArrayName:
    return ArrayName(f"layer{number}", role="rate")


def program(dtype: str, sizes: tuple[int, ...] = SIZES) -> Program:
    """A step that makes gradients (by scaling) and updates parameters of some sizes."""
    bound: dict[str, Value] = {}
    calls, outputs, count = [], {}, 0

    def value(size: int, kind: str) -> Value:
        nonlocal count
        count += 1
        return Value(count, (size,) if size >= 0 else (), np.dtype(kind), "cuda:0")

    for number, size in enumerate(sizes):
        w, v, seed = (value(size, dtype) for _ in range(3))
        bound |= {f"w{number}": w, f"v{number}": v, f"seed{number}": seed}
        dw, skipped = value(size, dtype), value(-1, "int64")
        calls.append(Call("scale", (seed, 2.0), {}, (dw,)))
        numbers = {
            "learning_rate": Symbol(rate(number % 3)),
            "momentum": 0.9,
            "weight_decay": number % 2 * 0.01,
        }
        calls.append(Call("sgd_update", (w, v, dw), numbers, (skipped,)))
        outputs[ArrayName(f"layer{number}", role="skipped")] = skipped
    fed = {LABELS: value(1, "int64")}
    return Program(bound, fed, tuple(rate(n) for n in range(3)), tuple(calls), outputs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits_as_one_by_one(dtype: str) -> None:
    """Parameters larger and smaller than a chunk, several rates and decays, elements that must not be updated."""
    random = np.random.default_rng(0)
    recorded = program(dtype)
    given = {name: random.standard_normal(v.shape).astype(dtype) for name, v in recorded.bound.items()}
    spoiled = {"seed1": (np.nan, 3), "seed5": (np.inf, -1), "seed6": (-np.inf, updates.CHUNK)}
    for name, (number, place) in spoiled.items():
        given[name][place] = number
    backend = CudaBackend(runtime=FakeRuntime())
    there = {name: backend.to_device(a, "cuda:0") for name, a in given.items()}
    step = backend.compile_step(recorded, there)
    assert isinstance(step, Step)
    assert [task.call.operation for task in step.schedule.tasks].count("sgd_updates") == 1
    alone = {name: backend.to_device(a, "cuda:0") for name, a in given.items()}
    copies: list[int] = []
    fetch = backend.runtime.fetch

    def counting(stream: Any, source: Flat, target: Any) -> Any:
        copies.append(source.nbytes)
        return fetch(stream, source, target)

    for number in range(3):  # plain, captured, replayed
        feed: dict[ArrayName, Any] = {rate(n): 0.1 * (n + 1) / (number + 1) for n in range(3)}
        skipped = step({**feed, LABELS: backend.to_device(np.zeros(1, np.int64), "cuda:0")})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backend.runtime, "fetch", counting)
            told = [int(count) for count in backend.to_numpy_later(list(skipped.values()))()]
        assert len(copies) == number + 1  # all that a step gives comes at once
        assert sum(told) == len(spoiled)
        backend.to_numpy(next(iter(skipped.values())))[...] = 99  # an array of its own
        assert [int(backend.to_numpy(count)) for count in skipped.values()] == told
        for n in range(len(SIZES)):
            w, v, seed = (alone[f"{name}{n}"] for name in ("w", "v", "seed"))
            decay, now = n % 2 * 0.01, feed[rate(n % 3)]
            dw = backend.scale(seed, 2.0)
            left = backend.sgd_update(w, v, dw, learning_rate=now, momentum=0.9, weight_decay=decay)
            assert (
                int(backend.to_numpy(skipped[ArrayName(f"layer{n}", role="skipped")]))
                == int(backend.to_numpy(left))
                == (f"seed{n}" in spoiled)
            )
    for name in given:
        assert same_bits(backend.to_numpy(there[name]), backend.to_numpy(alone[name])), name
    assert not same_bits(backend.to_numpy(there["w3"]), given["w3"])


def test_the_same_bits_with_trust_ratios() -> None:
    """Layer-wise adaptive rates: gradients are scaled one by one, and all weights are still updated in one launch."""
    backend, random, numbers = CudaBackend(runtime=FakeRuntime()), np.random.default_rng(1), {}
    recorded = program("float32")
    calls: list[Call] = []
    for call in recorded.calls:
        if call.operation == "sgd_update":
            w, v, dw = call.args
            scaled = Value(100 + len(calls), w.shape, w.dtype, w.device)
            numbers = {"trust_coefficient": 0.02, "weight_decay": 0.1}
            calls.append(Call("scale_by_trust_ratio", (w, dw), numbers, (scaled,)))
            calls.append(replace(call, args=(w, v, scaled)))
        else:
            calls.append(call)
    given = {name: random.standard_normal(v.shape).astype("float32") for name, v in recorded.bound.items()}
    there, alone = ({name: backend.to_device(a, "cuda:0") for name, a in given.items()} for _ in range(2))
    step = backend.compile_step(replace(recorded, calls=tuple(calls)), there)
    assert isinstance(step, Step)
    assert [task.call.operation for task in step.schedule.tasks].count("sgd_updates") == 1
    for number in range(3):  # plain, captured, replayed
        feed: dict[ArrayName, Any] = {rate(n): 0.1 * (n + 1) / (number + 1) for n in range(3)}
        step({**feed, LABELS: backend.to_device(np.zeros(1, np.int64), "cuda:0")})
        for n in range(len(SIZES)):
            w, v, seed = (alone[f"{name}{n}"] for name in ("w", "v", "seed"))
            dw = backend.scale_by_trust_ratio(w, backend.scale(seed, 2.0), **numbers)
            decay, now = n % 2 * 0.01, feed[rate(n % 3)]
            backend.sgd_update(w, v, dw, learning_rate=now, momentum=0.9, weight_decay=decay)
    for name in given:
        assert same_bits(backend.to_numpy(there[name]), backend.to_numpy(alone[name])), name


def test_weights_move_once_and_steps_that_knew_them_follow() -> None:
    """An inference step was captured before the training step brought the weights together."""
    backend = CudaBackend(runtime=FakeRuntime())
    devices = backend.devices
    plan = Plan(steps.NETWORK, (devices[0],) * 2, steps.RECIPE)
    train, half = (record(plan, "train", batch, devices) for batch in (steps.BATCH, steps.BATCH // 2))
    infer = record(plan, "infer", steps.BATCH, devices)
    given = steps.data("float32")
    bound = {}
    for name, value in train.bound.items():
        array = given.mean if name.role == "mean" else given.weights[name.to("parameter")]
        bound[name] = backend.to_device(np.zeros_like(array) if name.role == "momentum" else array, value.device)

    def loss(step: Any, recorded: Program, number: int) -> float:
        feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 0.05) | {STEP: number}
        for name, value in recorded.fed.items():
            array = given.batches[0][name.role][: value.shape[0]]
            feed[name] = backend.to_device(array, value.device)
        return float(backend.to_numpy(step(feed)[LOSS]))

    asking = backend.compile_step(infer, bound)
    before = [loss(asking, infer, 0) for _ in range(3)]
    assert len(set(before)) == 1
    learning = backend.compile_step(train, bound)
    blocks = {id(array.flat.memory) for name, array in bound.items() if name.role != "mean"}
    assert len(blocks) == 2  # one a column
    assert loss(asking, infer, 0) == before[0]
    for number in range(4):
        loss(learning, train, number)
    after = [loss(asking, infer, 0) for _ in range(2)]
    assert after[0] == after[1] < before[0]
    backend.compile_step(half, bound)
    assert {id(array.flat.memory) for name, array in bound.items() if name.role != "mean"} == blocks

"""Compiled steps: what is fused, and that they train as the reference does, whatever the network is."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import minialex.engine.step
from minialex.backend.pretend import HostArray
from minialex.backend.program import LOSS, PROBS, ArrayName, Call, Value, values
from minialex.data.statistics import Statistics
from minialex.engine.columns import Placement
from minialex.engine.schedule import EpochRates
from minialex.engine.session import Session
from minialex.engine.step import Plan, make_step, record, walk_step
from minialex.errors import ConfigurationError
from minialex.network import models
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex_numba import NumbaBackend
from minialex_numba.compiler import graph, memory, step
from minialex_numba.conv import direct, winograd
from minialex_numba.ops import conv2d, linear
from minialex_numba.runtime.buffers import Slices, row_width
from minialex_numba.runtime.tape import replay_kernel
from minialex_numba.runtime.threads import Threads
from minialex_numpy import NumpyBackend

Array = np.ndarray[Any, Any]

SMALL = load("small").replace(
    classes=5, crop=20, image_size=22, kernels=[6, 16, 24, 20, 10], features=[14, 18], dtype="float64", dropout=0.3
)
"""A network of three to twelve channels a column: less than a vector, a vector and a tail, tiles and no tiles."""
BATCH = 5
ONE, TWO = ("cpu:0", "cpu:0"), ("cpu:0", "cpu:1")
RELATIVE = {"float32": 5e-4, "float64": 1e-10}
"""Differences from walking, as a share of an array's largest number."""


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    return NumbaBackend(threads=2)


def session(recipe: Recipe, backend: Any, placement: Placement | None = None) -> Session:
    random = np.random.default_rng(1)
    size = recipe.image_size
    mean = random.uniform(100, 150, (3, size, size)).astype(np.float32)
    given = Statistics(mean, np.diag([900.0, 400.0, 100.0]))
    return Session(recipe, backend, placement or ("cpu:0",) * recipe.columns, given)


def batch(recipe: Recipe, seed: int, count: int = BATCH) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    size = recipe.image_size
    return random.integers(0, 256, (count, 3, size, size)).astype(np.uint8), random.integers(0, recipe.classes, count)


def moment(**layer_rates: float) -> EpochRates:
    return EpochRates(0.05, 0.1, layer_rates)


def fetch(arrays: Mapping[str, Any]) -> dict[str, Array]:
    return {name: array.data.copy() for name, array in arrays.items()}


def train(at: Session, steps: Any, now: EpochRates | None = None, count: int = 3, watch: Any = None) -> list[Any]:
    """Outputs, and all weights and momentum, after each step of a compiled or walked training step."""
    runs = []
    for number in range(count):
        feed = at.training_feed(*batch(at.recipe, number), number, now or moment())
        outputs = fetch(steps(feed, watch) if watch else steps(feed))
        runs.append({**outputs, **fetch(at.bound)})
    return runs


def compiled(at: Session, kind: Any = "train", count: int = BATCH, frozen: frozenset[str] = frozenset()) -> step.Step:
    made = at.step(kind, count, frozen)
    assert isinstance(made, step.Step), "the step was not compiled"
    return made


def walked(at: Session, kind: Any = "train", frozen: frozenset[str] = frozenset()) -> Any:
    return walk_step(NumpyBackend(), replace(at.plan, frozen=frozen), kind, at.bound)


def assert_near(run: list[Any], wanted: list[Any], dtype: str) -> None:
    for number, (arrays, others) in enumerate(zip(run, wanted, strict=True)):
        assert set(arrays) == set(others)
        for name, array in arrays.items():
            other = others[name]
            assert (array.shape, array.dtype) == (other.shape, other.dtype), name
            assert np.isfinite(other).all(), name
            limit = RELATIVE[dtype] * float(np.max(np.abs(other), initial=0)) if array.dtype.kind == "f" else 0
            worst = np.max(np.abs(array.astype(np.float64) - other), initial=0)
            assert worst <= limit, f"step {number}: {name} is off by {worst:.3g} > {limit:.3g}"


def assert_same_bits(run: list[Any], wanted: list[Any]) -> None:
    for number, (arrays, others) in enumerate(zip(run, wanted, strict=True)):
        assert set(arrays) == set(others)
        for name, array in arrays.items():
            assert array.tobytes() == others[name].tobytes(), f"step {number}: {name}"


# ---- what is fused ------------------------------------------------------------------------------------------------


Built = tuple[Sequence[Call], Slices]


@pytest.fixture(scope="module")
def training() -> Built:
    program, slices = graph.build(record(Plan(models.ALEXNET, TWO), "train", 128, TWO))
    return program.calls, slices


def by_operation(calls: Sequence[Call], operation: str) -> list[Call]:
    return [call for call in calls if call.operation == operation]


def test_alexnets_training_step_is_fused(training: Built) -> None:
    found = Counter(call.operation for call in training[0])
    assert found == {
        "augment": 1,
        "conv2d": 8,  # one each for conv1 and conv3, two for each of the others
        "normalised_pool": 4,
        "max_pool2d": 2,
        "reshape": 2 * 2,  # forward and backward
        "linear": 5,
        "dropout": 4,
        "softmax_cross_entropy": 1,
        "softmax_cross_entropy_backward": 1,
        "linear_backward": 3,
        "dropout_backward": 4,
        "relu_backward": 4,  # fc6's and fc7's gradients come through dropout
        "max_pool2d_backward": 2,
        "normalised_pool_backward": 4,
        "conv2d_backward": 8,
        "sgd_update": 2 * 5 * 2 + 5,  # the biases of fully connected layers are five
    }


def test_alexnets_columns_are_joined(training: Built) -> None:
    calls, slices = training
    for operation, weights in (("conv2d", 1), ("conv2d_backward", 2)):
        joined = {call.layer: len(call.args[weights]) for call in by_operation(calls, operation)}
        assert joined == {"conv1": 2, "conv2": 1, "conv3": 2, "conv4": 1, "conv5": 1}
    assert {call.layer: len(call.args[2]) for call in by_operation(calls, "linear_backward")} == {
        "fc6": 2,
        "fc7": 2,
        "fc8": 1,
    }
    for call in by_operation(calls, "conv2d"):
        assert slices.are_adjacent(values(call.results))
    for call in by_operation(calls, "conv2d_backward"):
        assert slices.are_adjacent(call.args[0])


def test_alexnets_rectifiers_and_updates_are_fused(training: Built) -> None:
    calls, _ = training
    for operation in ("conv2d", "linear"):
        assert {call.layer for call in by_operation(calls, operation) if not call.kwargs.get("relu")} <= {"fc8"}
    masked = {
        (call.operation, call.layer)
        for call in calls
        if call.operation.endswith("_backward") and ("like" in call.kwargs or call.kwargs.get("relu"))
    }
    assert {layer for operation, layer in masked if operation == "conv2d_backward"} == {"conv4", "conv5"}
    assert {operation for operation, _ in masked} == {
        "conv2d_backward", "max_pool2d_backward", "normalised_pool_backward",
    }  # fmt: skip
    assert all("like" in call.kwargs for call in by_operation(calls, "max_pool2d_backward"))
    assert all(call.kwargs["relu"] for call in by_operation(calls, "normalised_pool_backward"))
    assert all(len(c.kwargs["rates"]) == len(c.args[2]) for c in by_operation(calls, "linear_backward"))
    assert {call.layer for call in by_operation(calls, "relu_backward")} == {"relu6", "relu7"}


def test_alexnets_inference_step_keeps_nothing_for_a_gradient() -> None:
    calls = graph.build(record(Plan(models.ALEXNET, TWO), "infer", 128, TWO))[0].calls
    pools = by_operation(calls, "normalised_pool")
    assert len(pools) == 4
    assert not {c.operation for c in calls} & {"relu", "local_response_norm", "concat", "copy", "add", "copy_to"}
    assert not any(len(pool.results) > 1 for pool in pools), "the winners are kept"


def test_a_channel_is_written_before_it_is_read(training: Built) -> None:
    def channels(value: Value) -> set[tuple[int, int]]:
        first = slices.first(value)
        assert first + row_width(value) <= row_width(slices.root(value))
        return {(id(slices.root(value)), first + channel) for channel in range(row_width(value))}

    calls, slices = training
    written: set[tuple[int, int]] = set()
    for call in calls:
        for value in values((call.args, call.kwargs)):
            if slices.root(value) not in slices.names:
                assert channels(value) <= written, call
        for value in values(call.results):
            written |= channels(value)


# ---- the same bits ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_run(numba_backend: NumbaBackend) -> list[Any]:
    at = session(SMALL.replace(dtype="float32"), numba_backend)
    return train(at, compiled(at), count=3)


@pytest.mark.parametrize("threads", [1, 3, 5])
def test_same_bits_for_any_number_of_threads(reference_run: list[Any], threads: int) -> None:
    at = session(SMALL.replace(dtype="float32"), NumbaBackend(threads=threads))
    assert_same_bits(train(at, compiled(at), count=3), reference_run)


@pytest.mark.parametrize("placement", [TWO, TWO[::-1]])
def test_same_bits_wherever_the_columns_live(
    numba_backend: NumbaBackend, reference_run: list[Any], placement: Placement
) -> None:
    at = session(SMALL.replace(dtype="float32"), numba_backend, placement)
    run = train(at, compiled(at), count=3)
    for arrays in run:
        arrays.pop(ArrayName(role="mean", device="cpu:1"))
    assert_same_bits(run, reference_run)


def test_same_bits_whatever_was_in_memory(
    numba_backend: NumbaBackend, reference_run: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dirty(size: int, dtype: Any) -> Array:
        made = empty(size, dtype)
        made.view(np.uint8)[...] = 0xFF  # not a number, of any size
        return made

    empty = memory.empty
    for module in (memory, conv2d, linear):
        monkeypatch.setattr(module, "empty", dirty)
    at = session(SMALL.replace(dtype="float32"), numba_backend)
    run = train(at, compiled(at), count=3)
    assert_same_bits(run, reference_run)


def test_watch_hears_of_the_layers_in_order_and_changes_nothing(
    numba_backend: NumbaBackend, reference_run: list[Any]
) -> None:
    at = session(SMALL.replace(dtype="float32"), numba_backend)
    heard: list[tuple[str, int, str]] = []
    run = train(at, compiled(at), count=1, watch=lambda *where: heard.append(where))
    assert_same_bits(run, reference_run[:1])

    known: list[tuple[str, int, str]] = []
    walked(at)(at.training_feed(*batch(at.recipe, 9), 9, moment()), lambda *where: known.append(where))
    assert set(heard) <= set(known)
    assert heard[0] == ("input", 0, "input")
    layers = [*(layer.name for layer in at.network.layers), "softmax"]
    for phase, order in (("forward", layers), ("backward", layers[::-1])):
        places = [order.index(layer) for layer, _, what in heard if what == phase]
        assert places == sorted(places)
        named = {order[place] for place in places}
        assert {layer for layer in layers if layer.startswith(("conv", "fc"))} <= named
    phases = [phase for *_, phase in heard if phase != "exchange"]
    assert phases == sorted(phases, key=["input", "forward", "backward", "update"].index)


# ---- replayed steps -----------------------------------------------------------------------------------------------


def spread_out(x: Array) -> Array:
    """The same numbers, not contiguous."""
    made = np.zeros((*x.shape, 2), x.dtype)[..., 0]
    made[...] = x
    return made


CHANGES: dict[str, tuple[str, Any]] = {
    "images that are not contiguous": ("images", spread_out),
    "labels that are not contiguous": ("labels", spread_out),
    "shifts in another order": ("shift", np.asfortranarray),
    "offsets that may not be written": ("top", lambda x: np.broadcast_to(x[:1], x.shape)),
}


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_a_replayed_step_reads_the_feed_that_it_is_given(
    numba_backend: NumbaBackend, name: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arrays change from the first step on, or when the step has been recorded."""
    recipe, (role, change), runs = SMALL.replace(dtype="float32"), CHANGES[name], []
    for little in (step.LITTLE, 0):
        monkeypatch.setattr(step, "LITTLE", little)
        at = session(recipe, numba_backend)
        made, run = compiled(at), []
        for number in range(5):
            feed = at.training_feed(*batch(recipe, number), number, moment())
            for key in [key for key in feed if key.role == role and number >= first]:
                feed[key] = HostArray(change(feed[key].data), feed[key].device)
            run.append({**fetch(made(feed)), **fetch(at.bound)})
        assert (made.replayed is None) == (little == 0)
        runs.append(run)
    assert_same_bits(*runs)


REFUSED: dict[str, tuple[str, Any]] = {
    "fewer labels": ("labels", lambda x: x[:2]),
    "short labels": ("labels", lambda x: x.astype(np.int32)),
    "smaller images": ("images", lambda x: x[:, :, 1:, 1:]),
    "images of one colour": ("images", lambda x: x[:, :1]),
    "images of other numbers": ("images", lambda x: x.astype(np.float32)),
    "no images": ("images", lambda x: x[:0]),
    "long offsets": ("left", lambda x: x.astype(np.int64)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_the_kernels_would_misread_are_refused(numba_backend: NumbaBackend, name: str) -> None:
    at, (role, change) = session(SMALL, numba_backend), REFUSED[name]
    made, before = compiled(at), fetch(at.bound)
    feed = at.training_feed(*batch(SMALL, 0), 0, moment())
    key = next(key for key in feed if key.role == role)
    wrong = {**feed, key: HostArray(change(feed[key].data), "cpu:0")}
    with pytest.raises(ConfigurationError, match=rf"^expected {role} \(.*\) u?int\d+; got \(.*\) \w+$"):
        made(wrong)
    assert_same_bits([fetch(at.bound)], [before])


def test_arrays_of_a_feed_may_be_the_same_when_a_step_is_recorded(numba_backend: NumbaBackend) -> None:
    recipe = SMALL.replace(dtype="float32")
    at, other = session(recipe, numba_backend), session(recipe, numba_backend)
    made, watched = compiled(at), compiled(other)
    for number in range(4):
        feed = at.training_feed(*batch(recipe, number), number, moment())
        if number < 2:
            feed[ArrayName(role="left", device="cpu:0")] = feed[ArrayName(role="top", device="cpu:0")]
        assert_same_bits([fetch(made(feed))], [fetch(watched(feed, lambda *where: None))])
    assert made.replayed
    assert not watched.replayed


def interrupt(feed: Any) -> None:
    raise KeyboardInterrupt


def test_inference_that_was_interrupted_does_not_keep_old_weights(numba_backend: NumbaBackend) -> None:
    at = session(SMALL, numba_backend)
    for _ in range(3):
        infer(at)
    at.train(*batch(SMALL, 0), 0, moment())
    made = compiled(at, "infer")
    layers = [{made.program.calls[position].layer for position in segment} for segment in made.segments]
    middle = next(i for i, found in enumerate(layers) if "conv3" in found)
    made.work[middle], kept = interrupt, made.work[middle]
    with pytest.raises(KeyboardInterrupt):
        infer(at)
    made.work[middle] = kept
    found, wanted = infer(at)
    assert_near([found], [wanted], "float64")


def test_inference_sees_weights_of_a_training_step_that_was_interrupted(numba_backend: NumbaBackend) -> None:
    at = session(SMALL, numba_backend)
    for _ in range(3):
        infer(at)
    made = compiled(at)
    made.work.append(interrupt)
    with pytest.raises(KeyboardInterrupt):
        at.train(*batch(SMALL, 0), 0, moment())
    found, wanted = infer(at)
    assert_near([found], [wanted], "float64")


def test_a_rate_beyond_the_dtype_is_infinite_without_a_warning(numba_backend: NumbaBackend) -> None:
    at = session(SMALL.replace(dtype="float32"), numba_backend)
    before = fetch(at.bound)
    assert at.train(*batch(at.recipe, 0), 0, EpochRates(1e300, 0.1, {})).skipped
    for name, array in fetch(at.bound).items():
        np.testing.assert_array_equal(array, before[name])


# ---- memory -------------------------------------------------------------------------------------------------------


def test_after_the_first_step_next_to_nothing_is_allocated(numba_backend: NumbaBackend) -> None:
    recipe = load("small").replace(classes=10)
    at = session(recipe, numba_backend)
    made = compiled(at, count=32)
    feeds = [at.training_feed(*batch(recipe, number, 32), number, moment()) for number in range(3)]
    made(feeds[0])
    tracemalloc.start()
    try:
        made(feeds[1])  # what tracing itself allocates at first
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        made(feeds[2])
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.nbytes > 4 << 20
    assert peak - before < 48 << 10
    assert after - before < 8 << 10


def test_arrays_that_live_at_the_same_time_do_not_overlap(numba_backend: NumbaBackend) -> None:
    at = session(SMALL, numba_backend)
    made = compiled(at)
    slices, arrays = made.slices, made.buffers.memory
    lives: dict[Value, list[int]] = {}
    for number, call in enumerate(made.program.calls):
        for value in [*values((call.args, call.kwargs)), *values(call.results), *made.scratches[number]]:
            if slices.root(value) not in slices.names:
                lives.setdefault(slices.root(value), []).append(number)
    for value in made.program.outputs.values():
        lives[slices.root(value)].append(len(made.program.calls))
    held = list(lives)
    total = sum(arrays[value].nbytes for value in held)
    assert made.nbytes < 0.8 * total  # memory is shared
    for i, first in enumerate(held):
        for second in held[:i]:
            if min(lives[first]) <= max(lives[second]) and min(lives[second]) <= max(lives[first]):
                assert not np.may_share_memory(arrays[first], arrays[second])


# ---- weights that were packed ------------------------------------------------------------------------------------


def infer(at: Session, number: int = 40, count: int = BATCH) -> tuple[dict[str, Array], dict[str, Array]]:
    feed = at.view_feed(*batch(at.recipe, number, count), 1, 1, 0)
    return fetch(compiled(at, "infer", count)(feed)), fetch(walked(at, "infer")(feed))


@pytest.mark.parametrize("count", [1, 3, BATCH])
def test_inference_sees_new_weights(numba_backend: NumbaBackend, count: int) -> None:
    at = session(SMALL, numba_backend)
    found, wanted = infer(at, count=count)
    assert_near([found], [wanted], "float64")

    before = found
    at.train(*batch(at.recipe, 0), 0, moment())
    found, wanted = infer(at, count=count)
    assert np.max(np.abs(found[PROBS] - before[PROBS])) > 1e-6
    assert_near([found], [wanted], "float64")

    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc8"):
        before = found
        w, v = at.bound[ArrayName(layer, "weight", 0)], at.bound[ArrayName(layer, "weight", 0, "momentum")]
        dw = numba_backend.to_device(np.random.default_rng(2).standard_normal(w.shape), "cpu:0")
        numba_backend.sgd_update(w, v, dw, learning_rate=0.1, momentum=0.9, weight_decay=0.0)
        found, wanted = infer(at, count=count)
        assert np.max(np.abs(found[PROBS] - before[PROBS])) > 1e-6, layer
        assert_near([found], [wanted], "float64")

    at.train(*batch(at.recipe, 1), 1, moment())
    found, wanted = infer(at, count=count)
    assert_near([found], [wanted], "float64")


def test_weights_are_packed_once_for_many_inferences(
    numba_backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Any] = []
    for kind in (direct.Convolution, winograd.Convolution):

        def pack(self: Any, *args: Any, original: Any = kind.pack, **kwargs: Any) -> None:
            if not self.threads._rehearsals:
                packed.append(self)
            original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "pack", pack)
    at = session(SMALL, numba_backend)
    infer(at)
    assert len(packed) == 8
    assert {type(engine) for engine in packed} == {direct.Convolution, winograd.Convolution}
    infer(at)
    assert len(packed) == 8
    at.train(*batch(at.recipe, 0), 0, moment())
    packed.clear()
    infer(at)
    infer(at)
    assert len(packed) == 8


# ---- values that are not finite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_updates_that_are_not_finite_are_not_made(numba_backend: NumbaBackend, dtype: str) -> None:
    recipe = SMALL.replace(dtype=dtype)
    ours, theirs = session(recipe, numba_backend), session(recipe, NumpyBackend())
    spoilt = {
        ArrayName("conv1", "weight", 1): 3,
        ArrayName("conv3", "weight", 0): 1,
        ArrayName("fc6", "weight", 1): 5,
        ArrayName("fc8", "bias", 0): 2,
        ArrayName("fc7", "weight", 0): 7,
    }
    for at in (ours, theirs):
        for name, count in spoilt.items():
            flat = at.bound[name.to("momentum")].data.reshape(-1)
            flat[:: max(1, flat.size // count)][:count] = [np.inf, -np.inf, np.nan, np.inf, -np.inf, np.nan, np.inf][
                :count
            ]
    before = fetch(ours.bound)
    feed = ours.training_feed(*batch(recipe, 0), 0, moment())
    found, wanted = fetch(compiled(ours)(feed)), fetch(walked(theirs)(feed))
    for name in wanted:
        if name.role == "skipped":
            assert int(found[name]) == int(wanted[name]) == spoilt.get(name.to("parameter"), 0), name
    for name in spoilt:
        still = ~np.isfinite(before[name.to("momentum")])
        for what in (name, name.to("momentum")):
            after = ours.bound[what].data
            np.testing.assert_array_equal(after[still], before[what][still])
            assert not np.array_equal(after[~still], before[what][~still])
    outcome = ours.train(*batch(recipe, 1), 1, moment())
    assert set(outcome.skipped) == set(spoilt)


def test_when_nothing_is_finite_all_weights_are_kept(numba_backend: NumbaBackend) -> None:
    ours, theirs = session(SMALL, numba_backend), session(SMALL, NumpyBackend())
    for at in (ours, theirs):
        at.bound[ArrayName(role="mean", device="cpu:0")].data[...] = np.nan
    before = fetch(ours.bound)
    feed = ours.training_feed(*batch(SMALL, 0), 0, moment())
    found, wanted = fetch(compiled(ours)(feed)), fetch(walked(theirs)(feed))
    assert np.isnan([found[LOSS], wanted[LOSS]]).all()
    kept, others = (
        {name.to("parameter"): int(count) for name, count in arrays.items() if name.role == "skipped"}
        for arrays in (found, wanted)
    )
    assert kept == others
    assert kept[ArrayName("fc8", "weight", 0)] == ours.bound[ArrayName("fc8", "weight", 0)].data.size
    for name, count in kept.items():
        if count == ours.bound[name].data.size:
            np.testing.assert_array_equal(ours.bound[name].data, before[name])
        assert np.isfinite(ours.bound[name].data).all()


# ---- what is not compiled -----------------------------------------------------------------------------------------


def test_a_scale_that_is_asked_for_is_not_compiled_but_walked(
    numba_backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = session(SMALL, numba_backend)
    plain = record(at.plan, "infer", BATCH, numba_backend.devices)
    scale = next(call.results[1] for call in plain.calls if call.operation == "local_response_norm")
    assert scale is not None
    asking = replace(plain, outputs={**plain.outputs, "scale": scale})
    assert numba_backend.compile_step(plain, at.bound) is not None
    assert numba_backend.compile_step(asking, at.bound) is None

    monkeypatch.setattr(minialex.engine.step, "record", lambda *args: asking)
    made = make_step(numba_backend, at.plan, "infer", BATCH, at.bound)
    assert not isinstance(made, step.Step)
    feed = at.view_feed(*batch(SMALL, 0), 1, 1, 0)
    assert_near([fetch(made(feed))], [fetch(walked(at, "infer")(feed))], "float64")


# ---- other networks -----------------------------------------------------------------------------------------------

FOUR: dict[str, Any] = {"columns": 4, "kernels": [8, 12, 20, 16, 8], "features": [12, 20]}

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "never connected": {"connect": "never"},
    "connected everywhere": {"connect": "everywhere"},
    "norms over all": {"norm_scope": "all"},
    "norms over all, connected everywhere": {"norm_scope": "all", "connect": "everywhere"},
    "norm before relu": {"norm_place": "before-relu-1"},
    "norm before relu, over all": {"norm_place": "before-relu-1", "norm_scope": "all"},
    "norm after pool": {"norm_place": "after-pool"},
    "norm after pool, over all": {"norm_place": "after-pool", "norm_scope": "all"},
    "norm everywhere": {"norm_layers": [f"conv{i}" for i in range(1, 6)], "norm_size": 4, "norm_alpha": 0.3},
    "other powers": {"norm_beta": 0.6, "norm_k": 1.0, "norm_alpha": 0.5, "norm_alpha_over_n": False, "norm_size": 3},
    "no norms": {"norm_layers": []},
    "all ties": {"pool_ties": "all"},
    "all ties, norm after pool": {"pool_ties": "all", "norm_place": "after-pool"},
    "windows of two": {"pool_size": 2},
    "windows of one": {"pool_size": 1},
    "windows do not hang over": {"pool_ceil": False},
    "norms over places": {"spatial_norm": True},
    "norms over places, after pool": {"spatial_norm": True, "norm_place": "after-pool"},
    "tanh": {"activation": "tanh"},
    "tanh, norm after pool": {"activation": "tanh", "norm_place": "after-pool", "norm_scope": "all"},
    "inverted dropout": {"dropout_mode": "inverted"},
    "no dropout": {"dropout": 0.0},
    "dropout before": {"dropout_place": "before"},
    "dropout before, never connected": {"dropout_place": "before", "connect": "never"},
    "without conv3": {"omit": ["conv3"]},
    "without conv4 and conv5": {"omit": ["conv4", "conv5"]},
    "without conv2": {"omit": ["conv2"], "norm_layers": ["conv1"]},
    "one column": {"columns": 1},
    "one column of odd numbers": {"columns": 1, "kernels": [5, 7, 9, 11, 13], "features": [17, 19]},
    "four columns": FOUR,
    "four columns, connected everywhere": {**FOUR, "connect": "everywhere", "norm_scope": "all"},
    "decayed biases, another mean": {"decay_biases": True, "mean": "centre", "pixel_scale": 0.02},
}  # fmt: skip


def check_against_walking(
    recipe: Recipe, backend: NumbaBackend, now: EpochRates | None = None
) -> tuple[Session, Session]:
    now = now or moment()
    ours, theirs = session(recipe, backend), session(recipe, NumpyBackend())
    found = train(ours, compiled(ours, frozen=now.frozen), now)
    assert_near(found, train(theirs, walked(theirs, frozen=now.frozen), now), recipe.dtype)
    return ours, theirs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", VARIANTS)
def test_other_networks_train_as_walked(numba_backend: NumbaBackend, name: str, dtype: str) -> None:
    ours, _ = check_against_walking(SMALL.replace(dtype=dtype, **VARIANTS[name]), numba_backend)
    found, wanted = infer(ours)
    assert_near([found], [wanted], dtype)


FROZEN = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@pytest.mark.parametrize("frozen", [FROZEN[:1], FROZEN[:5], FROZEN[5:6], FROZEN[:7], FROZEN[2:], FROZEN])
def test_frozen_layers_stay(numba_backend: NumbaBackend, frozen: tuple[str, ...]) -> None:
    before = session(SMALL, numba_backend).weights()
    ours, _ = check_against_walking(SMALL, numba_backend, moment(**dict.fromkeys(frozen, 0.0)))
    for name, array in ours.weights().items():
        assert np.array_equal(array, before[name]) == (name.partition(".")[0] in frozen), name


def test_a_step_rehearses_every_kernel_that_it_calls(
    numba_backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those left out would be compiled one by one, unseen, while it runs; nor any that it does not call."""
    rehearsed, called, original = Counter[Any](), Counter[Any](), Threads.run

    def known(kernel: Any, arguments: tuple[Any, ...]) -> list[Any]:
        return [(kernel, tuple(map(kernel.typeof_pyval, arguments)))] if isinstance(kernel, Dispatcher) else []

    def rehearse(threads: Threads, work: Any) -> None:
        threads.rehearse(work, lambda launch: rehearsed.update(known(launch.kernel, launch.arguments)))

    def run(self: Threads, kernel: Any, items: int, *arguments: Any, **how: Any) -> None:
        if items > 0 and not self._rehearsals:
            called.update(known(kernel, arguments))
        original(self, kernel, items, *arguments, **how)

    monkeypatch.setattr(step, "prepare", rehearse)
    monkeypatch.setattr(Threads, "run", run)
    at = session(SMALL, numba_backend)
    for kind in ("train", "infer"):
        rehearsed.clear()
        called.clear()
        if kind == "train":
            train(at, compiled(at), count=1)
        else:
            infer(at)
        assert len(called) > 5
        replay = {call for call in rehearsed if call[0] is replay_kernel}  # not before the second step
        assert len(replay) == 1
        assert rehearsed - Counter(replay) == called

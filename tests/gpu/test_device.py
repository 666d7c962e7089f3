"""On a CUDA device: ``PYTHONPATH=.:backends python -m pytest -m gpu tests/gpu``.

Graphs, the columns' two streams against one, trajectories, memory and, last since it takes longest, the kit. Needs
cupy, numba, numba-cuda, hypothesis and pytest, and nothing installed of minialex; without a device every test is
skipped with the reason.
`tests/cuda/test_pretend.py` runs this file under a pretend driver, with smaller numbers.
"""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from minialex.backend.program import LOSS, PROBS, STEP, ArrayName, Call, Program
from minialex.backend.recorder import interpret
from minialex.backend.rewrite import Rewrite
from minialex.conformance import run, steps
from minialex.conformance.checks import CHECKS
from minialex.conformance.compare import same_bits
from minialex.engine.step import Plan, record
from minialex.network import variants
from minialex.network.layers import Flatten, Linear, ReLU
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex_cuda import CudaBackend
from minialex_cuda.compiler.compiled import Step
from minialex_cuda.diagnose.diagnosis import reason
from minialex_numpy import NumpyBackend

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(reason() is not None, reason=f"no CUDA device here: {reason()}")]

PRECISIONS = ("float32", "tf32", "bfloat16")
ONE, BOTH = ("cuda:0", "cuda:0"), ("cuda:0", "cuda:1")
REPLAYS, REPEATS, LEARNED = 20, 25, 3
PAPER = "alexnet-2012"
WARM, MANY = 100, 1000
"""Steps until memory is what it will be, and steps that it must stay so for."""


@pytest.fixture(scope="module", params=PRECISIONS)
def gpu(request: pytest.FixtureRequest) -> CudaBackend:
    backend = CudaBackend(precision=request.param)
    if request.param != "float32" and capability() < (8, 0):
        pytest.skip(f"{request.param} needs compute capability 8.0, this device has {capability()}")
    return backend


def capability() -> tuple[int, int]:
    """Of the first device."""
    import cupy

    text = cupy.cuda.Device(0).compute_capability
    return int(text[:-1]), int(text[-1])


def executed(
    backend: CudaBackend, placement: tuple[str, str], *, graphs: bool = True, walk: bool = False, alone: bool = False
) -> steps.Run:
    """The kit's training steps, compiled or walked; with `alone` the host waits wherever a layer or column ends."""
    recorded = steps.program_of("train", "float32", placement, backend.devices, more=True)

    def make(program: Any, _: Any, bound: Any) -> Any:
        if walk:
            return interpret(program, backend, bound)
        step = Step(backend._places, backend._workspace, program, bound, graphs=graphs)
        return (lambda feed: step(feed, lambda *where: None)) if alone else step  # who watches makes the host wait

    return steps.execute(backend, recorded, steps.data("float32"), make)


def assert_same(first: steps.Run, second: steps.Run) -> None:
    for number, arrays in enumerate(first):
        for name, array in arrays.items():
            assert same_bits(array, second[number][name]), f"step {number}: {name} has other bits"


def test_a_graph_gives_the_same_bits(gpu: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEPS", REPLAYS)
    assert_same(executed(gpu, ONE), executed(gpu, ONE, graphs=False))


def test_two_streams_give_the_same_bits_as_one(gpu: CudaBackend) -> None:
    """Columns on streams of their own, many times, against the same schedule with nothing done beside anything else."""
    one_by_one = executed(gpu, ONE, alone=True)
    for _ in range(REPEATS):
        assert_same(executed(gpu, ONE), one_by_one)


class OneRank:
    """A process with NCCL and no other: what it sums is its own."""

    rank, size = 0, 1

    def exchange(self, item: Any) -> list[Any]:
        return [item]


def with_sums(program: Program, how: str) -> Program:
    """A training step whose gradients are summed over the ranks, each by itself, before they are used."""
    step, group = Rewrite(program), OneRank()
    for call in step.of("sgd_update"):
        w, v, dw = call.args
        total = step.value(dw.shape, dw.dtype, dw.device)
        where = call.layer, call.column, "reduce"
        step.insert_before(call, Call("sum_over_ranks", ([dw],), {"group": group, "how": how}, (total,), *where))
        step.replace([call], "sgd_update", (w, v, total), call.kwargs, call.results)
    return step.program


@pytest.mark.parametrize("how", ["fixed", "engine"])
def test_one_process_with_nccl_gives_the_same_bits(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums on a stream of their own, captured in the graph: NCCL's with itself, and those in the fixed order."""
    monkeypatch.setattr(steps, "STEPS", 5)
    backend, made = CudaBackend(), []
    if not backend.runtime.has_nccl:
        pytest.skip("no NCCL: pip install 'minialex[nccl]'")

    def make(program: Any, _: Any, bound: Any) -> Any:
        made.append(backend.compile_step(with_sums(program, how), bound))
        return made[0]

    recorded = steps.program_of("train", "float32", ONE, backend.devices, more=True)
    summed = steps.execute(backend, recorded, steps.data("float32"), make)
    assert made[0]._graph is not None
    assert ("cuda:0", 0, "reduce") in made[0].schedule.streams
    assert backend._nccl.is_used
    assert_same(summed, executed(backend, ONE))
    backend._nccl.close()


def test_copies_of_weights_have_their_bits() -> None:
    """In bfloat16, after steps that wrote them in a graph, and after an update that knows no copies."""
    if capability() < (8, 0):
        pytest.skip("bfloat16 needs compute capability 8.0")
    backend, random = CudaBackend(precision="bfloat16"), np.random.default_rng(0)
    layers = (Flatten("flatten"), Linear("fc1", 32, sees="all"), ReLU("relu1"), Linear("fc2", 16, sees="all"))
    network = Network("copies", (3, 8, 8), layers)
    here = Plan(network, ONE, Recipe(seed=3, image_size=8, crop=8, pixel_scale=1 / 64))
    train, infer = (record(here, kind, 8, backend.devices) for kind in ("train", "infer"))  # type: ignore[arg-type]
    given: dict[ArrayName, Any] = {name: np.zeros(v.shape, v.dtype) for name, v in train.bound.items()}
    given |= initial_parameters(network, 2, 5)
    bound = {name: backend.to_device(array, ONE[0]) for name, array in given.items()}
    batch = {name: random.integers(0, {"images": 256, "labels": 16}.get(name.role, 1), v.shape).astype(v.dtype)
             for name, v in train.fed.items()}  # fmt: skip

    def ran(step: Any, program: Program, number: int = 0) -> Any:
        feed: dict[ArrayName, Any] = dict.fromkeys(program.symbols, 0.02) | {STEP: number}
        feed |= {name: backend.to_device(batch[name], value.device) for name, value in program.fed.items()}
        return backend.to_numpy(step(feed)[PROBS])

    steps_made = backend.compile_step(train, bound), backend.compile_step(infer, bound)
    seen = []
    for number in range(2 * LEARNED):
        ran(steps_made[0], train, number)
        if number % 2:
            w, v = (bound[ArrayName("fc2", "weight", 1, role)] for role in ("parameter", "momentum"))
            backend.sgd_update(w, v, w, learning_rate=0.5, momentum=0.9, weight_decay=0.0)
        fresh = {name: backend.to_device(backend.to_numpy(array), ONE[0]) for name, array in bound.items()}
        seen.append(ran(steps_made[1], infer))
        assert same_bits(seen[-1], ran(backend.compile_step(infer, fresh), infer))
    assert len({probs.tobytes() for probs in seen}) == len(seen)
    assert steps_made[0]._graph is not None  # type: ignore[union-attr]


def test_two_devices_give_the_same_bits_as_one(gpu: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    if len(gpu.devices) < 2:
        pytest.skip("one device only")
    monkeypatch.setattr(steps, "STEPS", 3)  # launched, captured, replayed
    for placement in (BOTH, BOTH[::-1]):
        assert_same(executed(gpu, placement), executed(gpu, ONE))
        assert_same(executed(gpu, placement, walk=True), executed(gpu, ONE, walk=True))


def test_the_papers_network_trains_as_the_reference_does() -> None:
    """All 60,965,224 parameters, a batch of four, some steps in float32: loss and probabilities beside NumPy's."""
    recipe = load(PAPER)
    plan = Plan(variants.build(recipe), ("", ""), recipe)
    random = np.random.default_rng(0)
    size = recipe.image_size
    images = random.integers(0, 256, (4, 3, size, size)).astype(np.uint8)
    labels = random.integers(0, recipe.classes, 4)
    losses: dict[str, list[float]] = {}
    probs: dict[str, list[Any]] = {}
    weights = initial_parameters(plan.network, 2, 0)
    for backend in (CudaBackend(), NumpyBackend()):
        first = backend.devices[0]
        here = Plan(plan.network, (first, first), recipe)
        recorded = record(here, "train", 4, backend.devices)
        bound = {}
        for name, value in recorded.bound.items():
            given = weights.get(name, np.zeros(value.shape, value.dtype))
            bound[name] = backend.to_device(np.full_like(given, 120) if name.role == "mean" else given, first)
        step = backend.compile_step(recorded, bound) or interpret(recorded, backend, bound)
        losses[backend.name], probs[backend.name] = [], []
        for number in range(LEARNED):
            feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 0.01) | {STEP: number}
            arrays = {"images": images, "labels": labels, "shift": np.zeros((4, 3), np.float32)}
            arrays |= {name: np.full(4, (size - recipe.crop) // 2, np.int32) for name in ("top", "left")}
            arrays["flip"] = np.zeros(4, np.uint8)
            for name, value in recorded.fed.items():
                feed[name] = backend.to_device(arrays[name.role], value.device)
            outputs = step(feed)
            losses[backend.name].append(float(backend.to_numpy(outputs[LOSS])))
            probs[backend.name].append(backend.to_numpy(outputs[PROBS]))
    np.testing.assert_allclose(losses["cuda"], losses["numpy"], rtol=1e-3)
    np.testing.assert_allclose(probs["cuda"], probs["numpy"], rtol=1e-2, atol=1e-6)
    assert losses["numpy"][-1] < losses["numpy"][0]  # it learns


def test_no_memory_is_lost_over_a_thousand_steps(gpu: CudaBackend) -> None:
    import cupy

    recorded = steps.program_of("train", "float32", ONE, gpu.devices, more=False)
    given = steps.data("float32")
    bound = {name: gpu.zeros(v.shape, v.dtype.name, v.device) for name, v in recorded.bound.items()}
    step = gpu.compile_step(recorded, bound)
    assert step is not None
    used: list[tuple[int, int]] = []
    for number in range(MANY):
        feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 1e-3) | {STEP: number}
        for name, value in recorded.fed.items():
            feed[name] = gpu.to_device(given.batches[0][name.role], value.device)
        step(feed)
        del feed
        if number in (WARM - 1, MANY - 1):
            gpu.synchronize("cuda:0")
            gc.collect()
            used.append((gpu.memory_in_use("cuda:0"), cupy.get_default_memory_pool().total_bytes()))
    assert used[0] == used[1]


def test_memory_that_is_not_there_is_said() -> None:
    backend = CudaBackend()
    with pytest.raises(MemoryError, match=r"cuda:0: needed [\d,]+ bytes more, [\d,]+ are free"):
        backend.zeros((1 << 42,), "float32", "cuda:0")


@pytest.mark.parametrize("operation", list(CHECKS))
def test_the_kit_passes(gpu: CudaBackend, operation: str) -> None:
    (result,) = run(gpu, [operation])
    assert result.passed, result.message

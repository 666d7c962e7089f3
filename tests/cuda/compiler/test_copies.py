"""Copies of weights in bfloat16: the same bits as rounding in every step, whatever changes the weights in between."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minialex.backend.operations import Function
from minialex.backend.program import PROBS, STEP, ArrayName, Program, Value, values
from minialex.backend.recorder import interpret
from minialex.backend.rules import Spec
from minialex.conformance.compare import same_bits
from minialex.engine.step import Kind, Plan, record
from minialex.network.layers import Flatten, Linear, ReLU
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters
from minialex.recipe.fields import Recipe
from minialex_cuda import CudaBackend
from minialex_cuda.compiler import layout
from minialex_cuda.compiler.compiled import OutOfMemory, Step
from minialex_cuda.compiler.updates import together
from minialex_cuda.runtime.array import NOWHERE, CudaArray
from minialex_cuda.runtime.fake import FakeRuntime, narrowed

SIZE = 8
NETWORK = Network(
    "copies",
    (3, SIZE, SIZE),
    (
        Flatten("flatten"),
        Linear("fc1", 16, std=0.2, bias=0.1),
        ReLU("relu1"),
        Linear("fc2", 16, std=0.2, bias=0.1),
        ReLU("relu2"),
        Linear("fc3", 8, std=0.2),
    ),
)
RECIPE = Recipe(seed=3, image_size=SIZE, crop=SIZE, pixel_scale=1 / 64)
WEIGHTS = [ArrayName(f"fc{number}", "weight") for number in (1, 2, 3)]
HOME = "cuda:0"
Arrays = dict[ArrayName, NDArray[Any]]


class Net:
    """The network on a pretend device: its arrays, and steps on them, which are made when they are first asked for."""

    def __init__(self, weights: Arrays | None = None) -> None:
        self.backend = CudaBackend(precision="bfloat16", runtime=FakeRuntime(1))
        given = initial_parameters(NETWORK, 1, 5) if weights is None else weights
        self.bound: dict[ArrayName, CudaArray] = {ArrayName(role="mean", device=HOME): self.zeros((3, SIZE, SIZE))}
        for name, array in given.items():
            self.bound[name] = self.backend.to_device(array, HOME)
            self.bound[name.to("momentum")] = self.zeros(array.shape)
        self.steps: dict[Any, Any] = {}
        self.count = 0

    def zeros(self, shape: tuple[int, ...]) -> CudaArray:
        return self.backend.zeros(shape, "float32", HOME)

    def program(self, kind: Kind, batch: int = 8, frozen: tuple[str, ...] = ()) -> Program:
        return record(Plan(NETWORK, (HOME,), RECIPE, frozenset(frozen)), kind, batch, (HOME,))

    def compiled(self, kind: Kind, batch: int = 8, frozen: tuple[str, ...] = ()) -> Step:
        if (kind, batch, frozen) not in self.steps:
            self.steps[kind, batch, frozen] = self.backend.compile_step(self.program(kind, batch, frozen), self.bound)
        step = self.steps[kind, batch, frozen]
        assert isinstance(step, Step)
        return step

    def feed(self, program: Program) -> dict[ArrayName, Any]:
        self.count += 1
        random = np.random.default_rng(self.count)
        feed: dict[ArrayName, Any] = dict.fromkeys(program.symbols, 0.02 / self.count) | {STEP: self.count}
        for name, value in program.fed.items():
            most = {"images": 256, "labels": 8}.get(name.role, 1)
            feed[name] = self.backend.to_device(random.integers(0, most, value.shape).astype(value.dtype), HOME)
        return feed

    def run(self, kind: Kind, batch: int = 8, frozen: tuple[str, ...] = ()) -> Arrays:
        """Run a compiled step; returns what it gives."""
        step = self.compiled(kind, batch, frozen)
        return {name: self.backend.to_numpy(array) for name, array in step(self.feed(step.program)).items()}

    def walk(self, frozen: tuple[str, ...] = ()) -> None:
        program = self.program("train", frozen=frozen)
        interpret(program, self.backend, self.bound)(self.feed(program))

    def host(self, role: str = "parameter") -> Arrays:
        return {n: self.backend.to_numpy(a) for n, a in self.bound.items() if n.role == role}

    def set(self, name: ArrayName, numbers: NDArray[Any]) -> None:
        """Copy new numbers into an array."""
        self.backend.place(HOME).copy(self.backend.to_device(numbers, HOME), self.bound[name])


def rounded_in_every_step(self: Any, w: Value) -> Value:
    """In the place of `_Layout._weights`: no copies."""
    made = self._value(w.shape, self._dtype, w.device)
    self._add("converted", (w,), {"dtype": self._dtype}, (made,))
    return made


def drawn(net: Net, shape: tuple[int, ...], scale: float = 0.2) -> CudaArray:
    """Random numbers, in memory of their own, with which some units of every layer are positive."""
    return net.backend.to_device(scale * np.random.default_rng(9).standard_normal(shape).astype(np.float32), HOME)


def update_alone(net: Net) -> None:
    w, v = (net.bound[WEIGHTS[1].to(role)] for role in ("parameter", "momentum"))
    net.backend.sgd_update(w, v, drawn(net, w.shape), learning_rate=0.5, momentum=0.9, weight_decay=0.0)


def product(net: Net) -> None:
    w = net.bound[WEIGHTS[1]]
    a, b = drawn(net, (16, 16)), drawn(net, (16, 16))
    net.backend.place(HOME).multiply(a, b, w, 16, 16, 16)


def own_function(net: Net) -> None:
    """A function that it may not be: one that changes what it is given."""

    def plain(xp: Any, w: Any) -> Any:
        w *= 2
        return w.copy()

    net.backend.apply(Function("doubled", plain, lambda w: Spec(w.shape, w.dtype)), net.bound[WEIGHTS[1]])


def updates_alone(net: Net) -> None:
    """A compiled step that only updates, and so knows no copies."""
    program = net.program("train")
    calls = [call for call in program.calls if call.operation == "sgd_update"]
    dws = {ArrayName(f"dw{number}"): call.args[2] for number, call in enumerate(calls)}
    alone = Program(program.bound, dws, program.symbols, tuple(calls), {})  # type: ignore[arg-type]
    step = net.backend.compile_step(alone, net.bound)
    feed: dict[ArrayName, Any] = dict.fromkeys(program.symbols, 0.1)
    feed |= {name: drawn(net, v.shape, 0.05) for name, v in dws.items()}
    assert step is not None
    for _ in range(3):  # plain, captured, replayed
        step(feed)


def fails_on_its_way(net: Net) -> None:
    """A step whose work was begun, but of which nobody knows how far it came."""
    step, replay = net.compiled("train"), net.backend.runtime.replay

    def broken(stream: Any, graph: Any) -> None:
        for array in net.bound.values():
            array.flat.raw[...] *= 2
        raise KeyboardInterrupt

    net.backend.runtime.replay = broken  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        step(net.feed(step.program))
    net.backend.runtime.replay = replay  # type: ignore[method-assign]


def moved(net: Net) -> None:
    """Weights, and their copies, move to other memory, where they change."""
    arrays = [array for name, array in net.bound.items() if name.role != "mean"]
    on = net.backend.place(HOME)
    assert together(on, [*arrays, net.zeros((3,))])
    together(on, [*(array.rounded for array in arrays if array.rounded is not None), net.zeros((3,))])
    net.backend._workspace.release()
    product(net)


def new_arrays(net: Net) -> None:
    """As when a checkpoint is restored: other arrays, and steps of their own, beside the old ones."""
    weights = {name: 2 * array for name, array in net.host().items()}
    net.bound = {name: net.zeros(array.shape) for name, array in net.bound.items()}
    net.bound |= {name: net.backend.to_device(array, HOME) for name, array in weights.items()}
    net.steps.clear()


CHANGES: dict[str, Callable[[Net], Any]] = {
    "nothing": lambda net: None,
    "the step itself": lambda net: net.run("train"),
    "another batch size": lambda net: net.run("train", 16),
    "other frozen layers": lambda net: [net.run("train", 8, ("fc1",)) for _ in range(4)],
    "a walked step": lambda net: net.walk(),
    "an update alone": update_alone,
    "updates alone, compiled": updates_alone,
    "zeros": lambda net: net.backend.place(HOME).clear(net.bound[WEIGHTS[1]]),
    "a copy into them": lambda net: net.backend.place(HOME).copy(drawn(net, (16, 16)), net.bound[WEIGHTS[1]]),
    "a product": product,
    "a function of one's own": own_function,
    "a step that fails": fails_on_its_way,
    "a move": moved,
    "new arrays": new_arrays,
    "a larger workspace": lambda net: [net.run("train", 64), net.run("infer", 128)],
    "not finite": lambda net: [
        net.set(WEIGHTS[2].to("momentum"), np.full((8, 16), 3e38, np.float32)),
        net.set(WEIGHTS[2], np.full((8, 16), 3e38, np.float32)),
        net.run("train"),
    ],
    "NaN and infinity": lambda net: net.set(
        WEIGHTS[1], np.resize(np.array([np.nan, np.inf, -np.inf, 1, 1e-40], np.float32), (16, 16))
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _no_warnings() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def assert_current(net: Net, varied: bool = True) -> None:
    """That whoever asks now reads weights as they are: a step gives what one gives that never knew others.

    Its probabilities depend on the weights: they are `varied`.
    """
    net.count = 100
    found = net.run("infer")
    fresh = Net(net.host())
    fresh.count = 100
    expected = fresh.run("infer")
    for name, array in expected.items():
        assert same_bits(found[name], array), name
    assert not varied or len(np.unique(expected[PROBS])) > 32
    for name in WEIGHTS:
        copy = net.bound[name].rounded
        assert copy is not None
        whole = net.host()[name]
        finite = np.isfinite(whole)
        np.testing.assert_array_equal(net.backend.to_numpy(copy)[finite], narrowed(whole)[finite])


@pytest.mark.parametrize("first", ["infer", "train"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_copy_is_stale(change: str, first: Kind) -> None:
    """After steps that were captured and replayed, something changes the weights."""
    net = Net()
    for kind in (first, "train", "infer"):
        for _ in range(3):
            net.run(kind)  # type: ignore[arg-type]
    CHANGES[change](net)
    varied = change not in ("zeros", "not finite", "NaN and infinity")
    assert_current(net, varied)
    for _ in range(3):
        net.run("train")
    assert_current(net, varied)


def story(net: Net) -> list[Arrays]:
    """Steps with everything in between that may happen; what they give, and weights and momentum after each."""
    told = []

    def tell(kind: Kind, batch: int = 8, frozen: tuple[str, ...] = (), times: int = 1) -> None:
        for _ in range(times):
            told.append(net.run(kind, batch, frozen) | net.host() | net.host("momentum"))

    tell("infer", times=3)
    tell("train", times=4)
    for _ in range(3):
        tell("train", 16)
        tell("infer")
        tell("train")
    tell("train", 8, ("fc1", "fc3"), times=4)
    for change in CHANGES.values():
        change(net)
        tell("infer", 16)
        tell("train", times=2)
        tell("train", 8, ("fc2",))
        tell("infer")
    return told


def test_the_same_bits_as_rounding_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    found = story(Net())
    monkeypatch.setattr(layout._Layout, "_weights", rounded_in_every_step)
    net = Net()
    expected = story(net)
    assert all(array.rounded is None for array in net.bound.values())
    assert len(found) == len(expected) > 80
    assert len({arrays[PROBS].tobytes() for arrays in found if PROBS in arrays}) > 60
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        for name, array in one.items():
            assert same_bits(array, other[name]), (number, name)


class Counting:
    """Counts what is rounded, eagerly or in a graph: how often each of the weights."""

    def __init__(self, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: Counter[str] = Counter()
        original = net.backend.runtime.launch

        def launch(stream: Any, kernel: Any, count: Any, arguments: Any, touched: Any = None) -> None:
            if kernel.name == "convert_float32_bfloat16":
                self.found.update(
                    name.layer for name in WEIGHTS
                    if (w := net.bound[name].flat).memory is arguments[0].memory and w.offset == arguments[0].offset
                )  # fmt: skip
            original(stream, kernel, count, arguments, touched)

        monkeypatch.setattr(net.backend.runtime, "launch", launch)

    def take(self) -> dict[str, int]:
        taken, self.found = dict(self.found), Counter()
        return taken


def test_weights_are_rounded_once_and_not_in_a_steps_program(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    rounded = Counting(net, monkeypatch)
    once = {"fc1": 1, "fc2": 1, "fc3": 1}
    for batch in (8, 16):
        step = net.compiled("train", batch)
        bound = set(step.program.bound.values())
        converted = [task.call for task in step.schedule.tasks if task.call.operation == "converted"]
        assert converted  # the images
        assert bound.isdisjoint(values([call.args for call in converted]))
    for _ in range(4):
        net.run("train")
    assert rounded.take() == once
    for _ in range(3):
        net.run("train", 16)
        net.run("train")
        net.run("infer")
    assert rounded.take() == {}
    net.run("train", 8, ("fc1",))
    net.run("train", 8, ("fc1",))
    net.run("infer")
    assert rounded.take() == {}
    net.walk()
    for _ in range(3):
        net.run("infer")
    assert rounded.take() == once


def test_an_update_tells_which_copies_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who orders work on streams must know: the schedule, and a runtime that looks for races."""
    net, written = Net(), []
    original = net.backend.runtime.launch

    def launch(stream: Any, kernel: Any, count: Any, arguments: Any, touched: Any = None) -> None:
        if kernel.name == "sgd_updates_kernel":
            written.extend(touched[1])
        original(stream, kernel, count, arguments, touched)

    monkeypatch.setattr(net.backend.runtime, "launch", launch)
    net.run("train", 8, ("fc1",))
    first, *others = (net.bound[name].rounded for name in WEIGHTS)
    assert first is not None
    assert first.flat not in written
    changed = net.compiled("train", 8, ("fc1",))._changed
    for copy in others:
        assert copy is not None
        assert copy.flat in written
        assert copy in changed


def test_frozen_weights_are_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    rounded = Counting(net, monkeypatch)
    for _ in range(5):
        net.run("train", 8, ("fc1",))
        net.run("infer")
    assert rounded.take() == {"fc1": 1, "fc2": 1, "fc3": 1}
    before = net.bound[WEIGHTS[0]].flat.memory.version
    net.run("train", 8, ("fc1",))
    assert net.bound[WEIGHTS[0]].flat.memory.version == before


def test_inference_alone_rounds_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    rounded = Counting(net, monkeypatch)
    for _ in range(4):
        net.run("infer")
        net.run("infer", 16)
    assert rounded.take() == {"fc1": 1, "fc2": 1, "fc3": 1}


def test_weights_that_a_step_is_fed_are_rounded_in_it() -> None:
    net = Net()
    program = net.program("infer")
    fed = {name: value for name, value in program.bound.items() if name == WEIGHTS[1]}
    bound = {name: value for name, value in program.bound.items() if name not in fed}
    changed = Program(bound, {**program.fed, **fed}, program.symbols, program.calls, program.outputs)
    step = net.backend.compile_step(changed, net.bound)
    assert isinstance(step, Step)
    converted = values([t.call.args for t in step.schedule.tasks if t.call.operation == "converted"])
    assert [value for value in converted if value in bound.values()] == []
    assert next(iter(fed.values())) in converted
    for _ in range(3):
        product(net)
        net.count = 50
        feed = net.feed(program) | {WEIGHTS[1]: net.bound[WEIGHTS[1]]}
        found = {name: net.backend.to_numpy(array) for name, array in step(feed).items()}
        net.count = 50
        for name, array in net.run("infer").items():
            assert same_bits(found[name], array)


# ---- memory ---------------------------------------------------------------------------------------------------


def test_all_steps_share_one_copy_which_lives_as_long_as_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def used(net: Net) -> int:
        gc.collect()
        return net.backend.memory_in_use(HOME)

    net = Net()
    for batch in (8, 16, 32):
        net.run("train", batch)
        net.run("infer", batch)
    copies = [net.bound[name].rounded for name in WEIGHTS]
    memories = {id(copy.flat.memory): copy.flat.memory.nbytes for copy in copies if copy is not None}
    assert len(memories) == 1
    assert list(memories) != [id(net.bound[WEIGHTS[0]].flat.memory)]
    (size,) = memories.values()
    assert (
        sum(net.bound[name].nbytes // 2 for name in WEIGHTS)
        <= size
        < sum(net.bound[name].nbytes // 2 + 256 for name in WEIGHTS)
    )
    sizes = net.compiled("train")._sizes()[HOME]
    with_steps = used(net)
    net.steps.clear()
    without = used(net)
    assert without < with_steps
    net.run("train")
    assert [net.bound[name].rounded for name in WEIGHTS] == copies
    net.steps.clear()
    assert used(net) == without
    for name in WEIGHTS:
        net.bound[name].rounded = None
    del copies
    assert used(net) == without - size
    net.bound.clear()
    net.backend._workspace._blocks.clear()
    assert used(net) == 0
    monkeypatch.setattr(layout._Layout, "_weights", rounded_in_every_step)
    assert sizes < Net().compiled("train")._sizes()[HOME]


def test_copies_that_move_alone_take_graphs_with_them() -> None:
    """The weights are in one block already; the step that writes their copies brings those together, too."""
    net = Net()
    net.run("infer", 512)  # the workspace never grows again, since then all graphs are made anew
    for array in net.bound.values():
        array.rounded = None
    updates_alone(net)
    for _ in range(3):
        net.run("infer")
    before = [array.flat for array in net.bound.values()]
    copies = [copy for name in WEIGHTS if (copy := net.bound[name].rounded) is not None]
    assert len({id(copy.flat.memory) for copy in copies}) == 3
    kept = [copy.flat for copy in copies]
    net.compiled("train")
    assert [array.flat for array in net.bound.values()] == before
    assert len({id(copy.flat.memory) for copy in copies}) == 1
    for flat in kept:
        flat.raw.fill(0)  # somebody else's by now
    for _ in range(3):
        net.run("train")
        assert_current(net)


def test_no_two_blocks_have_the_same_version() -> None:
    runtime = FakeRuntime()
    blocks = [runtime.allocate(4, HOME, runtime.stream(HOME)) for _ in range(3)]
    found = [block.version for block in blocks]
    for block in blocks * 2:
        block.changed()
        found.append(block.version)
    assert len(set(found)) == len(found)


def test_a_step_that_does_not_fit_leaves_copies_that_the_next_can_use() -> None:
    net = Net()
    runtime = net.backend.runtime
    assert isinstance(runtime, FakeRuntime)
    runtime._memory = runtime.in_use(HOME) + (1 << 20)
    with pytest.raises(OutOfMemory):
        net.compiled("train", 4096)
    net.run("infer")
    net.run("train")
    assert_current(net)
    again = Net()
    runtime = again.backend.runtime
    assert isinstance(runtime, FakeRuntime)
    runtime._memory = runtime.in_use(HOME) + 4096
    with pytest.raises(MemoryError):
        again.compiled("train")
    assert any(a.rounded is not None and a.rounded.flat is NOWHERE for a in again.bound.values())
    runtime._memory = 1 << 40
    again.run("train")
    assert_current(again)

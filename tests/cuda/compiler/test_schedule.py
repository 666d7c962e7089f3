"""Streams, events and memory: the backend on streams that do their work late and in any legal order.

`LateRuntime` is the host's runtime, but work waits in the queues of its streams until somebody synchronizes, and is
then done in a random order that the streams and events allow. Vector clocks tell of any two accesses to the same bytes,
one of them a write, that no event orders; memory that is freed goes to the next of its stream at once, as in CuPy.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from minialex.backend.program import LOSS, STEP, ArrayName
from minialex.backend.recorder import interpret
from minialex.conformance import steps
from minialex.conformance.compare import same_bits
from minialex.engine.step import Plan, record
from minialex.network.layers import Flatten, Linear, ReLU
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters
from minialex.recipe.fields import Recipe
from minialex_cuda import CudaBackend
from minialex_cuda.compiler import compiled
from minialex_cuda.compiler.compiled import Step
from minialex_cuda.compiler.fusion import fuse
from minialex_cuda.compiler.layout import channels_last
from minialex_cuda.compiler.schedule import Schedule, plan
from minialex_cuda.runtime.array import Flat, Memory
from minialex_cuda.runtime.fake import FakeRuntime, FakeStream

Clock = dict[int, int]
DEVICES = ("cuda:0", "cuda:1")
PLACEMENTS = [("cuda:0", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:0")]


class Hazard(AssertionError):
    """Two accesses that nothing orders, or one from another device."""


@dataclass
class Access:
    stream: int
    time: int
    name: str
    begin: int
    end: int
    write: bool


class LateMemory(Memory):
    """Given back to its stream's pool as soon as nobody holds it, done or not."""

    __slots__ = ("pool",)

    def __del__(self) -> None:
        super().__del__()
        self.pool.append(self.raw)


class LateStream(FakeStream):
    def __init__(self, runtime: LateRuntime, device: str) -> None:
        super().__init__(runtime, device)
        self.runtime: LateRuntime = runtime
        self.number = len(runtime.streams)
        self.clock: Clock = {self.number: 0}
        self.queue: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        self.free: dict[int, list[Any]] = defaultdict(list)

    def do(self, name: str, work: Callable[[], None], reads: Sequence[Flat], writes: Sequence[Flat]) -> None:
        if self.runtime.into is not None:
            stream, graph = self.runtime.into
            if stream is not self or name == "upload":
                raise Hazard(f"{name} on another stream, or from the host, while a graph is captured")
            graph.append((name, work, tuple(reads), tuple(writes)))
            return
        merge(self.clock, self.runtime.host)
        self.clock[self.number] += 1
        for flats, write in ((reads, False), (writes, True)):
            for flat in flats:
                if flat.memory.device != self.device and name != "copy":
                    raise Hazard(f"{name} on {self.device} touches memory of {flat.memory.device}")
                self.runtime.see(flat, Access(self.number, self.clock[self.number], name, 0, 0, write), self.clock)
        self.queue.append((lambda: True, work))

    def record(self) -> LateEvent:
        if self.runtime.into is not None:
            raise Hazard("an event in a graph of one stream")
        event = LateEvent(dict(self.clock))
        self.queue.append((lambda: True, lambda: setattr(event, "done", True)))
        return event

    def wait(self, event: LateEvent) -> None:
        merge(self.clock, event.clock)
        self.queue.append((lambda: event.done, lambda: None))

    def synchronize(self) -> None:
        self.runtime.run(self)
        merge(self.runtime.host, self.clock)


@dataclass
class LateEvent:
    clock: Clock
    done: bool = False


def merge(clock: Clock, other: Clock) -> None:
    for stream, time in other.items():
        clock[stream] = max(clock.get(stream, 0), time)


class LateRuntime(FakeRuntime):
    def __init__(self, seed: int, graphs: bool = False) -> None:
        super().__init__()
        self.graphs = graphs
        self.into: tuple[LateStream, list[Any]] | None = None  # what is captured: of which stream, and its work
        self.random = random.Random(seed)
        self.streams: list[LateStream] = []
        self.host: Clock = {}
        self.accesses: dict[int, list[Access]] = defaultdict(list)
        self.blocks: list[Any] = []

    def stream(self, device: str) -> LateStream:
        self.streams.append(LateStream(self, device))
        return self.streams[-1]

    def allocate(self, nbytes: int, device: str, stream: LateStream) -> Memory:
        pool = stream.free[nbytes]
        if not pool:
            self.blocks.append(np.full(nbytes, 0xA5, np.uint8))
            pool.append(self.blocks[-1])
        memory = LateMemory(pool.pop(), nbytes, device, self._in_use)
        memory.pool = pool
        return memory

    def see(self, flat: Flat, access: Access, clock: Clock) -> None:
        access.begin, access.end = flat.offset, flat.offset + flat.nbytes
        known = self.accesses[id(flat.memory.raw)]
        for other in known:
            if (other.write or access.write) and other.begin < access.end and access.begin < other.end:
                same = (other.stream, other.time) == (access.stream, access.time)
                if not same and clock.get(other.stream, 0) < other.time:
                    raise Hazard(f"{access.name} and {other.name} touch the same bytes, and nothing orders them")
        if access.write:
            known[:] = [o for o in known if not (access.begin <= o.begin and o.end <= access.end)]
        known.append(access)

    def begin_capture(self, stream: Any) -> bool:
        assert self.into is None
        self.into = (stream, []) if self.graphs else None
        return self.graphs

    def end_capture(self, stream: Any) -> Any:
        assert self.into is not None
        (begun, graph), self.into = self.into, None
        assert begun is stream
        assert all(work[0] != "copy" for work in graph)  # what crosses between devices is in none
        return graph

    def replay(self, stream: Any, graph: Any) -> None:
        for work in graph:
            stream.do(*work)

    def wait_on_host(self, event: LateEvent) -> None:
        self.pump(lambda: event.done)
        merge(self.host, event.clock)

    def run(self, until: LateStream) -> None:
        self.pump(lambda: not until.queue)

    def pump(self, done: Callable[[], bool]) -> None:
        while not done():
            ready = [stream for stream in self.streams if stream.queue and stream.queue[0][0]()]
            if not ready:
                raise Hazard("streams wait for each other")
            self.random.choice(ready).queue.pop(0)[1]()


@pytest.fixture(autouse=True)
def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEPS", 2)


def program(kind: Any, placement: tuple[str, str]) -> Any:
    return steps.program_of(kind, "float32", placement, DEVICES, more=True)


def equal(run: steps.Run, other: steps.Run) -> bool:
    return all(same_bits(array, other[i][name]) for i, arrays in enumerate(run) for name, array in arrays.items())


@pytest.fixture(scope="module")
def serial() -> dict[tuple[Any, bool], steps.Run]:
    """What comes out with streams that do everything at once: compiled, and walked."""
    backend, given = CudaBackend(runtime=FakeRuntime()), steps.data("float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "STEPS", 2)
        found: dict[tuple[Any, bool], steps.Run] = {}
        for kind in ("train", "infer"):
            recorded = program(kind, PLACEMENTS[1])
            given = steps.data("float32")
            found[kind, True] = steps.compile_on(backend, recorded, given) or []
            found[kind, False] = steps.execute(backend, recorded, given, interpret)
    return found


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_compiled_steps_give_the_same_bits_in_any_legal_order(
    serial: dict[tuple[Any, bool], steps.Run], kind: Any, placement: tuple[str, str]
) -> None:
    for seed in range(6):
        run = steps.compile_on(CudaBackend(runtime=LateRuntime(seed)), program(kind, placement), steps.data("float32"))
        assert run is not None
        assert equal(run, serial[kind, True])


@pytest.mark.parametrize("placement", [PLACEMENTS[0], PLACEMENTS[2]])
def test_stretches_as_graphs_give_the_same_bits_in_any_legal_order(
    monkeypatch: pytest.MonkeyPatch, placement: tuple[str, str]
) -> None:
    monkeypatch.setattr(steps, "STEPS", 4)  # plain, captured, replayed twice
    recorded, given = program("train", placement), steps.data("float32")
    wanted = steps.compile_on(CudaBackend(runtime=LateRuntime(0)), recorded, given)
    assert wanted is not None
    for seed in range(6):
        runtime, made = LateRuntime(seed, graphs=True), list[Step]()

        def make(program: Any, backend: Any, bound: Any, made: list[Step] = made) -> Step:
            made.append(backend.compile_step(program, bound))
            return made[0]

        assert equal(steps.execute(CudaBackend(runtime=runtime), recorded, given, make), wanted)
        captured = [part for part, graph in made[0]._parts.items() if graph is not None]
        assert len(captured) > 8
        assert sum(map(len, captured)) > 0.7 * len(made[0].schedule.tasks)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_stretches_wait_only_at_their_beginning_and_are_waited_for_only_at_their_end(
    kind: Any, placement: tuple[str, str]
) -> None:
    schedule = plan(channels_last(fuse(program(kind, placement)), np.dtype(np.float32))[0])
    parts = schedule.stretches()
    assert sorted(index for part in parts for index in part) == list(range(len(schedule.tasks)))
    assert len(parts) < len(schedule.tasks) / 2
    done: set[int] = set()
    for part in parts:
        first, *rest = (schedule.tasks[index] for index in part)
        assert {task.stream for task in rest} <= {first.stream}
        assert not any(task.waits for task in rest)
        assert done.issuperset(first.waits)  # which are ends of stretches launched before
        assert schedule.recorded.isdisjoint(part[:-1])
        assert all(index < part[0] for index in done if schedule.tasks[index].stream == first.stream)
        done.update(part)


@pytest.mark.parametrize("placement", PLACEMENTS[:2])
def test_copies_of_weights_are_written_and_read_in_order(placement: tuple[str, str]) -> None:
    """In bfloat16: rounded on a device's own stream, then written and read on those of the columns."""
    layers = (Flatten("flatten"), Linear("fc1", 32, sees="all"), ReLU("relu1"), Linear("fc2", 16, sees="all"))
    network = Network("copies", (3, 8, 8), layers)
    recorded = record(
        Plan(network, placement, Recipe(seed=3, image_size=8, crop=8, pixel_scale=1 / 64)), "train", 8, DEVICES
    )
    weights = initial_parameters(network, 2, 5)

    def trained(runtime: FakeRuntime) -> list[Any]:
        backend, random = CudaBackend(runtime=runtime, precision="bfloat16"), np.random.default_rng(0)
        bound = {
            name: backend.to_device(weights.get(name, np.zeros(value.shape, np.float32)), value.device)
            for name, value in recorded.bound.items()
        }
        step = backend.compile_step(recorded, bound)
        assert isinstance(step, Step)
        found = []
        for number in range(4):
            feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 0.02) | {STEP: number}
            for name, value in recorded.fed.items():
                most = {"images": 256, "labels": 16}.get(name.role, 1)
                numbers = random.integers(0, most, value.shape).astype(value.dtype)
                feed[name] = backend.to_device(numbers, value.device)
            found.append(backend.to_numpy(step(feed)[LOSS]))
            if number == 1:
                for name, array in bound.items():  # by itself, and so not in the copy
                    if name.array == "weight" and name.role == "parameter":
                        backend.sgd_update(
                            array, bound[name.to("momentum")], array, learning_rate=0.5, momentum=0.0, weight_decay=0.0
                        )
        copies = [array.rounded for array in bound.values() if array.rounded is not None]
        assert len(copies) == 4
        return [*found, *map(backend.to_numpy, copies), *map(backend.to_numpy, bound.values())]

    expected = trained(FakeRuntime())
    for seed in range(6):
        assert all(map(same_bits, trained(LateRuntime(seed, graphs=len(set(placement)) > 1 and seed > 2)), expected))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_walked_steps_give_the_same_bits_in_any_legal_order(
    serial: dict[tuple[Any, bool], steps.Run], placement: tuple[str, str]
) -> None:
    for seed in range(3):
        backend = CudaBackend(runtime=LateRuntime(seed))
        run = steps.execute(backend, program("train", placement), steps.data("float32"))
        assert equal(run, serial["train", False])


def test_the_next_batch_comes_while_the_step_computes() -> None:
    """It waits for who read its block before, the last step's beginning, and not for that step's end."""
    runtime = LateRuntime(0)
    backend = CudaBackend(runtime=runtime)
    recorded, given = program("train", PLACEMENTS[1]), steps.data("float32")
    bound = {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in recorded.bound.items()}
    step = backend.compile_step(recorded, bound)
    assert isinstance(step, Step)
    main, coming = backend.place("cuda:0").stream, backend._arrivals["cuda:0"].stream

    def send() -> dict[str, Any]:
        feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 1e-3) | {STEP: 1}
        for name, value in recorded.fed.items():
            feed[name] = backend.to_device(given.batches[0][name.role], value.device)
        return feed

    feed = send()
    for _ in range(5):
        step(feed)
        asked = main.clock[main.number]
        feed = send()
        assert coming.queue
        assert coming.clock.get(main.number, 0) < asked
        for stream in step._streams.values():
            assert coming.clock.get(stream.number, 0) < stream.clock[stream.number]
    backend.synchronize("cuda:0")


def test_the_next_step_is_asked_for_before_results_have_come() -> None:
    """They are copied in the order of the stream: nothing waits, and the next step may write its own over them."""
    backend = CudaBackend(runtime=LateRuntime(0))
    recorded, given = program("train", PLACEMENTS[1]), steps.data("float32")
    bound = {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in recorded.bound.items()}
    step = backend.compile_step(recorded, bound)
    assert isinstance(step, Step)
    feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 1e-3) | {STEP: 1}
    for name, value in recorded.fed.items():
        feed[name] = backend.to_device(given.batches[0][name.role], value.device)
    first = step(feed)
    backend.synchronize("cuda:0")
    wanted = {name: backend.to_numpy(array) for name, array in first.items()}
    promised = [backend.to_numpy_later(list(step(feed).values())) for _ in range(2)]
    assert all(stream.queue for stream in step._streams.values())  # nothing has been waited for
    second, third = (dict(zip(wanted, later(), strict=True)) for later in promised)
    assert not same_bits(second[LOSS], wanted[LOSS])
    assert not same_bits(third[LOSS], second[LOSS])
    after = {name: backend.to_numpy(array) for name, array in step(feed).items()}
    assert not same_bits(after[LOSS], third[LOSS])


def without_each_wait(schedule: Schedule) -> Iterator[tuple[str, Schedule]]:
    """The schedule with one wait left out, each in turn."""
    for index, task in enumerate(schedule.tasks):
        for wait in task.waits:
            rest = tuple(other for other in task.waits if other != wait)
            tasks = (*schedule.tasks[:index], replace(task, waits=rest), *schedule.tasks[index + 1 :])
            yield f"{task.call.operation} ({task.call.layer})", replace(schedule, tasks=tasks)


@pytest.mark.parametrize("placement", PLACEMENTS[:2])
def test_every_wait_is_needed(monkeypatch: pytest.MonkeyPatch, placement: tuple[str, str]) -> None:
    recorded, given = program("train", placement), steps.data("float32")
    whole = plan(channels_last(fuse(recorded), np.dtype(np.float32))[0])
    faults = list(without_each_wait(whole))
    assert len(faults) > 10
    for what, schedule in faults:
        monkeypatch.setattr(compiled, "plan", lambda *_, broken=schedule: broken)
        try:
            steps.compile_on(CudaBackend(runtime=LateRuntime(0)), recorded, given)
        except Hazard:
            continue
        pytest.fail(f"{what}: nothing noticed that it does not wait")


@pytest.mark.parametrize("skipped", ["record", "wait"])
def test_steps_must_begin_and_end_together(monkeypatch: pytest.MonkeyPatch, skipped: str) -> None:
    """Without the events around a whole step it reads batches that have not come, or is read before it is done."""
    backend = CudaBackend(runtime=LateRuntime(0))
    original = Step._run

    def run(self: Step, watch: Any) -> None:
        own = {id(place.stream) for place in self.places.values()}
        with monkeypatch.context() as patch:
            if skipped == "record":  # streams do not wait for the batch

                def record(stream: Any) -> Any:
                    return LateEvent({}, True) if id(stream) in own else LateStream.record(stream)

                patch.setattr(backend.runtime, "record", record, raising=False)
            else:  # the device's own stream does not wait for the end

                def wait(stream: Any, event: Any) -> None:
                    if id(stream) not in own:
                        LateStream.wait(stream, event)

                patch.setattr(backend.runtime, "wait", wait, raising=False)
            original(self, watch)

    monkeypatch.setattr(Step, "_run", run)
    with pytest.raises(Hazard):
        steps.compile_on(backend, program("train", PLACEMENTS[0]), steps.data("float32"))


def test_columns_meet_only_where_both_are_read() -> None:
    """Copies, and waits of one column for the other, belong to layers that see all columns, the input or the cost."""
    readers = {layer.name for layer in steps.NETWORK.layers if layer.sees == "all"} | {"softmax", "input"}
    for placement in PLACEMENTS[:2]:
        recorded = program("train", placement)
        schedule = plan(fuse(recorded))
        for task in schedule.tasks:
            for wait in task.waits:
                assert {task.call.layer, schedule.tasks[wait].call.layer} & readers
        copies = {task.call.layer for task in schedule.tasks if task.call.operation == "copy_to"}
        assert copies == (readers - {"softmax", "input"} if placement[0] != placement[1] else set())
        assert len(schedule.streams) == (4 if placement[0] != placement[1] else 2)


def test_gradients_are_sent_before_those_of_weights_begin() -> None:
    recorded = program("train", PLACEMENTS[0])
    schedule = plan(fuse(recorded))
    order = [(task.call.operation, task.call.layer, task.call.column) for task in schedule.tasks]
    for layer in ("fc5", "fc6"):
        for column in (0, 1):
            at = [order.index((name, layer, column)) for name in ("linear_dx", "split", "linear_dw")]
            assert at == sorted(at)
            copy = next(t for t in schedule.tasks if t.call.operation == "copy_to" and t.call.layer == layer)
            assert all(schedule.tasks[wait].call.operation != "linear_dw" for wait in copy.waits)


def test_gradients_of_weights_stay_where_somebody_reads_them_at_once() -> None:
    recorded = program("train", PLACEMENTS[0])
    calls = list(recorded.calls)
    made = {}
    for call in recorded.calls:
        if call.operation == "linear_backward":
            dw = call.results[1]
            made[dw] = replace(dw, index=-dw.index)
            scaled = replace(call, operation="scale", args=(dw, 0.5), kwargs={}, results=(made[dw],), phase="reduce")
            calls.insert(next(i for i, other in enumerate(calls) if other is call) + 1, scaled)
    calls = [replace(call, args=tuple(made.get(a, a) for a in call.args)) if call.operation == "sgd_update" else call
             for call in calls]  # fmt: skip
    fused = fuse(replace(recorded, calls=tuple(calls)))
    plan(fused)  # checks what is read
    order = [(call.operation, call.layer) for call in fused.calls]
    assert ("scale", "fc5") in order
    assert ("linear_dw", "fc5") not in order


def test_a_schedule_that_reads_before_it_writes_is_refused() -> None:
    recorded = program("infer", PLACEMENTS[0])
    first, second, *others = recorded.calls
    with pytest.raises(AssertionError, match="reads an array that no earlier operation has written"):
        plan(replace(recorded, calls=(*others, first, second)))


def test_memory_is_shared_by_results_that_do_not_live_together() -> None:
    recorded = program("train", PLACEMENTS[0])
    schedule = plan(fuse(recorded))
    apart = sum(-(-value.nbytes // 256) * 256 for value in schedule.slots)
    assert sum(schedule.arenas.values()) < 0.85 * apart


def test_fusion_is_found_and_leaves_nothing_out() -> None:
    recorded = program("train", PLACEMENTS[0])
    fused = fuse(replace(recorded, outputs={LOSS: recorded.outputs[LOSS]})).calls
    counts: dict[str, int] = defaultdict(int)
    for call in fused:
        counts[call.operation] += 1
    for operation in ("norm_pool", "norm_pool_backward", "conv2d_relu", "linear_relu"):
        assert counts[operation] >= 2, (operation, dict(counts))
    assert all(call.kwargs["rectify"] for call in fused if call.operation == "norm_pool_backward")
    written = [value for call in fused for value in call.results if value is not None]
    assert len(written) == len(set(written))
    known = {*recorded.bound.values(), *recorded.fed.values()}
    for call in fused:
        assert set(steps_values(call)) <= known, call.operation
        known |= {value for value in call.results if value is not None}


def steps_values(call: Any) -> list[Any]:
    from minialex.backend.program import values

    return values((call.args, call.kwargs))


def test_the_networks_of_the_paper_are_fused() -> None:
    """AlexNet as in the paper: both normalisations with their pooling, pool5 with its ReLU, every convolution."""
    from minialex.engine.step import Plan, record
    from minialex.network import variants
    from minialex.recipe.toml import load

    recipe = load("alexnet-2012")
    step = Plan(variants.build(recipe), ("cuda:0", "cuda:1"), recipe)
    recorded = record(step, "train", 128, ("cuda:0", "cuda:1"))
    counts: dict[str, int] = defaultdict(int)
    for call in fuse(recorded).calls:
        counts[call.operation] += 1
    assert counts["norm_pool"] == counts["norm_pool_backward"] == 4
    assert counts["max_pool2d_relu_backward"] == 2
    assert counts["conv2d_relu"] == 10
    assert counts["relu_conv2d_backward"] == counts["relu_conv2d_dx"] == counts["relu_conv2d_dw"] == 2
    assert counts["linear_relu"] == 4
    assert "local_response_norm" not in counts
    one = Plan(variants.build(recipe), ("cuda:0", "cuda:0"), recipe)
    near = [call.operation for call in fuse(record(one, "train", 128, ("cuda:0",))).calls]
    assert (near.count("add"), near.count("split")) == (3, 4)  # what is added up on one device is cut once
    copies = [call.layer for call in recorded.calls if call.operation == "copy_to"]
    assert set(copies) == {"conv3", "fc6", "fc7", "fc8"}

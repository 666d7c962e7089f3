"""`compile_step`: a recorded step with planned memory, its columns on streams of their own, and fused kernels.

On one device the whole step is captured as a CUDA graph at its second call, and replayed from then on. What changes
from step to step lies on the device: batches are copied to where the graph reads them, learning rates and the step's
number are written into two small arrays.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.backend import Array
from minialex.philox import Stream
from minialex.program import Call, Program, Symbol, Value, Watch, flatten, values
from minialex_cuda.compiler import fused, fusion
from minialex_cuda.compiler.schedule import ALIGNMENT, RESULT, StreamName, Task, aligned, plan
from minialex_cuda.compiler.updates import Tables, sgd_updates_at, tables, together
from minialex_cuda.compiler.workspace import Workspace
from minialex_cuda.ops import channels, elementwise
from minialex_cuda.ops.augment import augment
from minialex_cuda.ops.conv2d import conv2d, conv2d_backward
from minialex_cuda.ops.dropout import dropout_at, dropout_backward
from minialex_cuda.ops.linear import linear, linear_backward
from minialex_cuda.ops.max_pool2d import max_pool2d, max_pool2d_backward
from minialex_cuda.ops.response_norm import (
    local_response_norm,
    local_response_norm_backward,
    spatial_response_norm,
    spatial_response_norm_backward,
)
from minialex_cuda.ops.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_backward
from minialex_cuda.runtime import place
from minialex_cuda.runtime.array import CudaArray, Flat, Memory
from minialex_cuda.runtime.kernel import Kernel
from minialex_cuda.runtime.place import Place, Touched
from minialex_cuda.runtime.protocol import Convolution, Event, Runtime


def copy_to(on: Place, x: CudaArray, device: str) -> CudaArray:
    """`x` on another device."""
    copy = on.empty(x.shape, x.dtype)
    on.copy(x, copy)
    return copy


def zeros(on: Place, shape: tuple[int, ...], dtype: str, device: str) -> CudaArray:
    """Zeros."""
    made = on.empty(shape, dtype)
    on.clear(made)
    return made


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    copy_to, zeros, channels.concat, channels.split, elementwise.add, elementwise.scale, conv2d, conv2d_backward,
    linear, linear_backward, elementwise.relu, elementwise.relu_backward, elementwise.tanh,
    elementwise.tanh_backward, max_pool2d, max_pool2d_backward, local_response_norm, local_response_norm_backward,
    spatial_response_norm, spatial_response_norm_backward, dropout_backward, softmax_cross_entropy,
    softmax_cross_entropy_backward, augment, *fused.OPERATIONS,
)  # fmt: skip

OPERATIONS = {function.__name__: function for function in _FUNCTIONS}
"""What a task may be. `dropout` and updates read what changes from the device, and are not among them."""

DEVICE_NUMBERS = ("dropout", "sgd_update")


def nothing(shape: tuple[int, ...], dtype: Any) -> CudaArray:
    """An array with no numbers behind it."""
    return CudaArray(Flat(_NOWHERE, 0, None), shape, dtype)


_NOWHERE = Memory(None, 0, "", Counter())


def workspace_of(on: Place, convolution: Convolution, x: CudaArray) -> CudaArray | None:
    """Scratch memory for a convolution of float32 arrays by the runtime's library, if it has one that can do it."""
    if x.dtype != np.float32 or not x.size:
        return None
    nbytes = on.runtime.convolution_bytes(on.device, convolution)
    return None if nbytes is None else on.scratch((nbytes,), np.uint8)


class Rehearsal(Place):
    """A place where nothing is done: it finds out how much scratch memory an operation takes."""

    def __init__(self, like: Place) -> None:
        super().__init__(like.runtime, like.device, like.stream, like.precision)
        self.taken = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        return nothing(shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        made = self.empty(shape, dtype)
        self.taken += aligned(made.size * made.dtype.itemsize)
        return made

    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        return workspace_of(self, convolution, x)

    def bits(self, x: CudaArray) -> CudaArray:
        return x

    def convolve(
        self, convolution: Convolution, a: CudaArray, b: CudaArray, out: CudaArray, workspace: CudaArray
    ) -> None:
        pass

    def launch(self, kernel: Kernel, count: int, *arguments: Any, touched: Touched | None = None) -> None:
        pass

    def copy(self, source: CudaArray, target: CudaArray) -> None:
        pass

    def clear(self, target: CudaArray) -> None:
        pass

    def multiply(self, a: CudaArray, b: CudaArray, out: CudaArray, m: int, n: int, k: int, **options: bool) -> None:
        pass


class Planned(Place):
    """A place whose results and scratch memory were planned before.

    Attributes
    ----------
    results : arrays of the operation at hand, in its order
    """

    def __init__(self, like: Place, stream: Any, memory: Memory, begin: int) -> None:
        super().__init__(like.runtime, like.device, stream, like.precision)
        self.results: list[CudaArray] = []
        self._memory = memory
        self._begin = self._offset = begin
        self._flats: dict[tuple[int, int, np.dtype[Any]], Flat] = {}

    def begin(self, results: Sequence[CudaArray]) -> None:
        """The next operation."""
        self.results = list(results)
        self._offset = self._begin

    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        made = self.results.pop(0)
        assert (made.shape, made.dtype) == (tuple(shape), np.dtype(dtype)), (made, shape, dtype)
        return made

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        count, kind = math.prod(shape), np.dtype(dtype)
        key = self._offset, count, kind
        if key not in self._flats:
            self._flats[key] = self.runtime.flat(self._memory, self._offset, count, kind)
        self._offset += aligned(count * kind.itemsize)
        return CudaArray(self._flats[key], shape, kind)

    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        return workspace_of(self, convolution, x)


class OutOfMemory(MemoryError):
    """A step that does not fit.

    Attributes
    ----------
    fits : how many images would, as far as that is known; 0 if not even one
    """

    def __init__(self, message: str, fits: int) -> None:
        super().__init__(message)
        self.fits = fits


class Step:
    """A compiled step: see `minialex.program.CompiledStep`.

    Parameters
    ----------
    places : the backend's place of each device: batches come from its stream, and results are ready on it
    workspace : memory for everything but the outputs
    program : what to do
    bindings : arrays that live longer than a step
    graphs : whether to capture the step where all of it is on one device

    Raises
    ------
    OutOfMemory
        If it does not fit; at its calls too, where a larger step took the workspace in between.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        workspace: Workspace,
        program: Program,
        bindings: Mapping[str, Array],
        *,
        graphs: bool = True,
    ) -> None:
        self.places = places
        self.workspace = workspace
        self.program = program
        self.schedule = plan(program, fusion.fuse(program))
        self.runtime: Runtime = next(iter(places.values())).runtime
        self.devices = tuple(dict.fromkeys(stream[0] for stream in self.schedule.streams))
        self._rates = [name for name in program.symbols if name.startswith("rate/")]
        self._updates = [task.call for task in self.schedule.tasks if task.call.operation == "sgd_updates"]
        self._tables: dict[Value | None, Tables] = {}
        self._scratch = self._scratch_needed()
        self._graphs = graphs and len(self.devices) == 1
        self._streams = {name: workspace.stream(name) for name in self.schedule.streams}
        self._lasting: dict[Value, CudaArray] = {value: bindings[name] for name, value in program.bound.items()}
        kind = next((value.dtype for value in program.bound.values()), np.dtype(np.float32))
        self._step = {device: self._own((1,), np.uint64, device) for device in self.devices}
        self._rate = {device: self._own((max(len(self._rates), 1),), kind, device) for device in self.devices}
        results = {name: self._own((size,), np.uint8, name[0]) for name, size in self._arenas(RESULT).items()}
        for value, slot in self.schedule.slots.items():
            if slot.stream in results:
                memory = results[slot.stream].flat.memory
                self._lasting[value] = self._array(memory, slot.offset, value.shape, value.dtype)
        for array in self._lasting.values():
            places[array.device].arrive(array)
        for call in self._updates:
            learned = [self._lasting[value] for value in values(call.args[:2])]
            if together(places[learned[0].device], learned):
                workspace.release()  # graphs of other steps know the old addresses
        self.release()
        self._lay_out()

    # ---- memory -------------------------------------------------------------------------------------------------

    def _scratch_needed(self) -> dict[StreamName, int]:
        """Bytes of each stream's scratch memory."""
        need = dict.fromkeys(self.schedule.streams, ALIGNMENT)
        for task in self.schedule.tasks:
            rehearsal = Rehearsal(self.places[task.stream[0]])
            self._perform(rehearsal, task.call, lambda value: nothing(value.shape, value.dtype))
            need[task.stream] = max(need[task.stream], rehearsal.taken)
        return need

    def _arenas(self, kind: str) -> dict[StreamName, int]:
        """Bytes of the arenas of outputs (`RESULT`), or of everything else."""
        return {name: size for name, size in self.schedule.arenas.items() if (name[2] == RESULT) == (kind == RESULT)}

    def _own(self, shape: tuple[int, ...], dtype: Any, device: str) -> CudaArray:
        return self.places[device].empty(shape, dtype)

    def release(self) -> None:
        """See `minialex_cuda.compiler.workspace.Tenant`."""
        self._known = dict(self._lasting)
        self._fed: dict[str, CudaArray] = {}
        self._on: dict[StreamName, Planned] = {}
        self._works: list[Callable[[], None]] = []
        self._tables = {}
        self._graph: Any = None
        self._calls = 0

    def _sizes(self) -> dict[str, int]:
        """Bytes that are needed of each device's workspace."""
        sizes = dict.fromkeys(self.devices, 0)
        for name, size in (*self._arenas("").items(), *self._scratch.items()):
            sizes[name[0]] += aligned(size)
        for value in self.program.fed.values():
            sizes[value.device] += aligned(value.nbytes)
        return sizes

    def _lay_out(self) -> None:
        """Give everything its address in the workspace."""
        available = {device: self.workspace.available(device) for device in self.devices}
        try:
            blocks = self.workspace.blocks(self, self._sizes())
        except MemoryError as error:
            raise self._too_large(available, error) from None
        ends = dict.fromkeys(blocks, 0)

        def take(nbytes: int, device: str) -> int:
            ends[device] += aligned(nbytes)
            return ends[device] - aligned(nbytes)

        begins = {name: take(size, name[0]) for name, size in self._arenas("").items()}
        for value, slot in self.schedule.slots.items():
            if slot.stream in begins:
                memory, offset = blocks[slot.stream[0]], begins[slot.stream] + slot.offset
                self._known[value] = self._array(memory, offset, value.shape, value.dtype)
        for name, value in self.program.fed.items():
            offset = take(value.nbytes, value.device)
            self._fed[name] = self._array(blocks[value.device], offset, value.shape, value.dtype)
            self._known[value] = self._fed[name]
        for value, whole in self.schedule.aliases.items():
            self._known[value] = CudaArray(self._known[whole].flat, value.shape, value.dtype)
        for stream, size in self._scratch.items():
            device = stream[0]
            on = Planned(self.places[device], self._streams[stream], blocks[device], take(size, device))
            self._on[stream] = on
        self._tables = {call.results[0]: self._tabulate(call) for call in self._updates}
        self._works = [self._work(task) for task in self.schedule.tasks]

    def _tabulate(self, call: Call) -> Tables:
        """The tables of a column's update; what lies in the workspace has its address."""
        ws, vs, dws = ([self._known[value] for value in group] for group in call.args)
        kept = [self._known[value] for value in call.results if value is not None]
        which = [self._rates.index(symbol.name) for symbol in call.kwargs["learning_rates"]]
        device, decays = ws[0].device, call.kwargs["weight_decays"]
        return tables(self.places[device], ws, vs, dws, kept, self._rate[device], which, decays)

    def _array(self, memory: Memory, offset: int, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        return CudaArray(self.runtime.flat(memory, offset, math.prod(shape), dtype), shape, dtype)

    def _too_large(self, available: Mapping[str, int], error: MemoryError) -> OutOfMemory:
        """What was needed in all, and which batch would fit.

        All shrinks with the batch but the gradients of parameters, and scratch memory that is so large that batches are
        convolved in pieces (see `minialex_cuda.runtime.place.SCRATCH`).
        """
        batch = next(value.shape[0] for name, value in self.program.fed.items() if name == "labels")
        learned = {value.shape for value in self.program.bound.values()}
        fits, texts = batch, []
        for device, needed in self._sizes().items():
            if needed <= available[device]:
                continue
            gradients = [
                v.nbytes for v, slot in self.schedule.slots.items() if slot.stream[0] == device and v.shape in learned
            ]
            arenas = sum(size for name, size in self._arenas("").items() if name[0] == device)
            pieces = [size for name, size in self._scratch.items() if name[0] == device and size > place.SCRATCH]
            fixed = min(arenas, sum(map(aligned, gradients))) + sum(pieces)
            fits = min(fits, max(0, math.floor(0.95 * batch * (available[device] - fixed) / max(1, needed - fixed))))
            texts.append(f"{device}: needed {needed:,} bytes, {available[device]:,} are free")
        return OutOfMemory("; ".join(texts) or str(error), min(fits, batch - 1))

    # ---- work ---------------------------------------------------------------------------------------------------

    def _perform(self, on: Place, call: Call, find: Callable[[Value], CudaArray]) -> Any:
        """One call with its arrays found: on a place of the schedule, or in a rehearsal."""

        def resolve(argument: Any) -> Any:
            if isinstance(argument, Value):
                return find(argument)
            if isinstance(argument, list | tuple) and not isinstance(argument, Stream):
                return type(argument)(resolve(item) for item in argument)
            return argument

        args = [resolve(argument) for argument in call.args]
        kwargs = {name: resolve(value) for name, value in call.kwargs.items()}
        if call.operation == "dropout":
            stream = replace(kwargs.pop("stream"), step=0)
            step = self._step[on.device] if isinstance(on, Planned) else nothing((1,), np.uint64)
            return dropout_at(on, args[0], step, stream=stream, **kwargs)
        if call.operation == "sgd_updates":
            ws, vs, dws = args
            known = self._tables.get(call.results[0])
            return sgd_updates_at(on, ws, vs, dws, known, momentum=kwargs["momentum"])
        return OPERATIONS[call.operation](on, *args, **kwargs)

    def _work(self, task: Task) -> Callable[[], None]:
        """A task as a function without arguments."""
        on = self._on[task.stream]
        results = [self._known[value] for value in task.call.results if value is not None]

        def work() -> None:
            on.begin(results)
            made = [array for array in flatten(self._perform(on, task.call, self._known.__getitem__)) if array]
            assert all(a is b for a, b in zip(made, results, strict=True)), task.call.operation

        return work

    def __call__(self, feed: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Array]:
        runtime = self.runtime
        if not self._works:
            self._lay_out()
        for name, target in self._fed.items():
            self.places[target.device].copy(feed[name], target)
        for device in self.devices:
            copied = runtime.record(self.places[device].stream)
            for name, target in self._fed.items():
                if target.device == device:
                    feed[name].flat.memory.read = copied  # the next batch may come while this step computes
        for device in self.devices:
            stream = self.places[device].stream
            if "step" in self.program.symbols:
                runtime.upload(stream, np.array([feed["step"]], np.uint64), self._step[device].flat)
            if self._rates:
                rates = np.array([feed[name] for name in self._rates], self._rate[device].dtype)
                runtime.upload(stream, rates, self._rate[device].flat)
        self._calls += 1
        main = self.places[self.devices[0]].stream
        if watch is not None or not self._graphs or self._calls == 1:  # the first call compiles and loads kernels
            self._run(watch)
        else:
            if self._graph is None:
                if runtime.begin_capture(main):
                    self._run(None)
                    self._graph = runtime.end_capture(main)
                else:
                    self._graphs = False
            if self._graph is None:
                self._run(None)
            else:
                runtime.replay(main, self._graph)
        return {name: self._known[value] for name, value in self.program.outputs.items()}

    def _run(self, watch: Watch | None) -> None:
        """Ask for all tasks: streams begin where the devices' own are, and those go on when all are done."""
        runtime = self.runtime
        begun = [runtime.record(self.places[device].stream) for device in self.devices]
        for on in self._on.values():
            for event in begun:
                runtime.wait(on.stream, event)
        events: dict[int, Event] = {}
        recorded, where = self.schedule.recorded, None
        for index, (task, work) in enumerate(zip(self.schedule.tasks, self._works, strict=True)):
            call, stream = task.call, self._on[task.stream].stream
            if watch is not None and where != (call.layer, call.column, call.phase):
                where = call.layer, call.column, call.phase
                for on in self._on.values():
                    runtime.synchronize(on.stream)
                watch(*where)
            for earlier in task.waits:
                runtime.wait(stream, events[earlier])
            work()
            if index in recorded:
                events[index] = runtime.record(stream)
        ends = [runtime.record(on.stream) for on in self._on.values()]
        for device in self.devices:
            for event in ends:
                runtime.wait(self.places[device].stream, event)


def can_compile(program: Program) -> bool:
    """Whether all of a program's operations are known here."""
    known = {*OPERATIONS, *DEVICE_NUMBERS, "reshape"}
    return all(call.operation in known and _numbers_change_as_expected(call) for call in program.calls)


def _numbers_change_as_expected(call: Call) -> bool:
    """Only the step of dropout and the rates of updates may be symbols."""
    given = [name for name, value in call.kwargs.items() if isinstance(value, Symbol)]
    if any(isinstance(value, Symbol) for value in call.args):
        return False
    if call.operation == "sgd_update":
        return given == ["learning_rate"]
    if call.operation == "dropout":
        return not given and isinstance(call.kwargs["stream"].step, Symbol)
    return not given

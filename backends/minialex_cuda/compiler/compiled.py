"""`compile_step`: a recorded step with planned memory, a stream for each column, and fused kernels.

On one device the whole step is captured as a CUDA graph on its second call, and replayed from then on; on several,
each stream's work between two moments at which streams wait for each other is a graph, and what crosses between devices
is launched. What changes from step to step is on the device: batches are copied to where the graphs read them, and the
learning rates and the step's number are written to two small arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minialex.backend.arrays import Array
from minialex.backend.program import LABELS, STEP, ArrayName, Call, Program, Value, Watch, values
from minialex_cuda.compiler import fusion, layout
from minialex_cuda.compiler.copies import Copies
from minialex_cuda.compiler.recording import Recorded, RecordingPlace, record
from minialex_cuda.compiler.schedule import ALIGNMENT, RESULT, StreamName, Task, aligned, in_place, plan
from minialex_cuda.compiler.updates import Tables, together
from minialex_cuda.compiler.workspace import Workspace
from minialex_cuda.ops.words import storage_for
from minialex_cuda.runtime import place
from minialex_cuda.runtime.array import NOWHERE, CudaArray, Memory, without_memory
from minialex_cuda.runtime.place import EagerPlace
from minialex_cuda.runtime.protocol import Event, Runtime


class OutOfMemory(MemoryError):
    """A step that does not fit in memory.

    Attributes:
        fits: how many images would fit, as far as known; 0 if not even one would
    """

    def __init__(self, message: str, fits: int) -> None:
        super().__init__(message)
        self.fits = fits


class Step:
    """A compiled step: see `minialex.backend.program.CompiledStep`.

    Args:
        places: the backend's place on each device: batches come from its stream, and results are ready on it
        workspace: memory for everything but the outputs
        program: the recorded step
        bindings: arrays that outlive a step
        graphs: whether to capture the step

    Raises:
        OutOfMemory: If it does not fit; a call raises it, too, if a larger step has taken the workspace meanwhile.
    """

    def __init__(
        self,
        places: Mapping[str, EagerPlace],
        workspace: Workspace,
        program: Program,
        bindings: Mapping[ArrayName, Array],
        *,
        graphs: bool = True,
    ) -> None:
        self.places = places
        self.workspace = workspace
        self.program = program
        precision = next(iter(places.values())).precision
        dtype = storage_for(precision).dtype
        laid_out, rounded = layout.channels_last(fusion.fuse(program, dtype), dtype)
        self.schedule = plan(laid_out, rounded.values())
        self.runtime: Runtime = next(iter(places.values())).runtime
        self.devices = tuple(dict.fromkeys(stream[0] for stream in self.schedule.streams))
        self._rates = [name for name in program.symbols if name.role == "rate"]
        self._graphs = graphs
        self._streams = {name: workspace.stream(name) for name in self.schedule.streams}
        self._on = {name: RecordingPlace(places[name[0]], stream) for name, stream in self._streams.items()}
        kind = next((value.dtype for value in program.bound.values()), np.dtype(np.float32))
        self._step = {device: places[device].empty((1,), np.uint64) for device in self.devices}
        self._rate = {device: places[device].empty((max(len(self._rates), 1),), kind) for device in self.devices}
        self._arrays: dict[Value, CudaArray] = {value: bindings[name] for name, value in program.bound.items()}
        for array in (*self._arrays.values(), *self._step.values(), *self._rate.values()):
            places[array.device].arrive(array)
        self._copies = Copies(places, [self._arrays[value] for value in rounded])
        self._arrays |= dict(zip(rounded.values(), self._copies.arrays, strict=True))
        self._arrays |= {value: without_memory(value.shape, value.dtype) for value in program.fed.values()}
        self._views: list[tuple[CudaArray, CudaArray]] = []
        self._updates: list[tuple[Call, Tables]] = []
        self._recorded = [self._record(task) for task in self.schedule.tasks]
        self._outputs = {name: self._find(value) for name, value in program.outputs.items()}
        self._scratch = self._scratch_needed()
        self._give_results_memory()
        for call, tables in self._updates:
            for group in (call.args[:2], call.args[3]):
                if together(places[tables.rates.device], [self._find(value) for value in values(group)]):
                    workspace.release()  # graphs of other steps know the old addresses
        self._copies.allocate()
        self._changed = [self._find(value) for task in self.schedule.tasks for value in in_place(task.call)]
        self.release()
        self._lay_out()

    # ---- what is done -------------------------------------------------------------------------------------------

    def _record(self, task: Task) -> Recorded:
        """Record a task; from now on its results are the arrays of their values."""
        device, call = task.stream[0], task.call
        tables = None
        if call.operation == "sgd_updates":
            which = [self._rates.index(symbol.name) for symbol in call.kwargs["learning_rates"]]
            tables = Tables(self._rate[device], which, call.kwargs["weight_decays"])
            self._updates.append((call, tables))
        recorded = record(self._on[task.stream], call, self._find, self._step[device], tables)
        for value, array in zip(call.results, recorded.results, strict=True):
            if value is not None:
                assert array is not None
                assert (array.shape, array.dtype) == (value.shape, value.dtype), call.operation
                self._arrays[value] = array
        self._views += recorded.views
        return recorded

    def _find(self, value: Value) -> CudaArray:
        """The array of a value; a view, if the value is another one reshaped."""
        if value not in self._arrays:
            self._arrays[value] = without_memory(value.shape, value.dtype)
            self._views.append((self._arrays[value], self._arrays[self.schedule.aliases[value]]))
        return self._arrays[value]

    # ---- memory -------------------------------------------------------------------------------------------------

    def _scratch_needed(self) -> dict[StreamName, int]:
        """Bytes of each stream's scratch memory."""
        need = dict.fromkeys(self.schedule.streams, ALIGNMENT)
        for task, recorded in zip(self.schedule.tasks, self._recorded, strict=True):
            need[task.stream] = max(need[task.stream], sum(aligned(array.nbytes) for array in recorded.scratched))
        return need

    def _arenas(self, kind: str) -> dict[StreamName, int]:
        """Bytes of the arenas of outputs (`RESULT`), or of everything else."""
        return {name: size for name, size in self.schedule.arenas.items() if (name[2] == RESULT) == (kind == RESULT)}

    def _give(self, array: CudaArray, memory: Memory, offset: int) -> None:
        """Place an array at an offset in a block of memory."""
        array.flat = self.runtime.flat(memory, offset, array.size, array.dtype)

    def _give_results_memory(self) -> None:
        """Give outputs their own memory for as long as the step lives."""
        arenas = self._arenas(RESULT).items()
        results = {name: self.places[name[0]].empty((size,), np.uint8).flat.memory for name, size in arenas}
        self._results = list(results.values())
        for value, slot in self.schedule.slots.items():
            if slot.stream in results:
                self._give(self._arrays[value], results[slot.stream], slot.offset)

    def _borrowed(self) -> list[CudaArray]:
        """Arrays that are in the workspace or hold addresses within it."""
        slots = self.schedule.slots.items()
        return [
            *(self._arrays[value] for value, slot in slots if slot.stream[2] != RESULT),
            *(self._arrays[value] for value in self.program.fed.values()),
            *(array for recorded in self._recorded for array in recorded.scratched),
            *(array for _, tables in self._updates for array in tables.arrays),
        ]

    def release(self) -> None:
        """Forget all addresses within the workspace; they are assigned again before use."""
        for array in self._borrowed():
            array.flat = NOWHERE
        for view, whole in self._views:
            if whole.flat is NOWHERE:
                view.flat = NOWHERE
        self._laid_out = False
        self._graph: Any = None  # of the whole step
        self._parts: dict[tuple[int, ...], Any] = {}  # graphs of its stretches, if it is on several devices
        self._calls = 0

    def _sizes(self) -> dict[str, int]:
        """Bytes needed from each device's workspace."""
        sizes = dict.fromkeys(self.devices, 0)
        for name, size in (*self._arenas("").items(), *self._scratch.items()):
            sizes[name[0]] += aligned(size)
        for value in self.program.fed.values():
            sizes[value.device] += aligned(value.nbytes)
        return sizes

    def _lay_out(self) -> None:
        """Assign every array its address in the workspace."""
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
                self._give(self._arrays[value], blocks[slot.stream[0]], begins[slot.stream] + slot.offset)
        for value in self.program.fed.values():
            self._give(self._arrays[value], blocks[value.device], take(value.nbytes, value.device))
        scratch = {name: take(size, name[0]) for name, size in self._scratch.items()}
        for task, recorded in zip(self.schedule.tasks, self._recorded, strict=True):
            offset = scratch[task.stream]
            for array in recorded.scratched:
                self._give(array, blocks[task.stream[0]], offset)
                offset += aligned(array.nbytes)
        for view, whole in self._views:
            self._give(view, whole.flat.memory, whole.flat.offset)
        for call, tables in self._updates:
            ws, vs, dws, skipped = ([self._find(v) for v in group] for group in (*call.args[:3], call.results))
            rounded = [None if v is None else self._find(v) for v in call.args[3]]
            tables.fill(self.places[tables.rates.device], ws, vs, dws, rounded, skipped)
        self._laid_out = True

    def _too_large(self, available: Mapping[str, int], error: MemoryError) -> OutOfMemory:
        """The error: how much is needed in all, and which batch would fit.

        Everything shrinks with the batch except the gradients of parameters, and scratch memory so large that batches
        are convolved in pieces (see `minialex_cuda.runtime.place.SCRATCH`).
        """
        batch = next((value.shape[0] for name, value in self.program.fed.items() if name == LABELS), 1)
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

    def __call__(self, feed: Mapping[ArrayName, Any], watch: Watch | None = None) -> dict[ArrayName, Array]:
        runtime = self.runtime
        if not self._laid_out:
            self._lay_out()
        fed = {name: self._arrays[value] for name, value in self.program.fed.items()}
        for name, target in fed.items():
            self.places[target.device].copy(feed[name], target)
        for device in self.devices:
            copied = runtime.record(self.places[device].stream)
            for name, target in fed.items():
                if target.device == device:
                    feed[name].flat.memory.read = copied  # the next batch may arrive while this step computes
        for device in self.devices:
            stream = self.places[device].stream
            if STEP in self.program.symbols:
                runtime.upload(stream, np.array([feed[STEP]], np.uint64), self._step[device].flat)
            if self._rates:
                rates = np.array([feed[name] for name in self._rates], self._rate[device].dtype)
                runtime.upload(stream, rates, self._rate[device].flat)
        self._copies.renew()
        for memory in (*self._results, *(array.flat.memory for array in self._changed)):
            memory.changed()
        versions = self._copies.versions()
        self._calls += 1
        if watch is not None or not self._graphs or self._calls == 1:  # the first call compiles and loads kernels
            self._run(watch)
        elif len(self.devices) == 1:
            self._run_as_a_graph()
        else:
            self._run_in_stretches()
        self._copies.are_of(versions)  # not if the work failed: nobody knows how far it came
        return dict(self._outputs)

    def _run_as_a_graph(self) -> None:
        """Replay the whole step, which is on one device; the first time, capture it."""
        runtime, main = self.runtime, self.places[self.devices[0]].stream
        if self._graph is None:
            if not runtime.begin_capture(main):
                self._graphs = False
                self._run(None)
                return
            self._run(None)
            self._graph = runtime.end_capture(main)
        runtime.replay(main, self._graph)

    def _run_in_stretches(self) -> None:
        """Replay the stretches between which devices exchange; the first time, capture those of more than one task."""
        runtime, tasks = self.runtime, self.schedule.tasks
        if not self._parts:
            self._parts = dict.fromkeys(self.schedule.stretches())
            for part in self._parts:
                name = tasks[part[0]].stream
                if len(part) > 1 and name[2] == "compute" and self._graphs:
                    self._graphs = runtime.begin_capture(self._streams[name])
                    if self._graphs:
                        self._work(part)
                        self._parts[part] = runtime.end_capture(self._streams[name])
        self._run(None)

    def _work(self, part: Sequence[int]) -> None:
        """Launch the work of some tasks of one stream."""
        for index in part:
            for work in self._recorded[index].works:
                work()

    def _run(self, watch: Watch | None) -> None:
        """Launch all tasks: streams start after the devices' own streams, which continue when all are done."""
        runtime = self.runtime
        parts = (self._parts if watch is None else {}) or {(index,): None for index in range(len(self._recorded))}
        begun = [runtime.record(self.places[device].stream) for device in self.devices]
        for stream in self._streams.values():
            for event in begun:
                runtime.wait(stream, event)
        events: dict[int, Event] = {}
        waited_for, where = self.schedule.recorded, None
        for part, graph in parts.items():
            task = self.schedule.tasks[part[0]]
            call, stream = task.call, self._streams[task.stream]
            if watch is not None and where != (call.layer, call.column, call.phase):
                where = call.layer, call.column, call.phase
                for other in self._streams.values():
                    runtime.synchronize(other)
                watch(*where)
            for earlier in task.waits:
                runtime.wait(stream, events[earlier])
            if graph is None:
                self._work(part)
            else:
                runtime.replay(stream, graph)
            if part[-1] in waited_for:
                events[part[-1]] = runtime.record(stream)
        ends = [runtime.record(stream) for stream in self._streams.values()]
        for device in self.devices:
            for event in ends:
                runtime.wait(self.places[device].stream, event)

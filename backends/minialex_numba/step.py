"""Compiled steps: a graph's nodes as calls of kernels on buffers that are allocated once.

Every tensor has its place in one block of memory; two tensors share one if they are never needed at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.backend.arrays import Array
from minialex.backend.pretend import HostArray
from minialex.backend.program import ArrayName, Program, Symbol, Watch
from minialex.backend.rules import pool_size
from minialex.philox import Stream
from minialex_numba import (
    augment,
    direct,
    dropout,
    elementwise,
    graph,
    linear,
    local_response_norm,
    max_pool2d,
    normalised_pool,
    sgd_update,
    softmax_cross_entropy,
    spatial_response_norm,
    winograd,
)
from minialex_numba.graph import Graph, Node, Tensor
from minialex_numba.layout import ALIGNMENT, Floats, _channels_first, _channels_last, empty, items
from minialex_numba.local_response_norm import BLOCK
from minialex_numba.pool import Pool
from minialex_numba.products import up

Feed = Mapping[ArrayName, Any]
Task = Callable[[Feed], None]
Place = tuple[Floats, int, int]
"""A flat array, the index of the first number, and the distance between rows."""

LITTLE = 1 << 31
"""Multiply-adds of a step below which each thread computes a column of its own."""
FEW_IMAGES = 4
"""Images from which on Winograd's convolutions pay: their weights are many times larger."""


def compile_step(pool: Pool, program: Program, bindings: Mapping[ArrayName, Array]) -> Step | None:
    """The step that a program stands for, or None if it has something that kernels of compiled steps do not do."""
    try:
        made = graph.build(program)
        return Step(pool, program, made, bindings)
    except graph.Unsupported:
        return None


class Step:
    """A step of training or inference; see `minialex.backend.program.CompiledStep`.

    Attributes:
        nbytes: bytes of the buffers that it holds
    """

    def __init__(self, pool: Pool, program: Program, made: Graph, bindings: Mapping[ArrayName, Array]) -> None:
        self.bindings = bindings
        self.updated = sorted({name for node in made.nodes for name in _updated(node)})
        builder = _Builder(pool, program, made, bindings, keep_weights=not self.updated)
        self.tasks, self.work = builder.tasks, builder.work
        self.nbytes = builder.nbytes
        self.outputs, self.fetch = builder.results()

    def __call__(self, feed: Feed, watch: Watch | None = None) -> dict[ArrayName, Array]:
        """Run all tasks."""
        with np.errstate(all="ignore"):  # values that are not finite flow on; training's guards notice them
            if watch is None:
                for work in self.work:
                    work(feed)
            else:
                self._watched(feed, watch)
            for fetch in self.fetch:
                fetch()
        for name in self.updated:
            self.bindings[name].version += 1
        return dict(self.outputs)

    def _watched(self, feed: Feed, watch: Watch) -> None:
        before = None
        for where, task in self.tasks:
            if where != before:
                watch(*where)
                before = where
            task(feed)


def _updated(node: Node) -> list[ArrayName]:
    """Names of the bound arrays that a node writes in place."""
    if node.kind == "sgd_update" or "update" in node.flags:
        return [tensor.name for role in ("w", "v") for tensor in node.inputs[role]]
    return []


def _products(made: Graph) -> int:
    """Multiply-adds of a step's convolutions and full layers."""
    count = 0
    for node in made.nodes:
        if node.kind in ("conv2d", "linear"):
            y = node.outputs["y"][0]
            places = y.shape[0] * math.prod(y.shape[2:])
            count += sum(places * math.prod(w.shape) for w in node.inputs["w"])
        if node.kind in ("conv2d_backward", "linear_backward"):
            dy = node.inputs["dy"][0]
            count += sum(2 * dy.shape[0] * math.prod(dy.shape[2:]) * math.prod(w.shape) for w in node.inputs["w"])
    return count


def _run_branches(worker: int, begin: int, end: int, branches: list[list[Task]], feed: Feed) -> None:
    for branch in branches[begin:end]:
        for task in branch:
            task(feed)


def _segments(nodes: list[Node]) -> list[list[Node]]:
    """Nodes in segments within which no column touches what another one makes.

    Where kernels are over so soon that waking the other threads costs as much, each thread works on a column of its
    own, and they meet only where columns read each other.
    """
    segments: list[list[Node]] = []
    alone = True
    for node in nodes:
        joined = len(node.inputs.get("w", ())) > 1 or node.kind in ("augment", "copy", "zeros")
        if alone or joined or _meets(node, segments[-1]):
            segments.append([node])
        else:
            segments[-1].append(node)
        alone = joined
    return segments


def _meets(node: Node, segment: list[Node]) -> bool:
    """Whether a node touches what another column's nodes of a segment write, or they what it writes."""
    others = [other for other in segment if other.where[1] != node.where[1]]
    written = [t for other in others for t in other.written()]
    touched = [t for other in others for t in [*other.read(), *other.written()]]
    return any(_overlap(t, other) for t in [*node.read(), *node.written()] for other in written) or any(
        _overlap(t, other) for t in node.written() for other in touched
    )


def _overlap(a: Tensor, b: Tensor) -> bool:
    return a.root is b.root and a.first < b.first + b.width and b.first < a.first + a.width


class _Builder:
    """Places for all tensors, and a task for every node."""

    def __init__(
        self, pool: Pool, program: Program, made: Graph, bindings: Mapping[ArrayName, Array], keep_weights: bool
    ) -> None:
        self.pool, self.program, self.graph, self.bindings, self.keep_weights = (
            pool,
            program,
            made,
            bindings,
            keep_weights,
        )
        kinds = {value.dtype for value in program.bound.values() if value.dtype.kind == "f"}
        if len(kinds) != 1:
            raise graph.Unsupported("several dtypes")
        (self.dtype,) = kinds
        self.number = self.dtype.type
        self.memory: dict[Tensor, np.ndarray[Any, Any]] = {}
        self.scratch: dict[Node, Tensor] = {}
        self.held: dict[int, np.ndarray[Any, Any]] = {}
        prepared = [(node, self._prepare(node)) for node in made.nodes]
        columns = max((node.where[1] for node in made.nodes), default=0) + 1
        side_by_side = columns == pool.threads > 1 and _products(made) < LITTLE
        self.segments = _segments(made.nodes) if side_by_side else [[node] for node in made.nodes]
        self._allocate()
        tasks = {node: make() for node, make in prepared}
        self.tasks: list[tuple[tuple[str, int, str], Task]] = [(node.where, tasks[node]) for node in made.nodes]
        self.work = [self._together(segment, tasks) for segment in self.segments]

    def _together(self, segment: list[Node], tasks: Mapping[Node, Task]) -> Task:
        """The nodes of a segment as one task: each column's on a thread of its own."""
        columns: dict[int, list[Task]] = {}
        for node in segment:
            columns.setdefault(node.where[1], []).append(tasks[node])
        branches = list(columns.values())
        if len(branches) == 1:
            return lambda feed: _run_branches(0, 0, 1, branches, feed)
        return lambda feed: self.pool.run(_run_branches, len(branches), branches, feed, pieces=len(branches))

    # ---- memory -------------------------------------------------------------------------------------------------

    def _need(self, node: Node, numbers: int) -> None:
        """Scratch memory of floating numbers for as long as a node runs."""
        self.scratch[node] = Tensor((max(numbers, 1),), self.dtype)

    def _allocate(self) -> None:
        """Places in one block: the largest first, each as low as it fits beside those that live with it."""
        lives: dict[Tensor, tuple[int, int]] = {}
        forever = len(self.graph.nodes)
        moments = {node: number for number, segment in enumerate(self.segments) for node in segment}
        for node in self.graph.nodes:
            number = moments[node]
            for tensor in [*node.read(), *node.written()]:
                if not tensor.root.source:
                    begin, _ = lives.get(tensor.root, (number, 0))
                    lives[tensor.root] = begin, number
            if node in self.scratch:
                lives[self.scratch[node]] = number, number
        for tensor, _ in self.graph.outputs.values():
            if not tensor.root.source:
                lives[tensor.root] = lives[tensor.root][0], forever
        size = {tensor: up(math.prod(tensor.shape) * tensor.dtype.itemsize + ALIGNMENT, ALIGNMENT) for tensor in lives}
        placed: list[tuple[int, int, Tensor]] = []
        for tensor in sorted(lives, key=lambda t: (-size[t], lives[t])):
            begin, end = lives[tensor]
            place = 0
            for low, high, other in sorted(placed, key=lambda entry: entry[0]):
                if lives[other][0] <= end and begin <= lives[other][1] and low < place + size[tensor] and place < high:
                    place = high
            placed.append((place, place + size[tensor], tensor))
        self.nbytes = max((high for _, high, _ in placed), default=0)
        block = empty(self.nbytes, np.uint8)
        for low, _, tensor in placed:
            count = math.prod(tensor.shape)
            self.memory[tensor] = block[low : low + count * tensor.dtype.itemsize].view(tensor.dtype)

    def place(self, tensor: Tensor) -> Place:
        """Where a tensor's rows are."""
        root = tensor.root
        if root.source == "bound":
            return self.bindings[root.name].data.reshape(-1), 0, root.width
        if root.source:
            raise graph.Unsupported(f"'{root.name}' is read by an unexpected operation")
        return self.memory[root], tensor.first, root.width

    def whole(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        """The flat array of a tensor that is no slice."""
        if tensor.root is not tensor:
            raise graph.Unsupported("a slice where a whole array is needed")
        return self.place(tensor)[0]

    def results(self) -> tuple[dict[ArrayName, HostArray], list[Callable[[], None]]]:
        """The outputs, and what brings them into their form after every step."""
        outputs: dict[ArrayName, HostArray] = {}
        fetch: list[Callable[[], None]] = []
        for name, (tensor, device) in self.graph.outputs.items():
            if tensor.source:
                raise graph.Unsupported("an output that is given")
            flat, _, ld = self.place(tensor)
            if len(tensor.shape) < 2 or (len(tensor.shape) == 2 and ld == tensor.width):
                outputs[name] = HostArray(flat[: math.prod(tensor.shape)].reshape(tensor.shape), device)
                continue
            array = np.empty(tensor.shape, tensor.dtype)
            outputs[name] = HostArray(array, device)
            fetch.append(self._fetch(tensor, array))
        return outputs, fetch

    def _fetch(self, tensor: Tensor, array: np.ndarray[Any, Any]) -> Callable[[], None]:
        flat, first, ld = self.place(tensor)
        N, C = tensor.shape[:2]
        places = math.prod(tensor.shape[2:])
        target = array.reshape(-1)
        if tensor.dtype == np.uint8:
            rows = flat.reshape(N, places, ld)

            def fetch() -> None:
                array.reshape(N, C, places)[...] = rows[:, :, first : first + C].transpose(0, 2, 1)

            return fetch
        return lambda: self.pool.run(
            _channels_first, items(N, places), flat, first, ld, target, 0, C * places, C, places
        )

    # ---- tasks --------------------------------------------------------------------------------------------------

    def _prepare(self, node: Node) -> Callable[[], Task]:
        """What a node needs in scratch memory is said now; its task is made when all has its place."""
        method = getattr(self, f"_{node.kind}", None)
        if method is None:
            raise graph.Unsupported(node.kind)
        make: Callable[[], Task] = method(node)
        return make

    def _rows(self, node: Node, kernel: Any, roles: Sequence[Tensor], *numbers: Any) -> Callable[[], Task]:
        """A kernel of `minialex_numba.elementwise` on rows of tensors."""

        def make() -> Task:
            like = roles[0]
            count = like.rows * like.width
            arguments = [part for tensor in roles for part in self.place(tensor)]
            return lambda feed: self.pool.run(kernel, count, like.width, *arguments, *numbers, grain=elementwise.GRAIN)

        return make

    def _relu(self, node: Node) -> Callable[[], Task]:
        return self._rows(node, elementwise.relu_kernel, [node.inputs["x"][0], node.outputs["y"][0]])

    def _tanh(self, node: Node) -> Callable[[], Task]:
        return self._rows(node, elementwise.tanh_kernel_of(self.dtype), [node.inputs["x"][0], node.outputs["y"][0]])

    def _relu_backward(self, node: Node) -> Callable[[], Task]:
        roles = [node.inputs["dy"][0], node.inputs["y"][0], node.outputs["dx"][0]]
        return self._rows(node, elementwise.relu_backward_kernel, roles)

    def _tanh_backward(self, node: Node) -> Callable[[], Task]:
        roles = [node.inputs["dy"][0], node.inputs["y"][0], node.outputs["dx"][0]]
        return self._rows(node, elementwise.tanh_backward_kernel, roles)

    def _add(self, node: Node) -> Callable[[], Task]:
        return self._rows(
            node, elementwise.add_kernel, [node.inputs["x"][0], node.inputs["y"][0], node.outputs["z"][0]]
        )

    def _scale(self, node: Node) -> Callable[[], Task]:
        factor = self.number(node.options["factor"])
        return self._rows(node, elementwise.scale_kernel, [node.inputs["x"][0], node.outputs["y"][0]], factor)

    def _copy(self, node: Node) -> Callable[[], Task]:
        return self._rows(node, elementwise.copy_kernel, [node.inputs["x"][0], node.outputs["y"][0]])

    def _zeros(self, node: Node) -> Callable[[], Task]:
        def make() -> Task:
            y = node.outputs["y"][0]
            flat, first, ld = self.place(y)
            rows = flat.reshape(-1, ld)[:, first : first + y.width]
            return lambda feed: rows.fill(0)

        return make

    def _reshape(self, node: Node) -> Callable[[], Task]:
        x, y = node.inputs["x"][0], node.outputs["y"][0]

        def make() -> Task:
            (source, x0, ldx), (target, y0, ldy) = self.place(x), self.place(y)
            if len(x.shape) == 4:
                N, C, places = x.shape[0], x.shape[1], math.prod(x.shape[2:])
                return lambda feed: self.pool.run(
                    _channels_first, items(N, places), source, x0, ldx, target, y0, ldy, C, places
                )
            N, C, places = y.shape[0], y.shape[1], math.prod(y.shape[2:])
            return lambda feed: self.pool.run(
                _channels_last, items(N, places), source, x0, ldx, target, y0, ldy, C, places
            )

        return make

    def _augment(self, node: Node) -> Callable[[], Task]:
        def make() -> Task:
            images, mean, y = node.inputs["images"][0], node.inputs["mean"][0], node.outputs["y"][0]
            names = [node.inputs[role][0].name for role in ("images", "shift", "top", "left", "flip")]
            target, y0, ldy = self.place(y)
            if y0:
                raise graph.Unsupported("images in a slice")
            average = self.place(mean)[0]
            (N, C, H, W), crop = images.shape, y.shape[2]
            follows, factor = node.options["mean_follows"], self.number(node.options["factor"])

            def task(feed: Feed) -> None:
                pixels, shift, top, left, flip = (feed[name].data for name in names)
                self.pool.run(
                    augment.augment_kernel, N * crop, pixels.reshape(-1), C, H, W, average, follows, shift.reshape(-1),
                    top, left, flip, crop, factor, target, crop * crop * ldy, 1, ldy, grain=16,
                )  # fmt: skip

            return task

        return make

    # ---- convolutions -------------------------------------------------------------------------------------------

    def _tiled(self, N: int, C: int, K: int, w: Tensor, stride: int) -> bool:
        """Whether Winograd's convolution is the quicker one."""
        return N >= FEW_IMAGES and winograd.fits(w.shape[2], w.shape[3], stride, C, K)

    def _conv2d(self, node: Node) -> Callable[[], Task]:
        x, ws, bs, y = node.inputs["x"][0], node.inputs["w"], node.inputs["b"], node.outputs["y"][0]
        (N, C, H, W), (_, _, R, S), (P, Q) = x.shape, ws[0].shape, y.shape[2:]
        K, stride, padding = sum(w.shape[0] for w in ws), node.options["stride"], node.options["padding"]
        top, left = padding[0][0], padding[1][0]
        engine: Any
        if self._tiled(N, C, K, ws[0], stride):
            engine = winograd.Convolution(self.pool, N, C, H, W, K, R, top, left, P, Q, self.dtype)
        else:
            engine = direct.Convolution(self.pool, N, C, H, W, K, R, S, top, left, P, Q, stride, 1, self.dtype)
        self._need(node, engine.work + (0 if self.keep_weights else engine.weights))

        def make() -> Task:
            self._give(node, engine)
            arrays = [self.bindings[w.name] for w in ws]
            flat = [array.data.reshape(-1) for array in arrays]
            biases = [self.bindings[b.name].data for b in bs]
            bias = np.zeros_like(engine.nothing)
            source, target = self.place(x), self.place(y)
            relu, known = bool(node.flags.get("relu")), [-1]

            def task(feed: Feed) -> None:
                version = sum(array.version for array in arrays)
                if not self.keep_weights or known[0] != version:
                    engine.pack(flat, ws[0].shape, turned=False)
                    known[0] = version
                np.concatenate(biases, out=bias[:K])
                engine.run(*source, bias, relu, *target)

            return task

        return make

    def _give(self, node: Node, engine: Any) -> None:
        """Memory for a convolution: its packed weights are kept where weights do not change from step to step."""
        scratch = self.memory[self.scratch[node]]
        if self.keep_weights:
            engine.use(empty(engine.weights, self.dtype), scratch)
        else:
            engine.use(scratch[: engine.weights], scratch[engine.weights :])

    def _conv2d_backward(self, node: Node) -> Callable[[], Task]:
        x, ws, dys = node.inputs["x"][0], node.inputs["w"], node.inputs["dy"]
        dws, dbs = node.outputs["dw"], node.outputs["db"]
        (N, C, H, W), (_, _, R, S), (P, Q) = x.shape, ws[0].shape, dys[0].shape[2:]
        K, stride, padding = sum(w.shape[0] for w in ws), node.options["stride"], node.options["padding"]
        (above, _), (before, _) = padding
        dx = node.outputs["dx"][0] if node.outputs.get("dx") else None
        top, left = direct.input_padding(padding, R, S)
        gradient: Any
        engine: Any = None
        if self._tiled(N, C, K, ws[0], stride):
            gradient = winograd.WeightGradient(self.pool, N, C, H, W, K, R, above, before, P, Q, self.dtype)
        else:
            gradient = direct.WeightGradient(self.pool, N, C, H, W, K, R, S, above, before, P, Q, stride, self.dtype)
        if dx is not None:
            if self._tiled(N, K, C, ws[0], stride):
                engine = winograd.Convolution(self.pool, N, K, P, Q, C, R, top, left, H, W, self.dtype)
            else:
                engine = direct.Convolution(self.pool, N, K, P, Q, C, R, S, top, left, H, W, 1, stride, self.dtype)
        self._need(node, max(up(gradient.room, 16), engine.work + engine.weights if engine else 0))

        def make() -> Task:
            memory = self.memory[self.scratch[node]]
            gradient.use(memory)
            slopes, source = self.place(dys[0]), self.place(x)
            dw_arrays, db_arrays = [self.whole(dw) for dw in dws], [self.whole(db) for db in dbs]

            def of_weights() -> None:
                gradient.run(*slopes, *source, dw_arrays, db_arrays)

            if dx is None:
                return lambda feed: of_weights()
            engine.use(memory[: engine.weights], memory[engine.weights :])
            target = self.place(dx)
            mask = self.place(node.inputs["like"][0]) if "like" in node.inputs else None
            flat = [self.bindings[w.name].data.reshape(-1) for w in ws]

            def task(feed: Feed) -> None:
                of_weights()
                engine.pack(flat, ws[0].shape, turned=True)
                engine.run(*slopes, None, False, *target, mask=mask)

            return task

        return make

    # ---- fully connected layers ---------------------------------------------------------------------------------

    def _linear(self, node: Node) -> Callable[[], Task]:
        x, w, b, y = node.inputs["x"][0], node.inputs["w"][0], node.inputs["b"][0], node.outputs["y"][0]
        (N, D), K = x.shape, w.shape[0]

        def make() -> Task:
            engine = linear.Forward(self.pool, N, K, D, self.dtype)
            source, target = self.place(x), self.place(y)
            weights, bias, relu = self.place(w)[0], self.place(b)[0], bool(node.flags.get("relu"))
            return lambda feed: engine.run(*source, weights, bias, relu, *target)

        return make

    def _linear_backward(self, node: Node) -> Callable[[], Task]:
        x, ws, dys = node.inputs["x"][0], node.inputs["w"], node.inputs["dy"]
        (N, D), dbs = x.shape, node.outputs["db"]
        dx = node.outputs["dx"][0] if node.outputs.get("dx") else None

        def make() -> Task:
            source = self.place(x)
            mask = self.place(node.inputs["like"][0]) if "like" in node.inputs else None
            parts: list[Task] = []
            for i, (dy, w) in enumerate(zip(dys, ws, strict=True)):
                if dx is not None:
                    last = i == len(ws) - 1
                    parts.append(self._input_gradient(dy, w, dx, i > 0, mask if last else None))
            shared: dict[int, linear.WeightGradient] = {}
            for i, (dy, w, db) in enumerate(zip(dys, ws, dbs, strict=True)):
                K = w.shape[0]
                again = K in shared
                engine = shared.setdefault(K, linear.WeightGradient(self.pool, N, K, D, self.dtype))
                parts.append(self._weight_gradient(node, i, engine, dy, w, None if again else source))
                parts.append(self._bias_gradient(dy, db))

            def task(feed: Feed) -> None:
                for part in parts:
                    part(feed)

            return task

        return make

    def _input_gradient(self, dy: Tensor, w: Tensor, dx: Tensor, more: bool, mask: Place | None) -> Task:
        (N, K), D = dy.shape, w.shape[1]
        slopes, dy0, lddy = self.place(dy)
        engine = linear.InputGradient(self.pool, N, K, D, lddy, self.dtype)
        weights, target = self.place(w)[0], self.place(dx)
        return lambda feed: engine.run(slopes, dy0, weights, *target, accumulate=more, mask=mask)

    def _weight_gradient(
        self, node: Node, i: int, engine: linear.WeightGradient, dy: Tensor, w: Tensor, source: Place | None
    ) -> Task:
        slopes, weights = self.place(dy), self.place(w)[0]
        flat, x0, ldx = source or (None, 0, 0)
        if "update" not in node.flags:
            target = self.whole(node.outputs["dw"][i])

            def gradient(feed: Feed) -> None:
                engine.run(*slopes, flat, x0, ldx, target)

            return gradient
        v, kept = self.place(node.inputs["v"][i])[0], self.whole(node.outputs["kept"][i])
        options = node.flags["update"][i]

        def update(feed: Feed) -> None:
            kept[0] = engine.run(*slopes, flat, x0, ldx, weights, (weights, v, *self._rates(options, feed)))

        return update

    def _bias_gradient(self, dy: Tensor, db: Tensor) -> Task:
        N, K = dy.shape
        slopes, target = self.place(dy), self.whole(db)
        return lambda feed: self.pool.run(linear.bias_gradient_kernel, K, *slopes, N, target, grain=64)

    def _rates(self, options: Mapping[str, Any], feed: Feed) -> tuple[Any, Any, Any]:
        rate, momentum, decay = (
            self.number(_value(options[name], feed)) for name in ("learning_rate", "momentum", "weight_decay")
        )
        return rate, momentum, decay

    def _sgd_update(self, node: Node) -> Callable[[], Task]:
        def make() -> Task:
            w, v = (self.place(node.inputs[role][0])[0] for role in ("w", "v"))
            dw, kept = self.whole(node.inputs["dw"][0]), self.whole(node.outputs["kept"][0])
            counts = np.zeros(sgd_update.pieces(w.size), np.int64)

            def task(feed: Feed) -> None:
                rates = self._rates(node.options, feed)
                self.pool.run(sgd_update.update_kernel, counts.size, w, v, dw, *rates, counts)
                kept[0] = counts.sum()

            return task

        return make

    # ---- pooling and normalisation ------------------------------------------------------------------------------

    def _max_pool2d(self, node: Node) -> Callable[[], Task]:
        x, y = node.inputs["x"][0], node.outputs["y"][0]
        (N, C, H, W), (P, Q) = x.shape, y.shape[2:]
        size, stride = node.options["size"], node.options["stride"]

        def make() -> Task:
            winner, nobody, keep = self._winner(node, size)
            source, target = self.place(x), self.place(y)
            return lambda feed: self.pool.run(
                max_pool2d.forward_kernel, N * P, *source, C, H, W, size, stride, P, Q, *target, winner, nobody, keep
            )

        winners = node.outputs.get("winner")
        if winners:
            winners[0].dtype = np.dtype(max_pool2d.winner_dtype(size))
        return make

    def _winner(self, node: Node, size: int) -> tuple[np.ndarray[Any, Any], int, bool]:
        kind = max_pool2d.winner_dtype(size)
        nobody = int(np.iinfo(kind).max)
        winners = node.outputs.get("winner")
        return (self.whole(winners[0]), nobody, True) if winners else (np.empty(0, kind), nobody, False)

    def _max_pool2d_backward(self, node: Node) -> Callable[[], Task]:
        dy, dx = node.inputs["dy"][0], node.outputs["dx"][0]
        (N, C, H, W), (P, Q) = dx.shape, dy.shape[2:]
        size, stride, every = node.options["size"], node.options["stride"], node.options["ties"] == "all"

        def make() -> Task:
            slopes, target, relu = self.place(dy), self.place(dx), bool(node.flags.get("relu"))
            x = y = slopes
            if every:
                x, y = self.place(node.inputs["x"][0]), self.place(node.inputs["y"][0])
                winner = np.empty(0, np.uint8)
            else:
                winner = self.whole(node.inputs["winner"][0])
            if relu:
                x = self.place(node.inputs["like"][0])
            return lambda feed: self.pool.run(
                max_pool2d.backward_kernel, N * H, *slopes, winner, *x, *y, every, relu, C, H, W, size, stride, P, Q,
                *target,
            )  # fmt: skip

        return make

    def _norm_numbers(self, options: Mapping[str, Any], k: float) -> tuple[int, Any, Any, Any]:
        return options["size"], self.number(k), self.number(options["alpha"]), self.number(options["beta"])

    def _local_response_norm(self, node: Node) -> Callable[[], Task]:
        x, y = node.inputs["x"][0], node.outputs["y"][0]
        size, *numbers = self._norm_numbers(node.options, node.options["k"])
        room = local_response_norm.scratch_size(x.width, size, self.dtype)
        self._need(node, self.pool.threads * room)

        def make() -> Task:
            source, target, scratch = self.place(x), self.place(y), self.memory[self.scratch[node]]
            return lambda feed: self.pool.run(
                local_response_norm.forward_kernel, x.rows, *source, x.width, size, *numbers, *target, scratch, False,
                scratch, room, grain=BLOCK,
            )  # fmt: skip

        return make

    def _local_response_norm_backward(self, node: Node) -> Callable[[], Task]:
        dy, x, dx = node.inputs["dy"][0], node.inputs["x"][0], node.outputs["dx"][0]
        size, *numbers = self._norm_numbers(node.options, node.flags["k"])
        room = local_response_norm.scratch_size(x.width, size, self.dtype)
        self._need(node, self.pool.threads * room)

        def make() -> Task:
            slopes, source, target = self.place(dy), self.place(x), self.place(dx)
            scratch = self.memory[self.scratch[node]]
            return lambda feed: self.pool.run(
                local_response_norm.backward_kernel, x.rows, *slopes, *source, scratch, False, x.width, size, *numbers,
                bool(node.flags.get("relu")), *target, scratch, room, grain=BLOCK,
            )  # fmt: skip

        return make

    def _normalised_pool(self, node: Node) -> Callable[[], Task]:
        x, y = node.inputs["x"][0], node.outputs["y"][0]
        (N, C, H, W), window, stride = x.shape, node.options["size"], node.options["stride"]
        P, Q = (pool_size(n, window, stride, node.options["ceil"]) for n in (H, W))
        size, *numbers = self._norm_numbers(node.flags["norm"], node.flags["norm"]["k"])
        room = normalised_pool.forward_room(C, W, window, size, self.dtype)
        parts = max(1, min(P, -(-4 * self.pool.threads // N)))
        self._need(node, self.pool.threads * room)
        if node.outputs.get("winner"):
            node.outputs["winner"][0].dtype = np.dtype(max_pool2d.winner_dtype(window))

        def make() -> Task:
            winner, nobody, keep = self._winner(node, window)
            source, target, scratch = self.place(x), self.place(y), self.memory[self.scratch[node]]
            return lambda feed: self.pool.run(
                normalised_pool.forward_kernel, N * parts, parts, *source, C, H, W, window, stride, P, Q, size, *numbers,
                *target, winner, nobody, keep, scratch, room,
            )  # fmt: skip

        return make

    def _normalised_pool_backward(self, node: Node) -> Callable[[], Task]:
        dy, x, dx = node.inputs["dy"][0], node.inputs["x"][0], node.outputs["dx"][0]
        (N, C, H, W), (P, Q) = x.shape, dy.shape[2:]
        window, stride = node.flags["pool"]["size"], node.flags["pool"]["stride"]
        size, *numbers = self._norm_numbers(node.options, node.flags["k"])
        room = normalised_pool.backward_room(C, size, self.dtype)
        self._need(node, self.pool.threads * room)

        def make() -> Task:
            slopes, source, target = self.place(dy), self.place(x), self.place(dx)
            winner, scratch = self.whole(node.inputs["winner"][0]), self.memory[self.scratch[node]]
            return lambda feed: self.pool.run(
                normalised_pool.backward_kernel, N * H, *slopes, winner, *source, bool(node.flags.get("relu")), C, H, W,
                window, stride, P, Q, size, *numbers, *target, scratch, room,
            )  # fmt: skip

        return make

    def _spatial_response_norm(self, node: Node) -> Callable[[], Task]:
        x, y, scale = node.inputs["x"][0], node.outputs["y"][0], node.outputs["scale"][0]
        N, C, H, W = x.shape
        size, *numbers = self._norm_numbers(node.options, node.options["k"])
        self._need(node, self.pool.threads * C)

        def make() -> Task:
            source, target, scales = self.place(x), self.place(y), self.whole(scale)
            scratch = self.memory[self.scratch[node]]
            return lambda feed: self.pool.run(
                spatial_response_norm.forward_kernel, N * H, *source, C, H, W, size, *numbers, *target, scales, scratch
            )

        return make

    def _spatial_response_norm_backward(self, node: Node) -> Callable[[], Task]:
        dy, x, scale, dx = node.inputs["dy"][0], node.inputs["x"][0], node.inputs["scale"][0], node.outputs["dx"][0]
        N, C, H, W = x.shape
        size, _, alpha, beta = self._norm_numbers(node.options, 0)
        share_size = math.prod(x.shape)
        self._need(node, share_size + 2 * self.pool.threads * C)

        def make() -> Task:
            slopes, source, target, scales = self.place(dy), self.place(x), self.place(dx), self.whole(scale)
            share, scratch = np.split(self.memory[self.scratch[node]], [share_size])

            def task(feed: Feed) -> None:
                self.pool.run(
                    spatial_response_norm.share_kernel, N * H * W, *slopes, *source, scales, C, beta, share, grain=64
                )
                self.pool.run(
                    spatial_response_norm.backward_kernel, N * H, *slopes, *source, scales, share, C, H, W, size, alpha,
                    beta, *target, scratch,
                )  # fmt: skip

            return task

        return make

    # ---- dropout and the cost -----------------------------------------------------------------------------------

    def _dropout(self, node: Node) -> Callable[[], Task]:
        x, y, mask = node.inputs["x"][0], node.outputs["y"][0], node.outputs["mask"][0]
        rate, factor, given = node.options["rate"], self.number(node.options["factor"]), node.options["stream"]
        shape = x.shape[0], math.prod(x.shape[2:]), x.width

        def make() -> Task:
            source, target, silent = self.place(x), self.place(y), self.place(mask)
            flags: Any = silent[0]

            def task(feed: Feed) -> None:
                stream: Stream = replace(given, step=_value(given.step, feed))
                dropout.draw(self.pool, flags, shape, silent[2], rate, stream)
                self.pool.run(
                    dropout.apply_kernel, x.rows * x.width, x.width, *source, *silent, *target, factor,
                    grain=elementwise.GRAIN,
                )  # fmt: skip

            return task

        return make

    def _dropout_backward(self, node: Node) -> Callable[[], Task]:
        dy, mask, dx = node.inputs["dy"][0], node.inputs["mask"][0], node.outputs["dx"][0]
        return self._rows(node, dropout.apply_kernel, [dy, mask, dx], self.number(node.options["factor"]))

    def _softmax_cross_entropy(self, node: Node) -> Callable[[], Task]:
        logits, labels = node.inputs["logits"][0], node.inputs["labels"][0]
        loss, probs = node.outputs["loss"][0], node.outputs["probs"][0]
        N, K = logits.shape

        def make() -> Task:
            source, target, mean = self.place(logits), self.place(probs), self.whole(loss)
            losses = np.empty(N, self.dtype)

            def task(feed: Feed) -> None:
                arrays = *source, K, feed[labels.name].data, losses, target[0], target[1], target[2]
                self.pool.run(softmax_cross_entropy.forward_kernel, N, *arrays, grain=8)
                mean[0] = losses.mean()

            return task

        return make

    def _softmax_cross_entropy_backward(self, node: Node) -> Callable[[], Task]:
        probs, labels, dlogits = node.inputs["probs"][0], node.inputs["labels"][0], node.outputs["dlogits"][0]
        N, K = probs.shape

        def make() -> Task:
            source, target, size = self.place(probs), self.place(dlogits), self.number(N)
            return lambda feed: self.pool.run(
                softmax_cross_entropy.backward_kernel, N, *source, K, feed[labels.name].data, size, *target, grain=8
            )

        return make


def _value(option: Any, feed: Feed) -> Any:
    """A number, or what a symbol stands for now."""
    return feed[option.name] if isinstance(option, Symbol) else option

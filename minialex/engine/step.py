"""The two steps that everything is made of: one of training, one of inference.

A step takes a feed (images, crops, labels, rates) and returns outputs by name. `make_step` records it as a program
and offers that to the backend; if the backend does not compile it, its operations run one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from minialex.backend.arrays import Array
from minialex.backend.operations import method
from minialex.backend.program import LABELS, LOSS, PROBS, STEP, ArrayName, CompiledStep, Program, Symbol, Watch
from minialex.backend.protocol import Backend
from minialex.backend.recorder import Recorder, as_backend
from minialex.engine.columns import Executor, Placement
from minialex.engine.halves import compile_halves
from minialex.engine.pieces import Pieces
from minialex.errors import ConfigurationError
from minialex.network.divided import Divided, divide
from minialex.network.layers import Context, Parameter
from minialex.network.network import Network
from minialex.ranks.group import ALONE, Group, RunningSum
from minialex.recipe.fields import Recipe

Kind = Literal["train", "infer"]
HOST = "cpu"
"""Prefix of the names of devices in the host's own memory, which all its ranks share."""

FED_PER_DEVICE = ("images", "shift", "top", "left", "flip")


@dataclass(frozen=True)
class Plan:
    """Everything about a step that does not change from one to the next.

    Attributes:
        network, placement: the network, and the devices of its columns
        recipe: the update's constants, the images' size and scale, the dtype and the seed
        frozen: layers that are not updated at all
        layers: layers whose outputs an inference step returns too
        group: the ranks that share the batch of a training step
    """

    network: Network
    placement: Placement
    recipe: Recipe = field(default_factory=Recipe)
    frozen: frozenset[str] = frozenset()
    layers: tuple[str, ...] = ()
    group: Group = field(default=ALONE, compare=False)

    @property
    def shards(self) -> int:
        """Equal parts of a batch, each computed alone."""
        return max(1, self.recipe.shards)

    @property
    def own_shards(self) -> int:
        """How many of the shards this rank has; they are adjacent."""
        return self.shards // self.group.size

    @property
    def own(self) -> range:
        """The numbers of this rank's shards, and of its pieces of divided fully connected layers."""
        return range(self.group.rank * self.own_shards, (self.group.rank + 1) * self.own_shards)

    @property
    def divided(self) -> Divided | None:
        """The network with its fully connected layers in as many pieces as there are shards; None if it is not divided.

        Raises:
            ConfigurationError: If the recipe asks for it and this network or placement does not allow it.
        """
        if self.recipe.full_layers != "divided" or self.shards == 1:
            return None
        if self.recipe.trust_coefficient:
            raise ConfigurationError(
                "LARS needs the norm of whole arrays, and --full-layers divided cuts them: leave out --full-layers, or "
                "give --trust-coefficient 0"
            )
        if len(self.devices) > 1 or not self.placement[0].startswith(HOST):
            raise ConfigurationError(
                f"full layers are divided over ranks on processors alone, not on {', '.join(self.devices)} yet: "
                "leave out --full-layers divided, or give --devices cpu:0"
            )
        return divide(self.network, len(self.placement), self.shards)

    @property
    def parameters(self) -> dict[ArrayName, Parameter]:
        """The arrays that this rank trains."""
        divided = self.divided
        return self.network.parameters(len(self.placement)) if divided is None else divided.parameters(self.own)

    def device(self, name: ArrayName) -> str:
        """The device of an array: pieces of fully connected layers are all on one device."""
        return self.placement[name.column if name.column < len(self.placement) else 0]

    def undivided(self) -> Plan:
        """The same with the whole network on every rank, as for inference."""
        if self.recipe.full_layers == "data-parallel":
            return self
        return replace(self, recipe=self.recipe.replace(full_layers="data-parallel"))

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the placement, each once."""
        return tuple(dict.fromkeys(self.placement))

    @property
    def mean_follows(self) -> bool:
        """Whether the subtracted mean is that of the same pixel, instead of fixed relative to the crop."""
        return self.recipe.mean == "pixel"

    def factor(self, kind: Kind) -> float:
        """The factor of augmented pixels."""
        recipe = self.recipe
        return recipe.pixel_scale / (1 + recipe.colour if recipe.colour_divide and kind == "train" else 1)


def training_step(
    executor: Executor, plan: Plan, bound: Mapping[ArrayName, Array], feed: Mapping[ArrayName, Any]
) -> dict[ArrayName, Any]:
    """Augment, forward, loss, backward, update.

    If the batch is divided into shards, everything but the update is done shard by shard. Their gradients are summed in
    the fixed tree of `minialex.ranks.group`, and those of several ranks by
    `minialex.backend.operations.sum_over_ranks`, in buckets that are sent as soon as they are full. If fully connected
    layers are divided over ranks, each rank computes and updates its own units, for all ranks' images
    (`minialex.engine.pieces`).

    Args:
        executor, plan: the network in its place
        bound: parameters, their momentum, and the mean on every device
        feed: on every device ``"images"`` (uint8 [N,C,H,W]), ``"shift"``, ``"top"``, ``"left"`` and ``"flip"`` as
            `Backend.augment` takes them; `LABELS` on the first column's device; all of them for each of the rank's
            shards (`ArrayName.shard`); the numbers `STEP` and, for every whole parameter, its ``"rate"`` (1 for state
            that is not learned)

    Returns:
        `LOSS` and `PROBS` of each of the rank's shards and, for every updated parameter, how many of its elements were
        ``"skipped"``, since the result would not have been finite.
    """
    recipe, parameters = plan.recipe, plan.parameters
    sums = _Sums(executor, plan)
    results = (_shards if plan.divided is None else _pieces)(executor, plan, bound, feed, sums)
    for name, summed in sums.finish().items():
        gradient = summed
        learned = parameters[name].learned  # other state changes by what backward returned, at a rate of 1
        decay = recipe.weight_decay if learned and (recipe.decay_biases or name.array == "weight") else 0.0
        executor.watch(name.layer, name.column, "update")
        if recipe.trust_coefficient and learned:
            gradient = executor.backend.scale_by_trust_ratio(
                bound[name], gradient, trust_coefficient=recipe.trust_coefficient, weight_decay=decay
            )
            decay = 0.0
        results[name.to("skipped")] = executor.backend.sgd_update(
            bound[name],
            bound[name.to("momentum")],
            gradient,
            learning_rate=feed[rate_name(name)],
            momentum=recipe.momentum if learned else 0.0,
            weight_decay=decay,
        )
    return results


def _shards(
    executor: Executor, plan: Plan, bound: Mapping[ArrayName, Array], feed: Mapping[ArrayName, Any], sums: _Sums
) -> dict[ArrayName, Any]:
    """Forward, loss and backward, shard by shard."""
    results: dict[ArrayName, Any] = {}
    for number in range(plan.own_shards):
        labels, context = feed[LABELS.shard(number)], _context(plan, feed, number)
        images = input_images(executor, plan, bound, feed, "train", number)
        outputs, saved = executor.forward(bound, images, context)
        loss, probs = executor.loss(outputs, labels)
        gradient = executor.loss_gradient(probs, labels)
        if plan.shards > 1:
            gradient = [executor.backend.scale(piece, 1 / plan.shards) for piece in gradient]
        executor.backward(bound, saved, gradient, context, sums.take)
        results |= {LOSS.shard(number): loss, PROBS.shard(number): probs}
    return results


def _pieces(
    executor: Executor, plan: Plan, bound: Mapping[ArrayName, Array], feed: Mapping[ArrayName, Any], sums: _Sums
) -> dict[ArrayName, Any]:
    """The same with fully connected layers in pieces: convolutions by shard, then this rank's units for all images."""
    divided, backend, numbers = plan.divided, executor.backend, range(plan.own_shards)
    assert divided is not None
    below = Executor(divided.below, backend, plan.placement, executor.watch, plan.frozen)
    above = Pieces(divided, backend, plan.placement[0], plan.group, plan.own, executor.watch, plan.frozen)
    columns, flat, kept = below.stages[-1].pieces, list[Array](), []
    for number in numbers:
        images = input_images(executor, plan, bound, feed, "train", number)
        outputs, saved = below.forward(bound, images, _context(plan, feed, number))
        flat.append(backend.concat(outputs) if columns > 1 else outputs[0])
        kept.append(saved)
    whole = _context(plan, feed, None)
    outputs, saved = above.forward(bound, above.of_all_images(flat), whole)
    results: dict[ArrayName, Any] = {}
    gradients = []
    for number, logits in zip(numbers, above.whole_outputs(outputs, divided.classes), strict=True):
        labels = feed[LABELS.shard(number)]
        loss, probs = executor.loss([logits], labels)
        gradients.append(backend.scale(backend.softmax_cross_entropy_backward(probs, labels), 1 / plan.shards))
        results |= {LOSS.shard(number): loss, PROBS.shard(number): probs}
    gradient = above.of_pieces(gradients)
    if below.first_learning == len(below.stages):
        above.backward(bound, saved, gradient, whole, sums.keep)
        return results
    arrived = above.of_own_images(above.backward_through(bound, saved, gradient, whole, sums.keep))
    sizes = [divided.above.input_shape[0] // columns] * columns
    for number, (dx, saved) in enumerate(zip(arrived, kept, strict=True)):
        pieces = backend.split(dx, sizes) if columns > 1 else [dx]
        below.backward(bound, saved, pieces, _context(plan, feed, number), sums.take)
    return results


def _context(plan: Plan, feed: Mapping[ArrayName, Any], number: int | None) -> Context:
    """The context of one of the rank's shards, or of all ranks' images."""
    first = 0 if number is None else plan.own[number] * feed[LABELS.shard(number)].shape[0]
    return Context(training=True, seed=plan.recipe.seed, step=feed[STEP], first_sample=first)


BUCKET = 25 << 20
"""The fewest bytes of gradients all-reduced at once: in AlexNet, fc8's and fc7's, fc6's, the convolutions'."""


class _Sums:
    """Sums gradients as they arrive: over this rank's shards and then, in buckets, over the ranks."""

    def __init__(self, executor: Executor, plan: Plan) -> None:
        self._executor, self._plan = executor, plan
        self._parameters = plan.parameters
        self._running: dict[ArrayName, RunningSum[Array]] = {}
        self._buckets: dict[int, dict[ArrayName, Array]] = {}  # of each column
        self._sums: dict[ArrayName, Array] = {}

    def keep(self, name: ArrayName, gradient: Array) -> None:
        """Keep a gradient of all images' loss that no other rank has or needs."""
        if name.layer not in self._plan.frozen:
            self._sums[name] = gradient

    def take(self, name: ArrayName, gradient: Array) -> None:
        """Add the gradient of the next shard to those before it, in the fixed tree."""
        plan, backend = self._plan, self._executor.backend
        if name.layer in plan.frozen:
            return
        if plan.shards > 1 and not self._parameters[name].learned:  # not part of the loss's gradient
            gradient = backend.scale(gradient, 1 / plan.shards)

        def add(first: Array, second: Array) -> Array:
            self._executor.watch(name.layer, name.column, "reduce")
            return backend.add(first, second)

        total = self._running.setdefault(name, RunningSum(plan.own_shards, add)).push(gradient)
        if total is None:
            return
        del self._running[name]  # breaks a reference cycle through `add` that would keep all gradients alive
        self._sums[name] = total
        if plan.group.size > 1:
            bucket = self._buckets.setdefault(name.column, {})
            bucket[name] = total
            if sum(math.prod(x.shape) * x.dtype.itemsize for x in bucket.values()) >= BUCKET:
                self._send(name.column)

    def _send(self, column: int) -> None:
        bucket = self._buckets.pop(column)
        self._executor.watch(next(iter(bucket)).layer, column, "reduce")
        plan, backend = self._plan, self._executor.backend
        summed = method(backend, "sum_over_ranks")(list(bucket.values()), group=plan.group, how=plan.recipe.sum)
        self._sums.update(zip(bucket, summed, strict=True))

    def finish(self) -> dict[ArrayName, Array]:
        """The sums, in the order in which they arrived."""
        for column in list(self._buckets):
            self._send(column)
        return self._sums


def rate_name(name: ArrayName) -> ArrayName:
    """The name of a parameter's learning rate, which all its columns share."""
    return ArrayName(name.layer, name.array, role="rate")


def inference_step(
    executor: Executor, plan: Plan, bound: Mapping[ArrayName, Array], feed: Mapping[ArrayName, Any]
) -> dict[ArrayName, Any]:
    """Augment and forward, with the loss for the given labels; see `training_step`.

    Returns:
        `LOSS`, `PROBS` and, for every layer of `Plan.layers`, each column's piece of its ``"output"``.
    """
    shown: dict[ArrayName, Any] = {}

    def tell(layer: str, pieces: Sequence[Array]) -> None:
        if layer in plan.layers:
            shown.update({output_name(layer, column): piece for column, piece in enumerate(pieces)})

    outputs, _ = executor.forward(bound, input_images(executor, plan, bound, feed, "infer"), Context(), tell)
    loss, probs = executor.loss(outputs, feed[LABELS])
    return {LOSS: loss, PROBS: probs, **shown}


def output_name(layer: str, column: int) -> ArrayName:
    """The name of a column's piece of a layer's output."""
    return ArrayName(layer, column=column, role="output")


def input_images(
    executor: Executor,
    plan: Plan,
    bound: Mapping[ArrayName, Array],
    feed: Mapping[ArrayName, Any],
    kind: Kind,
    number: int = 0,
) -> list[Array]:
    """The network's input for a shard of the batch, on every column's device: each device augments its own."""
    cut = {}
    for device in plan.devices:
        executor.watch("input", plan.placement.index(device), "input")
        images, shift, top, left, flip = (
            feed[ArrayName(role=role, device=device).shard(number)] for role in FED_PER_DEVICE
        )
        cut[device] = executor.backend.augment(
            images,
            bound[ArrayName(role="mean", device=device)],
            shift,
            top,
            left,
            flip,
            crop=plan.network.input_shape[1],
            factor=plan.factor(kind),
            mean_follows=plan.mean_follows,
        )
    return [cut[device] for device in plan.placement]


Step = Callable[[Executor, Plan, Mapping[ArrayName, Array], Mapping[ArrayName, Any]], dict[ArrayName, Any]]
STEPS: dict[Kind, Step] = {"train": training_step, "infer": inference_step}


def record(plan: Plan, kind: Kind, batch_size: int, devices: tuple[str, ...]) -> Program:
    """A step as a program, for a given number of images (this rank's, if ranks share a batch) and given devices."""
    recorder = Recorder(devices)

    def watch(layer: str, column: int, phase: str) -> None:
        recorder.where = (layer, column, phase)

    if kind == "infer":
        plan = plan.undivided()
    dtype, S = plan.recipe.dtype, plan.recipe.image_size
    parameters = plan.parameters
    bound = {}
    for name, parameter in parameters.items():
        roles = ("parameter", "momentum") if kind == "train" else ("parameter",)
        for role in roles:
            bound[name.to(role)] = recorder.value(parameter.shape, dtype, plan.device(name))
    channels, crop = plan.network.input_shape[:2]
    mean_size = S if plan.mean_follows else crop
    parts = plan.own_shards if kind == "train" else 1
    N = max(1, batch_size // parts)
    fed = {}
    for part in range(parts):
        fed[LABELS.shard(part)] = recorder.value((N,), "int64", plan.placement[0])
        for device in plan.devices:
            if part == 0:
                mean = ArrayName(role="mean", device=device)
                bound[mean] = recorder.value((channels, mean_size, mean_size), dtype, device)
            for role, shape, kind_of_number in (
                ("images", (N, channels, S, S), "uint8"),
                ("shift", (N, channels), dtype),
                ("top", (N,), "int32"),
                ("left", (N,), "int32"),
                ("flip", (N,), "uint8"),
            ):
                name = ArrayName(role=role, device=device).shard(part)
                fed[name] = recorder.value(shape, kind_of_number, device)
    symbols = (STEP, *dict.fromkeys(map(rate_name, parameters))) if kind == "train" else ()
    executor = Executor(plan.network, as_backend(recorder), plan.placement, watch, plan.frozen)
    outputs = STEPS[kind](executor, plan, bound, {**fed, **{name: Symbol(name) for name in symbols}})
    return Program(bound, fed, symbols, tuple(recorder.calls), outputs)


def make_step(
    backend: Backend, plan: Plan, kind: Kind, batch_size: int, bound: Mapping[ArrayName, Array]
) -> CompiledStep:
    """A step, compiled if the backend can: a function from a feed to outputs (see `training_step`).

    Args:
        bound: arrays that outlive a step, on their devices
    """
    program = record(plan, kind, batch_size, backend.devices)
    compiled = backend.compile_step(program, bound) or compile_halves(backend, program, bound)
    return walk_step(backend, plan, kind, bound) if compiled is None else compiled


def walk_step(backend: Backend, plan: Plan, kind: Kind, bound: Mapping[ArrayName, Array]) -> CompiledStep:
    """A step that runs its operations one by one, for batches of any size."""

    def step(feed: Mapping[ArrayName, Any], watch: Watch | None = None) -> dict[ArrayName, Array]:
        def tell(layer: str, column: int, phase: str) -> None:
            if watch is not None:
                for device in plan.devices:
                    backend.synchronize(device)
                watch(layer, column, phase)

        return STEPS[kind](Executor(plan.network, backend, plan.placement, tell, plan.frozen), plan, bound, feed)

    return step

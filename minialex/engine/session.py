"""A network with its weights on its devices, ready for training or prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.arrays import Array
from minialex.backend.fetching import fetched, runs_ahead
from minialex.backend.program import LABELS, LOSS, PROBS, STEP, ArrayName, CompiledStep
from minialex.backend.protocol import Backend
from minialex.data.dataset import Split
from minialex.data.draws import Draws, centre_crop_offset, draws_ahead, ten_crop_offsets
from minialex.data.statistics import Statistics
from minialex.engine import memory
from minialex.engine.columns import Executor, Placement
from minialex.engine.kept import Images, Kept, Rows, keep
from minialex.engine.schedule import EpochRates, parameter_rate
from minialex.engine.step import Kind, Plan, input_images, make_step, output_name, rate_name, walk_step
from minialex.errors import ConfigurationError, ResourceError, nearest
from minialex.network import variants
from minialex.network.layers import Context
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters, join_columns, split_columns
from minialex.ranks import dividing
from minialex.ranks.group import ALONE, Group
from minialex.recipe.fields import Recipe
from minialex.screen.formats import plural


def placement_of(backend: Backend, devices: str | None, columns: int) -> Placement:
    """A placement from the command line's text.

    Args:
        devices: names or numbers of the backend's devices, separated by commas, one per column; a single one takes all
            columns; None means the backend's first device

    Raises:
        ConfigurationError: If a device does not exist, or there are neither one nor `columns` of them.
    """
    if devices is None:
        return (backend.devices[0],) * columns
    names = []
    for text in (part.strip() for part in devices.split(",")):
        name = backend.devices[int(text)] if text.isdigit() and int(text) < len(backend.devices) else text
        if name not in backend.devices:
            known = ", ".join(backend.devices)
            raise ConfigurationError(
                f"backend '{backend.name}' has no device '{text}'; it has {known}.{nearest(text, backend.devices)}"
            )
        names.append(name)
    if len(names) == 1:
        names *= columns
    if len(names) != columns:
        raise ConfigurationError(
            f"devices names {plural(len(names), 'device')} for {plural(columns, 'column')}; give one or {columns}"
        )
    return tuple(names)


@dataclass(frozen=True)
class Feed:
    """A training step's batch on the devices, with its random draws and rates (`minialex.engine.step.training_step`).

    Attributes:
        arrays: the step's inputs, by name
        batch_size: number of images
        frozen: layers that are not updated
    """

    arrays: Mapping[ArrayName, Any]
    batch_size: int
    frozen: frozenset[str]


@dataclass(frozen=True)
class StepOutcome:
    """The result of a training step.

    Attributes:
        loss: mean cross-entropy of the batch; if ranks share it, of this rank's images
        probs: [N,K], of the same images
        skipped: parameters of which some elements were not updated, since the result would not have been finite
        losses: mean cross-entropy of each shard
    """

    loss: float
    probs: NDArray[np.floating[Any]]
    skipped: tuple[ArrayName, ...]
    losses: tuple[float, ...] = ()


def mean_loss(losses: Sequence[float]) -> float:
    """The mean over all images from that of each shard: shards have equally many images."""
    return sum(losses) / len(losses)


AHEAD = 8
"""Steps whose crops, reflections and colours are drawn at once."""


class Session:
    """A network on its devices, with its weights, their momentum, and the mean image.

    Args:
        recipe: the recipe, with `classes` set
        backend, placement: where it runs
        statistics: statistics of the training set
        weights, momentum: whole layers' arrays (see `join_columns`); None: initial weights, zero momentum
        network: the network, if not the one that the recipe describes
        group: the ranks that share every batch of training

    Raises:
        ResourceError: If the weights do not fit in memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        backend: Backend,
        placement: Placement,
        statistics: Statistics,
        weights: Mapping[str, NDArray[Any]] | None = None,
        momentum: Mapping[str, NDArray[Any]] | None = None,
        network: Network | None = None,
        group: Group = ALONE,
    ) -> None:
        self.recipe = recipe
        self.backend = backend
        self.statistics = statistics
        self.network = network or variants.build(recipe)
        self.plan = Plan(self.network, placement, recipe, group=group)
        self.lock = RLock()
        """Held while a step runs and its outputs, which the next call overwrites, are fetched: threads take turns."""
        self._steps: dict[tuple[Kind, int, frozenset[str], tuple[str, ...]], CompiledStep] = {}
        self._divided = self.plan.divided
        """The network with fully connected layers in pieces; an error at once if that is impossible."""
        self._in_pieces = False
        self._ahead: tuple[tuple[int, int, float] | None, dict[int, Draws]] = None, {}
        columns = len(placement)
        parameters = self.network.parameters(columns)
        self._names = tuple(parameters)
        self._state = {(name.layer, name.array) for name, parameter in parameters.items() if not parameter.learned}
        self.bound: dict[ArrayName, Array] = {}
        """The arrays that outlive a step, by name, on their devices."""
        if weights is None:
            arrays = dict(initial_parameters(self.network, columns, recipe.seed, recipe.dtype))
        else:
            arrays = self._cut(weights)
        self._bind(arrays, {} if momentum is None else self._cut(momentum))

    def _cut(self, arrays: Mapping[str, NDArray[Any]]) -> dict[ArrayName, NDArray[Any]]:
        """Cut whole layers' arrays into the pieces stored here."""
        if self._divided is None or not self._in_pieces:
            return split_columns(self.network, len(self.plan.placement), arrays)
        return self._divided.split(self.plan.own, arrays)

    def _bind(self, weights: Mapping[ArrayName, NDArray[Any]], momentum: Mapping[ArrayName, NDArray[Any]]) -> None:
        """Send weights, momentum (zeros if not given) and the mean to the devices."""
        recipe, backend = self.recipe, self.backend
        plan = self.plan if self._in_pieces else self.plan.undivided()
        mean = _mean(recipe, self.statistics)
        self._names = tuple(plan.parameters)
        self.bound = {}
        try:
            for name in self._names:
                device, moving = plan.device(name), name.to("momentum")
                self.bound[name] = backend.to_device(weights[name].astype(recipe.dtype, copy=False), device)
                self.bound[moving] = (
                    backend.to_device(momentum[name].astype(recipe.dtype, copy=False), device)
                    if name in momentum
                    else backend.zeros(weights[name].shape, recipe.dtype, device)
                )
            for device in self.plan.devices:
                self.bound[ArrayName(role="mean", device=device)] = backend.to_device(mean, device)
        except MemoryError as error:
            raise ResourceError(
                f"out of memory: the weights and momentum of {self.network.name} do not fit "
                f"({error or 'no more to be had'}); try a smaller network, or its columns on two devices"
            ) from None

    @property
    def runs_ahead(self) -> bool:
        """Whether a step can be started before the result of the one before is fetched."""
        return runs_ahead(self.backend)

    def _fetched(self, outputs: Mapping[ArrayName, Array]) -> Callable[[], dict[ArrayName, NDArray[Any]]]:
        """Begin to fetch a step's outputs, which the next step overwrites; the function waits for them."""
        found = fetched(self.backend, list(outputs.values()))
        return lambda: dict(zip(outputs, found(), strict=True))

    @property
    def host_bytes(self) -> Callable[[tuple[int, ...]], NDArray[np.uint8]] | None:
        """A function that allocates, by shape, the best memory for reading batches; None if the backend has none."""
        return getattr(self.backend, "host_bytes", None)

    def weights(self) -> dict[str, NDArray[Any]]:
        """The whole layers' weights and biases, as new NumPy arrays; see `collect`."""
        self._needs_whole()
        return self._whole("parameter")

    def momentum(self) -> dict[str, NDArray[Any]]:
        """The whole layers' momentum, as new NumPy arrays; see `collect`."""
        self._needs_whole()
        return self._whole("momentum")

    def _whole(self, role: str) -> dict[str, NDArray[Any]]:
        found = {name: self.backend.to_numpy(self.bound[name.to(role)]) for name in self._names}
        joined = join_columns(found)
        if self._divided is None or not self._in_pieces:
            return joined
        for name in found:
            if self._divided.full(name) and name.column == self.plan.own[0]:
                whole = dividing.gather([joined[name.whole]], axis=0, group=self.plan.group)
                joined[name.whole] = whole[: self._divided.rows(name)]
        return joined

    def collect(self) -> None:
        """Collect fully connected layers whose units are divided over ranks; the next training step divides them again.

        All ranks call this before any of them needs the whole network: to save it, to inspect it, to run inference. A
        single process need not.
        """
        self._lay_out(in_pieces=False)

    def _needs_whole(self) -> None:
        """Refuse what a single rank cannot do.

        Raises:
            ConfigurationError: If this rank has only a part of the fully connected layers.
        """
        if self._in_pieces and self.plan.group.size > 1:
            raise ConfigurationError(
                f"this rank has a part of {self.network.name}'s full layers: call Session.collect on all ranks first"
            )

    def _lay_out(self, *, in_pieces: bool) -> None:
        """Store the whole network here, or this rank's pieces of its fully connected layers."""
        if self._divided is None or self._in_pieces == in_pieces:
            return
        with self.lock:
            weights, momentum = self._whole("parameter"), self._whole("momentum")
            self._steps.clear()  # they hold the previous arrays
            self._in_pieces = in_pieces
            self._bind(self._cut(weights), self._cut(momentum))

    def step(
        self, kind: Kind, batch_size: int, frozen: frozenset[str] = frozenset(), layers: tuple[str, ...] = ()
    ) -> CompiledStep:
        """The step for batches of a given size, made only once."""
        key = kind, batch_size, frozen, layers
        with self.lock:
            if kind == "infer":
                self._needs_whole()
            self._lay_out(in_pieces=kind == "train")
            if key not in self._steps:
                plan = replace(self.plan, frozen=frozen, layers=layers)
                with self._memory(kind, batch_size):
                    self._steps[key] = make_step(self.backend, plan, kind, batch_size, self.bound)
            return self._steps[key]

    def keep(self, split: Split, workers: int) -> Kept | None:
        """Read all images of a split and leave them on the devices, if the backend can and has room for them.

        Args:
            workers: number of reading threads

        Raises:
            DataError: If an image is unreadable.
        """
        return keep(self.backend, self.plan.devices, split, workers=workers, empty=self.host_bytes)

    def feed(self, images: Images, labels: NDArray[np.int64], draws: Draws, shard: int = 0) -> dict[ArrayName, Any]:
        """Send a batch (or one of a rank's shards) and its draws to every device, as a step takes them."""
        shift = draws.shift.astype(self.recipe.dtype)
        arrays = {"images": images, "shift": shift, "top": draws.top, "left": draws.left, "flip": draws.flip}
        feed = {
            ArrayName(role=role, device=device).shard(shard): array.on(device)
            if isinstance(array, Rows)
            else self.backend.to_device(array, device)
            for device in self.plan.devices
            for role, array in arrays.items()
        }
        feed[LABELS.shard(shard)] = self.backend.to_device(labels, self.plan.placement[0])
        return feed

    def training_feed(
        self,
        images: Images,
        labels: NDArray[np.int64],
        step: int,
        now: EpochRates,
        plan: Plan | None = None,
    ) -> dict[ArrayName, Any]:
        """The feed of one training step: the batch with its crops, reflections and colours drawn, and the rates.

        Args:
            images, labels: this rank's; see `upload`
            step, now: see `upload`
            plan: the plan that defines the shards; None: the session's
        """
        recipe, plan = self.recipe, plan or self.plan
        draws = self._drawn(len(images), step, plan.group.rank * len(images), now.colour)
        if recipe.crops == "centre":
            centre = np.full_like(draws.top, centre_crop_offset(recipe.image_size, recipe.crop))
            draws = replace(draws, top=centre, left=centre)
        if not recipe.reflect:
            draws = replace(draws, flip=np.zeros_like(draws.flip))
        rates = {
            rate_name(name): 1.0
            if (name.layer, name.array) in self._state
            else parameter_rate(recipe, now, name.layer, name.array)
            for name in self._names
        }
        feed: dict[ArrayName, Any] = {STEP: step, **rates}
        for number, part in enumerate(_equal_parts(len(images), plan.own_shards)):
            cut = Draws(draws.top[part], draws.left[part], draws.flip[part], draws.shift[part])
            feed |= self.feed(images[part], labels[part], cut, number)
        return feed

    def _drawn(self, count: int, step: int, first_sample: int, colour: float) -> Draws:
        """A step's draws; those of the next steps are drawn with them, since they are soon asked for."""
        recipe, wanted = self.recipe, (count, first_sample, colour)
        known, ahead = self._ahead  # read once: another thread may replace it
        if known != wanted or step not in ahead:
            steps = range(step, min(step + AHEAD, 1 << 32))
            draws = draws_ahead(
                count,
                seed=recipe.seed,
                steps=steps,
                size=recipe.image_size,
                crop=recipe.crop,
                statistics=self.statistics,
                first_sample=first_sample,
                crop_positions=recipe.crop_positions,
                crop_chunk=recipe.crop_chunk,
                colour=colour,
                colour_scale=recipe.colour_scale,
            )
            ahead = dict(zip(steps, draws, strict=True))
            self._ahead = wanted, ahead
        return ahead[step]

    def view_feed(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], top: int, left: int, flip: int
    ) -> dict[ArrayName, Any]:
        """The feed of an inference step: one view, the same for every image (see `view_offsets`)."""
        N = len(images)
        offsets = (np.full(N, top, np.int32), np.full(N, left, np.int32), np.full(N, flip, np.uint8))
        return self.feed(images, labels, Draws(*offsets, np.zeros((N, 3), np.float32)))

    def upload(self, images: Images, labels: NDArray[np.int64], step: int, now: EpochRates) -> Feed:
        """Send a training step's batch to the devices.

        Args:
            images, labels: uint8 [N,3,S,S] and int64 [N]; if ranks share a batch, this rank's
            step: the step's number, from which crops, reflections, colours and dropout are drawn
            now: the rates of its epoch

        Raises:
            ResourceError: If the batch does not fit in memory.
        """
        with self._memory("train", len(images)):
            return Feed(self.training_feed(images, labels, step, now), len(images), now.frozen)

    def start(self, feed: Feed) -> Callable[[], dict[ArrayName, NDArray[Any]]]:
        """Begin one training step, which changes the weights in place; `finish` takes what this returns.

        On a GPU the next batch can be sent meanwhile and, if it `runs_ahead`, the next step begun.

        Raises:
            ResourceError: If the step does not fit in memory.
        """
        step = self.step("train", feed.batch_size, feed.frozen)
        with self.lock, self._memory("train", feed.batch_size):
            return self._fetched(step(feed.arrays))

    def finish(self, pending: Callable[[], Mapping[ArrayName, NDArray[Any]]]) -> StepOutcome:
        """Wait for a training step, and fetch its result."""
        outputs = pending()
        skipped = tuple(
            name.to("parameter") for name, count in outputs.items() if name.role == "skipped" and int(count) > 0
        )
        numbers = range(self.plan.own_shards)
        losses = tuple(float(outputs[LOSS.shard(number)]) for number in numbers)
        probs = [outputs[PROBS.shard(number)] for number in numbers]
        return StepOutcome(mean_loss(losses), np.concatenate(probs) if len(probs) > 1 else probs[0], skipped, losses)

    def train(self, images: NDArray[np.uint8], labels: NDArray[np.int64], step: int, now: EpochRates) -> StepOutcome:
        """One whole training step on a batch: `upload`, `start`, `finish`."""
        with self.lock:
            return self.finish(self.start(self.upload(images, labels, step, now)))

    def probabilities(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None, views: int = 1
    ) -> tuple[NDArray[np.floating[Any]], float]:
        """Probabilities [N,K] of uint8 images [N,3,S,S], averaged over one view or ten, and the mean loss per view.

        Without labels the loss is meaningless.
        """
        N = len(images)
        labels = np.zeros(N, np.int64) if labels is None else labels
        step = self.step("infer", N)
        total: NDArray[np.floating[Any]] | None = None
        losses = []
        for view in view_offsets(self.recipe.image_size, self.recipe.crop, views):
            with self.lock, self._memory("infer", N):
                outputs = self._fetched(step(self.view_feed(images, labels, *view)))()
                probs, loss = outputs[PROBS], outputs[LOSS]
            total = probs if total is None else total + probs
            losses.append(float(loss))
        assert total is not None
        return total / views, sum(losses) / views

    def activations(self, images: NDArray[np.uint8], layers: Sequence[str]) -> dict[str, NDArray[np.floating[Any]]]:
        """The activations of some layers for the centre crops of images, by layer name.

        Args:
            images: uint8 [N,3,S,S]
            layers: names of layers of the network

        Returns:
            The whole layers' outputs, [N,C,H,W] or [N,D]: the channels (or neurons) of column 0 first.

        Raises:
            ConfigurationError: If the network has no such layer.
            ResourceError: If the batch does not fit in memory.
        """
        wanted = tuple(dict.fromkeys(self.network.layer(name).name for name in layers))
        N = len(images)
        (centre,) = view_offsets(self.recipe.image_size, self.recipe.crop, 1)
        step = self.step("infer", N, layers=wanted)
        with self.lock, self._memory("infer", N):
            outputs = self._fetched(step(self.view_feed(images, np.zeros(N, np.int64), *centre)))()
        stages = {stage.layer.name: stage for stage in self.network.stages(len(self.plan.placement))}
        pieces = {layer: [outputs[output_name(layer, c)] for c in range(stages[layer].pieces)] for layer in wanted}
        return {layer: np.concatenate(p, axis=1) for layer, p in pieces.items()}

    def inputs(self, images: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """The network's inputs for images [N,3,S,S]: their centre crops minus the mean, scaled, [N,3,crop,crop]."""
        (centre,) = view_offsets(self.recipe.image_size, self.recipe.crop, 1)
        with self.lock, self._memory("infer", len(images)):
            feed = self.view_feed(images, np.zeros(len(images), np.int64), *centre)
            executor = Executor(self.network, self.backend, self.plan.placement)
            cut = input_images(executor, self.plan, self.bound, feed, "infer")[0]
            return np.asarray(self.backend.to_numpy(cut))

    def input_gradient(
        self,
        inputs: NDArray[np.floating[Any]],
        layer: str,
        above: Callable[[NDArray[np.floating[Any]]], NDArray[np.floating[Any]]],
    ) -> NDArray[np.floating[Any]]:
        """The gradient of a layer's output with respect to the network's input: one forward and one backward pass.

        Args:
            inputs: float [N,3,crop,crop], as returned by `inputs`
            layer: the layer's name
            above: computes, from the layer's output, [N,C,H,W] or [N,D], the gradient of the objective with respect to
                that output: 1 at the numbers whose sum is the objective, 0 elsewhere

        Returns:
            The gradient of the objective with respect to `inputs`.

        Raises:
            ConfigurationError: If the network has no such layer.
            ResourceError: If the batch does not fit in memory.
        """
        self.network.layer(layer)
        self._needs_whole()
        self._lay_out(in_pieces=False)
        backend, placement, dtype = self.backend, self.plan.placement, self.recipe.dtype
        executor = Executor(self.network, backend, placement)
        (index,) = (n for n, stage in enumerate(executor.stages) if stage.layer.name == layer)
        stage, found = executor.stages[index], list[Array]()

        def heard(name: str, pieces: Sequence[Array]) -> None:
            if name == layer:
                found.extend(pieces)

        with self.lock, self._memory("train", len(inputs)):
            sent = {d: backend.to_device(np.ascontiguousarray(inputs, dtype), d) for d in self.plan.devices}
            _, saved = executor.forward(self.bound, [sent[device] for device in placement], Context(), heard)
            output = np.concatenate([backend.to_numpy(piece) for piece in found[: stage.pieces]], axis=1)
            shares = np.split(np.asarray(above(output), dtype), stage.pieces, axis=1)
            shares += [np.zeros_like(shares[0])] * (stage.columns - stage.pieces)  # the same in all: one is enough
            gradient = [backend.to_device(np.ascontiguousarray(share), placement[c]) for c, share in enumerate(shares)]
            back = executor.input_gradient(self.bound, saved[: index + 1], gradient, Context())
            parts = [backend.to_numpy(part) for part in back]  # every column has read the image
        return np.asarray(sum(parts))

    @contextmanager
    def _memory(self, kind: Kind, batch_size: int) -> Iterator[None]:
        """Turn a lack of memory into an error that says which batch size would fit."""
        try:
            yield
        except MemoryError as error:
            self._steps.clear()  # frees the memory needed to find out
            raise memory.explained(error, self.backend, self.plan, kind, batch_size, self.bound) from None

    def walk(self, kind: Kind, backend: Backend, plan: Plan | None = None) -> CompiledStep:
        """The step, run operation by operation, on another backend of the same arrays (a probe)."""
        plan = plan or self.plan
        in_pieces = kind == "train" and plan.divided is not None
        if not in_pieces:
            self._needs_whole()
        self._lay_out(in_pieces=in_pieces)
        return walk_step(backend, plan, kind, self.bound)


def _equal_parts(count: int, parts: int) -> list[slice]:
    size = count // parts
    return [slice(number * size, (number + 1) * size) for number in range(parts)]


def view_offsets(size: int, crop: int, views: int) -> list[tuple[int, int, int]]:
    """(top, left, flip) of the centre view, or of the ten views of section 4.1."""
    if views == 1:
        middle = centre_crop_offset(size, crop)
        return [(middle, middle, 0)]
    return ten_crop_offsets(size, crop)


def _mean(recipe: Recipe, statistics: Statistics) -> NDArray[Any]:
    """The mean to subtract: [3,S,S] for each pixel's own mean, else [3,crop,crop]."""
    mean = statistics.mean
    if recipe.mean == "centre":
        first = (recipe.image_size - recipe.crop) // 2
        mean = mean[:, first : first + recipe.crop, first : first + recipe.crop]
    elif recipe.mean == "channel":
        channels = mean.mean(axis=(1, 2), dtype=np.float64)
        mean = np.broadcast_to(channels[:, None, None], (3, recipe.crop, recipe.crop))
    return np.ascontiguousarray(mean, recipe.dtype)

"""A network with its weights on its devices, ready to be trained or asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.arrays import Array
from minialex.backend.program import CompiledStep
from minialex.backend.protocol import Backend
from minialex.data.draws import Draws, centre_crop_offset, ten_crop_offsets, training_draws
from minialex.data.statistics import Statistics
from minialex.engine.columns import Placement
from minialex.engine.schedule import Moment, parameter_rates
from minialex.engine.step import Kind, Plan, make_step, walk_step, whole_name
from minialex.errors import ConfigurationError, ResourceError, nearest
from minialex.network import models
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters, join_columns, split_columns
from minialex.recipe.fields import Recipe


def placement_of(backend: Backend, devices: str | None, columns: int) -> Placement:
    """A placement from the command line's text.

    Args:
        devices: names or numbers of the backend's devices, separated by commas, one a column; a single one takes all
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
        raise ConfigurationError(f"--devices names {len(names)} devices for {columns} columns; give one or {columns}")
    return tuple(names)


@dataclass(frozen=True)
class Outcome:
    """What a training step did.

    Attributes:
        loss: mean cross-entropy of the batch
        probs: [N,K]
        skipped: names of parameters of which some elements were not updated, since they would not have been finite
    """

    loss: float
    probs: NDArray[np.floating[Any]]
    skipped: tuple[str, ...]


class Session:
    """A network in its place with its weights, their momentum, and the mean image.

    Args:
        recipe: with `classes` set
        backend, placement: where it lives
        statistics: of the training set
        weights, momentum: whole layers' arrays (see `join_columns`); None: initial weights, zero momentum
    """

    def __init__(
        self,
        recipe: Recipe,
        backend: Backend,
        placement: Placement,
        statistics: Statistics,
        weights: Mapping[str, NDArray[Any]] | None = None,
        momentum: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.recipe = recipe
        self.backend = backend
        self.statistics = statistics
        self.network: Network = models.build(recipe.network)
        self.plan = Plan(
            self.network,
            placement,
            dtype=recipe.dtype,
            seed=recipe.seed,
            image_size=recipe.image_size,
            factor=recipe.pixel_scale / (1 + recipe.colour if recipe.colour_divide else 1),
            infer_factor=recipe.pixel_scale,
            mean_follows=recipe.mean == "pixel",
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            decay_biases=recipe.decay_biases,
        )
        self._sent: tuple[NDArray[np.uint8], int, Moment, dict[str, Any]] | None = None
        self._steps: dict[tuple[Kind, int, frozenset[str], tuple[str, ...]], CompiledStep] = {}
        self._bound: dict[str, Array] = {}
        try:
            self._settle(weights, momentum)
        except MemoryError as error:
            raise ResourceError(
                f"out of memory: the weights and momentum of {self.network.name} do not fit "
                f"({error or 'no more to be had'}); try a smaller network, or its columns on two devices"
            ) from None

    def _settle(self, weights: Mapping[str, NDArray[Any]] | None, momentum: Mapping[str, NDArray[Any]] | None) -> None:
        """Bring everything that lives longer than a step to its device."""
        recipe, backend, placement = self.recipe, self.backend, self.plan.placement
        columns = len(placement)
        pieces = (
            initial_parameters(self.network, columns, recipe.seed, recipe.dtype)
            if weights is None
            else split_columns(self.network, columns, weights)
        )
        moving = split_columns(self.network, columns, momentum) if momentum is not None else None
        self._names = tuple(pieces)
        for name, piece in pieces.items():
            device = placement[int(name.rpartition(":")[2])]
            self._bound[name] = backend.to_device(piece.astype(recipe.dtype, copy=False), device)
            self._bound[f"momentum/{name}"] = (
                backend.zeros(piece.shape, recipe.dtype, device)
                if moving is None
                else backend.to_device(moving[name].astype(recipe.dtype, copy=False), device)
            )
        mean = _mean(recipe, self.statistics)
        for device in self.plan.devices:
            self._bound[f"mean@{device}"] = backend.to_device(mean, device)

    @property
    def bound(self) -> Mapping[str, Array]:
        """The arrays that live longer than a step, by name."""
        return self._bound

    def weights(self) -> dict[str, NDArray[Any]]:
        """Whole layers' weights and biases, as NumPy arrays of their own."""
        return join_columns({name: self.backend.to_numpy(self._bound[name]) for name in self._names})

    def momentum(self) -> dict[str, NDArray[Any]]:
        """Whole layers' momentum, as NumPy arrays of their own."""
        return join_columns({name: self.backend.to_numpy(self._bound[f"momentum/{name}"]) for name in self._names})

    def step(
        self, kind: Kind, batch_size: int, frozen: frozenset[str] = frozenset(), layers: tuple[str, ...] = ()
    ) -> CompiledStep:
        """The step for batches of that size, made once."""
        key = kind, batch_size, frozen, layers
        if key not in self._steps:
            try:
                self._steps[key] = make_step(
                    self.backend, replace(self.plan, frozen=frozen, layers=layers), kind, batch_size, self._bound
                )
            except MemoryError as error:
                raise _out_of_memory(batch_size, error) from None
        return self._steps[key]

    def feed(self, images: NDArray[np.uint8], labels: NDArray[np.int64], draws: Draws) -> dict[str, Any]:
        """A batch and its draws on every device, as a step takes them."""
        shift = draws.shift.astype(self.plan.dtype)
        arrays = {"images": images, "shift": shift, "top": draws.top, "left": draws.left, "flip": draws.flip}
        to_device = self.backend.to_device
        feed = {f"{name}@{device}": to_device(a, device) for device in self.plan.devices for name, a in arrays.items()}
        feed["labels"] = to_device(labels, self.plan.placement[0])
        return feed

    def training_feed(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], step: int, now: Moment
    ) -> dict[str, Any]:
        """The feed of one training step: the batch with its crops, reflections and colours drawn, and the rates."""
        recipe = self.recipe
        draws = training_draws(
            len(images),
            seed=recipe.seed,
            step=step,
            size=recipe.image_size,
            crop=recipe.crop,
            statistics=self.statistics,
            crop_positions=recipe.crop_positions,
            crop_chunk=recipe.crop_chunk,
            colour=now.colour,
            colour_scale=recipe.colour_scale,
        )
        if recipe.crops == "centre":
            centre = np.full_like(draws.top, centre_crop_offset(recipe.image_size, recipe.crop))
            draws = replace(draws, top=centre, left=centre)
        if not recipe.reflect:
            draws = replace(draws, flip=np.zeros_like(draws.flip))
        rates = parameter_rates(recipe, now, dict.fromkeys(map(whole_name, self._names)))
        return {
            **self.feed(images, labels, draws),
            "step": step,
            **{f"rate/{name}": rate for name, rate in rates.items()},
        }

    def view_feed(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], top: int, left: int, flip: int
    ) -> dict[str, Any]:
        """The feed of an inference step: one view, the same of every image (see `view_offsets`)."""
        N = len(images)
        places = (np.full(N, top, np.int32), np.full(N, left, np.int32), np.full(N, flip, np.uint8))
        return self.feed(images, labels, Draws(*places, np.zeros((N, 3), np.float32)))

    def train(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        step: int,
        now: Moment,
        ahead: Callable[[], tuple[NDArray[np.uint8], NDArray[np.int64]] | None] = lambda: None,
    ) -> Outcome:
        """One training step on a batch of uint8 images [N,3,S,S] with labels [N]; changes the weights in place.

        `ahead` gives the images and labels of the next step of the same moment, or None. It is called when this step
        was asked for, and what it gives is sent to the devices while they compute.

        Raises:
            ResourceError: If the batch does not fit into memory.
        """
        try:
            sent, self._sent = self._sent, None
            same = sent is not None and sent[0] is images and sent[1:3] == (step, now)
            feed = sent[3] if same and sent is not None else self.training_feed(images, labels, step, now)
            outputs = self.step("train", len(images), now.frozen)(feed)
            del feed, sent
            following = ahead()
            if following is not None:
                self._sent = following[0], step + 1, now, self.training_feed(*following, step + 1, now)
        except MemoryError as error:
            raise _out_of_memory(len(images), error) from None
        kept = tuple(
            name.removeprefix("kept/")
            for name, count in outputs.items()
            if name.startswith("kept/") and int(self.backend.to_numpy(count)) > 0
        )
        to_numpy = self.backend.to_numpy
        return Outcome(float(to_numpy(outputs["loss"])), to_numpy(outputs["probs"]), kept)

    def upload(self, images: NDArray[np.uint8], labels: NDArray[np.int64], step: int, now: Moment) -> dict[str, Any]:
        """Draw crops, reflections and colours of a batch and send all of it to the devices: what `start` takes.

        Raises:
            ResourceError: If the batch does not fit into memory.
        """
        try:
            return {**self.training_feed(images, labels, step, now), "frozen": now.frozen}
        except MemoryError as error:
            raise _out_of_memory(len(images), error) from None

    def start(self, feed: dict[str, Any]) -> Mapping[str, Array]:
        """Ask the devices for a training step; they may still compute when this returns."""
        batch_size, frozen = feed["labels"].shape[0], feed.pop("frozen")
        try:
            return self.step("train", batch_size, frozen)(feed)
        except MemoryError as error:
            raise _out_of_memory(batch_size, error) from None

    def finish(self, pending: Mapping[str, Array]) -> Outcome:
        """Wait for a step that was started, and say what it did."""
        to_numpy = self.backend.to_numpy
        skipped = tuple(
            name.removeprefix("kept/")
            for name, count in pending.items()
            if name.startswith("kept/") and int(to_numpy(count)) > 0
        )
        return Outcome(float(to_numpy(pending["loss"])), to_numpy(pending["probs"]), skipped)

    def probabilities(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None, views: int = 1
    ) -> tuple[NDArray[np.floating[Any]], float]:
        """Probabilities [N,K] of uint8 images [N,3,S,S], averaged over one view or ten, and the mean loss per view.

        Without labels the loss means nothing.
        """
        N = len(images)
        labels = np.zeros(N, np.int64) if labels is None else labels
        step = self.step("infer", N)
        total: NDArray[np.floating[Any]] | None = None
        losses = []
        for view in view_offsets(self.recipe.image_size, self.recipe.crop, views):
            try:
                outputs = step(self.view_feed(images, labels, *view))
            except MemoryError as error:
                raise _out_of_memory(N, error) from None
            probs = self.backend.to_numpy(outputs["probs"])
            total = probs if total is None else total + probs
            losses.append(float(self.backend.to_numpy(outputs["loss"])))
        assert total is not None
        return total / views, sum(losses) / views

    def activations(self, images: NDArray[np.uint8], layers: Sequence[str]) -> dict[str, NDArray[np.floating[Any]]]:
        """What some layers give for the centre crops of images, by the layer's name.

        Args:
            images: uint8 [N,3,S,S]
            layers: names of layers of the network

        Returns:
            The whole layers' outputs, [N,C,H,W] or [N,D]: the channels (or neurons) of column 0 first.

        Raises:
            ConfigurationError: If the network has no such layer.
            ResourceError: If the batch does not fit into memory.
        """
        wanted = tuple(dict.fromkeys(self.network.layer(name).name for name in layers))
        N = len(images)
        middle = centre_crop_offset(self.recipe.image_size, self.recipe.crop)
        place = np.full(N, middle, np.int32)
        draws = Draws(place, place, np.zeros(N, np.uint8), np.zeros((N, 3), np.float32))
        try:
            outputs = self.step("infer", N, layers=wanted)(self.feed(images, np.zeros(N, np.int64), draws))
        except MemoryError as error:
            raise _out_of_memory(N, error) from None
        found = {}
        for stage in self.network.stages(len(self.plan.placement)):
            name = stage.layer.name
            if name in wanted:
                columns = 1 if stage.whole else stage.columns  # before anything divides them, columns are alike
                pieces = [self.backend.to_numpy(outputs[f"layer/{name}:{column}"]) for column in range(columns)]
                found[name] = np.concatenate(pieces, axis=1)
        return found

    def walk(self, kind: Kind, backend: Backend) -> CompiledStep:
        """The step with its layers walked on another backend of the same arrays (a probe)."""
        return walk_step(backend, self.plan, kind, self._bound)


def view_offsets(size: int, crop: int, views: int) -> list[tuple[int, int, int]]:
    """(top, left, flip) of the centre view, or of the ten views of section 4.1."""
    if views == 1:
        middle = centre_crop_offset(size, crop)
        return [(middle, middle, 0)]
    return ten_crop_offsets(size, crop)


def _mean(recipe: Recipe, statistics: Statistics) -> NDArray[Any]:
    """What is subtracted: [3,S,S] for the pixel's own mean, else [3,crop,crop]."""
    mean = statistics.mean
    if recipe.mean == "centre":
        first = (recipe.image_size - recipe.crop) // 2
        mean = mean[:, first : first + recipe.crop, first : first + recipe.crop]
    elif recipe.mean == "channel":
        channels = mean.mean(axis=(1, 2), dtype=np.float64)
        mean = np.broadcast_to(channels[:, None, None], (3, recipe.crop, recipe.crop))
    return np.ascontiguousarray(mean, recipe.dtype)


def _out_of_memory(batch_size: int, error: MemoryError) -> ResourceError:
    """What was needed, and which batch would fit: as the backend knows (an attribute `fits`), else half of this one."""
    fits = getattr(error, "fits", 2 ** int(math.log2(batch_size // 2)) if batch_size > 1 else 0)
    advice = f"try --batch-size {fits}" if fits else "not even one image fits: try a smaller network"
    return ResourceError(
        f"out of memory with a batch of {batch_size} images ({error or 'no more to be had'}); {advice}"
    )

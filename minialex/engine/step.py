"""The two steps that everything is made of: one of training, one of inference.

A step takes a feed (images, crops, labels, rates) and gives outputs by name. `make_step` records it as a program
and offers that to the backend; a backend that does not compile it walks the layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from minialex.backend.arrays import Array
from minialex.backend.program import CompiledStep, Program, Symbol, Watch
from minialex.backend.protocol import Backend
from minialex.backend.recorder import Recorder, as_backend
from minialex.engine.columns import Executor, Placement
from minialex.network.layers import Context
from minialex.network.network import Network

Kind = Literal["train", "infer"]
FED_PER_DEVICE = ("images", "shift", "top", "left", "flip")


@dataclass(frozen=True)
class Plan:
    """Everything about a step that does not change from one to the next.

    Attributes:
        network, placement: what is run, and where its columns live
        dtype: of weights and activations, ``"float32"`` or ``"float64"``
        seed: of the run
        image_size: rows (and columns) of the images that are fed
        factor, infer_factor: what augmented pixels are multiplied with, in training and in inference
        mean_follows: whether the mean that is taken off is that of the same pixel, or stays put under the crop
        momentum, weight_decay, decay_biases: of the update rule
        frozen: layers that are not updated at all
        layers: layers whose outputs an inference step returns too
    """

    network: Network
    placement: Placement
    dtype: str = "float32"
    seed: int = 0
    image_size: int = 256
    factor: float = 1.0
    infer_factor: float = 1.0
    mean_follows: bool = True
    momentum: float = 0.9
    weight_decay: float = 0.0005
    decay_biases: bool = False
    frozen: frozenset[str] = frozenset()
    layers: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the placement, each once."""
        return tuple(dict.fromkeys(self.placement))


def whole_name(name: str) -> str:
    """The whole layer's array that a column's piece belongs to: ``"conv1.weight"`` of ``"conv1.weight:0"``."""
    return name.partition(":")[0]


def training_step(
    executor: Executor, plan: Plan, bound: Mapping[str, Array], feed: Mapping[str, Any]
) -> dict[str, Any]:
    """Augment, forward, cost, backward, update.

    Args:
        executor, plan: the network in its place
        bound: parameters by name, their momentum as ``"momentum/NAME"``, ``"mean@DEVICE"``
        feed: for every device ``"images@DEVICE"`` (uint8 [N,C,H,W]), ``"shift@…"``, ``"top@…"``, ``"left@…"``,
            ``"flip@…"`` as `Backend.augment` takes them; ``"labels"`` on the first column's device; the numbers
            ``"step"`` and, for every whole parameter, ``"rate/NAME"``

    Returns:
        ``"loss"``, ``"probs"`` and, for every updated parameter, ``"kept/NAME"``: how many of its elements were not
        updated because the result would not have been finite.
    """
    context = Context(training=True, seed=plan.seed, step=feed["step"])
    learned = {name: p.learned for name, p in plan.network.parameters(len(plan.placement)).items()}
    parameters = {name: bound[name] for name in learned}
    outputs, saved = executor.forward(parameters, _images(executor, plan, bound, feed, plan.factor), context)
    loss, probs = executor.loss(outputs, feed["labels"])
    gradients = executor.backward(parameters, saved, executor.loss_gradient(probs, feed["labels"]), context)
    results = {"loss": loss, "probs": probs}
    for name, gradient in gradients.items():
        layer, _, rest = name.partition(".")
        if layer in plan.frozen:
            continue
        executor.watch(layer, int(name.rpartition(":")[2]), "update")
        decays = plan.decay_biases or rest.startswith("weight")
        rates = {
            "learning_rate": feed[f"rate/{whole_name(name)}"],
            "momentum": plan.momentum,
            "weight_decay": plan.weight_decay if decays else 0.0,
        }
        if not learned[name]:  # state changes by what backward returned
            rates = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
        results[f"kept/{name}"] = executor.backend.sgd_update(
            bound[name],
            bound[f"momentum/{name}"],
            gradient,
            **rates,
        )
    return results


def inference_step(
    executor: Executor, plan: Plan, bound: Mapping[str, Array], feed: Mapping[str, Any]
) -> dict[str, Any]:
    """Augment and forward, with the cost of the labels given; see `training_step`.

    Returns:
        ``"loss"``, ``"probs"`` and, for every layer of `Plan.layers`, each column's piece of its output as
        ``"layer/NAME:COLUMN"``.
    """
    looked_at: dict[str, Any] = {}

    def tell(layer: str, pieces: Sequence[Array]) -> None:
        if layer in plan.layers:
            looked_at.update({f"layer/{layer}:{column}": piece for column, piece in enumerate(pieces)})

    outputs, _ = executor.forward(bound, _images(executor, plan, bound, feed, plan.infer_factor), Context(), tell)
    loss, probs = executor.loss(outputs, feed["labels"])
    return {"loss": loss, "probs": probs, **looked_at}


def _images(
    executor: Executor, plan: Plan, bound: Mapping[str, Array], feed: Mapping[str, Any], factor: float
) -> list[Array]:
    """The network's input on every column's device: each device cuts its own."""
    cut = {}
    for device in plan.devices:
        executor.watch("input", plan.placement.index(device), "input")
        images, shift, top, left, flip = (feed[f"{name}@{device}"] for name in FED_PER_DEVICE)
        cut[device] = executor.backend.augment(
            images,
            bound[f"mean@{device}"],
            shift,
            top,
            left,
            flip,
            crop=plan.network.input_shape[1],
            factor=factor,
            mean_follows=plan.mean_follows,
        )
    return [cut[device] for device in plan.placement]


STEPS = {"train": training_step, "infer": inference_step}


def record(plan: Plan, kind: Kind, batch_size: int, devices: tuple[str, ...]) -> Program:
    """A step as a program, for a batch of that size, on a backend with those devices."""
    recorder = Recorder(devices)

    def watch(layer: str, column: int, phase: str) -> None:
        recorder.where = (layer, column, phase)

    bound = {}
    for name, parameter in plan.network.parameters(len(plan.placement)).items():
        device = plan.placement[int(name.rpartition(":")[2])]
        bound[name] = recorder.value(parameter.shape, plan.dtype, device)
        if kind == "train":
            bound[f"momentum/{name}"] = recorder.value(parameter.shape, plan.dtype, device)
    channels, crop = plan.network.input_shape[:2]
    mean_size = plan.image_size if plan.mean_follows else crop
    fed = {"labels": recorder.value((batch_size,), "int64", plan.placement[0])}
    for device in plan.devices:
        bound[f"mean@{device}"] = recorder.value((channels, mean_size, mean_size), plan.dtype, device)
        for name, shape, dtype in (
            ("images", (batch_size, channels, plan.image_size, plan.image_size), "uint8"),
            ("shift", (batch_size, channels), plan.dtype),
            ("top", (batch_size,), "int32"),
            ("left", (batch_size,), "int32"),
            ("flip", (batch_size,), "uint8"),
        ):
            fed[f"{name}@{device}"] = recorder.value(shape, dtype, device)
    symbols: tuple[str, ...] = ()
    if kind == "train":
        symbols = (
            "step",
            *dict.fromkeys(f"rate/{whole_name(name)}" for name in bound if "/" not in name and "@" not in name),
        )
    executor = Executor(plan.network, as_backend(recorder), plan.placement, watch, plan.frozen)
    feed = {**fed, **{name: Symbol(name) for name in symbols}}
    outputs = STEPS[kind](executor, plan, bound, feed)
    return Program(bound, fed, symbols, tuple(recorder.calls), outputs)


def make_step(backend: Backend, plan: Plan, kind: Kind, batch_size: int, bound: Mapping[str, Array]) -> CompiledStep:
    """A step, compiled if the backend can: a function from a feed to outputs (see `training_step`).

    Args:
        bound: arrays that live longer than a step, on their devices
    """
    compiled = backend.compile_step(record(plan, kind, batch_size, backend.devices), bound)
    return walk_step(backend, plan, kind, bound) if compiled is None else compiled


def walk_step(backend: Backend, plan: Plan, kind: Kind, bound: Mapping[str, Array]) -> CompiledStep:
    """A step that walks the layers, one operation after another, for batches of any size."""

    def step(feed: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Array]:
        def tell(layer: str, column: int, phase: str) -> None:
            if watch is not None:
                for device in plan.devices:
                    backend.synchronize(device)
                watch(layer, column, phase)

        return STEPS[kind](Executor(plan.network, backend, plan.placement, tell, plan.frozen), plan, bound, feed)

    return step

"""What a training step must cost at least, and what the two columns must exchange: arithmetic on shapes and rates.

The floor of a layer is the longer of two times: its multiply-adds at the rate of the machine's matrix product, and
the bytes that must move once through its memory. It supposes what can be had: ReLU, bias, dropout and the cutting of
the input are part of a neighbour's pass; normalisation and pooling that follow one another are one pass over memory
each way, forward (read, write the pooled) and backward (read the input and the gradient, write the gradient); an
update reads the weight, its momentum and its gradient in float32 and writes the first two. Multiply-adds are those of
the definition: kernels that multiply less (Winograd's) may go below it where arithmetic is the limit.

An exchange is timed by its busier direction, forward and backward: links work in both directions at once, the two
passes do not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from minialex.errors import ConfigurationError
from minialex.network.layers import Dropout, Flatten, LocalResponseNorm, MaxPool2d, ReLU, SpatialResponseNorm, Tanh
from minialex.network.network import Network, Stage
from minialex.speed.rates import PRECISIONS, Rates

UPDATE_BYTES = 20
"""An update's bytes a parameter: w, v and dw are read and w and v written, four bytes each, whatever the precision."""

IMAGENET = 1_281_167
"""Training images of ILSVRC-2012."""


@dataclass(frozen=True)
class Pass:
    """One pass of a layer on one device for one image: ``flops`` and ``values`` for each image, ``weights`` once.

    Attributes:
        name: ``"forward"``, ``"backward"`` (of the input), ``"weights"`` (their gradient) or ``"update"``
        flops: floating-point operations for one image
        values: activations and gradients moved for one image, in values of the precision
        weights: weights moved, whatever the batch, in values of the precision
        fixed: bytes moved whatever the batch and the precision
    """

    name: str
    flops: int = 0
    values: int = 0
    weights: int = 0
    fixed: int = 0

    def bytes(self, batch: int, precision: str) -> int:
        """Bytes through memory for a batch."""
        return (self.values * batch + self.weights) * PRECISIONS[precision] + self.fixed

    def seconds(self, batch: int, precision: str, rates: Rates) -> float:
        """The longer of its two times."""
        return max(self.flops * batch / rates.matrix[precision], self.bytes(batch, precision) / rates.copy)


@dataclass(frozen=True)
class Exchange:
    """What crosses before a layer that reads all columns; its gradient takes the same way back.

    Attributes:
        reader: the layer that reads
        source: the layer whose output crosses
        values: for one image, in the busier direction of one pass
        both: for one image, both directions of one pass together
    """

    reader: str
    source: str
    values: int
    both: int


@dataclass(frozen=True)
class Layout:
    """A network's work on its devices.

    Attributes:
        work: for each device, passes by the name of the layer (or of layers that are one pass)
        exchanges: in the order of the forward pass
        parameters: of the whole network
    """

    work: tuple[Mapping[str, tuple[Pass, ...]], ...]
    exchanges: tuple[Exchange, ...]
    parameters: int

    @property
    def exchanged(self) -> int:
        """Values for one image that cross in the busier direction, forward and backward."""
        return 2 * sum(exchange.values for exchange in self.exchanges)

    @property
    def crossover(self) -> float:
        """The global batch below which the columns' exchange sends fewer values than averaging two replicas' gradients.

        Each of two replicas sends as many values as there are parameters (half of the sums, half of the results).
        Infinite where nothing is exchanged.
        """
        return self.parameters / self.exchanged if self.exchanges else math.inf

    @property
    def crossover_both(self) -> float:
        """As `crossover`, counting every value that crosses in either direction, whether or not at the same time."""
        both = 2 * sum(exchange.both for exchange in self.exchanges)
        return 2 * self.parameters / both if both else math.inf


def lay_out(network: Network, placement: Sequence[int]) -> Layout:
    """A network's work and exchanges, for columns on devices that are numbered from 0 (one number a column)."""
    stages = network.stages(len(placement))
    work: list[dict[str, tuple[Pass, ...]]] = [{} for _ in range(max(placement) + 1)]
    exchanges: list[Exchange] = []
    parameters = 0
    chain: list[Stage] = []
    source = ""
    for stage in stages:
        moves = _crossing(stage, placement)
        if moves:
            exchanges.append(Exchange(stage.layer.name, source, max(moves.values()), sum(moves.values())))
        if isinstance(stage.layer, ReLU | Tanh | Dropout | Flatten):
            continue
        source = stage.layer.name
        if isinstance(stage.layer, LocalResponseNorm | SpatialResponseNorm | MaxPool2d):
            chain.append(stage)
            continue
        _close(chain, placement, work)
        chain = []
        parameters += _arithmetic(stage, placement, work)
    _close(chain, placement, work)
    for device, layers in enumerate(work):
        mine = sum(_weights(stage) * _here(stage, placement, device) for stage in stages)
        layers["update"] = (Pass("update", fixed=UPDATE_BYTES * mine),)
    return Layout(tuple(work), tuple(exchanges), parameters)


def _here(stage: Stage, placement: Sequence[int], device: int) -> int:
    """How many of a layer's columns are computed on a device."""
    return sum(place == device for place in placement[: stage.columns])


def _weights(stage: Stage) -> int:
    """Parameters of one column of a layer."""
    return sum(math.prod(p.shape) for p in stage.layer.parameters(stage.seen, 0, stage.columns).values())


def _arithmetic(stage: Stage, placement: Sequence[int], work: list[dict[str, tuple[Pass, ...]]]) -> int:
    """Enter a layer that multiplies into the work; returns the parameters of all its columns."""
    macs = stage.layer.multiply_adds(stage.seen, stage.columns)
    weights = _weights(stage)
    for device, layers in enumerate(work):
        columns = _here(stage, placement, device)
        if not macs or not columns:
            continue
        # Columns on one device that gather (or that look at the image) read one array.
        shared = stage.gathers or not stage.trained_before
        read = math.prod(stage.seen) * (1 if shared else columns)
        made = math.prod(stage.output) * columns
        passes = [Pass("forward", 2 * macs * columns, read + made, weights * columns)]
        if stage.trained_before:
            passes.append(Pass("backward", 2 * macs * columns, read + made, weights * columns))
        passes.append(Pass("weights", 2 * macs * columns, read + made, weights * columns))
        layers[stage.layer.name] = tuple(passes)
    return weights * stage.columns


def _close(chain: Sequence[Stage], placement: Sequence[int], work: list[dict[str, tuple[Pass, ...]]]) -> None:
    """Enter normalisation and pooling that follow one another (or nothing) as one pass each way."""
    if not chain:
        return
    name = " + ".join(stage.layer.name for stage in chain)
    for device, layers in enumerate(work):
        columns = _here(chain[0], placement, device)
        if columns:
            before, after = math.prod(chain[0].seen) * columns, math.prod(chain[-1].output) * columns
            layers[name] = (
                Pass("forward", values=before + after),
                Pass("backward", values=2 * before + after),
            )


def _crossing(stage: Stage, placement: Sequence[int]) -> Counter[tuple[int, int]]:
    """Values for one image that go from a device to another before a layer, by (from, to)."""
    moves: Counter[tuple[int, int]] = Counter()
    if stage.gathers:
        piece = math.prod(stage.seen) // stage.sources
        for reader in placement[: stage.columns]:
            for owner in placement[: stage.sources]:
                if owner != reader:
                    moves[owner, reader] += piece
    return moves


@dataclass(frozen=True)
class Line:
    """The floor of one layer: seconds on the device where it takes longest, and what limits most of that time."""

    layer: str
    flops: int
    bytes: int
    forward: float
    backward: float
    limit: str

    @property
    def seconds(self) -> float:
        """Both ways (and, for the update, its one)."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Crossing:
    """An exchange in bytes and seconds: one pass, in the busier direction."""

    reader: str
    source: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Floor:
    """The floor of one training step.

    Attributes:
        precision, batch: of the step; the batch is that of all devices together
        lines: by layer, and the update
        crossings: what the columns exchange in one pass
        computing: seconds on the device that has most to do
        exchanging: seconds on the link, forward and backward
    """

    precision: str
    batch: int
    lines: tuple[Line, ...]
    crossings: tuple[Crossing, ...]
    computing: float
    exchanging: float

    @property
    def hidden(self) -> float:
        """Seconds of the step if every exchange hides behind computation."""
        return max(self.computing, self.exchanging)

    @property
    def seconds(self) -> float:
        """Seconds of the step if computation waits for every exchange."""
        return self.computing + self.exchanging

    @property
    def exchanged(self) -> int:
        """Bytes of a step in the busier direction, forward and backward."""
        return 2 * sum(crossing.bytes for crossing in self.crossings)

    def images_per_second(self) -> float:
        """At the floor, exchanges not hidden."""
        return self.batch / self.seconds

    def training_seconds(self, images: int = IMAGENET, epochs: int = 90) -> float:
        """Seconds of a whole training at the floor, exchanges not hidden."""
        return epochs * images / self.images_per_second()

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it; seconds and bytes."""
        return {
            "precision": self.precision,
            "batch_size": self.batch,
            "seconds": self.seconds,
            "seconds_exchange_hidden": self.hidden,
            "computing_seconds": self.computing,
            "exchanging_seconds": self.exchanging,
            "exchanged_bytes": self.exchanged,
            "images_per_second": self.images_per_second(),
            "layers": [{**asdict(line), "seconds": line.seconds} for line in self.lines],
            "exchanges": [asdict(crossing) for crossing in self.crossings],
        }


def floor(layout: Layout, devices: Sequence[Rates], precision: str, batch: int, link: float | None = None) -> Floor:
    """The floor of a training step.

    Args:
        devices: one for each device of the layout
        batch: images of the step
        link: bytes a second between devices in one direction; None takes the slower of the devices' own

    Raises:
        ConfigurationError: If a device lacks the precision, or no link is known where columns exchange.
    """
    for rates in devices:
        if precision not in rates.matrix:
            known = ", ".join(rates.matrix)
            raise ConfigurationError(f"{rates.name} has no rate for precision '{precision}'; it has {known}")
    names = [name for name in dict.fromkeys(n for layers in layout.work for n in layers) if name != "update"]
    lines = [_line(name, layout, devices, precision, batch) for name in [*names, "update"]]
    computing = max(
        sum(p.seconds(batch, precision, rates) for passes in layers.values() for p in passes)
        for layers, rates in zip(layout.work, devices, strict=True)
    )
    crossings: tuple[Crossing, ...] = ()
    if layout.exchanges:
        speed = _speed(devices, link)
        sizes = [e.values * batch * PRECISIONS[precision] for e in layout.exchanges]
        crossings = tuple(
            Crossing(e.reader, e.source, size, size / speed) for e, size in zip(layout.exchanges, sizes, strict=True)
        )
    return Floor(precision, batch, tuple(lines), crossings, computing, 2 * sum(c.seconds for c in crossings))


def _line(name: str, layout: Layout, devices: Sequence[Rates], precision: str, batch: int) -> Line:
    """One layer on the device where it takes longest."""
    found = []
    for layers, rates in zip(layout.work, devices, strict=True):
        passes = layers.get(name, ())
        times = [(p, p.seconds(batch, precision, rates)) for p in passes]
        forward = sum(t for p, t in times if p.name == "forward")
        backward = sum(t for p, t in times if p.name != "forward")
        memory = sum(t for p, t in times if p.bytes(batch, precision) / rates.copy >= t)
        limit = "memory" if memory > (forward + backward) / 2 else "arithmetic"
        flops = sum(p.flops for p in passes) * batch
        found.append(Line(name, flops, sum(p.bytes(batch, precision) for p in passes), forward, backward, limit))
    return max(found, key=lambda line: line.seconds)


def averaged(
    network: Network, columns: int, devices: Sequence[Rates], precision: str, batch: int, link: float | None = None
) -> Floor:
    """The floor of the other way: each device has the whole network and its share of the batch; gradients are averaged.

    Every device sends 2·(n − 1)/n of the gradients' bytes, n being the number of devices: its part of the sums, then
    its part of the results.
    """
    layout = lay_out(network, (0,) * columns)
    share = -(-batch // len(devices))
    slowest = max((floor(layout, [rates], precision, share) for rates in devices), key=lambda one: one.computing)
    size = layout.parameters * PRECISIONS[precision] * (len(devices) - 1) // len(devices)
    crossing = Crossing("update", "gradients", size, size / _speed(devices, link))
    return Floor(precision, batch, slowest.lines, (crossing,), slowest.computing, 2 * crossing.seconds)


def _speed(devices: Sequence[Rates], link: float | None) -> float:
    """Bytes a second between devices: as given, else that of the slowest device."""
    unknown = [rates.name for rates in devices if rates.link is None]
    if link is None and unknown:
        raise ConfigurationError(
            f"the rate of the link to {unknown[0]} is not known; give it with --link, in gigabytes a second"
        )
    return link or min(rates.link for rates in devices if rates.link)

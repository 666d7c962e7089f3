"""The least time of a training step on GPUs, and what two columns must exchange, computed from shapes and rates.

The floor of a layer is the longer of two times: its multiply-adds at the rate of the machine's matrix product, and the
bytes that must move once through its memory (`minialex.speed.roofline` counts both, and states its assumptions).
Multiply-adds are those of the definition: kernels that need fewer (Winograd's) may go below the floor if arithmetic is
the limit.

An exchange is timed by its busier direction, forward and backward: links work in both directions at once, but the two
passes run one after the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from minialex.backend.program import Program, values
from minialex.engine.step import Plan, record
from minialex.errors import ConfigurationError
from minialex.network.network import Network
from minialex.speed.rates import PRECISIONS, Rates
from minialex.speed.roofline import chains, sweeps

IMAGENET = 1_281_167
"""Training images of ILSVRC-2012."""


@dataclass(frozen=True)
class Pass:
    """One pass of a layer on one device for one image: ``flops`` and ``values`` for each image, ``weights`` once.

    Attributes:
        name: ``"forward"``, ``"backward"`` (of the input), ``"weights"`` (their gradient) or ``"update"``
        flops: floating-point operations for one image
        values: activations and gradients moved for one image, in values of the precision
        weights: weights moved, whatever the batch size, in values of the precision
        fixed: bytes moved, whatever the batch size and the precision
    """

    name: str
    flops: int = 0
    values: int = 0
    weights: int = 0
    fixed: int = 0

    def bytes(self, batch: int, precision: str) -> int:
        """Bytes moved through memory for a batch."""
        return (self.values * batch + self.weights) * PRECISIONS[precision] + self.fixed

    def seconds(self, batch: int, precision: str, rates: Rates) -> float:
        """The longer of its two times."""
        return max(self.flops * batch / rates.matrix[precision], self.bytes(batch, precision) / rates.copy)


@dataclass(frozen=True)
class Exchange:
    """The exchange before a layer that reads all columns; its gradient takes the same path back.

    Attributes:
        reader: the layer that reads
        source: the layer whose output is exchanged
        values: values for one image, in the busier direction of one pass
        both: values for one image, in both directions of one pass
    """

    reader: str
    source: str
    values: int
    both: int


@dataclass(frozen=True)
class Layout:
    """A network's work on its devices.

    Attributes:
        work: for each device, passes by name of the layer (or of layers fused into one pass)
        exchanges: the exchanges, in the order of the forward pass
        parameters: number of parameters of the whole network
    """

    work: tuple[Mapping[str, tuple[Pass, ...]], ...]
    exchanges: tuple[Exchange, ...]
    parameters: int

    @property
    def exchanged(self) -> int:
        """Values exchanged for one image in the busier direction, forward and backward."""
        return 2 * sum(exchange.values for exchange in self.exchanges)

    @property
    def crossover(self) -> float:
        """The global batch below which the columns' exchange sends fewer values than averaging two replicas' gradients.

        Each of two replicas sends as many values as there are parameters (half of the sums, half of the results).
        Infinite if nothing is exchanged.
        """
        return self.parameters / self.exchanged if self.exchanges else math.inf

    @property
    def crossover_both(self) -> float:
        """Like `crossover`, but counts values in both directions, whether or not they move at the same time."""
        both = 2 * sum(exchange.both for exchange in self.exchanges)
        return 2 * self.parameters / both if both else math.inf


@lru_cache(maxsize=64)
def lay_out(network: Network, placement: tuple[int, ...]) -> Layout:
    """A network's work and exchanges, for columns on devices numbered from 0 (one number per column)."""
    devices = tuple(f"device:{n}" for n in range(max(placement) + 1))
    plan = Plan(network, tuple(devices[n] for n in placement))
    program = record(plan, "train", 1, devices)
    parameters = sum(math.prod(p.shape) for p in network.parameters(len(placement)).values())
    return Layout(tuple(_work(program, device) for device in devices), _exchanges(program), parameters)


def _work(program: Program, device: str) -> dict[str, tuple[Pass, ...]]:
    """One device's passes by layer or chain of layers, and those of the update; `program` has one image."""
    names, between = chains(program)
    counts: dict[tuple[str, str], Counter[str]] = {}
    arrays: dict[tuple[str, str], dict[Any, int]] = {}
    for call in program.calls:
        if call.layer in ("input", "softmax") or call.phase == "exchange" or values(call.results)[0].device != device:
            continue
        name = "update" if call.phase == "update" else names.get(call.layer, call.layer)
        for sweep in sweeps(call):
            learned = sweep.weights + sweep.gradients
            own = {"fixed": learned} if name == "update" else {"weights": learned // 4}
            counts.setdefault((name, sweep.phase), Counter()).update(flops=2 * sweep.multiply_adds, **own)
            arrays.setdefault((name, sweep.phase), {}).update({**sweep.arrays, **sweep.inputs})
    work: dict[str, tuple[Pass, ...]] = {}
    for (name, phase), count in counts.items():
        moved = sum(size // 4 for array, size in arrays[name, phase].items() if array not in between)
        if moved or name == "update":
            work[name] = (*work.get(name, ()), Pass(phase, values=moved, **count))
    return work


def _exchanges(program: Program) -> tuple[Exchange, ...]:
    """The exchanges of the forward pass."""
    moves: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    source = ""
    for call in program.calls:
        if call.phase == "backward":
            break
        if call.operation == "copy_to" and call.phase == "exchange":
            way = call.args[0].device, call.args[1]
            moves.setdefault((call.layer, source), Counter())[way] += call.args[0].nbytes // 4
        elif any(sweep.arrays for sweep in sweeps(call)):
            source = call.layer
    return tuple(Exchange(*names, max(sizes.values()), sum(sizes.values())) for names, sizes in moves.items())


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
        """Seconds of both passes (the update has only one)."""
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
        precision, batch: of the step; the batch size is over all devices
        lines: the layers, and the update
        crossings: the columns' exchanges in one pass
        computing: seconds on the device with the most work
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
        """Seconds of the step if every exchange overlaps with computation."""
        return max(self.computing, self.exchanging)

    @property
    def seconds(self) -> float:
        """Seconds of the step if computation waits for every exchange."""
        return self.computing + self.exchanging

    @property
    def exchanged(self) -> int:
        """Bytes exchanged in a step in the busier direction, forward and backward."""
        return 2 * sum(crossing.bytes for crossing in self.crossings)

    def images_per_second(self) -> float:
        """Images per second at the floor, without overlapping exchanges."""
        return self.batch / self.seconds

    def training_seconds(self, images: int = IMAGENET, epochs: int = 90) -> float:
        """Seconds of a whole training run at the floor, without overlapping exchanges."""
        return epochs * images / self.images_per_second()

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values, in seconds and bytes."""
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
        devices: rates of each device of the layout
        batch: images per step
        link: bytes per second between devices in one direction; None: the slower of the devices' own

    Raises:
        ConfigurationError: If a device lacks the precision, or columns exchange over an unknown link.
    """
    for rates in devices:
        if precision not in rates.matrix:
            names = ", ".join(rates.matrix)
            raise ConfigurationError(f"{rates.name} has no rate for precision '{precision}'; it has {names}")
    layers = dict.fromkeys(name for work in layout.work for name in work if name != "update")
    lines = tuple(_line(name, layout, devices, precision, batch) for name in [*layers, "update"])
    computing = max(
        sum(p.seconds(batch, precision, rates) for passes in work.values() for p in passes)
        for work, rates in zip(layout.work, devices, strict=True)
    )
    crossings = []
    for exchange in layout.exchanges:
        size = exchange.values * batch * PRECISIONS[precision]
        crossings.append(Crossing(exchange.reader, exchange.source, size, size / _speed(devices, link)))
    return Floor(precision, batch, lines, tuple(crossings), computing, 2 * sum(c.seconds for c in crossings))


def _line(name: str, layout: Layout, devices: Sequence[Rates], precision: str, batch: int) -> Line:
    """The floor of a layer on the device where it takes longest."""
    lines = []
    for work, rates in zip(layout.work, devices, strict=True):
        times = [(p, p.seconds(batch, precision, rates)) for p in work.get(name, ())]
        forward = sum(t for p, t in times if p.name == "forward")
        backward = sum(t for p, t in times if p.name != "forward")
        memory = sum(t for p, t in times if p.bytes(batch, precision) / rates.copy >= t)
        limit = "memory" if memory > (forward + backward) / 2 else "arithmetic"
        flops, moved = sum(p.flops for p, _ in times) * batch, sum(p.bytes(batch, precision) for p, _ in times)
        lines.append(Line(name, flops, moved, forward, backward, limit))
    return max(lines, key=lambda line: line.seconds)


def averaged(
    network: Network, columns: int, devices: Sequence[Rates], precision: str, batch: int, link: float | None = None
) -> Floor:
    """The floor of data parallelism: each device has the whole network and part of the batch; gradients are averaged.

    Each of n devices sends 2·(n − 1)/n of the gradients' bytes: its part of the sums, then its part of the results.
    """
    layout = lay_out(network, (0,) * columns)
    share = -(-batch // len(devices))
    slowest = max((floor(layout, [rates], precision, share) for rates in devices), key=lambda one: one.computing)
    size = layout.parameters * PRECISIONS[precision] * (len(devices) - 1) // len(devices)
    crossing = Crossing("update", "gradients", size, size / _speed(devices, link))
    return Floor(precision, batch, slowest.lines, (crossing,), slowest.computing, 2 * crossing.seconds)


def _speed(devices: Sequence[Rates], link: float | None) -> float:
    """Bytes per second between devices: as given, else the slowest device's."""
    unknown = [rates.name for rates in devices if rates.link is None]
    if link is None and unknown:
        raise ConfigurationError(
            f"the rate of the link to {unknown[0]} is not known; give it with --link, in gigabytes a second"
        )
    return link or min(rates.link for rates in devices if rates.link)

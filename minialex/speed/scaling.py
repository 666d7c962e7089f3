"""How long a step takes on many devices: computing, sums over links and network, what hides behind what, the update.

A step of ``B`` images on ``P`` devices, each with ``B/P`` of them:

- computing is the floor of `minialex.speed.plan` at a part of its speed, `SHARE`;
- a sum of ``S`` bytes over ``n`` places sends ``2(n − 1)/n · S`` from each: its part of the sums, then its part of the
  results; in two levels, within every node and then between the nodes with what is left for each device;
- gradients of the fully connected layers come first and hide behind the backward pass of what lies below them; those
  of the convolutions come last and are waited for.

Arithmetic, not measured. Tests hold the same functions to five published runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from minialex.errors import ConfigurationError
from minialex.network.network import Network
from minialex.speed.plan import floor, lay_out
from minialex.speed.rates import Rates

SHARE = 0.4
"""Of the floor's speed, at which devices are taken to compute; docs/performance.md has what was reached on one."""

MOST = 1024
"""Devices: what the published runs reach, doubled."""

GRADIENT = 4
"""Bytes of a number in a sum: gradients are float32 in every precision."""

SCHEMES = (
    "data parallel", "columns and data", "full layers divided (a)", "full layers divided (b)", "full layers divided (c)"
)  # fmt: skip
"""Krizhevsky's of 2014 differ in when images' values come to the full layers: (a) those of all devices at once, (b) one
device's after the other, (c) in as many turns a part of every device's; (b) and (c) compute while the next come."""

KEPT = 3
"""Numbers for each parameter: its weight, momentum and gradient."""


@dataclass(frozen=True)
class Cluster:
    """Devices in nodes.

    Attributes:
        nodes: machines
        each: devices of one
        inner: bytes a second from a device to others of its node, in one direction
        outer: bytes a second from a node to others, in one direction
        inner_delay: seconds until a message within a node begins to arrive
        outer_delay: between nodes
    """

    nodes: int
    each: int
    inner: float
    outer: float = math.inf
    inner_delay: float = 3e-6
    outer_delay: float = 8e-6

    @property
    def devices(self) -> int:
        """In all."""
        return self.nodes * self.each

    def used(self, devices: int) -> tuple[int, int]:
        """Devices of a node and nodes that so many devices are: whole nodes where one is not enough."""
        return min(devices, self.each), max(1, -(-devices // self.each))

    def all_reduce(self, size: float, devices: int) -> tuple[float, float]:
        """Seconds of a sum of so many bytes: within nodes, between them."""
        own, nodes = self.used(devices)
        inner = 2 * (own - 1) / own * size / self.inner + 2 * self.inner_delay * math.log2(own)
        outer = 2 * (nodes - 1) / nodes * size / self.outer + 2 * self.outer_delay * math.log2(nodes)
        return inner, outer

    def gather(self, size: float, devices: int) -> float:
        """Seconds until every device has the bytes of all, `size` of each; the way back takes as long."""
        own, nodes = self.used(devices)
        inner = (own - 1) * size / self.inner + self.inner_delay * own if own > 1 else 0.0
        outer = (nodes - 1) * own * size / self.outer + self.outer_delay * nodes if nodes > 1 else 0.0
        return max(inner, outer)

    def tell(self, size: float, devices: int) -> float:
        """Seconds until all devices have so many bytes of one of them, which sends them to each node or neighbour."""
        own, nodes = self.used(devices)
        inner = (own - 1) * size / self.inner + self.inner_delay * own if own > 1 else 0.0
        outer = (nodes - 1) * size / self.outer + self.outer_delay * nodes if nodes > 1 else 0.0
        return max(inner, outer)


@dataclass(frozen=True)
class Work:
    """What one device does in a step, and sends.

    Attributes:
        computing: seconds, without the update
        update: seconds
        behind: seconds of the backward pass after the first gradients: as long they may travel
        early: bytes of the gradients that come first
        late: bytes of those that come last
        full: seconds of the fully connected layers, both ways
        crossing: seconds in which layers' values go to other devices
        covered: of them those in which layers compute
        sent: bytes of such values that it sends
        arrived: bytes of such values that it holds at once
    """

    computing: float
    update: float
    behind: float
    early: float
    late: float
    full: float = 0.0
    crossing: float = 0.0
    covered: float = 0.0
    sent: float = 0.0
    arrived: float = 0.0


@dataclass(frozen=True)
class Step:
    """A step in seconds.

    Attributes:
        scheme: one of `SCHEMES`
        devices: how many
        images: of all devices
        computing: forward and backward
        update: of the weights
        crossing: values of other devices between layers
        inner: sums within nodes
        outer: sums between nodes
        hidden: of these three behind computing
        sent: bytes that each device sends
        memory: bytes that each holds: weights, momentum, gradients, and values that came from others
    """

    scheme: str
    devices: int
    images: int
    computing: float
    update: float
    crossing: float
    inner: float
    outer: float
    hidden: float
    sent: float
    memory: float

    @property
    def seconds(self) -> float:
        """In all."""
        return self.computing + self.update + self.crossing + self.inner + self.outer - self.hidden

    @property
    def images_per_second(self) -> float:
        """Of all devices."""
        return self.images / self.seconds


def step(scheme: str, work: Work, cluster: Cluster, devices: int, images: int) -> Step:
    """The step of so many devices that do the same work and sum over all of them."""
    early, late = cluster.all_reduce(work.early, devices), cluster.all_reduce(work.late, devices)
    gradients = work.early + work.late
    return Step(
        scheme, devices, images, work.computing, work.update, work.crossing, early[0] + late[0], early[1] + late[1],
        min(sum(early), work.behind) + work.covered, work.sent + 2 * (devices - 1) / devices * gradients,
        KEPT * gradients + work.arrived,
    )  # fmt: skip


def turns(
    cluster: Cluster, devices: int, share: float, first: int, others: int, full: float, scheme: str
) -> tuple[float, float]:
    """How long divided full layers' values travel in all, and for how much of that layers compute meanwhile.

    At once (a) nothing is computed meanwhile. In turns (b, c) a turn's values come, and the gradients of the one before
    go back, while the full layers compute; only the first must be waited for, and the last. Within a turn the layers
    wait for each other's units.

    Args:
        share: bytes of one value of each of a device's images
        first: values of an image that the first full layer reads
        others: that the others read
        full: seconds for which a device computes them
        scheme: see `SCHEMES`
    """
    if scheme == "a":
        return 2 * cluster.gather(share * (first + others), devices), 0.0
    units = 2 * cluster.gather(share * others / devices, devices)
    if scheme == "b":
        one = cluster.tell(share * first, devices)
        busy = one * devices / (devices - 1)  # who sends its images' values sends gradients of another's, too
    else:
        one = cluster.gather(share * first / devices, devices)
        busy = 2 * one
    computing = full / devices + units
    total = devices * (2 * one + units)
    waited = 2 * one + (devices - 1) * max(busy - computing, 0.0) + devices * units
    return total, max(total - waited, 0.0)


@dataclass(frozen=True)
class Subject:
    """A network on devices of one kind.

    Attributes:
        network: what is trained
        columns: of it
        device: of each, its rates
        precision: of the products
        share: of the floor's speed
    """

    network: Network
    columns: int
    device: Rates
    precision: str
    share: float = SHARE

    def full(self) -> tuple[int, int]:
        """Parameters of the fully connected layers, and the values of an image that they read."""
        shapes = [(name, p.shape) for name, p in self.network.parameters(self.columns).items()]
        layers = {name.layer for name, shape in shapes if len(shape) == 2}
        inputs = {name.layer: shape[1] for name, shape in shapes if len(shape) == 2}
        return sum(math.prod(shape) for name, shape in shapes if name.layer in layers), sum(inputs.values())

    @property
    def crossover(self) -> float:
        """The batch up to which divided full layers send less than their gradients: 2(P − 1) B/P · inputs each, not
        2(P − 1)/P · parameters."""
        parameters, inputs = self.full()
        return parameters / inputs

    def first(self) -> int:
        """The values of an image that the first fully connected layer reads."""
        return next(p.shape[1] for p in self.network.parameters(self.columns).values() if len(p.shape) == 2)

    def work(self, images: int, columns: int = 1) -> Work:
        """Of a device that has a whole network (`columns` 1) or one of its columns, for so many images of a step."""
        layout = lay_out(self.network, (0,) * self.columns if columns == 1 else tuple(range(self.columns)))
        found = floor(layout, [self.device] * len(layout.work), self.precision, images, link=math.inf)
        full = {name.layer for name, p in self.network.parameters(self.columns).items() if len(p.shape) == 2}
        update = next(line.seconds for line in found.lines if line.layer == "update")
        below = sum(line.backward for line in found.lines if line.layer not in full and line.layer != "update")
        early = self.full()[0] / columns
        late = layout.parameters / columns - early
        own = sum(line.seconds for line in found.lines if line.layer in full)
        computing, update, below, own = (t / self.share for t in (found.computing - update, update, below, own))
        return Work(computing, update, below, early * GRADIENT, late * GRADIENT, own)

    def data_parallel(self, cluster: Cluster, devices: int, images: int) -> Step:
        """Every device has the whole network."""
        return step(SCHEMES[0], self.work(-(-images // devices)), cluster, devices, images)

    def with_columns(self, cluster: Cluster, devices: int, images: int) -> Step:
        """Every group of devices has the network's columns, one each; the groups share the batch.

        The sums of the columns share a node's way out.
        """
        columns, groups = self.columns, devices // self.columns
        share = -(-images // groups)
        work = self.work(share, columns)
        exchanged = lay_out(self.network, tuple(range(columns))).exchanged * share * GRADIENT
        crossing = exchanged / cluster.inner + 2 * columns * 2 * cluster.inner_delay
        half = Cluster(
            cluster.nodes, max(1, cluster.each // columns), cluster.inner, cluster.outer / columns,
            cluster.inner_delay, cluster.outer_delay,
        )  # fmt: skip
        found = step(SCHEMES[1], replace(work, crossing=crossing, sent=exchanged), half, groups, images)
        return replace(found, devices=devices)

    def divided(self, cluster: Cluster, devices: int, images: int, scheme: str = "a") -> Step:
        """Krizhevsky's of 2014: convolutions share the batch, units of full layers are divided.

        Each device sends its images' values to all before every full layer, and takes their gradients back; of the
        full layers' weights nothing is sent, and every device updates its own. What the cost's outputs are is left out.

        Args:
            scheme: ``"a"``, ``"b"`` or ``"c"`` of `SCHEMES`
        """
        share = -(-images // devices)
        work, (_, inputs), first = self.work(share), self.full(), self.first()
        total, covered = turns(cluster, devices, share * GRADIENT, first, inputs - first, work.full, scheme)
        part = (work.late + work.early / devices) / (work.late + work.early)
        at_once = images if scheme == "a" else 2 * share  # one turn's are worked on while the next ones come
        own = replace(
            work, update=work.update * part, behind=0.0, early=0.0, crossing=total, covered=covered,
            sent=2 * (devices - 1) * share * inputs * GRADIENT,
            arrived=KEPT * work.early / devices + 2 * at_once * first * GRADIENT,
        )  # fmt: skip
        return step(SCHEMES["abc".index(scheme) + 2], own, cluster, devices, images)

    def ways(self, cluster: Cluster, devices: int, images: int) -> list[Step]:
        """The schemes that so many devices allow."""
        found = [self.data_parallel(cluster, devices, images)]
        if 1 < self.columns <= cluster.each and devices % self.columns == 0:
            found.append(self.with_columns(cluster, devices, images))
        if devices > 1:
            found += [self.divided(cluster, devices, images, scheme) for scheme in "abc"]
        return found


def counts(cluster: Cluster, images: int) -> list[int]:
    """Numbers of devices to look at: powers of two within a node, then powers of two of whole nodes, and all.

    Raises:
        ConfigurationError: If there are more than the model was checked for, or fewer images than devices.
    """
    if cluster.devices > MOST:
        raise ConfigurationError(f"{cluster.devices:,} devices are more than {MOST:,}, for which this arithmetic holds")
    if images < cluster.devices:
        raise ConfigurationError(f"{cluster.devices} devices have no share each of {images} images: --batch-size")
    found = [2**power for power in range(cluster.each.bit_length()) if 2**power < cluster.each]
    found += [cluster.each * 2**power for power in range(cluster.nodes.bit_length()) if 2**power < cluster.nodes]
    return [*found, cluster.devices]


def as_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Steps, as JSON takes them; seconds."""
    return [{**one.__dict__, "seconds": one.seconds, "images_per_second": one.images_per_second} for one in steps]

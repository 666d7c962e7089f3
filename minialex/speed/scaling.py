"""Models how long a step takes on many devices: computing, all-reduces over links and network, overlap, the update.

For a step of ``B`` images on ``P`` devices, each with ``B/P`` of them:

- computing is the floor of `minialex.speed.plan` at a fraction of its speed, `SHARE`;
- an all-reduce of ``S`` bytes over ``n`` places sends ``2(n − 1)/n · S`` from each: its part of the sums, then its part
  of the results; it has two levels, within every node and then between the nodes with each device's remaining part;
- gradients of the fully connected layers come first and overlap with the backward pass of the layers below them; those
  of the convolutions come last and are waited for.

This is arithmetic, not measurement. Tests compare the same functions with five published runs.
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
"""The assumed fraction of the floor's speed; docs/performance.md has what one device reached."""

MOST = 1024
"""The most devices: twice as many as the largest published run."""

GRADIENT = 4
"""Bytes per number in a sum: gradients are float32 in every precision."""

SCHEMES = (
    "data parallel", "columns and data", "full layers divided (a)", "full layers divided (b)", "full layers divided (c)"
)  # fmt: skip
"""Krizhevsky's schemes of 2014 differ in when activations reach the fully connected layers: (a) all devices' at once,
(b) one device's after another, (c) a part of every device's in each of as many turns; (b) and (c) overlap computation
with the next transfer."""

KEPT = 3
"""Numbers stored per parameter: its weight, momentum and gradient."""


@dataclass(frozen=True)
class Cluster:
    """Devices in nodes.

    Attributes:
        nodes: number of machines
        each: devices per machine
        inner: bytes per second from a device to others in its node, in one direction
        outer: bytes per second from a node to others, in one direction
        inner_delay: latency of a message within a node, in seconds
        outer_delay: latency between nodes, in seconds
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
        """Devices per node, and nodes, for `devices` devices: whole nodes if one is not enough."""
        return min(devices, self.each), max(1, -(-devices // self.each))

    def all_reduce(self, size: float, devices: int) -> tuple[float, float]:
        """Seconds of an all-reduce of `size` bytes: within nodes, and between them."""
        own, nodes = self.used(devices)
        inner = 2 * (own - 1) / own * size / self.inner + 2 * self.inner_delay * math.log2(own)
        outer = 2 * (nodes - 1) / nodes * size / self.outer + 2 * self.outer_delay * math.log2(nodes)
        return inner, outer

    def gather(self, size: float, devices: int) -> float:
        """Seconds of an all-gather of `size` bytes from each device; the reverse takes as long."""
        own, nodes = self.used(devices)
        inner = (own - 1) * size / self.inner + self.inner_delay * own if own > 1 else 0.0
        outer = (nodes - 1) * own * size / self.outer + self.outer_delay * nodes if nodes > 1 else 0.0
        return max(inner, outer)

    def tell(self, size: float, devices: int) -> float:
        """Seconds of a broadcast of `size` bytes from one device, which sends them to each node or neighbour."""
        own, nodes = self.used(devices)
        inner = (own - 1) * size / self.inner + self.inner_delay * own if own > 1 else 0.0
        outer = (nodes - 1) * size / self.outer + self.outer_delay * nodes if nodes > 1 else 0.0
        return max(inner, outer)


@dataclass(frozen=True)
class Work:
    """What one device computes and sends in a step.

    Attributes:
        computing: seconds, without the update
        update: seconds
        behind: seconds of the backward pass after the first gradients, with which their transfer may overlap
        early: bytes of the gradients that come first
        late: bytes of those that come last
        full: seconds of the fully connected layers, both passes
        crossing: seconds of transferring activations to other devices
        covered: the part of these that overlaps with computation
        sent: bytes of such activations that it sends
        arrived: bytes of such activations that it holds at once
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
        devices: number of devices
        images: images of all devices together
        computing: forward and backward pass
        update: update of the weights
        crossing: transfer of activations between devices
        inner: all-reduces within nodes
        outer: all-reduces between nodes
        hidden: the part of these three that overlaps with computing
        sent: bytes that each device sends
        memory: bytes that each holds: weights, momentum, gradients, and activations of others
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
        """Images per second of all devices."""
        return self.images / self.seconds


def step(scheme: str, work: Work, cluster: Cluster, devices: int, images: int) -> Step:
    """The step of `devices` devices that do the same work and all-reduce over all of them."""
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
    """Total transfer time of the activations of divided fully connected layers, and how much overlaps with computing.

    In scheme (a) nothing overlaps. In turns (b, c), one turn's activations arrive, and the previous one's gradients
    return, while the fully connected layers compute; only the first and the last transfer must be waited for. Within
    a turn the layers wait for each other's units.

    Args:
        share: bytes of one value for each of a device's images
        first: values per image that the first fully connected layer reads
        others: values per image that the other ones read
        full: seconds that a device takes to compute them
        scheme: see `SCHEMES`
    """
    if scheme == "a":
        return 2 * cluster.gather(share * (first + others), devices), 0.0
    units = 2 * cluster.gather(share * others / devices, devices)
    if scheme == "b":
        one = cluster.tell(share * first, devices)
        busy = one * devices / (devices - 1)  # a device that sends activations also sends another's gradients
    else:
        one = cluster.gather(share * first / devices, devices)
        busy = 2 * one
    computing = full / devices + units
    total = devices * (2 * one + units)
    waited = 2 * one + (devices - 1) * max(busy - computing, 0.0) + devices * units
    return total, max(total - waited, 0.0)


@dataclass(frozen=True)
class Subject:
    """A network on identical devices.

    Attributes:
        network: the network to train
        columns: its number of columns
        device: the rates of each device
        precision: precision of the products
        share: fraction of the floor's speed
    """

    network: Network
    columns: int
    device: Rates
    precision: str
    share: float = SHARE

    def full(self) -> tuple[int, int]:
        """Parameters of the fully connected layers, and the values per image that they read."""
        shapes = [(name, p.shape) for name, p in self.network.parameters(self.columns).items()]
        layers = {name.layer for name, shape in shapes if len(shape) == 2}
        inputs = {name.layer: shape[1] for name, shape in shapes if len(shape) == 2}
        return sum(math.prod(shape) for name, shape in shapes if name.layer in layers), sum(inputs.values())

    @property
    def crossover(self) -> float:
        """The batch size up to which divided fully connected layers send less than their gradients would:
        2(P − 1) B/P · inputs each, instead of 2(P − 1)/P · parameters."""
        parameters, inputs = self.full()
        return parameters / inputs

    def first(self) -> int:
        """The values per image that the first fully connected layer reads."""
        return next(p.shape[1] for p in self.network.parameters(self.columns).values() if len(p.shape) == 2)

    def work(self, images: int, columns: int = 1) -> Work:
        """The work of a device with a whole network (`columns` 1) or one of its columns, for `images` images a step."""
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

        The columns' sums share a node's network.
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
        """Krizhevsky's scheme of 2014: convolutions are data parallel, fully connected layers are divided by units.

        Before every fully connected layer each device sends its images' activations to all, and gets their gradients
        back; weights of these layers are not sent, and every device updates its own. The loss's outputs are neglected.

        Args:
            scheme: ``"a"``, ``"b"`` or ``"c"`` of `SCHEMES`
        """
        share = -(-images // devices)
        work, (_, inputs), first = self.work(share), self.full(), self.first()
        total, covered = turns(cluster, devices, share * GRADIENT, first, inputs - first, work.full, scheme)
        part = (work.late + work.early / devices) / (work.late + work.early)
        at_once = images if scheme == "a" else 2 * share  # one turn's are processed while the next arrive
        own = replace(
            work, update=work.update * part, behind=0.0, early=0.0, crossing=total, covered=covered,
            sent=2 * (devices - 1) * share * inputs * GRADIENT,
            arrived=KEPT * work.early / devices + 2 * at_once * first * GRADIENT,
        )  # fmt: skip
        return step(SCHEMES["abc".index(scheme) + 2], own, cluster, devices, images)

    def ways(self, cluster: Cluster, devices: int, images: int) -> list[Step]:
        """The steps of all schemes that `devices` devices allow."""
        found = [self.data_parallel(cluster, devices, images)]
        if 1 < self.columns <= cluster.each and devices % self.columns == 0:
            found.append(self.with_columns(cluster, devices, images))
        if devices > 1:
            found += [self.divided(cluster, devices, images, scheme) for scheme in "abc"]
        return found


def counts(cluster: Cluster, images: int) -> list[int]:
    """Numbers of devices to consider: powers of two within a node, then powers of two of whole nodes, and all.

    Raises:
        ConfigurationError: If there are more devices than the model was checked for, or fewer images than devices.
    """
    if cluster.devices > MOST:
        raise ConfigurationError(f"{cluster.devices:,} devices are more than {MOST:,}, for which this arithmetic holds")
    if images < cluster.devices:
        raise ConfigurationError(f"{cluster.devices} devices have no share each of {images} images: --batch-size")
    found = [2**power for power in range(cluster.each.bit_length()) if 2**power < cluster.each]
    found += [cluster.each * 2**power for power in range(cluster.nodes.bit_length()) if 2**power < cluster.nodes]
    return [*found, cluster.devices]


def as_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Steps as JSON values, in seconds."""
    return [{**one.__dict__, "seconds": one.seconds, "images_per_second": one.images_per_second} for one in steps]

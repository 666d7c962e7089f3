"""The output of ``minialex plan`` for many devices: `minialex.speed.scaling`'s results as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from minialex.screen.formats import amount, long_time, plural, seconds
from minialex.screen.sheet import Sheet
from minialex.speed.scaling import SHARE, Cluster, Subject, counts

LABEL = "arithmetic, not measured"


def growing(subject: Subject, cluster: Cluster, images: int, epoch: int, epochs: int) -> Sheet:
    """A step of data-parallel training on a growing number of devices.

    Args:
        images: images per step
        epoch: images per epoch
        epochs: epochs of the training run whose time is reported
    """
    alone = subject.data_parallel(cluster, 1, images)
    rows = []
    for devices in counts(cluster, images):
        one = subject.data_parallel(cluster, devices, images)
        times = [one.computing, one.update, one.inner, one.outer, one.hidden, one.seconds]
        rows.append([
            f"{devices:,}", f"{-(-images // devices):,}", *(seconds(time) if time else "–" for time in times),
            f"{one.images_per_second:,.0f}", f"{alone.seconds / one.seconds / devices:.0%}",
            long_time(epochs * epoch / one.images_per_second),
        ])  # fmt: skip
    header = ["devices", "images each", "computing", "update", "sums in a node", "between nodes", "of it hidden",
              "step", "images/s", "of linear", plural(epochs, 'epoch')]  # fmt: skip
    where = f"gradients summed over {subject.device.name}s, {subject.precision}"
    return Sheet(f"A step of {plural(images, 'image')}, {where} ({LABEL})", header, rows, "r")


def ways(subject: Subject, cluster: Cluster, batches: Sequence[int]) -> Sheet:
    """The schemes side by side, on all devices."""
    rows = []
    for images in batches:
        found = subject.ways(cluster, cluster.devices, images)
        best = min(found, key=lambda one: one.seconds)
        for one in found:
            waits = one.crossing + one.inner + one.outer - one.hidden
            rows.append([
                f"{images:,}", one.scheme, amount(one.sent, "B"), amount(one.memory, "B"),
                seconds(one.computing + one.update), seconds(waits) if waits else "–", seconds(one.seconds),
                f"{one.images_per_second:,.0f}{' *' if one is best else '  '}",
            ])  # fmt: skip
    header = ["batch", "scheme", "each sends", "each holds", "computing, update", "waiting", "step", "images/s"]
    return Sheet(f"Ways to use {plural(cluster.devices, 'device')} (* the fastest; {LABEL})", header, rows, "rlr")


def remarks(subject: Subject, cluster: Cluster) -> list[str]:
    """Sentences below the tables."""
    between = f", {amount(cluster.outer, 'B/s')} from a node to others" if cluster.nodes > 1 else ""
    return [
        f"{plural(cluster.devices, 'device')}, {cluster.each} in each of {plural(cluster.nodes, 'node')}; "
        f"{amount(cluster.inner, 'B/s')} from a device to others of its node{between}, each way; "
        f"rates of a device: {subject.device.source}",
        f"This is {LABEL}: devices compute at {SHARE:.0%} of the floor's speed, sums are of float32, those of the full "
        "layers hide behind the backward pass of the convolutions, and nothing else disturbs.",
        "Full layers divided over devices (Krizhevsky 2014) get images' values from all devices at once (a), from one "
        "after the other (b), or in turns a part of each one's (c), computing meanwhile. They send less than their "
        f"gradients would be up to a batch of {subject.crossover:,.0f} images, however many devices there are. What "
        "each holds: weights, momentum, gradients, and such values.",
    ]

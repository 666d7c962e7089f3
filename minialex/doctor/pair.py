"""Two devices: copies between them, and a network with a column on each, compared with the same network on one.

Where columns live must change no number. So a network is trained for some steps with its columns on both devices, on
the first one alone, and by the reference; the first two must agree bit for bit, the third within a bound. Then for
many steps while the devices are disturbed, and with the columns exchanged. This says nothing about speed.

Two unlike cards may round differently (libraries choose another kernel for each), so there bits are compared with an
undisturbed run on the same two cards, and with the reference within the bound.

It runs on any backend (``cpu:0,cpu:1`` are pretend devices), which is how it is tested. Not yet run on two GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend import registry
from minialex.backend.findings import Check, Copy
from minialex.backend.protocol import Backend
from minialex.data.statistics import Statistics
from minialex.engine.columns import Placement
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session
from minialex.errors import MinialexError
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load as load_recipe

BOUNDS = {"float32": 1e-2, "tf32": 0.4, "bfloat16": 0.7}
"""Largest relative distance (in norm) of any array's change after two steps from that in the reference.

Seen without a GPU: in float32 6e-6 (small network) and 3e-5 (the paper's), 1.7e-3 with Winograd's convolutions; with
emulated rounding 0.13 and 0.08 in tf32, 0.23 and 0.23 in bfloat16. It is not the rounding itself but the winners of
pooling and the neurons near zero that take the other side, on images that are noise. The bounds are a few times that
and catch what is grossly wrong (the conformance kit looks closely); comparing bits catches what crosses wrongly.
"""

ONE, UNDISTURBED = "one device", "an undisturbed run"  # whose bits are to be the same

FEW = 2  # steps that are compared with the reference


@dataclass(frozen=True)
class Outcome:
    """One comparison.

    Attributes:
        name: of what was done
        placement: where the columns were
        steps: of training
        against: what bits were compared with, empty where they were not
        differ: names of weights that are not the same bits
        distance: largest relative distance from the reference, None where it was not compared
        worst: the weight that has it
    """

    name: str
    placement: Placement
    steps: int
    against: str = ""
    differ: tuple[str, ...] = ()
    distance: float | None = None
    worst: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON takes them, which has no infinity."""
        infinite = self.distance is not None and math.isinf(self.distance)
        return {**asdict(self), "distance": "infinite" if infinite else self.distance}


def trained(
    recipe: Recipe, backend: Backend, placement: Placement, steps: int, progress: Callable[[int], None]
) -> dict[str, NDArray[Any]]:
    """All weights of a two-column network after some steps on random images, from the recipe's own beginning."""
    random = np.random.default_rng(2012)
    N, size = recipe.batch_size, recipe.image_size
    images = random.integers(0, 256, (N, 3, size, size), np.uint8)
    labels = random.integers(0, recipe.classes, N, np.int64)
    statistics = Statistics(np.full((3, size, size), 127.5, np.float32), np.eye(3) * 5000.0)
    session = Session(recipe, backend, placement, statistics)
    now = epoch_rates(recipe, 1, ())
    for step in range(steps):
        session.train(images, labels, step, now)
        progress(step + 1)
    return session.weights()


def differing(mine: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """Names of arrays that are not the same bits."""
    return tuple(name for name in mine if mine[name].tobytes() != others[name].tobytes())


def distance(
    mine: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]], initial: Mapping[str, NDArray[Any]]
) -> tuple[float, str]:
    """The largest relative distance of an array's change, ‖change − reference's change‖ / ‖reference's‖, and whose."""
    worst, whose = 0.0, ""
    for name, begin in initial.items():
        right = reference[name].astype(np.float64) - begin
        wrong = mine[name].astype(np.float64) - reference[name]
        size = float(np.linalg.norm(right))
        away = float(np.linalg.norm(wrong))
        relative = away / size if size else (0.0 if away == 0 else float("inf"))
        relative = float("inf") if np.isnan(relative) else relative
        if relative > worst:
            worst, whose = relative, name
    return worst, whose


def small_recipe(precision: str) -> Recipe:
    """The network that is trained most: AlexNet's small sibling, with all that draws or exchanges switched on."""
    return load_recipe("small").replace(classes=10, dropout=0.5, batch_size=16, precision=precision)


def full_recipe(precision: str) -> Recipe:
    """The paper's network, with as few images as will do."""
    return load_recipe("alexnet-2012").replace(batch_size=8, precision=precision)


Disturbed = Callable[[], AbstractContextManager[None]]
Progress = Callable[[str, int], None]


def columns(
    backend: Backend,
    pair: Placement,
    recipe: Recipe,
    steps: int,
    alike: bool,
    disturbed: Disturbed | None,
    progress: Progress,
) -> Iterator[Outcome]:
    """The comparisons, one after another (see the module's docstring); the last two only with `steps`."""
    first, second = pair
    one, swapped = (first, first), (second, first)

    def after(count: int, placement: Placement, what: str) -> dict[str, NDArray[Any]]:
        return trained(recipe, backend, placement, count, lambda done: progress(f"{recipe.model}: {what}", done))

    def compared(
        name: str, mine: Mapping[str, NDArray[Any]], placement: Placement, count: int, against: str,
        other: Mapping[str, NDArray[Any]],
    ) -> Outcome:  # fmt: skip
        """Bits against another run's, and where the reference made as many steps its distance from that."""
        near = distance(mine, right, initial) if count == FEW else (None, "")
        return Outcome(name, placement, count, against, differing(mine, other) if against else (), *near)

    reference = registry.load("numpy")
    progress(f"{recipe.model}: the reference", 0)
    initial, right = (
        trained(recipe, reference, (reference.devices[0],) * 2, count, lambda done: None) for count in (0, FEW)
    )
    against = ONE if alike else ""
    alone = after(FEW, one, "one device")
    yield compared(f"{recipe.model} on one device", alone, one, FEW, "", {})
    both = after(FEW, pair, "two devices")
    again = "again" if first == second else "on two"
    yield compared(f"{recipe.model} {again}", both, pair, FEW, against, alone)
    if not steps:
        return
    yield compared("columns exchanged", after(FEW, swapped, "columns exchanged"), swapped, FEW, against, alone)
    against = ONE if alike else UNDISTURBED
    long = after(steps, one if alike else pair, f"{against}, many steps")
    if disturbed is None:
        mine = after(steps, pair, "two devices, many steps")
        yield compared("many steps", mine, pair, steps, against, long)
        return
    with disturbed():
        mine = after(steps, pair, "two devices, disturbed")
    yield compared("many steps, disturbed", mine, pair, steps, against, long)


def copy_check(copy: Copy, backend: str) -> Check:
    """A copy between two devices of a backend as a finding."""
    way = "directly (peer access)" if copy.direct else "without peer access"
    topic = f"copy {backend}:{copy.source} to {backend}:{copy.target}"
    if copy.error or not copy.equal:
        return Check("pair", topic, "problem", f"{way}: {copy.error or 'bytes arrive changed'}", copy.mend)
    return Check("pair", topic, "ok", f"{way}: every byte arrives, {copy.rate / 1e9:,.1f} GB/s")


def outcome_check(outcome: Outcome, precision: str) -> Check:
    """A comparison as a finding."""
    where = f"{outcome.steps:,} steps with columns on {' and '.join(outcome.placement)}"
    if outcome.differ:
        return Check(
            "pair", outcome.name, "problem",
            f"{where}: {len(outcome.differ)} arrays are not the same bits as those of {outcome.against} "
            f"({', '.join(outcome.differ[:3])})",
            "please report it with the JSON file; until then train on one device: --devices "
            f"{outcome.placement[0]}",
        )  # fmt: skip
    if outcome.distance is not None and outcome.distance > BOUNDS[precision]:
        return Check(
            "pair", outcome.name, "problem",
            f"{where}: {outcome.worst} changed by {outcome.distance:.1e} of its change away from the reference "
            f"(bound {BOUNDS[precision]:.0e})",
            "please report it with the JSON file",
        )  # fmt: skip
    near = "" if outcome.distance is None else f", {outcome.distance:.1e} from the reference in {outcome.worst}"
    same = f", the same bits as those of {outcome.against}" if outcome.against else ""
    return Check("pair", outcome.name, "ok", where + same + near)


def run(
    backend: Backend,
    pair: Placement,
    recipe: Recipe,
    steps: int,
    disturbed: Disturbed | None,
    full: Recipe | None,
    progress: Progress = lambda what, done: None,
    *,
    alike: bool = True,
) -> tuple[list[Outcome], list[Check]]:
    """All comparisons, and what they say; an error ends them and is a finding too.

    Args:
        recipe: what is trained (see `small_recipe`)
        steps: of the long comparison
        disturbed: a context in which the devices are disturbed, None where that cannot be
        full: what is trained for a few steps too (see `full_recipe`)
        alike: whether the two devices are of one kind
    """
    outcomes: list[Outcome] = []
    failed: list[Check] = []
    try:
        for outcome in columns(backend, pair, recipe, steps, alike, disturbed, progress):
            outcomes.append(outcome)
        if full is not None:
            for outcome in columns(backend, pair, full, 0, alike, None, progress):
                outcomes.append(outcome)
    except MinialexError as error:
        failed = [Check("pair", "columns", "problem", str(error), "fix that and run this again")]
    return outcomes, [*(outcome_check(one, recipe.precision) for one in outcomes), *failed]

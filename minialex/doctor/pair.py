"""Two devices: copies between them, and a network with a column on each, compared with the same network on one.

The placement of columns must not change any number. So a network is trained for some steps with its columns on both
devices, on the first one alone, and by the reference; the first two must agree bit for bit, the third within a bound.
Then it is trained for many steps while the devices are disturbed, and with the columns swapped. Speed is not measured.

Two different GPU models may round differently (libraries choose different kernels), so their bits are compared with an
undisturbed run on the same two GPUs, and with the reference within the bound.

It runs on any backend (``cpu:0,cpu:1`` are pretend devices), which is how it is tested. It has not run on two GPUs yet.
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
from minialex.screen.formats import plural

BOUNDS = {"float32": 1e-2, "tf32": 0.4, "bfloat16": 0.7}
"""The largest relative distance (in norm) of any array's change after two steps from the reference's change.

Observed without a GPU: in float32 6e-6 (small network) and 3e-5 (the paper's), 1.7e-3 with Winograd convolutions; with
emulated rounding 0.13 and 0.08 in tf32, 0.23 and 0.23 in bfloat16. The cause is not the rounding itself but winners of
pooling and neurons near zero that flip, on noise images. The bounds are a few times that and catch gross errors (the
conformance kit checks closely); comparing bits catches wrong exchanges.
"""

ONE, UNDISTURBED = "one device", "an undisturbed run"  # whose bits must be the same

FEW = 2  # steps that are compared with the reference


@dataclass(frozen=True)
class Outcome:
    """One comparison.

    Attributes:
        name: what was done
        placement: the devices of the columns
        steps: number of training steps
        against: what the bits were compared with; empty if they were not compared
        differ: names of weights whose bits differ
        distance: largest relative distance from the reference; None if it was not compared
        worst: the weight with that distance
    """

    name: str
    placement: Placement
    steps: int
    against: str = ""
    differ: tuple[str, ...] = ()
    distance: float | None = None
    worst: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values, without infinity."""
        infinite = self.distance is not None and math.isinf(self.distance)
        return {**asdict(self), "distance": "infinite" if infinite else self.distance}


def trained(
    recipe: Recipe, backend: Backend, placement: Placement, steps: int, progress: Callable[[int], None]
) -> dict[str, NDArray[Any]]:
    """All weights of a two-column network after some steps on random images, from the recipe's initial weights."""
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
    """Names of arrays whose bits differ."""
    return tuple(name for name in mine if mine[name].tobytes() != others[name].tobytes())


def distance(
    mine: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]], initial: Mapping[str, NDArray[Any]]
) -> tuple[float, str]:
    """The largest relative distance of an array's change, ‖change − reference's‖ / ‖reference's‖, and its array."""
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
    """The network that is trained longest: AlexNet's small sibling, with every random and every exchange feature on."""
    return load_recipe("small").replace(classes=10, dropout=0.5, batch_size=16, precision=precision)


def full_recipe(precision: str) -> Recipe:
    """The paper's network, with as few images as suffice."""
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
    """Run the comparisons in turn (see the module's docstring); the last two only with `steps`."""
    first, second = pair
    one, swapped = (first, first), (second, first)

    def after(count: int, placement: Placement, what: str) -> dict[str, NDArray[Any]]:
        return trained(recipe, backend, placement, count, lambda done: progress(f"{recipe.model}: {what}", done))

    def compared(
        name: str, mine: Mapping[str, NDArray[Any]], placement: Placement, count: int, against: str,
        other: Mapping[str, NDArray[Any]],
    ) -> Outcome:  # fmt: skip
        """Compare bits with another run's and, if the reference made as many steps, compute the distance from it."""
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
    where = f"{plural(outcome.steps, 'step')} with columns on {' and '.join(outcome.placement)}"
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
    """Run all comparisons, and return the findings; an error ends them, and is a finding, too.

    Args:
        recipe: the recipe to train (see `small_recipe`)
        steps: number of steps of the long comparison
        disturbed: a context in which the devices are disturbed; None if that is impossible
        full: a recipe to train for a few steps, too (see `full_recipe`)
        alike: whether the two devices are of the same model
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

"""Guards that help beginners: a loss that stays at chance, dead units, a rate that diverges, NaN.

Each reports what was observed, the likely cause, and the recipe field to change.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from minialex.backend.program import ArrayName, flatten
from minialex.backend.protocol import Backend
from minialex.engine.session import Session
from minialex.engine.step import Plan
from minialex.ranks.group import ALONE, apart
from minialex.recipe.fields import Recipe

PATIENCE = 400  # steps at chance after which a loss counts as stuck
WINDOW = 50  # steps that are averaged


@dataclass
class LossGuard:
    """Watches the training loss; `see` returns a warning the first time that there is reason for one."""

    recipe: Recipe
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    best: float = math.inf
    steps: int = 0
    warned: set[str] = field(default_factory=set)

    def see(self, loss: float) -> str | None:
        """Take the loss of the next training step."""
        self.steps += 1
        self.recent.append(loss)
        if len(self.recent) < WINDOW:
            return None
        mean = sum(self.recent) / WINDOW
        self.best = min(self.best, mean)
        chance = math.log(self.recipe.classes)
        if mean > max(2 * chance, 2 * self.best) and self._first("diverges"):
            return (
                f"the loss rises: {mean:.3g} over the last {WINDOW} steps, it was {self.best:.3g}. The learning rate "
                f"is probably too high: try --learning-rate {self.recipe.learning_rate / 10:g}"
            )
        stuck = self.steps >= PATIENCE and self.best > 0.98 * chance and abs(mean - chance) < 0.03 * chance
        if stuck and self._first("stuck"):
            hint = (
                "initial weights that are too small for this network (try --init he), dead units (try --bias 0.1), or "
                "a learning rate that is too low"
                if self.recipe.init == "gaussian"
                else "dead units (try --bias 0.1) or a learning rate that does not fit "
                f"(now {self.recipe.learning_rate:g}; try ten times less, then ten times more)"
            )
            return (
                f"the loss stays at {mean:.3f}, which is ln({self.recipe.classes}): the network still guesses. "
                f"Likely causes: {hint}"
            )
        return None

    def _first(self, what: str) -> bool:
        fresh = what not in self.warned
        self.warned.add(what)
        return fresh


class Probe:
    """A backend that passes every operation's results to a function; updates are not carried out."""

    def __init__(self, backend: Backend, show: Callable[[str, list[Any]], None]) -> None:
        self._backend = backend
        self._show = show

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._backend, name)
        if not callable(member) or name in ("to_numpy", "to_device"):  # sums over ranks go through these
            return member
        if name == "sgd_update":

            def member(w: Any, v: Any, dw: Any, **numbers: float) -> Any:
                return self._backend.zeros((), "int64", w.device)

        def shown(*args: Any, **kwargs: Any) -> Any:
            result = member(*args, **kwargs)
            self._show(name, [item for item in flatten(result) if hasattr(item, "device")])
            return result

        return shown


def _walk(
    session: Session, plan: Plan, feed: Mapping[ArrayName, Any], see: Callable[[str, str, str, Any], None]
) -> None:
    """Run one training step, operation by operation, without updates; `see` gets (layer, phase, operation, array)."""
    where = ["", ""]

    def watch(layer: str, column: int, phase: str) -> None:
        where[:] = layer, phase

    def show(operation: str, arrays: list[Any]) -> None:
        for array in arrays:
            see(where[0], where[1], operation, session.backend.to_numpy(array))

    probe = cast(Backend, Probe(session.backend, show))
    session.walk("train", probe, plan)(feed, watch)


UPDATE = "the update itself (the rate is too large for these gradients)"


def first_not_finite(session: Session, feed: Mapping[ArrayName, Any]) -> str:
    """Where non-finite values first occur in a step: in the given parameters, or a layer's forward or backward pass.

    If ranks share a batch, each checks its own images, and all get the finding of the first that has one.
    """
    session.collect()
    found = session.plan.group.exchange(_own_not_finite(session, feed))
    return next((where for where in found if where != UPDATE), UPDATE)


def _own_not_finite(session: Session, feed: Mapping[ArrayName, Any]) -> str:
    for name, array in sorted(session.weights().items()):
        if not np.isfinite(array).all():
            return f"the weights '{name}'"
    found: list[str] = []

    def see(layer: str, phase: str, operation: str, array: Any) -> None:
        if not found and array.dtype.kind == "f" and not np.isfinite(array).all():
            found.append(f"layer '{layer}' ({phase} pass)")

    _walk(session, replace(session.plan.undivided(), group=apart(session.plan.group)), feed, see)
    return found[0] if found else UPDATE


def as_one(session: Session) -> Plan:
    """A session's plan for a batch in one piece, without other ranks."""
    return replace(session.plan, recipe=session.recipe.replace(shards=0), group=ALONE)


class _SeenEnough(Exception):
    """Ends a walk that has shown what was asked."""


def dead_units(session: Session, feed: Mapping[ArrayName, Any]) -> dict[str, float]:
    """For each ReLU layer, the fraction of channels that are zero for every image and position of a batch.

    Args:
        feed: a feed for the plan `as_one`
    """
    alive: dict[str, list[Any]] = {}

    def see(layer: str, phase: str, operation: str, array: Any) -> None:
        if phase == "backward":
            raise _SeenEnough
        if operation == "relu":
            on = (array > 0).any(axis=tuple(axis for axis in range(array.ndim) if axis != 1))
            alive.setdefault(layer, []).append(on)

    with contextlib.suppress(_SeenEnough):
        _walk(session, as_one(session), feed, see)
    return {layer: 1 - float(np.concatenate(parts).mean()) for layer, parts in alive.items()}


def dead_units_warning(fractions: Mapping[str, float], recipe: Recipe) -> str | None:
    """A warning if almost all units of a layer are dead."""
    dead = [f"{layer} ({fraction:.0%})" for layer, fraction in fractions.items() if fraction > 0.9]
    if not dead:
        return None
    return (
        f"almost all units are dead (zero for every image) in {', '.join(dead)}: nothing flows back through them. The "
        f"learning rate is probably too high (now {recipe.learning_rate:g}; try {recipe.learning_rate / 10:g}), or "
        "the initial biases are too low (try --bias 0.1)"
    )

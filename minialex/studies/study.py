"""Studies: the question, the arms and the regime of an ablation, as a TOML file.

Arms are compared with the first one, or with the one that they name. An arm is the base recipe, the study's
regime, the arm's own fields, and the learning rate that was found for it (``NAME.rates.toml`` beside the study, written
by ``minialex ablate NAME --calibrate``; see `minialex.studies.search`). A run's key is a hash of everything
that determines their numbers, so that studies can share them.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from minialex.errors import ConfigurationError, nearest
from minialex.recipe.fields import Recipe, fields
from minialex.recipe.toml import load as load_recipe

ORDER = (
    "relu", "columns", "columns-equal", "norm", "norm-cifar", "norm-constants", "pooling", "augmentation", "dropout",
    "depth", "decay", "momentum", "bias", "views", "ensemble", "data", "random-labels",
)  # fmt: skip
"""The studies, in the order of the course."""

RATES = ".rates.toml"
INDIFFERENT = ("loader_threads", "keep_checkpoints", "checkpoint_steps")
"""Fields outside [place] that do not change a run's numbers, either."""
MEASURES = {
    "error": "validation top-1 error, %",
    "gap": "validation minus training top-1 error, points",
    "training": "training top-1 error, %",
    "epochs": "epochs to a training error of 25 %",
    "start": "steps until the loss has left chance",
}
GOAL = 0.25
"""The training error of figure 1."""
EXPECTATIONS = ("worse", "better", "none")


@dataclass(frozen=True)
class Evaluate:
    """How an arm's networks are used, if that is not one view of one network."""

    views: int = 1
    average: int = 1


@dataclass(frozen=True)
class Arm:
    """One of the variants that a study compares.

    Attributes:
        name: a short name
        words: its description for readers
        fields: the recipe fields that it changes in the base recipe and regime
        expect: what the paper says of its measure, relative to the first arm's: ``"worse"``, ``"better"`` or ``"none"``
            (nothing)
        learning_rate: the rate found for it; None if none was searched
        rate_of: the arm whose learning rate it uses; empty for its own
        against: the arm that it is compared with; the first one if empty
        effect: the paper's difference from that arm, in points of top-1 error, if it gives one
    """

    name: str
    words: str
    fields: Mapping[str, Any]
    expect: str
    evaluate: Evaluate
    learning_rate: float | None = None
    rate_of: str = ""
    against: str = ""
    effect: float | None = None


@dataclass(frozen=True)
class FullScale:
    """The arm at the paper's scale: the recipe, and what was logged for it in 2012 (per cent)."""

    arm: str
    recipe: str
    log: str = ""
    set: str = ""
    top1: float | None = None
    top5: float | None = None
    base_log: str = ""
    base_top1: float | None = None
    base_top5: float | None = None


@dataclass(frozen=True)
class Published:
    """Others' measurements of an arm's innovation: their top-1 errors in per cent, without and with it."""

    arm: str
    source: str
    base: float
    value: float


@dataclass(frozen=True)
class Study:
    """The checked content of a study's file.

    Attributes:
        claim: the paper's claim
        section: its section in the paper
        measure: see `MEASURES`
        regime: recipe fields of all arms
        calibration: the search begins with the learning rates of ``grid`` (of ``grids`` for some arms), with ``seeds``
        evidence: the search's results: tables of arm, rate, seed, value and the key of the run
        published: others' figures
    """

    name: str
    title: str
    question: str
    section: str
    claim: str
    measure: str
    base: str
    seeds: tuple[int, ...]
    regime: Mapping[str, Any]
    arms: tuple[Arm, ...]
    full_scale: tuple[FullScale, ...]
    calibration: Mapping[str, Any]
    evidence: tuple[Mapping[str, Any], ...]
    published: tuple[Published, ...] = ()

    @property
    def goal(self) -> float | None:
        """The training error at which a run may stop; None if every run trains to its end."""
        return GOAL if self.measure == "epochs" else None

    def arm(self, name: str) -> Arm:
        """The arm with a given name."""
        known = {arm.name: arm for arm in self.arms}
        if name not in known:
            raise ConfigurationError(f"study '{self.name}' has no arm '{name}'.{nearest(name, known)}")
        return known[name]

    def recipe(self, arm: Arm, seed: int) -> Recipe:
        """The recipe to train for an arm and a seed."""
        rate = {} if arm.learning_rate is None else {"learning_rate": arm.learning_rate}
        return _changed(load_recipe(self.base), {**self.regime, **arm.fields, "seed": seed, **rate})

    def search_recipe(self, arm: Arm, seed: int, rate: float) -> Recipe:
        """The recipe to train in the search for an arm's learning rate: the arm itself, at full length."""
        return _changed(self.recipe(arm, seed), {"learning_rate": rate})

    def compared_with(self, arm: Arm) -> Arm:
        """The arm that an arm is compared with."""
        return self.arm(arm.against) if arm.against else self.arms[0]

    def grid(self, arm: Arm) -> tuple[float, ...]:
        """The learning rates to search for an arm."""
        special: Mapping[str, Any] = self.calibration.get("grids", {})
        return tuple(special.get(arm.name, self.calibration.get("grid", ())))


def key(recipe: Recipe) -> str:
    """The key of a run: a hash of all fields that determine its numbers, not of where it is computed."""
    return hashlib.sha256(json.dumps(deciding_fields(recipe), sort_keys=True).encode()).hexdigest()[:16]


def deciding_fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields as JSON values, without those that change no number; of the data, only the name.

    Fields with their default value are left out, so that a field added to recipes later changes no run's key.
    """
    usual = Recipe()
    chosen = {
        name: getattr(recipe, name)
        for name, (table, _) in fields().items()
        if table != "place" and name not in INDIFFERENT and getattr(recipe, name) != getattr(usual, name)
    }
    return {**chosen, "data": recipe.data.partition(":")[0]}


def names() -> tuple[str, ...]:
    """The names of the built-in studies, in course order."""
    files = {item.name for item in _folder().iterdir()}
    found = {name.removesuffix(".toml") for name in files if name.endswith(".toml") and not name.endswith(RATES)}
    return tuple(name for name in ORDER if name in found) + tuple(sorted(found - set(ORDER)))


def study(name: str) -> Study:
    """Load a built-in study by name, or a study from a TOML file by path.

    Raises:
        ConfigurationError: If there is none, it is not TOML, or something in it is unknown or wrong.
    """
    folder: Traversable | Path
    if name in names():
        folder, stem = _folder(), name
    elif name.endswith(".toml") and Path(name).is_file():
        folder, stem = Path(name).parent, Path(name).name.removesuffix(".toml")
    else:
        raise ConfigurationError(f"no study '{name}'.{nearest(name, names())} `minialex ablate --list` has all")
    text, beside = (folder / f"{stem}.toml").read_text(encoding="utf-8"), folder / f"{stem}{RATES}"
    return parse(text, stem, beside.read_text(encoding="utf-8") if beside.is_file() else "")


@lru_cache(maxsize=64)
def parse(text: str, name: str, rates: str = "") -> Study:
    """Parse a study from the text of its file and of its file of learning rates.

    Raises:
        ConfigurationError: If something in it is unknown or wrong; arms are built far enough to check their fields.
    """
    where = f"study '{name}'"
    table, search = _toml(text, where), _toml(rates, f"rates of {where}")
    needed = ("title", "question", "section", "claim", "measure", "base", "seeds", "arms")
    _known(table, (*needed, "effect", "expect", "regime", "calibration", "full_scale", "published"), where)
    for field in needed:
        if field not in table:
            raise ConfigurationError(f"{where}: '{field}' is missing")
    if table["measure"] not in MEASURES:
        raise ConfigurationError(f"{where}: no measure '{table['measure']}'.{nearest(table['measure'], MEASURES)}")
    chosen, calibration = search.get("rates", {}), table.get("calibration", {})
    _known(calibration, ("grid", "grids", "seeds"), f"[calibration] of {where}")
    if calibration and len(calibration.get("seeds", ())) < 2:
        raise ConfigurationError(f"{where}: [calibration] needs two seeds or more")
    arms: list[Arm] = []
    for entry in table["arms"]:
        _known(
            entry,
            ("name", "words", "fields", "expect", "evaluate", "rate_of", "against", "effect"),
            f"an arm of {where}",
        )
        if "name" not in entry or any(arm.name == entry["name"] for arm in arms):
            raise ConfigurationError(f"{where}: every arm needs a name of its own")
        expect = entry.get("expect", table.get("expect", "none")) if arms else "none"
        if expect not in EXPECTATIONS:
            raise ConfigurationError(f"{where}: expect is one of {', '.join(EXPECTATIONS)}, not '{expect}'")
        if entry.get("against", entry["name"]) not in (entry["name"], *(arm.name for arm in arms)):
            raise ConfigurationError(
                f"{where}: arm '{entry['name']}' is compared with '{entry['against']}', no arm above it"
            )
        use = entry.get("evaluate", {})
        _known(use, ("views", "average"), f"arm '{entry['name']}' of {where}")
        rate = chosen.get(entry.get("rate_of", entry["name"]))
        arm = {"words": entry["name"], "fields": {}, "effect": table.get("effect"), **entry}
        arms.append(Arm(**{**arm, "expect": expect, "evaluate": Evaluate(**use), "learning_rate": rate}))
    seeds = tuple(table["seeds"])
    if len(arms) < 2 or not seeds or len(set(seeds)) != len(seeds):
        raise ConfigurationError(f"{where}: needs two arms or more, and seeds that differ")
    full, published = table.get("full_scale", ()), table.get("published", ())
    for kind, entries in ((FullScale, full), (Published, published)):
        for entry in entries:
            _known(entry, tuple(kind.__dataclass_fields__), f"full_scale or published of {where}")
    given = {field: table[field] for field in ("title", "question", "claim", "measure", "base")}
    made = Study(
        **given, name=name, section=str(table["section"]), seeds=seeds, arms=tuple(arms),
        regime=table.get("regime", {}), calibration=calibration,
        full_scale=tuple(FullScale(**entry) for entry in full), evidence=tuple(search.get("evidence", ())),
        published=tuple(Published(**entry) for entry in published),
    )  # fmt: skip
    mentioned = [line.arm for line in made.full_scale] + [line.arm for line in made.published]
    for arm_name in (*chosen, *mentioned):
        made.arm(arm_name)
    for each in arms:
        made.recipe(each, seeds[0])
    return made


def _folder() -> Traversable:
    return resources.files("minialex.studies") / "designs"


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not TOML: {error}") from None


def _known(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigurationError(f"{where}: unknown '{name}'.{nearest(name, known)}")


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Change fields of a recipe to values from TOML; its lists become tuples."""
    return recipe.replace(**{name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()})

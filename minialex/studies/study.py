"""Studies: the question, the arms and the regime of an ablation, as a TOML file.

Arms are compared with the first one, or with the one that they name. An arm is the base recipe, the study's
regime, the arm's own fields, and the learning rate that was found for it (``NAME.rates.toml`` beside the study, written
by ``minialex ablate NAME --calibrate``; see `minialex.studies.search`). A run's key is a hash of everything
that determines their numbers, so that studies can share them.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from minialex.errors import ConfigurationError, nearest
from minialex.recipe.fields import Recipe, fields
from minialex.recipe.toml import built_in
from minialex.recipe.toml import load as load_recipe
from minialex.recipe.toml import read as read_toml
from minialex.screen.formats import plain
from minialex.studies import contents

ORDER = (
    "relu", "columns", "columns-equal", "norm", "norm-cifar", "norm-constants", "pooling", "augmentation", "dropout",
    "depth", "decay", "momentum", "bias", "views", "ensemble", "data", "random-labels",
)  # fmt: skip
"""The studies, in the order of the course."""

RATES = ".rates.toml"
INDIFFERENT = ("loader_threads", "keep_checkpoints", "checkpoint_steps", "validation_epochs")
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


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and 0 < value < math.inf


def _seed(value: Any) -> bool:
    return type(value) is int and value >= 0


def _listed(value: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether a value is a list of such values, none of them twice."""
    return isinstance(value, list) and all(map(holds, value)) and len(set(value)) == len(value)


KINDS: Mapping[str, Callable[[Any], bool]] = {
    "a line of text": lambda value: isinstance(value, str) and value.strip() != "" and plain(value) == value,
    "a line of text or a number": lambda value: _number(value) or KINDS["a line of text"](value),
    "a number": lambda value: _number(value) and not math.isnan(value),
    "a number above 0": _positive,
    "a whole number": _seed,
    "a whole number above 0": lambda value: _seed(value) and value > 0,
    "1 or 10": lambda value: value in (1, 10),
    "a list of whole numbers, seeds that differ": lambda value: _listed(value, _seed),
    "a list of numbers above 0 that differ": lambda value: _listed(value, _positive) and bool(value),
    "a table": lambda value: isinstance(value, dict),
    "a list of tables": lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
}
"""What a value in a study's file may be."""

TEXT, TABLE, TABLES, PERCENT = "a line of text", "a table", "a list of tables", "a number"
SEEDS, EFFECT = "a list of whole numbers, seeds that differ", "a number above 0"
STUDY = {
    "title": TEXT, "question": TEXT, "section": "a line of text or a number", "claim": TEXT, "measure": TEXT,
    "base": TEXT, "seeds": SEEDS, "arms": TABLES,
}  # fmt: skip
STUDY_MAY = {
    "effect": EFFECT, "expect": TEXT, "regime": TABLE, "calibration": TABLE, "full_scale": TABLES, "published": TABLES,
}  # fmt: skip
CALIBRATION_MAY = {"grid": "a list of numbers above 0 that differ", "grids": TABLE, "seeds": SEEDS}
ARM_MAY = {
    "words": TEXT, "fields": TABLE, "expect": TEXT, "evaluate": TABLE, "rate_of": TEXT, "against": TEXT,
    "effect": EFFECT,
}  # fmt: skip
EVALUATE_MAY = {"views": "1 or 10", "average": "a whole number above 0"}
FULL_SCALE, PUBLISHED = {"arm": TEXT, "recipe": TEXT}, {"arm": TEXT, "source": TEXT, "base": PERCENT, "value": PERCENT}
FULL_SCALE_MAY = {
    "log": TEXT, "set": TEXT, "top1": PERCENT, "top5": PERCENT, "base_log": TEXT, "base_top1": PERCENT,
    "base_top5": PERCENT,
}  # fmt: skip
RATES_MAY = {"rates": TABLE, "evidence": TABLES}
EVIDENCE = {"arm": TEXT, "rate": "a number above 0", "seed": "a whole number", "value": "a number", "key": TEXT}
"""The fields of the tables of a study's file, and of that of its rates: needed ones, and those that may be there."""


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
        base = load_recipe(self.base) if self.base.endswith(".toml") else _preset(self.base)
        return _changed(base, {**self.regime, **arm.fields, "seed": seed, **rate})

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
    """The key of a run: a hash of all fields that determine its numbers, not of where it is computed.

    Images and a network that are named by a path count with their contents: see `minialex.studies.contents`.
    """
    return _hash({**deciding_fields(recipe), **contents.digests(recipe)})


def _hash(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


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
    beside = rates_file(name)
    file, stem = beside.with_name(beside.name.removesuffix(RATES) + ".toml"), beside.name.removesuffix(RATES)
    text = read_toml(file, f"the study {file}")
    return parse(text, stem, read_toml(beside, f"the rates {beside}") if beside.is_file() else "")


def rates_file(name: str) -> Path:
    """Where the learning rates of a study are kept: beside its file, that of a built-in one or one's own.

    Raises:
        ConfigurationError: If there is no such study.
    """
    if name in names():
        return Path(str(_folder())) / f"{name}{RATES}"
    path = Path(name)
    if not name.endswith(".toml") or not path.is_file():
        raise ConfigurationError(f"no study '{name}'.{nearest(name, names())} `minialex ablate --list` has all")
    return path.with_name(path.name.removesuffix(".toml") + RATES)


@lru_cache(maxsize=64)
def parse(text: str, name: str, rates: str = "") -> Study:
    """Parse a study from the text of its file and of its file of learning rates.

    Raises:
        ConfigurationError: If something in it is unknown or wrong; arms are built far enough to check their fields.
    """
    where = f"study '{name}'"
    table, search = _toml(text, where), _toml(rates, f"rates of {where}")
    _check(table, STUDY, STUDY_MAY, where)
    _check(search, {}, RATES_MAY, f"rates of {where}")
    if table["measure"] not in MEASURES:
        raise ConfigurationError(f"{where}: no measure '{table['measure']}'.{nearest(table['measure'], MEASURES)}")
    chosen, calibration = search.get("rates", {}), table.get("calibration", {})
    seeds = tuple(table["seeds"])
    arms: list[Arm] = []
    known: set[str] = set()
    for entry in table["arms"]:
        _check(entry, {"name": TEXT}, ARM_MAY, f"an arm of {where}")
        name_, use = entry["name"], entry.get("evaluate", {})
        if name_ in known:
            raise ConfigurationError(f"{where}: every arm needs a name of its own, and two are '{name_}'")
        expect = entry.get("expect", table.get("expect", "none")) if arms else "none"
        if expect not in EXPECTATIONS:
            raise ConfigurationError(f"{where}: expect is one of {', '.join(EXPECTATIONS)}, not '{expect}'")
        for field, what in (("against", "is compared with"), ("rate_of", "uses the learning rate of")):
            if field in entry and entry[field] not in known:
                raise ConfigurationError(f"{where}: arm '{name_}' {what} '{entry[field]}', no arm above it")
        _check(use, {}, EVALUATE_MAY, f"arm '{name_}' of {where}")
        rate = chosen.get(entry.get("rate_of", name_))
        arm = {"words": name_, "fields": {}, "effect": table.get("effect"), **entry}
        arms.append(Arm(**{**arm, "expect": expect, "evaluate": Evaluate(**use), "learning_rate": rate}))
        known.add(name_)
    if len(arms) < 2 or not seeds:
        raise ConfigurationError(f"{where}: needs two arms or more, and seeds")
    full, published = table.get("full_scale", ()), table.get("published", ())
    for entry in full:
        _check(entry, FULL_SCALE, FULL_SCALE_MAY, f"[[full_scale]] of {where}")
        if entry["recipe"].endswith(".toml"):  # one's own, as a base may be
            load_recipe(entry["recipe"])
        elif entry["recipe"] not in built_in():
            raise ConfigurationError(
                f"[[full_scale]] of {where}: no recipe '{entry['recipe']}'.{nearest(entry['recipe'], built_in())}"
            )
    for entry in published:
        _check(entry, PUBLISHED, {}, f"[[published]] of {where}")
    for entry in search.get("evidence", ()):
        _check(entry, EVIDENCE, {}, f"rates of {where}")
    given = {field: table[field] for field in ("title", "question", "claim", "measure", "base")}
    made = Study(
        **given, name=name, section=str(table["section"]), seeds=seeds, arms=tuple(arms),
        regime=table.get("regime", {}), calibration=calibration,
        full_scale=tuple(FullScale(**entry) for entry in full), evidence=tuple(search.get("evidence", ())),
        published=tuple(Published(**entry) for entry in published),
    )  # fmt: skip
    mentioned = (*chosen, *(line.arm for line in made.full_scale), *(line.arm for line in made.published))
    for arm_name in dict.fromkeys(mentioned):
        made.arm(arm_name)
    if calibration:
        _check_search(made, where)
    _check_arms(made, where)
    return made


def _check_search(study: Study, where: str) -> None:
    """That a search can begin, and that it uses no run that is compared."""
    calibration = study.calibration
    _check(calibration, {}, CALIBRATION_MAY, f"[calibration] of {where}")
    if len(calibration.get("seeds", ())) < 2:
        raise ConfigurationError(f"{where}: [calibration] needs two seeds or more")
    if both := sorted(set(calibration["seeds"]) & set(study.seeds)):
        raise ConfigurationError(f"{where}: seed {both[0]} is compared, so that [calibration] may not use it, too")
    for name in (grids := calibration.get("grids", {})):
        study.arm(name)
    _check(grids, {}, dict.fromkeys(grids, CALIBRATION_MAY["grid"]), f"[calibration] grids of {where}")
    for arm in study.arms:
        if not arm.rate_of and not study.grid(arm):
            raise ConfigurationError(f"{where}: [calibration] has no grid of learning rates for arm '{arm.name}'")


def _check_arms(study: Study, where: str) -> None:
    """That the arms' fields exist, that two arms are two, and that a rate is used by what it was found for."""
    seen: dict[tuple[str, Evaluate], str] = {}
    trained: dict[str, str] = {}
    for arm in study.arms:
        try:
            recipe = study.recipe(arm, study.seeds[0])
        except ConfigurationError as error:
            raise ConfigurationError(f"arm '{arm.name}' of {where}: {error}") from None
        if study.calibration:  # which will find a rate of its own for each
            recipe = recipe.replace(learning_rate=1.0)
        trained[arm.name] = _hash(deciding_fields(recipe))  # of the same contents, which need not be there yet
        same = seen.setdefault((trained[arm.name], arm.evaluate), arm.name)
        if same != arm.name:
            raise ConfigurationError(f"{where}: arms '{same}' and '{arm.name}' train the same: there is no difference")
        if arm.rate_of and trained[arm.rate_of] != trained[arm.name]:
            raise ConfigurationError(
                f"{where}: arm '{arm.name}' trains something else than '{arm.rate_of}', whose learning rate it uses: "
                "leave out rate_of"
            )


def _folder() -> Traversable:
    return resources.files("minialex.studies") / "designs"


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{where} is not TOML: {error}") from None


def _check(table: Mapping[str, Any], needed: Mapping[str, str], may: Mapping[str, str], where: str) -> None:
    """That a table has all that it needs, nothing unknown, and values of the right kinds."""
    kinds = {**needed, **may}
    for name, value in table.items():
        if name not in kinds:
            raise ConfigurationError(f"{where}: unknown '{name}'.{nearest(name, kinds)}")
        if not KINDS[kinds[name]](value):
            raise ConfigurationError(f"{where}: '{name}' must be {kinds[name]}, not {value!r}"[:300])
    for name in needed:
        if name not in table:
            raise ConfigurationError(f"{where}: '{name}' is missing")


@lru_cache(maxsize=8)
def _preset(name: str) -> Recipe:
    return load_recipe(name)


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Change fields of a recipe to values from TOML; its lists become tuples."""
    return recipe.replace(**{name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()})

"""An outcome as text and as a table. Nothing is written by hand for a single study: verdicts follow from the numbers.

The rules, for an arm whose measure is, according to the paper, worse (or better) than that of the arm it is compared
with:

- *not comparable yet*: the outcome was recorded with another design than the study has now, or a learning rate was not
  searched as `minialex.studies.search` asks;
- *cannot tell*: the difference had no time to act. Weight decay shrinks a weight that gets no gradient by
  exp(−Σ ε/(1 − μ) · λ) in a run; if that differs by less than one e-folding between the arms, nothing is tested.
  Or neither arm's runs all reached the goal: two lower bounds have no difference. Or another number of networks was
  averaged than the study says;
- *shown at this scale*: the 95% interval of the difference is entirely on the paper's side of zero, and Holm's
  corrected p is below 0.05, of three seeds or more: two that agree by chance leave no spread at all. A lower bound, of
  runs that did not reach the goal, shows a difference only if the true one is larger still;
- *the opposite was shown at this scale*: the same on the other side, and the search for learning rates has the same
  sign at the two best rates of both arms (which it cannot have of a gap: the search is for the lowest error);
- *not shown*: the interval includes zero and excludes a difference as large as the paper's (or, if the
  paper gives no number, as one point) in the paper's direction;
- *undecided*: everything else: there are too few seeds, or the effect is too small, to tell.

If the interval includes zero, the words are "no difference shown", whatever the verdict. If the paper claims
nothing, the verdict says whether there is a difference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from minialex.engine.schedule import epoch_rates
from minialex.recipe.fields import Recipe
from minialex.screen.formats import plural
from minialex.speed import machine
from minialex.studies import search
from minialex.studies.outcome import ArmResult, Outcome
from minialex.studies.statistics import Estimate
from minialex.studies.study import FullScale, Study, deciding_fields, key

SHOWN = "shown at this scale"
OPPOSITE = "the opposite was shown at this scale"
NOT_SHOWN = "not shown"
UNDECIDED = "undecided"
DIFFERENT, NO_DIFFERENCE = "a difference was shown at this scale", "no difference shown"
NOT_YET = "not comparable yet"
CANNOT_TELL = "cannot tell"
OTHER_DESIGN = "it was recorded with another design or other learning rates"
QUICK = "quick mode: everything runs; nothing is claimed"
SIGNIFICANT = 0.05
FEWEST = 3  # seeds
OF_INTEREST = 1.0  # points, where the paper gives no number

HEADS = {
    "error": "top-1 error, %",
    "gap": "validation − training error, points",
    "training": "training top-1 error, %",
    "epochs": "epochs to 25% training error",
    "start": "steps until the loss has left chance",
}
UNITS = {
    "error": "points of top-1 error", "gap": "points", "training": "points of training error", "epochs": "epochs",
    "start": "steps",
}  # fmt: skip
DIGITS = {"error": 1, "gap": 1, "training": 1, "epochs": 2, "start": 0}
"""HEADS, UNITS and DIGITS by measure: the column heading, the unit in a sentence, the digits after the point."""


def judge(found: Estimate, adjusted: float, expect: str, effect: float | None) -> str:
    """The verdict on a difference (arm minus base); see the rules above."""
    certain = not found.includes_zero and adjusted < SIGNIFICANT and found.count >= FEWEST
    if expect == "none":
        return DIFFERENT if certain else NO_DIFFERENCE if found.includes_zero else UNDECIDED
    sign = 1 if expect == "worse" else -1
    if certain:
        return SHOWN if sign * found.mean > 0 else OPPOSITE
    if found.includes_zero:
        farthest = found.high if sign > 0 else -found.low
        if farthest < abs(effect if effect is not None else OF_INTEREST):
            return NOT_SHOWN
    return UNDECIDED


def judgement(outcome: Outcome, arm: ArmResult) -> str:
    """An arm's verdict."""
    if outcome.quick:
        return QUICK
    if reason := not_comparable(outcome, arm):
        return f"{NOT_YET}: {reason}"
    if reason := untellable(outcome, arm):
        return f"{CANNOT_TELL}: {reason}"
    of = outcome.study.arm(arm.name)
    effect = {"error": of.effect, "epochs": 1.0}.get(outcome.study.measure)
    found = outcome.differences[arm.name]
    said = judge(found, outcome.adjusted[arm.name], of.expect, effect)
    if said == OPPOSITE and not search.agree(outcome.study, of, -1 if of.expect == "worse" else 1):
        return UNDECIDED
    if said != NO_DIFFERENCE and {arm.name, outcome.compared_with(arm).name} & outcome.censored:
        larger = arm.name in outcome.censored  # than found is the true difference; else smaller
        if said == NOT_SHOWN or (found.mean > 0) != larger:
            return UNDECIDED
    return said


def untellable(outcome: Outcome, arm: ArmResult) -> str:
    """Why an arm's difference says nothing, or an empty text."""
    if (folds := decay_folds(outcome, arm)) is not None and folds < 1:
        return f"the decay had {folds:.1g} of an e-folding to act"
    if {arm.name, outcome.compared_with(arm).name} <= outcome.censored:
        return "neither reached the goal with every seed"
    wanted = outcome.study.arm(arm.name).evaluate.average
    if wanted > 1 and len(outcome.seeds) != wanted:
        return f"an average of {plural(len(outcome.seeds), 'network')}, not of {wanted}"
    return ""


def not_comparable(outcome: Outcome, arm: ArmResult) -> str:
    """Why an arm cannot be compared in the study's current form, or an empty text."""
    study = outcome.study
    for result in (outcome.compared_with(arm), arm):
        of = study.arm(result.name)
        if other_keys(outcome, result):
            return OTHER_DESIGN
        if reason := search.lacking(study, of):
            return reason
    return ""


def other_keys(outcome: Outcome, result: ArmResult) -> bool:
    """Whether an arm's runs are not those that the study asks for now."""
    of = outcome.study.arm(result.name)
    return result.keys != tuple(key(outcome.study.recipe(of, seed)) for seed in outcome.seeds)


def other_design(outcome: Outcome) -> bool:
    """Whether any arm's runs are not those that the study asks for now."""
    return any(other_keys(outcome, result) for result in outcome.arms)


def decay_folds(outcome: Outcome, arm: ArmResult) -> float | None:
    """By how many e-foldings weight decay alone shrinks weights more in one of two arms; None if more differs."""
    study, seed = outcome.study, outcome.seeds[0]
    compared = (outcome.compared_with(arm), arm)
    recipes = [study.recipe(study.arm(each.name), seed) for each in compared]
    fields = [deciding_fields(recipe) for recipe in recipes]
    differ = {name for name in {**fields[0], **fields[1]} if fields[0].get(name) != fields[1].get(name)}
    if differ - {"learning_rate"} != {"weight_decay"}:
        return None
    limit = study.recipe(study.arms[0], seed).train_images  # of the images that were counted
    shrunk = []
    for recipe, each in zip(recipes, compared, strict=True):
        images = int(outcome.facts["training_images"] if recipe.train_images == limit else recipe.train_images)
        until = max(outcome.numbers(each)) if study.measure in ("epochs", "start") else math.inf
        epochs = until / (images // recipe.batch_size) if study.measure == "start" else until
        shrunk.append(shrinkage(recipe, images, epochs))
    return abs(shrunk[0] - shrunk[1])


def shrinkage(recipe: Recipe, images: int, epochs: float = math.inf) -> float:
    """By how many e-foldings weight decay alone shrinks a weight in a training on so many images, or its beginning.

    A plateau's cuts are not known beforehand: with them it is less.
    """
    last = math.ceil(min(epochs, recipe.epochs))
    rates = sum(
        epoch_rates(recipe, epoch, ()).learning_rate * min(1.0, epochs - epoch + 1) for epoch in range(1, last + 1)
    )
    return rates * (images // recipe.batch_size) / (1 - recipe.momentum) * recipe.weight_decay


def verdict(outcome: Outcome) -> tuple[str, ...]:
    """Sentences on what the outcome shows, one per arm."""
    if outcome.quick:
        return (QUICK + ".",)
    return tuple(_sentence(outcome, arm) for arm in outcome.arms[1:])


def _sentence(outcome: Outcome, arm: ArmResult) -> str:
    study = outcome.study
    base, mine = study.arm(outcome.compared_with(arm).name), study.arm(arm.name)
    found, said = outcome.differences[arm.name], judgement(outcome, arm)
    paired = f"{found.count:,} validation images" if arm.name in outcome.images else f"{found.count} paired seeds"
    unit = UNITS[study.measure]
    if found.includes_zero:
        what = f"no difference shown ({signed(found.mean)} {unit}, 95% interval {interval(found)}, {paired})"
    else:
        word = "more" if found.mean > 0 else "fewer" if study.measure in ("epochs", "start") else "less"
        what = f"{abs(found.mean):.1f} {unit} {word} (95% interval of the difference {interval(found)}, {paired})"
    verdict = f"the paper's claim: {said}" if mine.expect != "none" else said if said not in what else ""
    parts = filter(None, (what, _censored(outcome), verdict))
    return f"{mine.words}, compared with {base.words}: {'; '.join(parts)}."


def _censored(outcome: Outcome) -> str:
    """Which arms did not reach the goal, if any."""
    unit = UNITS[outcome.study.measure]
    return "; ".join(
        f"{outcome.study.arm(arm.name).words} did not reach the goal in {outcome.limits[arm.name]:g} {unit} with "
        f"{arm.values.count(None)} of {len(arm.values)} seeds, which count with that number, a lower bound"
        for arm in outcome.arms
        if None in arm.values
    )


def table(outcome: Outcome) -> str:
    """The outcome as a Markdown table: what was found with its verdict first, what others measured last."""
    study = outcome.study
    full = {line.arm: _log(line) for line in study.full_scale}
    digits = DIGITS[study.measure]
    sources = sorted({line.source for line in study.published})
    goals = sorted({goal for arm in outcome.arms for goal in arm.goals})
    errors = "validation top-1 error, %" if study.measure in ("gap", "training", "start") else ""
    head = [
        "arm", f"{HEADS[study.measure]}: mean", "difference", "verdict", "95% interval of the difference", "p (Holm)",
        "compared with", "95% interval of the mean", *(f"to {goal}" for goal in goals), errors, "runs", "learning rate",
        "paper", "2012 log", *sources,
    ]  # fmt: skip
    rows = []
    for n, arm in enumerate(outcome.arms):
        of, mean = study.arm(arm.name), outcome.means[arm.name]
        least = "≥ " if arm.name in outcome.censored else ""
        compared, paper = [""] * 5, ""
        if n > 0:
            found = outcome.differences[arm.name]
            said = judgement(outcome, arm)
            if found.includes_zero and said in (NOT_SHOWN, UNDECIDED):
                said = f"no difference shown: {said}"
            whom = "" if one_base(outcome) else study.arm(outcome.compared_with(arm).name).words
            compared = [signed(found.mean, digits), said, interval(found, digits), _p(outcome.adjusted[arm.name]), whom]
            paper = _paper(outcome, arm.name)
        rows.append([
            of.words, f"{least}{mean.mean:.{digits}f}", *compared, interval(mean, digits),
            *(_goal(outcome, arm, goal) for goal in goals),
            f"{sum(arm.errors) / len(arm.errors):.1f}" if errors and arm.errors else "", f"{mean.count}",
            "" if of.learning_rate is None else f"{of.learning_rate:g}",
            paper, full.get(arm.name, ""), *(_published(outcome, arm.name, source) for source in sources),
        ])  # fmt: skip
    return markdown(head, rows)


def one_base(outcome: Outcome) -> bool:
    """Whether all arms are compared with the first one."""
    return all(outcome.compared_with(arm) is outcome.base for arm in outcome.arms[1:])


def _goal(outcome: Outcome, arm: ArmResult, goal: str) -> str:
    """The mean number of epochs to an easier goal; a lower bound if some seed did not reach it."""
    if goal not in arm.goals:
        return ""
    values = [outcome.limits[arm.name] if value is None else value for value in arm.goals[goal]]
    return f"{'≥ ' if None in arm.goals[goal] else ''}{math.fsum(values) / len(values):.{DIGITS['epochs']}f}"


def _published(outcome: Outcome, name: str, source: str) -> str:
    """Others' difference in points of top-1 error, and its two terms."""
    found = [line for line in outcome.study.published if (line.arm, line.source) == (name, source)]
    return "; ".join(f"{signed(line.value - line.base)} ({line.base:.1f} → {line.value:.1f}%)" for line in found)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns that are empty in every row are left out."""
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    lines = ["| " + " | ".join(row[n].replace("|", "\\|") for n in kept) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(kept), *lines[1:]]) + "\n"


def cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def picture_text(outcome: Outcome) -> str:
    """Alternative text for the picture of an outcome (`minialex.studies.drawing`)."""
    study = outcome.study
    whom = "the first arm" if one_base(outcome) else "the arm that each is compared with"
    shown = f"left a point for every run, with means and 95% intervals; right the differences from {whom}"
    if all(arm.curves for arm in outcome.arms):
        shown = "the training error over the epochs, a curve a run"
    means = "; ".join(
        f"{study.arm(arm.name).words}: {'at least ' if arm.name in outcome.censored else ''}"
        f"{outcome.means[arm.name].mean:.{DIGITS[study.measure]}f}"
        for arm in outcome.arms
    )
    return f"{study.title}: {shown}. Means of {HEADS[study.measure]}: {means}."


def tuning_text(outcome: Outcome) -> str:
    """Alternative text for the picture of the tuning curves (`minialex.studies.drawing.tuning`)."""
    study, parts = outcome.study, []
    for arm in study.arms:
        if curve := {} if arm.rate_of else search.tuning(study, arm):
            rate = arm.learning_rate if arm.learning_rate in curve else search.best(curve)[0]
            parts.append(f"{arm.words}: best at {rate:g} ({_tried(curve[rate])}), of {min(curve):g} to {max(curve):g}")
    return f"The search for learning rates of {study.title}, the measure against the rate. {'; '.join(parts)}."


def _tried(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:.1f}" if math.isfinite(mean) else "failed"


def shared(study: Study, others: Sequence[Study]) -> str:
    """A sentence that names the other studies that share the runs of this one's first arm, or an empty text."""

    def keys(study: Study) -> set[str]:
        return {key(study.recipe(study.arms[0], seed)) for seed in study.seeds}

    titles = [each.title for each in others if each.name != study.name and keys(each) & keys(study)]
    return f"The runs of {study.arms[0].words} are those of these studies, too: {', '.join(titles)}." if titles else ""


def provenance(outcome: Outcome) -> str:
    """The origin of the figures, in one line."""
    facts, seeds = outcome.facts, ", ".join(map(str, outcome.seeds))
    where, versions = facts.get("machine", {}), facts.get("versions", {})
    differ = any({"train_images", "epochs"} & set(arm.fields) for arm in outcome.study.arms)
    cards = ", ".join(where.get("cards", ())) if facts["backend"] == "cuda" else ""
    shared = f"several runs at once on {cards}" if cards else "on one core each"
    return (
        f"`{machine.anywhere(facts['command'])}`; {facts['data']}, {facts['training_images']:,} training and "
        f"{facts['validation_images']:,} validation images, {plural(facts['epochs'], 'epoch')}"
        f"{' (the first arm)' if differ else ''}, seeds {seeds}; "
        f"{facts['seconds'] / 60:.0f} minutes of training {shared}: {where.get('processor')}, "
        f"{where.get('cores')} cores; minialex {versions.get('minialex')} ({facts['backend']}), Python "
        f"{versions.get('python')}, NumPy {versions.get('numpy')}; {facts['date']}"
    )


def at_full_scale(outcome: Outcome) -> tuple[str, ...]:
    """What a longer run on a GPU would add: the commands for the arms that exist at the paper's scale."""
    return tuple(
        f"{outcome.study.arm(line.arm).words}: `minialex train --recipe {line.recipe} --data STORE --backend cuda`"
        for line in outcome.study.full_scale
        if line.recipe
    )


def _paper(outcome: Outcome, name: str) -> str:
    effect, expect = outcome.study.arm(name).effect, outcome.study.arm(name).expect
    if expect == "none" or effect is None:
        return "" if expect == "none" else expect
    if outcome.study.measure == "epochs":
        return f"{effect:g} times as many"
    return signed(effect if expect == "worse" else -effect)


def _log(line: FullScale) -> str:
    if line.top1 is None:
        return ""
    base = "" if line.base_top1 is None else f"; #{line.base_log}: {line.base_top1:.1f}%"
    return f"{line.top1:.1f}% (#{line.log}, {line.set}{base})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; no sign if it rounds to zero."""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(f"{value:.{digits}f}") != 0 else f"{0:.{digits}f}"


def interval(found: Estimate, digits: int = 1) -> str:
    """A 95% interval as text."""
    if math.isinf(found.low):
        return "none: one value"
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}".replace("-", "−")

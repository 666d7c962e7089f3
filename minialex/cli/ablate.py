"""What ``minialex ablate`` does."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from minialex import studies
from minialex.backend import registry
from minialex.errors import ConfigurationError
from minialex.figures import pictures
from minialex.runs.run_folder import RunPaths, read_metrics
from minialex.storage import atomic
from minialex.studies import drawing, measures, words
from minialex.studies.outcome import Outcome, collect, missing, recorded, run_folder
from minialex.studies.running import Job, Place, State, run, unfinished
from minialex.studies.study import RATES, Study, key, names, study
from minialex.training.display import duration
from minialex.training.signals import EXIT_CODES

QUICK_SEEDS = (1, 2)
QUICK: dict[str, Any] = {
    "data": "shapes", "train_images": 256, "validation_images": 128, "epochs": 2, "schedule": "constant",
    "classes": 0, "kernels": (4, 8, 8, 8, 8), "features": (16, 16), "batch_size": 32,
}  # fmt: skip


def listing() -> None:
    """All studies: their question, how many runs, what is recorded."""
    table = Table(highlight=False, show_lines=True)
    for name in ("study", "section", "question", "arms × seeds", "recorded"):
        table.add_column(name)
    for name in names():
        found, kept = study(name), recorded(name)
        said = "no" if kept is None else f"{len(kept.seeds)} seeds, {kept.facts['date']}"
        table.add_row(name, found.section, found.question, f"{len(found.arms)} × {len(found.seeds)}", said)
    Console(width=max(Console().width, 110)).print(table, markup=False)


def ablate(
    wanted: Sequence[str],
    *,
    quick: bool,
    seeds: int | None,
    place: Place,
    jobs: int | None,
    calibrate: bool,
    record: bool,
    collect_only: bool,
    arguments: Sequence[str],
) -> int:
    """Run studies, or what is missing of them, and show what they give."""
    screen = Console(soft_wrap=True)
    studies = [_quick(study(name)) if quick else study(name) for name in wanted]
    if quick and (record or calibrate):
        raise ConfigurationError("--quick claims nothing: leave out --record and --calibrate")
    if quick:
        place = replace(place, out=place.out / "quick", data="")
    registry.load(place.backend, threads=place.threads)  # say at once what cannot run
    chosen = {found.name: found.seeds[: seeds or None] for found in studies}
    at_once = jobs or (len(place.devices) if place.devices else os.cpu_count() or 1)
    if place.threads is None and not place.devices and at_once > 1:
        place = replace(place, threads=1)
    atomic.make_folder(place.out / "runs")
    wishes = [job for found in studies for job in _jobs(found, chosen[found.name], calibrate)]
    todo = unfinished(wishes, place.out)
    if todo and not collect_only:
        stopped = _train(screen, todo, place, min(at_once, len(todo)))
        if stopped:
            screen.print(f"stopped by {stopped}; finished runs are kept, and begun ones go on when you run:")
            screen.print(f"  {_again(arguments)}", highlight=False, markup=False)
            return EXIT_CODES[stopped]
    backend = registry.load(place.backend, threads=None if at_once > 1 else place.threads)
    networks = measures.Networks(backend, place.devices[0] if place.devices else None, place.data)
    for found in studies:
        if calibrate:
            _rates(screen, found, place.out)
            continue
        few = sorted({seed for _, seed in missing(found, chosen[found.name], place.out)})
        if few and collect_only:
            screen.print(f"{found.name}: not finished for every arm with seeds {', '.join(map(str, few))}")
        outcome = replace(collect(found, chosen[found.name], place.out, networks, _again(arguments)), quick=quick)
        _show(screen, outcome, place.out)
        if record:
            path = Path(str(files_of_package())) / f"{found.name}.json"
            atomic.write_bytes(path, _compact(outcome))
            screen.print(f"recorded     {path}", highlight=False, markup=False)
    return 0


def files_of_package() -> Path:
    """The folder of recorded outcomes."""
    return Path(studies.__file__).parent / "recorded"


def _compact(outcome: Outcome) -> bytes:
    import json

    return (json.dumps(outcome.to_json(), ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _quick(found: Study) -> Study:
    """The same arms in two short trainings on generated images."""
    free = {name: value for name, value in found.regime.items() if name not in QUICK and name != "steps"}
    arms = tuple(
        replace(
            arm, fields={n: v for n, v in arm.fields.items() if n not in ("kernels", "features")}, learning_rate=None
        )
        for arm in found.arms
    )
    return replace(found, regime={**free, **QUICK}, seeds=QUICK_SEEDS, arms=arms)


def _jobs(found: Study, seeds: Sequence[int], calibrate: bool) -> list[Job]:
    """All runs of a study, seed by seed, so that what is done at any time compares all arms."""
    if not calibrate:
        return [Job(found.recipe(arm, seed), f"{found.name}: {arm.name}, seed {seed}")
                for seed in seeds for arm in found.arms]  # fmt: skip
    if not found.calibration:
        raise ConfigurationError(f"study '{found.name}' has no [calibration]: nothing to look for")
    return [
        Job(found.search_recipe(arm, seed, rate), f"{found.name}: {arm.name}, rate {rate:g}, seed {seed}")
        for seed in found.calibration["seeds"]
        for arm in found.arms
        if not arm.rate_of
        for rate in found.grid(arm)
    ]


def _again(arguments: Sequence[str]) -> str:
    return shlex.join(["minialex", "ablate", *arguments])


def _train(screen: Console, todo: Sequence[Job], place: Place, at_once: int) -> str:
    """Run jobs with a display; what stopped them."""
    total = sum(job.recipe.epochs for job in todo)
    screen.print(f"{len(todo)} runs, {total:,} epochs, {at_once} at once, in {place.out / 'runs'}", highlight=False)
    if not screen.is_terminal:
        return run(todo, place, at_once, _Lines(screen))
    with Progress(
        TextColumn("{task.fields[done]} of {task.fields[jobs]} runs"),
        BarColumn(), TextColumn("{task.percentage:3.0f}%"),
        TextColumn("{task.fields[left]}"), TextColumn("{task.description}", markup=False), console=screen,
    ) as shown:  # fmt: skip
        task = shown.add_task("", total=total, done=0, jobs=len(todo), left="")

        def told(state: State) -> None:
            shown.update(task, completed=state.epochs, done=state.finished, left=_left(state),
                         description="; ".join(state.running))  # fmt: skip

        return run(todo, place, at_once, told)


class _Lines:
    """A line whenever a run is done, for a file."""

    def __init__(self, screen: Console) -> None:
        self.screen, self.finished = screen, 0

    def __call__(self, state: State) -> None:
        if state.finished > self.finished:
            self.finished = state.finished
            self.screen.print(f"{state.finished} of {state.jobs} runs done, {_left(state)}", highlight=False)


def _left(state: State) -> str:
    return "" if state.seconds_left is None else f"{duration(state.seconds_left)} left"


def _show(screen: Console, outcome: Outcome, out: Path) -> None:
    """Table, words and picture, on the screen and as files."""
    found = outcome.study
    base = out / found.name
    text = [f"# {found.title}", "", found.question, "", f"The paper (section {found.section}): {found.claim}", ""]
    text += [words.table(outcome), *(f"- {line}" for line in words.verdict(outcome)), "", words.provenance(outcome), ""]
    more = words.at_full_scale(outcome)
    if more and not outcome.quick:
        text += ["At the paper's scale, with the data and a GPU:", "", *(f"- {line}" for line in more), ""]
    atomic.write_json(base.with_suffix(".json"), outcome.to_json())
    atomic.write_text(base.with_suffix(".md"), "\n".join(text))
    pictures.save(drawing.picture(outcome), base.with_suffix(".png"))
    screen.print(found.title + (" (quick mode: claims nothing)" if outcome.quick else ""), style="bold")
    screen.print(found.question, highlight=False, markup=False)
    lines = words.table(outcome).splitlines()
    shown = Table(highlight=False)
    for name in _cells(lines[0]):
        shown.add_column(name)
    for line in lines[2:]:
        shown.add_row(*_cells(line))
    Console(width=max(screen.width, 150)).print(shown, markup=False)
    for sentence in words.verdict(outcome):
        screen.print(sentence, highlight=False, markup=False)
    for kind in (".md", ".png", ".json"):
        screen.print(f"{kind[1:]:<12} {base.with_suffix(kind)}", highlight=False, markup=False)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _rates(screen: Console, found: Study, out: Path) -> None:
    """Choose each arm's learning rate from the finished search, and keep it with the study."""
    import tomli_w

    evidence, chosen = [], {}
    for arm in found.arms:
        if arm.rate_of:
            continue
        scores: dict[float, list[float]] = {}
        for rate in found.grid(arm):
            for seed in found.calibration["seeds"]:
                recipe = found.search_recipe(arm, seed, rate)
                metrics = read_metrics(RunPaths(run_folder(out, key(recipe))).metrics)
                value = _score(found, metrics)
                scores.setdefault(rate, []).append(value)
                evidence.append({"arm": arm.name, "rate": rate, "seed": seed, "value": round(value, 4)})
        chosen[arm.name] = min(scores, key=lambda rate: sum(scores[rate]))
        edge = chosen[arm.name] in (min(scores), max(scores)) and len(scores) > 1
        tried = ", ".join(f"{rate:g}: {sum(v) / len(v):.1f}" for rate, v in scores.items())
        note = "  (at the edge of the grid: a wider one may find a better one)" if edge else ""
        screen.print(f"{found.name}: {arm.name}: {chosen[arm.name]:g}  [{tried}]{note}", highlight=False, markup=False)
    path = _rates_file(found.name)
    atomic.write_text(path, tomli_w.dumps({"rates": chosen, "evidence": evidence}))
    screen.print(f"kept in {path}", highlight=False, markup=False)


def _score(found: Study, metrics: Sequence[dict[str, Any]]) -> float:
    """What the search minimises: the last validation error; for figure 1 the training error at the end."""
    if found.measure == "epochs":
        reached = measures.epochs_to_goal(metrics)
        return reached if reached is not None else 1000 * measures.training_curve(metrics)[-1][1]
    return measures.last_error(metrics)


def _rates_file(name: str) -> Path:
    home = Path(studies.__file__).parent / "designs"
    return (home if name in names() else Path()) / f"{name}{RATES}"

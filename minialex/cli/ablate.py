"""``minialex ablate``."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minialex.cli.options import BackendOption
from minialex.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from minialex.studies.outcome import Outcome
    from minialex.studies.running import Job, Place, State
    from minialex.studies.study import Study

QUICK_SEEDS = (1, 2)
QUICK: dict[str, Any] = {
    "data": "shapes", "train_images": 256, "validation_images": 128, "epochs": 2, "schedule": "constant",
    "classes": 0, "kernels": (4, 8, 8, 8, 8), "features": (16, 16), "batch_size": 32,
}  # fmt: skip


def ablate(
    studies: Annotated[list[str] | None, typer.Argument(help="names of studies, or your own TOML files")] = None,
    every: Annotated[bool, typer.Option("--all", help="run all studies in the package")] = False,
    show: Annotated[bool, typer.Option("--list", help="list the studies and what has been recorded")] = False,
    stored: Annotated[
        bool, typer.Option("--recorded", help="train nothing; show the outcome that the package has on record")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="only check that everything runs, in a minute; proves nothing")
    ] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="use only this many of the study's seeds")] = None,
    data: Annotated[str, typer.Option(help="path of the studies' data set, e.g. cifar-10-python.tar.gz")] = "",
    out: Annotated[Path, typer.Option(help="folder for the runs and their results")] = Path("runs/ablations"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="runs at the same time; default one per core, or one per device")
    ] = None,
    backend: BackendOption = None,
    devices: Annotated[
        str | None, typer.Option("--devices", help="devices to spread the runs over, one per run: 0,1 or cpu:0")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads per run; default 1 if several run at once")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="search each arm's learning rate until the best is inside the range tried, and store it",
        ),
    ] = False,
    collect: Annotated[
        bool, typer.Option("--collect", help="train nothing; show the results of finished runs")
    ] = False,
    record: Annotated[bool, typer.Option("--record", help="store the outcome in the package")] = False,
) -> int:
    """Run ablation studies: what each innovation is worth, with several seeds, intervals and a verdict.

    Studies share finished runs. After Ctrl-C or a power cut, run the same command again to continue.
    """
    from minialex.backend import registry
    from minialex.screen.formats import shell
    from minialex.screen.terminal import console
    from minialex.storage import atomic
    from minialex.studies import calibration, measures, outcome
    from minialex.studies.running import Place, unfinished
    from minialex.studies.statistics import student
    from minialex.studies.study import names, rates_file, study
    from minialex.training.signals import EXIT_CODES

    if show:
        show_studies()
        return 0
    wanted = names() if every else studies or ()
    if not wanted:
        raise ConfigurationError(f"name a study: {', '.join(names())}; or give --all or --list")
    if stored:
        if quick or calibrate or collect or record:
            raise ConfigurationError("--recorded only shows: leave out --quick, --calibrate, --collect and --record")
        show_recorded(wanted)
        return 0
    chosen = [quick_study(study(name)) if quick else study(name) for name in wanted]
    check_together(wanted, chosen, quick, calibrate, collect, record)
    spread = tuple(part.strip() for part in (devices or "").split(",") if part.strip())
    at_once = jobs or len(spread) or os.cpu_count() or 1
    alone = threads is None and not spread and at_once > 1 and takes_threads(backend)
    own_threads = 1 if alone else threads
    place = Place(out / "quick" if quick else out, "" if quick else data, backend, own_threads, spread)
    registry.load(backend, threads=threads)  # report at once what cannot run
    student(1)  # likewise: intervals need SciPy
    atomic.make_folder(place.out / "runs")
    again = shell("minialex", "ablate", *(word for word in sys.argv[1:] if word != "ablate"))
    wishes = [] if calibrate else [job for one in chosen for job in runs_of(one, one.seeds[: seeds or None])]
    screen = console()
    # what a search tries next depends on its results so far
    while todo := calibration.needed(chosen, place.out) if calibrate else unfinished(wishes, place.out):
        if collect:
            break
        signal = train(screen, todo, place, min(at_once, len(todo)))
        if signal:
            screen.print(f"stopped by {signal}; finished runs are kept, and unfinished ones continue when you run:")
            screen.print(f"  {again}")
            return EXIT_CODES[signal]
    networks = measures.Networks(
        registry.load(backend, threads=None if at_once > 1 else place.threads), spread[0] if spread else None,
        place.data,
    )  # fmt: skip
    for name, one in zip(wanted, chosen, strict=True):
        if calibrate:
            choose_rates(screen, one, place.out, rates_file(name))
            continue
        some = one.seeds[: seeds or None]
        lacking = sorted({seed for _, seed in outcome.missing(one, some, place.out)})
        if lacking and collect:
            screen.print(f"{one.name}: not finished for every arm with seeds {', '.join(map(str, lacking))}")
        result = replace(outcome.collect(one, some, place.out, networks, again), quick=quick)
        show_outcome(screen, result, place.out)
        if record:
            path = Path(outcome.__file__).parent / "recorded" / f"{one.name}.json"
            text = json.dumps(result.to_json(), ensure_ascii=False, separators=(",", ":"))
            atomic.write_text(path, text + "\n")
            screen.print(f"recorded     {path}")
    return 0


def takes_threads(backend: str | None) -> bool:
    """Whether a backend lets you choose its number of threads."""
    from minialex.backend import registry

    return "threads" in inspect.signature(registry.kind(backend or registry.default_name())).parameters


def check_together(
    wanted: Sequence[str], studies: Sequence[Study], quick: bool, calibrate: bool, collect: bool, record: bool
) -> None:
    """That the options have a meaning together, and that no study would write over another's results.

    Raises:
        ConfigurationError: If not.
    """
    from minialex.studies.study import names

    if quick and (record or calibrate):
        raise ConfigurationError("--quick proves nothing: leave out --record and --calibrate")
    if calibrate and (record or collect):
        raise ConfigurationError("--calibrate compares nothing yet: leave out --record and --collect")
    known = [one.name for one in studies]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise ConfigurationError(f"two studies named '{twice}' would write the same files: run one after the other, "
                                 "with another --out")  # fmt: skip
    if record and (own := [name for name in wanted if name not in names()]):
        raise ConfigurationError(f"--record is for the package's studies: '{own[0]}' has its outcome in --out anyway")


def show_studies() -> None:
    """List all studies: the question, the number of runs, what has been recorded."""
    from minialex.screen.formats import plural
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console
    from minialex.studies.outcome import recorded
    from minialex.studies.study import names, study
    from minialex.studies.words import OTHER_DESIGN, other_design

    def last(name: str) -> str:
        try:
            outcome = recorded(name)
        except DataError as error:
            return str(error)
        if outcome is None:
            return "no"
        about = f"{plural(len(outcome.seeds), 'seed')}, {outcome.facts['date']}"
        return f"{about}; {OTHER_DESIGN}" if other_design(outcome) else about

    rows = []
    for name in names():
        try:
            one = study(name)
        except ConfigurationError as error:  # an edited design hides no other one
            rows.append((name, "", str(error), "", ""))
            continue
        rows.append((name, one.section, one.question, f"{len(one.arms)} × {len(one.seeds)}", last(name)))
    header = ("study", "section", "question", "arms × seeds", "recorded")
    console(least=110, fold=True).print(Sheet("", header, rows, "l").rich(lines=True))


def show_recorded(names: Sequence[str]) -> None:
    """Show what the package has on record of some studies, which needs no data set and no SciPy.

    Raises:
        DataError: If nothing is recorded of one of them.
    """
    from minialex.screen.terminal import console
    from minialex.studies import words
    from minialex.studies.outcome import recorded

    screen = console()
    for name in names:
        if (outcome := recorded(name)) is None:
            raise DataError(f"nothing is recorded of study '{name}'; `minialex ablate --list` says what is")
        show_table(screen, outcome, words.verdict(outcome))
        screen.print(words.provenance(outcome))


def quick_study(study: Study) -> Study:
    """The same arms, with two short training runs each, on generated images."""

    def without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in names}

    def small(fields: Mapping[str, Any]) -> dict[str, Any]:
        few = without(fields, "kernels", "features", "epochs", "steps")
        if "train_images" in few:  # the same share of the few images that there are
            share = few["train_images"] / most if few["train_images"] else 1.0
            few["train_images"] = max(QUICK["batch_size"], int(share * QUICK["train_images"]))
        return few

    most = max(study.recipe(arm, study.seeds[0]).train_images or math.inf for arm in study.arms)  # 0: all
    arms = tuple(replace(arm, fields=small(arm.fields), learning_rate=None) for arm in study.arms)
    return replace(study, regime={**without(study.regime, "steps"), **QUICK}, seeds=QUICK_SEEDS, arms=arms)


def runs_of(study: Study, seeds: Sequence[int]) -> list[Job]:
    """All runs of a study, seed by seed, so that the finished ones compare all arms at any time."""
    from minialex.studies.running import Job

    return [
        Job(study.recipe(arm, seed), f"{study.name}: {arm.name}, seed {seed}", goal=study.goal)
        for seed in seeds
        for arm in study.arms
    ]


def train(screen: Console, jobs: Sequence[Job], place: Place, at_once: int) -> str:
    """Run jobs with a progress display; return what stopped them, if anything did."""
    from minialex.screen.formats import duration, plural
    from minialex.screen.terminal import metered
    from minialex.studies.running import run

    total = sum(job.recipe.epochs for job in jobs)
    screen.print(f"{plural(len(jobs), 'run')}, {plural(total, 'epoch')}, {at_once} at once, in {place.out / 'runs'}")
    finished = 0
    with metered(screen, "epochs") as meter:

        def show(state: State) -> None:
            nonlocal finished
            left = "" if state.seconds_left is None else f", {duration(state.seconds_left)} left"
            if screen.is_terminal:
                running = "; ".join(state.running)
                note = f"{state.finished} of {plural(state.jobs, 'run')}{left}: {running}"
                meter.tell("epochs", state.epochs, total, note)
            elif state.finished > finished:  # in a file: a line whenever a run is done
                finished = state.finished
                screen.print(f"{finished} of {plural(state.jobs, 'run')} done{left}")

        return run(jobs, place, at_once, show)


def show_outcome(screen: Console, outcome: Outcome, out: Path) -> None:
    """Show the table and the verdict, and save them and the picture as files."""
    from minialex.figures import pictures
    from minialex.storage import atomic
    from minialex.studies import drawing, words
    from minialex.studies.study import names
    from minialex.studies.study import study as named

    study, table, verdict = outcome.study, words.table(outcome), words.verdict(outcome)
    if not outcome.quick and (others := words.shared(study, [named(name) for name in names()])):
        verdict = (*verdict, others)
    files = {kind: out / f"{study.name}{kind}" for kind in (".md", ".png", ".json", ".search.png")}
    text = [f"# {study.title}", "", study.question, "", f"The paper (section {study.section}): {study.claim}", ""]
    text += [table, *(f"- {line}" for line in verdict), "", words.provenance(outcome), ""]
    more = words.at_full_scale(outcome)
    if more and not outcome.quick:
        text += ["At the paper's scale, with the data and a GPU:", "", *(f"- {line}" for line in more), ""]
    atomic.write_json(files[".json"], outcome.to_json())
    atomic.write_text(files[".md"], "\n".join(text))
    pictures.save(drawing.picture(outcome), files[".png"])
    if (searched := drawing.tuning(outcome)) is not None:
        pictures.save(searched, files[".search.png"])
    else:
        del files[".search.png"]
    show_table(screen, outcome, verdict)
    for kind, path in files.items():
        screen.print(f"{kind[1:]:<12} {path}")


def show_table(screen: Console, outcome: Outcome, verdict: Sequence[str]) -> None:
    """Show the question, the paper's claim, the table and the verdict's sentences."""
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console
    from minialex.studies import words

    screen.print(outcome.study.title + (" (quick mode: proves nothing)" if outcome.quick else ""), style="bold")
    screen.print(outcome.study.question)
    screen.print(f"The paper (section {outcome.study.section}): {outcome.study.claim}.")
    header, _, *rows = [words.cells(line) for line in words.table(outcome).splitlines()]
    console(least=150).print(Sheet("", header, rows, "l").rich())
    for sentence in verdict:
        screen.print(sentence)


def choose_rates(screen: Console, study: Study, out: Path, path: Path) -> None:
    """Show the result of the search for each arm's learning rate, and store it with the study."""
    import tomli_w

    from minialex.storage import atomic
    from minialex.studies import calibration

    found = calibration.chosen(study, out)
    for name, rate in found["rates"].items():
        tried: dict[float, list[float]] = {}
        for line in found["evidence"]:
            if line["arm"] == name:
                tried.setdefault(line["rate"], []).append(line["value"])
        means = ", ".join(f"{each:g}: {sum(values) / len(values):.1f}" for each, values in tried.items())
        screen.print(f"{study.name}: {name}: {rate:g}  [{means}]")
    atomic.write_text(path, tomli_w.dumps(found))
    screen.print(f"kept in {path}")

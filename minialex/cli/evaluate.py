"""``minialex evaluate``."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minialex.cli.options import BatchOption, DataOption, Machine, PrecisionOption, check_writable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minialex.data import DataSet
    from minialex.evaluation.errors import Evaluation
    from minialex.screen.sheet import Sheet


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="run folders, checkpoints or weights files; several are averaged")],
    views: Annotated[
        int, typer.Option(help="1 (the centre) or 10 (four corners and the centre, each also reflected)")
    ] = 1,
    data: DataOption = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="train, validation, test or all; default validation, or all images if --data is a folder without "
            "such a part"
        ),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="leave out image files that cannot be read, instead of stopping")
    ] = False,
    *,
    machine: Machine,
    precision: PrecisionOption = None,
    batch_size: BatchOption = 100,
    per_class: Annotated[bool, typer.Option("--per-class", help="also print a table of all classes")] = False,
    super_classes: Annotated[
        Path | None,
        typer.Option(
            "--super-classes",
            help="text file of lines 'class,super-class': report how many errors stay within a super-class; "
            "CIFAR-10's are built in",
        ),
    ] = None,
    reliability: Annotated[Path | None, typer.Option(help="save the reliability diagram as this .png file")] = None,
    json: Annotated[bool, typer.Option("--json", help="print everything as JSON instead")] = False,
) -> None:
    """Compute the validation errors of one run, or of several averaged, with one or ten views of each image."""
    from minialex.api.net import TrainedNet, check_views, data_for, evaluate_together
    from minialex.data import checked
    from minialex.engine.opening import precision_of, validation_for
    from minialex.evaluation import calibration
    from minialex.evaluation import super_classes as families
    from minialex.figures import pictures
    from minialex.ranks import joining
    from minialex.runs import weights_file
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console, document, metered

    check_views(views)
    check_writable(reliability, "--reliability", ".png")
    networks = [weights_file.find(path) for path in runs]
    precisions = [precision_of(network.recipe, precision) for network in networks]
    group = joining.join()
    backends = {name: machine.load(name, group) for name in dict.fromkeys(precisions)}
    nets = [
        TrainedNet(network, backends[name], machine.devices, str(path), group)
        for path, network, name in zip(runs, networks, precisions, strict=True)
    ]
    screen, said = console(), console(stderr=True)
    screen.quiet = said.quiet = group.rank > 0  # only one rank prints
    images = data_for(nets[0], data, part)
    with metered(said) as meter:

        def check(done: int, total: int) -> None:
            meter.tell("checking", done, total)

        images = checked(images, skip_broken=skip_broken, parts=("validation",), tell=said.print, progress=check)
    for note in images.notes:
        (said if json else screen).print(note)
    if data is None and part is None and (other := _other_images(runs)):
        said.print(f"warning: {other}")
    names, _ = validation_for(networks[0], images, str(runs[0]))
    groups = families.known(names) if super_classes is None else families.read(super_classes, names)
    with metered(screen) as meter:

        def progress(done: int, total: int) -> None:
            if not json:
                meter.tell("evaluating", done, total)

        evaluation = evaluate_together(
            nets, views=views, data=images, batch_size=batch_size, progress=progress, group=group
        )
    if group.rank:
        return
    within = None if groups is None else families.within(evaluation, groups)
    titles = networks[0].words or names
    if reliability is not None:
        pictures.save(pictures.reliability(calibration.calibration(evaluation)), reliability)
    if json:
        about = {"networks": [str(path) for path in runs], "data": images.name, "views": views}
        more = {} if within is None or not within.errors else {"within_super_class": asdict(within)}
        found = {**about, **calibration.as_json(evaluation, names, titles), **more}
        document(json_module.dumps(found, indent=1))
        return
    rows = summary(evaluation, runs, images, views)
    if within is not None:
        rows.append(("errors within a super-class", within.words()))
    screen.print(Sheet("", ("", ""), rows, "l").rich(frame=False))
    if per_class:
        console(least=110).print(class_table(evaluation, titles).rich())
    if reliability is not None:
        screen.print(f"picture: {reliability}")


def _other_images(runs: Sequence[Path]) -> str:
    """The warning if some runs hold out other validation images than the first run, whose images are used."""
    from minialex.runs.run_folder import is_run, read_data

    kept = {str(run): read_data(run).decides.get("validation sha256") for run in runs if is_run(run)}
    first = next(iter(kept.values()), None)
    others = [run for run, images in kept.items() if images and first and images != first]
    if not others:
        return ""
    return (
        f"{', '.join(others)}: other validation images than the first run's, on which these runs may have been trained"
    )


def summary(evaluation: Evaluation, runs: Sequence[Path], data: DataSet, views: int) -> list[tuple[str, str]]:
    """Print errors, loss and calibration in a few lines."""
    from minialex.evaluation.calibration import calibration
    from minialex.screen.formats import plural

    measured = calibration(evaluation)
    tendency = "too sure" if measured.overconfidence > 0 else "not sure enough"
    return [
        ("network" if len(runs) == 1 else f"average of {len(runs)}", ", ".join(map(str, runs))),
        ("data", f"{data.name}, {len(evaluation.labels):,} {data.measured}, {plural(views, 'view')}"),
        ("top-1 error", evaluation.words(1)),
        *([("top-5 error", evaluation.words(5))] if evaluation.probs.shape[1] > 5 else []),
        ("loss", f"{evaluation.loss:.4f}"),
        ("calibration", f"expected calibration error {measured.expected_error:.2%}; {tendency} by "
                        f"{abs(measured.overconfidence):.2%}"),
    ]  # fmt: skip


def class_table(evaluation: Evaluation, names: tuple[str, ...]) -> Sheet:
    """A table with one row per class, those with the most errors first."""
    from minialex.evaluation.calibration import by_class, name_of
    from minialex.screen.sheet import Sheet

    top5 = evaluation.probs.shape[1] > 5
    rows = []
    for score in sorted(by_class(evaluation), key=lambda score: -score.top1_error):
        taken = "" if score.taken_for is None else f"{name_of(names, score.taken_for)} ({score.taken})"
        shares = [f"{share:.1%}" for share in (score.top1_error, *[score.top5_error] * top5, score.probability)]
        rows.append((name_of(names, score.label), f"{score.images:,}", *shares, taken))
    errors = ("top-1 error", "top-5 error") if top5 else ("error",)
    header = ("class", "images", *errors, "probability", "most often taken for")
    return Sheet("", header, rows, "lr" + "r" * len(errors) + "rl")

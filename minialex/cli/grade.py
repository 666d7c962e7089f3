"""``minialex grade``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minialex.cli.options import check_writable
from minialex.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from minialex.course.grading import process


def grade(
    theirs: Annotated[
        str | None,
        typer.Argument(help="a .py file, a folder of them, an importable name, module:Class, or an installed backend"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="operations to grade: relu,conv2d; a missing one fails")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="random calls per operation and dtype")] = 100,
    seed: Annotated[
        int | None, typer.Option(min=0, help="seed of the random calls; the same for everyone by default")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="processor seconds allowed for one call of an operation")
    ] = 20.0,
    memory: Annotated[float, typer.Option(min=0, help="GiB that a call may allocate (Linux); 0 means no limit")] = 4.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="apply every rule that a backend's author must meet")
    ] = False,
    points: Annotated[float | None, typer.Option(min=0, help="convert the result to points out of this many")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="also write everything to this file; with --each, a folder")
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format", help="format of the --json file: minialex, gradescope (results.json) or classroom (GitHub)"
        ),
    ] = "minialex",
    each: Annotated[Path | None, typer.Option("--each", help="grade every .py file and folder in this folder")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="with --each: write the table of points to this file")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="with --each: submissions graded at once; 0 means one per core")] = 0,
    new: Annotated[Path | None, typer.Option("--new", help="write an empty submission into this new folder")] = None,
) -> int:
    """Grade a student's operations against the reference: a table, and the smallest failing call of each wrong one.

    Exits with 0 if all passed, 1 if not, 2 if the command cannot run; with --each, 0 once every submission has been
    graded, whatever the grades. It runs the submitted code with your rights.
    """
    if sum(given is not None for given in (theirs, new, each)) != 1:
        raise ConfigurationError(
            "give one of these: what to grade, --each FOLDER for a class, or --new FOLDER for an empty submission"
        )
    if new is None and find_spec("hypothesis") is None:
        raise ConfigurationError('grading needs Hypothesis: pip install "minialex[conformance]"')
    if each is None and csv is not None:
        raise ConfigurationError("--csv is for a class: also give --each FOLDER")
    from minialex.backend.protocol import OPERATIONS
    from minialex.course.grading import process, skeleton
    from minialex.screen.formats import shell
    from minialex.screen.terminal import console, waiting

    check_writable(csv, "--csv", ".csv")
    operations = process.names(only or [])
    if new is not None:
        for path in skeleton.write(new, operations or OPERATIONS):
            console().print(str(path))
        console().print(f"fill them in, then: {shell('minialex', 'grade', new)}")
        return 0
    limits = process.Limits(examples, seed, timeout, memory, strict)
    if each is not None:
        if form != "minialex":
            raise ConfigurationError(
                "--format is for one submission: --each writes --csv, or --json in minialex's own format"
            )
        return _class(each, operations or None, limits, points, json, csv, jobs)
    from minialex.course.grading import formats, table
    from minialex.storage.atomic import write_json

    if form not in formats.WRITERS:
        known = ", ".join(formats.WRITERS)
        raise ConfigurationError(f"no format '{form}'; there are {known}.{nearest(form, formats.WRITERS)}")
    if form != "minialex" and json is None:
        raise ConfigurationError(f"--format {form} needs a file: name it with --json FILE")
    check_writable(json, "--json", ".json")
    screen = console(least=0)
    with waiting(screen, "importing …") as say:
        graded = process.grade(
            theirs or "", operations or None, limits, lambda name, count: say(f"{name}, example {count}")
        )
    table.show(screen, graded, points)
    if json is not None:
        write_json(json, formats.WRITERS[form](graded, points))
    return 0 if graded.good else 1


def _class(
    place: Path,
    only: list[str] | None,
    limits: process.Limits,
    points: float | None,
    json: Path | None,
    csv: Path | None,
    jobs: int,
) -> int:
    """Grade the submissions of a folder."""
    from minialex.course.grading import folder, table
    from minialex.course.grading.result import UNFINISHED
    from minialex.screen.terminal import console, counting
    from minialex.storage.atomic import write_text

    found, others = folder.submissions(place)
    screen = console(least=0)
    students: list[folder.Student] = []
    with counting(screen, "graded", len(found), "submissions") as tell:
        done = 0

        def count(name: str) -> None:
            nonlocal done
            done += 1
            tell(done)

        for student in folder.grade_each(found, only, limits, json, points, jobs, count):
            students.append(student)
            if csv is not None:  # write what there is, even if interrupted
                write_text(csv, folder.as_csv(students, only, points))
    table.show_class(screen, students, points)
    if others:
        screen.print(f"not graded, no .py file: {', '.join(others)}")
    written = [str(path) for path in (csv, json) if path is not None]
    if written:
        screen.print(f"written: {', '.join(written)}")
    unfinished = [s.name for s in students if any(result.status == UNFINISHED for result in s.grade.results)]
    if unfinished:
        screen.print(f"could not be graded, through no fault of theirs; grade them again: {', '.join(unfinished)}")
    return 1 if unfinished else 0

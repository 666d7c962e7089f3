"""A grade on the screen: the table of operations, and the smallest failing call of each wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from minialex.course.grading.folder import Student, common_failures, points_of
from minialex.course.grading.process import Grade
from minialex.course.grading.result import NOT_THEIRS, PASSED, Result

STYLES = {PASSED: "green", "stub": "yellow", "missing": "yellow", "borrowed": "magenta", NOT_THEIRS: "dim"}

COMMON, WHO = 10, 3  # kinds of failures shown for a class, and names for each


def show(console: Console, grade: Grade, points: float | None = None) -> None:
    """Print everything known about a submission."""
    for fault in grade.faults:
        console.print(Text.assemble(("cannot be used: ", "bold red"), fault), soft_wrap=True)
    if grade.counted:
        seed = "" if grade.limits.seed is None else f", seed {grade.limits.seed}"
        console.print(Text(f"{grade.submission}, {grade.limits.examples} examples of each kind of number{seed}"))
        console.print(_table(grade))
        for result in grade.counted:
            if result.status not in (PASSED, "stub", "missing"):
                console.print(_failure(result))
    remarks = [(result.operation, remark) for result in grade.counted for remark in result.remarks]
    for name, remark in [*(("importing", remark) for remark in grade.remarks), *remarks]:
        console.print(Text(f"{name}: {remark}", style="dim"), soft_wrap=True)
    left = [result.operation for result in grade.results if result.status == NOT_THEIRS]
    if left and grade.counted:
        filled = "filled in by the NumPy reference" if grade.completed else "left out"
        console.print(Text(f"not theirs ({filled}): {', '.join(left)}", style="dim"))
    if not grade.counted and not grade.faults:
        console.print("no operation found: a submission must define relu, conv2d, … under the protocol's names")
    if not grade.counted:
        return
    line = f"{grade.passed} of {len(grade.counted)} operations passed"
    if points is not None:
        line += f": {grade.points(points):g} of {points:g} points"
    console.print(Text(line, style="bold green" if grade.good else "bold red"))


def show_class(console: Console, students: Sequence[Student], points: float | None = None) -> None:
    """Print the grades of a class: one line per student, then the most frequent failures."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("student", overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("seed", justify="right", no_wrap=True, style="dim")
    table.add_column("not passed", overflow="fold")
    for student in students:
        grade = student.grade
        mine, most = points_of(grade, points)
        wrong = [f"{result.operation} {result.status}" for result in grade.counted if result.status != PASSED]
        faults = ["cannot be used"] if grade.faults else [] if grade.counted else ["no operation found"]
        style = "green" if grade.good else "red" if not grade.passed else ""
        name = Text(student.name, style=style)
        table.add_row(name, f"{mine:g} of {most:g}", str(grade.limits.seed), Text(", ".join([*faults, *wrong])))
    console.print(table)
    failures = common_failures(students)
    if failures:
        table = Table(
            title="most common failures", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
        )
        table.add_column("students", justify="right", no_wrap=True)
        table.add_column("operation", overflow="fold")
        table.add_column("what", overflow="fold")
        table.add_column("who", overflow="fold", style="dim")
        for count, operation, what, names in failures[:COMMON]:
            more = f" and {count - WHO} more" if count > WHO else ""
            table.add_row(str(count), Text(operation), Text(what), Text(", ".join(names[:WHO]) + more))
        console.print(table)
        if len(failures) > COMMON:
            console.print(f"and {len(failures) - COMMON} more kinds, in the JSON files", style="dim")
    good = sum(student.grade.good for student in students)
    reused = sum(student.reused for student in students)
    counted = f"{len(students)} submission{'s' if len(students) != 1 else ''}"
    total = [points_of(student.grade, points)[0] for student in students]
    line = f"{counted}, {good} with everything passed, {sum(total) / len(total):.3g} points on average"
    console.print(Text(line + (f"; {reused} had been graded before" if reused else ""), style="bold"))


def _table(grade: Grade) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("operation", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("examples", justify="right")
    table.add_column("defined in", overflow="fold")
    for result in grade.counted:
        status = Text(result.status, style=STYLES.get(result.status, "red"))
        tried = f"{result.examples:,}" if result.examples else ""
        table.add_row(result.operation, status, tried, result.place)
    return table


def _failure(result: Result) -> RenderableType:
    """What is wrong with one operation, and the smallest call that shows it."""
    example = result.example
    where = f" ({example['where']})" if example else ""
    lines: list[RenderableType] = [Text(result.message.partition("; worst at ")[0] + where)]
    if result.at:
        lines.append(Text(f"at {result.at}"))
    if example:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(overflow="fold")
        rows.add_row("call", Text(example["call"]))
        for name, array in example["arguments"].items():
            rows.add_row(name, _array(array))
        if "got" in example:
            rows.add_row("expected", _array(example["expected"]))
            rows.add_row("got", _array(example["got"], style="red"))
            rows.add_row("differs at", Text(_places(example)))
        lines.append(rows)
    style = STYLES.get(result.status, "red")
    return Panel(Group(*lines), title=Text(result.operation), title_align="left", border_style=style)


def _array(array: dict[str, Any], style: str = "") -> Text:
    shape = f"{array['dtype']} {tuple(array['shape'])}"
    text = array["text"]
    if text is None:
        return Text(shape, style="dim")
    separator = "\n" if "\n" in text else "  "
    return Text.assemble((shape, "dim"), separator, (text, style))


def _places(example: dict[str, Any]) -> str:
    """Where the result differs, and by how much it may."""
    places = ", ".join(str(index) for index in example["differs_at"])
    more = example["differs"] - len(example["differs_at"])
    allowed = example["allowed"]
    text = f"{places} and {more} more" if more > 0 else places
    return f"{text} (by more than {allowed:.2g})" if allowed else text

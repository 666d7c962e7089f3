"""Grades in other programs' formats: Gradescope's ``results.json``, and the JSON of GitHub Classroom's reporter."""

from __future__ import annotations

from typing import Any

from minialex.course.grading.process import Grade
from minialex.course.grading.result import PASSED, Result


def as_json(grade: Grade, points: float | None) -> dict[str, Any]:
    """Everything known, in minialex's own format."""
    return grade.as_json(points)


def gradescope(grade: Grade, points: float | None) -> dict[str, Any]:
    """What a Gradescope autograder writes to ``/autograder/results/results.json``: one test per operation."""
    most, each = worth(grade, points)
    tests = [
        {
            "name": result.operation,
            "number": str(number),
            "score": each if result.status == PASSED else 0.0,
            "max_score": each,
            "status": "passed" if result.status == PASSED else "failed",
            "output": explanation(result),
            "output_format": "text",
            "visibility": "visible",
        }
        for number, result in enumerate(grade.counted, 1)
    ]
    lines = [f"cannot be used: {fault}" for fault in grade.faults]
    return {
        "score": grade.points(most),
        "execution_time": round(sum(result.seconds for result in grade.counted), 2),
        "output": "\n".join([*lines, f"{grade.passed} of {len(grade.counted)} operations passed"]),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {"seed": grade.limits.seed, "examples": grade.limits.examples},
    }


def classroom(grade: Grade, points: float | None) -> dict[str, Any]:
    """A runner's result in the form of GitHub Classroom's ``autograding-grading-reporter`` (there in base64)."""
    most, each = worth(grade, points)
    tests = []
    for result in grade.counted:
        file, _, line = result.place.partition(":")
        tests.append(
            {
                "name": result.operation,
                "status": "pass" if result.status == PASSED else "fail",
                "score": each if result.status == PASSED else 0.0,
                "message": None if result.status == PASSED else explanation(result),
                "test_code": f"minialex grade --only {result.operation}",
                "filename": file,
                "line_no": int(line) if line.isdigit() else 0,
                "duration": result.seconds,
            }
        )
    if grade.faults:
        message = "\n".join(grade.faults)
        tests.append(
            {"name": "import", "status": "error", "score": 0.0, "message": message, "test_code": "", "filename": "",
             "line_no": 0, "duration": 0.0}
        )  # fmt: skip
    status = "pass" if grade.good else "error" if grade.faults else "fail"
    return {"version": 1, "status": status, "max_score": most, "tests": tests}


WRITERS = {"minialex": as_json, "gradescope": gradescope, "classroom": classroom}
"""For each format, a function from a grade and the maximum of points to a JSON value."""


def worth(grade: Grade, points: float | None) -> tuple[float, float]:
    """The maximum of points, and the points for one operation; one each if no maximum was given."""
    most = float(len(grade.counted)) if points is None else points
    return most, most / len(grade.counted) if grade.counted else 0.0


def explanation(result: Result) -> str:
    """What is wrong, as text: the message, the place, and the smallest call that shows it."""
    lines = [result.message or result.status]
    if result.at:
        lines.append(f"at {result.at}")
    if result.example:
        lines.append(f"call: {result.example['call']}")
        shown = {**result.example["arguments"]}
        shown |= {name: result.example[name] for name in ("expected", "got") if name in result.example}
        for name, array in shown.items():
            lines.append(f"{name}: {array['dtype']} {tuple(array['shape'])} {array['text'] or ''}".rstrip())
    return "\n".join([*lines, *result.remarks])

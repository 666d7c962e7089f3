"""docs/how-to/teach.md: its commands and programs run, and its tables are what they print.

``python tests/docs/test_teach.py`` writes the tables into the page anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from minialex.backend.protocol import OPERATIONS
from minialex.course.grading.result import MEANINGS
from minialex.site.blocks import COLUMN

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "how-to" / "teach.md"
COMMAND = "minialex grade anna.py --points 10"
CLASS = """minialex grade --each submissions --only relu,relu_backward --points 10 \\
  --csv points.csv --json grades"""
NOT_RUN = ("pip ", "jupyter ")  # they need a network, or never end


def page() -> str:
    return FILE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page(), flags=re.MULTILINE | re.DOTALL)


def between(name: str) -> str:
    return page().partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->")[0]


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A block of commands as a reader's shell runs them, on a terminal as wide as a page."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": str(COLUMN), "MINIALEX_DATA": str(folder / "no-data")}
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def anna(folder: Path) -> Path:
    (folder / "anna.py").write_text(blocks("python")[0], encoding="utf-8")
    return folder


def meanings() -> str:
    return "| result | means |\n|---|---|\n" + "".join(
        f"| `{status}` | {meaning} |\n" for status, meaning in MEANINGS.items()
    )


def graded(folder: Path) -> str:
    text = run(COMMAND, anna(folder)).stdout
    return "```text\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```\n"


def handed_in(folder: Path) -> Path:
    """A small class: anna's submission of the page, a right one, a wrong one, a broken one."""
    text = blocks("python")[0]
    (folder / "submissions").mkdir()
    for name, content in {
        "anna": text,
        "ben": text.replace("y >= 0", "y > 0"),
        "carla": text.replace("dy * (y >= 0)", "dy"),
        "dora": text.replace("def relu(x):", "def relu(x)"),
    }.items():
        (folder / "submissions" / f"{name}.py").write_text(content, encoding="utf-8")
    return folder


def class_graded(folder: Path) -> str:
    text = run(CLASS, handed_in(folder)).stdout
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("graded:")]
    return "```text\n" + "\n".join(lines) + "\n```\n"  # without how far it is, which a slow machine says


def essence(table: str) -> list[str]:
    """What does not depend on the versions of NumPy and Hypothesis: no examples, but who passed, and why not."""
    lines = table.splitlines()
    rows = [" ".join(line.split()[:2]) for line in lines if re.match(r"\s*[a-z_0-9]+\s+(passed|failed|stub)\b", line)]
    frames = [re.sub("─+", "─", line) for line in lines if line.startswith("╭")]
    return [*rows, *frames, lines[-2]]


def test_the_failing_table_is_what_the_command_prints(tmp_path: Path) -> None:
    shown, printed = between("table"), graded(tmp_path)
    assert essence(shown) == essence(printed)
    assert essence(shown)[:4] == ["linear failed", "relu passed", "relu_backward failed", "tanh passed"]
    assert all("[" in shown.partition(f"─ {name} ─")[2] for name in ("linear", "relu_backward"))


def test_the_class_is_what_the_command_prints(tmp_path: Path) -> None:
    assert CLASS in page()
    shown, printed = between("class"), class_graded(tmp_path)
    assert [line.split() for line in shown.splitlines()] == [line.split() for line in printed.splitlines()]
    lines = (tmp_path / "points.csv").read_text().splitlines()
    assert lines[0] == "name,points,of_points,passed,of,seed,examples,fault,relu,relu_backward"
    assert [line.split(",")[1] for line in lines[1:]] == ["5.0", "10.0", "5.0", "0.0"]
    assert len(list((tmp_path / "grades").iterdir())) == 4


def test_the_meanings_are_the_programs() -> None:
    assert between("meanings") == meanings()


def test_the_plan_has_every_operation_and_notebook() -> None:
    plan = page().partition("## The notebooks")[2].partition("Weeks 3")[0]
    named = re.findall(r"`([a-z_0-9]+)`", plan)
    assert set(named) <= set(OPERATIONS)
    left_out = {"spatial_response_norm", "spatial_response_norm_backward", "scale_by_trust_ratio"}  # not the paper's
    assert set(OPERATIONS) - set(named) == left_out
    assert {f"{number:02}" for number in range(1, 17)} <= set(re.findall(r"\b\d\d\b", plan))


def test_the_extras_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for names in re.findall(r"minialex\[([a-z,]+)\]", page()):
        assert set(names.split(",")) <= set(extras)


@pytest.mark.slow
def test_all_of_it_runs(tmp_path: Path) -> None:
    anna(tmp_path)
    handed_in(tmp_path)
    for block in blocks("bash"):
        lines = [line for line in block.splitlines() if not line.startswith(NOT_RUN)]
        done = run("\n".join(lines), tmp_path)
        assert done.returncode in (0, 1), (block, done.stderr)
        assert done.stderr == "", block
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr


def update() -> None:
    """Write the tables into the page."""
    import tempfile

    text = page()
    with tempfile.TemporaryDirectory() as folder:
        made_of = {"table": graded(Path(folder)), "class": class_graded(Path(folder)), "meanings": meanings()}
        for name, made in made_of.items():
            begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
            text = text.partition(begin)[0] + begin + made + end + text.partition(end)[2]
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update()

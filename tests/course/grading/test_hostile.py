"""A submission that means harm costs its own operations, and neither the grader nor the next submission."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minialex.course.grading.process import Grade, Keeper, Limits
from minialex.course.grading.submission import Source

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what is promised beyond one process is promised on Linux"
)
BACKWARD = """
def relu_backward(dy, y):
    return dy * (y > 0)
"""
RIGHT = "import os, sys, time\nimport numpy as np\n\ndef relu(x):\n    return np.maximum(x, 0)\n" + BACKWARD
FORGED = '{"kind": "result", "result": {"operation": "relu", "status": "passed", "place": "", "examples": 9, '
FORGED += '"seconds": 0.1, "message": "", "at": "", "example": null, "remarks": []}}'
TRY, PASS = "try:", "except OSError: pass"
WITHOUT_NAMESPACE = (
    sys.executable, "-P", "-c",
    "from minialex.course.grading import keeper; keeper.own_processes = lambda: None; keeper.main()",
)  # fmt: skip


WHERE = ("namespace", "no namespace")
both = pytest.mark.parametrize("keeper", WHERE, indirect=True)


@pytest.fixture(scope="module", params=WHERE[:1])
def keeper(request: pytest.FixtureRequest) -> Iterator[Keeper]:
    """One for all tests: it must survive each of them. The second is what systems without namespaces have."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == WHERE[1]:
            patch.setattr(Keeper, "COMMAND", WITHOUT_NAMESPACE)
        with Keeper() as made:
            yield made


def graded(keeper: Keeper, folder: Path, text: str, timeout: float = 1.0) -> Grade:
    """A submission's grade, within the time that it may take at most."""
    path = folder / "o.py"
    path.write_text(text, encoding="utf-8")
    began = time.monotonic()
    grade = keeper.grade(str(path), Source("path", str(path)), None, Limits(5, timeout=timeout, memory=0.5))
    assert time.monotonic() - began < 100
    assert keeper.alive
    return grade


def statuses(grade: Grade) -> dict[str, str]:
    return {result.operation: result.status for result in grade.counted}


def still_running(mark: str) -> list[str]:
    """Processes whose command line has a mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [line] if mark in line else []
    return found


ALL = {"relu": "passed", "relu_backward": "passed"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(RIGHT + "import atexit\natexit.register(time.sleep, 100)\n", ALL, id="atexit"),
        pytest.param(
            RIGHT + "import threading\nthreading.Thread(target=time.sleep, args=(200,)).start()\n", ALL, id="thread"
        ),
        pytest.param(
            f"{RIGHT}import signal\nfor s in range(1, 32):\n    {TRY} signal.signal(s, lambda *a: None)\n    {PASS}\n",
            ALL, id="signal handlers",
        ),
        pytest.param(RIGHT + "os.closerange(0, 64)\n", ALL, id="low descriptors closed"),
        pytest.param(RIGHT + "print('x' * 30_000_000)\n", ALL, id="huge output"),
        pytest.param(
            f"{RIGHT}for fd in range(3, 40):\n    {TRY} os.write(fd, b'''[1,2]\\n{FORGED}\\n''')\n    {PASS}\n", ALL,
            id="forged lines at import",
        ),
        pytest.param("import os\ndef relu(x): os._exit(0)\n" + BACKWARD, {**ALL, "relu": "crashed"}, id="exit"),
        pytest.param(
            "import os\nimport numpy as np\ndef relu(x):\n    os.fork()\n    return np.maximum(x, 0)\n" + BACKWARD,
            ALL, id="forks and both go on",
        ),
        pytest.param(
            "class E(Exception):\n    def __str__(self): raise E()\ndef relu(x):\n    raise E()\n" + BACKWARD,
            {**ALL, "relu": "failed"}, id="error without a text",
        ),
        pytest.param(
            "def relu(x):\n    raise ValueError('\\x1b[2J\\udcff\\r\\x07' + 'y' * 10_000_000)\n" + BACKWARD,
            {**ALL, "relu": "failed"}, id="error with a text of control characters, long",
        ),
        pytest.param(
            "kept = []\ndef relu(x):\n    while True: kept.append(bytearray(1 << 28))\n" + BACKWARD,
            {**ALL, "relu": "failed"}, id="memory",
        ),
    ],
)  # fmt: skip
def test_it_costs_its_operation_at_most(keeper: Keeper, tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    grade = graded(keeper, tmp_path, text)
    assert statuses(grade) == expected
    assert not grade.faults
    assert all(len(result.message) < 900 for result in grade.results)


ANYWHERE = """
import os
import numpy as np

def relu(x):
    for fd in range(3, 1024):
        try: os.write(fd, b'''[1,2]\\n%s\\n''')
        except OSError: pass
    return x

def relu_backward(dy, y):
    return dy * (y > 0)
"""


@both
def test_forged_answers_are_not_answers(keeper: Keeper, tmp_path: Path) -> None:
    grade = graded(keeper, tmp_path, ANYWHERE % FORGED)
    assert statuses(grade) == {**ALL, "relu": "crashed"}
    assert "where only the grader writes" in grade.counted[0].message


def test_a_pipe_filled_without_end_ends(keeper: Keeper, tmp_path: Path) -> None:
    text = "import os\ndef relu(x):\n    while True:\n        for fd in range(3, 1024):\n"
    text += f"            {TRY} os.write(fd, b'z' * 65536)\n            {PASS}\n"
    assert statuses(graded(keeper, tmp_path, text + BACKWARD))["relu"] in ("out of time", "crashed")


@both
def test_all_descriptors_closed(keeper: Keeper, tmp_path: Path) -> None:
    grade = graded(keeper, tmp_path, RIGHT + "os.closerange(0, 4096)\n")
    assert grade.faults == ["importing it closed the pipe to the grader"]
    grade = graded(
        keeper, tmp_path, RIGHT.replace("    return np.max", "    os.closerange(0, 4096)\n    return np.max")
    )
    assert statuses(grade) == {**ALL, "relu": "crashed"}


@both
def test_what_escapes_is_ended(keeper: Keeper, tmp_path: Path) -> None:
    mark = f"escaped-{os.getpid()}"
    escape = f"""
import subprocess
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)  # {mark}'], start_new_session=True)
        time.sleep(120)
    os._exit(0)
time.sleep(1)
"""
    grade = graded(keeper, tmp_path, RIGHT + escape, timeout=5)
    assert statuses(grade) == ALL
    assert still_running(mark) == []


@both
def test_its_parent_is_not_ours(keeper: Keeper, tmp_path: Path) -> None:
    kill = (
        "import os, signal\ndef relu(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    os.kill(0, signal.SIGKILL)\n"
    )
    assert statuses(graded(keeper, tmp_path, kill + BACKWARD)) == {**ALL, "relu": "crashed"}


def test_sleep_and_waiting_end_by_the_clock(keeper: Keeper, tmp_path: Path) -> None:
    grade = graded(keeper, tmp_path, "import time\ndef relu(x):\n    time.sleep(1000)\n" + BACKWARD, timeout=0.5)
    assert statuses(grade) == {**ALL, "relu": "out of time"}
    assert "by the clock in example 1" in grade.counted[0].message


def test_a_grader_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    mark = f"orphan-{os.getpid()}"
    (tmp_path / "o.py").write_text(
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)  # "
        + mark
        + "'],"
        " start_new_session=True)\nopen('ready', 'w').close()\nwhile True: pass\n"
    )
    grader = subprocess.Popen(
        [sys.executable, "-m", "minialex", "grade", "o.py"], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert still_running(mark)
    grader.kill()
    grader.wait()
    while still_running(mark) and time.monotonic() < until:
        time.sleep(0.05)
    assert still_running(mark) == []


def test_a_submission_that_finds_the_grader_ends_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no namespace it can look for the process above those above it: its grade is lost, and no other."""
    monkeypatch.setattr(Keeper, "COMMAND", WITHOUT_NAMESPACE)
    text = """
def above(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])

os.kill(above(above(os.getppid())), 9)
time.sleep(100)
"""
    path = tmp_path / "o.py"
    path.write_text(RIGHT + text)
    keeper = Keeper()
    grade = keeper.grade(str(path), Source("path", str(path)), None, Limits(5))
    assert grade.faults == ["it ended the grader's own process"]
    assert not keeper.alive


def test_the_reference_is_not_the_students_time(keeper: Keeper, tmp_path: Path) -> None:
    """The processor time of a call is its own: examples and the reference take longer together than one call may."""
    path = tmp_path / "o.py"
    path.write_text(RIGHT)
    grade: Any = keeper.grade(str(path), Source("path", str(path)), ["relu"], Limits(60, timeout=0.1))
    assert statuses(grade) == {"relu": "passed"}

"""The cache of compiled kernels: filled once, used ever after, and never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex_numba.runtime import jit

PROGRAM = """
import json, logging, sys
from numba.core import event

said = []

class Listen(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

logging.getLogger("minialex.numba").addHandler(Listen())
with event.install_recorder("numba:compile") as compiled:
    import numpy as np
    from minialex_numba import NumbaBackend
    from minialex_numba.runtime.jit import cache_folder

    backend = NumbaBackend(threads=2)
    x = backend.to_device(np.arange(-8.0, 9.0), "cpu:0")
    results = [backend.relu(x).data.sum(), backend.add(x, x).data.sum(), backend.scale(x, 0.5).data.sum()]
functions = [e.data["dispatcher"].py_func for _, e in compiled.buffer if e.is_start]
kernels = {f.__name__ for f in functions if f.__module__.startswith("minialex_numba")}  # the others are Numba's own
json.dump({"kernels": sorted(kernels), "said": said, "results": results, "folder": cache_folder()}, sys.stdout)
"""
WANTED = {"relu_kernel", "add_kernel", "scale_kernel"}


def run(**environment: str) -> Any:
    """What a process of its own compiled, and said in notices."""
    clean = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True, text=True, env={**clean, **environment}, timeout=300, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["results"] == [36.0, 0.0, 0.0]
    assert "Traceback" not in child.stderr
    return found


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())


def test_a_second_run_compiles_nothing(tmp_path: Path) -> None:
    first = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert set(first["kernels"]) == WANTED
    assert Path(first["folder"]).parent == tmp_path
    assert len(files(tmp_path, ".nbc")) == len(WANTED)
    second = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert second["kernels"] == []
    assert first["said"] == second["said"] == []


@pytest.mark.parametrize(
    ("ending", "content"),
    [(".nbc", None), (".nbc", b""), (".nbc", b"garbage" * 100), (".nbi", None), (".nbi", b"garbage" * 100)],
    ids=["truncated", "empty", "garbage", "index truncated", "index of garbage"],
)
def test_damaged_files_are_made_again_with_one_notice(
    filled: Path, tmp_path: Path, ending: str, content: bytes | None
) -> None:
    for path in filled.rglob("*"):
        if path.is_file():
            there = tmp_path / path.relative_to(filled)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    damaged = files(tmp_path, ending)
    assert len(damaged) == len(WANTED)
    for path in damaged:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    found = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert set(found["kernels"]) == WANTED
    (notice,) = found["said"]
    assert "the cache of compiled kernels could not be read" in notice
    assert "compiled again" in notice
    again = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert again["kernels"] == [], "the damaged files are still there"
    assert again["said"] == []


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernels")
    run(NUMBA_CACHE_DIR=str(folder))
    return folder


def test_without_a_folder_that_can_be_written_one_notice_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    found = run(NUMBA_CACHE_DIR=str(file / "cache"))
    assert set(found["kernels"]) == WANTED
    assert found["folder"] is None
    (notice,) = found["said"]
    assert str(file / "cache") in notice
    assert "cannot be kept" in notice
    assert "NUMBA_CACHE_DIR" in notice


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is Linux's")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    found = run(NUMBA_CACHE_DIR="/proc/self")
    assert set(found["kernels"]) == WANTED
    assert len(found["said"]) == 1


def test_the_user_s_own_cache_folder(tmp_path: Path) -> None:
    found = run(XDG_CACHE_HOME=str(tmp_path))
    assert Path(found["folder"]).parent == tmp_path / "minialex" / "numba"
    assert len(files(tmp_path, ".nbc")) == len(WANTED)
    assert found["said"] == []
    home = tmp_path / "home"
    found = run(HOME=str(home), XDG_CACHE_HOME="")
    assert Path(found["folder"]).parent == home / ".cache" / "minialex" / "numba"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    wanted = jit.candidates()
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    assert jit.candidates() == wanted


def test_what_kernels_call_is_made_machine_code_with_them_only() -> None:
    from minialex_numba.runtime.jit import kernel, part
    from minialex_numba.runtime.lean import PartLibrary

    @part
    def twice(x, i):  # type: ignore[no-untyped-def]
        return x[i] + x[i]

    @kernel
    def doubled(worker, begin, end, x, y):  # type: ignore[no-untyped-def]
        for i in range(begin, end):
            y[i] = twice(x, i)

    x, y = np.arange(4.0), np.zeros(4)
    doubled(0, 1, 3, x, y)
    assert y.tolist() == [0, 2, 4, 0]
    (compiled,) = twice.overloads.values()
    assert isinstance(compiled.library, PartLibrary)
    with pytest.raises(TypeError, match="twice is compiled into the kernels that call it"):
        twice(x, 1)
    assert twice.py_func(x, 1) == 2


def test_a_part_called_from_python_before_any_kernel_has_it() -> None:
    """In a process of its own, which it used to end."""
    lines = ("import numpy as np", "from minialex_numba.runtime.jit import part",
             "twice = part(lambda x, i: x[i] + x[i])", "twice(np.arange(4.0), 1)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TypeError: <lambda> is compiled into the kernels that call it" in done.stderr

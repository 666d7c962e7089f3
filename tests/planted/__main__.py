"""Plant small faults one at a time, and see whether a test notices.

    python tests/planted                    all faults, some seconds each
    python tests/planted look/ calibrat     those whose list, file or description has one of the words
    python tests/planted --in FOLDER        with the copy in a folder that stays: compiled kernels are found again

The lists beside this file have a table ``[[fault]]`` for each: what is wrong (`what`), the `file`, the `old` text and
the `new` one, and the `tests` that must notice, the narrowest (arguments of pytest). A fault with `equivalent` changes
no result, for the reason that stands there, and is not run.

It works on a copy of this tree. All tests are run there once without a fault; then every fault is planted where its old
text stands exactly once, its tests are run, and the file is restored. Faults whose text has changed since are named:
mend their lists.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LIMIT = 600  # seconds that the tests of one fault may take
COPIED = ("backends", "benchmarks", "docs", "examples", "minialex", "notebooks", "tests")


def faults(words: list[str]) -> list[dict[str, str]]:
    """The faults of all lists, or those that have one of the words."""
    found = []
    for path in sorted(HERE.glob("*.toml")):
        for fault in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]:
            text = f"{path.stem} {fault['file']} {fault['what']}".lower()
            if not words or any(word.lower() in text for word in words):
                found.append(fault)
    return found


def failing(tree: Path, tests: str, limit: int | None = None) -> str:
    """The first test that fails in a copy of the tree, or nothing; subprocess.TimeoutExpired if they take too long."""
    # kernels are kept in the copy, so that a fault in a module without kernels compiles none anew
    ours = {
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'backends'}",
        "NUMBA_CACHE_DIR": str(tree.parent / "kernels"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    done = subprocess.run(
        command, cwd=tree, env={**os.environ, **ours}, capture_output=True, text=True, timeout=limit, check=False
    )
    if done.returncode not in (0, 1, 2):  # 1: a test failed; 2: not even an import works
        raise SystemExit(f"pytest {tests} ends with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if done.returncode == 0:
        return ""
    first = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return first[1] if first else "nothing was collected"


def outcome(tree: Path, fault: dict[str, str]) -> tuple[str, str]:
    """What becomes of a fault (caught, survived, equivalent, out of time, text changed), and by which test, or why."""
    path = tree / fault["file"]
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(fault["old"]) != 1:
        return "text changed", ""
    if "equivalent" in fault:
        return "equivalent", fault["equivalent"]
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text(text.replace(fault["old"], fault["new"]), encoding="utf-8")
    try:
        by = failing(tree, fault["tests"], LIMIT)
        return ("caught" if by else "survived"), by
    except subprocess.TimeoutExpired:
        return "out of time", ""
    finally:
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=times)  # its kernels are as they were


def main(words: list[str]) -> int:
    """Plant them all; 1 if one is neither caught nor equivalent."""
    with contextlib.ExitStack() as stack:
        if words[:1] == ["--in"]:
            _, folder, *words = words
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="planted-"))
        chosen, tree = faults(words), Path(folder, "tree").resolve()
        shutil.rmtree(tree, ignore_errors=True)
        for name in COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, tree)
        tests = sorted({fault["tests"] for fault in chosen if "equivalent" not in fault})
        for number, selection in enumerate(tests, 1):
            print(f"without a fault: {number} of {len(tests)}, {selection}", flush=True)
            if by := failing(tree, selection):  # without a limit: kernels may have to be compiled
                raise SystemExit(f"{by} fails without any fault")
        counts: Counter[str] = Counter()
        for fault in chosen:
            began = time.monotonic()
            result, why = outcome(tree, fault)
            counts[result] += 1
            row = f"{result:12} {time.monotonic() - began:4.0f} s  {fault['file']}: {fault['what']}"
            print(f"{row} ({why})" if why else row, flush=True)
    print(", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    return 0 if set(counts) <= {"caught", "equivalent"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

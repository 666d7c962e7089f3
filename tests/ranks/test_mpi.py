"""Training by several processes that mpiexec starts: the same bits as by one, and an end that all come to."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from minialex.runs import checkpoint

MPIEXEC = Path(sys.executable).parent / "mpiexec"

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed (extra mpi)"),
    pytest.mark.skipif(not MPIEXEC.is_file(), reason="this environment has no mpiexec (extra mpi)"),
]

RECIPE = """
base = "small"
[network]
columns = {columns}
kernels = [6, 16, 24, 20, 10]
features = [14, 18]
[training]
batch_size = 16
shards = 4
epochs = {epochs}
[images]
data = "shapes"
train_images = 48
validation_images = 130
"""


def recipe_text(name: str, epochs: int) -> str:
    """A recipe with one column, with two, or with full layers divided over ranks."""
    text = RECIPE.format(columns=1 if name == "1" else 2, epochs=epochs)
    if name == "divided":
        text = text.replace("[14, 18]", "[16, 20]").replace("shards = 4", 'shards = 4\nfull_layers = "divided"')
    if name == "1":
        text = text.replace("shards = 4", "shards = 4\ntrust_coefficient = 0.02")
    return text


def command(ranks: int, *words: Any, program: tuple[str, ...] = ("-m", "minialex")) -> list[str]:
    python = [sys.executable, *program, *map(str, words)]
    return python if ranks == 1 else [str(MPIEXEC), "-n", str(ranks), *python]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **more}


def run(ranks: int, *words: Any, code: int = 0, **options: Any) -> str:
    done = subprocess.run(
        command(ranks, *words, **options), env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def alone(*lines: str) -> None:
    """Train in one process, without the pictures of reports, which take longer than these trainings."""
    program = "import minialex, minialex.api.run; minialex.api.run.write_report = lambda *_: None\n" + "\n".join(lines)
    run(1, program=("-c", program))


def told(folder: Path) -> tuple[str, list[Any]]:
    """The last checkpoint's weights and momentum as a hash, and all records but what was measured by a clock."""
    saved = checkpoint.latest(folder / "checkpoints", print)
    assert saved is not None
    sha = hashlib.sha256()
    for arrays in (saved.weights, saved.momentum):
        for _, array in sorted(arrays.items()):
            sha.update(array.tobytes())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return sha.hexdigest(), [
        {name: value for name, value in record.items() if name not in ("seconds", "images_per_second")}
        for record in records
    ]


KINDS = ("numpy-1", "numpy-2", "numba-1", "numba-2", "numpy-divided")
"""Backend, and columns or divided full layers; with one column by layer-wise adaptive rates."""

SEVERAL = """
import sys
import minialex, minialex.api.run
minialex.api.run.write_report = lambda *_: None
folder, *kinds = sys.argv[1:]
for kind in kinds:
    backend, recipe = kind.split("-")
    minialex.train(folder + "/" + recipe + ".toml", out=folder + "/" + kind, progress=False, backend=backend)
"""


def several(folder: Path, ranks: int) -> None:
    """Train each of `KINDS` in a folder of its own."""
    folder.mkdir()
    for name in ("1", "2", "divided"):
        (folder / f"{name}.toml").write_text(recipe_text(name, epochs=1))
    (folder / "several.py").write_text(SEVERAL)
    run(ranks, folder, *KINDS, program=(str(folder / "several.py"),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for ranks in (1, 2, 4):
        several(folder / str(ranks), ranks)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_one_two_and_four_processes_give_the_same_bits(trained: Path, kind: str) -> None:
    one = trained / "1" / kind
    wanted = told(one)
    assert [record["kind"] for record in wanted[1]] == ["train", "validation"]
    for ranks in (2, 4):
        other = trained / str(ranks) / kind
        assert told(other) == wanted
        for name in ("recipe.toml", "data.json", "data.safetensors"):
            assert (other / name).read_bytes() == (one / name).read_bytes(), name


@pytest.mark.parametrize("name", ["2", "divided"])
def test_a_run_goes_on_with_another_number_of_processes(trained: Path, tmp_path: Path, name: str) -> None:
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    shutil.copytree(trained / "4" / f"numpy-{name}", parts)
    said = run(2, "train", "--resume", parts, "--epochs", 2)
    assert said.count("report ") == 1, said  # one of them speaks
    recipe = tmp_path / "whole.toml"
    recipe.write_text(recipe_text(name, epochs=3))
    alone(
        f"minialex.TrainingRun({str(parts)!r}).resume(epochs=3, progress=False)",
        f"minialex.train({str(recipe)!r}, out={str(whole)!r}, backend='numpy', progress=False)",
    )
    assert told(parts) == told(whole)
    words = run(3, "train", "--resume", parts, code=2)
    assert words.count("\n") == 1
    assert "this run's batch is summed in 4 shards: start 1, 2 or 4 ranks, not 3" in words


def test_errors_are_those_of_one_process(trained: Path) -> None:
    words = ("evaluate", trained / "1" / "numpy-divided", "--json", "--views", 10, "--backend", "numpy")
    assert run(3, *words) == run(1, *words)


def test_divided_full_layers_that_cannot_be_are_refused_once(tmp_path: Path) -> None:
    words = ("train", "--full-layers", "divided", "--backend", "numpy", "--out", tmp_path / "run")
    said = run(3, *words, "--batch-size", 48, code=2)
    assert said.startswith("error: layer 'fc6': 128 units cannot be divided over ranks in 3 pieces")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_as_many_shards_as_processes_where_nothing_is_said(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(columns=1, epochs=1).replace("shards = 4\n", ""))
    run(2, "train", "--recipe", recipe, "--backend", "numpy", "--out", tmp_path / "run")
    assert "shards = 2\n" in (tmp_path / "run" / "recipe.toml").read_text()


def ranks_of(process: subprocess.Popen[Any]) -> dict[int, psutil.Process]:
    """The ranks' processes by their numbers."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            number = child.environ().get("PMI_RANK")
            if number is not None and child.cmdline()[1:3] == ["-m", "minialex"]:
                found[int(number)] = child
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(columns=1, epochs=500))
    words = command(2, "train", "--recipe", recipe, "--backend", "numpy", "--out", folder)
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 60
        while not (folder / "metrics.jsonl").is_file() or not (folder / "metrics.jsonl").stat().st_size:
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        there = ranks_of(process)
        there[1].send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == code, out + errors
    assert "continue with" in out
    assert errors == ""
    assert not [child for child in there.values() if child.is_running()]
    saved = checkpoint.latest(folder / "checkpoints", print)
    assert saved is not None
    assert saved.step < 300
    done = -(-saved.step // 3)
    whole = str(tmp_path / "whole")
    alone(
        f"minialex.TrainingRun({str(folder)!r}).resume(epochs={done}, progress=False)",
        f"minialex.train({str(recipe)!r}, out={whole!r}, epochs={done}, backend='numpy', progress=False)",
    )
    assert told(folder)[0] == told(tmp_path / "whole")[0]


DRIVER = """
import os, sys, time
from minialex.errors import DataError
from minialex.training.loop import Training

how, *words = sys.argv[1:]
rank = int(os.environ["PMI_RANK"])
step = Training.heard
count = 0

def heard(self, requests):
    global count
    count += 1
    if count == 8 and (rank == 1 or how.endswith("all")):
        if how.startswith("data"):
            raise DataError("an image cannot be read")
        raise RuntimeError("what nobody thought of")
    return step(self, requests)

Training.heard = heard
if how == "api":
    import minialex
    minialex.train(words[0], out=words[1], progress=False, backend="numpy")
else:
    from minialex.cli.app import main
    main(["train", *words])
"""


@pytest.mark.parametrize(
    ("how", "code", "wanted"),
    [
        ("data", 6, r"error: rank 1 \(pid \d+ on .*\): an image cannot be read\n"),
        ("data all", 3, r"error: an image cannot be read\n"),
        ("api", 6, r"(?s).*RuntimeError: what nobody thought of.*error: rank 1 .*: RuntimeError: what nobody.*"),
    ],
)
def test_an_error_of_one_or_all_ends_all_and_is_said_once(tmp_path: Path, how: str, code: int, wanted: str) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(columns=1, epochs=2))
    words: list[Any] = ["--recipe", recipe, "--backend", "numpy", "--out", tmp_path / "run"]
    if how == "api":
        words = [recipe, tmp_path / "run"]
    said = run(2, how, *words, code=code, program=(str(tmp_path / "driver.py"),))
    assert re.fullmatch(wanted, said), said
    assert checkpoint.latest(tmp_path / "run" / "checkpoints", print) is not None


def test_processes_that_would_train_differently_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(columns=1, epochs=1))
    begin = ["train", "--recipe", str(recipe), "--backend", "numpy", "--out", str(tmp_path / "run")]
    for other, code, words in (
        (["--seed", "4"], 2, "rank 1 was given another recipe than rank 0: seed is 4, not 0"),
        (["--backend", "nump"], 2, "no backend named 'nump'"),
    ):
        done = subprocess.run(
            [*command(2, *begin)[:1], "-n", "1", *command(1, *begin), ":", "-n", "1", *command(1, *begin, *other)],
            env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "run").exists()


def test_values_that_are_not_finite_end_all_and_are_said_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(columns=1, epochs=1))
    words = ("--backend", "numpy", "--learning-rate", "1e30", "--out", tmp_path / "run")
    said = run(2, "train", "--recipe", recipe, *words, code=5)
    assert re.fullmatch(r"error: step \d+: values are not finite, first in .*\n", said), said


def test_an_option_that_is_wrong_is_said_once() -> None:
    said = run(2, "train", "--learning-rat", "3", code=2)
    assert said.startswith("error: no option or recipe field '--learning-rat'")
    assert said.count("\n") == 1


def test_mpi_is_not_imported_by_a_process_alone(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(
        "import sys\n"
        "from minialex.cli.app import run\n"
        "import minialex.api.run\n"
        "minialex.api.run.write_report = lambda *_: None\n"
        "assert run(['train', '--epochs', '1', '--train-images', '16', '--batch-size', '16', "
        "'--validation-images', '2', "
        "'--backend', 'numpy', '--out', 'run', '--kernels', '4,4,4,4,4', '--features', '6,6']) == 0\n"
        "assert 'mpi4py' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "alone.py"], env=environment(), cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

"""`prepare` and `features` by several processes: the same bytes as by one, however they end and go on."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from minialex.backend import registry
from minialex.data import load
from minialex.engine.opening import new_session, open_session
from minialex.errors import ConfigurationError
from minialex.look import features
from minialex.recipe.toml import load as load_recipe
from minialex.runs import weights_file
from minialex.runs.weights_file import Weights

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed (extra mpi)"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills with SIGKILL"),
]


def begin(folder: Path, *words: object) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "minialex", *map(str, words)], text=True, cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(folder: Path, *words: object, code: int = 0) -> tuple[str, str]:
    process = begin(folder, *words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out, err


def sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """How it ended; none of its own is left."""
    family = psutil.Process(process.pid).children(recursive=True)
    out, err = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive, "orphans"
    return process.returncode, out, err


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos`, and the store `one` of one process."""
    place, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 70), ("val", 10)):
        for number in range(3):
            folder = place / "photos" / part / f"class{number}"
            folder.mkdir(parents=True)
            for image in range(count):
                pixels = random.integers(0, 256, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{image:03d}.png")
            (folder / "broken.png").write_bytes(b"no image")
    run(place, "prepare", "photos", "one", "--size", 32, "--workers", 1)
    return place


def test_any_number_of_processes_makes_the_same_store(photos: Path) -> None:
    out, err = run(photos, "prepare", "photos", "three", "--size", 32, "--workers", 1, "--ranks", 3)
    assert err == ""
    assert "210 for training, 30 for validation" in out, "said once, and exact"
    assert re.search(r"left out +6 ", out)
    assert "with 3 processes" in out
    assert sums(photos / "three") == sums(photos / "one")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that work, and not their parents."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [one for one in found if one.cmdline()[1:4] == ["-m", "minialex", "prepare"]]


@pytest.fixture(scope="module")
def many(photos: Path) -> Path:
    """A list of so many images that a process is still at work when it is ended, and the store `whole` beside it."""
    place = photos / "many.txt"
    names = [f"{photos}/photos/train/class{i % 3}/{i % 70:03d}.png {i % 3}\n" for i in range(2000)]
    place.write_text("".join(names))
    run(photos, "prepare", place, "whole", "--size", 64, "--workers", 1)
    return place


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 6), (signal.SIGTERM, 75)])
def test_a_store_that_was_ended_goes_on_with_another_number(many: Path, tmp_path: Path, number: int, code: int) -> None:
    process = begin(tmp_path, "prepare", many, "store", "--size", 64, "--workers", 1, "--ranks", 2)
    wait_for(tmp_path / "store" / "prepare" / "sums-1.safetensors", process)
    ranks_of(process)[1].send_signal(number)
    found, out, err = ended(process)
    assert found == code, (out, err)
    if number == signal.SIGKILL:
        lost = r"error: rank \d \(pid \d+ on \S+\)"  # now and then mpiexec leaves the other one to find out by itself
        assert re.fullmatch(rf"{lost} was killed by SIGKILL\n({lost} does not answer for 30 s\n)?", err), err
    else:
        assert (out.strip(), err) == ("stopped by SIGTERM; run the same command again to continue.", "")
    assert not (tmp_path / "store" / "store.json").exists()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.images")}
    assert made, "something was done"
    run(tmp_path, "prepare", many, "store", "--size", 64, "--workers", 1)
    assert sums(tmp_path / "store") == sums(many.parent / "whole")


def test_ranks_without_a_shared_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    """As if the second rank were another machine: its folder is another one, where a different store was begun."""
    program = (
        "import os, sys; from minialex.data.store import prepare; prepare.PATIENCE = 1.0\n"
        "os.chdir(os.environ['PMI_RANK'])\n"
        "from minialex.cli.app import main; main(sys.argv[1:])"
    )
    for rank in "01":
        (tmp_path / rank).mkdir()
    words = ["prepare", photos / "photos", "store", "--size", "32", "--workers", "1"]
    done = subprocess.run(
        [Path(sys.executable).parent / "mpiexec", "-n", "2", sys.executable, "-c", program, *words], cwd=tmp_path,
        text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))},
    )  # fmt: skip
    assert done.returncode == 2
    wanted = r"error: rank 1 \(pid \d+ on \S+\): .*/1/store: what rank 0 has begun there is not seen here; give a "
    assert re.match(wanted, done.stderr), done.stderr
    assert not (tmp_path / "1" / "store").exists()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights file `net.safetensors` of a small network, and its features `alone`."""
    place = tmp_path_factory.mktemp("network")
    shown = load("shapes", train_images=230, validation_images=10)
    fields = {"kernels": (4, 8, 8, 8, 8), "features": (16, 16), "train_images": 230, "validation_images": 10}
    session = new_session(load_recipe("small").replace(**fields), shown, registry.load("numpy"))
    written = Weights(session.recipe, shown.class_names, session.statistics, session.weights(), "shapes")
    weights_file.write(place / "net.safetensors", written)
    run(place, "features", "net.safetensors", "alone", "--backend", "numpy", "--batch-size", 20)
    return place


def test_any_number_of_processes_writes_the_same_features(network: Path) -> None:
    words = "features", "net.safetensors", "three", "--backend", "numpy", "--batch-size", 20, "--ranks", 3
    out, err = run(network, *words)
    assert err == ""
    assert out.count("of 230 train images of shapes: 230 × 16 float32") == 1
    assert sums(network / "three") == sums(network / "alone")


ASKED = """
import os, signal, sys
from minialex.training.signals import StopRequest
among, calls = StopRequest.among, []
def second(self, group):
    calls.append(0)
    if group.rank == 1 and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return among(self, group)
StopRequest.among = second
from minialex.cli.app import main
main(sys.argv[1:])
"""


def test_features_that_were_stopped_go_on_with_another_number(network: Path) -> None:
    """The second of two ranks is asked to end after its second batch."""
    words = ["features", "net.safetensors", "stopped", "--backend", "numpy", "--batch-size", "20"]
    done = subprocess.run(
        [Path(sys.executable).parent / "mpiexec", "-n", "2", sys.executable, "-c", ASKED, *words],
        cwd=network, text=True, capture_output=True, check=False, env={
            **os.environ, "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
        },
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (75, "")
    assert done.stdout.strip() == "stopped by SIGTERM after 80 of 230 images; run the same command to continue"
    assert not (network / "stopped" / "features.npy").exists()
    run(network, *words)
    assert sums(network / "stopped") == sums(network / "alone")


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_a_rank_with_other_images_is_refused_by_all(
    network: Path, tmp_path: Path, together: Callable[..., list[Any]], form: str
) -> None:
    """Ranks as threads, of which one has drawn others; and both formats by ranks that agree."""
    session, _, names = open_session(network / "net.safetensors", registry.load("numpy"), None)
    images = load("shapes", train_images=230, validation_images=10).train
    others = load("shapes", train_images=230, validation_images=10, seed=1).train

    def written(split: Any, group: Any) -> Any:
        manifest = features.manifest_of(session, split, "relu7", "shapes", "train", names, form)
        try:
            return features.write_features(session, split, tmp_path / "f", manifest, batch_size=20, group=group).done
        except ConfigurationError as error:
            return str(error)

    refused = together(3, lambda group: written(others if group.rank == 2 else images, group))
    assert refused == ["rank 2 would write features of other images than rank 0: give all the same"] * 3
    assert not (tmp_path / "f").exists()
    assert together(3, lambda group: written(images, group)) == [230] * 3
    if form == "npy":
        assert sums(tmp_path / "f") == sums(network / "alone")
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert sum(len(parquet.read_table(path)) for path in (tmp_path / "f").glob("part-*.parquet")) == 230

"""The whole way, in small: archives as ImageNet has them, prepared, checked, trained, resumed, evaluated, asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.data import load
from minialex.runs import checkpoint
from minialex.runs.run_folder import read_data

MINIALEX = [sys.executable, "-c", "from minialex.cli.app import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
TINY = [
    *("--backend", "numpy", "--recipe", "small", "--batch-size", "16", "--epochs", "2", "--checkpoint-steps", "2"),
    *("--kernels", "4,4,4,4,4", "--features", "8,8"),
]
CLASSES = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish", "n01484850": "great white shark"}


def run(*arguments: str | Path, check: int = 0) -> str:
    done = subprocess.run(
        [*MINIALEX, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == check, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 60 images each in a tar of tars, 30 for validation, and the development kit."""
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path_factory.mktemp("official") / "ilsvrc"
    work = folder.parent / "work"
    for path in (folder, work / "data"):
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def picture(label: int, path: Path) -> Path:
        pixels = rng.integers(0, 120, (40, 50, 3))
        pixels[:, :, label] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(path, "JPEG")
        return path

    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, name in enumerate(CLASSES):
            with tarfile.open(work / f"{name}.tar", "w") as inner:
                for i in range(60):
                    path = picture(label, work / f"{name}_{i}.JPEG")
                    if i == 7:
                        path.write_bytes(path.read_bytes()[:-200])
                    inner.add(path, path.name)
            outer.add(work / f"{name}.tar", f"{name}.tar")
    truth = [i % 3 for i in range(30)]
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for i, label in enumerate(truth, 1):
            path = picture(label, work / f"ILSVRC2012_val_{i:08d}.JPEG")
            archive.add(path, path.name)
    names = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    rows = [(3 - i, wnid, words, 0) for i, (wnid, words) in enumerate(CLASSES.items())]
    savemat(work / "data" / "meta.mat", {"synsets": np.array(rows, [(name, object) for name in names])[:, None]})
    (work / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{3 - t}\n" for t in truth))
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as kit:
        kit.add(work / "data", "ILSVRC2012_devkit_t12/data")
    return folder


@pytest.fixture(scope="module")
def place(archives: Path) -> Path:
    place = archives.parent / "store"
    out = run("prepare", archives, place, "--size", "32", "--workers", "1")
    assert "177 for training, 30 for validation, 3 classes" in out
    assert "left out           3 × damaged or cut short; see" in out
    assert "sound, 207 images" in run("store", "check", place)
    return place


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    folder = place.parent / "whole"
    run("train", *TINY, "--data", place, "--out", folder, "--loader-threads", "1")
    return folder


def assert_same(folder: Path, other: Path) -> None:
    ours, theirs = (checkpoint.latest(path / "checkpoints") for path in (folder, other))
    assert ours is not None
    assert theirs is not None
    assert ours.step == theirs.step
    for name, array in ours.weights.items():
        np.testing.assert_array_equal(array, theirs.weights[name], err_msg=name)


def test_labels_and_colours_belong_together(place: Path) -> None:
    data = load(str(place))
    assert data.class_names == tuple(CLASSES)
    assert data.words == tuple(CLASSES.values())
    for split in (data.train, data.validation):
        channels = split.read(np.arange(len(split))).mean(axis=(2, 3))
        assert (channels.argmax(axis=1) == split.labels).all()


def test_any_number_of_loader_threads_gives_the_same_run(place: Path, whole: Path, tmp_path: Path) -> None:
    run("train", *TINY, "--data", place, "--out", tmp_path / "run", "--loader-threads", "5")
    assert_same(tmp_path / "run", whole)


def test_killed_and_resumed(place: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen([*MINIALEX, "train", *TINY, "--data", str(place), "--out", str(folder)], env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while not list(folder.glob("checkpoints/*[1-9]*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run("train", "--resume", folder, "--backend", "numpy", "--loader-threads", "3")
    assert_same(folder, whole)


def test_statistics_are_the_stores_and_words_are_shown(place: Path, whole: Path, archives: Path) -> None:
    known, data = read_data(whole), load(str(place))
    assert data.statistics is not None
    assert np.array_equal(known.statistics.mean, data.statistics.mean)
    assert known.titles == tuple(CLASSES.values())
    assert "top-1 error" in run("evaluate", whole)
    image = archives.parent / "work" / "ILSVRC2012_val_00000001.JPEG"
    out = run("predict", whole, image, "--picture", archives.parent / "p.png")
    assert "tench, Tinca tinca" in out


def test_what_does_not_fit_is_said(place: Path, tmp_path: Path) -> None:
    out = run("train", "--recipe", "alexnet-2012", "--data", place, "--out", tmp_path / "run", check=2)
    assert "holds images of 32 x 32 pixels, not 256: set --image-size 32" in out
    assert not (tmp_path / "run").exists()
    assert "minialex prepare" in run("train", "--recipe", "alexnet-2012", check=3)
    assert "no store" in run("store", "check", tmp_path, check=3)


def test_a_run_finds_its_data_from_another_folder(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent)
    run("train", *TINY, "--epochs", "1", "--data", place.name, "--out", tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "top-1 error" in run("evaluate", tmp_path / "run")

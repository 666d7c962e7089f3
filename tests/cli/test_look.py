"""The commands of `minialex look` and `minialex features`: what they print, draw and refuse, in this process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.cli.app import run as minialex
from minialex.look.features import open_features, read_manifest

TINY = [
    *("--backend", "numpy", "--recipe", "shapes", "--train-images", "96", "--validation-images", "32"),
    *("--batch-size", "16", "--epochs", "1", "--steps", "1"),
    *("--kernels", "4,4,4,4,4", "--features", "8,8"),
]
ON = ("--backend", "numpy")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run."""
    folder = tmp_path_factory.mktemp("look") / "run"
    assert minialex(["train", *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An image file that is neither square nor small."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def command(run: Path, tmp_path: Path, monkeypatch, capsys):
    """Runs a command in an empty folder; gives its code, what it printed, and its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = minialex([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def drawn(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert len(np.unique(np.asarray(image.convert("L")))) > 8
        return image.size


def test_kernels_of_several_runs(command, run: Path, tmp_path: Path) -> None:
    code, out, _ = command("look", "kernels", run, run / "checkpoints" / (run / "checkpoints/best").read_text().strip())
    assert code == 0
    assert out.count(str(run)) == 2
    first, second = (line.split()[1:] for line in out.splitlines() if line.strip().startswith(str(run)))
    assert first == second  # the run's best weights are that checkpoint's
    assert 0 < float(first[-1]) <= 1
    drawn(tmp_path / "kernels.png")


def test_kernels_of_one_column(command, tmp_path: Path) -> None:
    assert minialex(["train", *TINY, "--columns", "1", "--out", str(tmp_path / "one")]) == 0
    code, out, _ = command("look", "kernels", "one")
    assert code == 0
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("one "))
    assert row[:3] == ["one", "1", "4"]
    assert len(row) == 6  # and nothing about columns that differ
    drawn(tmp_path / "kernels.png")


@pytest.mark.parametrize(("layer", "size"), [("conv2", "4 × 14 × 14"), ("fc6", ": 8,"), ("flatten", ": 36,")])
def test_activations(command, run: Path, photo: Path, tmp_path: Path, layer: str, size: str) -> None:
    code, out, _ = command("look", "activations", run, photo, "--layer", layer, *ON)
    assert code == 0
    assert f"{layer} for {photo}" in out
    assert size in out
    drawn(tmp_path / "activations.png")


def test_activations_of_a_validation_image(command, run: Path, tmp_path: Path) -> None:
    code, out, _ = command("look", "activations", run, "--picture", "a.png", *ON, "--devices", "cpu:0,cpu:1")
    assert code == 0
    assert "conv1 for 1 validation image of shapes" in out
    drawn(tmp_path / "a.png")


def test_occlusion(command, run: Path, photo: Path, tmp_path: Path) -> None:
    code, out, _ = command("look", "occlusion", run, photo, "--size", 14, *ON)
    assert code == 0
    assert "of 9 squares of 14 × 14" in out
    names = read_names(run)
    code, out, _ = command("look", "occlusion", run, photo, "--size", 14, "--label", names[2], *ON)
    assert code == 0
    assert out.startswith(f"{names[2]}: ")
    drawn(tmp_path / "occlusion.png")


def test_saliency(command, run: Path, photo: Path, tmp_path: Path) -> None:
    code, out, _ = command("look", "saliency", run, photo, *ON)
    assert code == 0
    assert re.search(r"half of the gradient's magnitude is in \d+\.\d% of the pixels|no pixel changes the logit", out)
    name = read_names(run)[2]
    code, out, _ = command("look", "saliency", run, "--label", name, "--devices", "cpu:0,cpu:1", *ON)
    assert code == 0
    assert out.startswith(f"{name}: ")
    assert "1 validation image of shapes" in out
    drawn(tmp_path / "saliency.png")
    code, _, err = command("look", "saliency", run, "--label", "no such", *ON)
    assert code == 2
    assert "has no class" in err


@pytest.mark.parametrize(("layer", "units"), [("conv3", 4), ("fc8", 4)])
def test_maximise(command, run: Path, tmp_path: Path, layer: str, units: int) -> None:
    code, out, _ = command("look", "maximise", run, "--layer", layer, "--steps", 3, *ON)
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert len(rows) == units
    assert layer == "fc8" or all(
        float(row[3]) > float(row[2]) for row in rows
    )  # hardly trained, full layers are silent
    assert ("class" in out) == (layer == "fc8")
    drawn(tmp_path / "maximise.png")
    code, out, _ = command("look", "maximise", run, "--layer", layer, "--units", "3,0", "--steps", 1, *ON)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.strip()[:1].isdigit()] == ["3", "0"]
    code, _, err = command("look", "maximise", run, "--layer", layer, "--units", "99", "--steps", 1, *ON)
    assert code == 2
    assert "has units 0 …" in err


def test_map(command, run: Path, tmp_path: Path) -> None:
    code, out, _ = command("look", "map", run, "--count", 20, "--steps", 5, *ON)
    assert code == 0
    assert "20 validation images of shapes, by the 8 numbers of relu7: of the five nearest," in out
    drawn(tmp_path / "map.png")
    code, out, _ = command("look", "map", run, "--count", 12, "--steps", 2, "--layer", "pool1", *ON)
    assert code == 0
    assert "numbers of pool1" in out
    code, _, err = command("look", "map", run, "--layer", "convx", *ON)
    assert code == 2
    assert "convx" in err


def read_names(run: Path) -> list[str]:
    import json

    return list(json.loads((run / "data.json").read_text(encoding="utf-8"))["class_names"])


def test_translation_of_a_set_and_of_a_file(command, run: Path, photo: Path, tmp_path: Path) -> None:
    code, out, _ = command("look", "translation", run, "--images", 6, "--steps", 3, *ON)
    assert code == 0
    assert "6 validation images of shapes; watched: their own class" in out
    assert [line.split()[0] for line in out.splitlines() if "%" in line and "±" not in line] == ["0", "14"]
    drawn(tmp_path / "translation.png")
    code, out, _ = command("look", "translation", run, photo, "--steps", 3, "--scale", 0.5, *ON)
    assert code == 0
    assert "the class most probable before; shrunk to 0.5" in out
    drawn(tmp_path / "translation.png")


@pytest.mark.parametrize(("layer", "rows"), [("conv3", 4), ("fc8", 1)])
def test_excite(command, run: Path, tmp_path: Path, layer: str, rows: int) -> None:
    code, out, _ = command("look", "excite", run, "--layer", layer, "--count", 3, *ON)
    assert code == 0
    assert len([line for line in out.splitlines() if "…" in line]) >= rows
    drawn(tmp_path / "excite.png")
    code, out, _ = command("look", "excite", run, "--layer", layer, "--units", "3,0", "--split", "train", *ON)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if "…" in line] == ["3", "0"]


def test_neighbours_write_the_index_once(command, run: Path, photo: Path, tmp_path: Path, monkeypatch) -> None:
    code, out, _ = command("look", "neighbours", run, photo, *ON, "--index", tmp_path / "index")
    assert code == 0
    assert "8 features of relu7 to 96 training images; exact search" in out
    drawn(tmp_path / "neighbours.png")
    written = (tmp_path / "index" / "features.npy").stat().st_mtime_ns
    code, out, _ = command("look", "neighbours", run, *ON, "--index", tmp_path / "index", "--count", 2)
    assert code == 0
    assert "of the neighbours have the image's own class" in out
    assert (tmp_path / "index" / "features.npy").stat().st_mtime_ns == written


def test_a_training_image_is_its_own_nearest_neighbour(command, run: Path, tmp_path: Path) -> None:
    from minialex.data import load

    image = load("shapes", train_images=96, validation_images=32).train.read(np.array([17]))[0]
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "seen.png")
    code, out, _ = command("look", "neighbours", run, "seen.png", *ON)
    assert code == 0
    row = next(line for line in out.splitlines() if line.strip().startswith("seen"))
    assert float(row.split("(")[1].split(")")[0]) < 1e-6  # but for rounding in batches of another size
    assert (run / "features-relu7" / "features.npy").exists()


def test_an_index_of_other_weights_is_refused(command, run: Path, tmp_path: Path) -> None:
    assert minialex(["train", *TINY, "--seed", "9", "--out", str(tmp_path / "other")]) == 0
    assert command("look", "neighbours", "other", *ON, "--index", "index")[0] == 0
    code, _, err = command("look", "neighbours", run, *ON, "--index", "index")
    assert code == 4
    assert "index holds features of another network or weights" in err


def test_features_in_both_formats(command, run: Path, tmp_path: Path) -> None:
    code, out, _ = command("features", run, "npy", "--split", "validation", *ON)
    assert code == 0
    assert "relu7 of 32 validation images of shapes: 32 × 8 float32" in out
    assert open_features(tmp_path / "npy").values.shape == (32, 8)
    code, out, _ = command("features", run, "parquet", "--layer", "pool5", "--format", "parquet", *ON)
    assert code == 0
    assert "96 × 4 × 3 × 3" in out
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "parquet").num_rows == 96
    assert command("features", run, "npy", "--split", "validation", *ON)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_features_stopped_from_outside_go_on(run: Path, tmp_path: Path, number: int, code: int) -> None:
    words = [
        sys.executable,
        "-c",
        "from minialex.cli.app import main; main()",
        "features",
        str(run),
        "f",
        "--batch-size",
    ]
    words += ["1", "--format", "parquet", *ON]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "f" / "_features.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    if process.returncode != 0:  # else it was done before the signal came
        assert process.returncode == code
        assert number == signal.SIGKILL or "run the same command to continue" in out
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "f").done == 96


REFUSED = [
    (("look", "activations", "RUN", "--layer", "con1"), 2, "no layer 'con1'"),
    (("look", "activations", "RUN", "none.png"), 3, "no such image file"),
    (("look", "occlusion", "RUN", "--size", "99"), 2, "size from 1 to 27"),
    (("look", "occlusion", "RUN", "--label", "circel"), 2, "no class 'circel'"),
    (("look", "translation", "RUN", "--steps", "4"), 2, "odd number of steps"),
    (("look", "excite", "RUN", "--units", "one"), 2, "--units takes numbers"),
    (("look", "excite", "RUN", "--units", "4000"), 2, "has units 0"),
    (("look", "excite", "RUN", "--split", "test"), 2, "train or validation"),
    (("look", "excite", "RUN", "--layer", "conv9"), 2, "no layer 'conv9'"),
    (("look", "neighbours", "RUN", "--search", "fais"), 2, "Did you mean 'faiss'"),
    (("look", "neighbours", "RUN", "--search", "faiss", "--index", "i"), 2, "leave out --search"),
    (("look", "neighbours", "RUN", "--data", "nowhere"), 2, "unknown"),
    (("look", "kernels", "nowhere"), 4, "no run folder nowhere"),
    (("look", "kernel", "RUN"), 2, "No such command 'kernel'"),
    (("features", "RUN", "f", "--format", "csv"), 2, "no format 'csv'"),
    (("features", "RUN", "f", "--layer", "fc0"), 2, "no layer 'fc0'"),
    (("features", "RUN", "/proc/f"), 2, "cannot write"),
    (("features", "RUN"), 2, "Missing argument"),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED, ids=[" ".join(words) for words, _, _ in REFUSED])
def test_bad_input_is_one_line(command, run: Path, words: tuple[str, ...], code: int, message: str) -> None:
    given = [str(run) if word == "RUN" else word for word in words]
    found, _, err = command(*given)
    assert found == code, err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_predict_draws_only_when_asked(command, run: Path, photo: Path, tmp_path: Path) -> None:
    code, out, _ = command("predict", run, photo, *ON)
    assert code == 0
    assert out.count("%") == 5
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    code, out, _ = command("predict", run, photo, *ON, "--picture", "answers.png")
    assert code == 0
    assert "picture: answers.png" in out
    drawn(tmp_path / "answers.png")
    code, out, err = command("predict", run, photo, *ON, "--picture", "answers.gif")
    assert (code, out) == (2, "")
    assert "pictures are PNG files" in err
    before = photo.read_bytes()
    code, out, err = command("predict", run, photo, *ON, "--picture", photo)
    assert (code, out) == (2, "")
    assert "is one of the images" in err
    assert photo.read_bytes() == before
    list_of_images = tmp_path / "list.csv"
    list_of_images.write_text("path,label")
    for words in (("evaluate", run, *ON, "--reliability"), ("look", "kernels", run, "--picture")):
        code, _, err = command(*words, list_of_images)
        assert code == 2
        assert "pictures are PNG files" in err
    assert list_of_images.read_text() == "path,label"


def test_an_index_of_other_images_is_refused(command, tmp_path: Path) -> None:
    """As many files with the same labels, of which one has another pixel."""
    from minialex.data import load

    train = load("shapes", train_images=96, validation_images=32)
    for number, (image, label) in enumerate(zip(train.train.read(np.arange(96)), train.train.labels, strict=True)):
        for part in ("train", "val") if number < 10 else ("train",):
            folder = tmp_path / "photos" / part / train.class_names[int(label)]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:02}.png")
    own = (*TINY[:4], "--data", "./photos", *TINY[8:], "--out", "run")  # all images of the folder
    assert command("train", *own)[0] == 0
    words = ("features", "run", "index", *ON)
    code, _, err = command(*words)
    assert code == 0, err
    assert command(*words)[0] == 0
    changed = next((tmp_path / "photos" / "train").rglob("*.png"))
    pixels = np.asarray(Image.open(changed)).copy()
    pixels[3, 3] ^= 128
    Image.fromarray(pixels).save(changed)
    code, _, err = command(*words)
    assert code == 2
    assert "index holds features of other images" in err


def test_without_a_command_it_shows_help(command) -> None:
    code, out, _ = command("look")
    assert code == 0
    assert "neighbours" in out


@pytest.mark.parametrize("name", ["maximise", "saliency", "occlusion", "excite", "translation", "activations"])
def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_computed(command, name: str) -> None:
    words = ("look", name, "no-such-run", *(["x.png"] if name == "translation" else []))
    code, out, err = command(*words, "--picture", "nowhere/at.png")
    assert (code, out) == (2, "")
    assert err == "error: cannot write nowhere/at.png: there is no folder nowhere\n"

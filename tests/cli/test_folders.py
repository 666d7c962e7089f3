"""Training and evaluating on folders from the command line: what is said before, what is measured, what is kept."""

import json

import numpy as np
import pytest
from PIL import Image

import minialex
from minialex.cli.app import run
from minialex.errors import DataError

SMALL = ("--backend", "numpy", "--image-size", "16", "--crop", "14", "--batch-size", "4", "--epochs", "1",
         "--kernels", "[2, 2, 2, 2, 2]", "--features", "[4, 4]", "--loader-threads", "1")  # fmt: skip


def photos(root, classes=("cat", "dog"), count=12):
    for label, name in enumerate(classes):
        for i in range(count):
            path = root / name / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(100 * label + i).integers(0, 256, (18, 18, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="module", autouse=True)
def _no_pictures():
    """Reports are not what is tested here, and take a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minialex.api.run.write_report", lambda paths, *_: paths.report.touch())
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of images, and a run on it beside it."""
    place = tmp_path_factory.mktemp("folders")
    assert run(["train", *SMALL, "--data", str(photos(place / "photos")), "--out", str(place / "run")]) == 0
    return place


def measured(capsys, *words):
    assert run(["evaluate", *map(str, words)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("data"))
    return line.split(None, 1)[1].strip()


def test_what_evaluate_measures(trained, tmp_path, capsys):
    tenth = len(minialex.data.load(str(trained / "photos"), size=16).validation)
    assert measured(capsys, trained / "run") == f"photos, {tenth} validation images, 1 view"
    own = (trained / "run", "--data", trained / "photos")  # the same as its own: never what it was trained on
    assert measured(capsys, *own) == f"photos, {tenth} validation images, 1 view"
    assert measured(capsys, *own, "--part", "all") == "photos, 24 images (all), 1 view"
    assert measured(capsys, *own, "--part", "train") == "photos, 24 training images, 1 view"
    other = photos(tmp_path / "other", count=5)
    assert measured(capsys, trained / "run", "--data", other) == "other, 10 images (all), 1 view"
    photos(tmp_path / "parts" / "train")
    photos(tmp_path / "parts" / "val", count=2)
    photos(tmp_path / "parts" / "test", count=3)
    assert measured(capsys, trained / "run", "--data", tmp_path / "parts") == "parts, 4 validation images, 1 view"
    assert (
        measured(capsys, trained / "run", "--data", tmp_path / "parts", "--part", "test")
        == "parts, 6 test images, 1 view"
    )
    cats = photos(tmp_path / "cats", ("cat",), count=3)
    assert measured(capsys, trained / "run", "--data", cats) == "cats, 3 images (all), 1 view"
    (other / "cat" / "00.png").write_bytes(b"x")
    assert run(["evaluate", str(trained / "run"), "--data", str(other)]) == 3
    assert "1 of 10 images cannot be used" in capsys.readouterr().err
    assert measured(capsys, trained / "run", "--data", other, "--skip-broken") == "other, 9 images (all), 1 view"
    assert run(["evaluate", str(trained / "run"), "--data", str(other), "--skip-broken", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "other"
    assert len(minialex.load(trained / "run").evaluate(data=str(other.parent / "cats")).labels) == 3


def test_a_broken_image_stops_a_run_before_it_has_a_folder(tmp_path, capsys):
    folder, out = photos(tmp_path / "photos"), tmp_path / "run"
    (folder / "cat" / "03.png").write_bytes(b"x")
    (folder / "dog" / "04.png").write_bytes(b"")
    (folder / "dog" / "notes.txt").write_bytes(b"x")
    words = ["train", *SMALL, "--data", str(folder), "--out", str(out)]
    assert run(words) == 3
    done = capsys.readouterr()
    assert done.err.startswith("error: 2 of 24 images cannot be used: ")
    assert done.err.count("\n") == 1
    assert f"{folder / 'cat' / '03.png'}: not an image in a supported format" in done.out
    assert f"{folder / 'dog' / '04.png'}: empty" in done.out
    assert not out.exists()
    assert run([*words, "--skip-broken"]) == 0
    said = capsys.readouterr().out
    assert "left out: 1 × no image by its name, .txt" in said
    assert "left out 2 of 24 images that cannot be used" in said
    table = (out / "left-out.tsv").read_text().splitlines()
    assert table[0] == "file\treason"
    assert [line.split("\t")[0] for line in sorted(table[1:])] == ["cat/03.png", "dog/04.png", "dog/notes.txt"]
    assert minialex.TrainingRun(out).recipe.skip_broken
    assert run(["evaluate", str(out)]) == 0
    (folder / "dog" / "04.png").unlink()
    with pytest.raises(DataError, match="1 of 23 images cannot be used"):
        minialex.train(data=folder, out=tmp_path / "other", progress=False, backend="numpy")
    assert not (tmp_path / "other").exists()


def test_a_data_set_that_was_loaded_is_kept_without_its_broken_images(tmp_path):
    folder = photos(tmp_path / "photos")
    data = minialex.data.load(str(folder), size=16)
    whole = data.validation.names
    (folder / whole[0]).write_bytes(b"x")
    fields = {"crop": 14, "image_size": 16, "batch_size": 4, "epochs": 1, "kernels": (2,) * 5, "features": (4, 4)}
    run_ = minialex.train(data=data, out=tmp_path / "run", progress=False, backend="numpy", skip_broken=True, **fields)
    assert len(run_.evaluate().labels) == len(whole) - 1 > 0


def test_training_twice_within_the_folder_of_images(tmp_path, monkeypatch):
    monkeypatch.chdir(photos(tmp_path / "photos"))
    assert run(["train", *SMALL, "--data", "."]) == 0
    again = minialex.data.load(".", size=16)
    assert again.class_names == ("cat", "dog")
    assert again.notes[0] == "left out: 1 × a run or store of minialex"


def test_a_list_can_be_trained_and_predictions_use_the_runs_order_of_resizing(trained, tmp_path):
    listed = tmp_path / "list.csv"
    lines = [f"{path};{path.parent.name}" for path in sorted((trained / "photos").rglob("*.png"))]
    listed.write_text("\n".join(["path;label", *lines]), encoding="utf-16")
    out = tmp_path / "run"
    assert run(["train", *SMALL, "--data", str(listed), "--out", str(out), "--resize", "resize-then-crop"]) == 0
    net = minialex.load(out)
    path = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 50, 3)).astype(np.uint8)).save(path)
    expected = minialex.data.images.read_image(path, 16, "resize-then-crop")
    for image in (path, Image.open(path), np.asarray(Image.open(path))):
        assert np.array_equal(net.pixels(image)[0], expected)
    assert not np.array_equal(minialex.load(trained / "run").pixels(path)[0], expected)

"""The commands export, import and evaluate, as a user gives them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from minialex.cli.app import run
from minialex.errors import ConfigurationError
from minialex.recipe.toml import load
from minialex.runs import weights_file as weights

from .conftest import network

TINY = [
    *("--backend", "numpy", "--recipe", "shapes", "--train-images", "96", "--validation-images", "40"),
    *("--batch-size", "16", "--epochs", "1", "--kernels", "4,4,4,4,4", "--features", "8,8"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs that differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in "01":
        assert run(["train", *TINY, "--seed", seed, "--out", str(folder / seed)]) == 0
    return folder / "0", folder / "1"


def told(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> str:
    """What a command prints; on an error, the one line of it."""
    capsys.readouterr()
    assert run([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    if code:
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    return err if code else out


def evaluated(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict:
    return json.loads(told(capsys, "evaluate", *words, "--json", "--backend", "numpy"))


@pytest.mark.parametrize("views", ["1", "10"])
def test_a_weights_file_is_as_good_as_its_run(
    views: str, runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w.safetensors"
    assert told(capsys, "export", runs[0], out).split() == [str(out), f"{out}.md"]
    one, other = (evaluated(capsys, path, "--views", views) for path in (runs[0], out))
    assert one.pop("networks") != other.pop("networks")
    assert one == other
    assert one["images"] == 40


def test_an_ensemble_is_the_mean_of_the_probabilities(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the mean computed here, of runs and weights files mixed."""
    from minialex.backend import registry
    from minialex.data import load as load_data
    from minialex.engine.session import Session

    out = tmp_path / "w.safetensors"
    told(capsys, "export", runs[1], out)
    found = evaluated(capsys, runs[0], out)
    data = load_data("shapes", size=32, train_images=96, validation_images=40).validation
    images = data.read(np.arange(40))
    backend = registry.load("numpy")
    probs = np.mean(
        [
            Session(w.recipe, backend, ("cpu:0",) * 2, w.statistics, w.tensors).probabilities(images)[0]
            for w in map(weights.find, runs)
        ],
        axis=0,
    )
    own = probs[np.arange(40), data.labels]
    assert found["loss"] == pytest.approx(float(-np.log(own).mean()), rel=1e-5)
    assert found["top1_error"] == pytest.approx(np.mean(probs.argmax(axis=1) != data.labels))
    assert "average of 2" in told(capsys, "evaluate", *runs, "--backend", "numpy")


def test_tables_and_the_diagram(runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "r.png"
    out = told(capsys, "evaluate", runs[0], "--per-class", "--reliability", picture, "--backend", "numpy")
    for word in ("calibration", "top-5 error", "chevron", "most often taken for"):
        assert word in " ".join(out.split())
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_other_data_with_some_of_the_classes(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder whose classes are among the network's, in another order: labels are matched by name."""
    from PIL import Image

    from minialex.data import load as load_data

    data = load_data("shapes", size=32, train_images=96, validation_images=40)
    for part, split in (("train", data.train), ("val", data.validation)):
        for number in range(len(split)):
            name = data.class_names[int(split.labels[number])]
            if name in ("star", "disc", "bar"):
                folder = tmp_path / "few" / part / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(split.read(np.array([number]))[0].transpose(1, 2, 0)).save(folder / f"{number}.png")
    few = evaluated(capsys, runs[0], "--data", tmp_path / "few")
    whole = evaluated(capsys, runs[0])
    for entry in few["classes"]:
        match = next(other for other in whole["classes"] if other["name"] == entry["name"])
        assert entry["label"] == match["label"]
        assert entry["images"] == match["images"]
        assert math.isclose(entry["probability"], match["probability"], rel_tol=1e-5)
    (tmp_path / "few" / "train" / "star").rename(tmp_path / "few" / "train" / "planet")
    (tmp_path / "few" / "val" / "star").rename(tmp_path / "few" / "val" / "planet")
    line = told(capsys, "evaluate", runs[0], "--data", tmp_path / "few", "--backend", "numpy", code=2)
    assert "'planet' is not among those" in line


def test_classes_that_nobody_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    out = tmp_path / "w.safetensors"
    recipe = load("shapes").replace(kernels=(4,) * 5, features=(8, 8), classes=10, validation_images=20)
    weights.write(out, dataclasses.replace(network(recipe), class_names=()))
    assert evaluated(capsys, out)["classes"][0]["name"] == "disc"
    few = network(recipe.replace(classes=4))
    weights.write(out, dataclasses.replace(few, class_names=()))
    line = told(capsys, "evaluate", out, "--backend", "numpy", code=2)
    assert "does not say what its 4 classes are" in line
    assert "--class-names" in line


def test_the_card_says_what_the_run_knows(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from minialex.runs.run_folder import RunPaths, read_metrics

    told(capsys, "export", runs[0], tmp_path / "net.onnx")
    card = (tmp_path / "net.onnx.md").read_text(encoding="utf-8")
    found = weights.find(runs[0])
    record = next(r for r in read_metrics(RunPaths(runs[0]).metrics) if r["kind"] == "validation")
    for text in (
        found.digest(),
        f"| top-1 error | {record['top1_error']:.2%} |",
        f"| top-5 error | {record['top5_error']:.2%} |",
        "| network | a small network with AlexNet's kinds of layers",
        "28 × 28",
        "0 disc, 1 ring",
        "- of the weights: TO BE FILLED IN",
        "## Limits",
        found.recipe.to_toml().rstrip(),
        f"| parameters | {sum(a.size for a in found.tensors.values()):,} |",
    ):
        assert text in card


def test_class_names_with_and_without_words(runs: tuple[Path, Path], tmp_path: Path) -> None:
    from minialex.cli.import_ import read_class_names

    path = tmp_path / "names.txt"
    path.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n", encoding="utf-8")
    assert read_class_names(path) == (("n01440764", "n01443537"), ("tench, Tinca tinca", "goldfish"))
    path.write_text("cat\n\n  dog \nn01440764 tench\n", encoding="utf-8")
    assert read_class_names(path) == (("cat", "dog", "n01440764 tench"), ())
    assert read_class_names(runs[0])[0] == weights.find(runs[0]).class_names
    path.write_text("cat\ncat\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="names a class twice"):
        read_class_names(path)


def test_nothing_is_overwritten_unasked(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, other in (("a.safetensors", "a.safetensors.md"), ("b.pt", "b.py"), ("c.onnx", "c.onnx")):
        (tmp_path / other).write_text("mine", encoding="utf-8")
        line = told(capsys, "export", runs[0], tmp_path / name, code=2)
        assert "--overwrite" in line
        assert (tmp_path / other).read_text(encoding="utf-8") == "mine"
        told(capsys, "export", runs[0], tmp_path / name, "--overwrite")
        assert (tmp_path / other).stat().st_size > 10


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["export", "{run}", "x.h5"], 2, "endings .safetensors, .onnx, .pt, .pth"),
        (["export", "/no/such/run", "x.onnx"], 4, "no run folder"),
        (["evaluate", "/no/such/net.safetensors"], 4, "no file /no/such/net.safetensors; check the path"),
        (["export", "{run}", "/no/such/folder/x.safetensors"], 2, "check the path"),
        (["import", "/no/such/file", "x.safetensors"], 4, "no file /no/such/file"),
        (["import", "text.pth", "x.safetensors"], 4, "text.pth is damaged, or no PyTorch file"),
        (["import", "text.caffemodel", "x.safetensors"], 4, "text.caffemodel"),
        (["import", "text.safetensors", "x.safetensors"], 4, "text.safetensors"),
        (["import", "text.pth", "x.pt"], 2, "must end with .safetensors"),
        (["import", "other.pt", "x.safetensors"], 4, "neither torchvision's layer names"),
        (["import", "plain.pt", "x.safetensors"], 2, "give --recipe NAME"),
        (["import", "plain.pt", "x.safetensors", "--recipe", "shapes"], 4, "expected a tensor 'mean'"),
        (["import", "plain.pt", "x.safetensors", "--mean", "m.npy"], 2, "--mean is for a caffemodel"),
        (["import", "ours.safetensors", "x.safetensors"], 2, "already a weights file of minialex"),
        (["import", "text.onnx", "x.safetensors"], 2, "import the file that it was made from"),
        (["evaluate", "text.pth"], 4, "first `minialex import"),
        (["evaluate", "{run}", "ours.safetensors"], 2, "has other classes"),
        (["predict", "text.safetensors", "x.png"], 4, "text.safetensors"),
    ],
)
def test_errors(
    words: list[str], code: int, message: str, runs: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from minialex.exchange import pytorch_file

    monkeypatch.chdir(tmp_path)
    for ending in ("pth", "caffemodel", "safetensors", "onnx"):
        Path(f"text.{ending}").write_text("no weights at all", encoding="utf-8")
    pytorch_file.write(Path("other.pt"), {"stem.weight": np.zeros(3, np.float32)})
    pytorch_file.write(Path("plain.pt"), {"conv1.weight": np.zeros((16, 3, 5, 5), np.float32)})
    weights.write(
        Path("ours.safetensors"), network(load("shapes").replace(kernels=(4,) * 5, features=(8, 8), classes=3))
    )
    line = told(capsys, *(word.format(run=runs[0]) for word in words), code=code)
    assert message in line
    assert not Path("x.safetensors").exists()


def test_a_full_disk(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """Writes fail from a size on (RLIMIT_FSIZE): exit 6, and nothing at the final names."""
    import resource
    import subprocess
    import sys

    for ending in ("safetensors", "onnx", "pt"):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from minialex.cli.app import main; main()",
                "export",
                runs[0],
                tmp_path / f"x.{ending}",
            ],
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY)),
            check=False,
        )
        assert done.returncode == 6, done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())

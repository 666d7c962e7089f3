"""Beginning with another network: what is taken, what is drawn anew, and that it survives stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend import registry
from minialex.cli.app import run
from minialex.engine.session import Session
from minialex.errors import CheckpointError
from minialex.recipe.toml import load
from minialex.runs import checkpoint
from minialex.runs import weights_file as weights
from minialex.runs.run_folder import read_data
from minialex.training import finetuning as transfer

TINY = [
    *("--backend", "numpy", "--train-images", "96", "--validation-images", "16", "--batch-size", "16"),
    *("--epochs", "1"),
]
THIN = ["--recipe", "shapes", "--kernels", "4,4,4,4,4", "--features", "8,8"]


def train(*words: str | Path, check: int = 0) -> None:
    assert run(["train", *map(str, words)]) == check


def at(folder: Path, step: int | None = None) -> dict[str, np.ndarray]:
    """Weights of a run, newest or of a step."""
    found = (
        checkpoint.latest(folder / "checkpoints")
        if step is None
        else checkpoint.load(folder / "checkpoints" / f"step-{step:08d}")
    )
    assert found is not None
    return found.weights


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network of ten shapes."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train(*TINY, *THIN, "--out", folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of other images."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "tree"):
        (folder / name).mkdir()
        for number in range(12):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def same(one: dict[str, Any], other: dict[str, Any], layer: str) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one if name.startswith(f"{layer}."))


LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


@pytest.mark.parametrize("form", ["run", "checkpoint", "file"])
def test_layers_are_taken_and_the_last_is_drawn_anew(form: str, source: Path, photos: Path, tmp_path: Path) -> None:
    origin = source
    if form == "file":
        origin = tmp_path / "w.safetensors"
        assert run(["export", str(source), str(origin)]) == 0
    elif form == "checkpoint":
        origin = source / "checkpoints" / "step-00000006"
    train(*TINY, "--init", origin, "--data", photos, "--out", tmp_path / "run")
    before, begun = at(source), at(tmp_path / "run", 0)
    for layer in LAYERS:
        assert same(before, begun, layer), layer
        assert not same(before, at(tmp_path / "run"), layer), layer
    assert begun["fc8.weight"].shape == (3, 8)
    facts = json.loads((tmp_path / "run" / "init.json").read_text(encoding="utf-8"))
    assert facts["taken"] == list(LAYERS)
    assert facts["drawn_anew"] == {"fc8": "10×8 there, 3×8 here"}
    assert facts["from"] == str(origin)
    assert facts["sha256"] == weights.find(origin).digest()
    known, old = read_data(tmp_path / "run"), read_data(source)
    np.testing.assert_array_equal(known.statistics.mean, old.statistics.mean)
    assert not np.array_equal(known.statistics.covariance, old.statistics.covariance)
    assert run(["export", str(tmp_path / "run"), str(tmp_path / "tuned.safetensors")]) == 0
    exported = weights.find(tmp_path / "tuned.safetensors")
    assert (exported.recipe.init_from, exported.origin["begun_with"]) == ("", origin.name)
    assert f"| started from layers of | {origin.name} |" in (tmp_path / "tuned.safetensors.md").read_text(
        encoding="utf-8"
    )
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "layers drawn anew" in report
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert "drawn anew: fc8 (10×8 there, 3×8 here)" in log


def test_the_same_classes_keep_the_last_layer(source: Path, tmp_path: Path) -> None:
    train(*TINY, "--init", source, "--out", tmp_path / "run")
    assert same(at(source), at(tmp_path / "run", 0), "fc8")
    first = weights.find(tmp_path / "run" / "checkpoints" / "step-00000000")
    backend = registry.load("numpy")
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 32, 32), np.uint8)
    given = [
        Session(w.recipe, backend, ("cpu:0", "cpu:0"), w.statistics, w.tensors).probabilities(images)[0]
        for w in (weights.find(source), first)
    ]
    np.testing.assert_array_equal(*given)  # before the first step it is the same function


def test_other_classes_of_the_same_number_do_not(source: Path, photos: Path) -> None:
    recipe = weights.recipe_of(source).replace(init_from=str(source), classes=10)
    start = transfer.begin(recipe, tuple("abcdefghij"))
    assert start.drawn == {"fc8": "other classes"}
    assert transfer.begin(recipe, weights.find(source).class_names).drawn == {}


def test_frozen_layers_stay_and_others_learn(source: Path, photos: Path, tmp_path: Path) -> None:
    rates = '{"conv1": 0, "conv2": 0, "conv4": 0, "fc8": 10}'
    train(*TINY, "--init", source, "--data", photos, "--out", tmp_path / "run", "--layer-rates", rates)
    begun, after = at(tmp_path / "run", 0), at(tmp_path / "run")
    for layer in (*LAYERS, "fc8"):
        assert same(begun, after, layer) == (layer in ("conv1", "conv2", "conv4")), layer


def test_named_layers_alone(source: Path, photos: Path, tmp_path: Path) -> None:
    train(*TINY, "--init", source, "--init-layers", "conv1,conv2", "--data", photos, "--out", tmp_path / "run")
    before, begun = at(source), at(tmp_path / "run", 0)
    assert [layer for layer in LAYERS if same(before, begun, layer)] == ["conv1", "conv2"]
    recipe = load(str(tmp_path / "run" / "recipe.toml")).replace(init_layers=("fc8",))
    with pytest.raises(CheckpointError, match=r"layer 'fc8' cannot be taken from .*: 10×8 there, 3×8 here"):
        transfer.begin(recipe, ("cat", "dog", "tree"))


def test_a_wider_network_with_a_sixth_layer_takes_what_fits(source: Path) -> None:
    recipe = weights.recipe_of(source).replace(
        init_from=str(source), classes=3, features=(8, 16), conv6=4, norm_k=1.0, init_layers=()
    )
    start = transfer.begin(recipe, ("a", "b", "c"))
    assert start.drawn["conv6"] == "not there"
    assert set(start.drawn) == {"conv6", "fc7", "fc8"}
    assert "norm_k is 2.0 there and 1.0 here" in start.different
    assert set(start.weights) == set(at(source)) | {"conv6.weight", "conv6.bias"}


def test_the_seed_is_another_unless_asked(source: Path, photos: Path, tmp_path: Path) -> None:
    """Else the same order, crops and masks would come again."""
    train(*TINY, "--init", source, "--data", photos, "--out", tmp_path / "run")
    assert load(str(tmp_path / "run" / "recipe.toml")).seed == weights.recipe_of(source).seed + 1
    assert "the same seed" not in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    train(*TINY, "--init", source, "--data", photos, "--out", tmp_path / "again", "--seed", "0")
    assert "the same seed" in (tmp_path / "again" / "log.txt").read_text(encoding="utf-8")


def test_resuming_needs_the_other_network_no_more(source: Path, photos: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(source, moved)
    words = ["--init", moved, "--data", photos]
    train(*TINY, *words, "--out", tmp_path / "run")
    train(*TINY[:-2], "--epochs", "2", *words, "--out", tmp_path / "whole")
    shutil.rmtree(moved)
    before = (tmp_path / "run" / "init.json").read_bytes()
    train("--resume", tmp_path / "run", "--epochs", "2", "--backend", "numpy")
    assert (tmp_path / "run" / "init.json").read_bytes() == before
    for name, array in at(tmp_path / "whole").items():
        np.testing.assert_array_equal(array, at(tmp_path / "run")[name], err_msg=name)


def test_a_run_stopped_before_its_first_checkpoint_begins_the_same_or_says_why_not(
    source: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    words = [*TINY, "--init", source, "--data", photos]
    train(*words, "--out", tmp_path / "run")
    whole = at(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for name in ("metrics.jsonl", "log.txt"):  # as when it was stopped before its first checkpoint
        (tmp_path / "run" / name).write_text("", encoding="utf-8")
    train("--resume", tmp_path / "run", "--backend", "numpy")
    for name, array in at(tmp_path / "run").items():
        np.testing.assert_array_equal(array, whole[name])
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for name in ("metrics.jsonl", "log.txt", "SHA256SUMS"):
        (tmp_path / "run" / name).write_text("", encoding="utf-8")
    facts = json.loads((tmp_path / "run" / "init.json").read_text(encoding="utf-8"))
    (tmp_path / "run" / "init.json").write_text(json.dumps({**facts, "sha256": "0"}), encoding="utf-8")
    capsys.readouterr()
    train("--resume", tmp_path / "run", "--backend", "numpy", check=4)
    assert "holds other weights than this run began with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--init", "/no/such/run"], 4, "no run at /no/such/run"),
        (["--init", "{photo}"], 4, "first `minialex import"),
        (["--init", "{source}", "--crop", "2"], 2, "layer 'pool"),
        (["--init", "{source}", "--recipe", "small"], 4, "no layer of"),
        (["--init-layers", "conv1"], 2, "also set init_from"),
        (["--init", "{source}", "--init-layers", "conv7"], 2, "no layer 'conv7'"),
        (["--init", "{source}", "--init-layers", "conv6"], 2, "this network has no 'conv6'"),
        (["--init", "{source}", "--init-layers", "fc8"], 4, "layer 'fc8' cannot be taken"),
        (["--init", "{source}", "--layer-rates", '{"conv9": 0}'], 2, "no layer 'conv9'"),
        (["--resume", "{source}", "--init", "{source}"], 2, "has already begun"),
    ],
)
def test_errors(
    words: list[str], code: int, message: str, source: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    filled = [word.format(source=source, photo=photos / "cat" / "0.png") if word[0] == "{" and ":" not in word else word
              for word in words]  # fmt: skip
    place = [] if "--resume" in words else ["--data", photos, "--out", tmp_path / "run"]
    capsys.readouterr()
    train(*TINY, *filled, *place, check=code)
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert message in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("frozen", [{"conv1": 0.0, "conv2": 0.0}, {"conv3": 0.0}])
def test_compiled_steps_with_frozen_layers_are_the_references(frozen: dict[str, float]) -> None:
    """The Numba backend compiles the shorter program: frozen layers keep their bits, the others learn as elsewhere."""
    from minialex.data import load as load_data
    from minialex.data.dataset import statistics_of
    from minialex.engine.schedule import epoch_rates

    recipe = load("shapes").replace(classes=10, layer_rates=frozen, batch_size=16)
    data = load_data("shapes", size=32, train_images=64, validation_images=16).train
    known = statistics_of(data)
    found = {}
    for name in ("numpy", "numba"):
        session = Session(recipe, registry.load(name), ("cpu:0", "cpu:0"), known)
        before = session.weights()
        for step in range(3):
            indices = np.arange(16 * step, 16 * step + 16)
            session.train(data.read(indices), data.labels[indices], step, epoch_rates(recipe, 1, []))
        found[name] = session.weights()
        for layer in (*LAYERS, "fc8"):
            assert same(before, found[name], layer) == (layer in frozen), (name, layer)
    for name, array in found["numpy"].items():
        np.testing.assert_allclose(found["numba"][name], array, rtol=0, atol=2e-5 * np.abs(array).max(), err_msg=name)

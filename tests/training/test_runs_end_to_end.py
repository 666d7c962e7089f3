"""Whole runs in processes of their own: killed, interrupted, starved, given nonsense."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minialex
from minialex.errors import ConfigurationError
from minialex.runs import checkpoint
from minialex.runs.run_folder import read_metrics
from minialex.runs.weights_file import find
from minialex.training.listening import Listener

MINIALEX = [sys.executable, "-c", "from minialex.cli.app import main; main()"]
TINY = [
    *("--backend", "numpy", "--recipe", "shapes", "--train-images", "192", "--validation-images", "32"),
    *("--batch-size", "16", "--epochs", "2", "--steps", "2", "--checkpoint-steps", "2"),
    *("--kernels", "4,4,4,4,4", "--features", "8,8"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(*arguments: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    words = [*MINIALEX, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == check, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def weights(folder: Path) -> dict[str, np.ndarray]:
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return {**found.weights, **{f"momentum/{name}": a for name, a in found.momentum.items()}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one go."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run("train", *TINY, "--out", folder)
    return folder


def assert_same(folder: Path, other: Path) -> None:
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_a_run_leaves_everything_behind(whole: Path) -> None:
    for name in ("recipe.toml", "metrics.jsonl", "log.txt", "report.html", "pictures/curves.png", "data.json"):
        assert (whole / name).stat().st_size > 0, name
    kinds = [json.loads(line)["kind"] for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert kinds.count("validation") == 2
    assert "train" in kinds


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_gives_the_same_bits(whole: Path, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "run"
    wait = random.Random(seed)
    kills = 0
    while True:
        again = ["--resume", folder] if (folder / "recipe.toml").is_file() else [*TINY, "--out", folder]
        process = subprocess.Popen(
            [*MINIALEX, "train", *map(str, again)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
        try:
            if kills < 5:
                process.wait(timeout=wait.uniform(0.5, 2.0))
            else:
                process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        break
    assert kills > 0
    assert_same(folder, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_signals_stop_after_the_step_and_resume_goes_on(whole: Path, tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*MINIALEX, "train", *TINY, "--out", str(folder)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == code
    assert f"minialex train --resume {folder}" in out
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    assert found.step > 0
    run("train", "--resume", folder)
    assert_same(folder, whole)


ASKED = """
import os, signal
from minialex.figures import pictures
drawn = pictures.confusion
def confusion(*args):
    os.kill(os.getpid(), signal.NUMBER)
    return drawn(*args)
pictures.confusion = confusion
from minialex.cli.app import main
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_a_signal_while_the_report_is_written_loses_only_the_report(
    whole: Path, tmp_path: Path, name: str, code: int
) -> None:
    folder = tmp_path / "run"
    words = [sys.executable, "-c", ASKED.replace("NUMBER", name), "train", *TINY, "--out", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    assert f"stopped by {'Ctrl-C' if name == 'SIGINT' else name} before the report was written" in done.stdout
    assert f"  minialex train --resume {folder}\n" in done.stdout
    assert "report  " not in done.stdout
    assert not (folder / "report.html").exists()
    assert [path for path in folder.rglob("*") if path.name.startswith(".tmp-")] == []
    run("train", "--resume", folder)
    assert (folder / "report.html").is_file()
    assert_same(folder, whole)


def test_placement_changes_no_bit(whole: Path, tmp_path: Path) -> None:
    run("train", *TINY, "--out", tmp_path / "run", "--devices", "cpu:0,cpu:1")
    assert_same(tmp_path / "run", whole)


def test_another_seed_gives_other_weights(whole: Path, tmp_path: Path) -> None:
    run("train", *TINY, "--out", tmp_path / "run", "--seed", "1", "--epochs", "1")
    assert (weights(tmp_path / "run")["conv1.weight"] != weights(whole)["conv1.weight"]).any()


def test_nan_stops_with_step_layer_and_checkpoint(tmp_path: Path) -> None:
    done = run("train", *TINY, "--out", tmp_path / "run", "--learning-rate", "1e9", check=5)
    assert done.stderr.startswith("error: step ")
    assert "values are not finite, first in layer '" in done.stderr
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is not None


def test_a_second_trainer_is_refused(whole: Path) -> None:
    from minialex.runs.run_folder import Run

    with Run.resume(whole):
        done = run("train", "--resume", whole, check=2)
    assert str(os.getpid()) in done.stderr


def test_broken_checkpoints(whole: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    steps = sorted((folder / "checkpoints").glob("step-*"))
    newest = steps[-1] / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    done = run("train", "--resume", folder)
    assert steps[-1].name in done.stderr  # the warning names the broken one
    assert_same(folder, whole)
    for path in (folder / "checkpoints").glob("step-*/weights.safetensors"):
        path.write_bytes(b"")
    run("train", "--resume", folder, check=4)
    run("evaluate", folder, check=4)


def test_another_network_is_refused_and_nothing_is_written(whole: Path) -> None:
    before = (whole / "recipe.toml").read_bytes()
    done = run("train", "--resume", whole, "--kernels", "8,8,8,8,8", check=4)
    assert "kernels is (8, 8, 8, 8, 8), was (4, 4, 4, 4, 4)" in done.stderr
    assert (whole / "recipe.toml").read_bytes() == before


def test_evaluate_and_predict(whole: Path, tmp_path: Path) -> None:
    from PIL import Image

    assert "top-1 error" in run("evaluate", whole, "--backend", "numpy").stdout
    assert "10 views" in run("evaluate", whole, "--views", "10", "--backend", "numpy").stdout
    assert "average of 2" in run("evaluate", whole, whole, "--backend", "numpy").stdout
    image = tmp_path / "grey.png"
    Image.fromarray(np.arange(64 * 48, dtype=np.uint8).reshape(48, 64)).save(image)
    picture = tmp_path / "out.png"
    out = run("predict", whole, image, "--picture", picture, "--backend", "numpy").stdout
    assert out.count("%") == 5
    assert picture.stat().st_size > 1000
    (tmp_path / "no.png").write_text("this is no image", encoding="utf-8")
    assert "no.png" in run("predict", whole, tmp_path / "no.png", "--backend", "numpy", check=3).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "--learnin-rate", "1"], 2, "Did you mean 'learning-rate'?"),
        (["train", "--lr", "1"], 2, "Did you mean 'learning-rate'?"),
        (["train", "--batch-size", "0"], 2, "recipe field 'batch_size': expected at least 1, got 0"),
        (["train", "--batch-size", "9000"], 2, "a batch of 9000 images is larger than the training set"),
        (["train", "--recipe", "shaeps"], 2, "Did you mean 'shapes'?"),
        (["train", "--backend", "nmupy"], 2, "Did you mean 'numpy'?"),
        (["train", "--devices", "cpu:7"], 2, "has no device 'cpu:7'"),
        (["train", "--data", "cifar1"], 2, "Did you mean 'cifar10'?"),
        (["train", "--data", "./no/such/folder"], 3, "no such folder"),
        (["train", "--data", "cifar10:/no/such/place"], 3, "minialex download cifar10"),
        (["train", "--resume", "/no/such/run"], 4, "no run at /no/such/run"),
        (["evaluate", "/no/such/run"], 4, "no run folder /no/such/run"),
        (["evaluate", "x", "--views", "3"], 2, "views = 3; use 1 or 10"),
        (["trian"], 2, "Did you mean 'train'?"),
    ],
)
def test_bad_input(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*MINIALEX, *arguments], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=False
    )
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["summary"], ["60,965,224", "659,272", "724,406,816"]),
        (["backends"], ["numpy", "cpu:0, cpu:1"]),
        (["recipe"], ["learning_rate", "code145"]),
        (["recipe", "code145"], ["spatial_norm = true"]),
        (["differences"], ["253,440", "norm_place"]),
        (["--version"], ["minialex 0.1.0"]),
        ([], ["train", "evaluate", "predict"]),
    ],
)
def test_commands_that_only_tell(arguments: list[str], texts: list[str]) -> None:
    out = run(*arguments).stdout
    for text in texts:
        assert text in out


def test_disk_full_leaves_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    """Writes fail from a size on (RLIMIT_FSIZE), as on a full disk: exit 6, and nothing torn."""
    import resource

    folder = tmp_path / "run"
    done = subprocess.run(
        [*MINIALEX, "train", *TINY, "--out", str(folder)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (14_000, resource.RLIM_INFINITY)),
        check=False,
    )
    assert done.returncode == 6, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


SHORT: dict[str, Any] = {
    "backend": "numpy", "schedule": "constant", "train_images": 32, "validation_images": 8, "batch_size": 16,
    "kernels": (4, 4, 4, 4, 4), "features": (8, 8), "progress": False,
}  # fmt: skip


def test_validating_in_some_epochs_only_changes_no_weight(tmp_path: Path) -> None:
    minialex.train("shapes", epochs=7, out=tmp_path / "each", **SHORT)
    rare = minialex.train("shapes", epochs=5, validation_epochs=3, out=tmp_path / "rare", **SHORT)
    assert "5 epochs" in repr(rare)
    assert rare.result is not None
    assert len(rare.result.progress.errors) == 2
    rare = rare.resume(epochs=7, progress=False)
    each, some = (
        {line["epoch"]: line["top1_error"] for line in found if line["kind"] == "validation"}
        for found in (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("each", "rare"))
    )
    assert list(some) == [3, 5, 6, 7]
    assert some.items() <= each.items()
    assert_same(tmp_path / "rare", tmp_path / "each")
    assert find(tmp_path / "rare").origin["epochs"] == min(some, key=lambda epoch: some[epoch])  # the best
    with pytest.raises(ConfigurationError, match="the plateau schedule needs the validation error of every epoch"):
        minialex.train("shapes", epochs=5, validation_epochs=3, out=tmp_path / "no", **{**SHORT, "schedule": "plateau"})


def test_epochs_without_validation_are_counted(tmp_path: Path) -> None:
    class Stop(Listener):
        def stepped(self, step: int, *_: Any) -> None:
            if step == 4:
                signal.raise_signal(signal.SIGINT)

    stopped = minialex.train(
        "shapes", epochs=9, validation_epochs=9, out=tmp_path / "run", **{**SHORT, "progress": Stop()}
    )
    assert repr(stopped).endswith("run: 2 epochs, stopped by Ctrl-C>")
    assert find(tmp_path / "run").origin["epochs"] == 2
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    done = stopped.resume(progress=False)
    assert done.result is not None
    assert done.result.progress.warnings == ["the metrics of the 4 steps before are gone: the report begins here"]

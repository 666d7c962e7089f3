"""Going on with a run: what is compared with its beginning, what may change, and what is said of what is gone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.cli import app as cli
from minialex.runs import checkpoint
from minialex.storage.sums import SUMS
from minialex.training.resuming import SAFE

TINY = [
    *("--backend", "numpy", "--recipe", "shapes", "--train-images", "96", "--validation-images", "32"),
    *("--batch-size", "16", "--epochs", "1", "--kernels", "4,4,4,4,4", "--features", "8,8"),
]

Files = dict[str, bytes]
Say = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """Reports are not what is tested here, and take a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minialex.api.run.write_report", lambda paths, *_: paths.report.touch())
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on shapes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert cli.run(["train", *TINY, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def a_run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Say:
    """Run the command line; what it wrote, after its exit code was compared."""

    def run(*words: str | Path, code: int = 0) -> str:
        capfd.readouterr()
        found = cli.run(list(map(str, words)))
        out, err = capfd.readouterr()
        assert found == code, out + err
        if code:
            assert re.fullmatch(r"(warning: .*\n)*error: .*\n", err), err
        return out + err

    return run


def contents(folder: Path) -> Files:
    """All files but the lock and the log, which any process touches."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("run.lock", "log.txt"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--seed", "2"), "seed is 2, was 0"),
        (("--batch-size", "4"), "batch_size is 4, was 16"),
        (("--train-images", "90"), "train_images is 90, was 96"),
        (("--validation-images", "20"), "validation_images is 20, was 32"),
        (("--learning-rate", "0.5", "--momentum", "0.1"), "learning_rate is 0.5, was 0.01; momentum is 0.1, was 0.9"),
        (("--kernels", "8,8,8,8,8"), "kernels is (8, 8, 8, 8, 8), was (4, 4, 4, 4, 4)"),
        (("--dtype", "float64"), "dtype is 'float64', was 'float32'"),
        (("--views", "10"), "views is 10, was 1"),
    ],
)
def test_what_decides_the_numbers_cannot_change(a_run: Path, say: Say, change: tuple[str, ...], said: str) -> None:
    before = contents(a_run)
    found = say("train", "--resume", a_run, "--epochs", "2", *change, code=4)
    assert said in found.replace("expected", "")
    assert f"Safe to change on resume are {', '.join(SAFE)}, threads" in found
    assert f"--init {a_run}" in found
    assert contents(a_run) == before


def test_what_is_safe_can_change(a_run: Path, say: Say) -> None:
    say("train", "--resume", a_run, "--epochs", "2", "--checkpoint-steps", "3", "--keep-checkpoints", "3",
        "--loader-threads", "1", "--devices", "cpu:1")  # fmt: skip
    assert checkpoint.latest(a_run / "checkpoints").step == 12
    say("evaluate", a_run)  # the recipe was written anew, with its sum


def photos(folder: Path, count: int = 12) -> Path:
    """Two classes of noise."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    return folder


def of_photos(say: Say, folder: Path, out: Path) -> None:
    say("train", "--backend", "numpy", "--recipe", "small", "--data", folder, "--out", out, "--epochs", "1",
        "--batch-size", "4", "--kernels", "4,4,4,4,4", "--features", "8,8")  # fmt: skip


def test_the_images_are_compared(tmp_path: Path, say: Say) -> None:
    folder, run = photos(tmp_path / "photos"), tmp_path / "run"
    of_photos(say, folder, run)
    known = json.loads((run / "data.json").read_text())["decides"]
    images = sorted(folder.rglob("*.png"))
    names = ("training sha256", "validation sha256")
    assert all(re.fullmatch(r"[0-9a-f]{64}", known[name]) for name in names), known
    before = contents(run)

    original = images[0].read_bytes()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(images[0])
    found = say("train", "--resume", run, "--epochs", "2", code=4)
    assert re.search(r"the (training|validation) images of 'photos' are others than they were", found)
    images[0].write_bytes(original)

    shutil.copy(images[1], images[1].with_name("zz.png"))
    found = say("train", "--resume", run, "--epochs", "2", code=4)
    assert re.search(r"the number of (training|validation) images is \d+, was \d+", found)
    images[1].with_name("zz.png").unlink()
    assert contents(run) == before

    moved = folder.rename(tmp_path / "elsewhere")
    say("train", "--resume", run, "--epochs", "2", "--data", moved)  # the same images from another place
    say("train", "--resume", run, "--epochs", "3")  # which it remembers


def test_checkpoints_that_are_gone_are_missed(a_run: Path, say: Say) -> None:
    shutil.rmtree(a_run / "checkpoints")
    before = contents(a_run)
    assert "are gone, though metrics and log say that there were some" in say("train", "--resume", a_run, code=4)
    (a_run / "metrics.jsonl").write_bytes(b"")
    assert "are gone" in say("train", "--resume", a_run, code=4)  # the log knows as well
    assert set(contents(a_run)) == set(before)
    assert "restore them from a copy" in say("evaluate", a_run, code=4)


def test_a_record_of_the_images_that_is_gone_is_missed(a_run: Path, say: Say) -> None:
    (a_run / "data.json").unlink()
    before = contents(a_run)
    found = say("train", "--resume", a_run, "--epochs", "2", code=4)
    assert "data.json' is missing, so the images cannot be compared" in found
    assert contents(a_run) == before


def test_metrics_that_are_gone_are_told(a_run: Path, say: Say) -> None:
    (a_run / "metrics.jsonl").unlink()
    assert "the metrics of the 6 steps before are gone" in say("train", "--resume", a_run)


@pytest.mark.parametrize("name", ["data.safetensors", "data.json", "recipe.toml"])
def test_own_files_carry_checksums(a_run: Path, say: Say, name: str) -> None:
    path = a_run / name
    content = bytearray(path.read_bytes())
    where = {"data.json": content.find(b"shapes"), "recipe.toml": content.find(b"momentum = 0.9") + 13}
    content[where.get(name, len(content) - 40)] ^= 1
    path.write_bytes(content)
    for words in (("evaluate", a_run, "--backend", "numpy"), ("train", "--resume", a_run, "--epochs", "2")):
        found = say(*words, code=4)
        assert f"{name}' is damaged or was edited" in found
        assert f"delete its line in {SUMS}" in found
    lines = (a_run / SUMS).read_text().splitlines(keepends=True)
    (a_run / SUMS).write_text("".join(line for line in lines if not line.endswith(f" {name}\n")))
    say("evaluate", a_run, "--backend", "numpy")  # edited on purpose


def test_a_newer_format_is_refused_everywhere(a_run: Path, say: Say) -> None:
    about = json.loads((a_run / "data.json").read_text())
    (a_run / "data.json").write_text(json.dumps({**about, "format": 99, "minialex": "9.1"}))
    for words in (("evaluate", a_run), ("train", "--resume", a_run)):
        assert "made by a newer minialex (9.1; format 99 of runs" in (found := say(*words, code=4))
        assert "update minialex" in found


def test_a_newer_checkpoint_is_not_taken_for_a_damaged_one(a_run: Path, say: Say) -> None:
    newest = max((a_run / "checkpoints").glob("step-*")) / "manifest.json"
    content = {**json.loads(newest.read_text())["content"], "version": 2}
    newest.write_text(json.dumps({"content": content, "sha256": checkpoint._digest_of(content)}))
    for words in (("evaluate", a_run), ("train", "--resume", a_run, "--epochs", "2")):
        assert "version 2; this minialex reads 'minialex checkpoint' version 1: update minialex" in say(*words, code=4)


def test_a_run_of_an_older_minialex_goes_on_and_says_what_was_not_compared(tmp_path: Path, say: Say) -> None:
    folder, run = photos(tmp_path / "photos"), tmp_path / "run"
    of_photos(say, folder, run)
    about = json.loads((run / "data.json").read_text())
    older = {name: about[name] for name in ("name", "class_names", "words")}
    (run / "data.json").write_text(json.dumps(older))
    (run / SUMS).unlink()
    copy = shutil.copytree(run, tmp_path / "copy")
    say("evaluate", run)
    assert "made by an older minialex" in say("train", "--resume", run, "--epochs", "2")
    assert "made by an older" not in say("train", "--resume", run, "--epochs", "3")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(min(folder.rglob("*.png")))
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(max(folder.rglob("*.png")))
    assert "made by an older minialex, and the training images are others" in say("train", "--resume", copy, code=4)


def test_pointers_are_followed(a_run: Path, say: Say) -> None:
    for name in ("latest", "best"):
        assert "top-1 error" in say("evaluate", a_run / "checkpoints" / name)
    assert "top-1 error" in say("evaluate", a_run / "checkpoints")
    (a_run / "checkpoints" / "latest").write_text("step-00000099\n")
    found = say("evaluate", a_run / "checkpoints" / "latest", code=4)
    assert "checkpoint step-00000099, named by" in found
    assert "is gone" in found


def test_a_damaged_checkpoint_is_told_on_standard_error(a_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    newest = max((a_run / "checkpoints").glob("step-*"))
    (newest / "weights.safetensors").write_bytes(b"")
    assert cli.run(["train", "--resume", str(a_run)]) == 0
    out, err = capfd.readouterr()
    assert f"warning: checkpoint {newest.name} cannot be used" in err
    assert newest.name not in out
    assert newest.name in (a_run / "log.txt").read_text()


def test_other_epochs_of_a_cosine_are_told(tmp_path: Path, say: Say) -> None:
    say("train", *TINY, "--schedule", "cosine", "--out", tmp_path / "run")
    assert "not of 1" in " ".join(say("train", "--resume", tmp_path / "run", "--epochs", "2").split())

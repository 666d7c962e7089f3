"""The command on small studies: shared runs, several at once, stopping and going on, and what it says of trouble."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from minialex.backend import registry
from minialex.cli import app as cli
from minialex.cli.ablate import quick_study
from minialex.engine.opening import load_data
from minialex.errors import MinialexError, ResourceError
from minialex.runs.run_folder import RunPaths, read_metrics
from minialex.runs.weights_file import recipe_of
from minialex.studies import Study, calibration, measures, search, study, words
from minialex.studies.measures import epochs_done, training_curve
from minialex.studies.outcome import recorded, run_folder
from minialex.studies.running import Job, Place, run, unfinished
from minialex.studies.study import key, parse, rates_file

STUDY = """
title = "Dropout"
question = "What does it do?"
section = "4.2"
claim = "nothing here"
measure = "{measure}"
expect = "worse"
base = "small"
seeds = [1, 2]
[regime]
data = "shapes"
train_images = 64
validation_images = 50
kernels = [4, 8, 8, 8, 8]
features = [16, 16]
epochs = {epochs}
schedule = "constant"
[calibration]
grid = [0.004, 0.002]
seeds = [7, 8]
[[arms]]
name = "some"
fields = {{ dropout = 0.2 }}
[[arms]]
name = "{second}"
{fields}
"""
NONE = "fields = { dropout = 0.0 }"


def write(
    folder: Path, name: str, measure: str = "error", epochs: int = 2, second: str = "none", fields: str = NONE
) -> str:
    path = folder / f"{name}.toml"
    path.write_text(STUDY.format(measure=measure, epochs=epochs, second=second, fields=fields))
    return str(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_studies_share_runs_and_write_what_they_give(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gap, views = (
        write(here, "gap", "gap"),
        write(
            here,
            "views",
            fields='evaluate = { views = 10 }\nrate_of = "some"\n' + "fields = { dropout = 0.2 }",
            second="ten",
        ),
    )
    assert cli.run(["ablate", gap, "--out", "out", "--jobs", "2"]) == 0
    assert "4 runs, 8 epochs, 2 at once" in capfd.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in here.glob("out/runs/*/metrics.jsonl")}
    assert len(times) == 4
    average = write(here, "average", fields='evaluate = { average = 2 }\nrate_of = "some"\nfields = { dropout = 0.2 }')
    assert cli.run(["ablate", gap, views, average, "--out", "out"]) == 0, "all finished: nothing is trained"
    assert "runs," not in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in here.glob("out/runs/*/metrics.jsonl")} == times
    found = json.loads((here / "out" / "gap.json").read_text())
    assert found["seeds"] == [1, 2]
    assert [len(arm["values"]) for arm in found["arms"]] == [2, 2]
    metrics = read_metrics(RunPaths(run_folder(here / "out", found["arms"][0]["keys"][0])).metrics)
    last = [record for record in metrics if record["kind"] == "validation"][-1]
    assert found["arms"][0]["errors"][0] == pytest.approx(100 * last["top1_error"], abs=1e-3)
    assert (here / "out" / "gap.png").stat().st_size > 1000
    assert "The paper (section 4.2)" in (here / "out" / "gap.md").read_text()
    together = json.loads((here / "out" / "average.json").read_text())
    alone, both = together["arms"]
    assert len(both["values"]) == 1
    assert together["images"]["none"][0] == pytest.approx(both["values"][0] - sum(alone["values"]) / 2, abs=1e-3)
    assert together["images"]["none"][3] == 50


def test_rates_are_found_once_and_kept(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def distance(of: object, folder: Path) -> float:
        """As if 0.002 were the best rate: what a search tries does not depend on such short runs then."""
        return abs(math.log2(recipe_of(folder).learning_rate / 0.002))

    monkeypatch.setattr(calibration, "value", distance)
    mine = write(here, "mine", epochs=1)
    assert cli.run(["ablate", mine, "--calibrate", "--out", "out"]) == 0
    out = capfd.readouterr().out
    found = study("mine.toml")
    for arm in found.arms:
        curve = search.tuning(found, arm)
        assert set(curve) == {0.004, 0.002, 0.001}, "0.002 was at the edge"
        assert {len(values) for values in curve.values()} == {2}
        assert arm.learning_rate == search.best(curve)[0]
        assert search.lacking(found, arm) == ""
        assert f"mine: {arm.name}: {arm.learning_rate:g}" in out
    assert "runs," in out
    assert cli.run(["ablate", mine, "--calibrate", "--out", "out"]) == 0
    assert "runs," not in capfd.readouterr().out, "nothing is trained twice"


def test_classes_drawn_at_random_are_what_training_error_is_measured_with(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Evaluated on the images that it was trained on, a network is measured with the labels that it was to learn."""
    tiny = ["--recipe", "shapes", "--batch-size", "8", "--kernels", "8,8,8,8,8", "--features", "32,32",
            "--epochs", "40", "--train-images", "24", "--validation-images", "20", "--dropout", "0",
            "--crops", "centre", "--reflect", "false", "--colour", "0", "--schedule", "constant"]  # fmt: skip
    assert cli.run(["train", *tiny, "--labels", "random", "--out", "run"]) == 0
    assert cli.run(["train", *tiny, "--epochs", "1", "--out", "own"]) == 0
    of = load_data(recipe_of(here / "run"), "train")
    assert of.validation.labels.tolist() != load_data(recipe_of(here / "own"), "train").validation.labels.tolist()
    capfd.readouterr()
    found = {}
    last = max(here.glob("run/checkpoints/step-*"))  # the best is chosen by validation error
    for part in ("train", "validation"):
        assert cli.run(["evaluate", str(last), "--part", part, "--json"]) == 0
        found[part] = json.loads(capfd.readouterr().out)["top1_error"]
    assert found["train"] < 0.2, "learned by heart"
    assert found["validation"] > 0.5, "and of no use"
    recipe = recipe_of(here / "run")
    networks = measures.Networks(registry.load("numba"), None, "")
    assert networks.training_error(here / "run", recipe) == pytest.approx(100 * found["train"])
    assert cli.run(["train", "--resume", "run", "--epochs", "41"]) == 0, "the same labels are drawn again"
    assert key(recipe) != key(recipe.replace(labels="own"))


def command(here: Path, *words: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", "from minialex.cli.app import main; main()", "ablate", *words]
    return subprocess.Popen(line, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


def until(holds: object, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("how", "reaches"), [("SIGTERM", "one"), ("Ctrl-C", "one"), ("Ctrl-C", "group")])
def test_stopped_in_the_middle_of_a_run_it_goes_on_there(here: Path, how: str, reaches: str) -> None:
    long = write(here, "long", epochs=30)
    first = key(study(long).recipe(study(long).arms[0], 1))
    process = command(here, long, "--seeds", "1", "--out", "out", "--jobs", "2")
    until(lambda: epochs_done(run_folder(here / "out", first)) >= 2)
    number = signal.SIGTERM if how == "SIGTERM" else signal.SIGINT
    if reaches == "one":
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == (75 if how == "SIGTERM" else 130), (out, err)
    assert f"stopped by {how}" in out
    assert f"minialex ablate {long} --seeds 1 --out out --jobs 2" in out.replace("\n", " ").replace("  ", " ")
    assert 2 <= epochs_done(run_folder(here / "out", first)) < 30
    assert cli.run(["ablate", long, "--seeds", "1", "--out", "out"]) == 0
    assert cli.run(["ablate", long, "--seeds", "1", "--out", "whole"]) == 0

    def losses(out: str) -> list[object]:
        records = read_metrics(RunPaths(run_folder(here / out, first)).metrics)
        return [record["loss"] for record in records if record["kind"] == "validation"]

    assert losses("out") == losses("whole"), "stopped or not, the same numbers"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_runs_end_with_the_process_that_started_them(here: Path) -> None:
    """On a backend without a number of threads, too, to which none is given where several run at once."""
    long = write(here, "long", epochs=1000)
    folder = run_folder(here / "out", key(study(long).recipe(study(long).arms[0], 1)))
    process = command(here, long, "--seeds", "1", "--out", "out", "--jobs", "2", "--backend", "numpy")
    until(lambda: epochs_done(folder) >= 1 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert "stopped by SIGTERM" in (folder / "log.txt").read_text()  # and have saved


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_run_that_is_killed_is_named_and_nothing_is_lost(here: Path) -> None:
    long = write(here, "long", epochs=200)
    first = run_folder(here / "out", key(study(long).recipe(study(long).arms[0], 1)))
    process = command(here, long, "--seeds", "1", "--out", "out", "--jobs", "1")
    until(lambda: epochs_done(first) >= 1)
    children = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    children[0].kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6, (out, err)
    assert err.startswith("error: long: some, seed 1: its process was ended by SIGKILL (memory ran out?)")
    assert "Traceback" not in err
    assert epochs_done(first) >= 1


def test_what_a_run_raises_is_said_in_one_line(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "none").mkdir()
    wrong = write(here, "wrong", epochs=1)
    text = Path(wrong).read_text().replace('"shapes"', '"cifar10"')
    Path(wrong).write_text(text)
    assert cli.run(["ablate", wrong, "--out", "out", "--data", str(here / "nothing"), "--jobs", "1"]) == 3
    err = capfd.readouterr().err
    assert err.startswith("error: wrong: some, seed 1: ")
    assert err.count("\n") == 1


OWN = """
from minialex.network.layers import Flatten, Linear
from minialex.network.network import Network

def net(fields):
    return Network("mine", (3, fields.crop, fields.crop), (Flatten("flat"), Linear("fc", fields.classes, bias=BIAS)))
"""


def test_a_network_that_is_edited_while_its_study_runs_is_said(here: Path) -> None:
    """It would be trained into another folder, and the command would go on to ask for the one that it knows."""
    Path("mine.py").write_text(OWN.replace("BIAS", "0"), encoding="utf-8")
    mine = study(write(here, "mine", epochs=1))
    recipe = mine.recipe(mine.arms[0], 1).replace(model=f"{here}/mine.py:net", columns=1)
    jobs = unfinished([Job(recipe, "some, seed 1")], here / "out")
    Path("mine.py").write_text(OWN.replace("BIAS", "1"), encoding="utf-8")
    with pytest.raises(MinialexError, match="some, seed 1: its images or its network were changed meanwhile"):
        run(jobs, Place(here / "out", threads=1), 1, lambda _: None)
    assert not (here / "out").exists()


def test_a_failing_run_stops_the_others_first(here: Path) -> None:
    good, bad = study(write(here, "good", epochs=500)), study(write(here, "bad", epochs=1))
    recipes = [good.recipe(good.arms[0], 1), bad.recipe(bad.arms[0], 2)]
    blocked = run_folder(here / "out", key(recipes[1]))
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the run's folder should be")
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(
            [Job(recipe, f"run {n}") for n, recipe in enumerate(recipes)],
            Place(here / "out", threads=1),
            2,
            lambda _: None,
        )
    assert "run 1: " in str(caught.value)
    assert not isinstance(caught.value, ResourceError) or "ended" not in str(caught.value)
    assert psutil.Process().children() == [] or all(
        "resource_tracker" in " ".join(c.cmdline()) for c in psutil.Process().children()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["poling"], "no study 'poling'. Did you mean 'pooling'"),
        ([], "name a study: relu, columns"),
        (["pooling", "--quick", "--record"], "--quick proves nothing"),
        (["pooling", "--backend", "nmupy"], "nmupy"),
        (["pooling", "--calibrate", "--collect"], "--calibrate compares nothing yet"),
        (["pooling", "--calibrate", "--record"], "--calibrate compares nothing yet"),
        (["pooling", "pooling"], "two studies named 'pooling' would write the same files"),
    ],
)
def test_wrong_words_end_with_two(here: Path, capfd: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert cli.run(["ablate", *words]) == 2
    err = capfd.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_ones_own_study_is_not_taken_for_the_packages(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "designs").mkdir()
    mine = write(here / "designs", "pooling")
    assert cli.run(["ablate", mine, "--record"]) == 2
    assert "--record is for the package's studies" in capfd.readouterr().err
    assert rates_file(mine) == here / "designs" / "pooling.rates.toml"
    assert rates_file("pooling").parent == Path(calibration.__file__).parent / "designs"


def fake(out: Path, of: Study, arm: str, seed: int, errors: Sequence[float]) -> None:
    """A run folder with such validation errors, one an epoch, as far as a search or a table reads it."""
    recipe = of.recipe(of.arm(arm), seed)
    folder = run_folder(out, key(recipe))
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    records = [
        {"kind": "validation", "step": 2 * epoch, "epoch": epoch, "top1_error": error, "seconds": 1.0}
        for epoch, error in enumerate(errors, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_stopped_at_its_goal_goes_on_to_the_next_validation(here: Path) -> None:
    """A study's table has the last validation's error."""
    of = study(write(here, "mine", "epochs", epochs=9))
    for arm, errors in (("some", [0.5]), ("none", [])):
        fake(here, of, arm, 1, errors)
        path = run_folder(here, key(of.recipe(of.arm(arm), 1))) / "metrics.jsonl"
        path.write_text('{"kind": "train", "step": 2, "epoch": 1.0, "loss": 0.1, "top1": 0.9}\n' + path.read_text())
    jobs = [Job(of.recipe(arm, 1), arm.name, goal=of.goal) for arm in of.arms]
    assert [job.words for job in unfinished(jobs, here)] == ["none"]


def test_a_plateau_that_ended_is_not_trained_again_and_again(here: Path) -> None:
    path = Path(write(here, "mine", epochs=9))
    path.write_text(path.read_text().replace('"constant"', '"plateau"\npatience = 2\ncuts = 0'))
    of = study(str(path))
    fake(here, of, "some", 1, [0.5, 0.5, 0.5])
    fake(here, of, "none", 1, [0.5, 0.5])
    jobs = [Job(of.recipe(arm, 1), arm.name) for arm in of.arms]
    assert [job.words for job in unfinished(jobs, here)] == ["none"]


def test_names_with_points_have_files_of_their_own(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is finished is shown without training; so it is quick to try what names, words and rates do."""
    for version, error in (("1.5", 0.5), ("1.6", 0.6)):
        mine = write(here, f"v{version}", epochs=1, fields=f'words = "a | b"\nfields = {{ dropout = 0.{version[2]} }}')
        of = study(mine)
        for arm, seed in ((arm.name, seed) for arm in of.arms for seed in of.seeds):
            if not run_folder(here / "out", key(of.recipe(of.arm(arm), seed))).is_dir():
                fake(here / "out", of, arm, seed, [error + seed / 100])
        assert cli.run(["ablate", mine, "--out", "out", "--collect"]) == 0
        assert "a | b" in capfd.readouterr().out
    for version in ("1.5", "1.6"):
        assert {path.name for path in here.glob(f"out/v{version}.*")} == {
            f"v{version}{kind}" for kind in (".md", ".json", ".png")
        }


def test_a_quick_study_of_whatever_number_of_images(here: Path) -> None:
    path = Path(write(here, "mine", fields="fields = { train_images = 32 }"))
    for regime, count in (("train_images = 64\n", 128), ("train_images = 0\n", 32)):
        text = path.read_text().replace("train_images = 64\n", regime, 1)
        of = quick_study(parse(text, "mine"))
        assert of.recipe(of.arms[1], 1).train_images == count


def test_the_training_curve_is_the_mean_of_the_epoch_before() -> None:
    records = [{"kind": "train", "epoch": 1 + (n - 1) // 4, "step": 10 * n, "top1": n / 10} for n in range(1, 9)]
    curve = training_curve(records)
    assert [epoch for epoch, _ in curve] == [1.0, 1.25, 1.5, 1.75, 2.0]
    assert curve[0][1] == pytest.approx(1 - 0.25)
    assert curve[-1][1] == pytest.approx(1 - 0.65)


def test_quick_mode_says_that_it_claims_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ablate", "pooling", "--quick", "--out", "out", "--jobs", "2"]) == 0
    out = capfd.readouterr().out
    assert "proves nothing" in out
    assert json.loads((here / "out" / "quick" / "pooling.json").read_text())["quick"] is True


def test_what_is_recorded_is_shown_without_data_and_without_scipy(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert cli.run(["ablate", "pooling", "depth", "--recorded"]) == 0
    out = capfd.readouterr().out
    for name in ("pooling", "depth"):
        outcome = recorded(name)
        assert outcome is not None
        assert outcome.study.question in " ".join(out.split())
        assert outcome.study.claim in " ".join(out.split())
        assert " ".join(words.verdict(outcome)[0].split()) in " ".join(out.split())
    assert not list(here.iterdir()), "it only shows"
    assert cli.run(["ablate", "pooling", "--recorded", "--quick"]) == 2
    assert "--recorded only shows" in capfd.readouterr().err
    shutil.copy(rates_file("pooling").with_name("pooling.toml"), here / "mine.toml")
    assert cli.run(["ablate", "mine.toml", "--recorded"]) == 3
    assert "nothing is recorded of study 'mine.toml'" in capfd.readouterr().err


def test_the_list_has_every_study(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ablate", "--list"]) == 0
    out = capfd.readouterr().out
    assert "columns-equal" in out
    assert "5 × 5" not in out


def test_the_list_says_which_records_are_of_another_design(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "designs"
    shutil.copytree(rates_file("pooling").parent, folder)
    monkeypatch.setattr(sys.modules[Study.__module__], "_folder", lambda: folder)

    def change(name: str, old: str, new: str) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    for name in ("pooling.toml", "pooling.rates.toml"):
        change(name, "overlapping", "lapping")  # arms that the record does not have
    change("decay.toml", "epochs = 150", "epochs = 151")  # other runs
    change("momentum.toml", "question = ", "qestion = ")
    assert cli.run(["ablate", "--list"]) == 0
    rows = [line.split("│") for line in capfd.readouterr().out.splitlines() if line.count("│") == 6]
    names, _, questions, _, records = (" ".join(" ".join(row[n] for row in rows).split()) for n in range(1, 6))
    assert "of another design: it has the arms" in records
    assert "it was recorded with another design or other learning rates" in records
    assert "unknown 'qestion'" in questions
    assert names.endswith("random-labels")


def test_without_scipy_it_says_so_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert cli.run(["ablate", "pooling", "--quick", "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'minialex[studies]'" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.run(["ablate", "--list"]) == 0

"""Training from Python: the same bits as the command line, stopped and gone on with, shown in a notebook."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minialex
from minialex.api.run import choose_recipe
from minialex.cli.app import run as command
from minialex.errors import CheckpointError, ConfigurationError, DataError, ResourceError
from minialex.network.layers import Flatten, Linear
from minialex.network.network import Network
from minialex.training.listening import Listener

ROOT = Path(minialex.__file__).parents[1]


def files(run: Path) -> dict[str, bytes]:
    """Weights and momentum of all checkpoints, byte for byte."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("checkpoints/*/*.safetensors"))}


def test_python_and_the_command_line_give_the_same_bytes(there: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    words = [word for name, value in tiny.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert command(["train", "--recipe", "shapes", *words, "--out", str(tmp_path / "run")]) == 0
    assert files(tmp_path / "run") == files(there / "runs" / "shapes")
    for name in ("recipe.toml", "data.json", "data.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (there / "runs" / "shapes" / name).read_bytes()


def test_an_interrupt_saves_and_resuming_gives_the_bits_of_a_whole_run(
    there: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stepped(self: Listener, step: int, *_: float) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("minialex.training.display.TrainingDisplay.stepped", stepped)
    run = minialex.train("shapes", **tiny, out=tmp_path / "run")
    assert run.stopped == "Ctrl-C"
    assert "stopped by Ctrl-C" in repr(run)
    assert run.metrics[-1]["message"] == "stopped by Ctrl-C"
    assert run.report().read_text(encoding="utf-8").count("<img") > 0
    monkeypatch.undo()
    whole = minialex.TrainingRun(tmp_path / "run").resume(progress=False)
    assert whole.stopped == ""
    found, expected = files(tmp_path / "run"), files(there / "runs" / "shapes")
    last = sorted(expected)[-2:]
    assert {name: found[name] for name in last} == {name: expected[name] for name in last}


def test_a_report_is_not_of_fewer_epochs_than_the_run_has(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = minialex.train("shapes", **tiny, out=tmp_path / "run", progress=False)
    before = run.report().read_bytes()

    class Stops(Listener):
        def recorded(self, record: Any) -> None:
            if record["kind"] == "validation":
                signal.raise_signal(signal.SIGINT)

    stopped = run.resume(progress=Stops(), epochs=4)
    assert stopped.stopped == "Ctrl-C"
    assert len([record for record in stopped.metrics if record["kind"] == "validation"]) == 3
    assert stopped.report().read_bytes() != before
    assert "epochs = 4" in stopped.report().read_text(encoding="utf-8")


def test_what_a_run_knows(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = minialex.TrainingRun("runs/shapes")
    kinds = [record["kind"] for record in run.metrics]
    assert kinds.count("validation") == run.recipe.epochs == 2
    assert "2 epochs, validation top-1 error" in repr(run)
    assert run.evaluate().error(1) == min(r["top1_error"] for r in run.metrics if r["kind"] == "validation")
    assert repr(run.evaluate()).startswith("<32 images: top-1 error ")
    assert run.report().is_file()
    assert run.net is run.net
    with pytest.raises(CheckpointError, match="no run at"):
        minialex.TrainingRun("runs/nothing")
    with pytest.raises(CheckpointError, match=r"kernels is \(8, 8, 8, 8, 8\), was \(4, 4, 4, 4, 4\)"):
        run.resume(kernels=(8,) * 5)
    assert capsys.readouterr().out == ""


def test_a_loaded_data_set_and_a_network_to_begin_with(there: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    images = minialex.data.load("shapes", train_images=64, validation_images=16, seed=3)
    changes = {**tiny, "epochs": 1}
    run = minialex.train(data=images, init="runs/shapes", **changes, out=tmp_path / "run", progress=False)
    assert run.recipe.init_from == str(there / "runs" / "shapes")
    assert len(run.evaluate().labels) == 16
    whole = minialex.train(minialex.load_recipe("shapes", **changes), data=images, out=tmp_path / "2", progress=False)
    assert len(whole.evaluate(views=10).labels) == 16
    with pytest.raises(ConfigurationError, match="Did you mean 'epochs'"):
        minialex.train("shapes", epoch=1)


@pytest.mark.parametrize("init", ["gaussian", "he", "glorot"])
def test_init_is_how_weights_are_drawn_where_it_is_the_name_of_a_way(init: str) -> None:
    assert choose_recipe("shapes", {"init": init}).init == init
    assert choose_recipe("shapes", {"init": init}).init_from == ""


def test_a_plain_script_gets_lines(tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    minialex.train("shapes", **{**tiny, "epochs": 1}, out=tmp_path / "run")
    out = capsys.readouterr().out
    assert "96 training and 32 validation images" in out
    assert "epoch  1  loss " in out


def test_the_loop_of_ones_own(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "train.py").read_text(encoding="utf-8")
    small = text.replace("train_images=4000, validation_images=500", "train_images=96, validation_images=20")
    small = small.replace('load_recipe("shapes")', 'load_recipe("shapes", backend="numpy", kernels=(4,) * 5)')
    assert small.count("(4,)") == small.count("=96") == 1
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    (tmp_path / "train.py").write_text(small, encoding="utf-8")
    out = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert out.count("validation error") == 4
    assert np.load(tmp_path / "weights.npz")["conv1.weight"].shape == (4, 3, 5, 5)


def outputs(client: Any, code: str, interrupt: Any = None) -> list[dict[str, Any]]:
    """What a cell shows, with the kernel interrupted when its first step is shown."""
    wanted = client.execute(code)
    found = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=120)
        except queue.Empty:
            break
        if message["parent_header"].get("msg_id") != wanted:
            continue
        content = message["content"]
        found.append(content)
        bar = content.get("data", {}).get("text/html", "")
        if interrupt and "<progress value" in bar and "steps" in bar:
            interrupt()
            interrupt = None
        if content.get("execution_state") == "idle":
            return found
    raise AssertionError(f"the cell did not end: {found}")


def test_a_notebook_shows_bar_and_curves_and_its_interrupt_saves(tiny: dict[str, Any], tmp_path: Path) -> None:
    manager_module = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    manager, client = manager_module.start_new_kernel(kernel_name="python3", cwd=os.fspath(tmp_path), env=environment)
    try:
        changes = ", ".join(f"{name}={value!r}" for name, value in {**tiny, "epochs": 500}.items())
        told = outputs(client, "import minialex\nprint(minialex.__version__)")
        assert any(minialex.__version__ in content.get("text", "") for content in told)
        cell = f"run = minialex.train('shapes', {changes}, out='run', live=True)"
        told = outputs(client, cell, manager.interrupt_kernel)
        assert not [content for content in told if "ename" in content], told
        shown = [content["data"] for content in told if "data" in content]
        assert any("<progress" in data.get("text/html", "") for data in shown)
        assert any("image/png" in data for data in shown)
        told = outputs(client, "run.stopped, run.result.progress.step > 0")
        (answer,) = (content["data"]["text/plain"] for content in told if "data" in content)
        assert answer == "('Ctrl-C', True)"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_recipe_knows_its_data_and_two_networks_are_one_too_many(tiny: dict[str, Any], tmp_path: Path) -> None:
    run = minialex.train("small", **{**tiny, "epochs": 1}, out=tmp_path / "run", progress=False)
    assert run.recipe.data == "shapes"
    net = Network("mine", (3, 28, 28), (Flatten("flatten"), Linear("fc1", 10, sees="all", on="first")))
    with pytest.raises(ConfigurationError, match="two networks were given"):
        minialex.train(net, network=net, out=tmp_path / "two", progress=False)


def test_a_failure_before_anything_is_trained_leaves_no_folder(tiny: dict[str, Any], tmp_path: Path) -> None:
    class Full(Listener):
        def begin(self: Listener, *_: Any) -> None:
            raise ResourceError("no room")

    class Broken(Listener):
        def stepped(self: Listener, step: int, *_: float) -> None:
            raise DataError("an image")

    for number, failing in enumerate((Full(), Broken())):
        with pytest.raises((ResourceError, DataError)):
            minialex.train("shapes", **tiny, out=tmp_path / str(number) / "run", progress=failing)
        assert list((tmp_path / str(number)).iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ResourceError):
        minialex.train("shapes", **tiny, out=tmp_path / "mine", progress=Full())
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(DataError):  # saved after every step: what was trained stays
        minialex.train("shapes", **{**tiny, "checkpoint_steps": 1}, out=tmp_path / "kept", progress=Later())
    assert minialex.TrainingRun(tmp_path / "kept").resume(progress=False).result.progress.step == 12


class Later(Listener):
    """Fails in the third step."""

    def stepped(self: Listener, step: int, *_: float) -> None:
        if step == 3:
            raise DataError("an image")

"""Timing a step: the parts are the step's, they add up, and what is shown is what was measured."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from matplotlib.text import Text
from rich.console import Console

from minialex.backend import registry
from minialex.cli import app as cli
from minialex.errors import ResourceError
from minialex.figures import bench as figures
from minialex.recipe.toml import load
from minialex.speed import bench, peaks
from minialex.speed.bench import FEED, Part, Timings, parts
from minialex.speed.roofline import Peaks, Work

SMALL = load("small").replace(classes=10, batch_size=4)


def text_of(renderable) -> str:
    screen = Console(width=160, file=io.StringIO())
    screen.print(renderable)
    return screen.file.getvalue()


@pytest.fixture(scope="module")
def timings() -> Timings:
    told: list[int] = []
    backend = registry.load("numpy")
    found = bench.measure(
        SMALL, backend, ("cpu:0", "cpu:1"), repeats=2, floors=False, progress=lambda what, done: told.append(done)
    )
    assert told == [0, 1, 2, 3, 4, 5]
    return found


def test_parts_are_those_of_the_step_and_add_up(timings):
    keys = [(part.layer, part.phase) for part in timings.parts]
    assert keys[:3] == [FEED, ("input", "input"), ("conv1", "forward")]
    assert keys[-1] == ("conv1", "update")
    assert len(set(keys)) == len(keys)
    for layer in ("conv1", "norm1", "pool1", "relu5", "fc8", "dropout7"):
        assert {phase for name, phase in keys if name == layer} >= {"forward", "backward"}
    assert ("conv3", "exchange") in keys
    assert all(part.seconds >= 0 and part.floor is None and not part.includes for part in timings.parts)
    assert len(timings.seconds) == 2
    assert timings.images_per_second == pytest.approx(4 / timings.median)


def test_memory_is_what_the_process_grows_by(timings):
    """In a process of its own: in this one other tests' memory may go at any moment."""
    code = (
        "import numpy as np; from minialex.speed import bench; before = bench.memory_now(reset=True); "
        "block = np.ones(1 << 23); print(before, bench.memory_peak(), block.nbytes)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    if said[0] == "None":
        pytest.skip("this system does not tell")
    before, peak, size = map(int, said)
    assert peak - before > 0.9 * size
    assert timings.memory < 2**30


def test_weights_stay_what_they_are():
    backend = registry.load("numpy")
    subject = bench.Subject(bench.random_session(SMALL, backend, ("cpu:0",) * 2), "train", 4)
    before = subject.session.weights()
    subject.run()
    subject.run_watched()
    after = subject.session.weights()
    assert subject.done == 2
    for name, array in before.items():
        assert abs(array - after[name]).max() < 1e-3, name


def test_time_is_counted_where_it_goes(monkeypatch):
    """With a clock that only two operations move."""
    clock = [0.0]
    backend = registry.load("numpy")
    for name, seconds in (("max_pool2d_backward", 1.0), ("sgd_update", 10.0)):
        operation = getattr(type(backend), name)

        def slow(self, *args, operation=operation, seconds=seconds, **kwargs):
            clock[0] += seconds
            return operation.call(*args, **kwargs)

        monkeypatch.setattr(type(backend), name, slow)
    subject = bench.Subject(bench.random_session(SMALL, backend, ("cpu:0",) * 2), "train", 4)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    seconds = subject.run_watched()
    pools = {(f"pool{n}", "backward"): 2.0 for n in (1, 2, 5)}
    updates = {(layer, "update"): 40.0 for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")}
    expected = {**pools, **updates, ("fc8", "update"): 20.0}  # weights and biases of two columns, or of one
    assert {key: taken for key, taken in seconds.items() if taken} == expected
    assert subject.run() == sum(expected.values())


def test_what_a_backend_does_in_one_sweep_shares_a_time_and_a_floor():
    work = {
        ("input", "input"): Work(0, 10),
        ("conv1", "forward"): Work(100, 0),
        ("relu1", "forward"): Work(0, 0),
        ("norm1", "forward"): Work(0, 30),
        ("pool1", "forward"): Work(0, 20),
        ("pool1", "backward"): Work(0, 20),
        ("conv1", "backward"): Work(100, 0),
        ("conv1", "update"): Work(0, 5),
    }
    seconds = {
        FEED: 1.0,
        ("input", "input"): 2.0,
        ("conv1", "forward"): 3.0,
        ("norm1", "forward"): 4.0,
        ("pool1", "backward"): 5.0,
        ("conv1", "backward"): 6.0,
    }
    found = {(part.layer, part.phase): part for part in parts(seconds, work, Peaks(10.0, 10.0))}
    assert list(found) == list(seconds)
    assert found["conv1", "forward"] == Part("conv1", "forward", 3.0, 10.0, (("relu1", "forward"),))
    assert found["norm1", "forward"] == Part("norm1", "forward", 4.0, 5.0, (("pool1", "forward"),))
    assert found["conv1", "backward"] == Part("conv1", "backward", 6.0, 10.5, (("conv1", "update"),))
    assert found[FEED] == Part(*FEED, 1.0, 0.0)


def some(**changes) -> Timings:
    made = (
        Part("feed", "input", 0.001, 0.0),
        Part("conv1", "forward", 0.020, 0.010, (("relu1", "forward"),)),
        Part("conv1", "backward", 0.030, 0.005, (("conv1", "update"),)),
    )
    known = {
        "model": "alexnet", "kind": "train", "columns": 2, "batch_size": 8, "dtype": "float32", "backend": "numba",
        "placement": ("cpu:0", "cpu:0"), "threads": 2, "first": 3.0, "seconds": (0.05, 0.06, 0.08), "parts": made,
        "memory": 123_000_000, "peaks": Peaks(7e10, 2e10), **changes,
    }  # fmt: skip
    return Timings(**known)


def test_the_table_has_the_figures():
    lines = text_of(figures.table(some()).rich()).splitlines()
    conv1 = next(line for line in lines if "conv1" in line).replace("│", " ").split()
    assert conv1 == ["conv1", "20.0", "10.0", "2.0", "30.0", "5.00", "6.0", "in", "backward", "98.0%"]
    relu1 = next(line for line in lines if "relu1" in line)
    assert "in conv1" in relu1
    said = "\n".join(figures.lines(some()))
    for text in (
        "60.0 ms (median of 3; 50.0 to 80.0), 133.3 images/s",
        "123.0 MB",
        "15.0 ms; the step takes 4.0 times",
    ):
        assert text in said
    assert figures.title(some()) == ("alexnet, 2 columns: training step, batch 8, float32, on numba (cpu:0, 2 threads)")


def test_the_picture_has_the_figures():
    figure = figures.picture(some())
    (axes,) = figure.axes
    bars = [(round(bar.get_x(), 6), round(bar.get_width(), 6)) for bar in axes.patches]
    assert (0.0, 20.0) in bars
    assert (20.0, 30.0) in bars, "backward follows forward"
    assert (0.0, 10.0) in bars
    assert (10.0, 5.0) in bars, "and the floors likewise"
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "50.0  (3.3 × floor)" in texts
    assert "conv1 + relu1" in texts
    assert not any("floor" in text.get_text() for text in figures.picture(some(peaks=None)).findobj(Text))


def test_the_command_writes_what_it_says(tmp_path, capsys):
    figures, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    options = "--recipe small --backend numpy --batch-size 2 --repeats 1 --no-floors --columns 1 --kind infer"
    assert cli.run(["bench", *options.split(), "--json", str(figures), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "alexnet_small, 1 column: inference, batch 2, float32, on numpy (cpu:0)" in out
    assert "conv5" in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(figures.read_text())
    assert found["images_per_second"] == pytest.approx(2 / found["median"])
    assert {part["phase"] for part in found["parts"]} == {"input", "forward"}
    assert found["peaks"] is None
    assert found["machine"]["cores"] >= 1
    assert "numpy" in found["versions"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--kind trian", "--kind takes train or infer, got 'trian'. Did you mean 'train'?"),
        ("--picture bench.jpg", "PNG"),
        ("--json no/such/folder/bench.json", "there is no folder no/such/folder"),
        ("--recipe smal", "no recipe 'smal'"),
        ("--batch-size 0", "batch_size"),
        ("--repeats 0", "--repeats"),
        ("--devices gpu", "no device 'gpu'"),
        ("--learning-rat 1", "--learning-rat"),
    ],
)
def test_bad_options_are_one_line(options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["bench", "--backend", "numpy", *options.split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_peaks_are_measured(monkeypatch):
    monkeypatch.setattr(peaks, "SIDE", 256)
    monkeypatch.setattr(peaks, "COPIED", 1 << 20)
    own = peaks._of_backend(registry.load("numpy"), "cpu:0", "float32")
    host = peaks.of_host(2, "float32")
    for found in (own, host):
        assert found.multiply_adds > 1e7
        assert found.bytes > 1e7


def test_the_hosts_peak_is_measured_with_as_many_threads(monkeypatch):
    seen = {}

    def run(command, env, **_):
        seen.update(env=env, command=command)

        class Ended:
            returncode, stdout, stderr = 0, "[3.0, 1e30]", ""

        return Ended

    monkeypatch.setattr(peaks.subprocess, "run", run)
    monkeypatch.setattr(peaks, "_of_backend", lambda *_: Peaks(5.0, 7.0))
    found = peaks.measure(registry.load("numpy"), "cpu:0", 1, "float64")
    assert found == Peaks(5.0, 1e30), "the faster of each"
    assert seen["command"][-2:] == ["1", "float64"]
    assert seen["env"]["OPENBLAS_NUM_THREADS"] == "1"


def test_a_peak_that_cannot_be_measured_says_so(monkeypatch):
    monkeypatch.setattr(peaks.sys, "executable", "/bin/false")
    with pytest.raises(ResourceError, match="--no-floors"):
        peaks._host_in_a_process(1, "float32")

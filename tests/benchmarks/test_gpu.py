"""The benchmark for GPUs runs where there is none; its peer is the same network; a bare machine is enough."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minialex.backend import registry
from minialex.backend.program import ArrayName
from minialex.data.statistics import Statistics
from minialex.engine.schedule import EpochRates
from minialex.errors import ConfigurationError, ResourceError
from minialex.network import models, variants
from minialex.recipe.toml import load
from minialex.speed import bench, plan
from minialex.speed.rates import KNOWN

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "kernels": (4, 8, 8, 8, 8), "features": (16, 16), "crop": 20, "image_size": 24, "classes": 5, "batch_size": 4,
    "dropout": 0.0,
}  # fmt: skip

try:
    import torch
except ImportError:
    if os.environ.get("CI"):
        raise
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # which it puts the source tree into
    yield module("gpu")
    for name in ("gpu", "gpu_peer", "gpu_peer_tuned", "gpu_busy", "gpu_goals", "peer"):
        sys.modules.pop(name, None)


@pytest.mark.peers
@needs_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::UserWarning:torch")
@pytest.mark.parametrize(
    ("compiled", "tuned"),
    [(None, False), (None, True), ("as one graph", True), pytest.param("default", False, marks=pytest.mark.slow)],
)
def test_the_peers_are_the_same_network(gpu, compiled, tuned):
    """Same weights, images, crops and colours: same loss, same gradients, within float32's rounding."""
    from gpu_peer import DevicePeer, set_precision

    set_precision("float32")
    recipe = load("small").replace(**TINY, norm_alpha=0.1)
    ours = bench.random_session(recipe, registry.load("numpy"), ("cpu:0", "cpu:0"))
    images, labels = bench.random_batch(recipe, 4)
    now = EpochRates(learning_rate=1.0, layer_rates={}, colour=recipe.colour, finished=False)
    before = ours.weights()
    draws = ours.training_feed(images, labels, 3, now)
    take = ours.backend.to_numpy
    drawn = ("top", "left", "flip", "shift")
    crops = {name: torch.from_numpy(take(draws[ArrayName(role=name, device="cpu:0")])) for name in drawn}
    outcome = ours.train(images, labels, 3, now)
    after = ours.weights()

    statistics = Statistics(np.full((3, 24, 24), 127.5, np.float32), np.eye(3) * 5000.0)
    peer = DevicePeer(recipe, variants.build(recipe), statistics, "cpu", "float32", None if tuned else compiled, tuned)
    if tuned and compiled:  # without a compiler of C++: traced in one piece, as on a device
        peer.loss = torch.compile(peer.loss, backend="aot_eager", fullgraph=True, dynamic=False)
    peer.model.load(before)
    on_device = peer.upload(images, labels)
    crops["flip"] = crops["flip"].bool()
    loss = peer.loss(*on_device, *(crops[name].long() if name in ("top", "left") else crops[name] for name in crops))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(outcome.loss, rel=1e-5)
    taken = peer.model.named_parameters()
    gradients = peer.model.gradients() if tuned else {name: one.grad.numpy() for name, one in taken}
    assert set(gradients) == set(before)
    for name, gradient in gradients.items():
        decay = recipe.weight_decay * before[name] if name.endswith("weight") else 0.0
        expected = before[name] - after[name] - decay  # at rate 1, from momentum 0
        error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
        assert error < 2e-4, name


@pytest.mark.peers
@needs_torch
@pytest.mark.parametrize(
    "fields",
    [{}, {"columns": 1}, {"norm_sees": "all"}, {"stride": 4, "size": 11}],
    ids=["small", "one column", "norm over all", "the paper's first layer"],
)
def test_the_tuned_peer_is_the_plain_one(gpu, fields):
    """To the last digits of float64, where no ReLU near zero falls on another side."""
    from gpu_peer_tuned import TunedPeer
    from peer import Peer

    network = variants.build(load("small").replace(**TINY))
    layers = list(network.layers)
    if "stride" in fields:  # zeros at two sides alone, and a stride that does not divide the image
        padding = ((0, 3), (0, 3))
        layers[0] = dataclasses.replace(layers[0], padding=padding, **{k: fields[k] for k in ("stride", "size")})
        layers = [layer for layer in layers if not layer.name.startswith("pool") or layer.name == "pool5"]
    layers = [
        dataclasses.replace(layer, alpha=0.5, sees=fields.get("norm_sees", "own"))
        if layer.name[:4] == "norm"
        else layer
        for layer in layers
    ]
    network, columns = dataclasses.replace(network, layers=tuple(layers)), fields.get("columns", 2)
    plain, tuned = Peer(network, columns).double(), TunedPeer(network, columns).double()
    tuned.load({name: one.detach().numpy() for name, one in plain.named_parameters()})
    assert sum(one.numel() for one in tuned.parameters()) == sum(one.numel() for one in plain.parameters())
    x = torch.nn.functional.pad(torch.randn(3, *network.input_shape, dtype=torch.float64), plain.around)
    outputs = plain(x), tuned(tuned.arrange(x))
    for logits in outputs:
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    assert torch.allclose(*outputs, rtol=1e-12, atol=1e-14)
    gradients = tuned.gradients()
    for name, parameter in plain.named_parameters():
        expected = parameter.grad.numpy()
        assert np.linalg.norm(gradients[name] - expected) / np.linalg.norm(expected) < 1e-12, name


@pytest.mark.peers
@needs_torch
def test_everything_runs_on_a_machine_without_a_gpu(gpu, tmp_path, capsys):
    recipe = tmp_path / "tiny.toml"
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in TINY.items()}
    network = {k: v for k, v in fields.items() if k not in ("batch_size", "image_size")}
    lines = ['base = "small"', "[network]", *(f"{k} = {json.dumps(v)}" for k, v in network.items())]
    recipe.write_text("\n".join([*lines, "[images]", "image_size = 24"]), encoding="utf-8")
    out = tmp_path / "results" / "gpu.json"
    code = gpu.main(
        ["--backend", "numba", "--device", "cpu:0", "--recipe", str(recipe), "--batch-sizes", "4,8", "--precisions",
         "float32", "--peers", "pytorch,tuned:1024", "--rounds", "2", "--steps", "2", "--images", "16",
         "--out", str(out)]
    )  # fmt: skip
    assert code == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {"machine", "versions", "date", "command", "rates"} <= set(found)
    assert [entry["batch_size"] for entry in found["entries"]] == [4, 8]
    for entry in found["entries"]:
        assert entry["errors"] == {}
        assert set(entry["step"]) == {"minialex", "minialex, one column", "pytorch"}
        assert set(entry["end_to_end"]) == {"minialex", "pytorch"}
        assert "busy" not in entry  # the processor is not traced
        assert entry["floor_seconds"] > 0
        assert all(len(side["seconds"]) == 2 for side in entry["step"].values())
        names = [row["layer"] for row in entry["layers"]]
        assert names[:2] == ["conv1", "norm1 + pool1"]
        assert {"input", "softmax", "update"} <= set(names)
    cost = [goal for goal in found["goals"] if "two columns" in goal["goal"]]
    assert [goal["met"] is None for goal in found["goals"]].count(False) == len(cost) == 2
    said = capsys.readouterr().out
    assert "| float32 | 8 |" in said
    assert "| not measured | – |" in said
    assert "| norm1 + pool1 |" in said


def test_a_bare_machine_is_enough(tmp_path):
    """No package but NumPy and Numba, and minialex itself not installed."""
    code = f"""
import importlib.metadata, runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"typer", "click", "rich", "PIL", "safetensors", "tomli_w", "pooch", "matplotlib",
                                       "psutil", "torch"}}:
            raise ImportError("a bare machine has no " + name)
sys.meta_path.insert(0, Refuse())
real = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **choice: () if choice.get("group") == "minialex.backends" else real(**choice)
sys.path = [p for p in sys.path if p not in ({str(ROOT)!r}, {str(ROOT / "backends")!r})]
sys.argv = ["gpu.py", "--backend", "numba", "--device", "cpu:0", "--recipe", "small", "--batch-sizes", "4",
            "--precisions", "float32", "--peers", "", "--rounds", "1", "--steps", "1", "--images", "8",
            "--out", {str(tmp_path / "gpu.json")!r}]
runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["entries"][0]["step"]["minialex"]


def test_a_side_that_fails_is_recorded_and_the_rest_goes_on(gpu):
    class Good:
        count = 0

        def steps(self, count):
            self.count += count

    class Bad:
        def steps(self, count):
            raise ResourceError("out of memory\nwith a batch of 1,024")

    errors: dict[str, str] = {}
    sides = {"good": Good(), "bad": Bad()}
    found = gpu.in_turn(sides, errors, 3, lambda side: side.steps(2))
    assert errors == {"bad": "ResourceError: out of memory with a batch of 1,024"}
    assert gpu.attempt(lambda: {}["key"], "odd", errors) is None
    assert errors["odd"] == "KeyError: 'key'"
    assert list(sides) == list(found) == ["good"]
    assert len(found["good"]) == 3
    assert sides["good"].count == 6


def test_goals_are_met_or_not_met(gpu):
    """Made-up results on either side of every goal."""
    from gpu_goals import columns_cost, goals, table

    def entry(precision, batch, ours, compiled, one, busy, end):
        sides = {"minialex": ours, "torch.compile": 2 * compiled, "torch.compile, tuned": compiled}
        sides["minialex, one column"] = one
        return {
            "precision": precision, "batch_size": batch, "floor_seconds": 0.004, "floor_seconds_one_column": 0.006,
            "step": {name: {"median": seconds} for name, seconds in sides.items()}, "busy": busy,
            "end_to_end": {"minialex": {"images_per_second": end}},
        }  # fmt: skip

    good = [
        entry("bfloat16", 1024, 0.010, 0.015, 0.014, 0.9, 93_000), entry("tf32", 1024, 0.01, 0.0131, 0.014, 0.9, 1),
        entry("bfloat16", 128, 0.010, 0.015, 0.014, 0.95, 1),
    ]  # fmt: skip
    assert columns_cost(good[0]) == pytest.approx(0.010 / (0.004 * 0.014 / 0.006) - 1)
    assert all(goal.met for goal in goals(good)), goals(good)
    bad = [
        entry("bfloat16", 1024, 0.017, 0.0249, 0.014, 0.9, 50_000), entry("tf32", 1024, 0.012, 0.0155, 0.010, 0.9, 1),
        entry("bfloat16", 128, 0.012, 0.015, 0.010, 0.89, 1),
    ]  # fmt: skip
    assert not any(goal.met for goal in goals(bad)), goals(bad)
    quick, slow = good[0]["step"]["torch.compile, tuned"], good[0]["step"]["torch.compile"]
    good[0]["step"] |= {"torch.compile": quick, "torch.compile, tuned": slow}  # whichever peer is the quicker one
    assert goals(good)[0] == goals([entry("bfloat16", 1024, 0.010, 0.015, 0.014, 0.9, 93_000)])[0]
    del good[0]["step"]["torch.compile, tuned"]
    assert goals(good)[0].measured == "1.50 times, but one of the two was not timed"
    assert goals(good)[0].met is None
    assert all(goal.met is None for goal in goals([]))
    slower = [goal for goal in goals(bad, memory=2.15e12) if "images/s" in goal.goal and "torch" not in goal.goal]
    assert [goal.met for goal in slower] == [True] * 3
    assert "77,000 images/s, 50% of it on this card" in slower[1].goal
    assert "| **not met** |" in "\n".join(table(bad))
    assert "computed together, estimated from one column's share of its floor |" in "\n".join(table(bad))


def test_time_that_overlaps_counts_once(gpu):
    from gpu_busy import covered

    assert covered([]) == 0
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2), (6, 7)]) == 5


def test_what_is_asked_for_is_timed_alone(gpu, monkeypatch):
    """On two streams, each waits for what was asked before it; the runtime is as it was afterwards."""
    from contextlib import nullcontext
    from types import ModuleType, SimpleNamespace

    from gpu_busy import watching

    log = []

    class Event:
        def record(self, stream):
            self.place = len(log)
            log.append(("record", stream.name))

    class Stream:
        def __init__(self, name):
            self.index, self.stream, self.name = 0, self, name

        def wait_event(self, event):
            log.append(("wait", self.name, event.place))

    class Runtime:
        def launch(self, stream, kernel, count):
            log.append((kernel.name, stream.name))

        def clear(self, stream, target):
            log.append(("clear", stream.name))

        multiply = convolve = copy = clear

    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(Event=Event, Device=lambda index: nullcontext())
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    runtime, a, b = Runtime(), Stream("a"), Stream("b")
    with watching(runtime) as asked:
        runtime.launch(a, SimpleNamespace(name="first"), 1000)
        runtime.launch(b, SimpleNamespace(name="second"), 7)
        runtime.clear(a, SimpleNamespace(nbytes=5))
    assert [what for what, *_ in asked] == ["first, 1,000", "second, 7", "clear, 5 bytes"]
    assert log == [
        ("record", "a"), ("first", "a"), ("record", "a"),
        ("wait", "b", 2), ("record", "b"), ("second", "b"), ("record", "b"),
        ("wait", "a", 6), ("record", "a"), ("clear", "a"), ("record", "a"),
    ]  # fmt: skip
    assert not vars(runtime)


@pytest.mark.peers
@needs_torch
def test_what_the_profiler_traces_is_added_up(gpu):
    from gpu_busy import traced

    a = torch.randn(400, 400)
    found: list = []
    seconds = gpu.seconds_of(lambda: found.append(traced(lambda: [a @ a for _ in range(20)], 10, "cpu")))
    trace = found[0]
    assert 0 < trace.busy <= seconds
    assert {row["name"]: row["calls"] for row in trace.rows}["aten::mm"] == 2.0
    with pytest.raises(RuntimeError, match="traced no kernel"):
        traced(lambda: None, kind="cpu")


def test_the_longest_kernels_are_kept_and_the_rest_added_up(gpu):
    from gpu_busy import LONGEST, longest

    found = [(f"kernel {n}", float(n)) for n in range(1, LONGEST + 3)] + [("kernel 3", 100.0)]
    rows = longest(found, 2)
    assert rows[0] == {"name": "kernel 3", "calls": 1.0, "microseconds": 51.5}
    assert len(rows) == LONGEST + 1
    assert rows[-1] == {"name": "2 others", "calls": 1.0, "microseconds": 1.5}


def test_rates_are_measured_once_and_results_kept(gpu, tmp_path, monkeypatch):
    """A second call reads the file; what is complete is not measured again, what is not is."""
    asked = []
    monkeypatch.setattr(gpu.devices, "cards", lambda only: asked.append(only) or {only: KNOWN["h200"]})
    kept = tmp_path / "new" / "rates.json"
    assert gpu.device_rates("cuda:0", kept) is KNOWN["h200"]
    assert gpu.device_rates("cuda:0", kept) == KNOWN["h200"]
    assert asked == ["cuda:0"]
    with pytest.raises(ConfigurationError, match=r"rates\.json has no rates of cuda:1"):
        gpu.device_rates("cuda:1", kept)
    out = tmp_path / "gpu.json"
    done = {"precision": "tf32", "batch_size": 128, "complete": True}
    out.write_text(json.dumps({"entries": [done, {"precision": "tf32", "batch_size": 256, "complete": False}]}))
    measured = []
    monkeypatch.setattr(gpu.Benchmark, "entry", lambda self, *what: measured.append(what))
    options = SimpleNamespace(
        device="cuda:0", rates=kept, resume=True, out=out, backend="cuda", recipe="small", compile_mode=None,
        precisions=["tf32"], batch_sizes=[128, 256],
    )  # fmt: skip
    assert gpu.Benchmark(options).run()["entries"] == [done]
    assert measured == [("tf32", 256)]


def test_no_gpu_and_wrong_options(gpu, capsys):
    assert gpu.main(["--backend", "cuda"]) == 6
    assert "error: driver: no NVIDIA driver" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu.main(["--precisions", "bf16"])
    assert "no 'bf16'; there are float32, tf32, bfloat16" in capsys.readouterr().err
    for wrong in ("eager", "tuned:large"):
        with pytest.raises(SystemExit):
            gpu.main(["--peers", wrong])
        assert f"no '{wrong}'; there are pytorch, torch.compile, tuned" in capsys.readouterr().err
    assert gpu.peers("") == []
    assert gpu.peers("torch.compile:1024,tuned") == [("torch.compile", 1024), ("tuned", None)]


def test_time_is_set_beside_the_floor_that_it_belongs_to(gpu):
    layout = plan.lay_out(models.ALEXNET, (0, 0))
    floor = plan.floor(layout, [KNOWN["h200"]], "bfloat16", 128)
    seconds = {
        ("input", "input"): 1.0, ("conv1", "forward"): 2.0, ("relu1", "forward"): 4.0, ("norm1", "forward"): 8.0,
        ("pool1", "forward"): 16.0, ("fc8", "forward"): 32.0, ("softmax", "forward"): 64.0,
        ("softmax", "backward"): 128.0, ("fc8", "backward"): 256.0, ("relu1", "backward"): 512.0,
        ("conv1", "backward"): 1024.0, ("conv1", "update"): 2048.0, ("fc8", "update"): 4096.0,
        ("fc8", "exchange"): 8192.0,
    }  # fmt: skip
    rows = {row["layer"]: row for row in gpu.layers(seconds, floor)}
    assert rows["conv1"]["forward"] == 6.0
    assert rows["conv1"]["backward"] == 1536.0
    assert rows["norm1 + pool1"]["forward"] == 24.0
    assert rows["fc8"] | {"floor": 0} == {
        "layer": "fc8", "forward": 32.0, "backward": 256.0, "exchange": 8192.0, "floor": 0, "limit": "memory",
    }  # fmt: skip
    assert rows["update"]["update"] == 6144.0
    assert rows["input"] == {"layer": "input", "input": 1.0}
    assert rows["softmax"] == {"layer": "softmax", "forward": 64.0, "backward": 128.0}
    times = sum(v for row in rows.values() for k, v in row.items() if k not in ("layer", "floor", "limit"))
    assert times == sum(seconds.values())


def test_rates_of_a_card_are_measured(gpu, monkeypatch):
    monkeypatch.setattr(gpu.devices, "cards", lambda only: {only: KNOWN["h200"]})
    assert gpu.device_rates("cuda:1") is KNOWN["h200"]

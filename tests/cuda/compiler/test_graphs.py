"""Compiled steps: as a graph and without one, with what changes from step to step, and when memory runs out."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend.program import STEP, ArrayName
from minialex.backend.recorder import interpret
from minialex.cli import app as cli
from minialex.conformance import steps
from minialex.conformance.compare import same_bits
from minialex.errors import ResourceError
from minialex_cuda import CudaBackend
from minialex_cuda.compiler.compiled import OutOfMemory, Step
from minialex_cuda.runtime.fake import FakeRuntime

PLACEMENT = ("cuda:0", "cuda:0")
DEVICES = ("cuda:0", "cuda:1")


def run_with(graphs: bool, placement: tuple[str, str] = PLACEMENT) -> tuple[steps.Run, Step]:
    """Some training steps, as a graph or not."""
    made: list[Step] = []

    def make(program: Any, backend: Any, bound: Any) -> Step:
        made.append(Step(backend._places, backend._workspace, program, bound, graphs=graphs))
        return made[0]

    recorded = steps.program_of("train", "float32", placement, DEVICES, more=True)
    return steps.execute(CudaBackend(runtime=FakeRuntime()), recorded, steps.data("float32"), make), made[0]


def test_a_graph_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate and the step change from replay to replay, and with them weights and masks."""
    monkeypatch.setattr(steps, "STEPS", 5)
    with_graph, step = run_with(True)
    without, plain = run_with(False)
    assert step._graph is not None
    assert plain._graph is None
    for first, second in zip(with_graph, without, strict=True):
        assert all(same_bits(array, second[name]) for name, array in first.items())
    masks = [run[ArrayName("dropout5", column=0, role="mask")] for run in with_graph]
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_two_devices_have_a_graph_for_each_stretch_between_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as without; what crosses is in none, and another workspace makes them anew."""
    monkeypatch.setattr(steps, "STEPS", 5)
    with_graphs, step = run_with(True, DEVICES)
    without, plain = run_with(False, DEVICES)
    assert step._graph is None
    assert not plain._parts
    graphs = {part: graph for part, graph in step._parts.items() if graph is not None}
    assert len(graphs) > 8
    for part in graphs:
        assert not any(step.schedule.tasks[index].call.operation == "copy_to" for index in part)
    for first, second in zip(with_graphs, without, strict=True):
        assert all(same_bits(array, second[name]) for name, array in first.items())
    step.release()  # as when a larger step takes the workspace
    assert not step._parts


def test_what_a_graph_cannot_hold_is_refused() -> None:
    runtime = FakeRuntime()
    backend = CudaBackend(runtime=runtime)
    x = backend.zeros((3,), "float32", "cuda:0")
    stream = runtime.stream("cuda:0")
    runtime.begin_capture(stream)
    for refused in (
        lambda: runtime.allocate(4, "cuda:0", stream),
        lambda: runtime.upload(stream, np.zeros(3, np.float32), x.flat),
        lambda: runtime.synchronize(stream),
    ):
        with pytest.raises(ResourceError, match=r"captured|graph"):
            refused()


def test_watching_tells_layers_in_order_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, str]] = []
    original = Step.__call__
    plain, _ = run_with(True)
    monkeypatch.setattr(Step, "__call__", lambda self, feed: original(self, feed, lambda *where: seen.append(where)))
    watched, step = run_with(True)
    assert step._graph is None
    assert all(same_bits(array, watched[i][name]) for i, run in enumerate(plain) for name, array in run.items())
    assert ("conv1", 0, "forward") in seen
    assert seen.index(("conv1", 1, "forward")) < seen.index(("conv4", 0, "exchange"))


def test_programs_with_other_symbols_are_walked() -> None:
    backend = CudaBackend(runtime=FakeRuntime())
    from minialex.backend.program import Call, Program, Symbol, Value

    x = Value(1, (3,), np.dtype(np.float32), "cuda:0")
    y = Value(2, (3,), np.dtype(np.float32), "cuda:0")
    program = Program({}, {"x": x}, ("f",), (Call("scale", (x, Symbol("f")), {}, (y,)),), {"y": y})
    assert backend.compile_step(program, {}) is None
    step = interpret(program, backend, {})
    out = step({"x": backend.to_device(np.ones(3, np.float32), "cuda:0"), "f": 2.0})["y"]
    np.testing.assert_array_equal(backend.to_numpy(out), 2)


def test_no_memory_is_lost_over_many_steps() -> None:
    backend = CudaBackend(runtime=FakeRuntime())
    recorded = steps.program_of("train", "float32", PLACEMENT, DEVICES, more=False)
    given = steps.data("float32")
    bound = {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in recorded.bound.items()}
    step = backend.compile_step(recorded, bound)
    assert step is not None
    used = []
    for number in range(6):
        feed: dict[ArrayName, Any] = dict.fromkeys(recorded.symbols, 0.001) | {STEP: number}
        for name, value in recorded.fed.items():
            feed[name] = backend.to_device(given.batches[0][name.role], value.device)
        step(feed)
        del feed
        gc.collect()
        used.append(backend.memory_in_use("cuda:0"))
    assert len(set(used)) == 1
    del step, bound
    backend._workspace._blocks.clear()
    gc.collect()
    assert backend.memory_in_use("cuda:0") == 0


# ---- memory that runs out ---------------------------------------------------------------------------------------

SMALL = ["--train-images", "256", "--validation-images", "64", "--epochs", "1"]


def test_the_batch_that_is_said_to_fit_does(
    pretend_gpus: Callable[[int], Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pretend_gpus(60 << 20)
    base = ["train", "--backend", "cuda", "--devices", "0,1", *SMALL]
    assert cli.run([*base, "--batch-size", "256", "--out", str(tmp_path / "large")]) == 6
    message = capsys.readouterr().err
    found = re.search(
        r"error: out of memory with a batch of 256 images \(cuda:0: needed ([\d,]+) bytes, ([\d,]+) are free.*\); "
        r"try batch_size = (\d+)",
        message,
    )
    assert found, message
    assert int(found[1].replace(",", "")) > int(found[2].replace(",", ""))
    fits = int(found[3])
    assert 8 <= fits < 256
    arguments = [*base, "--batch-size", str(fits), "--out", str(tmp_path / "fits")]
    assert cli.run(arguments) == 0, capsys.readouterr().err


def test_memory_in_which_nothing_fits(
    pretend_gpus: Callable[[int], Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pretend_gpus(1 << 16)
    assert cli.run(["train", "--backend", "cuda", *SMALL, "--out", str(tmp_path / "run")]) == 6
    message = capsys.readouterr().err
    assert re.search(
        r"out of memory: the weights and momentum of \S+ do not fit \(cuda:0: needed [\d,]+ bytes", message
    )


def test_how_many_images_fit() -> None:
    backend = CudaBackend(runtime=FakeRuntime(memory=1 << 20))
    recorded = steps.program_of("train", "float32", PLACEMENT, DEVICES, more=False)
    bound = {name: backend.zeros(v.shape, v.dtype.name, v.device) for name, v in recorded.bound.items()}
    with pytest.raises(OutOfMemory) as caught:
        backend.compile_step(recorded, bound)
    assert 0 <= caught.value.fits < steps.BATCH


def test_a_training_run_on_two_pretend_gpus_learns_like_the_reference(
    pretend_gpus: Callable[[int], Any], tmp_path: Path
) -> None:
    """The whole command: `minialex train --backend cuda --devices 0,1`, beside the NumPy backend's."""
    from minialex.runs.run_folder import read_metrics

    pretend_gpus(1 << 40)
    losses = {}
    for name, backend in (("cuda", "cuda"), ("numpy", "numpy")):
        out = tmp_path / name
        arguments = ["train", "--backend", backend, "--devices", "0,1", *SMALL, "--batch-size", "64"]
        assert cli.run([*arguments, "--out", str(out)]) == 0
        losses[name] = [record["loss"] for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "train"]
    np.testing.assert_allclose(losses["cuda"], losses["numpy"], rtol=1e-4)

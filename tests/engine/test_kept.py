"""Images that stay on the devices: the same batches as those that are read, and one reading of every image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import data
from minialex.backend.hearing import hearing
from minialex.conformance.compare import same_bits
from minialex.data.dataset import ArraySplit, DataSet
from minialex.data.loader import batches
from minialex.engine import kept
from minialex.engine.opening import prepare
from minialex.recipe.toml import load
from minialex.runs import checkpoint
from minialex.runs.run_folder import Run
from minialex.training import loop
from minialex.training.listening import Listener
from minialex.training.loop import train
from minialex_cuda import CudaBackend
from minialex_cuda.ops.take_rows import EACH, LANES
from minialex_cuda.runtime.fake import FakeRuntime
from minialex_numpy import NumpyBackend


def images(count: int, size: int) -> ArraySplit:
    random = np.random.default_rng(size)
    return ArraySplit(random.integers(0, 256, (count, 3, size, size), np.uint8), np.arange(count, dtype=np.int64))


@pytest.mark.parametrize("size", [5, 8, 80])  # rows of 75 bytes, of 192, and of more words than a block copies
def test_batches_are_those_that_are_read(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LANES * EACH < 3 * 80**2 // 4
    split, backend = images(11, size), CudaBackend(runtime=FakeRuntime())
    monkeypatch.setattr(kept, "BLOCK", 4 * 3 * size**2)  # three blocks, the last one smaller
    told: list[tuple[int, int]] = []
    with hearing(lambda what, done, total, unit: told.append((done, total))):
        there = kept.keep(backend, backend.devices, split, workers=2)
    assert there is not None
    assert told == [(0, 11), (4, 11), (8, 11)]
    order = np.random.default_rng(0).permutation(11)
    read = list(batches(split, order, 3, start=1))
    found = list(there.batches(order, 3, start=1))
    assert len(found) == len(read) == 2
    for (indices, rows, labels), (wanted, pixels, right) in zip(found, read, strict=True):
        assert np.array_equal(indices, wanted)
        assert np.array_equal(labels, right)
        assert len(rows) == 3
        for device in backend.devices:
            assert same_bits(backend.to_numpy(rows.on(device)), pixels)
            assert same_bits(backend.to_numpy(rows[1:].on(device)), pixels[1:])


def test_not_where_they_take_more_than_half_of_what_is_free() -> None:
    split = images(10, 32)
    reading: dict[str, Any] = {"workers": 1, "empty": lambda shape: pytest.fail("they were read")}
    nbytes = 10 * 3 * 32**2
    assert kept.keep(CudaBackend(runtime=FakeRuntime(memory=2 * nbytes - 1)), ("cuda:0",), split, **reading) is None
    assert kept.keep(CudaBackend(runtime=FakeRuntime(memory=2 * nbytes)), ("cuda:0",), split, workers=1) is not None
    assert kept.keep(NumpyBackend(), ("cpu:0",), split, **reading) is None


def test_not_where_what_is_free_is_in_pieces() -> None:
    """The second device has no block of that size: the first one's is given back, and no image is read."""

    class InPieces(FakeRuntime):
        def allocate(self, nbytes: int, device: str, stream: Any) -> Any:
            if nbytes == 10 * 3 * 32**2 and device == "cuda:1":
                raise MemoryError
            return super().allocate(nbytes, device, stream)

    backend = CudaBackend(runtime=InPieces())
    reading: dict[str, Any] = {"workers": 1, "empty": lambda shape: pytest.fail("they were read")}
    assert kept.keep(backend, backend.devices, images(10, 32), **reading) is None
    assert backend.memory_in_use("cuda:0") == 0


class Counting(ArraySplit):
    """Counts how often every image is read."""

    def __init__(self, split: Any) -> None:
        super().__init__(split.images, split.labels)
        self.counts = np.zeros(len(split), int)

    def read_into(self, indices: Any, out: Any) -> None:
        np.add.at(self.counts, indices, 1)
        super().read_into(indices, out)


SHAPES = data.load("shapes", size=16, train_images=37, validation_images=16)
RECIPE = prepare(
    load("shapes").replace(
        image_size=16, crop=14, kernels=(4, 4, 4, 4, 4), features=(8, 8), train_images=37, validation_images=16,
        batch_size=8, epochs=4, checkpoint_steps=3, keep_checkpoints=20,
    ),
    SHAPES,
)  # fmt: skip


def trained(folder: Path, split: Any, recipe: Any = RECIPE, *, resume: bool = False) -> dict[str, Any]:
    """The weights of a run on two pretend GPUs."""
    opened = Run.resume(folder) if resume else Run.create(folder, recipe.to_toml())
    whole = DataSet("shapes", split, SHAPES.validation, SHAPES.class_names)
    with opened as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr("minialex.training.loop.dead_units", lambda *_: {})
        train(recipe, whole, CudaBackend(runtime=FakeRuntime()), ("cuda:0", "cuda:1"), run, Listener(), resume=resume)
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return dict(found.weights)


def test_a_run_has_the_same_bits_and_reads_its_images_in_the_first_epoch_and_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(SHAPES.train)
    weights = trained(tmp_path / "kept", counting)
    assert counting.counts.max() == 2
    assert counting.counts.sum() == 4 * 8 + 37  # the first epoch's four batches, and all images once more
    with monkeypatch.context() as patch:
        patch.setattr(CudaBackend, "keep_rows", lambda *_: None)
        other = trained(tmp_path / "read", Counting(SHAPES.train))
    assert all(np.array_equal(array, other[name]) for name, array in weights.items())
    short = trained(tmp_path / "stopped", counting, RECIPE.replace(epochs=1))
    assert not all(np.array_equal(array, short[name]) for name, array in weights.items())


def test_the_last_epoch_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To copy them all takes as long."""
    monkeypatch.setattr(CudaBackend, "keep_rows", lambda *_: pytest.fail("they are asked for only once more"))
    trained(tmp_path / "run", SHAPES.train, RECIPE.replace(epochs=2))


@pytest.mark.parametrize(
    ("timeline", "begins"),
    [
        ((), 2),
        ([(1, {"conv1": 0, "fc6": 0})], 2),
        ([(2, {"conv1": 0})], 2),
        ([(1, {"conv1": 0}), (2, {"conv1": 1})], 3),
        ([(1, {"conv1": 0, "fc6": 0}), (2, {"fc6": 1}), (4, {"conv1": 1})], 5),
        ([(1, {"conv1": 0}), (5, {"conv1": 1})], 0),  # the last epoch but one: the last is read
    ],
)
def test_not_before_layers_thaw_whose_steps_need_more(
    timeline: Any, begins: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple({"epoch": epoch, "layer_rates": rates} for epoch, rates in timeline)
    recipe = RECIPE.replace(epochs=6, schedule="timeline", timeline=entries)
    begun, trained_epoch = [0], loop.Training.train_epoch

    def train_epoch(self: loop.Training, *rest: Any) -> None:
        if self.kept is not None and begun == [0]:
            begun[:] = [self.epoch]
        trained_epoch(self, *rest)

    monkeypatch.setattr(loop.Training, "train_epoch", train_epoch)
    trained(tmp_path / "run", SHAPES.train, recipe)
    assert begun == [begins]


def test_ranks_read_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads other images in every epoch: it would have to keep all of them."""
    session: Any = type("S", (), {"recipe": RECIPE, "backend": None, "plan": type("P", (), {"placement": ()})})
    monkeypatch.setattr(loop, "Meter", lambda *_: None)
    monkeypatch.setattr(loop, "energy_of", lambda _: {})
    run: Any = type("R", (), {"paths": type("F", (), {"folder": None})})
    for ranks in (1, 2):
        group: Any = type("G", (), {"size": ranks})
        training = loop.Training(session, SHAPES, run, Listener(), loop.Progress(), group)  # type: ignore[arg-type]
        assert training.may_keep == (ranks == 1)

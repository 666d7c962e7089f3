"""Orders and batches: what is read, when, in which thread, and that no thread is left behind."""

import contextlib
import gc
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from minialex.data import loader
from minialex.data.dataset import ArraySplit
from minialex.data.draws import epoch_order
from minialex.data.loader import batches
from minialex.errors import ConfigurationError, DataError


def part(count=23):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8)
    return ArraySplit(images, np.arange(count) % 4)


@dataclass
class Watched:
    """A part that notes what is read where, and fails at one image."""

    bad: int = -1
    pause: float = 0.0
    size: int = 2
    reads: list[tuple[str, list[int]]] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.arange(40) % 4)

    def __len__(self):
        return 40

    def read(self, indices):
        self.reads.append((threading.current_thread().name, indices.tolist()))
        time.sleep(self.pause)
        if self.bad in indices:
            raise DataError(f"image {self.bad} is damaged")
        return np.zeros((len(indices), 3, 2, 2), np.uint8) + indices[:, None, None, None].astype(np.uint8)


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minialex-data")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not data_threads()
    yield
    assert not data_threads()


@pytest.mark.parametrize(("prefetch", "workers"), [(0, 1), (1, 1), (2, 1), (3, 4), (50, 2)])
@pytest.mark.parametrize("start", [0, 2, 4, 5, 9])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_batches_are_those_of_the_order(prefetch, workers, start, drop_last):
    split, order = part(), epoch_order(23, seed=3, epoch=1)
    found = list(batches(split, order, 5, start=start, prefetch=prefetch, workers=workers, drop_last=drop_last))
    expected = [order[i : i + 5] for i in range(0, 20 if drop_last else 23, 5)][start:]
    assert [indices.tolist() for indices, _, _ in found] == [indices.tolist() for indices in expected]
    for indices, images, labels in found:
        assert images[:, 0, 0, 0].tolist() == indices.tolist()
        assert labels.tolist() == (indices % 4).tolist()
    assert start + len(found) == max(start, loader.count(23, 5, drop_last=drop_last))


def test_reading_is_ahead_by_prefetch_and_no_more():
    split = Watched()
    with contextlib.closing(batches(split, np.arange(40), 4, prefetch=2)) as stream:
        next(stream)
        deadline = time.monotonic() + 10
        while len(split.reads) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert [indices[0] for _, indices in split.reads] == [0, 4, 8]
        assert all(name.startswith("minialex-data") for name, _ in split.reads)


def test_a_large_batch_is_shared_out_among_the_threads(monkeypatch):
    monkeypatch.setattr(loader, "PIECE", 2 * 12)  # two images of Watched
    split, given = Watched(), []

    def empty(shape):
        given.append(np.full(shape, 255, np.uint8))
        return given[-1]

    with contextlib.closing(batches(split, np.arange(38), 8, workers=3, drop_last=False, empty=empty)) as stream:
        found = list(stream)
    assert [images[:, 0, 0, 0].tolist() for _, images, _ in found] == [list(range(a, min(a + 8, 38)))
                                                                      for a in range(0, 38, 8)]  # fmt: skip
    assert [images is memory for (_, images, _), memory in zip(found, given, strict=True)] == [True] * 5
    assert sorted(sorted(indices) for _, indices in split.reads)[:3] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert len(split.reads) == 15


def test_no_more_batches_are_read_ahead_than_keep_the_threads_busy(monkeypatch):
    monkeypatch.setattr(loader, "PIECE", 12)
    split, given = Watched(), []

    def empty(shape):
        given.append(shape)
        return np.empty(shape, np.uint8)

    with contextlib.closing(batches(split, np.arange(40), 4, workers=4, empty=empty)) as stream:
        next(stream)
        assert len(given) == 3  # the one that is given out, and two


@pytest.mark.parametrize("images", [np.zeros((2, 3, 2, 2), np.float32), np.zeros((1, 3, 2, 2), np.uint8)])
def test_what_is_no_image_is_not_taken_for_one(images):
    split = Watched()
    split.read = lambda indices: images
    with pytest.raises(DataError, match="Watched: images are"):
        next(batches(split, np.arange(2), 2, prefetch=0))


def test_without_prefetch_there_is_no_thread():
    split = Watched()
    assert len(list(batches(split, np.arange(40), 4, prefetch=0))) == 10
    assert {name for name, _ in split.reads} == {threading.current_thread().name}


def test_where_there_are_no_threads_none_is_started(monkeypatch):
    monkeypatch.setattr(loader, "THREADS", False)  # as in a browser
    split = Watched()
    assert len(list(batches(split, np.arange(40), 4, workers=2))) == 10
    assert {name for name, _ in split.reads} == {threading.current_thread().name}


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_an_error_comes_when_its_batch_is_due(prefetch):
    stream = batches(Watched(bad=9), np.arange(40), 4, prefetch=prefetch)
    assert [next(stream)[0][0] for _ in range(2)] == [0, 4]
    with pytest.raises(DataError, match="image 9"):
        next(stream)
    assert not data_threads()
    assert list(stream) == []


@pytest.mark.parametrize("how", ["close", "break", "drop", "raise"])
def test_stopping_in_the_middle_leaves_no_thread(how):
    split = Watched(pause=0.01)
    stream = batches(split, np.arange(40), 2, prefetch=8)
    next(stream)
    assert data_threads()
    if how == "close":
        stream.close()
    elif how == "break":
        for _ in stream:
            break
        del stream, _
    elif how == "raise":
        with pytest.raises(ZeroDivisionError), contextlib.closing(stream):  # noqa: PT012
            next(stream)
            raise ZeroDivisionError
    else:
        del stream
    gc.collect()
    assert not data_threads()
    assert len(split.reads) < 20


@pytest.mark.parametrize("changed", [{"batch_size": 0}, {"start": -1}, {"prefetch": -1}, {"workers": 0}])
def test_what_cannot_be_batched(changed):
    with pytest.raises(ConfigurationError):  # at once, not at the first batch
        batches(part(), np.arange(23), **{"batch_size": 4, **changed})


def test_orders():
    first, second = (epoch_order(1000, seed=7, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first.dtype == np.int64
    assert np.mean(first == second) < 0.02
    assert np.mean(first == epoch_order(1000, seed=8, epoch=0)) < 0.02
    assert np.array_equal(second, epoch_order(1000, seed=7, epoch=1))
    for epoch in (0, 1, 5):
        assert np.array_equal(first, epoch_order(1000, seed=7, epoch=epoch, shuffle="once"))
    with pytest.raises(ConfigurationError, match=r"Did you mean 'each-epoch'\?"):
        epoch_order(10, seed=0, epoch=0, shuffle="each_epoch")

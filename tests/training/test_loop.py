"""The loop itself, on steps and errors that are given: which batches, what is recorded, what is saved as the best."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex.backend.hearing import hearer
from minialex.data import epoch_order
from minialex.data.dataset import ArraySplit, DataSet
from minialex.engine.schedule import EpochRates
from minialex.engine.session import StepOutcome
from minialex.evaluation.errors import Evaluation
from minialex.recipe.toml import load
from minialex.runs import checkpoint
from minialex.training import loop
from minialex.training.loop import Listener, Progress, StepResult, Training, epoch_steps

RECIPE = load("small").replace(
    classes=4, batch_size=2, epochs=3, schedule="constant", checkpoint_steps=5, keep_checkpoints=4, views=10
)
IMAGES = 25  # twelve batches of two, and one image that an epoch leaves out
TRAIN = ArraySplit(np.zeros((IMAGES, 3, 8, 8), np.uint8), np.arange(IMAGES, dtype=np.int64))
NOW = EpochRates(0.25, 0.0, {})


class Uploads:
    """A session that computes nothing and remembers which images were sent for which step."""

    recipe = RECIPE
    host_bytes: Any = None
    runs_ahead = False

    def __init__(self) -> None:
        self.sent: list[tuple[int, list[int]]] = []

    def upload(self, images: Any, labels: Any, step: int, now: EpochRates) -> int:
        assert now is NOW
        self.sent.append((step, labels.tolist()))
        return step

    def start(self, feed: int) -> int:
        return feed

    def finish(self, pending: int) -> StepOutcome:
        return StepOutcome(float(pending), np.eye(2), ())


def test_batches_are_read_to_where_the_backend_sends_them_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """By as many threads as there are processors; the images are the same."""
    split = ArraySplit(np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), np.uint8), np.zeros(9, np.int64))
    plain, chosen = list(epoch_steps(Uploads(), split, 0, NOW)), Uploads()  # type: ignore[arg-type]
    given: list[Any] = []

    def host_bytes(shape: tuple[int, ...]) -> Any:
        given.append(np.full(shape, 7, np.uint8))
        return given[-1]

    def watched(*args: Any, workers: int, **kwargs: Any) -> Any:
        assert workers == 5
        return batches(*args, workers=workers, **kwargs)

    chosen.host_bytes, batches = host_bytes, loop.batches
    monkeypatch.setattr(loop, "cores", lambda: 5)
    monkeypatch.setattr(loop, "batches", watched)
    steps = list(epoch_steps(chosen, split, 0, NOW))  # type: ignore[arg-type]
    assert len(steps) == len(plain) == len(given) == 4
    for step, other, memory in zip(steps, plain, given, strict=True):
        assert step.images is memory
        assert np.array_equal(step.images, other.images)


@pytest.mark.parametrize(("begin", "epoch"), [(0, 1), (12, 2), (17, 2)])
def test_a_step_has_the_batch_and_the_number_that_follow_from_seed_and_epoch(begin: int, epoch: int) -> None:
    session: Any = Uploads()
    steps = list(epoch_steps(session, TRAIN, begin, NOW))
    order = epoch_order(IMAGES, seed=RECIPE.seed, epoch=epoch)[:24].reshape(12, 2).tolist()
    wanted = [(step, order[step % 12]) for step in range(begin, 12 * epoch)]
    assert session.sent == wanted
    assert [(step.number - 1, step.labels.tolist()) for step in steps] == wanted
    assert [step.outcome.loss for step in steps] == [step for step, _ in wanted]


ERRORS = [0.5, 0.25, 0.25]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """What was saved: its step, and whether as the best."""
    saves: list[tuple[int, bool]] = []

    def save(folder: Path, step: int, weights: Any, momentum: Any, state: Any, *, keep: int, best: bool) -> None:
        assert keep == 4
        assert state == {**state, "step": step, "seconds": step / 2, "epoch": step // 12 + 1}
        saves.append((step, best))

    def evaluate(sessions: Any, split: Any, *, views: int, **_: Any) -> Evaluation:
        assert views == 10
        right = round(4 * (1 - ERRORS[sum(best is not None for _, best in saves if _ % 12 == 0)]))
        labels = np.arange(4)
        return Evaluation(np.eye(4)[np.where(labels < right, labels, (labels + 1) % 4)].astype(np.float32), labels)

    def steps(session: Any, split: Any, step: int, now: EpochRates, group: Any, ahead: Any, kept: Any) -> Any:
        for number in range(step + 1, step // 12 * 12 + 13):
            probs = np.eye(2)[[0, number % 2]]  # the second image is right in every other step
            outcome = StepOutcome(float(number), probs, ())
            yield StepResult(number, np.zeros((2, 3, 8, 8), np.uint8), np.array([0, 1]), outcome, 0.5, number)

    monkeypatch.setattr(checkpoint, "save", save)
    monkeypatch.setattr(loop, "evaluate", evaluate)
    monkeypatch.setattr(loop, "epoch_steps", steps)
    monkeypatch.setattr(Training, "look_for_dead_units", lambda self: None)
    monkeypatch.setattr(loop, "Meter", lambda *_: SimpleNamespace(read=dict, tick=lambda: None))
    return saves


def training(recipe: Any, records: list[dict[str, Any]], listener: Listener) -> Training:
    """A run that computes nothing, on the training images."""
    session: Any = SimpleNamespace(
        recipe=recipe, plan=SimpleNamespace(placement=("cpu:0",)), backend=SimpleNamespace(name="none"),
        weights=dict, momentum=dict, collect=lambda: None, host_bytes=None, keep=lambda *_: None,
    )  # fmt: skip
    run: Any = SimpleNamespace(
        paths=SimpleNamespace(checkpoints=Path("checkpoints"), folder=Path()), sync=lambda: None, log=lambda text: None,
        append=records.append,
    )  # fmt: skip
    return Training(session, DataSet("none", TRAIN, TRAIN, ()), run, listener, Progress())


def test_what_a_run_records_and_saves(saved: list[tuple[int, bool]]) -> None:
    records: list[dict[str, Any]] = []
    result = training(RECIPE, records, Listener()).until_done()
    assert (result.progress.step, result.progress.errors, result.progress.seconds) == (36, ERRORS, 18.0)
    # an error as good as the best is no better one
    assert saved == [(step, step in (12, 24)) for step in (5, 10, 12, 15, 20, 24, 25, 30, 35, 36)]
    train = [record for record in records if record["kind"] == "train"]
    # ten steps each, or those that are left before a checkpoint is due at the end of an epoch
    assert [record["step"] for record in train] == [5, 10, 12, 15, 20, 24, 25, 30, 35, 36]
    assert [record["loss"] for record in train] == [3, 8, 11.5, 14, 18, 22.5, 25, 28, 33, 36]
    assert [record["top1"] for record in train[:3]] == [0.8, 0.7, 0.75]
    assert {record["images_per_second"] for record in train} == {4.0}
    assert [record["epoch"] for record in train[:3]] == pytest.approx([5 / 12, 10 / 12, 1])
    validation = [record for record in records if record["kind"] == "validation"]
    assert [(v["epoch"], v["step"], v["top1_error"], v["seconds"]) for v in validation] == [
        (1, 12, 0.5, 6.0), (2, 24, 0.25, 12.0), (3, 36, 0.25, 18.0),
    ]  # fmt: skip


def test_an_epoch_without_validation_is_saved_where_checkpoints_are_due(saved: list[tuple[int, bool]]) -> None:
    records: list[dict[str, Any]] = []
    training(RECIPE.replace(validation_epochs=3, checkpoint_steps=6), records, Listener()).until_done()
    assert saved == [(6, False), (12, False), (18, False), (24, False), (30, False), (36, True)]
    assert [record["epoch"] for record in records if record["kind"] == "validation"] == [3]


def test_a_run_resumed_within_an_epoch_validates_at_its_end(saved: list[tuple[int, bool]]) -> None:
    """Even if the epoch before would have been validated by the recipe with which it continues."""
    records: list[dict[str, Any]] = []
    resumed = training(RECIPE.replace(checkpoint_steps=0), records, Listener())
    resumed.progress = Progress(step=17, seconds=8.5)
    resumed.until_done()
    validations = [(record["epoch"], record["step"]) for record in records if record["kind"] == "validation"]
    assert validations == [(2, 24), (3, 36)]
    assert [step for step, _ in saved] == [24, 36]


def test_a_stop_is_heard_while_the_backend_compiles(
    saved: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only after the step for which it does."""
    told: list[int] = []

    def steps(*_: Any) -> Any:
        for kernel in range(3):
            hearer()("compiling kernels", kernel, 3, "kernels")
            if kernel == 1:
                signal.raise_signal(signal.SIGINT)
        yield from ()

    monkeypatch.setattr(loop, "epoch_steps", steps)
    listener = Listener()
    monkeypatch.setattr(listener, "preparing", lambda what, done, *_: told.append(done))
    result = training(RECIPE, [], listener).until_done()
    assert (result.stopped, result.exit_code, result.progress.step) == ("Ctrl-C", 130, 0)
    assert told == [0, 1]
    assert saved == [(0, False)]


def test_a_record_is_of_ten_steps(saved: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Uploads, "recipe", RECIPE.replace(checkpoint_steps=0, epochs=1))
    records: list[dict[str, Any]] = []
    training(Uploads.recipe, records, Listener()).until_done()
    assert [record["step"] for record in records] == [10, 12, 12]
    assert [record["loss"] for record in records[:2]] == [5.5, 11.5]


def test_a_session_goes_on_with_the_weights_and_the_momentum_that_were_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, momentum = {"fc8.bias": np.ones(4)}, {"fc8.bias": np.full(4, 2.0)}
    saved = checkpoint.Checkpoint(Path("step-00000007"), 7, weights, momentum, {})
    opened: list[tuple[Any, ...]] = []

    def session(*given: Any, group: Any) -> Any:
        assert group.size == 1
        opened.append(given)
        return SimpleNamespace(recipe=RECIPE, backend=None, plan=SimpleNamespace(placement=()))

    monkeypatch.setattr(loop, "Session", session)
    monkeypatch.setattr(checkpoint, "latest", lambda *_: saved)
    monkeypatch.setattr(loop, "restored", lambda *_: Progress(step=7, validated=3))
    monkeypatch.setattr(loop, "data_of_run", lambda *_: SimpleNamespace(statistics="statistics"))
    monkeypatch.setattr(loop, "has_data", lambda _: True)
    monkeypatch.setattr(loop, "compare", lambda *_: [])
    monkeypatch.setattr(Training, "until_done", lambda self: self.progress.step)
    dropped: list[tuple[int, int]] = []
    run: Any = SimpleNamespace(
        paths=SimpleNamespace(checkpoints=Path(), folder=Path()),
        drop_metrics_after=lambda *after: dropped.append(after),
        has_records=lambda: True,
    )
    done: Any = loop.train(RECIPE, DataSet("none", TRAIN, TRAIN, ()), None, (), run, resume=True)  # type: ignore[arg-type]
    assert (done, dropped) == (7, [(7, 3)])
    ((recipe, _, _, statistics, found, moving),) = opened
    assert (recipe, statistics) == (RECIPE, "statistics")
    assert found is weights
    assert moving is momentum

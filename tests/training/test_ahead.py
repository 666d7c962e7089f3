"""The next batch is sent while a step computes, and is the one that the next step uses; the step, too, may begin."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex import data
from minialex.backend.program import STEP
from minialex.data.dataset import statistics_of
from minialex.engine.opening import prepare
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session
from minialex.errors import NumericalError
from minialex.ranks.group import Alone
from minialex.recipe.toml import load
from minialex.runs import checkpoint
from minialex.runs.run_folder import Run, read_metrics
from minialex.training.listening import Listener
from minialex.training.loop import epoch_steps, train
from minialex_numpy import NumpyBackend


def test_every_batch_is_made_once_and_before_its_step_is_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    events: list[tuple[str, int]] = []
    feed_of, step_of = Session.training_feed, Session.step

    def training_feed(self: Session, images: Any, labels: Any, step: int, *rest: Any) -> Any:
        events.append(("feed", step))
        return feed_of(self, images, labels, step, *rest)

    def step(self: Session, kind: Any, *rest: Any) -> Any:
        made = step_of(self, kind, *rest)

        def tell(feed: Any) -> Any:
            if kind == "train":
                events.append(("step", feed[STEP]))
            return made(feed)

        return tell

    monkeypatch.setattr(Session, "training_feed", training_feed)
    monkeypatch.setattr(Session, "step", step)
    monkeypatch.setattr("minialex.training.loop.dead_units", lambda *_: {})
    recipe = load("shapes").replace(train_images=96, validation_images=32, batch_size=32, epochs=2)
    images = data.load("shapes", size=recipe.image_size, train_images=96, validation_images=32)
    recipe = prepare(recipe, images)
    with Run.create(tmp_path / "run", recipe.to_toml()) as run:
        train(recipe, images, NumpyBackend(), ("cpu:0", "cpu:1"), run)
    epoch = [("feed", 0), ("step", 0), ("feed", 1), ("step", 1), ("feed", 2), ("step", 2)]
    probe = [event for event in events if event != ("feed", 3)]
    assert probe[:6] == epoch
    assert [event for event in events if event[0] == "step"] == [("step", number) for number in range(6)]
    assert np.unique([number for what, number in events if what == "feed"]).tolist() == list(range(6))


class Later(NumpyBackend):  # type: ignore[misc]
    """Promises results, and remembers in which order steps were asked for and results taken."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def to_numpy_later(self, arrays: Sequence[Any]) -> Callable[[], list[Any]]:
        self.events.append("begun")
        found = [np.array(self.to_numpy(array)) for array in arrays]

        def taken() -> list[Any]:
            self.events.append("taken")
            return found

        return taken


IMAGES = data.load("shapes", size=32, train_images=96, validation_images=32)
RECIPE = prepare(
    load("shapes").replace(
        image_size=32, crop=28, kernels=(4, 4, 4, 4, 4), features=(8, 8), train_images=96, validation_images=32,
        batch_size=16, epochs=2, checkpoint_steps=4, keep_checkpoints=9,
    ),
    IMAGES,
)  # fmt: skip


class StopAt(Listener):
    """Asks for a stop when it hears of a step; that is noticed with the next one's result."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, step: int, *_: Any) -> None:
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)


def trained(folder: Path, backend: Any, stop: int = 0, *, resume: bool = False) -> list[int]:
    """Train, or go on; return the steps of which there are checkpoints."""
    opened = Run.resume(folder) if resume else Run.create(folder, RECIPE.to_toml())
    with opened as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr("minialex.training.loop.dead_units", lambda *_: {})
        train(RECIPE, IMAGES, backend, ("cpu:0", "cpu:1"), run, StopAt(stop), resume=resume)
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a backend that promises nothing."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert trained(folder, NumpyBackend()) == [0, 4, 6, 8, 12]
    return folder


def same(folder: Path, other: Path, step: int) -> bool:
    """Whether two runs have the same numbers in a step's checkpoint."""
    first, second = (checkpoint.load(run / "checkpoints" / f"step-{step:08d}") for run in (folder, other))
    return all(
        np.array_equal(array, theirs[name])
        for ours, theirs in ((first.weights, second.weights), (first.momentum, second.momentum))
        for name, array in ours.items()
    )


def numbers(folder: Path) -> list[Any]:
    """A run's records without what depends on the clock."""
    kept = ("kind", "step", "epoch", "loss", "top1", "top1_error")
    return [{key: record.get(key) for key in kept} for record in read_metrics(folder / "metrics.jsonl")]


def test_a_step_begins_before_the_one_before_is_known_except_after_a_checkpoint(plain: Path, tmp_path: Path) -> None:
    """Six steps an epoch, a checkpoint after the fourth step: of 1 to 4 one begins while the result before is out."""
    backend = Later()
    assert trained(tmp_path / "run", backend) == [0, 4, 6, 8, 12]
    first = ["begun", "begun", "taken", "begun", "taken", "begun", "taken", "taken"]  # steps 1 to 4
    assert backend.events[: 2 * 6] == [*first, "begun", "begun", "taken", "taken"]  # 5 and 6
    assert all(same(tmp_path / "run", plain, step) for step in (4, 6, 8, 12))
    assert numbers(tmp_path / "run") == numbers(plain)


@pytest.mark.parametrize(("asked", "ends"), [(1, 3), (2, 4), (3, 4), (4, 6), (6, 6), (9, 11)])
def test_a_stop_takes_the_result_of_the_step_that_has_begun(plain: Path, tmp_path: Path, asked: int, ends: int) -> None:
    """What is saved are the weights of the step that the run says it stopped at, and it goes on to the same bits."""
    folder = tmp_path / "run"
    assert trained(folder, Later(), asked)[-1] == ends
    assert trained(folder, Later(), resume=True)[-1] == 12
    assert same(folder, plain, 12)
    assert [record for record in numbers(folder) if record["kind"] == "validation"] == [
        record for record in numbers(plain) if record["kind"] == "validation"
    ]


def session(backend: Any) -> Session:
    return Session(RECIPE, backend, ("cpu:0", "cpu:1"), statistics_of(IMAGES.train))


def begun(backend: Any, ahead: Any, group: Any = None) -> list[tuple[int, int]]:
    """Every result's step, and the last one that had begun then."""
    now, more = epoch_rates(RECIPE, 1, ()), () if group is None else (group,)
    found = epoch_steps(session(backend), IMAGES.train, 0, now, *more, ahead=ahead)
    return [(result.number, result.begun) for result in found]


def test_only_where_the_backend_can_and_it_is_allowed() -> None:
    never = [(step, step) for step in range(1, 7)]
    assert begun(NumpyBackend(), lambda step: True) == never
    assert begun(Later(), lambda step: False) == never
    assert begun(Later(), lambda step: step != 2) == [(1, 2), (2, 2), (3, 4), (4, 5), (5, 6), (6, 6)]


class OneCannot(Alone):
    """A group in which another rank's backend promises nothing."""

    def exchange(self, item: Any) -> list[Any]:
        return [item, False]


def test_ranks_go_ahead_together_or_not_at_all() -> None:
    """Else one would ask for the sums of a step, and another for what is exchanged after the one before."""
    assert begun(Later(), lambda step: True, OneCannot()) == [(step, step) for step in range(1, 7)]


def test_values_that_are_not_finite_end_a_run_that_is_a_step_ahead(tmp_path: Path) -> None:
    """The step that it names is the one whose loss was not finite."""

    class Overflowing(Later):
        def to_numpy_later(self, arrays: Sequence[Any]) -> Callable[[], list[Any]]:
            taken, number = super().to_numpy_later(arrays), self.events.count("begun")
            return lambda: [x * np.float32(np.nan if number == 3 and x.dtype == np.float32 else 1) for x in taken()]

    with pytest.raises(NumericalError, match="step 3: values are not finite"):
        trained(tmp_path / "run", Overflowing())
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").state["step"] == 0  # type: ignore[union-attr]

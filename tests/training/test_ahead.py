"""The next batch is sent while a step computes, and is the one that the next step uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex import data
from minialex.backend.program import STEP
from minialex.engine.opening import prepare
from minialex.engine.session import Session
from minialex.recipe.toml import load
from minialex.runs.run_folder import Run
from minialex.training.loop import train
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

"""One side of the comparison, in a process of its own, that does one repetition at a time when it is asked.

    python benchmarks/side.py minialex:numba 2      # the side, and its number of threads

The other sides are ``minialex:numpy``, ``pytorch``, ``pytorch:compiled``, ``onnxruntime``, ``openvino`` and ``jax``.

Reads one JSON object a line on standard input and answers with one on standard output. `benchmarks/cpu.py` starts
several of these and asks them in turn, so that all sides see the same machine.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from contextlib import closing
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minialex.backend import registry
from minialex.data import DataSet, batches, epoch_order, load
from minialex.data.dataset import statistics_of
from minialex.data.statistics import Statistics
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session
from minialex.network import variants
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load as load_recipe
from minialex.speed import bench
from minialex.speed.roofline import Key, Peaks

CHECKED = {"std": 0.03, "std_middle": 0.03, "std_full": 0.005, "bias": 0.1, "dropout_mode": "inverted"}
"""Of the network that engines are compared and timed with: every layer's weights count, and no class is certain."""


class Side(Protocol):
    """What all sides do; other engines than PyTorch are not watched and do no epoch."""

    def run(self, recipe: Recipe, kind: str, batch: int) -> float:
        """Seconds of one step."""
        ...

    def probabilities(self, recipe: Recipe, batch: int) -> NDArray[np.floating[Any]]:
        """Probabilities [N,K] of the random images, with the initial weights of a session of ours; before any step."""
        ...

    def watch(self, recipe: Recipe, kind: str, batch: int) -> dict[Key, float]:
        """Seconds of each part of one step."""
        ...

    def epoch(self, recipe: Recipe, data: DataSet, number: int, steps: int) -> float:
        """Seconds of (at most so many steps of) one epoch, with shuffling, reading and augmentation."""
        ...


class Ours:
    """minialex with one of its backends, columns on one device."""

    def __init__(self, backend: str, threads: int) -> None:
        self.threads = threads
        self.backend = registry.load(backend, threads=None if backend == "numpy" else threads)
        self.subjects: dict[tuple[str, str, int], bench.Subject] = {}
        self.sessions: dict[str, Session] = {}
        self.trained: Session | None = None

    def subject(self, recipe: Recipe, kind: str, batch: int) -> bench.Subject:
        """Made once; all of a recipe share a session."""
        key = recipe.model, kind, batch
        if key not in self.subjects:
            self.subjects[key] = bench.Subject(self.session(recipe), "train" if kind == "train" else "infer", batch)
        return self.subjects[key]

    def session(self, recipe: Recipe) -> Session:
        """Made once."""
        if recipe.model not in self.sessions:
            placement = (self.backend.devices[0],) * recipe.columns
            self.sessions[recipe.model] = bench.random_session(recipe, self.backend, placement)
        return self.sessions[recipe.model]

    def run(self, recipe: Recipe, kind: str, batch: int) -> float:
        return self.subject(recipe, kind, batch).run()

    def probabilities(self, recipe: Recipe, batch: int) -> NDArray[np.floating[Any]]:
        return self.session(recipe).probabilities(bench.random_batch(recipe, batch)[0])[0]

    def watch(self, recipe: Recipe, kind: str, batch: int) -> dict[Key, float]:
        return self.subject(recipe, kind, batch).run_watched()

    def epoch(self, recipe: Recipe, data: DataSet, number: int, steps: int) -> float:
        if self.trained is None:
            placement = (self.backend.devices[0],) * recipe.columns
            self.trained = Session(recipe, self.backend, placement, statistics_of(data.train))
        session, now, size = self.trained, epoch_rates(recipe, number, ()), recipe.batch_size
        began = time.perf_counter()
        order = epoch_order(len(data.train), seed=recipe.seed, epoch=number)[: steps * size]
        with closing(batches(data.train, order, size)) as source:
            for step, (_, images, labels) in enumerate(source):
                session.train(images, labels, step, now)
        return time.perf_counter() - began


class Theirs:
    """PyTorch, as it is or with its model compiled."""

    def __init__(self, threads: int, compiled: bool) -> None:
        import peer
        import torch

        torch.set_num_threads(threads)
        self.torch, self.peer, self.compiled = torch, peer, compiled
        self.sessions: dict[str, Any] = {}
        self.batches: dict[tuple[str, int], Any] = {}
        self.trained: Any = None

    def session(self, recipe: Recipe, batch: int) -> tuple[Any, Any, Any]:
        """A session and a batch of the same random images as the other side's, as tensors."""
        if recipe.model not in self.sessions:
            mean = np.full((3, recipe.image_size, recipe.image_size), 127.5, np.float32)
            found = Statistics(mean, np.eye(3) * 5000.0)
            small = recipe.replace(learning_rate=bench.TINY_RATE)
            session = self.peer.PeerSession(small, variants.build(recipe), found)
            if self.compiled:
                session.model.compile(dynamic=False)
            self.sessions[recipe.model] = session
        key = recipe.model, batch
        if key not in self.batches:
            self.batches[key] = [self.torch.from_numpy(a) for a in bench.random_batch(recipe, batch)]
        return self.sessions[recipe.model], *self.batches[key]

    def run(self, recipe: Recipe, kind: str, batch: int) -> float:
        session, images, labels = self.session(recipe, batch)
        began = time.perf_counter()
        if kind == "train":
            session.train(images, labels)
        else:
            session.probabilities(images)
        return time.perf_counter() - began

    def probabilities(self, recipe: Recipe, batch: int) -> NDArray[np.floating[Any]]:
        session, images, _ = self.session(recipe, batch)
        session.model.load(initial(recipe).weights())
        return session.probabilities(images)  # type: ignore[no-any-return]

    def watch(self, recipe: Recipe, kind: str, batch: int) -> dict[Key, float]:
        session, images, labels = self.session(recipe, batch)
        if kind == "train":
            return session.watched(lambda watch: session.train(images, labels, watch))
        return session.watched(lambda watch: session.probabilities(images, watch))

    def epoch(self, recipe: Recipe, data: DataSet, number: int, steps: int) -> float:
        torch = self.torch
        if self.trained is None:
            session = self.peer.PeerSession(recipe, variants.build(recipe), statistics_of(data.train))
            everything = np.arange(len(data.train))
            images = torch.from_numpy(data.train.read(everything))
            self.trained = session, images, torch.from_numpy(np.asarray(data.train.labels))
        session, images, labels = self.trained
        began = time.perf_counter()
        order = torch.randperm(len(images))[: min(steps, len(images) // recipe.batch_size) * recipe.batch_size]
        for chosen in order.split(recipe.batch_size):
            session.train(images[chosen], labels[chosen])
        return time.perf_counter() - began


class Engine:
    """ONNX Runtime or OpenVINO on our export, or JAX."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.sessions: dict[str, Any] = {}

    def session(self, recipe: Recipe) -> Any:
        """Made once, with the weights of one of ours."""
        if recipe.model not in self.sessions:
            self.sessions[recipe.model] = self._session(recipe.replace(learning_rate=bench.TINY_RATE))
        return self.sessions[recipe.model]

    def _session(self, recipe: Recipe) -> Any:
        ours = initial(recipe)
        if self.name == "jax":
            import jax_peer

            session = jax_peer.JaxSession(recipe, variants.build(recipe), ours.statistics)
            session.load(ours.weights())
            return session
        import engines

        return engines.EngineSession(self.name, ours, self.threads)

    def run(self, recipe: Recipe, kind: str, batch: int) -> float:
        session, (images, labels) = self.session(recipe), bench.random_batch(recipe, batch)
        began = time.perf_counter()
        if kind == "train":
            session.train(images, labels)
        else:
            session.probabilities(images)
        return time.perf_counter() - began

    def probabilities(self, recipe: Recipe, batch: int) -> NDArray[np.floating[Any]]:
        return self.session(recipe).probabilities(bench.random_batch(recipe, batch)[0])  # type: ignore[no-any-return]

    def watch(self, recipe: Recipe, kind: str, batch: int) -> dict[Key, float]:
        raise NotImplementedError

    def epoch(self, recipe: Recipe, data: DataSet, number: int, steps: int) -> float:
        raise NotImplementedError


def initial(recipe: Recipe) -> Session:
    """A session of ours that has made no step."""
    return bench.random_session(recipe, registry.load("numpy"), ("cpu:0",) * recipe.columns)


def answer(side: Side, asked: dict[str, Any], known: dict[str, Any]) -> Any:
    """Do what is asked."""
    do = asked["do"]
    if do == "memory":
        return {"now": bench.memory_now(reset=asked.get("reset", False)), "peak": bench.memory_peak()}
    if do == "peaks":
        assert isinstance(side, Ours)
        found = bench.peaks.measure(side.backend, side.backend.devices[0], side.threads, "float32")
        return [found.multiply_adds, found.bytes]
    recipe = load_recipe(asked["recipe"])
    if do == "epoch":
        if "data" not in known:
            known["data"] = load(asked["data"], train_images=asked.get("images"))
        data = known["data"]
        recipe = recipe.replace(classes=len(data.class_names), batch_size=asked.get("batch") or recipe.batch_size)
        return side.epoch(recipe, data, asked["number"], asked["steps"])
    if recipe.classes == 0:
        recipe = recipe.replace(classes=10)
    if asked.get("checked"):
        recipe = recipe.replace(**CHECKED)
    if do == "check":
        return side.probabilities(recipe, asked["batch"]).tolist()
    work = recipe, asked["kind"], asked["batch"]
    runs = range(asked.get("runs", 1))
    if do == "run":
        return statistics.median(side.run(*work) for _ in runs)
    if do == "watch":
        watched = [side.watch(*work) for _ in runs]
        known.setdefault("watched", {}).setdefault(work[1:], []).extend(watched)
        return statistics.median(sum(seconds.values()) for seconds in watched)
    if do == "parts":
        middle = bench.medians(known["watched"][work[1:]])
        if isinstance(side, Ours):
            made = bench.parts(middle, side.subject(*work).works, Peaks(*asked["peaks"]))
            return [[p.layer, p.phase, p.seconds, p.floor, p.includes] for p in made]
        return [[*key, seconds] for key, seconds in middle.items()]
    raise ValueError(do)


def side_of(name: str, threads: int) -> Side:
    """A side by its program's name."""
    kind, _, which = name.partition(":")
    if kind == "minialex":
        return Ours(which, threads)
    return Theirs(threads, compiled=bool(which)) if kind == "pytorch" else Engine(kind, threads)


def main(name: str, threads: int, first: int = 0) -> None:
    """Answer until the input ends."""
    if hasattr(os, "sched_setaffinity"):  # as many cores as threads: JAX takes all that it may run on
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first:][:threads])
    side = side_of(name, threads)
    known: dict[str, Any] = {}
    replies = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints is no reply
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(side, json.loads(line), known)), file=replies, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

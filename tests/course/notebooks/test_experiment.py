"""The notebooks' small experiments: the same computation as `minialex train`, and honest words."""

import gzip

import numpy as np
import pytest

from minialex.backend import registry
from minialex.course.notebooks import experiment
from minialex.data import load
from minialex.engine.opening import prepare
from minialex.engine.session import placement_of
from minialex.errors import DataError
from minialex.recipe import toml as recipe
from minialex.runs import checkpoint
from minialex.runs.run_folder import Run
from minialex.training.loop import train as train_run

SMALL = recipe.load("shapes").replace(train_images=96, validation_images=40, epochs=2, kernels=(4, 8, 8, 8, 8))


def test_training_in_memory_gives_the_weights_of_a_run(tmp_path):
    data = load("shapes", train_images=96, validation_images=40)
    backend = registry.load("numpy")
    found = experiment.train(SMALL, data, backend=backend)
    prepared = prepare(SMALL, data)
    with Run.create(tmp_path / "run", prepared.to_toml()) as run:
        result = train_run(prepared, data, backend, placement_of(backend, None, 2), run)
        last = checkpoint.latest(run.paths.checkpoints, lambda message: None)
    assert result.progress.errors == found.validation_errors
    assert found.steps == 6
    for name, array in found.session.weights().items():
        np.testing.assert_array_equal(array, last.weights[name])


def test_training_stops_where_it_is_told_to_and_where_values_are_not_finite():
    data = load("shapes", train_images=96, validation_images=40)
    backend = registry.load("numpy")
    assert experiment.train(SMALL, data, backend=backend, validate=False, steps=2).steps == 2
    with np.errstate(all="ignore"):
        wild = experiment.train(SMALL.replace(learning_rate=1e30), data, backend=backend, validate=False)
    assert 0 < wild.stopped_at == wild.steps < 6


def test_without_photographs_there_are_shapes_but_damaged_ones_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIALEX_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = experiment.images(20, 10)
    assert data.name == "shapes"
    assert "20 training and 10 validation images" in experiment.about(data)
    assert "minialex download cifar10" in experiment.about(data)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(gzip.compress(b"nothing")[:-3])
    with pytest.raises(DataError, match="damaged"):
        experiment.images(20, 10)


def test_smoothed_is_the_mean_of_the_last_few():
    np.testing.assert_allclose(experiment.smoothed([4, 2, 0, 2], 2), [4, 3, 1, 1])


def test_few_pairs_claim_nothing_whatever_they_are():
    for gaps in ([-3.0, -2.0, -4.0], [1.0, 2.0, 3.0]):
        words = experiment.few_pairs(gaps, "dropout")
        assert "claim nothing" in words
        assert f"In {sum(gap < 0 for gap in gaps)} of 3 pairs" in words

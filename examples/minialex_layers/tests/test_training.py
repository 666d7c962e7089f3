"""The network of the package, trained on generated shapes: on both backends, in one and two columns, and resumed."""

import numpy as np
import pytest
from minialex_layers import network

import minialex
from minialex.cli.app import run
from minialex.runs import checkpoint
from minialex.runs import weights_file as weights

TINY = [
    "--data",
    "shapes",
    "--train-images",
    "96",
    "--validation-images",
    "32",
    "--batch-size",
    "32",
    "--dtype",
    "float64",
]


def train(folder, *options):
    assert run(["train", "--network", "leaky", *TINY, *options, "--out", str(folder)]) == 0
    return arrays(folder)


def arrays(folder):
    found = checkpoint.latest(folder / "checkpoints")
    return {**found.weights, **{f"momentum of {name}": array for name, array in found.momentum.items()}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of two epochs by backend and columns: their folders and what is in them."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {}
    for backend in ("numpy", "numba"):
        for columns in (1, 2):
            path = folder / f"{backend}-{columns}"
            options = ["--backend", backend, "--columns", str(columns), "--epochs", "2"]
            runs[backend, columns] = path, train(path, *options)
    return runs


@pytest.mark.parametrize("columns", [1, 2])
def test_the_backends_agree_and_statistics_have_moved(trained, columns):
    (_, ours), (_, theirs) = trained["numpy", columns], trained["numba", columns]
    assert ours["norm1.running_mean"].shape == (16,)
    assert np.abs(ours["norm1.running_mean"]).min() > 0
    assert np.abs(ours["norm1.running_var"] - 1).min() > 0
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-6, atol=1e-9, err_msg=name)


def test_stopping_and_going_on_gives_the_same_bits(trained, tmp_path):
    train(tmp_path / "half", "--backend", "numba", "--columns", "2", "--epochs", "1")
    assert run(["train", "--resume", str(tmp_path / "half"), "--epochs", "2"]) == 0
    for name, array in trained["numba", 2][1].items():
        np.testing.assert_array_equal(arrays(tmp_path / "half")[name], array, err_msg=name)


def test_where_columns_live_changes_no_number(trained, tmp_path):
    placed = train(tmp_path / "two", "--backend", "numba", "--columns", "2", "--epochs", "2", "--devices", "0,1")
    for name, array in trained["numba", 2][1].items():
        np.testing.assert_array_equal(placed[name], array, err_msg=name)


def test_from_python_the_network_itself_is_given_and_found_again(tmp_path):
    options = {"data": "shapes", "train_images": 64, "validation_images": 32, "batch_size": 32, "epochs": 1}
    run_ = minialex.train(network=network, backend="numpy", out=tmp_path / "run", progress=False, **options)
    assert run_.recipe.model == "minialex_layers.network:network"
    image = np.zeros((28, 28, 3), np.uint8)
    assert len(minialex.load(tmp_path / "run", backend="numpy").predict(image)) == 5


def test_commands_find_the_network_again(trained, tmp_path, capsys):
    folder, _ = trained["numba", 2]
    assert run(["evaluate", str(folder)]) == 0
    file = tmp_path / "weights.safetensors"
    assert run(["export", str(folder), str(file)]) == 0
    ours, exported = weights.find(folder).tensors, weights.find(file).tensors
    np.testing.assert_array_equal(exported["norm1.running_var"], ours["norm1.running_var"])
    assert run(["export", str(folder), str(tmp_path / "net.onnx")]) == 2
    assert "layer 'norm1' is a BatchNorm2d, which cannot be written as ONNX" in capsys.readouterr().err

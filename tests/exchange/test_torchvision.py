"""torchvision's alexnet, at full size: files as torch.save writes them, and the same probabilities as PyTorch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.cli import import_ as commands
from minialex.errors import CheckpointError, ConfigurationError
from minialex.exchange import pytorch_file, torchvision
from minialex.runs import weights_file as weights
from minialex.storage import safetensors

from .conftest import centre, images, log_softmax, ours


def alexnet(torch: Any, classes: int) -> Any:
    """torchvision.models.alexnet, whose layers have exactly these names."""
    nn = torch.nn

    class AlexNet(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
                nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
                nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(),
                nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(),
                nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
            )  # fmt: skip
            self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
            self.classifier = nn.Sequential(
                nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
                nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes),
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    torch.manual_seed(3)
    with torch.no_grad():
        net = AlexNet().eval()
        net.classifier[6].weight *= 20  # probabilities that are far from even
    return net


@pytest.mark.peers
@pytest.mark.slow
def test_the_same_probabilities(tmp_path: Path, torch: Any) -> None:
    net = alexnet(torch, 1000)
    source, names = tmp_path / "alexnet-owt-7be5be79.pth", tmp_path / "names.txt"
    torch.save(net.state_dict(), source)
    names.write_text("".join(f"n{i:08d} thing {i}\n" for i in range(1000)), encoding="utf-8")
    commands.import_weights(source, tmp_path / "w.safetensors", None, names, None, False)
    found = weights.find(tmp_path / "w.safetensors")
    assert found.recipe.classes == 1000
    assert (found.labels[1], found.titles[1]) == ("n00000001", "thing 1")
    assert sum(array.size for array in found.tensors.values()) == 61_100_840
    pixels = images(found.recipe, 2)
    expected = ours(found, pixels)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (torchvision.MEAN, torchvision.STD))
    with torch.no_grad():
        crops = torch.tensor(centre(found.recipe, pixels)).double()
        logits = net.double()((crops / 255 - mean) / std)
    assert np.abs(log_softmax(logits.numpy()) - expected.value).max() <= expected.bound32
    assert expected.bound32 < 1e-3
    assert np.abs(log_softmax(logits.numpy()) + np.log(1000)).max() > 0.1


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_the_names_tell_what_it_is_in_any_file(ending: str, tmp_path: Path) -> None:
    source = tmp_path / f"alexnet.{ending}"
    state = {"features.0.weight": np.zeros((64, 3, 11, 11), np.float32), "features.1.weight": np.zeros(4, np.float32)}
    (safetensors.write if ending == "safetensors" else pytorch_file.write)(source, state)
    with pytest.raises(CheckpointError, match=r"'features.1.weight' is not one of torchvision's alexnet"):
        commands.import_weights(source, tmp_path / "w.safetensors", None, None, None, False)


def small_state(**changes: Any) -> dict[str, Any]:
    """Names and shapes of torchvision's, all zeros: for errors."""
    shapes = {
        "features.0": (64, 3, 11, 11), "features.3": (192, 64, 5, 5), "features.6": (384, 192, 3, 3),
        "features.8": (256, 384, 3, 3), "features.10": (256, 256, 3, 3),
        "classifier.1": (4096, 9216), "classifier.4": (4096, 4096), "classifier.6": (5, 4096),
    }  # fmt: skip
    state = {f"{name}.weight": np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": np.zeros(shape[0], np.float32) for name, shape in shapes.items()}
    return {name: array for name, array in {**state, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.3.bias": None}, "tensor 'conv2.bias' is missing"),
        ({"classifier.6.weight": None}, "classifier.6.weight"),
        ({"classifier.6.weight": np.float32(1)}, "classifier.6.weight"),
        ({"features.12.weight": np.zeros(3, np.float32)}, "'features.12.weight' is not one of torchvision's"),
        ({"features.0.weight": np.zeros((96, 3, 11, 11), np.float32)}, "'conv1.weight' has shape (96, 3, 11, 11)"),
        ({"features.0.bias": np.zeros(64, np.int64)}, "'features.0.bias' is not one of"),
        ({"features.0.bias": np.full(64, np.nan, np.float32)}, "64 of 64 values that are not finite"),
    ],
)  # fmt: skip
def test_other_networks(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        torchvision.weights(small_state(**changes), "file.pth")
    assert message in str(caught.value)
    assert "file.pth" in str(caught.value)


def test_class_names_must_be_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "x.pth"
    source.write_bytes(b"PK\x03\x04")
    monkeypatch.setattr("minialex.exchange.pytorch_file.read", lambda path, say: small_state())
    (tmp_path / "names.txt").write_text("cat\ndog\n\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"names.txt names 2 classes, .*x.pth has 5"):
        commands.import_weights(source, tmp_path / "w.safetensors", None, tmp_path / "names.txt", None, False)
    assert not (tmp_path / "w.safetensors").exists()

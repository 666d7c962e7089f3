"""The commands of docs/weights.md on the files of torchvision and Caffe, which cannot be had here.

They are made at full size in their formats, with weights of zero. All other programs of the page are run by tests/site.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from minialex.cli.app import run
from minialex.exchange import caffe, pytorch_file, torchvision

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
BLOCK = re.compile(r"^<!-- not run: [^>]*the tests make [^>]* -->\n```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def prepare() -> None:
    """The files that the page begins with."""
    from PIL import Image

    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (300, 400, 3), np.uint8)).save("photo.png")
    Path("names.txt").write_text("".join(f"name {i}\n" for i in range(1000)), encoding="utf-8")

    shapes = {
        "conv1": (64, 3, 11, 11), "conv2": (192, 64, 5, 5), "conv3": (384, 192, 3, 3), "conv4": (256, 384, 3, 3),
        "conv5": (256, 256, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096),
    }  # fmt: skip
    state = {}
    for theirs, ours in torchvision.LAYERS.items():
        state |= {f"{theirs}.weight": zeros(*shapes[ours]), f"{theirs}.bias": zeros(shapes[ours][0])}
    pytorch_file.write(Path("alexnet-owt-7be5be79.pth"), state)

    shapes |= {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3),
               "conv4": (384, 192, 3, 3), "conv5": (256, 192, 3, 3)}  # fmt: skip
    net = caffe.messages()["NetParameter"](name="AlexNet")
    for name in ("conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        layer = net.layers.add(name=name)
        for shape in (shapes[name], shapes[name][:1]) if name in shapes else ():
            blob = layer.blobs.add(data=[zeros(*shape).tobytes()])
            blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - len(shape)) + shape
    Path("bvlc_alexnet.caffemodel").write_bytes(net.SerializeToString())
    mean = caffe.messages()["BlobProto"](num=1, channels=3, height=256, width=256, data=[zeros(3, 256, 256).tobytes()])
    Path("imagenet_mean.binaryproto").write_bytes(mean.SerializeToString())


@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    prepare()
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")  # a command may go on in the next line
    commands = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    assert [line.split()[1] for line in commands] == ["import", "predict"] * 2
    for line in commands:
        words = shlex.split(line)[1:]
        capsys.readouterr()
        code = run([*words, "--backend", "numpy"] if words[0] == "predict" else words)
        assert code == 0, f"{line}: {capsys.readouterr().err}"

"""Every command and every piece of code on the page docs/weights.md is run, in its order.

Training is shortened and made small; all else runs as it is written. The files of torchvision and Caffe that
cannot be had here are made at full size in their formats, with weights of zero.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from minialex.cli import run
from minialex.exchange import caffe, pytorch_file, torchvision

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
SHORT = [
    "--epochs",
    "1",
    "--train-images",
    "96",
    "--validation-images",
    "24",
    "--batch-size",
    "16",
    "--backend",
    "numpy",
]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPECTED = (
    "runs/first/report.html", "runs/second/report.html", "reliability.png", "first.safetensors",
    "first.safetensors.md", "first.onnx", "first.onnx.md", "first.pt", "first.py", "first.pt.md",
    "torchvision.safetensors", "back.safetensors", "caffe.safetensors", "runs/tuned/init.json",
    "runs/frozen/init.json", "runs/two-layers/init.json",
)  # fmt: skip


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def prepare() -> None:
    """The files that the page begins with."""
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("cat", "dog", "tree"):
        Path("photos", name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(Path("photos", name, f"{number}.png"))
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


def command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)
    target = None
    if ">" in words:
        words, target = words[: words.index(">")], words[words.index(">") + 1]
    assert words[0] == "minialex", line
    arguments = words[1:]
    if arguments[0] == "train":
        short = [] if "--resume" in arguments else SHORT
        arguments += short[2:] if "--epochs" in arguments else short
        arguments += [] if short else ["--backend", "numpy"]
    elif arguments[0] in ("evaluate", "predict"):
        arguments += ["--backend", "numpy"]
    capsys.readouterr()
    code = run(arguments)
    told = capsys.readouterr()
    assert code == 0, f"{line}: {told.err}"
    if target:
        Path(target).write_text(told.out, encoding="utf-8")


@pytest.mark.peers
@pytest.mark.slow
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    prepare()
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} == {"bash", "python"}
    ran = 0
    for language, text in blocks:
        if language == "bash":
            for line in text.strip().splitlines():
                command(line, capsys)
                ran += 1
            continue
        try:
            exec(compile(text, str(PAGE), "exec"), {})
        except ImportError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{error.name} is not installed")
    assert ran > 15
    for name in EXPECTED:
        assert Path(name).is_file(), name

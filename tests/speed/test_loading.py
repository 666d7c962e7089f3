"""The loader's rate is measured over what it says."""

import json

import numpy as np
import pytest
from PIL import Image

from minialex.cli import bench as command
from minialex.cli.app import run
from minialex.data.store import prepare
from minialex.errors import ConfigurationError
from minialex.speed.loading import bench_data


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for label in range(2):
        (root / "p" / f"c{label}").mkdir(parents=True)
        for i in range(20):
            Image.fromarray(np.full((300, 300, 3), i, np.uint8)).save(root / "p" / f"c{label}" / f"{i:02d}.png")
    prepare.prepare(root / "p", root / "s", workers=1)
    return root


@pytest.mark.parametrize(("place", "kind"), [("s", "store"), ("p", "images")])
def test_what_is_counted(photos, place, kind):
    told = []
    found = bench_data(str(photos / place), 16, 60.0, threads=2, most=80, progress=told.append)
    assert (found["kind"], found["images"], found["images_in_set"]) == (kind, 80, 37)
    assert found["first_readings"] == (37 if kind == "store" else 0)
    assert told == [16, 32, 48, 64, 80]
    assert found["images_per_second"] == pytest.approx(80 / found["seconds"])
    assert found["megabytes_per_second"] == pytest.approx(found["images_per_second"] * 3 * 256**2 / 1e6)
    assert 0 < found["slowest_batch_seconds"] <= found["seconds"]
    json.dumps(found)


def test_the_time_is_kept(photos):
    found = bench_data(str(photos / "s"), 4, 0.3)
    assert 0.3 <= found["seconds"] < 10
    assert found["images"] % 4 == 0


def test_the_command(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "BENCH_SECONDS", 0.2)
    words = ["bench", "--data", str(photos / "s"), "--batch-size", "8", "--loader-threads", "3"]
    assert run([*words, "--json", str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert "37 training images of 256 x 256" in out
    assert "batches of 8, 3 threads, 37 of them checked against their checksums" in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["images_per_second"] > 0
    assert run([*words, "--json", str(tmp_path / "none" / "a.json")]) == 2
    assert run(["bench", "--data", str(tmp_path / "none")]) == 3


@pytest.mark.parametrize(("changed", "message"), [({"batch_size": 38}, "fewer than a batch"), ({"seconds": 0}, "seconds = 0")])  # noqa: E501  # fmt: skip
def test_what_cannot_be_measured(photos, changed, message):
    with pytest.raises(ConfigurationError, match=message):
        bench_data(str(photos / "s"), **changed)

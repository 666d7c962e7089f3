"""The live parts give the library's numbers: here by themselves, and in Pyodide (see ``fetch.py``)."""

import json
import subprocess
from pathlib import Path

import numpy as np

from minialex.site import live, widgets

RAMP = [float(v) for v in range(64)]
EDGE = [-1.0, 0, 1, -2, 0, 2, -1, 0, 1]
REQUESTS = [
    {
        "name": "convolution",
        "args": {"image": RAMP, "height": 8, "width": 8, "kernel": EDGE, "stride": 2, "padding": 1},
    },
    {"name": "relu", "args": {"image": RAMP, "height": 8, "width": 8, "kernel": EDGE, "bias": -9.0}},
    {
        "name": "normalisation",
        "args": {"values": [30.0, 30, 100, 30], "size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75},
    },
    {"name": "pooling", "args": {"image": RAMP, "height": 8, "width": 8, "size": 3, "stride": 2}},
    {
        "name": "colour",
        "args": {"image": [float(v % 251) for v in range(192)], "height": 8, "width": 8, "draws": [1, 0, -1]},
    },
]


def test_convolution_by_hand() -> None:
    identity = [0.0, 0, 0, 0, 1, 0, 0, 0, 0]
    found = live.convolution(RAMP, 8, 8, identity, 2, 1)
    np.testing.assert_array_equal(found["data"].reshape(4, 4), np.arange(64.0).reshape(8, 8)[::2, ::2])


def test_pooling_by_hand() -> None:
    np.testing.assert_array_equal(live.pooling(RAMP, 8, 8, 3, 2)["data"], [18, 20, 22, 34, 36, 38, 50, 52, 54])


def test_what_cannot_be_is_one_line() -> None:
    found = live.call("pooling", {"image": RAMP[:5], "height": 8, "width": 8, "size": 3, "stride": 2})
    assert found == {"error": "expected 1 x 8 x 8 numbers, got 5"}


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not weights at all, whatever it is called")
    assert live.call("wanted", {"weights": str(tmp_path / "x")}) == {"error": "this is not a .safetensors file"}


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    whole = (Path(__file__).parents[3] / "docs" / "assets" / "live" / "classify.safetensors").read_bytes()
    (tmp_path / "x").write_bytes(whole[:-1000])
    said = live.call("wanted", {"weights": str(tmp_path / "x")})["error"]
    assert said.startswith("the file is cut short: ")
    assert f" of {len(whole) - 1000:,}" in said


def test_pyodide_gives_the_same_numbers(tmp_path: Path, pyodide: Path) -> None:
    (tmp_path / widgets.WHEEL).write_bytes(widgets.wheel())
    (tmp_path / "requests.json").write_text(json.dumps(REQUESTS))
    script = Path(__file__).with_name("reference.mjs")
    command = ["node", str(script), str(pyodide), str(tmp_path / widgets.WHEEL), str(tmp_path / "requests.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    results = json.loads(done.stdout.strip().splitlines()[-1])["results"]
    for request, found in zip(REQUESTS, results, strict=True):
        here = live.call(request["name"], request["args"])
        assert found["shape"] == here["shape"]
        np.testing.assert_allclose(found["data"], here["data"], rtol=1e-5, atol=1e-5)

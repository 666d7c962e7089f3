"""The one command that a backend's author runs, as a process of its own in an empty folder."""

import subprocess
import sys

import pytest

from minialex.backend.registry import load
from minialex.conformance.plugin import follows_protocol
from minialex.errors import BackendUnavailable, ConfigurationError
from minialex_numpy import NumpyBackend

MINE = """
import numpy as np
from minialex.backend.pretend import operation
from minialex_numpy import NumpyBackend

def leaky(x):
    return np.where(x > 0, x, x / 8).astype(x.dtype)

body = {name: value for name, value in vars(NumpyBackend).items() if name not in ("__dict__", "__weakref__")}
Mine = type("Mine", (), {**body, "name": "mine", "unit_roundoff": {"tanh": 2.0**-20}})
Leaky = type("Leaky", (), {**body, "name": "leaky", "relu": operation(leaky)})
Half = type("Half", (), {"name": "half"})
"""


def run(folder, *options):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "minialex.conformance.plugin"]
    command += ["--pyargs", "minialex.conformance", "-k", "relu or tanh", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_backend_that_is_right(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = run(tmp_path, "--backend", "mine:Mine")
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
    assert "backend mine:Mine: tanh within the unit roundoff 9.54e-07 that it declares" in done.stdout


def test_a_backend_that_is_wrong(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = run(tmp_path, "--backend", "mine:Leaky", "--backend", "numpy")
    assert done.returncode == 1
    assert "1 failed, 7 passed" in done.stdout
    assert "relu on cpu:0 in float32: 'y' differs from the reference" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nmupy", "no backend named 'nmupy'"),
        ("mine:Mein", "no backend 'mine:Mein'"),
        ("mine:Half", "backend 'mine:Half' does not follow the protocol: 'to_device' is missing"),
    ],
)
def test_a_backend_that_is_named_and_cannot_be_loaded_ends_the_run(tmp_path, name, reason):
    (tmp_path / "mine.py").write_text(MINE)
    done = run(tmp_path, "--backend", name)
    assert done.returncode == 4
    assert reason in done.stderr
    assert "passed" not in done.stdout


def test_loading_by_module_and_class():
    assert load("minialex_numpy:NumpyBackend").name == "numpy"
    assert load("numpy").name == "numpy"
    with pytest.raises(ConfigurationError, match="no backend 'minialex_numpy:Absent'"):
        load("minialex_numpy:Absent")
    with pytest.raises(BackendUnavailable, match="does not follow the protocol"):
        load("minialex.backend.pretend:HostArray")


def test_a_backend_that_breaks_the_protocol_is_no_backend_that_cannot_run_here(monkeypatch):
    class Point:
        def __init__(self, kind):
            self.kind = kind

        def load(self):
            if self.kind is None:
                raise ImportError("no such accelerator")
            return self.kind

    points = {"absent": Point(None), "wrong": Point(object), "right": Point(NumpyBackend)}
    monkeypatch.setattr("minialex.backend.registry.installed", lambda: points)
    assert [follows_protocol(name) for name in points] == [True, False, True]

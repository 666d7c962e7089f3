"""Packages that do and do not work together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from minialex_cuda.diagnose import wheels
from minialex_cuda.diagnose.wheels import CUDNN, INSTALL, checks, libraries, number

SOUND = {
    "numpy": "2.4.6", "numba": "0.68.1", "numba-cuda": "0.30.4", "cupy-cuda13x": "14.2.0", "nvidia-cublas": "13.1.0",
    "nvidia-cuda-nvrtc": "13.0.88", "nvidia-nvvm": "13.0.88", "nvidia-cudnn-cu13": "9.28.1.4",
    "nvidia-cudnn-frontend": "1.18.0",
}  # fmt: skip


def test_what_works_together() -> None:
    found = checks(SOUND, (13, 0))
    assert {check.verdict for check in found} == {"ok"}
    assert [check.topic for check in found] == ["CuPy", "numba-cuda", "cuDNN"]


@pytest.mark.parametrize(
    ("changes", "cuda", "topic", "verdict", "said", "mend"),
    [
        ({"cupy-cuda13x": None}, (13, 0), "CuPy", "problem", "not installed", INSTALL),
        ({"cupy-cuda12x": "14.2.0"}, (13, 0), "CuPy", "problem", "installed together", "uninstall -y cupy-cuda13x "),
        ({"cupy-cuda13x": "13.9.0"}, (13, 0), "CuPy", "problem", "older than 14", INSTALL),
        ({}, (12, 4), "CuPy", "problem", "needs CUDA 13, the driver runs 12.4", "580 or newer"),
        ({"numba-cuda": None}, (13, 0), "numba-cuda", "problem", "not installed", INSTALL),
        ({"numba-cuda": "0.31.0"}, (13, 0), "numba-cuda", "note", "tried with numba-cuda 0.30", "<0.31"),
        ({"nvidia-nvvm": "13.5.37"}, (13, 0), "CUDA toolkit", "note", "newer than the driver's", "toolkit==13.0.*"),
        ({"nvidia-cudnn-cu13": None}, (13, 0), "cuDNN", "note", "nvidia-cudnn-cu13 not inst", "nvidia-cudnn-cu13"),
        ({"nvidia-cudnn-frontend": "1.30.0"}, (13, 0), "cuDNN", "note", "before 1.30", CUDNN.format(major=13)),
    ],
)  # fmt: skip
def test_what_does_not(
    changes: dict[str, str | None], cuda: tuple[int, int], topic: str, verdict: str, said: str, mend: str
) -> None:
    found = {name: version for name, version in {**SOUND, **changes}.items() if version is not None}
    wrong = [check for check in checks(found, cuda) if check.verdict != "ok"]
    assert [(check.topic, check.verdict) for check in wrong] == [(topic, verdict)]
    assert said in wrong[0].found
    assert mend in wrong[0].mend


def test_without_a_driver_packages_are_still_compared() -> None:
    assert {check.verdict for check in checks(SOUND, None)} == {"ok"}
    twelve = {**SOUND, "cupy-cuda12x": "14.2.0", "nvidia-cudnn-cu12": "9.28.1"}
    del twelve["cupy-cuda13x"]
    assert {check.verdict for check in checks(twelve, (13, 0))} == {"ok"}


def test_the_extras_ask_for_what_the_rules_say() -> None:
    """Versions are said to `pip` in pyproject.toml, and to users by the rules: the same ones."""
    path = Path(__file__).parents[3] / "pyproject.toml"
    extras = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["optional-dependencies"]

    def text(version: tuple[int, ...]) -> str:
        return ".".join(map(str, version))

    cupy, numba = extras["cuda"]
    assert cupy.startswith(f"cupy-cuda13x[ctk]>={text(wheels.OLDEST_CUPY)}.")
    assert numba == "numba-cuda[cu13]>={},<{}".format(*map(text, wheels.NUMBA_CUDA))
    frontend = "nvidia-cudnn-frontend>={},<{}".format(*map(text, wheels.CUDNN_FRONTEND))
    assert frontend in extras["cudnn"]
    assert frontend in CUDNN


def test_versions() -> None:
    assert number("2.4.6") == (2, 4, 6)
    assert number("2.5.0rc1") == (2, 5, 0)
    assert number("") == ()


def test_libraries_are_loaded() -> None:
    assert libraries({}) == []
    assert [(c.topic, c.verdict, c.found) for c in libraries(SOUND, lambda name: None)] == [
        ("cuBLAS", "ok", "nvidia-cublas 13.1.0"),
        ("NVRTC", "ok", "nvidia-cuda-nvrtc 13.0.88"),
    ]

    def missing(name: str) -> object:
        raise ImportError(f"no lib{name}\nhere")

    for check in libraries(SOUND, missing):
        assert check.verdict == "problem"
        assert "here" in check.found
        assert "\n" not in check.found
        assert check.mend == INSTALL
    bare = {"cupy": "14.2.0"}
    assert {c.found for c in libraries(bare, lambda name: None)} == {"from an installed CUDA toolkit"}

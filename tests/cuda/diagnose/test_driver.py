"""The driver through its C library: what it says, and every way in which it may be missing or broken."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from minialex.backend.findings import Device
from minialex_cuda.diagnose import driver
from minialex_cuda.diagnose.driver import Driver, DriverError


def test_what_the_driver_says(fakes: Any) -> None:
    found = Driver(fakes.Library())
    assert found.cuda() == (13, 0)
    assert found.devices() == [Device(n, f"Fake {n + 1}", 80 << 30, (9, 0), 132) for n in (0, 1)]
    assert found.reaches(0, 1)
    assert not Driver(fakes.Library(peers=False)).reaches(0, 1)
    assert Driver(fakes.Library(cuda=12040)).cuda() == (12, 4)
    assert Driver(fakes.Library(names=[])).devices() == []


@pytest.mark.parametrize("code", [*driver.REASONS, 999])
def test_a_driver_that_does_not_start(fakes: Any, code: int) -> None:
    with pytest.raises(DriverError) as caught:
        Driver(fakes.Library(init=code))
    assert caught.value.found
    assert caught.value.mend
    if code == 999:
        assert "999" in caught.value.found


@pytest.mark.parametrize("name", ["cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2"])
def test_a_call_that_fails_is_named(fakes: Any, name: str) -> None:
    with pytest.raises(DriverError, match=f"{name} failed with error 999"):
        Driver(fakes.Library(fail=name)).devices()


def test_no_library() -> None:
    tried = []

    def missing(name: str) -> Any:
        tried.append(name)
        raise OSError("not there")

    with pytest.raises(DriverError, match="no NVIDIA driver") as caught:
        driver.load(missing)
    assert tried
    assert "nvidia.com/drivers" in caught.value.mend


def test_the_second_place_is_tried(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.sys, "platform", "linux")

    def wsl(name: str) -> Any:
        if "wsl" not in name:
            raise OSError("not there")
        return fakes.Library(names=["WSL"])

    assert driver.load(wsl).devices()[0].name == "WSL"


def test_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver.sys, "platform", "darwin")
    with pytest.raises(DriverError, match="macOS"):
        driver.load()


def test_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "version"
    monkeypatch.setattr(driver, "KERNEL_MODULE", path)
    assert driver.release() is None
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025\nGCC version: 13"
    )
    assert driver.release() == "580.95.05"


def test_a_library_in_c(tmp_path: Path) -> None:
    """The calls as ctypes makes them, and not only as a fake in Python takes them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    library = tmp_path / "libcuda.so"
    source = Path(__file__).with_name("fake_libcuda.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True)
    found = driver.load(lambda name: ctypes.CDLL(str(library)))
    assert found.cuda() == (13, 2)
    assert found.devices() == [Device(n, f"Card {40 + n}", (40 + n) << 31, (9, 0), 140 + n) for n in (0, 1)]
    assert found.reaches(0, 1)
    assert not found.reaches(1, 0)

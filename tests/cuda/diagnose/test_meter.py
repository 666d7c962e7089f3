"""Rates come out as what the fake cards have; copies that lose a byte, or are refused, are seen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from minialex.backend.findings import Device
from minialex.errors import ResourceError
from minialex_cuda.diagnose.diagnosis import Diagnosis
from minialex_cuda.diagnose.driver import Driver
from minialex_cuda.diagnose.meter import CupyMeter

CARD = Device(1, "Fake 2", 80 << 30, (9, 0), 132)
SMALL = 512  # divides what is measured with


def test_rates(fakes: Any) -> None:
    fake = fakes.Cupy()
    meter = CupyMeter(fake, SMALL)
    found = meter.measure(CARD)
    assert found.matrix == pytest.approx(fakes.products)
    assert found.copy == pytest.approx(fakes.memory)
    assert found.from_host == pytest.approx(fakes.host)
    assert "measured" in found.source
    assert meter.free(0) == 70 << 30
    assert fake.handles == 0


def test_old_cards_have_one_precision(fakes: Any) -> None:
    old = Device(0, "T4", 16 << 30, (7, 5), 40)
    assert set(CupyMeter(fakes.Cupy(), SMALL).measure(old).matrix) == {"float32"}


def test_a_full_card_is_an_error_that_names_it(fakes: Any) -> None:
    with pytest.raises(ResourceError, match="cuda:1: Out of memory"):
        CupyMeter(fakes.Cupy(full=True), SMALL).measure(CARD)
    with pytest.raises(ResourceError, match="cuda:1: cudaErrorInvalidDevice"):
        CupyMeter(fakes.Cupy(devices=1), SMALL).measure(CARD)


def test_copies(fakes: Any) -> None:
    meter = CupyMeter(fakes.Cupy(), SMALL)
    for direct in (False, True, True, False, False):  # that access is as asked for already is no error
        for source, target in ((0, 1), (1, 0)):
            found = meter.copy(source, target, direct)
            assert (found.equal, found.error, found.direct) == (True, "", direct)
            assert found.rate == pytest.approx(fakes.direct if direct else fakes.through_host)
    assert meter.copy(0, 0, False).equal


def test_a_lost_byte_is_seen(fakes: Any) -> None:
    meter = CupyMeter(fakes.Cupy(broken=(0, 1)), SMALL)
    lost = meter.copy(0, 1, True)
    assert not lost.equal
    assert "IOMMU" in lost.mend
    assert meter.copy(1, 0, True).equal
    assert meter.copy(0, 1, False).equal


def test_a_refusal_is_told(fakes: Any) -> None:
    found = CupyMeter(fakes.Cupy(refused=True), SMALL).copy(0, 1, True)
    assert not found.equal
    assert found.error == "cudaErrorUnknown: unknown error"
    assert "nvidia-smi" in found.mend


def test_devices_are_disturbed_and_left_alone_again(fakes: Any) -> None:
    fake = fakes.Cupy()
    with CupyMeter(fake).disturbed((0, 1), 3):
        for _ in range(200):
            if {device for device, _ in fake.launched} == {0, 1} and len(fake.launched) > 8:
                break
            time.sleep(0.01)
    count = len(fake.launched)
    assert {device for device, _ in fake.launched} == {0, 1}
    assert len({cycles for _, cycles in fake.launched}) > 4
    time.sleep(0.02)
    assert len(fake.launched) == count


def test_a_disturbance_that_fails_is_told(fakes: Any) -> None:
    class CompileError(Exception):
        """NVRTC's."""

    with (
        pytest.raises(ResourceError, match="cuda:0: no kernel can be compiled: nvrtc: error 5"),
        CupyMeter(fakes.Cupy(compiler=CompileError("nvrtc:\nerror 5"))).disturbed((0, 1), 3),
    ):
        pytest.fail("is not entered")
    with (
        pytest.raises(ResourceError, match="could not be disturbed: cudaErrorLaunchFailure"),
        CupyMeter(fakes.Cupy(launcher=RuntimeError("cudaErrorLaunchFailure"))).disturbed((0,), 3),
    ):
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("pair", "reaches", "ways"),
    [
        ((0, 1), True, [(0, 1, False), (1, 0, False), (0, 1, True), (1, 0, True)]),
        ((0, 1), False, [(0, 1, False), (1, 0, False)]),
        ((1, 1), True, [(1, 1, False)]),
    ],
)
def test_which_copies_are_tried(fakes: Any, pair: tuple[int, int], reaches: bool, ways: list[Any]) -> None:
    diagnosis = Diagnosis(
        True,
        load_driver=lambda: Driver(fakes.Library(peers=reaches)),
        packages=lambda: {"numpy": "2.4.6", "numba-cuda": "0.30.4", "cupy-cuda13x": "14.2.0"},
        libraries=lambda found: [],
        load_meter=lambda: CupyMeter(fakes.Cupy(), 4096),
    )
    assert not [check for check in diagnosis.checks if check.topic == "cuDNN's plans"]  # without cuDNN there are none
    found = diagnosis.copies(*pair)
    assert [(copy.source, copy.target, copy.direct) for copy in found] == ways
    assert all(copy.equal for copy in found)


def test_where_choices_of_plans_are_is_told(fakes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", str(tmp_path))
    (tmp_path / "a-card-fprop-0123.json").write_text("{}")
    packages = {"numpy": "2.4.6", "numba-cuda": "0.30.4", "cupy-cuda13x": "14.2.0"}
    packages |= {"nvidia-cudnn-cu13": "9.19.0.56", "nvidia-cudnn-frontend": "1.18.0"}
    diagnosis = Diagnosis(
        True,
        load_driver=lambda: Driver(fakes.Library()),
        packages=lambda: packages,
        libraries=lambda found: [],
        load_meter=lambda: CupyMeter(fakes.Cupy(), 4096),
    )
    (found,) = (check.found for check in diagnosis.checks if check.topic == "cuDNN's plans")
    assert found == f"1 convolution timed before; the choices are in {tmp_path}"

"""``minialex doctor`` whole: what it prints, its report, its exit codes, with fake cards in every state."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minialex.backend import registry
from minialex.backend.findings import Check, works
from minialex.cli import app as cli
from minialex.doctor.devices import cards
from minialex.doctor.examine import Report, Sources, examine, run
from minialex.errors import BackendUnavailable, ResourceError
from minialex.recipe.fields import Recipe
from minialex.speed.rates import Rates, read
from minialex_cuda import CudaBackend
from minialex_cuda.diagnose import wheels
from minialex_cuda.diagnose.diagnosis import Diagnosis
from minialex_cuda.diagnose.driver import Driver, DriverError
from minialex_cuda.diagnose.meter import CupyMeter
from minialex_cuda.runtime.fake import FakeRuntime

SOUND = {"numpy": "2.4.6", "numba-cuda": "0.30.4", "cupy-cuda13x": "14.2.0"}
Make = Callable[..., Sources]


def load(name: str, precision: str) -> Any:
    return CudaBackend(runtime=FakeRuntime()) if name == "cuda" else registry.load(name)


@pytest.fixture
def sources(fakes: Any, tiny: Callable[[str], Recipe]) -> Make:
    """Sources of a machine with two sound cards; the arguments change the driver's library or what else is named."""

    def make(
        cupy: Any = None,
        packages: dict[str, str] | None = None,
        driver: Callable[[], Driver] | None = None,
        libraries: Any = lambda found: [Check("cuda", "cuBLAS", "ok", "there")],
        **library: Any,
    ) -> Sources:
        fake = cupy or fakes.Cupy()

        def diagnose(asked: bool) -> Diagnosis:
            return Diagnosis(
                asked,
                load_driver=driver or (lambda: Driver(fakes.Library(**library))),
                packages=lambda: SOUND if packages is None else packages,
                libraries=libraries,
                load_meter=lambda: CupyMeter(fake, 4096),
            )

        return Sources(
            host=lambda asked: [Check("cpu", "machine", "ok", "a processor")],
            host_rates=lambda: Rates("a processor", {"float32": 2e11}, 3e10),
            diagnoses=lambda: {"cuda": diagnose},
            load=load,
            recipe=tiny,
            full=lambda precision: None,
        )

    return make


def found(report: Report) -> dict[str, Check]:
    return {check.topic: check for check in report.checks}


def test_a_machine_with_two_cards(sources: Make, fakes: Any) -> None:
    report = examine("cuda", sources=sources())
    lines = found(report)
    assert report.works
    assert report.asked == ("cpu", "cuda")
    assert "CUDA 13.0" in lines["driver"].found
    assert lines["cuda:1"].found.startswith("Fake 2, 80.0 GiB, compute capability 9.0, 132 multiprocessors")
    assert "directly" in lines["cuda:0, cuda:1"].found
    assert "bfloat16 800 TFLOP/s" in lines["cuda:0 rates"].found
    assert "50.0 GB/s" in lines["cuda:0 rates"].found
    assert lines["link"].found.startswith("400 GB/s")
    assert report.rates["cuda:1"].link == pytest.approx(fakes.direct)
    assert lines["backend cuda"].verdict == "ok"


def test_without_peer_access_the_link_is_the_way_through_the_host(sources: Make, fakes: Any) -> None:
    report = examine("cuda", sources=sources(peers=False))
    assert found(report)["cuda:0, cuda:1"].verdict == "note"
    assert report.rates["cuda:0"].link == pytest.approx(fakes.through_host)
    assert report.works


@pytest.mark.parametrize(
    ("changes", "topic", "said", "mend"),
    [
        ({"cuda": 12040}, "driver", "CUDA 12.4 is too old: 13.0 is needed", "580 or newer"),
        ({"names": []}, "devices", "shows no device", "CUDA_VISIBLE_DEVICES"),
        ({"init": 100}, "driver", "sees no device", "--gpus all"),
        ({"capability": (7, 0)}, "cuda:0", "needs 7.5", "--backend numba"),
        ({"packages": {}}, "CuPy", "not installed", wheels.INSTALL),
    ],
)
def test_what_is_wrong_is_named_with_what_mends_it(
    sources: Make, changes: dict[str, Any], topic: str, said: str, mend: str
) -> None:
    report = examine("cuda", sources=sources(**changes), quick=True)
    assert not report.works
    check = found(report)[topic]
    assert check.verdict == "problem"
    assert said in check.found
    assert mend in check.mend
    default = examine("numba", sources=sources(**changes), quick=True)
    assert default.works  # who trains on the processor needs none of it


def test_a_setting_that_takes_float32s_digits_is_named(sources: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert "float32" not in found(examine("cuda", sources=sources(), quick=True))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    note = found(examine("cuda", sources=sources(), quick=True))["float32"]
    assert note.verdict == "note"
    assert note.mend == "unset NVIDIA_TF32_OVERRIDE"


def test_turing_has_float32_alone(sources: Make) -> None:
    report = examine("cuda", sources=sources(capability=(7, 5)))
    assert "no bfloat16" in found(report)["cuda:0"].found
    assert set(report.rates["cuda:0"].matrix) == {"float32"}
    assert report.works


def test_little_memory_is_a_note_and_a_failure_a_problem(sources: Make, fakes: Any) -> None:
    little = examine("cuda", sources=sources(cupy=fakes.Cupy(free=1 << 30)))
    assert found(little)["cuda:0 memory"].verdict == "note"
    assert little.works
    full = examine("cuda", sources=sources(cupy=fakes.Cupy(full=True)))
    assert "Out of memory" in found(full)["cuda:0 rates"].found
    assert not full.works


def test_a_cupy_that_cannot_be_imported(sources: Make) -> None:
    def broken(name: str) -> None:
        raise ImportError("libcudart.so.13: not found")

    report = examine("cuda", sources=sources(libraries=partial(wheels.libraries, load=broken)))
    assert "libcudart" in [c for c in report.checks if c.topic == "CuPy"][-1].found
    assert not report.works


def test_a_backend_that_cannot_run(sources: Make) -> None:
    def unavailable(name: str, precision: str) -> Any:
        raise BackendUnavailable("it is broken")

    report = examine("cuda", "0,1", sources=replace(sources(), load=unavailable), quick=True)
    assert found(report)["backend cuda"].found == "it is broken"
    assert found(report)["two devices"].verdict == "problem"
    assert not report.works


def test_copies_that_fail_are_noted(sources: Make, fakes: Any) -> None:
    report = examine("cuda", sources=sources(cupy=fakes.Cupy(broken=(1, 0))))
    links = [check for check in report.checks if check.topic == "link"]
    assert [(check.verdict, check.mend) for check in links] == [("note", "minialex doctor --devices 1,0"), ("ok", "")]
    assert report.works


def test_two_devices(sources: Make, fakes: Any) -> None:
    fake = fakes.Cupy()
    report = examine(None, "0,1", steps=3, sources=sources(cupy=fake), quick=True)
    assert report.asked == ("cpu", "cuda", "pair")
    assert report.works
    assert [(c.source, c.target, c.direct) for c in report.copies] == [
        (0, 1, False), (1, 0, False), (0, 1, True), (1, 0, True),
    ]  # fmt: skip
    assert [o.name for o in report.outcomes][-1] == "many steps, disturbed"
    assert fake.launched
    one = examine(None, "1,1", steps=1, sources=sources(), quick=True)
    assert one.works
    assert one.outcomes[-1].placement == ("cuda:1", "cuda:1")


def test_unlike_cards(sources: Make, fakes: Any) -> None:
    class Unlike(Driver):
        def devices(self) -> Any:
            one, two = super().devices()
            return [one, replace(two, capability=(8, 9))]

    report = examine(None, "0,1", steps=1, sources=sources(driver=lambda: Unlike(fakes.Library())), quick=True)
    assert report.works
    assert "are different" in found(report)["two devices"].found
    assert report.outcomes[-1].against == "an undisturbed run"


def test_broken_peer_copies_are_a_problem_of_two_devices_alone(sources: Make, fakes: Any) -> None:
    report = examine(None, "0,1", steps=1, sources=sources(cupy=fakes.Cupy(broken=(0, 1))), quick=True)
    assert not report.works
    wrong = [check for check in report.checks if check.verdict == "problem"]
    assert [(c.area, "bytes arrive changed" in c.found) for c in wrong] == [("pair", True)]
    assert works(report.checks, ("cpu", "cuda"))


@pytest.mark.parametrize(("devices", "said"), [("0,7", "no device '7'"), ("0,1,0", "names 3 devices for 2 columns")])
def test_devices_that_are_not_there(sources: Make, devices: str, said: str) -> None:
    report = examine(None, devices, sources=sources(), quick=True)
    assert said in found(report)["two devices"].found
    assert not report.works


def test_the_report_and_the_screen(
    sources: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(None, "0,1", None, "float32", 2, False, sources(cuda=12080)) == 6
    said = capsys.readouterr().out
    assert "is too old" in said
    assert "→ install driver 580" in said
    assert said.rstrip().endswith("report: minialex-doctor.json")
    assert "does not work; fix first: driver" in said
    report = json.loads((tmp_path / "minialex-doctor.json").read_text(encoding="utf-8"))
    assert report["works"] is False
    assert {"machine", "versions", "date", "command", "devices", "copies", "columns"} <= set(report)

    path = tmp_path / "other.json"
    assert run("cuda", None, path, "float32", 2, False, sources()) == 0
    said = capsys.readouterr().out
    assert "The cuda backend: works" in said
    rates = read(path)  # what `minialex plan --rates` takes
    assert set(rates) == {"cpu", "cuda:0", "cuda:1"}
    assert rates["cuda:0"].link is not None
    assert cli.run(["plan", "--rates", str(path), "--devices", "0,1", "--precision", "bfloat16"]) == 0
    assert "Fake 1" in capsys.readouterr().out


def test_rates_of_the_cards_alone(sources: Make, fakes: Any) -> None:
    found = cards(sources().diagnoses())
    assert {name: rates.link for name, rates in found.items()} == pytest.approx(
        {"cuda:0": fakes.direct, "cuda:1": fakes.direct}
    )
    assert cards(sources().diagnoses(), only="cuda:1")["cuda:1"].link is None
    with pytest.raises(ResourceError, match="there is no device cuda:7"):
        cards(sources().diagnoses(), only="cuda:7")
    with pytest.raises(ResourceError, match="devices: the driver shows no device; check that"):
        cards(sources(names=[]).diagnoses())
    with pytest.raises(ResourceError, match="cuda:0 rates: could not be measured: cuda:0: Out of memory"):
        cards(sources(cupy=fakes.Cupy(full=True)).diagnoses())


def test_what_is_missing_for_others_is_only_said(sources: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def none() -> Any:
        raise DriverError("no NVIDIA driver", "get one")

    assert run("numba", None, None, "float32", 1, True, sources(packages={}, driver=none)) == 0
    said = capsys.readouterr().out
    assert "missing  no NVIDIA driver" in said
    assert "problem" not in said
    assert "CuPy" not in said
    assert "Training: works on this machine's processor" in said

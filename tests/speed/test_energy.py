"""Energy: watts times hours, counters that wrap, are missing or cannot be read, and what a report says of them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from minialex.cli import app as cli
from minialex.figures.run import watt_hours
from minialex.speed import energy
from minialex.speed.energy import Meter
from minialex.training.loop import energy_of
from minialex_cuda.diagnose.energy import joules


class Package:
    """A counter as Linux has it: microjoules in a file."""

    def __init__(self, root: Path, name: str = "package-0", limit: int = 1000) -> None:
        self.folder = root / name
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text(f"{name}\n")
        (self.folder / "max_energy_range_uj").write_text(f"{limit * 1_000_000}\n")
        self.stands_at(0)

    def stands_at(self, value: float) -> None:
        (self.folder / "energy_uj").write_text(f"{round(value * 1e6)}\n")


class Card:
    """A backend whose device counts."""

    value: float | None = 0.0

    def joules(self, device: str) -> float | None:
        return self.value


def test_the_papers_training() -> None:
    assert energy.paper_kilowatt_hours() == pytest.approx((2 * 0.244 * 24 * 5, 2 * 0.244 * 24 * 6))


def test_nothing_is_said_where_nothing_is_counted(tmp_path: Path) -> None:
    assert Meter(object(), ("cpu:0",), counters=tmp_path).read() == {}
    assert Meter(object(), ("cpu:0",), counters=tmp_path / "none").read() == {}
    card = Card()
    card.value = None
    assert Meter(card, ("x:0",), counters=tmp_path).read() == {}


def test_packages_add_up_and_wrap_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    first, second = Package(tmp_path, "package-0"), Package(tmp_path, "package-1")
    core = Package(tmp_path, "core")
    first.stands_at(900)
    meter = Meter(object(), (), {"processor": 1.0}, tmp_path)
    first.stands_at(100)  # over its largest value of 1,000: 200
    second.stands_at(160)
    core.stands_at(50)
    assert meter.read() == pytest.approx({"processor": 1.0 + 360 / 3600})
    (first.folder / "energy_uj").unlink()  # no longer readable: what was counted stays
    assert meter.read() == pytest.approx({"processor": 1.0 + 360 / 3600})


def test_a_card_counts_from_the_beginning_and_a_device_named_twice_once(tmp_path: Path) -> None:
    card = Card()
    card.value = 7200.0
    meter = Meter(card, ("x:0", "x:0"), counters=tmp_path)
    card.value = 10_800.0
    assert meter.read() == {"x:0": 1.0}


def test_readings_are_often_enough_and_not_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, now = Package(tmp_path), [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    meter = Meter(object(), (), counters=tmp_path)
    for second in range(1, 120):  # 60 W: the counter wraps every 16 seconds of 1,000 J ... but for these ticks
        now[0] = float(second)
        package.stands_at(25 * second % 1000)
        meter.tick()
    assert meter.read()["processor"] == pytest.approx(25 * 119 / 3600)


@pytest.mark.parametrize(("value", "said"), [(0.4167, "0.417 Wh"), (12.34, "12.3 Wh"), (64_400, "64.4 kWh")])
def test_words(value: float, said: str) -> None:
    assert watt_hours(value) == said


class Library:
    """NVIDIA's two libraries: functions that give 0 and fill in what they are asked for."""

    def __init__(self, millijoules: int = 0, fails: str = "", lacks: str = "") -> None:
        self.millijoules, self.fails, self.lacks = millijoules, fails, lacks

    def __getattr__(self, name: str) -> object:
        if name == self.lacks:
            raise AttributeError(name)

        def call(*arguments: object) -> int:
            if name.endswith("PCIBusId"):
                arguments[0].value = b"0000:17:00.0"  # type: ignore[attr-defined]
            if name == "nvmlDeviceGetHandleByPciBusId_v2":
                assert ctypes.cast(arguments[0], ctypes.c_char_p).value == b"0000:17:00.0"
            if name == "nvmlDeviceGetTotalEnergyConsumption":
                arguments[1]._obj.value = self.millijoules  # type: ignore[attr-defined]
            return 3 if name == self.fails else 0

        return call


def test_a_cards_counter() -> None:
    assert joules(0, Library(12_345), Library()) == 12.345
    assert joules(0, Library(fails="nvmlDeviceGetTotalEnergyConsumption"), Library()) is None, "before Volta"
    assert joules(0, Library(lacks="nvmlInit_v2"), Library()) is None
    assert joules(0, Library(), Library(fails="cuDeviceGet")) is None


def test_a_report_tells_what_training_took_and_a_resumed_run_goes_on_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(energy.Meter.__init__, "__defaults__", (None, tmp_path / "counters"))
    tiny = ["--batch-size", "8", "--kernels", "4,4,4,4,4", "--features", "8,8", "--backend", "numpy"]
    tiny += ["--train-images", "16", "--validation-images", "8", "--epochs", "1"]
    assert cli.run(["train", "--recipe", "shapes", *tiny, "--out", "without"]) == 0
    assert energy_of(Path("without")) == {}
    assert "energy" not in Path("without/report.html").read_text()
    package, read = Package(tmp_path / "counters"), Path.read_text

    def counting(self: Path, *arguments: object, **options: object) -> str:
        if self.name == "energy_uj":
            package.stands_at(int(read(self)) / 1e6 + 36)
        return read(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", counting)
    assert cli.run(["train", "--recipe", "shapes", *tiny, "--out", "run"]) == 0
    first = energy_of(Path("run"))["processor"]
    assert first > 0
    assert f"{watt_hours(first)} (processor {watt_hours(first)})" in Path("run/report.html").read_text()
    assert cli.run(["train", "--resume", "run", "--epochs", "2"]) == 0
    assert energy_of(Path("run"))["processor"] > first
    Path("run/energy.json").write_text("[1")
    assert energy_of(Path("run")) == {}, "a damaged one is as none"

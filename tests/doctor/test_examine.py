"""``minialex doctor`` whole: what it prints, its report, its exit codes, with fake cards in every state."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from minialex.backend import registry
from minialex.backend.findings import Check, Copy, Device, Measured, works
from minialex.cli import app as cli
from minialex.doctor import processor
from minialex.doctor.devices import cards, diagnoses
from minialex.doctor.examine import Report, Sources, examine, show
from minialex.errors import BackendUnavailable, ConfigurationError, ResourceError
from minialex.recipe.fields import Recipe
from minialex.screen.terminal import console
from minialex.speed.rates import read


class Theirs:
    """What somebody's backend knows of two devices, the second of which fails."""

    measurable = True
    checks = (Check("numpy", "driver", "ok", "there"),)
    devices = tuple(Device(n, "a card", 1 << 30, (1, 0), 4) for n in (0, 1))

    def measure(self, device: int) -> Measured:
        if device == 1:
            raise ResourceError("it is broken")
        return Measured({"float32": 5e12}, 1e11, 2e10, "measured")

    def copies(self, first: int, second: int) -> list[Copy]:
        ways = ((first, second), (second, first))
        return [Copy(*way, True, way == (0, 1), 1e10, mend="solder it") for way in ways]

    def disturbed(self, devices: Sequence[int], seed: int) -> AbstractContextManager[None]:
        return nullcontext()


def test_what_a_backend_knows_of_its_own_devices(tiny: Callable[[str], Recipe]) -> None:
    """Any backend's: here the reference is given devices of its own."""
    asked: list[bool] = []

    def diagnose(for_it: bool) -> Theirs:
        asked.append(for_it)
        return Theirs()

    sources = Sources(
        host=lambda name: [], diagnoses=lambda: {"numpy": diagnose}, recipe=tiny, full=lambda precision: None
    )
    report = examine(None, "0,1", steps=1, sources=sources)
    found = {check.topic: check for check in report.checks}
    assert report.asked == ("cpu", "numpy", "pair")  # it has devices, so two devices are its own
    assert asked == [True]
    assert found["numpy:0 rates"].found.startswith("float32 5.00 TFLOP/s; memory 100 GB/s")
    assert (found["numpy:1 rates"].verdict, found["numpy:1 rates"].found) == (
        "problem", "could not be measured: it is broken",
    )  # fmt: skip
    assert report.rates["numpy:0"].link == 1e10
    assert "numpy:1" not in report.rates
    assert found["copy numpy:1 to numpy:0"].mend == "solder it"
    assert report.outcomes[-1].name == "many steps, disturbed"
    assert not report.works
    with pytest.raises(ResourceError, match="numpy:1 rates: could not be measured: it is broken"):
        cards(sources.diagnoses())
    other = examine("numba", sources=sources, quick=True)
    assert asked[-1] is False
    assert other.works
    assert "numpy:0 rates" not in {check.topic for check in other.checks}


def test_a_machine_without_such_backends() -> None:
    assert set(diagnoses()) == {"cuda"}
    with pytest.raises(ResourceError, match="no installed backend has devices of its own"):
        cards({})


def test_no_such_backend() -> None:
    with pytest.raises(ConfigurationError, match=r"no backend named 'nmupy'.* Did you mean 'numpy'\?"):
        examine("nmupy")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices", "0,1", "--precision", "bf16"], "Did you mean 'bfloat16'?"),
        (["--devices", "0,1", "--report", "nowhere/report.json"], "there is no folder nowhere"),
        (["--backend", "nmupy"], "Did you mean 'numpy'?"),
        (["--steps", "0"], "--steps"),
    ],
)
def test_wrong_options_end_at_once(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert cli.run(["doctor", *arguments]) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert found.out == ""


def test_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The real thing: whatever machine this is, training on its processor works."""
    path = tmp_path / "report.json"
    assert cli.run(["doctor", "--backend", "numba", "--report", str(path)]) == 0
    said = capsys.readouterr().out
    for text in ("NumPy", "backend numba", "GFLOP/s", "works on this machine's processor"):
        assert text in said
    cpu = read(path)["cpu"]
    assert cpu.matrix["float32"] > 1e9
    assert cpu.copy > 1e8


def test_limits_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(processor, "QUOTA", quota)
    monkeypatch.setattr(processor.peaks, "cores", lambda: 8)

    def cores() -> Check:
        return next(check for check in processor.checks("numba") if check.topic == "cores")

    assert cores().verdict == "ok"
    quota.write_text("max 100000\n")
    assert cores().verdict == "ok"
    quota.write_text("250000 100000\n")
    assert (cores().verdict, cores().mend) == ("note", "minialex train --threads 2")


def test_little_memory_and_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 4000000 kB\nMemAvailable: 1000000 kB\n")
    monkeypatch.setattr(processor, "MEMORY", info)
    monkeypatch.setattr(processor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1 << 20}))
    lines = {check.topic: check for check in processor.checks("numba")}
    assert (lines["memory"].verdict, lines["disk"].verdict) == ("note", "note")
    assert "1.0 of 3.8 GiB free" in lines["memory"].found


def test_what_backends_say_while_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    real = registry.load

    def talkative(name: str) -> Any:
        if name == "numba":
            logging.getLogger("minialex.numba").warning("kernels cannot be kept")
        return real(name)

    monkeypatch.setattr(processor.registry, "load", talkative)
    notes = [check for check in processor.checks("numba") if check.verdict == "note"]
    assert [(n.topic, n.found) for n in notes if n.topic.startswith("backend")] == [
        ("backend numba", "kernels cannot be kept")
    ]


def test_a_backend_of_the_processor_that_is_broken_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise BackendUnavailable(f"{name}: Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(processor.registry, "load", broken)
    assert not works(processor.checks("numba"), ("cpu",))
    assert works(processor.checks("cuda"), ("cpu",))  # then it is a note


def test_findings_are_wrapped_on_a_terminal_and_remedies_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report(asked=("cpu",))
    report.checks = [
        Check("cpu", "rates", "ok", "matrix products 68.7 GFLOP/s, memory 6.92 GB/s " * 3),
        Check("cpu", "kernel cache", "note", "short", "do this and that, " * 8),
    ]
    show(report, console())
    assert report.checks[0].found.strip() in capsys.readouterr().out, "a file has whole lines"
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "80")
    show(report, console())
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert [line for line in said if len(line) > 80] == [line for line in said if "→" in line] != []
    assert " ".join(" ".join(said).split()).count("matrix products 68.7 GFLOP/s") == 3

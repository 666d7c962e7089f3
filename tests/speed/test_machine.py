"""What is recorded of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from minialex.speed import machine


def test_the_cards_are_those_that_the_driver_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA GeForce GTX 580")):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
        text = f"Model: \t\t {name}\nIRQ:   \t\t 26\nGPU UUID: \t GPU-0\n"
        (tmp_path / f"0000:0{number}:00.0" / "information").write_text(text, encoding="utf-8")
    (tmp_path / "0000:02:00.0" / "information").mkdir(parents=True)  # cannot be read
    assert machine.cards(tmp_path) == ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce GTX 580"]
    assert machine.cards(tmp_path / "none") == []
    monkeypatch.setattr(machine, "cards", list)
    assert "cards" not in machine.describe()["machine"]  # type: ignore[operator]

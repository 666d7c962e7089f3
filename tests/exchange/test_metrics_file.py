"""A run's metrics for other programs, read back by other means than they were written with."""

from __future__ import annotations

import csv
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from minialex.cli.app import run as minialex

RECORDS: list[dict[str, Any]] = [
    {"kind": "train", "step": 10, "epoch": 0.5, "loss": 2.25, "top1": 0.125, "images_per_second": 640.5,
     "learning_rate": 0.01},
    {"kind": "event", "step": 15, "message": 'the rate falls, "by ten";\nsee above, ä'},
    {"kind": "train", "step": 20, "epoch": 1.0, "loss": None, "top1": 0.25, "images_per_second": 1.0},
    {"kind": "validation", "epoch": 1, "step": 20, "loss": 1.5, "top1_error": 0.75, "top5_error": 0.25, "seconds": 9.5},
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.toml").write_text("")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return folder


def test_csv(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.csv"
    assert minialex(["export", str(run), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 4 records of the metrics\n"
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [record["kind"] for record in RECORDS]
    assert [float(row["top1_error"] or -1) for row in rows] == [0.875, -1, 0.75, 0.75]
    assert [row["loss"] for row in rows] == ["2.25", "", "", "1.5"]
    assert rows[1]["message"] == RECORDS[1]["message"]
    assert rows[3]["seconds"] == "9.5"
    assert "top1" not in rows[0]


def crc32c(data: bytes) -> int:
    """Castagnoli's sum, bit by bit, as TensorFlow's record files have it (masked)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def records_in(content: bytes) -> list[bytes]:
    """The records of a TensorFlow record file; every sum is checked."""
    found = []
    while content:
        (length, head) = struct.unpack("<QI", content[:12])
        assert head == crc32c(content[:8])
        data, (tail,) = content[12 : 12 + length], struct.unpack("<I", content[12 + length : 16 + length])
        assert tail == crc32c(data)
        found.append(data)
        content = content[16 + length :]
    return found


def event_class() -> Any:
    """TensorFlow's ``Event``, of event.proto and summary.proto, with the fields that matter here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="test", syntax="proto3")
    for message, fields in {
        "Value": (("tag", 1, kind.TYPE_STRING, ""), ("simple_value", 2, kind.TYPE_FLOAT, "")),
        "Summary": (("value", 1, kind.TYPE_MESSAGE, ".test.Value"),),
        "Event": (("wall_time", 1, kind.TYPE_DOUBLE, ""), ("step", 2, kind.TYPE_INT64, ""),
                  ("file_version", 3, kind.TYPE_STRING, ""), ("summary", 5, kind.TYPE_MESSAGE, ".test.Summary")),
    }.items():  # fmt: skip
        made = file.message_type.add(name=message)
        for name, number, type_, of in fields:
            label = kind.LABEL_REPEATED if name == "value" else kind.LABEL_OPTIONAL
            made.field.add(name=name, number=number, type=type_, label=label, **({"type_name": of} if of else {}))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Event"))


def test_tensorboard(run: Path, tmp_path: Path) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("tensorboardX")
    out = tmp_path / "run.tfevents"
    assert minialex(["export", str(run), str(out)]) == 0
    first, *events = map(event_class().FromString, records_in(out.read_bytes()))
    assert first.file_version == "brain.Event:2"
    found = {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}
    assert found == pytest.approx({
        ("epoch/training", 10): 0.5, ("loss/training", 10): 2.25, ("top1_error/training", 10): 0.875,
        ("learning_rate/training", 10): 0.01, ("images_per_second/training", 10): 640.5,
        ("epoch/training", 20): 1.0, ("top1_error/training", 20): 0.75, ("images_per_second/training", 20): 1.0,
        ("epoch/validation", 20): 1.0, ("loss/validation", 20): 1.5, ("top1_error/validation", 20): 0.75,
        ("top5_error/validation", 20): 0.25, ("seconds/validation", 20): 9.5,
    })  # fmt: skip
    again = tmp_path / "again.tfevents"
    assert minialex(["export", str(run), str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


def test_errors(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def told(source: Path, name: str, code: int) -> str:
        assert minialex(["export", str(source), str(tmp_path / name)]) == code
        return capsys.readouterr().err

    assert "no run at" in told(tmp_path, "m.csv", 4)
    (tmp_path / "there.csv").write_text("mine")
    assert "--overwrite" in told(run, "there.csv", 2)
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX.proto.event_pb2", None)
    assert "pip install 'minialex[tensorboard]'" in told(run, "m.tfevents", 2)
    (run / "metrics.jsonl").write_text('nonsense\n{"kind": "train"}\n')
    assert "line 1 is damaged" in told(run, "m.csv", 3)
    (run / "metrics.jsonl").unlink()
    assert "cannot read the metrics" in told(run, "m.csv", 3)
    assert not (tmp_path / "m.csv").exists()

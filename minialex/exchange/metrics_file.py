"""A run's metrics for other programs: a table (``.csv``), and TensorBoard's event file (``.tfevents``)."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minialex.errors import CheckpointError, ConfigurationError
from minialex.runs.run_folder import RunPaths, is_run, read_metrics
from minialex.storage import atomic

ENDINGS = (".csv", ".tfevents")
COLUMNS = ("kind", "step", "epoch", "loss", "top1_error", "top5_error", "learning_rate", "images_per_second", "seconds")
KINDS = {"train": "training", "validation": "validation"}


def write(path: Path, run: Path) -> int:
    """Write a run's metrics in the format of the file's extension; return the number of records.

    Raises:
        CheckpointError: There is no run.
        DataError: Its metrics are missing or damaged.
        ConfigurationError: The package tensorboardX is missing, or the file is not writable.
        ResourceError: The disk is full.
    """
    if not is_run(run):
        raise CheckpointError(f"no run at {run}: metrics are in a run folder; check the path")
    source = RunPaths(run).metrics
    records = [_with_errors(record) for record in read_metrics(source)]
    made = table(records) if path.suffix == ".csv" else events(records, os.path.getmtime(source))
    atomic.write_bytes(path, made)
    return len(records)


def _with_errors(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record in which training has errors, like validation, in place of the share of right answers."""
    share = record.get("top1")
    errors = {} if not isinstance(share, int | float) else {"top1_error": 1 - share}
    return {**{name: value for name, value in record.items() if name != "top1"}, **errors}


def table(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Records as CSV in UTF-8, one line each below a header; missing values are empty fields."""
    more = sorted({name for record in records for name in record} - {*COLUMNS})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *more], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def events(records: Sequence[Mapping[str, Any]], written: float) -> bytes:
    """Records as TensorBoard's events: ``loss/training``, ``loss/validation``, ``top1_error/validation`` and so on.

    Args:
        records: as for `table`
        written: seconds since 1970, the time of all events, since a run does not record the time of each step
    """
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar
    except ImportError:
        raise ConfigurationError(
            "writing TensorBoard's files needs the package tensorboardX: pip install 'minialex[tensorboard]'"
        ) from None
    with tempfile.TemporaryDirectory() as folder:  # its writer insists on opening a file
        path = Path(folder, "events")
        writer = RecordWriter(str(path))
        writer.write(Event(wall_time=written, file_version="brain.Event:2").SerializeToString())
        for record in records:
            if record.get("kind") in KINDS and isinstance(record.get("step"), int):
                for name in COLUMNS[2:]:
                    value = record.get(name)
                    if isinstance(value, int | float) and math.isfinite(value):
                        summary = scalar(f"{name}/{KINDS[record['kind']]}", float(value))
                        event = Event(wall_time=written, step=record["step"], summary=summary)
                        writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()

"""Activations of a layer for a whole data set, in files: as NumPy or Parquet, in memory that does not grow with it.

A folder of features holds ``_features.json``, which says what they are of, and

- as ``npy``: ``features.npy`` [N,C,H,W] or [N,D] (``np.load(…, mmap_mode="r")``) and ``labels.npy`` int64 [N];
- as ``parquet``: ``part-00000000.parquet`` and so on, named after their first image, with the columns ``image`` and
  ``label`` (int64) and ``features`` (a list of fixed size, the maps one after another): pyarrow, pandas, polars and
  DuckDB read the folder as one table.

``_features.json`` also counts the images done. It is written after the rows are on the disk, so that a run that was
killed goes on behind the last of them, and gives the same bytes (Parquet: the same rows) as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minialex.data import Split, batches
from minialex.engine.session import Session
from minialex.errors import CheckpointError, ConfigurationError, DataError, ResourceError, nearest
from minialex.storage import atomic

MANIFEST = "_features.json"  # readers of Parquet folders leave out names that begin so
FORMAT = "minialex features"
FORMATS = ("npy", "parquet")
BLOCK_BYTES = 64 << 20  # rows kept in memory before they are written
BLOCK_SECONDS = 60.0  # or as many as come in this time


@dataclass(frozen=True)
class Manifest:
    """What a folder of features is of.

    Attributes:
        form: ``"npy"`` or ``"parquet"``
        network: `fingerprint` of the network that gave them
        layer, shape, dtype: the layer's name, and what it gives for one image
        data, split: the data set as recipes name it, and ``"train"`` or ``"validation"``
        images: how many, N
        labels: SHA-256 of their labels, by which another selection of images is noticed
        class_names: what labels mean
        done: images whose rows are on the disk
    """

    form: str
    network: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    data: str
    split: str
    images: int
    labels: str
    class_names: tuple[str, ...]
    done: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's activations."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def difference(self, other: Manifest) -> str | None:
        """The first thing in which another one is not of the same features, in words; None if it is."""
        words = {
            "form": "format", "network": "network or weights", "layer": "layer", "shape": "shape", "dtype": "dtype",
            "data": "data set", "split": "split", "images": "number of images", "labels": "images",
            "class_names": "classes",
        }  # fmt: skip
        for name, word in words.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                short = name in ("network", "labels", "class_names")
                return f"another {word}" if short else f"another {word} ({mine}, not {theirs})"
        return None


def fingerprint(session: Session) -> str:
    """SHA-256 of all that decides what a network gives for an image: its weights, its shape, the mean, the view."""
    digest = hashlib.sha256()
    recipe = session.recipe
    views = {name: getattr(recipe, name) for name in ("image_size", "mean", "pixel_scale", "dtype")}
    digest.update(json.dumps([recipe.table("network"), views], sort_keys=True).encode())
    for name, array in sorted({**session.weights(), "mean": session.statistics.mean}.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.hexdigest()


def manifest_of(session: Session, split: Split, layer: str, data: str, part: str, names: tuple[str, ...],
                form: str = "npy") -> Manifest:  # fmt: skip
    """What features of a split would be called; see `Manifest`.

    Raises:
        ConfigurationError: If there is no such format or layer.
    """
    if form not in FORMATS:
        raise ConfigurationError(f"no format '{form}'; there are {', '.join(FORMATS)}.{nearest(form, FORMATS)}")
    session.network.layer(layer)
    stages = {stage.layer.name: stage for stage in session.network.stages(len(session.plan.placement))}
    stage = stages[layer]
    width = stage.output[0] * stage.pieces
    labels = np.ascontiguousarray(split.labels, np.int64)
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    shape = (width, *stage.output[1:])
    return Manifest(
        form, fingerprint(session), layer, shape, session.recipe.dtype, data, part, len(split), digest, names
    )


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder of features says of itself.

    Raises:
        DataError: If it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if known.pop("format") != FORMAT:
            raise ValueError("of another kind")
        known["shape"] = tuple(int(n) for n in known["shape"])
        known["class_names"] = tuple(str(name) for name in known["class_names"])
        found = Manifest(**known)
        numbers = (*found.shape, found.images, found.done)
        if any(not isinstance(n, int) or n < 0 for n in numbers) or found.done > found.images:
            raise ValueError("its numbers do not fit together")
        if found.form not in FORMATS or found.dtype not in ("float32", "float64"):
            raise ValueError(f"a format or dtype that is not known, {found.form}, {found.dtype}")
    except FileNotFoundError:
        raise DataError(f"no features in {folder}: {MANIFEST} is missing; make them with `minialex features`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove the folder and make the features anew") from None
    return found


@dataclass(frozen=True)
class Features:
    """Features that were read back.

    Attributes:
        folder: where they are
        manifest: what they are of
        values: [N,…] of the manifest's shape and dtype, mapped from the disk, not loaded
        labels: int64 [N]
    """

    folder: Path
    manifest: Manifest
    values: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]


def open_features(folder: Path) -> Features:
    """Open a complete folder of features in the format ``npy``.

    Raises:
        DataError: If they are missing, incomplete or damaged.
        ConfigurationError: If they are Parquet.
    """
    manifest = read_manifest(folder)
    if manifest.form != "npy":
        raise ConfigurationError(f"{folder} holds Parquet files; read them with pyarrow, or write --format npy")
    if manifest.done < manifest.images:
        raise DataError(
            f"{folder} is not complete: {manifest.done:,} of {manifest.images:,} images; the command that made it goes "
            "on with them"
        )
    arrays = []
    for name, shape, dtype in (
        ("features.npy", (manifest.images, *manifest.shape), manifest.dtype),
        ("labels.npy", (manifest.images,), "int64"),
    ):
        try:
            array = np.load(folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{folder / name} is missing or damaged ({error}): remove the folder, make it anew"
            ) from None
        if array.shape != shape or array.dtype != dtype:
            raise DataError(f"{folder / name} is damaged: {array.dtype} {array.shape}, should be {dtype} {shape}")
        arrays.append(array)
    return Features(folder, manifest, arrays[0], np.asarray(arrays[1]))


class _Writer(Protocol):
    """Takes rows in order; they are on the disk when `write` returns."""

    def __init__(self, folder: Path, manifest: Manifest, labels: NDArray[np.int64]) -> None: ...

    def write(self, begin: int, rows: NDArray[Any], labels: NDArray[np.int64]) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _NpyWriter:
    """``features.npy.part``, which gets its name when it is whole: rows are written behind the header."""

    def __init__(self, folder: Path, manifest: Manifest, labels: NDArray[np.int64]) -> None:
        self.folder, self.manifest, self.labels = folder, manifest, labels
        self.path = folder / "features.npy.part"
        shape = (manifest.images, *manifest.shape)
        self.header = _npy_header(shape, manifest.dtype)
        with atomic.translate_os_errors(self.path):
            self.file = open(self.path, "r+b" if self.path.exists() else "x+b", buffering=0)  # noqa: SIM115
            if manifest.done == 0:
                self.file.truncate(0)
                self.file.write(self.header)
        expected = len(self.header) + manifest.done * manifest.row_bytes
        if os.fstat(self.file.fileno()).st_size < expected:
            self.file.close()
            raise DataError(f"{self.path} is shorter than {MANIFEST} says: remove the folder and make it anew")

    def write(self, begin: int, rows: NDArray[Any], labels: NDArray[np.int64]) -> None:
        """Write rows and wait until they are on the disk."""
        with atomic.translate_os_errors(self.path, needed=rows.nbytes):
            self.file.seek(len(self.header) + begin * self.manifest.row_bytes)
            rest = np.ascontiguousarray(rows).data.cast("B")
            while rest:
                rest = rest[self.file.write(rest[: atomic.BLOCK]) :]
            os.fsync(self.file.fileno())

    def finish(self) -> None:
        """Write the labels, and give the file its name."""
        header = _npy_header(self.labels.shape, "int64")
        atomic.write_bytes(self.folder / "labels.npy", header + self.labels.tobytes())
        with atomic.translate_os_errors(self.path):
            self.file.truncate(len(self.header) + self.manifest.images * self.manifest.row_bytes)
            self.file.close()
            os.replace(self.path, self.folder / "features.npy")
            atomic.sync_folder(self.folder)

    def close(self) -> None:
        """Close the file, if it is not closed."""
        self.file.close()


class _ParquetWriter:
    """A Parquet file a block."""

    def __init__(self, folder: Path, manifest: Manifest, labels: NDArray[np.int64]) -> None:
        self.folder, self.manifest = folder, manifest
        for path in folder.glob("part-*.parquet"):  # written after the count, by a run that was killed in between
            if int(path.stem.removeprefix("part-")) >= manifest.done:
                path.unlink()

    def write(self, begin: int, rows: NDArray[Any], labels: NDArray[np.int64]) -> None:
        """Write rows as a file of their own."""
        import pyarrow as pa
        from pyarrow import parquet

        width = math.prod(self.manifest.shape)
        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
        table = pa.table(
            {
                "image": np.arange(begin, begin + len(rows), dtype=np.int64),
                "label": labels,
                "features": pa.FixedSizeListArray.from_arrays(flat, width),
            }
        )
        about = {name: value for name, value in dataclasses.asdict(self.manifest).items() if name != "done"}
        table = table.replace_schema_metadata({"minialex": json.dumps(about)})
        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, compression="zstd")
        atomic.write_bytes(self.folder / f"part-{begin:08d}.parquet", sink.getvalue().to_pybytes())

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is open."""


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    import io

    header = io.BytesIO()
    described = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def write_features(
    session: Session,
    split: Split,
    folder: Path,
    manifest: Manifest,
    *,
    batch_size: int = 100,
    progress: Callable[[int], None] = lambda done: None,
    stop: Callable[[], object] = lambda: False,
) -> Manifest:
    """Write a layer's activations for the centre crops of a split, or go on where an earlier call was stopped.

    Args:
        folder: made if it is missing
        manifest: from `manifest_of` the same session and split
        batch_size: images at a time
        progress: called with the number of images done, those of earlier calls among them
        stop: asked after each batch; where it says yes, what there is is written, and this returns

    Returns:
        The manifest with what is `done` now.

    Raises:
        CheckpointError: If the folder holds features of another network, or of this one with other weights.
        ConfigurationError: If the folder holds features of other images or another layer, another process writes it, or
            pyarrow is not installed.
        DataError: If it is damaged, or an image cannot be read.
        ResourceError: If the disk is full; said before anything is computed, where it can be foreseen.
    """
    if manifest.form == "parquet":
        _need_pyarrow()
    if manifest.images == 0:
        raise DataError("the data set has no images")
    atomic.make_folder(folder)
    with _locked(folder):
        atomic.remove_stale(folder)
        if (folder / MANIFEST).exists():
            before = read_manifest(folder)
            other = before.difference(manifest)
            if other:
                kind = ConfigurationError if before.network == manifest.network else CheckpointError
                raise kind(f"{folder} holds features of {other}: give another folder, or remove it")
            manifest = before
        elif any(folder.iterdir()):
            raise ConfigurationError(f"{folder} is neither empty nor a folder of features: give another one")
        progress(manifest.done)
        if manifest.done == manifest.images and (manifest.form == "parquet" or (folder / "features.npy").exists()):
            return manifest
        _check_free(folder, manifest)
        _write_manifest(folder, manifest)
        labels = np.ascontiguousarray(split.labels, np.int64)
        make: type[_Writer] = _NpyWriter if manifest.form == "npy" else _ParquetWriter
        with closing(make(folder, manifest, labels)) as writer:
            for begin, rows in _blocks(session, split, manifest, batch_size, progress, stop):
                writer.write(begin, rows, labels[begin : begin + len(rows)])
                manifest = dataclasses.replace(manifest, done=begin + len(rows))
                _write_manifest(folder, manifest)
            if manifest.done == manifest.images:
                writer.finish()
        return manifest


def _blocks(
    session: Session,
    split: Split,
    manifest: Manifest,
    batch_size: int,
    progress: Callable[[int], None],
    stop: Callable[[], object],
) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
    """The rows that are not there yet, a block in memory at a time, each with the number of its first image."""
    order = np.arange(manifest.done, manifest.images)
    waiting: list[NDArray[np.floating[Any]]] = []
    begin, begun = manifest.done, time.monotonic()
    count = 0
    with closing(batches(split, order, batch_size, drop_last=False)) as reading:
        for _, images, _ in reading:
            waiting.append(session.activations(images, [manifest.layer])[manifest.layer])
            count += len(images)
            progress(begin + count)
            stopped = stop()
            full = count * manifest.row_bytes >= BLOCK_BYTES or time.monotonic() - begun >= BLOCK_SECONDS
            if stopped or full or begin + count == manifest.images:
                yield begin, np.concatenate(waiting)
                waiting.clear()
                begin, count, begun = begin + count, 0, time.monotonic()
            if stopped:
                return


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    atomic.write_json(folder / MANIFEST, {"format": FORMAT, **dataclasses.asdict(manifest)})


def _check_free(folder: Path, manifest: Manifest) -> None:
    needed = (manifest.images - manifest.done) * manifest.row_bytes
    free = shutil.disk_usage(folder).free
    if needed > free and manifest.form == "npy":  # Parquet is compressed, by how much is not known before
        raise ResourceError(
            f"features of {manifest.images:,} images need {atomic.readable_size(needed)} in {folder}, where "
            f"{atomic.readable_size(free)} are free; choose another disk or another layer"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    try:
        if descriptor is not None and atomic.try_lock(descriptor) is False:
            raise ConfigurationError(
                f"{folder} is being written by another process: wait for it, or give another folder"
            )
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            'Parquet needs pyarrow, which is not installed: pip install "minialex[look]", or use --format npy'
        ) from None

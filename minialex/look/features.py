"""Activations of a layer for a whole data set, in NumPy or Parquet files, with memory that does not grow with the set.

A folder of features contains ``_features.json``, which describes them, and

- as ``npy``: ``features.npy`` [N,C,H,W] or [N,D] (``np.load(…, mmap_mode="r")``) and ``labels.npy`` int64 [N];
- as ``parquet``: ``part-00000000.parquet`` and so on, named after their first image, with the columns ``image`` and
  ``label`` (int64) and ``features`` (a fixed-size list, the maps one after another): pyarrow, pandas, polars and DuckDB
  read the folder as one table.

``_features.json`` also counts the images done. It is written after the rows are on disk, so that a killed run continues
after the last of them, and gives the same bytes (Parquet: the same rows) as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data import Split, batches
from minialex.engine.session import Session
from minialex.errors import CheckpointError, ConfigurationError, DataError, ResourceError, nearest
from minialex.look.units import output_shape
from minialex.ranks.group import ALONE, Group, by_first
from minialex.screen.formats import readable_size
from minialex.storage import atomic
from minialex.storage.locks import locked_folder

PART = "features.npy.part"  # name of features.npy until it is complete
MANIFEST = "_features.json"  # readers of Parquet folders ignore names that begin with _
FORMAT = "minialex features"
FORMATS = ("npy", "parquet")
COMPARED = 1000  # images whose pixels identify a set
BLOCK_BYTES = 64 << 20  # rows kept in memory before they are written
BLOCK_SECONDS = 60.0  # or as many as are computed in this time


@dataclass(frozen=True)
class Manifest:
    """What a folder of features contains.

    Attributes:
        form: ``"npy"`` or ``"parquet"``
        network: `fingerprint` of the network that computed them
        layer, shape, dtype: the layer's name, and the shape and dtype of its output for one image
        data, split: the data set's name in recipes, and ``"train"`` or ``"validation"``
        images: number of images, N
        labels: SHA-256 of their labels, which detects another selection of images
        content: SHA-256 of pixels, see `content`, which detects other images with the same labels
        class_names: the meaning of the labels
        done: number of images whose rows are on disk
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
    content: str
    class_names: tuple[str, ...]
    done: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's activations."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def header(self) -> bytes:
        """The header of ``features.npy``."""
        return _npy_header((self.images, *self.shape), self.dtype)

    def difference(self, other: Manifest) -> str | None:
        """The first difference that means other features, as text; None if there is none."""
        words = {"form": "format", "data": "data set", "images": "number of images"}
        long = {"network": "another network or weights", "class_names": "other classes"}
        long |= dict.fromkeys(("labels", "content"), "other images")
        for name in (field.name for field in dataclasses.fields(self) if field.name != "done"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return long.get(name) or f"a different {words.get(name, name)} ({mine}, not {theirs})"
        return None


def fingerprint(session: Session) -> str:
    """SHA-256 of everything that determines a network's output for an image: weights, shape, mean, view."""
    digest = hashlib.sha256()
    recipe = session.recipe
    views = {name: getattr(recipe, name) for name in ("image_size", "mean", "pixel_scale", "dtype")}
    digest.update(json.dumps([recipe.table("network"), views], sort_keys=True).encode())
    for name, array in sorted({**session.weights(), "mean": session.statistics.mean}.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data.cast("B"))
    return digest.hexdigest()


def content(split: Split) -> str:
    """SHA-256 of the pixels of a split: of all images or, if there are more, of `COMPARED` spread over it.

    Raises:
        DataError: An image is unreadable.
    """
    digest = hashlib.sha256()
    chosen = np.unique(np.linspace(0, max(0, len(split) - 1), min(len(split), COMPARED)).astype(np.int64))
    for indices in np.array_split(chosen, max(1, math.ceil(len(chosen) / 100))):
        digest.update(np.ascontiguousarray(split.read(indices)).tobytes())
    return digest.hexdigest()


def manifest_of(session: Session, split: Split, layer: str, data: str, part: str, names: tuple[str, ...],
                form: str = "npy") -> Manifest:  # fmt: skip
    """The manifest that features of a split would have; see `Manifest`.

    Raises:
        ConfigurationError: If there is no such format or layer.
    """
    if form not in FORMATS:
        raise ConfigurationError(f"no format '{form}'; there are {', '.join(FORMATS)}.{nearest(form, FORMATS)}")
    labels = np.ascontiguousarray(split.labels, np.int64)
    digest = hashlib.sha256(labels.tobytes()).hexdigest()
    shape = output_shape(session, layer)
    return Manifest(
        form, fingerprint(session), layer, shape, session.recipe.dtype, data, part, len(split), digest, content(split),
        names,
    )  # fmt: skip


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of features.

    Raises:
        DataError: If it is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError("of another kind")
        if "content" not in fields:
            raise DataError(
                f"{folder} was written by a minialex that did not compare images: remove it and make it again"
            )
        fields["shape"] = tuple(int(n) for n in fields["shape"])
        fields["class_names"] = tuple(str(name) for name in fields["class_names"])
        manifest = Manifest(**fields)
        numbers = (*manifest.shape, manifest.images, manifest.done)
        if any(not isinstance(n, int) or n < 0 for n in numbers) or manifest.done > manifest.images:
            raise ValueError("its numbers do not fit together")
        if manifest.form not in FORMATS or manifest.dtype not in ("float32", "float64"):
            raise ValueError(f"a format or dtype that is not known, {manifest.form}, {manifest.dtype}")
    except FileNotFoundError:
        raise DataError(f"no features in {folder}: {MANIFEST} is missing; make them with `minialex features`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove the folder and make the features again") from None
    return manifest


@dataclass(frozen=True)
class Features:
    """Features read from a folder.

    Attributes:
        folder: their folder
        manifest: their manifest
        values: [N,…] of the manifest's shape and dtype, memory-mapped, not loaded
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
            f"{folder} is not complete: {manifest.done:,} of {manifest.images:,} images; run the command that made it "
            "again to continue"
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
                f"{folder / name} is missing or damaged ({error}): remove the folder and make it again"
            ) from None
        if array.shape != shape or array.dtype != dtype:
            raise DataError(f"{folder / name} is damaged: {array.dtype} {array.shape}, should be {dtype} {shape}")
        arrays.append(array)
    return Features(folder, manifest, arrays[0], np.asarray(arrays[1]))


def _begin_npy(folder: Path, manifest: Manifest) -> None:
    """Create ``features.npy.part`` with its header, or check that it has the rows that were counted."""
    path = folder / PART
    with atomic.translate_os_errors(path):
        if manifest.done == 0:
            path.write_bytes(manifest.header)
        if not path.exists() or path.stat().st_size < len(manifest.header) + manifest.done * manifest.row_bytes:
            raise DataError(f"{path} is shorter than {MANIFEST} says: remove the folder and make it again")


def _write_npy(folder: Path, manifest: Manifest, rows: NDArray[Any], labels: NDArray[np.int64]) -> None:
    """Write rows after the header and wait until they are on disk."""
    path = folder / PART
    with atomic.translate_os_errors(path, needed=rows.nbytes), open(path, "r+b", buffering=0) as file:
        file.seek(len(manifest.header) + manifest.done * manifest.row_bytes)
        rest = np.ascontiguousarray(rows).data.cast("B")
        while rest:
            rest = rest[file.write(rest[: atomic.BLOCK]) :]
        os.fsync(file.fileno())


def _finish_npy(folder: Path, manifest: Manifest, labels: NDArray[np.int64]) -> None:
    """Write the labels, and give the file its final name."""
    path = folder / PART
    atomic.write_bytes(folder / "labels.npy", _npy_header(labels.shape, "int64") + labels.tobytes())
    with atomic.translate_os_errors(path):
        os.truncate(path, len(manifest.header) + manifest.images * manifest.row_bytes)
        os.replace(path, folder / "features.npy")
        atomic.sync_folder(folder)


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    header = io.BytesIO()
    fields = {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _begin_parquet(folder: Path, manifest: Manifest) -> None:
    """Remove files written after the last count, by a run that was killed in between."""
    for path in folder.glob("part-*.parquet"):
        if int(path.stem.removeprefix("part-")) >= manifest.done:
            path.unlink()


def _write_parquet(folder: Path, manifest: Manifest, rows: NDArray[Any], labels: NDArray[np.int64]) -> None:
    """Write rows as a file of their own."""
    import pyarrow as pa
    from pyarrow import parquet

    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    columns = {
        "image": np.arange(manifest.done, manifest.done + len(rows), dtype=np.int64),
        "label": labels,
        "features": pa.FixedSizeListArray.from_arrays(flat, math.prod(manifest.shape)),
    }
    about = {name: value for name, value in dataclasses.asdict(manifest).items() if name != "done"}
    table = pa.table(columns).replace_schema_metadata({"minialex": json.dumps(about)})
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    atomic.write_bytes(folder / f"part-{manifest.done:08d}.parquet", sink.getvalue().to_pybytes())


def write_features(
    session: Session,
    split: Split,
    folder: Path,
    manifest: Manifest,
    *,
    batch_size: int = 100,
    progress: Callable[[int], None] = lambda done: None,
    stop: Callable[[], object] = lambda: False,
    group: Group = ALONE,
) -> Manifest:
    """Write a layer's activations for the centre crops of a split, or continue where an earlier call was stopped.

    Args:
        folder: created if it is missing
        manifest: from `manifest_of` with the same session and split
        batch_size: number of images at a time
        progress: called with the number of images done, including those of earlier calls
        stop: called after each batch; if it returns true, what has been computed is written, and this returns
        group: the ranks that share the batches, which are the same as for one rank; only the first writes. All call
            `stop` equally often, and it must return the same on all of them

    Returns:
        The manifest with the updated `done`.

    Raises:
        CheckpointError: If the folder holds features of another network, or of this one with other weights.
        ConfigurationError: If the folder holds features of other images or another layer, another process writes to it,
            or pyarrow is not installed.
        DataError: If it is damaged, or an image is unreadable.
        ResourceError: If the disk is full; raised before anything is computed if that can be foreseen.
    """
    if manifest.form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigurationError(
            'Parquet needs pyarrow, which is not installed: pip install "minialex[look]", or use --format npy'
        )
    if manifest.images == 0:
        raise DataError("the data set has no images")
    told = [Manifest(**{**item, "shape": tuple(item["shape"]), "class_names": tuple(item["class_names"])})
            for item in group.exchange(dataclasses.asdict(manifest))]  # fmt: skip
    for rank, its in enumerate(told):
        if other := its.difference(told[0]):
            raise ConfigurationError(f"rank {rank} would write features of {other} than rank 0: give all the same")
    with ExitStack() as held:
        done = by_first(group, lambda: _open(held, folder, manifest))
        progress(abs(done))
        if done < 0:
            return dataclasses.replace(manifest, done=manifest.images)
        return _write_rows(
            session, split, folder, dataclasses.replace(manifest, done=done), batch_size, progress, stop, group
        )


def _open(held: ExitStack, folder: Path, manifest: Manifest) -> int:
    """Lock the folder and begin or continue in it; return the number of images done, below 0 if it is complete."""
    atomic.make_folder(folder)
    refusal = f"{folder} is being written by another process: wait for it, or give another folder"
    held.enter_context(locked_folder(folder, refusal))
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
    if manifest.done == manifest.images and (manifest.form == "parquet" or (folder / "features.npy").exists()):
        return -manifest.images
    needed, free = (manifest.images - manifest.done) * manifest.row_bytes, shutil.disk_usage(folder).free
    if needed > free and manifest.form == "npy":  # Parquet's compression ratio is not known in advance
        raise ResourceError(
            f"features of {manifest.images:,} images need {readable_size(needed)} in {folder}, where "
            f"{readable_size(free)} are free; choose another disk or another layer"
        )
    _write_manifest(folder, manifest)
    (_begin_npy if manifest.form == "npy" else _begin_parquet)(folder, manifest)
    return manifest.done


def _write_rows(
    session: Session, split: Split, folder: Path, manifest: Manifest, batch_size: int,
    progress: Callable[[int], None], stop: Callable[[], object], group: Group,
) -> Manifest:  # fmt: skip
    """Write the missing rows, with one block of them in memory at a time."""
    labels = np.ascontiguousarray(split.labels, np.int64)
    block: list[NDArray[np.floating[Any]]] = []
    done, begun = manifest.done, time.monotonic()
    for rows in _rows(session, split, manifest, batch_size, group):
        block.append(rows)
        done += len(rows)
        progress(done)
        stopped = stop()
        full = (done - manifest.done) * manifest.row_bytes >= BLOCK_BYTES
        late = time.monotonic() - begun >= BLOCK_SECONDS
        if group.rank:  # only the first rank has them
            block = []
        elif stopped or full or late or done == manifest.images:
            write = _write_npy if manifest.form == "npy" else _write_parquet
            write(folder, manifest, np.concatenate(block), labels[manifest.done : done])
            manifest = dataclasses.replace(manifest, done=done)
            _write_manifest(folder, manifest)
            block, begun = [], time.monotonic()
        if stopped:
            break
    if group.rank == 0 and manifest.form == "npy" and manifest.done == manifest.images:
        _finish_npy(folder, manifest, labels)
    return dataclasses.replace(manifest, done=group.exchange(manifest.done)[0])  # others wait for the files


def _rows(
    session: Session, split: Split, manifest: Manifest, batch_size: int, group: Group
) -> Iterator[NDArray[np.floating[Any]]]:
    """The missing rows, in order: of each round of as many batches as ranks, rank r computes the r-th."""
    first, each = manifest.done, group.size * batch_size
    rest = np.arange(first, manifest.images)
    own = rest[(rest - first) // batch_size % group.size == group.rank]
    with closing(batches(split, own, batch_size, drop_last=False)) as reading:
        for begin in range(first, manifest.images, each):
            mine = own[(own >= begin) & (own < begin + each)]
            rows = np.zeros((min(each, manifest.images - begin), *manifest.shape), manifest.dtype)
            if len(mine):
                _, images, _ = next(reading)
                rows[mine - begin] = session.activations(images, [manifest.layer])[manifest.layer]
            bits = rows.view(f"uint{8 * rows.itemsize}")  # a row is one rank's: as integers even -0 stays -0
            group.sum([bits], [bits])
            yield rows


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    atomic.write_json(folder / MANIFEST, {"format": FORMAT, **dataclasses.asdict(manifest)})

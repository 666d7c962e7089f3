"""Checkpoints: what a run needs to continue bit for bit, on disk so that no kill and no fault can spoil it.

A checkpoint is a folder, ``step-00001234``, of four files: ``weights.safetensors``, ``momentum.safetensors``,
``state.json``, and ``manifest.json`` with the size and the SHA-256 of the other three. It is written under a
temporary name, synced and renamed: the rename is the moment from which it counts. Small files beside the folders,
``latest`` and ``best``, name the newest and the best for people and programs; they are replaced last, and reading
does not depend on them, since a kill may come before they are.

Checkpoints are ordered by the number of the save, ``sequence`` in the manifest, not by the step: a run that went
back to an earlier step and took another way continues on that way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minialex.errors import CheckpointError, ConfigurationError
from minialex.storage import atomic as files

FORMAT = "minialex checkpoint"
VERSION = 1
WEIGHTS, MOMENTUM, STATE, MANIFEST = "weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"
LATEST, BEST = "latest", "best"
HEADER_LIMIT = 1024 * 1024  # bytes; AlexNet's header has 2 kB
JSON_LIMIT = 16 * 1024 * 1024  # bytes

REPLACED = ".replaced"

_NAME = re.compile(r"step-(\d{8,})(?:\.replaced)?")
_SAFETENSORS_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}

Array = np.ndarray[Any, Any]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified.

    Attributes:
        path: Path
            Its folder.
        step: int
            Number of update steps done.
        weights, momentum: dict of str to array
            Parameters and their velocities by name.
        state: dict
            JSON values: whatever else the run needs to continue.
    """

    path: Path
    step: int
    weights: dict[str, Array]
    momentum: dict[str, Array]
    state: dict[str, Any]


@dataclass(frozen=True)
class _Manifest:
    step: int
    sequence: int
    best: bool
    files: dict[str, tuple[int, str]]  # name -> bytes, SHA-256


# ---------------------------------------------------------------- saving


def save(
    folder: str | os.PathLike[str],
    step: int,
    weights: Mapping[str, Array],
    momentum: Mapping[str, Array],
    state: Mapping[str, Any],
    *,
    keep: int = 3,
    best: bool = False,
) -> Path:
    """Save a checkpoint; whenever this is stopped, the ones before it are still there, and it is there or is not.

    The arrays are written from where they are, without a copy (unless they are not contiguous). One process at a
    time may save to a folder, which the lock of a run sees to.

    Args:
        folder: path
            Folder of the checkpoints; made if it is missing.
        step: int
            Number of update steps done. One of the same step that is there already is replaced.
        weights, momentum: mapping of str to array
            Parameters and their velocities.
        state: mapping
            JSON values.
        keep: int
            Number of checkpoints to keep, at least 2: the new one and the one before it. Older ones are removed after
            the new one is complete, except the best.
        best: bool
            Whether this is the best so far.

    Returns:
        Path
            The checkpoint's folder.

    Raises:
        ResourceError: The disk is full or failing, or a limit was reached: with what was needed and what is free.
        ConfigurationError: The folder may not be written to, or an argument cannot be used.
    """
    if step < 0 or keep < 2:
        raise ConfigurationError(f"a checkpoint needs step >= 0 and keep >= 2, got step={step} and keep={keep}")
    folder = Path(folder)
    final = folder / f"step-{step:08d}"
    state_bytes = files.json_bytes(dict(state), final / STATE)
    headers = {name: _header(tensors, name) for name, tensors in ((WEIGHTS, weights), (MOMENTUM, momentum))}
    tensors = [*weights.values(), *momentum.values()]
    needed = sum(tensor.nbytes for tensor in tensors) + sum(map(len, headers.values())) + len(state_bytes)

    files.make_folder(folder)
    with files.translate_os_errors(final, needed):
        files.remove_stale(folder)
        _finish_replacing(folder)
        before = _in_order(folder)
        with files.new_folder(final) as temporary:
            written = {
                WEIGHTS: files.write_new(temporary / WEIGHTS, _chunks(headers[WEIGHTS], weights)),
                MOMENTUM: files.write_new(temporary / MOMENTUM, _chunks(headers[MOMENTUM], momentum)),
                STATE: files.write_new(temporary / STATE, [state_bytes]),
            }
            sequence = 1 + max((manifest.sequence for _, manifest in before if manifest), default=0)
            best = best or any(  # saved again, as at the end of an epoch and then at a signal: it is still the best
                path == final and manifest is not None and manifest.best and manifest.files[WEIGHTS] == written[WEIGHTS]
                for path, manifest in before
            )
            manifest = _manifest_bytes(_Manifest(int(step), sequence, best, written))
            files.write_new(temporary / MANIFEST, [manifest])
            if final.exists():  # aside, it counts as a checkpoint until the new one is in place
                files.move_folder(final, final.with_name(final.name + REPLACED))
            files.move_folder(temporary, final)
        if best:
            files.write_text(folder / BEST, f"{final.name}\n")
        files.write_text(folder / LATEST, f"{final.name}\n")
        _finish_replacing(folder)
        _remove_older(folder, keep)
    return final


def _finish_replacing(folder: Path) -> None:
    """Remove what was put aside and has been replaced; what was put aside for nothing gets its name back."""
    for aside in list(folder.glob(f"step-*{REPLACED}")):
        final = aside.with_name(aside.name.removesuffix(REPLACED))
        if final.exists():
            files.remove_folder(aside)
        else:
            files.move_folder(aside, final)


def _remove_older(folder: Path, keep: int) -> None:
    ordered = _in_order(folder)
    best = next((path for path, manifest in ordered if manifest and manifest.best), None)
    complete = 0
    for path, manifest in ordered:
        if complete >= keep and path != best:
            files.remove_folder(path)
        complete += manifest is not None and _sizes_match(path, manifest)


def _sizes_match(path: Path, manifest: _Manifest) -> bool:
    try:
        return all((path / name).stat().st_size == size for name, (size, _) in manifest.files.items())
    except FileNotFoundError:
        return False


# Why not the library's writer: safetensors.numpy.save_file (0.8) writes arrays that are not contiguous wrongly
# without a word, does not sync, ignores errors of close, and gives the file to its owner alone (mode 0600).
def _header(tensors: Mapping[str, Array], what: str, metadata: Mapping[str, str] | None = None) -> bytes:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        if name == "__metadata__" or tensor.dtype.name not in _SAFETENSORS_DTYPES:
            raise ConfigurationError(f"cannot save tensor {name!r} of {tensor.dtype} in {what}")
        entries[name] = {
            "dtype": _SAFETENSORS_DTYPES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
        start += tensor.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers begin at a multiple of 8 bytes
    if len(text) > HEADER_LIMIT:
        raise ConfigurationError(
            f"cannot save {what}: its metadata and the names and shapes of its tensors exceed {HEADER_LIMIT} bytes"
        )
    return struct.pack("<Q", len(text)) + text


def _chunks(header: bytes, tensors: Mapping[str, Array]) -> Iterator[Any]:
    yield header
    for tensor in tensors.values():
        little_endian = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
        yield little_endian.reshape(-1).view(np.uint8)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file of its own, whole or not at all.

    Args:
        path: path
            The file's name.
        tensors: mapping of str to array
            What it holds; written from where they are.
        metadata: mapping of str to str, optional
            What the format calls ``__metadata__``.

    Raises:
        ResourceError, ConfigurationError: As `files.translate_os_errors` says; or a tensor or metadata that the format
            cannot hold.
    """
    header = _header(tensors, str(path), metadata)
    needed = len(header) + sum(tensor.nbytes for tensor in tensors.values())
    files.write_stream(path, _chunks(header, tensors), needed=needed)


# ---------------------------------------------------------------- manifest


def _manifest_bytes(manifest: _Manifest) -> bytes:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "step": manifest.step,
        "sequence": manifest.sequence,
        "best": manifest.best,
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in manifest.files.items()},
    }
    return files.json_bytes({"content": content, "sha256": _digest_of(content)}, MANIFEST)


def _digest_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    outer = _read_json(path)
    content = outer.get("content")
    if not isinstance(content, dict) or outer.get("sha256") != _digest_of(content):
        raise CheckpointError(f"{str(path)!r} is damaged: its SHA-256 does not match")
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CheckpointError(
            f"{str(path)!r} is of format {content.get('format')!r} version {content.get('version')!r}; "
            f"this minialex reads {FORMAT!r} version {VERSION}: update minialex"
        )
    try:
        entries = {name: content["files"][name] for name in (WEIGHTS, MOMENTUM, STATE)}
        listed = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries.items()}
        return _Manifest(int(content["step"]), int(content["sequence"]), content["best"] is True, listed)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{str(path)!r} is not a manifest: {type(error).__name__} {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > JSON_LIMIT:
        raise CheckpointError(f"{str(path)!r} is larger than {files.readable_size(JSON_LIMIT)}: not a file of ours")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(path)!r} is damaged: not a JSON object")
    return value


def _unreadable(path: Path, error: OSError) -> CheckpointError | ConfigurationError:
    if isinstance(error, PermissionError):
        return ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}: ask its owner for the permission")
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{str(path)!r} is missing")
    return CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}")


# ---------------------------------------------------------------- loading


def load(folder: str | os.PathLike[str]) -> Checkpoint:
    """Read one checkpoint, every file verified by its manifest first.

    Args:
        folder: path
            The folder of the checkpoint, such as ``checkpoints/step-00001234``.

    Raises:
        CheckpointError: It is missing, incomplete or damaged; the file is named.
        ConfigurationError: It may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at {str(folder)!r}: no such folder")
    if not (folder / MANIFEST).exists() and (within := _in_order(folder)):
        newest = within[0][0].name
        raise CheckpointError(f"{str(folder)!r} is a folder of checkpoints: name one of them, such as {newest}")
    manifest = _read_manifest(folder)
    for name, expected in manifest.files.items():
        _verify(folder / name, *expected)
    return Checkpoint(
        path=folder,
        step=manifest.step,
        weights=read_safetensors(folder / WEIGHTS),
        momentum=read_safetensors(folder / MOMENTUM),
        state=_read_json(folder / STATE),
    )


def _verify(path: Path, size: int, digest: str) -> None:
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise CheckpointError(f"{str(path)!r} is damaged: {found} bytes long, should be {size}")
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise CheckpointError(f"{str(path)!r} is damaged: its SHA-256 does not match the manifest")
    except OSError as error:
        raise _unreadable(path, error) from error


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read a safetensors file, from whomever: its contents are data and cannot make anything run.

    Returns:
        dict of str to array
            The tensors; they may be written to.

    Raises:
        CheckpointError: The file is missing, cut short, or not what the format allows; a header beyond `HEADER_LIMIT`
            is not parsed.
        ConfigurationError: It may not be read.
    """
    from safetensors.numpy import load_file

    path = Path(path)
    _read_header(path)
    try:
        tensors: dict[str, Array] = load_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # the library raises its own kind and, for types that NumPy has not, four others
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {reason}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.name not in _SAFETENSORS_DTYPES:  # bfloat16, where some other package has taught it to NumPy
            raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {name!r} is {tensor.dtype.name}")
    return tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what a safetensors file says of itself, ``__metadata__``, and none of its tensors.

    Raises:
        CheckpointError, ConfigurationError: As `read_safetensors`.
    """
    path = Path(path)
    try:
        entries = json.loads(_read_header(path))
        metadata = entries.get("__metadata__", {})
        return {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read as safetensors: its header is damaged ({error})"
        ) from error


def _read_header(path: Path) -> bytes:
    """The header's JSON text, once its length is plausible."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            header = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(min(header, HEADER_LIMIT))
    except OSError as error:
        raise _unreadable(path, error) from error
    if size < 8 + header or header < 2:
        raise CheckpointError(
            f"{str(path)!r} is not a safetensors file, or cut short: it has {size} bytes and says that its header "
            f"has {header}"
        )
    if header > HEADER_LIMIT:
        raise CheckpointError(
            f"{str(path)!r} has a header of {header} bytes, and no more than {HEADER_LIMIT} are read: its tensors "
            "are not those of one network"
        )
    return text


def check_against(
    tensors: Mapping[str, Array],
    expected: Mapping[str, Sequence[int]],
    what: str,
    dtype: str | np.dtype[Any] | None = None,
) -> None:
    """Check that tensors are those of a network: every name, shape and dtype, and every value finite.

    Args:
        tensors: mapping of str to array
            What was read.
        expected: mapping of str to shape
            What the network has.
        what: str
            Where the tensors come from, for the message.
        dtype: dtype, optional
            The dtype that they must have; without it float32 or float64.

    Raises:
        CheckpointError: Naming the tensor that is missing, extra, of another shape or dtype, or not finite.
    """
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{what}: tensor {name!r} is missing: these are the weights of another network")
        found = tensors[name]
        if found.shape != tuple(shape):
            raise CheckpointError(
                f"{what}: tensor {name!r} has shape {found.shape}, this network's has {tuple(shape)}: "
                "these are the weights of another network"
            )
        allowed = ("float32", "float64") if dtype is None else (np.dtype(dtype).name,)
        if found.dtype.name not in allowed:
            raise CheckpointError(f"{what}: tensor {name!r} is {found.dtype}, should be {' or '.join(allowed)}")
    for name in tensors:
        if name not in expected:
            raise CheckpointError(
                f"{what}: tensor {name!r} is not in this network: these are the weights of another network"
            )
    for name, found in tensors.items():
        wrong = found.size - np.count_nonzero(np.isfinite(found))
        if wrong:
            raise CheckpointError(
                f"{what}: tensor {name!r} has {wrong} of {found.size} values that are not finite: use an earlier "
                "checkpoint"
            )


# ---------------------------------------------------------------- which one


def to_standard_error(message: str) -> None:
    """Print a warning as a line on stderr."""
    print(f"warning: {message}", file=sys.stderr)


def latest(folder: str | os.PathLike[str], warn: Warn = to_standard_error) -> Checkpoint | None:
    """Read the newest checkpoint that verifies.

    Args:
        folder: path
            Folder of the checkpoints.
        warn: callable
            Told about each newer one that is damaged or gone.

    Returns:
        Checkpoint or None
            None only if no checkpoint was ever completed here.

    Raises:
        CheckpointError: There are checkpoints and all are damaged, or there were and all are gone.
        ConfigurationError: A checkpoint may not be read.
    """
    folder = Path(folder)
    ordered = _in_order(folder)
    problems: list[str] = []
    named = _pointed_at(folder / LATEST)
    if named and not any(_step_of(path) == _step_of(folder / named) for path, _ in ordered):
        problems.append(f"checkpoint {named}, named by {str(folder / LATEST)!r}, is gone")
    for path, _ in ordered:
        try:
            found = load(path)
        except CheckpointError as error:
            problems.append(f"checkpoint {path.name} cannot be used: {error}")
            continue
        for problem in problems:
            warn(f"{problem}; continuing from {path.name} instead")
        return found
    if problems:
        raise CheckpointError(
            f"no checkpoint in {str(folder)!r} can be used: {'; '.join(problems)}: restore one from a copy, or begin "
            "anew with another --out"
        )
    return None


def best(folder: str | os.PathLike[str], warn: Warn = to_standard_error) -> Checkpoint:
    """Read the checkpoint that was saved as the best, else the newest that verifies.

    Args:
        folder: path
            Folder of the checkpoints.
        warn: callable
            Told about one that is damaged; not about a best one that was never saved.

    Raises:
        CheckpointError: There is none that can be used.
        ConfigurationError: A checkpoint may not be read.
    """
    folder = Path(folder)
    ordered = _in_order(folder)
    named = _pointed_at(folder / BEST)
    chosen = next((path for path, manifest in ordered if manifest and manifest.best), None)
    if named and not any(_step_of(path) == _step_of(folder / named) and manifest for path, manifest in ordered):
        chosen = folder / named  # gone, or its manifest cannot be read: only the pointer still knows about it
    problem = None
    if chosen:
        try:
            return load(chosen)
        except CheckpointError as error:
            problem = f"the best checkpoint, {chosen.name}, cannot be used: {error}"
    found = latest(folder, warn)
    if found is None:
        raise CheckpointError(f"no checkpoint in {str(folder)!r}: train first")
    if problem:
        warn(f"{problem}; using {found.path.name} instead")
    return found


def _in_order(folder: Path) -> list[tuple[Path, _Manifest | None]]:
    """Checkpoints, the one saved last first; with its manifest, or None if that cannot be read."""
    found: list[tuple[Path, _Manifest | None]] = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:  # not the same as an empty folder: a run would begin anew
        raise _unreadable(folder, error) from error
    for path in (folder / name for name in names if _NAME.fullmatch(name)):
        if path.is_dir():
            try:
                found.append((path, _read_manifest(path)))
            except CheckpointError:
                found.append((path, None))

    def order(entry: tuple[Path, _Manifest | None]) -> tuple[float, int]:
        path, manifest = entry
        if manifest:
            return manifest.sequence, manifest.step
        step = _step_of(path)  # a place by its step, for want of a better one: after the last that is not later
        earlier = (other.sequence for _, other in found if other and other.step <= step)
        return max(earlier, default=0) + 0.5, step

    return sorted(found, key=order, reverse=True)


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _pointed_at(pointer: Path) -> str | None:
    try:
        name = pointer.read_bytes()[:100].decode(errors="replace").strip()
    except OSError:
        return None
    return name if _NAME.fullmatch(name) else None

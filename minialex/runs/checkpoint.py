"""Checkpoints: what a run needs to continue bit for bit, stored so that neither a kill nor a fault can damage it.

A checkpoint is a folder, ``step-00001234``, of four files: ``weights.safetensors``, ``momentum.safetensors``,
``state.json``, and ``manifest.json`` with the size and the SHA-256 of the other three. It is written under a
temporary name, synced and renamed: it counts from the rename on. Small files beside the folders, ``latest`` and
``best``, name the newest and the best for people and programs; they are replaced last, and reading does not depend
on them, since a kill may come before that.

Checkpoints are ordered by the number of the save, ``sequence`` in the manifest, not by the step: a run that went
back to an earlier step and took a different path continues on that path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minialex.errors import CheckpointError, ConfigurationError
from minialex.screen.formats import readable_size
from minialex.storage import atomic, safetensors

FORMAT = "minialex checkpoint"
VERSION = 1
WEIGHTS, MOMENTUM, STATE, MANIFEST = "weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"
LATEST, BEST = "latest", "best"
REPLACED = ".replaced"
MANIFEST_BYTES = 1024  # about
JSON_LIMIT = 16 * 1024 * 1024  # bytes
_NAME = re.compile(r"step-(\d{8,})(?:\.replaced)?")

Array = np.ndarray[Any, Any]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified."""

    path: Path  # its folder
    step: int  # number of update steps done
    weights: dict[str, Array]  # parameters by name
    momentum: dict[str, Array]  # and their momentum
    state: dict[str, Any]  # JSON values: everything else the run needs to continue


class NewerFormat(CheckpointError):
    """A checkpoint of a newer minialex: it is not damaged, so no older one is used in its place."""


@dataclass(frozen=True)
class _Manifest:
    step: int
    sequence: int
    best: bool
    files: dict[str, tuple[int, str]]  # name -> bytes, SHA-256


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
    """Save a checkpoint atomically: whenever this is stopped, earlier ones are intact, and the new one exists or not.

    The arrays are written in place, without a copy (unless they are not contiguous). Only one process at a time may
    save to a folder, which the run's lock ensures.

    Args:
        folder: the folder of the checkpoints; created if it is missing
        step: number of update steps done; an existing checkpoint of the same step is replaced
        weights, momentum: parameters and their momentum
        state: JSON values
        keep: number of checkpoints to keep, at least 2: the new one and the one before it. Older ones, except the best,
            are removed once the new one is complete.
        best: whether this is the best so far

    Returns:
        The checkpoint's folder.

    Raises:
        ResourceError: the disk is full or failing, or a limit was reached; says what was needed and what is free
        ConfigurationError: the folder is not writable, or an argument is invalid
    """
    if step < 0 or keep < 2:
        raise ConfigurationError(f"a checkpoint needs step >= 0 and keep >= 2, got step={step} and keep={keep}")
    folder = Path(folder)
    final = folder / f"step-{step:08d}"
    state_bytes = atomic.json_bytes(dict(state), final / STATE)
    arrays = {WEIGHTS: weights, MOMENTUM: momentum}
    headers = {name: safetensors.header(tensors, name) for name, tensors in arrays.items()}
    atomic.make_folder(folder)
    sizes = [len(headers[name]) + sum(a.nbytes for a in tensors.values()) for name, tensors in arrays.items()]
    needed = atomic.on_disk([*sizes, len(state_bytes), MANIFEST_BYTES], folder)
    with atomic.translate_os_errors(final, needed):
        atomic.remove_stale(folder)
        _finish_replacing(folder)
        before = _in_order(folder)
        with atomic.new_folder(final) as temporary:
            written = {
                name: atomic.write_new(temporary / name, safetensors.chunks(headers[name], tensors))
                for name, tensors in arrays.items()
            }
            written[STATE] = atomic.write_new(temporary / STATE, [state_bytes])
            sequence = 1 + max((manifest.sequence for _, manifest in before if manifest), default=0)
            best = best or any(  # saved again, say at an epoch's end and then at a signal: still the best
                path == final and manifest is not None and manifest.best and manifest.files[WEIGHTS] == written[WEIGHTS]
                for path, manifest in before
            )
            listed = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in written.items()}
            content = {"format": FORMAT, "version": VERSION, "step": int(step), "sequence": sequence, "best": best}
            content["files"] = listed
            manifest_bytes = atomic.json_bytes({"content": content, "sha256": _digest_of(content)}, MANIFEST)
            atomic.write_new(temporary / MANIFEST, [manifest_bytes])
            if final.exists():  # moved aside, it counts as a checkpoint until the new one is in place
                atomic.move_folder(final, final.with_name(final.name + REPLACED))
            atomic.move_folder(temporary, final)
        if best:
            atomic.write_text(folder / BEST, f"{final.name}\n")
        atomic.write_text(folder / LATEST, f"{final.name}\n")
        _finish_replacing(folder)
        _remove_older(folder, keep)
    return final


def _finish_replacing(folder: Path) -> None:
    """Remove a checkpoint that was moved aside and replaced; if it was not replaced, give it its name back."""
    for aside in list(folder.glob(f"step-*{REPLACED}")):
        final = aside.with_name(aside.name.removesuffix(REPLACED))
        if final.exists():
            atomic.remove_folder(aside)
        else:
            atomic.move_folder(aside, final)


def _remove_older(folder: Path, keep: int) -> None:
    ordered = _in_order(folder)
    best = next((path for path, manifest in ordered if manifest and manifest.best), None)
    complete = 0
    for path, manifest in ordered:
        if complete >= keep and path != best:
            atomic.remove_folder(path)
        complete += manifest is not None and _sizes_match(path, manifest)


def _sizes_match(path: Path, manifest: _Manifest) -> bool:
    try:
        return all((path / name).stat().st_size == size for name, (size, _) in manifest.files.items())
    except FileNotFoundError:
        return False


def _digest_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    outer = _read_json(path)
    content = outer.get("content")
    if not isinstance(content, dict) or outer.get("sha256") != _digest_of(content):
        raise CheckpointError(f"{str(path)!r} is damaged: its SHA-256 does not match")
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        kind = NewerFormat if content.get("format") == FORMAT else CheckpointError
        raise kind(
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
        raise atomic.unreadable(path, error) from error
    if len(data) > JSON_LIMIT:
        raise CheckpointError(f"{str(path)!r} is larger than {readable_size(JSON_LIMIT)}: not a file of ours")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(path)!r} is damaged: not a JSON object")
    return value


def load(folder: str | os.PathLike[str]) -> Checkpoint:
    """Read one checkpoint, such as ``checkpoints/step-00001234``; its manifest verifies every file first.

    Raises:
        CheckpointError: it is missing, incomplete or damaged; the message names the file
        ConfigurationError: it may not be read
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
    weights, momentum = (safetensors.read(folder / name) for name in (WEIGHTS, MOMENTUM))
    return Checkpoint(folder, manifest.step, weights, momentum, _read_json(folder / STATE))


def _verify(path: Path, size: int, digest: str) -> None:
    try:
        with open(path, "rb") as file:
            nbytes = os.fstat(file.fileno()).st_size
            if nbytes != size:
                raise CheckpointError(f"{str(path)!r} is damaged: {nbytes} bytes long, should be {size}")
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise CheckpointError(f"{str(path)!r} is damaged: its SHA-256 does not match the manifest")
    except OSError as error:
        raise atomic.unreadable(path, error) from error


def follow(path: Path) -> Path:
    """The checkpoint that ``checkpoints/latest`` or ``checkpoints/best`` names; any other path unchanged.

    Raises:
        CheckpointError: the named checkpoint is gone
    """
    named = _pointed_at(path) if path.name in (LATEST, BEST) and path.is_file() else None
    if named is None:
        return path
    if not (path.parent / named).is_dir():
        raise CheckpointError(f"checkpoint {named}, named by {str(path)!r}, is gone: name another one, or the run")
    return path.parent / named


def check_against(
    tensors: Mapping[str, Array],
    expected: Mapping[str, Sequence[int]],
    what: str,
    dtype: str | np.dtype[Any] | None = None,
) -> None:
    """Check that tensors are a network's: every name, shape and dtype, and that every value is finite.

    Args:
        expected: the shapes of the network's tensors
        what: where the tensors come from, for the message
        dtype: the required dtype; if None, float32 or float64

    Raises:
        CheckpointError: names the tensor that is missing, extra, of another shape or dtype, or not finite
    """
    another = "these are the weights of another network"
    allowed = ("float32", "float64") if dtype is None else (np.dtype(dtype).name,)
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{what}: tensor {name!r} is missing: {another}")
        tensor = tensors[name]
        if tensor.shape != tuple(shape):
            own = f"this network's has {tuple(shape)}"
            raise CheckpointError(f"{what}: tensor {name!r} has shape {tensor.shape}, {own}: {another}")
        if tensor.dtype.name not in allowed:
            raise CheckpointError(f"{what}: tensor {name!r} is {tensor.dtype}, should be {' or '.join(allowed)}")
    for name in tensors:
        if name not in expected:
            raise CheckpointError(f"{what}: tensor {name!r} is not in this network: {another}")
    for name, tensor in tensors.items():
        wrong = tensor.size - np.count_nonzero(np.isfinite(tensor))
        if wrong:
            many = f"{wrong} of {tensor.size} values that are not finite"
            raise CheckpointError(f"{what}: tensor {name!r} has {many}: use an earlier checkpoint")


def to_standard_error(message: str) -> None:
    """Print a warning as a line on stderr."""
    print(f"warning: {message}", file=sys.stderr)


def latest(folder: str | os.PathLike[str], warn: Warn = to_standard_error) -> Checkpoint | None:
    """Read the newest checkpoint that verifies.

    Args:
        warn: called for each newer one that is damaged or gone

    Returns:
        None only if no checkpoint was ever completed here.

    Raises:
        CheckpointError: all checkpoints are damaged, or all that existed are gone
        ConfigurationError: a checkpoint is not readable
    """
    folder = Path(folder)
    ordered = _in_order(folder)
    problems: list[str] = []
    named = _pointed_at(folder / LATEST)
    if named and not any(_step_of(path) == _step_of(folder / named) for path, _ in ordered):
        problems.append(f"checkpoint {named}, named by {str(folder / LATEST)!r}, is gone")
    for path, _ in ordered:
        try:
            checkpoint = load(path)
        except CheckpointError as error:
            problems.append(f"checkpoint {path.name} cannot be used: {error}")
            continue
        for problem in problems:
            warn(f"{problem}; continuing from {path.name} instead")
        return checkpoint
    if problems:
        raise CheckpointError(
            f"no checkpoint in {str(folder)!r} can be used: {'; '.join(problems)}: restore one from a copy, or start "
            "over in another folder"
        )
    return None


def best(folder: str | os.PathLike[str], warn: Warn = to_standard_error) -> Checkpoint:
    """Read the checkpoint that was saved as the best, else the newest one that verifies.

    Args:
        warn: called for a damaged one, not for a best one that was never saved

    Raises:
        CheckpointError: there is no usable one
        ConfigurationError: a checkpoint is not readable
    """
    folder = Path(folder)
    ordered = _in_order(folder)
    named = _pointed_at(folder / BEST)
    chosen = next((path for path, manifest in ordered if manifest and manifest.best), None)
    if named and not any(_step_of(path) == _step_of(folder / named) and manifest for path, manifest in ordered):
        chosen = folder / named  # gone, or with an unreadable manifest: only the pointer still names it
    problem = None
    if chosen:
        try:
            return load(chosen)
        except CheckpointError as error:
            problem = f"the best checkpoint, {chosen.name}, cannot be used: {error}"
    newest = latest(folder, warn)
    if newest is None:
        raise CheckpointError(f"no checkpoint in {str(folder)!r}: train first, or restore them from a copy")
    if problem:
        warn(f"{problem}; using {newest.path.name} instead")
    return newest


def _in_order(folder: Path) -> list[tuple[Path, _Manifest | None]]:
    """Checkpoints, last saved first, each with its manifest, or None if that is unreadable."""
    entries: list[tuple[Path, _Manifest | None]] = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:  # not the same as an empty folder, in which a run would start over
        raise atomic.unreadable(folder, error) from error
    for path in (folder / name for name in names if _NAME.fullmatch(name)):
        if path.is_dir():
            try:
                entries.append((path, _read_manifest(path)))
            except NewerFormat:
                raise
            except CheckpointError:
                entries.append((path, None))

    def order(entry: tuple[Path, _Manifest | None]) -> tuple[float, int]:
        path, manifest = entry
        if manifest:
            return manifest.sequence, manifest.step
        step = _step_of(path)  # for want of better, placed by its step: after the last one that is not later
        earlier = (other.sequence for _, other in entries if other and other.step <= step)
        return max(earlier, default=0) + 0.5, step

    return sorted(entries, key=order, reverse=True)


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _pointed_at(pointer: Path) -> str | None:
    try:
        name = pointer.read_bytes()[:100].decode(errors="replace").strip()
    except OSError:
        return None
    return name if _NAME.fullmatch(name) else None

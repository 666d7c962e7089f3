"""PyTorch's files of tensors (``.pt``, ``.pth``), read and written without PyTorch.

Read are state dictionaries as ``torch.save`` writes them: the zip archive of today, and the row of pickles of before
2020. The pickle in them is interpreted by `minialex.data.sets.safe_pickle`; nothing that it names is imported or
called, and a file that says anything but plain containers and tensors is refused. Written is the zip archive.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.sets.safe_pickle import DAMAGE, Dialect, Name, Refused, interpret
from minialex.errors import CheckpointError
from minialex.storage import atomic

PICKLE_LIMIT = 16 * 1024 * 1024  # bytes; AlexNet's pickle has 2 kB
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number that older files begin with, as a pickle
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dictionary
DATA_PARALLEL = "module."  # what torch.nn.DataParallel puts before every name

_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ByteStorage": "<u1", "BoolStorage": "<u1",
}  # fmt: skip
_ORDERED = Name("collections", "OrderedDict")
_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = Name("torch._utils", "_rebuild_parameter")


@dataclass(frozen=True)
class _Storage:
    """A row of numbers outside the pickle."""

    kind: str
    key: str
    count: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_DTYPES[self.kind])


@dataclass(frozen=True)
class _Tensor:
    """A tensor that the pickle describes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor's shape is damaged")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and (last >= self.storage.count or math.prod(self.shape) > self.storage.count):
            raise ValueError(f"a tensor of shape {self.shape} does not fit into its {self.storage.count} numbers")


def _call(function: Any, arguments: Any) -> Any:
    """The calls that a state dictionary takes, by our own hands."""
    if type(arguments) is tuple:
        if function == _ORDERED and arguments == ():
            return {}
        if function == _TENSOR and len(arguments) in (6, 7) and type(arguments[0]) is _Storage:
            storage, offset, shape, strides = arguments[:4]
            if type(shape) is tuple and type(strides) is tuple:
                return _Tensor(storage, offset, shape, strides)
        if function == _PARAMETER and len(arguments) == 3 and type(arguments[0]) is _Tensor:
            return arguments[0]
    raise Refused("make that call")


def _build(target: Any, state: Any) -> None:
    """A state dictionary carries ``_metadata``, the versions of its modules, which nobody needs here."""
    if type(target) is not dict or type(state) is not dict:
        raise Refused("change an object")


def _persistent(identity: Any) -> _Storage:
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise Refused("refer to something that is no row of numbers")
    kind, key, _, count = identity[1:5]
    view = identity[5] if len(identity) == 6 else None
    if type(kind) is not Name or type(key) is not str or type(count) is not int or count < 0 or view is not None:
        raise ValueError("a row of numbers is described wrongly")
    return _Storage(kind.name, key, count)


_STORAGES = {Name("torch", kind) for kind in _DTYPES}
DIALECT = Dialect(frozenset({_ORDERED, _TENSOR, _PARAMETER, *_STORAGES}), _call, _build, _persistent)


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dictionary by name, as float32, float64 or whole numbers; float16 become float32.

    Raises:
        CheckpointError: If the file is missing, damaged, or no state dictionary of plain tensors; nothing of it was
            run.
    """
    try:
        with open(path, "rb") as file:
            legacy = file.read(len(LEGACY)) == LEGACY
        tensors = _read_legacy(path) if legacy else _read_zip(path)
    except Refused as refusal:
        raise CheckpointError(
            f"{path} is refused, because a file of weights has no need to {refusal}; nothing of it was run: save the "
            "state dictionary alone, torch.save(model.state_dict(), FILE)"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except (*DAMAGE, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as damage:
        raise CheckpointError(f"{path} is damaged, or no PyTorch file: {damage}") from None
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors


def _read_zip(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(names) != len(set(names)):
            raise ValueError("it is not an archive of one state dictionary")
        folder = pickles[0].removesuffix("data.pkl")
        if folder + "constants.pkl" in names:
            raise Refused("hold a program (TorchScript)")
        size = os.path.getsize(path)

        def record(name: str, most: int) -> bytes:
            info = archive.getinfo(folder + name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise Refused("be compressed")
            if info.file_size > min(most, size):
                raise ValueError(f"{name} has {info.file_size} bytes")
            return archive.read(info)

        value, end = interpret(pickled := record("data.pkl", PICKLE_LIMIT), DIALECT)
        if end != len(pickled):
            raise ValueError("more follows the end of its pickle")
        big = folder + "byteorder" in names and record("byteorder", 16).strip() == b"big"

        def numbers(storage: _Storage) -> NDArray[Any]:
            dtype = storage.dtype.newbyteorder(">") if big else storage.dtype
            content = record(f"data/{storage.key}", storage.count * dtype.itemsize)
            if len(content) != storage.count * dtype.itemsize:
                raise ValueError(f"data/{storage.key} has {len(content)} bytes, not {storage.count} numbers")
            return np.frombuffer(content, dtype)

        return _arrays(value, numbers)


def _read_legacy(path: Path) -> dict[str, NDArray[Any]]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(PICKLE_LIMIT)
        offset = len(LEGACY)
        values = []
        for _ in range(4):  # the protocol's version, the machine, the state dictionary, the order of the rows
            value, end = interpret(head[offset:], DIALECT)
            values.append(value)
            offset += end
        _, machine, value, order = values
        if type(order) is not list or type(machine) is not dict or machine.get("little_endian") is not True:
            raise ValueError("its numbers are not little-endian, or their order is missing")
        described = {tensor.storage.key: tensor.storage for tensor in _tensors(value).values()}
        rows: dict[str, NDArray[Any]] = {}
        for key in order:
            if type(key) is not str or key in rows:
                raise ValueError("the order of its rows of numbers is damaged")
            file.seek(offset)
            (count,) = struct.unpack("<q", file.read(8))
            storage = described.get(key)
            if storage is None or storage.count != count or offset + 8 + count * storage.dtype.itemsize > size:
                raise ValueError("its rows of numbers are not those of its tensors")
            rows[key] = np.fromfile(file, storage.dtype, count)
            offset += 8 + count * storage.dtype.itemsize
        return _arrays(value, lambda storage: rows[storage.key])


def _tensors(value: Any) -> dict[str, _Tensor]:
    """The state dictionary in what the pickle holds: at its top, or where training scripts put it."""
    if type(value) is not dict:
        raise ValueError("it holds no dictionary")
    value = next((value[name] for name in CONTAINERS if type(value.get(name)) is dict), value)
    tensors = {name: item for name, item in value.items() if type(name) is str and type(item) is _Tensor}
    if all(name.startswith(DATA_PARALLEL) for name in tensors):
        return {name.removeprefix(DATA_PARALLEL): tensor for name, tensor in tensors.items()}
    return tensors


def _arrays(value: Any, numbers: Callable[[_Storage], NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The described tensors with their numbers; together they may not be more than the file has."""
    tensors = _tensors(value)
    rows = {tensor.storage for tensor in tensors.values()}
    if sum(math.prod(t.shape) for t in tensors.values()) > sum(storage.count for storage in rows):
        raise Refused("show one row of numbers in several tensors")
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        row = numbers(tensor.storage)
        if tensor.storage.kind == "BFloat16Storage":
            row = (row.astype(np.uint32) << 16).view(np.float32)
        elif tensor.storage.kind == "HalfStorage":
            row = row.astype(np.float32)
        steps = tuple(step * row.itemsize for step in tensor.strides)
        # __post_init__ has seen to it that the last element is inside
        shown = np.lib.stride_tricks.as_strided(row[tensor.offset :], tensor.shape, steps, writeable=False)
        arrays[name] = np.array(shown, dtype=row.dtype.newbyteorder("="), order="C")
    return arrays


def write(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write a state dictionary of float32 tensors that ``torch.load(path, weights_only=True)`` reads.

    Raises:
        ResourceError, ConfigurationError: If it cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)  # of 1980: the same bytes every time

        add("data.pkl", _pickled(tensors))
        add("byteorder", b"little")
        for number, array in enumerate(tensors.values()):
            add(f"data/{number}", np.ascontiguousarray(array, "<f4").tobytes())
        add("version", b"3\n")
    with buffer.getbuffer() as view:
        atomic.write_stream(path, [view], needed=len(view))


def _pickled(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The pickle of an OrderedDict of tensors, instruction by instruction: what ``torch.save`` makes of one."""
    empty = b"ccollections\nOrderedDict\n)R"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t"

    parts = [b"\x80\x02", empty, b"("]
    for number, (name, array) in enumerate(tensors.items()):
        strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(number)) + text("cpu")
        parts += [
            text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(", storage, b"J", struct.pack("<i", array.size), b"tQ",
            b"K\x00", numbers(array.shape), numbers(strides), b"\x89", empty, b"tR",
        ]  # fmt: skip
    return b"".join([*parts, b"u."])

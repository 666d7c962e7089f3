"""PyTorch's files of tensors (``.pt``, ``.pth``), read and written without PyTorch.

It reads state dictionaries written by ``torch.save``: today's zip archive, and the sequence of pickles used before
2020. Their pickle is interpreted by `minialex.data.sets.safe_pickle`; nothing that it names is imported or called.
Anything but containers and tensors (a script's arguments, an optimizer's own classes, NumPy scalars) is left out and
reported; if no tensors remain, the file is refused. It writes the zip archive.
"""

from __future__ import annotations

import io
import math
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.sets.safe_pickle import DAMAGE, Dialect, Foreign, Name, Refused, interpret
from minialex.errors import CheckpointError
from minialex.storage import atomic

PICKLE_LIMIT = 16 * 1024 * 1024  # bytes; AlexNet's pickle has 2 kB
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number at the beginning of older files, as a pickle
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dictionary
SPARE = 4096  # numbers that tensors may view beyond twice those of their storages
NAMED = 5  # how many omissions are named

_DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "<u1", "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16",
}  # fmt: skip
_ENCODE = Name("_codecs", "encode")
_ORDERED = Name("collections", "OrderedDict")
_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETERS = (Name("torch._utils", "_rebuild_parameter"), Name("torch._utils", "_rebuild_parameter_with_state"))


@dataclass(frozen=True)
class _Storage:
    """A storage: a row of numbers outside the pickle."""

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
        if math.prod(self.shape) and last >= self.storage.count:
            raise ValueError(f"a tensor of shape {self.shape} does not fit into its {self.storage.count} numbers")


def _call(function: Any, arguments: Any) -> Any:
    """Carry out the calls that a state dictionary needs, by our own code; no others."""
    if type(arguments) is not tuple or type(function) not in (Name, Foreign):
        raise Refused("make that call")
    if function == _ORDERED and arguments == ():
        return {}
    if function == _TENSOR and len(arguments) in (6, 7) and type(arguments[0]) is _Storage:
        storage, offset, shape, strides = arguments[:4]
        if storage.kind not in _DTYPES:
            return Foreign(Name("torch", storage.kind), {})
        if type(shape) is tuple and type(strides) is tuple:
            return _Tensor(storage, offset, shape, strides)
    if function in _PARAMETERS and len(arguments) >= 3 and type(arguments[0]) is _Tensor:
        return arguments[0]
    if type(function) is Foreign:
        function = function.name
    if function == _ENCODE:
        return b""  # how protocol 2 writes bytes, which are not needed here
    of = [word for word in arguments if type(word) is Name] if function.module in ("copy_reg", "copyreg") else []
    return Foreign(of[0] if of else function, {})  # copyreg creates an object of the given class


def _build(target: Any, state: Any) -> None:
    """Drop a state dictionary's ``_metadata``, the versions of its modules, and any foreign state."""
    if type(target) is not Foreign and (type(target) is not dict or type(state) is not dict):
        raise Refused("change an object")


def _persistent(identity: Any) -> _Storage:
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise Refused("refer to something other than numbers")
    kind, key, _, count = identity[1:5]
    view = identity[5] if len(identity) == 6 else None
    if type(kind) is not Name or type(key) is not str or type(count) is not int or count < 0 or view is not None:
        raise ValueError("its numbers are described wrongly")
    return _Storage(kind.name if kind.module == "torch" else str(kind), key, count)


def read(path: Path, say: Callable[[str], None] = lambda line: None) -> dict[str, NDArray[Any]]:
    """The tensors of a state dictionary by name, as float32, float64 or integers; 16-bit floats become float32.

    Args:
        path: the file
        say: called with one line on what was left out besides plain numbers and text

    Raises:
        CheckpointError: If the file is missing, damaged, or not a state dictionary of plain tensors; nothing in it was
            executed.
    """
    try:
        with open(path, "rb") as file:
            legacy = file.read(len(LEGACY)) == LEGACY
        tensors, left_out = _read_legacy(path) if legacy else _read_zip(path)
    except Refused as refusal:
        raise CheckpointError(
            f"{path} is refused, because a weights file has no need to {refusal}; none of it was executed: save the "
            "state dictionary alone, torch.save(model.state_dict(), FILE)"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except (*DAMAGE, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as damage:
        if tarfile.is_tarfile(path):
            raise CheckpointError(
                f"{path} is a tar archive, as PyTorch wrote them before 2017: save it once more with a PyTorch that "
                "reads it, torch.save(torch.load(FILE), NEW)"
            ) from None
        raise CheckpointError(f"{path} is damaged, or no PyTorch file: {damage}") from None
    if left_out:
        more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        named = ", ".join(left_out[:NAMED]) + more
        say(f"{path}: left out {named}; none of it was executed")
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors


_Found = tuple[dict[str, NDArray[Any]], list[str]]  # the tensors, and the names of what was left out


def _read_zip(path: Path) -> _Found:
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

        dialect = Dialect(None, _call, _build, _persistent)
        value, end = interpret(pickled := record("data.pkl", PICKLE_LIMIT), dialect)
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


def _read_legacy(path: Path) -> _Found:
    described: dict[str, _Storage] = {}  # of all tensors: their storages follow one another

    def persistent(identity: Any) -> _Storage:
        storage = _persistent(identity)
        return described.setdefault(storage.key, storage)

    dialect = Dialect(None, _call, _build, persistent)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(PICKLE_LIMIT)
        offset = len(LEGACY)
        values = []
        for _ in range(4):  # the protocol's version, the machine, the state dictionary, the order of the storages
            value, end = interpret(head[offset:], dialect)
            values.append(value)
            offset += end
        _, machine, value, order = values
        if type(order) is not list or type(machine) is not dict or machine.get("little_endian") is not True:
            raise ValueError("its numbers are not little-endian, or their order is missing")
        wanted = {tensor.storage for tensor in _tensors(value)[0].values()}
        rows: dict[str, NDArray[Any]] = {}
        done: set[str] = set()
        for key in order:
            if type(key) is not str or key in done:
                raise ValueError("the order of its rows of numbers is damaged")
            done.add(key)
            file.seek(offset)
            (count,) = struct.unpack("<q", file.read(8))
            storage = described.get(key)
            if storage is None or storage.count != count or offset + 8 + count * storage.dtype.itemsize > size:
                raise ValueError("its rows of numbers are not those of its tensors")
            if storage in wanted:
                rows[key] = np.fromfile(file, storage.dtype, count)
            offset += 8 + count * storage.dtype.itemsize
        return _arrays(value, lambda storage: rows[storage.key])


def _tensors(value: Any) -> tuple[dict[str, _Tensor], list[str]]:
    """The state dictionary in a pickle's value, and what is beside its tensors.

    It may be at the top level, where training scripts put it, or in the only dictionary there that contains tensors.
    """
    if type(value) is Foreign and not value.items:
        raise Refused(f"hold a whole object, {value.name.module}.{value.name.name},")
    beside: list[str] = []
    while True:
        items = _items(value)
        if items is None:
            raise ValueError("it holds no dictionary")
        tensors = {name: item for name, item in items.items() if type(name) is str and type(item) is _Tensor}
        inner = {name: item for name, item in items.items() if _has_tensors(item)}
        chosen = next((name for name in CONTAINERS if name in inner), None)
        if chosen is None and not tensors and len(inner) == 1:
            (chosen,) = inner
        if chosen is None and not tensors and inner:
            raise ValueError(f"it holds several dictionaries of tensors, {', '.join(map(repr, inner))}: save one alone")
        keep = tensors if chosen is None else {chosen: None}
        others = ((name, item) for name, item in items.items() if name not in keep)
        beside += [_described(name, item) for name, item in others if type(item) in (dict, Foreign, _Tensor)]
        if chosen is None:
            break
        value = inner[chosen]
    foreign = [line for line in beside if line.endswith(")")]
    if not tensors and foreign:
        raise Refused(f"hold {', '.join(foreign[:NAMED])} and no tensors")
    return tensors, beside


def _items(value: Any) -> dict[Any, Any] | None:
    if type(value) is Foreign:
        return value.items
    return value if type(value) is dict else None


def _has_tensors(value: Any, depth: int = 2) -> bool:
    """Whether a dictionary has named tensors, at its top level or in a dictionary where scripts put them."""
    items = _items(value) or {}
    inner = [items[name] for name in CONTAINERS if name in items] if depth else []
    return any(type(name) is str and type(item) is _Tensor for name, item in items.items()) or any(
        _has_tensors(item, depth - 1) for item in inner
    )


def _described(name: Any, item: Any) -> str:
    what = f" ({item.name.module}.{item.name.name})" if type(item) is Foreign else ""
    return f"{name!r}{what}"


def _arrays(value: Any, numbers: Callable[[_Storage], NDArray[Any]]) -> _Found:
    """The described tensors with their numbers; together they may view little more than twice the file's numbers."""
    tensors, beside = _tensors(value)
    rows: dict[_Storage, list[str]] = {}
    for name, tensor in tensors.items():
        rows.setdefault(tensor.storage, []).append(name)
    if sum(math.prod(t.shape) for t in tensors.values()) > SPARE + 2 * sum(storage.count for storage in rows):
        raise Refused("show its numbers again and again in its tensors")
    arrays: dict[str, NDArray[Any]] = {}
    for storage, names in rows.items():
        row = numbers(storage)
        if storage.kind == "BFloat16Storage":
            row = (row.astype(np.uint32) << 16).view(np.float32)
        elif storage.kind == "HalfStorage":
            row = row.astype(np.float32)
        for name in names:
            tensor = tensors[name]
            steps = tuple(step * row.itemsize for step in tensor.strides)
            # __post_init__ has checked that the last element is inside
            shown = np.lib.stride_tricks.as_strided(row[tensor.offset :], tensor.shape, steps, writeable=False)
            arrays[name] = np.array(shown, dtype=row.dtype.newbyteorder("="), order="C")
    return {name: arrays[name] for name in tensors}, beside


def write(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write a state dictionary of float32 tensors that ``torch.load(path, weights_only=True)`` reads.

    Raises:
        ResourceError, ConfigurationError: If it cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)  # dated 1980: the same bytes every time

        add("data.pkl", _pickled(tensors))
        add("byteorder", b"little")
        for number, array in enumerate(tensors.values()):
            add(f"data/{number}", np.ascontiguousarray(array, "<f4").tobytes())
        add("version", b"3\n")
    with buffer.getbuffer() as view:
        atomic.write_stream(path, [view], needed=len(view))


def _pickled(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The pickle of an OrderedDict of tensors, instruction by instruction, as written by ``torch.save``."""
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

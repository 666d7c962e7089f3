"""The only reader and the only writer of safetensors files.

The writer is not the library's: safetensors.numpy.save_file (0.8) silently writes non-contiguous arrays wrongly, does
not sync, ignores errors of close, and makes the file private to its owner (mode 0600). This one writes the arrays in
place, in one pass, and equal arrays give equal bytes.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minialex.errors import CheckpointError, ConfigurationError
from minialex.storage import atomic

HEADER_LIMIT = 1024 * 1024  # bytes; AlexNet's header has 2 kB
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip
"""Names of the types that files may contain, by NumPy's names."""

Array = np.ndarray[Any, Any]


def header(tensors: Mapping[str, Array], what: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """The header of a file with some tensors, for `chunks`; `what` is for error messages.

    Raises:
        ConfigurationError: a tensor or metadata that the format cannot represent
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        if name == "__metadata__" or tensor.dtype.name not in DTYPES:
            raise ConfigurationError(f"cannot save tensor {name!r} of {tensor.dtype} in {what}")
        offsets = [start, start + tensor.nbytes]
        entries[name] = {"dtype": DTYPES[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": offsets}
        start += tensor.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # aligns the numbers to 8 bytes
    if len(text) > HEADER_LIMIT:
        raise ConfigurationError(
            f"cannot save {what}: its metadata and the names and shapes of its tensors exceed {HEADER_LIMIT} bytes"
        )
    return struct.pack("<Q", len(text)) + text


def chunks(beginning: bytes, tensors: Mapping[str, Array]) -> Iterator[Any]:
    """The contents of a file as a sequence of contiguous buffers; contiguous arrays are not copied."""
    yield beginning
    for tensor in tensors.values():
        little_endian = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
        yield little_endian.reshape(-1).view(np.uint8)


def write(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> str:
    """Write a file, completely or not at all.

    Args:
        tensors: the contents; written in place
        metadata: the format's ``__metadata__``

    Returns:
        Its SHA-256 in hexadecimal.

    Raises:
        ResourceError, ConfigurationError: as in `atomic.translate_os_errors`; or a tensor or metadata that the format
            cannot represent
    """
    beginning = header(tensors, str(path), metadata)
    needed = len(beginning) + sum(tensor.nbytes for tensor in tensors.values())
    return atomic.write_stream(path, chunks(beginning, tensors), needed=needed)[1]


def read(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read a file from any source: its contents are only data, and nothing in it is executed.

    Returns:
        The tensors, writable. bfloat16, which NumPy lacks, becomes float32, exactly.

    Raises:
        CheckpointError: missing, truncated, or invalid; a header beyond `HEADER_LIMIT` is not parsed
        ConfigurationError: it is not readable
    """
    from safetensors.numpy import load_file

    path = Path(path)
    wide = b'"BF16"' in _read_header(path)
    try:
        return _tensors(lambda: _widened(path.read_bytes()) if wide else load_file(path))
    except OSError as error:
        raise atomic.unreadable(path, error) from error
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as safetensors: {error}") from error


def _widened(data: bytes) -> dict[str, Array]:
    """The tensors of a file that contains bfloat16, the upper half of float32."""
    from safetensors import deserialize

    types = {short: name for name, short in DTYPES.items()} | {"BF16": "uint16"}
    tensors = {}
    for name, entry in deserialize(data):  # type: ignore[no-untyped-call]
        short = entry["dtype"]
        if short not in types:
            raise ValueError(f"{name!r} is {short}")
        array = np.frombuffer(entry["data"], np.dtype(types[short]).newbyteorder("<")).reshape(entry["shape"])
        tensors[name] = (array.astype(np.uint32) << 16).view(np.float32) if short == "BF16" else array.copy()
    return tensors


def parse(data: bytes) -> dict[str, Array]:
    """The tensors in the bytes of one of our own files. Raises ValueError: invalid."""
    from safetensors.numpy import load

    return _tensors(lambda: load(data))


def _tensors(load: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    try:
        tensors = load()
    except OSError:
        raise
    except Exception as error:  # the library raises its own type and, for types that NumPy lacks, four others
        raise ValueError(" ".join(str(error).split())) from error
    for name, tensor in tensors.items():
        if tensor.dtype.name not in DTYPES:  # bfloat16, if another package has added it to NumPy
            raise ValueError(f"{name!r} is {tensor.dtype.name}")
    return tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read a file's ``__metadata__``, and none of its tensors.

    Raises:
        CheckpointError, ConfigurationError: as `read`
    """
    path = Path(path)
    try:
        metadata = json.loads(_read_header(path)).get("__metadata__", {})
        return {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read as safetensors: its header is damaged ({error})"
        ) from error


def _read_header(path: Path) -> bytes:
    """The header's JSON text, after a check that its length is plausible."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(min(length, HEADER_LIMIT))
    except OSError as error:
        raise atomic.unreadable(path, error) from error
    if size < 8 + length or length < 2:
        raise CheckpointError(
            f"{str(path)!r} is not a safetensors file, or cut short: it has {size} bytes and says that its header "
            f"has {length}"
        )
    if length > HEADER_LIMIT:
        raise CheckpointError(
            f"{str(path)!r} has a header of {length} bytes, and no more than {HEADER_LIMIT} are read: its tensors "
            "are not those of one network"
        )
    return text

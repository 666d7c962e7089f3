"""Results for the host, copied on their device's own stream, so that the host need not wait before it asks for more.

Later work may overwrite the memory that is copied: on the stream it comes after the copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.place import EagerPlace
from minialex_cuda.runtime.protocol import Event


def begin(places: Mapping[str, EagerPlace], arrays: Sequence[CudaArray]) -> tuple[list[Event], list[NDArray[Any]]]:
    """Begin to copy arrays to the host; those in one block of memory, like a step's outputs, in one piece.

    Returns:
        The events of all copies, and NumPy arrays whose numbers are there once these have passed.
    """
    of_block: dict[int, list[CudaArray]] = {}
    for x in arrays:
        places[x.device].arrive(x)
        of_block.setdefault(id(x.flat.memory), []).append(x)
    events: list[Event] = []
    whole: dict[int, tuple[int, NDArray[np.uint8]]] = {}
    for block, parts in of_block.items():
        on, memory = places[parts[0].device], parts[0].flat.memory
        first, last = min(x.flat.offset for x in parts), max(x.flat.offset + x.nbytes for x in parts)
        whole[block] = first, on.runtime.host_bytes(last - first)
        if last > first:
            source = on.runtime.flat(memory, first, last - first, np.uint8)
            events.append(on.runtime.fetch(on.stream, source, whole[block][1]))
    return events, [_part(*whole[id(x.flat.memory)], x) for x in arrays]


def _part(first: int, whole: NDArray[np.uint8], x: CudaArray) -> NDArray[Any]:
    begin = x.flat.offset - first
    part: NDArray[Any] = whole[begin : begin + x.nbytes]
    return part.view(x.dtype).reshape(x.shape)

"""Page-locked memory of the host: what lies there is known again, whatever part of it is sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime, Locked
from minialex_cuda.runtime.protocol import owner


def test_whose_an_arrays_memory_is() -> None:
    plain, locked = np.zeros((4, 6), np.uint8), FakeRuntime().host_bytes(24).reshape(4, 6)
    for array, kind in ((plain, np.ndarray), (locked, Locked), (np.frombuffer(bytearray(24)), bytearray)):
        parts: list[Any] = [array, array[1:], array.reshape(-1), np.ascontiguousarray(array[2:]), array.view(np.int16)]
        assert [type(owner(part)) for part in parts] == [kind] * 5
    assert owner(plain[1:]) is plain
    assert owner(locked.copy()) is not owner(locked)


def test_what_is_read_into_it_comes_to_the_device() -> None:
    backend = CudaBackend(runtime=FakeRuntime())
    for number in range(4):
        batch = backend.host_bytes((2, 3, 4, 4))
        assert (batch.shape, batch.dtype) == ((2, 3, 4, 4), np.uint8)
        batch[...] = number
        assert (backend.to_numpy(backend.to_device(batch, "cuda:0")) == number).all()
        assert (backend.to_numpy(backend.to_device(batch[1:], "cuda:1")) == number).all()

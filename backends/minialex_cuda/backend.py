"""The CUDA backend: devices, moving arrays, and the operations of `minialex_cuda.ops` as checked methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from minialex.backend.arrays import Array
from minialex.backend.operations import Function, layers_with_own, notice
from minialex.backend.program import ArrayName, CompiledStep, Program, flatten
from minialex.backend.protocol import Backend
from minialex.backend.rules import RULES
from minialex.errors import ConfigurationError, DeviceMismatch, nearest
from minialex_cuda.compiler.compiled import Step
from minialex_cuda.compiler.joining import Nccl
from minialex_cuda.compiler.recording import can_compile
from minialex_cuda.compiler.workspace import Workspace
from minialex_cuda.diagnose import energy
from minialex_cuda.diagnose.diagnosis import Diagnosis, open_device
from minialex_cuda.ops import OPERATIONS
from minialex_cuda.ops.take_rows import take_rows
from minialex_cuda.runtime import departures
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.arrivals import Arrivals
from minialex_cuda.runtime.place import EagerPlace
from minialex_cuda.runtime.protocol import PRECISIONS, Event, Precision, Runtime

PRODUCTS = ("conv2d", "conv2d_backward", "linear", "linear_backward")

MAPS = ("augment", "conv2d", "conv2d_backward", "linear", "linear_backward", "dropout", "dropout_backward",
        "local_response_norm", "local_response_norm_backward", "max_pool2d_backward", "add")  # fmt: skip
"""Operations whose results are feature maps, which compiled steps in bfloat16 store in that format; the others only
select among numbers that are already rounded."""

APPROXIMATE = 2.0**-22
"""Unit roundoff of normalisation when its power is computed as the device's ex2(−β·lg2(scale)), in bfloat16 steps.

CUDA's programming guide gives both functions an error of 2 ulp, 2⁻²², and the logarithm near 1 an absolute error of
2⁻²²; the kit's bound allows 8 u, plus β·u·|ln scale| for the exponent's own error.
"""


@final
class CudaBackend:
    """NVIDIA GPUs, through CuPy and Numba CUDA: float32 and float64.

    All operations are asynchronous and run in order on one stream per device; `to_numpy` and `synchronize` wait for
    them. Results are bitwise reproducible.

    Args:
        precision: what the operands of float32 matrix products are rounded to: ``"float32"``, ``"tf32"`` or
            ``"bfloat16"``, in which compiled steps also store activations and their gradients; sums, weights and
            their gradients are float32
        runtime: the devices; None for this machine's GPUs, `minialex_cuda.runtime.fake.FakeRuntime` for pretend ones

    Raises:
        ConfigurationError: If the precision does not exist, or the device lacks it.
        BackendUnavailable: If CuPy, Numba CUDA, a driver or a device is missing or too old; the error says what to do.
    """

    name = "cuda"

    def __init__(self, *, precision: Precision = "float32", runtime: Runtime | None = None) -> None:
        if precision not in PRECISIONS:
            raise ConfigurationError(
                f"no precision '{precision}'; choose from {', '.join(PRECISIONS)}.{nearest(precision, PRECISIONS)}"
            )
        self.precision = precision
        self.runtime: Runtime = open_device() if runtime is None else runtime
        for device in self.runtime.devices if precision == "bfloat16" else ():
            if not self.runtime.has_bfloat16(device):
                raise ConfigurationError(
                    f"{device} has no bfloat16 (only cards since Ampere, 2020, have it): use float32"
                )
        self._places = {
            device: EagerPlace(self.runtime, device, self.runtime.stream(device), precision)
            for device in self.runtime.devices
        }
        self._arrivals = {device: Arrivals(on) for device, on in self._places.items()}
        self._workspace = Workspace(self._places)
        self._nccl = Nccl(self.runtime)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices ``cuda:0`` and so on, as CUDA numbers them."""
        return self.runtime.devices

    @property
    def operand_formats(self) -> dict[str, str]:
        """For the conformance kit: operations whose matrix products round their float32 operands first."""
        return {} if self.precision == "float32" else dict.fromkeys(PRODUCTS, self.precision)

    @property
    def storage_formats(self) -> dict[str, str]:
        """For the conformance kit: operations whose results compiled steps store in fewer bits than float32."""
        return dict.fromkeys(MAPS, "bfloat16") if self.precision == "bfloat16" else {}

    @property
    def unit_roundoff(self) -> dict[str, float]:
        """For the conformance kit: operations that are approximate."""
        norms = ("local_response_norm", "local_response_norm_backward")
        return dict.fromkeys(norms, APPROXIMATE) if self.precision == "bfloat16" else {}

    @classmethod
    def diagnose(cls, asked: bool) -> Diagnosis:
        """Find the driver, GPUs and packages; see `minialex.backend.findings`."""
        return Diagnosis(asked)

    def joules(self, device: str) -> float | None:
        """Joules that a GPU has used since its driver was loaded; None if it does not count them."""
        return energy.joules(int(device.partition(":")[2]))

    def place(self, device: str) -> EagerPlace:
        """The place (device and stream) in which a device's operations run.

        Raises:
            ConfigurationError: If there is no such device.
        """
        if device not in self._places:
            known = ", ".join(self.devices)
            raise ConfigurationError(f"no device '{device}'; there are {known}.{nearest(device, self.devices)}")
        return self._places[device]

    # ---- movers -------------------------------------------------------------------------------------------------

    def to_device(self, array: Any, device: str) -> CudaArray:
        """Copy a NumPy array to a device."""
        self.place(device)
        return self._arrivals[device].bring(np.ascontiguousarray(array).reshape(np.shape(array)))

    def host_bytes(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Page-locked (pinned) host memory, uint8, from which arrays are sent without another copy.

        Once it has been passed to `to_device`, it must not change. Memory that is no longer referenced is reused.
        """
        return self.runtime.host_bytes(math.prod(shape)).reshape(shape)

    def keep_rows(
        self, blocks: Iterable[NDArray[np.uint8]], shape: tuple[int, ...], devices: Sequence[str]
    ) -> Callable[[NDArray[np.int64], str], CudaArray] | None:
        """Keep the rows of an array on devices, unless that takes more than half of what is free there.

        Args:
            blocks: its rows, contiguous, in order
            shape: its shape

        Returns:
            A function that gives some rows on one of the devices; None, and no block is asked for, if there is no room.
        """
        runtime, nbytes = self.runtime, math.prod(shape)
        if any(2 * nbytes > runtime.free(self.place(device).device) for device in devices):
            return None
        try:
            wholes = {device: self.place(device).empty(shape, np.uint8) for device in devices}
        except MemoryError:  # what is free may be in pieces, and others may take it meanwhile
            return None
        done, sent = 0, list[Event]()
        for block in blocks:
            for event in sent:  # else blocks on their way would pile up where they are read faster than sent
                runtime.wait_on_host(event)
            sent.clear()
            for device, whole in wholes.items():
                part = runtime.flat(whole.flat.memory, done, block.nbytes, np.uint8)
                runtime.upload(self.place(device).stream, block, part)
                sent.append(runtime.record(self.place(device).stream))
            done += block.nbytes

        def take(rows: NDArray[np.int64], device: str) -> CudaArray:
            return take_rows(self.place(device), wholes[device], self.to_device(rows, device))

        return take

    def to_numpy(self, x: CudaArray) -> NDArray[Any]:
        """Copy an array to the host; waits for the device."""
        if not x.size:
            return np.empty(x.shape, x.dtype)
        on = self.place(x.device)
        on.arrive(x)
        self._wait_for_ranks(x.device)
        return self.runtime.download(on.stream, x.flat).reshape(x.shape)

    def to_numpy_later(self, arrays: Sequence[CudaArray]) -> Callable[[], list[NDArray[Any]]]:
        """Begin to copy arrays to the host; the function waits for that, not for what is asked for afterwards."""
        events, fetched = departures.begin(self._places, arrays)

        def found() -> list[NDArray[Any]]:
            for event in events:
                if self._nccl.is_used:
                    self._nccl.wait(event)
                self.runtime.wait_on_host(event)
            return fetched

        return found

    def copy_to(self, x: CudaArray, device: str) -> CudaArray:
        """Copy `x` to another device, directly; neither the host nor other streams wait."""
        if x.device == device:
            return x
        source, target = self.place(x.device), self.place(device)
        source.arrive(x)
        copy = target.empty(x.shape, x.dtype)
        self.runtime.wait(target.stream, self.runtime.record(source.stream))
        target.copy(x, copy)
        # later work of the source's stream may reuse its memory, and must not overtake the copy
        self.runtime.wait(source.stream, self.runtime.record(target.stream))
        return copy

    def zeros(self, shape: tuple[int, ...], dtype: str, device: str) -> CudaArray:
        """An array of zeros."""
        on = self.place(device)
        made = on.empty(shape, dtype)
        on.clear(made)
        return made

    def synchronize(self, device: str) -> None:
        """Wait until all work on a device is done."""
        self._wait_for_ranks(device)
        self.runtime.synchronize(self.place(device).stream)
        self.runtime.synchronize(self._arrivals[device].stream)

    def _wait_for_ranks(self, device: str) -> None:
        """If a device waits for other processes, wait in a way that notices when they are lost."""
        if self._nccl.is_used:
            self._nccl.wait(self.runtime.record(self.place(device).stream))

    def memory_in_use(self, device: str) -> int:
        """Bytes held by live arrays and compiled steps."""
        return self.runtime.in_use(self.place(device).device) - self._arrivals[device].idle_bytes

    def apply(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Run a user-defined operation in CuPy, on the device's stream (in NumPy, on pretend devices)."""
        on = self.place(_device(function.name, args, kwargs))
        function.rule(*args, **kwargs)
        on.arrive(*args)
        for array in arrays_of([*args, *kwargs.values()]):  # it should not write to them, but it could
            array.flat.memory.changed()
        with self.runtime.namespace(on.stream) as xp:
            plain = [x.flat.raw.reshape(x.shape) if isinstance(x, CudaArray) else x for x in args]
            made = function.compute(xp, self.name, *plain, **kwargs)
            results = []
            for array in flatten(made):
                results.append(on.empty(array.shape, array.dtype))
                results[-1].flat.raw.reshape(array.shape)[...] = array
        return tuple(results) if isinstance(made, tuple) else results[0]

    def compile_step(self, program: Program, bindings: Mapping[ArrayName, Array]) -> CompiledStep | None:
        """Compile a step: planned memory, a stream for each column, and fused kernels."""
        joined = self._nccl.joined(program)
        if joined is not None and can_compile(joined):
            return Step(self._places, self._workspace, joined, bindings)
        if own := layers_with_own(program):
            notice("steps with your own operations are not compiled: every operation is launched separately", *own)
        return None


def arrays_of(arguments: Any) -> Iterator[CudaArray]:
    """Yield all arrays in (nested) arguments; other backends' arrays are refused."""
    for value in arguments:
        if isinstance(value, CudaArray):
            yield value
        elif isinstance(value, list | tuple):
            yield from arrays_of(value)
        elif hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
            raise ConfigurationError(
                f"expected an array of the cuda backend, got a {type(value).__name__}: call to_device first"
            )


def _device(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The device of an operation's arrays."""
    devices = list(dict.fromkeys(array.device for array in arrays_of([*args, *kwargs.values()])))
    if not devices:
        raise ConfigurationError(f"{name}: expected at least one array")
    if len(devices) > 1:
        raise DeviceMismatch(f"{name}: arrays live on different devices ({', '.join(devices)}); copy_to first")
    return devices[0]


def _method(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of an operation: it checks the arguments and runs on the arrays' device."""
    rule = RULES[name]

    def method(self: CudaBackend, *args: Any, **kwargs: Any) -> Any:
        device = _device(name, args, kwargs)
        rule(*args, **kwargs)
        return function(self.place(device), *args, **kwargs)

    method.__signature__ = signature(getattr(Backend, name))
    return method


for _name, _function in OPERATIONS.items():
    setattr(CudaBackend, _name, _method(_name, _function))

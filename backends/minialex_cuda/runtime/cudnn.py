"""Convolutions by cuDNN, through its Python frontend, without patches in memory. Optional.

float32 and tf32 convolve N C H W as it is; bfloat16 takes operands channels last (N H W C, and K R S C for kernels), as
its tensor cores require, and returns bfloat16 in that order: cuDNN 9.19 has almost no plans that return float32. Sums
are float32 until then. Plans that are not deterministic are never used; nor, in float32, those that round operands or
trade accuracy for speed. A test without a device checks that every layer of the paper has such a plan
(`tests/cuda/runtime/test_cudnn.py`). If a convolution has none, a notice gives the reason, once: it then goes through
patches, which takes many times as long. In bfloat16 and tf32, the bias and the ReLU are applied before a sum is
rounded; if no plan does that, again with a notice, a kernel applies them afterwards.

Of the suitable plans, up to `PLANS` are timed when a convolution first occurs on a machine, and the choice is stored on
disk (`minialex_cuda.runtime.choices`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minialex_cuda.runtime import choices
from minialex_cuda.runtime.protocol import Convolution

INSTALL = "pip install 'minialex[cudnn]'"

PLANS = 12
"""The most plans that are timed for one convolution."""
MARGIN = 0.03
"""How much faster than cuDNN's own choice another plan must be to be used: timings of one plan vary by less."""
ROOM = 256 << 20
"""The most bytes of scratch memory for a plan other than cuDNN's own choice."""

logger = logging.getLogger("minialex.cuda")


def frontend() -> Any | None:
    """The module ``cudnn``; None, with a notice, if it is not installed."""
    try:
        import cudnn
    except (ImportError, OSError) as error:
        said(error)
        return None
    return cudnn


def said(error: Exception) -> None:
    """Give notice that cuDNN cannot be used, and why."""
    logging.getLogger("minialex").warning(
        "cuDNN cannot be used (%s): convolutions are computed with im2col, which is slower; install cuDNN with: %s",
        " ".join(str(error).split()),
        INSTALL,
    )


def handle(cudnn: Any) -> Any:
    """A handle on the current device.

    cuDNN looks for NVRTC and cuBLAS by name only, and does not find them inside Python packages unless they are
    already loaded: plans that it compiles at run time would then be missing.

    Raises:
        RuntimeError: If a library is missing (`cuda.pathfinder`'s own error is one) or cannot be initialised.
    """
    from cuda.pathfinder import load_nvidia_dynamic_lib

    for name in ("nvrtc", "cublas"):
        load_nvidia_dynamic_lib(name)
    return cudnn.create_handle()


def strides(dims: tuple[int, ...], last: bool) -> list[int]:
    """Strides of [N,C,H,W] in memory, with the channels last or in that order."""
    _, C, H, W = dims
    return [C * H * W, 1, W * C, C] if last else [C * H * W, H * W, W, 1]


@dataclass(frozen=True)
class Ready:
    """A plan that is ready to execute.

    Attributes:
        index: its index among all of the convolution's plans
        name: identifies it across processes: cuDNN's engine and the values of its knobs
        workspace: bytes of scratch memory
    """

    index: int
    name: str
    workspace: int


@dataclass(frozen=True)
class Timed:
    """How long a call of a plan took."""

    ready: Ready
    microseconds: float


class Plans:
    """cuDNN's plans for a convolution.

    Args:
        cudnn: the module
        convolution: what is computed
        where: ``handle=…`` of a device, or ``device_property=…`` to plan for a device that is not present

    Raises:
        cudnn.cudnnGraphNotSupportedError, RuntimeError: If no plan is suitable.
    """

    def __init__(self, cudnn: Any, convolution: Convolution, **where: Any) -> None:
        kinds, notes, it = cudnn.data_type, cudnn.numerical_note, convolution
        last = it.last or it.precision == "bfloat16"
        kind = kinds.BFLOAT16 if it.precision == "bfloat16" else kinds.FLOAT
        graph = cudnn.pygraph(
            io_data_type=kind, intermediate_data_type=kinds.FLOAT, compute_data_type=kinds.FLOAT, **where
        )
        image, kernels, maps = (it.N, it.C, it.H, it.W), (it.K, it.C, it.R, it.S), (it.N, it.K, it.P, it.Q)
        (above, below), (left, right) = it.padding
        options = {
            "pre_padding": [above, left],
            "post_padding": [below, right],
            "stride": [it.stride] * 2,
            "dilation": [1, 1],
        }

        def tensor(name: str, dims: tuple[int, ...]) -> Any:
            return graph.tensor(name=name, dim=list(dims), stride=strides(dims, last), data_type=kind)

        if it.kind == "fprop":
            self.first, self.second, dims = tensor("x", image), tensor("w", kernels), maps
            self.out = graph.conv_fprop(image=self.first, weight=self.second, **options)
            if it.bias:
                self.bias = tensor("bias", (1, it.K, 1, 1))
                self.out = graph.bias(name="biased", input=self.out, bias=self.bias)
            if it.rectify:
                self.out = graph.relu(name="rectified", input=self.out)
        elif it.kind == "dgrad":
            self.first, self.second, dims = tensor("dy", maps), tensor("w", kernels), image
            self.out = graph.conv_dgrad(loss=self.first, filter=self.second, **options)
        else:
            self.first, self.second, dims = tensor("dy", maps), tensor("x", image), kernels
            self.out = graph.conv_wgrad(image=self.second, loss=self.first, **options)
        self.out.set_output(True).set_dim(list(dims)).set_stride(strides(dims, last)).set_data_type(kind)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        unwanted = [notes.NONDETERMINISTIC, notes.WINOGRAD, notes.FFT]
        graph.deselect_numeric_notes([*unwanted, notes.TENSOR_CORE] if it.precision == "float32" else unwanted)
        graph.check_support()
        self.graph, self.convolution = graph, convolution
        self._refused = (cudnn.cudnnGraphNotSupportedError, RuntimeError)

    def ready(self) -> Iterator[Ready]:
        """Yield suitable plans, cuDNN's own choice first; each is built when it is requested."""
        graph = self.graph
        for index in range(graph.get_execution_plan_count()):
            try:
                graph.build_plan_at_index(index)
                nbytes = int(graph.get_workspace_size_plan_at_index(index))
            except self._refused:  # it was deselected, or is unsuitable after all
                continue
            yield Ready(index, str(graph.get_plan_name_at_index(index)), nbytes)

    def named(self, name: str) -> Ready | None:
        """Build the plan of that name, if it still exists."""
        graph = self.graph
        for index in range(graph.get_execution_plan_count()):
            if str(graph.get_plan_name_at_index(index)) == name:
                try:
                    graph.build_plan_at_index(index)
                    return Ready(index, name, int(graph.get_workspace_size_plan_at_index(index)))
                except self._refused:
                    return None
        return None

    def first_ready(self) -> Ready:
        """cuDNN's own choice.

        Raises:
            RuntimeError: If there is none.
        """
        for found in self.ready():
            return found
        raise RuntimeError("no engine fits")

    def execute(self, handle: Any, ready: Ready, a: int, b: int, out: int, workspace: int, bias: int = 0) -> None:
        """Enqueue a call of a built plan, with these addresses, on a handle's stream."""
        operands = {self.first: a, self.second: b, self.out: out}
        if self.convolution.bias:
            operands[self.bias] = bias
        self.graph.execute_plan_at_index(operands, workspace, ready.index, handle=handle)


Time = Callable[[Plans, int], list[Timed]]
"""Times built plans, at most so many, cuDNN's own choice first; those that add a bias only if a NaN in it comes out as
NaN. Raises MemoryError if memory runs out."""


class Convolutions:
    """cuDNN on one device: its plans, each built once. Must be created while the device is current.

    Args:
        device: the device's name, under which choices are stored
        where: the folder of choices; None: cuDNN's own are used
        timer: makes a function that times plans, from the module ``cudnn``; called once, before the first timing
    """

    def __init__(self, device: str = "", where: Path | None = None, timer: Callable[[Any], Time] | None = None) -> None:
        self._plans: dict[Convolution, tuple[Plans, Ready] | None] = {}
        self._device, self._where, self._timer = device, where, timer
        self._time: Time | None = None
        self._handle: Any = None
        self._cudnn: Any = frontend()
        if self._cudnn is not None:
            try:
                self._handle = handle(self._cudnn)
            except RuntimeError as error:  # for example only the frontend, without cuDNN's library
                said(error)
                self._cudnn = None

    def workspace(self, convolution: Convolution) -> int | None:
        """Bytes of scratch memory of the plan; None without cuDNN or, with a notice, without a suitable plan."""
        if self._cudnn is None:
            return None
        if convolution not in self._plans:
            try:
                self._plans[convolution] = self._planned(convolution)
            except (self._cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
                self._plans[convolution] = None
                logger.warning(
                    "cuDNN has no plan for %s (%s): %s",
                    convolution,
                    " ".join(str(error).split())[:300] or type(error).__name__,
                    "bias and ReLU run as a separate kernel, which is a little slower"
                    if convolution.bias
                    else "it is computed with im2col, which is many times slower",
                )
        found = self._plans[convolution]
        return None if found is None else found[1].workspace

    def _planned(self, convolution: Convolution) -> tuple[Plans, Ready]:
        """Build the plan to use; nothing is kept of those that were only timed."""

        def plans() -> Plans:
            return Plans(self._cudnn, convolution, handle=self._handle)

        choice = self._chosen(convolution, plans)
        if choice["plan"] is None:
            raise RuntimeError(choice["note"])
        if "note" in choice:
            logger.warning("%s: %s; remove its file in %s to time it again", convolution, choice["note"], self._where)
        made = plans()
        found = made.named(choice["plan"])
        if found is None:
            logger.warning("cuDNN no longer offers plan %s for %s", choice["plan"], convolution)
            if convolution.bias:
                raise RuntimeError("its plan is gone")
            found = made.first_ready()
        return made, found

    def _chosen(self, convolution: Convolution, plans: Callable[[], Plans]) -> dict[str, Any]:
        """The choice, from disk or made now: the name of a plan, or None, and a note."""
        if self._where is None or self._timer is None:
            return self._untimed(plans())
        versions = {"cudnn": str(self._cudnn.backend_version()), "frontend": str(self._cudnn.__version__)}
        asked = {"device": self._device, **versions, **asdict(convolution)}
        try:
            return choices.settled(self._where, asked, lambda: self._timed(plans()))
        except OSError as error:
            logger.warning("the choice of a cuDNN plan cannot be kept on disk (%s): cuDNN's first is used", error)
            return self._untimed(plans())

    def _untimed(self, plans: Plans) -> dict[str, Any]:
        """cuDNN's own choice; with a bias, it must be tried out."""
        return self._timed(plans, 1) if plans.convolution.bias else {"plan": plans.first_ready().name}

    def _timed(self, plans: Plans, most: int = PLANS) -> dict[str, Any]:
        """cuDNN's own choice, or another plan that is faster by more than `MARGIN`, and the time of each."""
        if self._timer is None:
            return {"plan": None, "note": "it was not tried"}
        try:
            if self._time is None:
                self._time = self._timer(self._cudnn)
            timed = self._time(plans, most)
        except MemoryError:
            if plans.convolution.bias:
                return {"plan": None, "note": "there was no memory to try it"}
            note = "plans were not timed for lack of memory, and cuDNN's first is used"
            return {"plan": plans.first_ready().name, "note": note}
        if not timed and plans.convolution.bias:
            return {"plan": None, "note": "each of them loses NaN values, or does not run"}
        if not timed:
            raise RuntimeError("no engine fits")
        taken, quickest = timed[0], min(timed, key=lambda one: one.microseconds)
        if quickest.microseconds < (1 - MARGIN) * taken.microseconds:
            taken = quickest
        return {"plan": taken.ready.name, "microseconds": {one.ready.name: one.microseconds for one in timed}}

    def handle(self, stream: int) -> Any:
        """A handle for one stream, used for all of its convolutions and for no other stream's.

        Like cuBLAS's, it is never destroyed, since that makes the host wait for the device.
        """
        assert self._cudnn is not None
        made = handle(self._cudnn)
        self._cudnn.set_stream(handle=made, stream=stream)
        return made

    def run(self, handle: Any, convolution: Convolution, *addresses: int) -> None:
        """Run a convolution on a handle's stream, after a call of `workspace` for it; see `Plans.execute`."""
        found = self._plans[convolution]
        assert found is not None
        plans, ready = found
        plans.execute(handle, ready, *addresses)

"""The paper's convolutions as a library is asked for them: of one column, of both at once, of blocks of pixels."""

from __future__ import annotations

from minialex_cuda.ops.conv2d_library import padded
from minialex_cuda.runtime.protocol import Convolution, Kind, Precision

LAYERS = {
    "conv1": (3, 224, 48, 11, 4, (0, 3)), "conv2": (48, 27, 128, 5, 1, (2, 2)), "conv3": (256, 13, 192, 3, 1, (1, 1)),
    "conv4": (192, 13, 192, 3, 1, (1, 1)), "conv5": (192, 13, 128, 3, 1, (1, 1)),
}  # fmt: skip
"""Of one column: channels, rows (and columns) of the input, kernels, their size, stride, zeros around."""

OTHERS = {
    "conv1, both columns": (3, 224, 96, 11, 4, (0, 3)), "conv3, both columns": (256, 13, 384, 3, 1, (1, 1)),
    "conv1, blocks of 4 x 4": (48, 57, 48, 3, 1, (0, 0)),
    "conv1, blocks of 4 x 4, both columns": (48, 57, 96, 3, 1, (0, 0)),
}  # fmt: skip
"""The same work asked for in another way, which the backend does not do yet: to be timed beside it."""


def convolution(name: str, kind: Kind, batch: int, precision: Precision) -> Convolution | None:
    """One of them; None for what nobody asks for, the gradient of conv1's images."""
    C, H, K, R, stride, sides = {**LAYERS, **OTHERS}[name]
    if name.startswith("conv1") and kind == "dgrad":
        return None
    P = (H + sum(sides) - R) // stride + 1
    if precision == "bfloat16":
        C, K = padded(C), padded(K)
    return Convolution(kind, batch, C, H, H, K, R, R, P, P, stride, (sides, sides), precision)

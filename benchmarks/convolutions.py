"""The paper's convolutions as compiled steps ask a library for them, and the same work asked for in other ways."""

from __future__ import annotations

from minialex_cuda.ops.conv2d_last import FUSED
from minialex_cuda.runtime.protocol import Convolution, Kind, Precision

LAYERS = {
    "conv1": (48, 57, 48, 3, 1, (0, 0)), "conv2": (48, 27, 128, 5, 1, (2, 2)), "conv3": (256, 13, 192, 3, 1, (1, 1)),
    "conv4": (192, 13, 192, 3, 1, (1, 1)), "conv5": (192, 13, 128, 3, 1, (1, 1)),
}  # fmt: skip
"""Of one column: channels, rows (and columns) of the input, kernels, their size, stride, zeros around. conv1 is asked
for over blocks of 4 × 4 pixels."""

OTHERS = {
    "conv1, both columns": (48, 57, 96, 3, 1, (0, 0)), "conv3, both columns": (256, 13, 384, 3, 1, (1, 1)),
    "conv1 of pixels": (3, 224, 48, 11, 4, (0, 3)),
}  # fmt: skip
"""To be timed beside them."""


KINDS = ("fprop", "fused", "dgrad", "wgrad")
"""``"fused"`` is forward with bias and ReLU."""


def convolution(name: str, kind: str, batch: int, precision: Precision) -> Convolution | None:
    """One of them; None for what nobody asks for: the gradient of conv1's images, bias and ReLU in float32."""
    C, H, K, R, stride, sides = {**LAYERS, **OTHERS}[name]
    fused = kind == "fused"
    if (name.startswith("conv1") and kind == "dgrad") or (fused and precision not in FUSED):
        return None
    P = (H + sum(sides) - R) // stride + 1
    asked: Kind = "fprop" if fused else kind  # type: ignore[assignment]
    return Convolution(
        asked, batch, -(-C // 8) * 8, H, H, K, R, R, P, P, stride, (sides, sides), precision, last=True, bias=fused,
        rectify=fused,
    )  # fmt: skip

"""Data augmentation, section 4.1: crop, reflect, shift the colour and subtract the mean, from bytes to floats."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place


@kernel("y")
def augment_kernel(i, images, mean, shift, top, left, flip, y, C, H, W, crop, factor, follows):
    """y[n,c,row,column] = factor · (the image's pixel + shift[n,c] − mean); see the protocol for the indices."""
    column = i % crop
    rest = i // crop
    row = rest % crop
    rest //= crop
    c = rest % C
    n = rest // C
    h = top[n] + row
    w = left[n] + (crop - 1 - column if flip[n] == 1 else column)
    pixel = mean.dtype.type(images[((n * C + c) * H + h) * W + w])
    taken = mean[(c * H + h) * W + w] if follows else mean[(c * crop + row) * crop + column]
    y[i] = factor * (pixel + shift[n * C + c] - taken)


def augment(
    on: Place,
    images: CudaArray,
    mean: CudaArray,
    shift: CudaArray,
    top: CudaArray,
    left: CudaArray,
    flip: CudaArray,
    *,
    crop: int,
    factor: float,
    mean_follows: bool,
) -> CudaArray:
    """y = factor · (image at the crop, reflected where flip is 1, + shift − mean)."""
    N, C, H, W = images.shape
    y = on.empty((N, C, crop, crop), mean.dtype)
    on.launch(
        augment_kernel, y.size, images, mean, shift, top, left, flip, y, C, H, W, crop, mean.dtype.type(factor),
        mean_follows,
    )  # fmt: skip
    return y

"""Data augmentation: crop, reflect, shift the colour and subtract the mean, in one pass from bytes to numbers."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task, Unsupported
from minialex_numba.runtime.jit import kernel


@kernel
def augment_kernel(
    worker, begin, end, images, shape, mean, follows, shift, top, left, flip, crop, factor, y, distance
):  # fmt: skip
    """Items are rows of crops; `shape` is the images' (C, H, W); y's pixels, channels last, are `distance` apart."""
    C, H, W = shape
    kind = mean.dtype.type
    for item in range(begin, end):
        n, i = divmod(item, crop)
        for c in range(C):
            a = ((n * C + c) * H + top[n] + i) * W + left[n]
            m = (c * H + top[n] + i) * W + left[n] if follows else (c * crop + i) * crop
            b = item * crop * distance + c
            colour = shift[n * C + c]
            if not flip[n]:
                for j in range(crop):
                    y[b + j * distance] = factor * (kind(images[a + j]) + colour - mean[m + j])
            elif follows:
                for j in range(crop):
                    y[b + j * distance] = factor * (kind(images[a + crop - 1 - j]) + colour - mean[m + crop - 1 - j])
            else:
                for j in range(crop):
                    y[b + j * distance] = factor * (kind(images[a + crop - 1 - j]) + colour - mean[m + j])


def augment(
    on: Buffers, results: Sequence[Value], images: Value, mean: Value, *draws: Value, crop: int, factor: float,
    mean_follows: bool,
) -> Bind:  # fmt: skip
    """y = factor · (image at the crop, reflected where flip is 1, + shift − mean); see the protocol for the indices."""
    names = [on.fed_name(value) for value in (images, *draws)]
    N, *shape = images.shape

    def bind() -> Task:
        target, first, distance = on.rows(results[0])
        if first:
            raise Unsupported("images in a slice")
        average = on.array(mean).data.reshape(-1)

        def task(feed: Feed) -> None:
            pixels, shift, top, left, flip = (feed[name].data for name in names)
            on.threads.run(
                augment_kernel, N * crop, pixels.reshape(-1), tuple(shape), average, mean_follows, shift.reshape(-1),
                top, left, flip, crop, on.number(factor), target, distance, grain=16,
            )  # fmt: skip

        return task

    return bind

"""Checks of notebook 05: local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.course.checks.feedback import NotYet, call, exercise, random, reference, same_array, same_number
from minialex.network.layers import LocalResponseNorm


def _neighbours(channel: int, size: int, channels: int) -> list[int]:
    """Channels whose activity reaches a channel's scale, found by exciting them one by one."""
    found = []
    for other in range(channels):
        x = np.zeros((1, channels, 1, 1))
        x[0, other] = 1.0
        _, scale = reference("local_response_norm", x, size=size, k=1.0, alpha=1.0, beta=0.75)
        if scale[0, channel, 0, 0] > 1:
            found.append(other)
    return found


@exercise
def window(answer: Any) -> str:
    """A function (channel, size, channels) -> the channels that inhibit a channel."""
    for channel, size, channels in ((10, 5, 48), (0, 5, 48), (47, 5, 48), (1, 3, 4)):
        truth = _neighbours(channel, size, channels)
        given = f"window({channel}, {size}, {channels})"
        result = call(answer, channel, size, channels)
        try:
            yours = sorted({int(c) for c in result})
        except TypeError:
            raise NotYet(f"{given} should be a list of channel numbers, and yours is {result!r}.") from None
        if yours == truth:
            continue
        outside = [c for c in yours if not 0 <= c < channels]
        if outside:
            raise NotYet(f"{given} has channel {outside[0]}, which does not exist: the window is cut at the edges.")
        if channel not in yours:
            raise NotYet(f"{given} leaves out channel {channel} itself: it belongs to its own window.")
        missing, extra = sorted(set(truth) - set(yours)), sorted(set(yours) - set(truth))
        words = [f"{name} {which}" for name, which in (("lacks", missing), ("has too many:", extra)) if which]
        raise NotYet(f"{given} {' and '.join(words)}. The window reaches n // 2 to both sides.")
    return "five channels in the middle, three at the edge."


@exercise
def normalise(answer: Any) -> str:
    """A function (a, size, k, alpha, beta) -> the normalised activities of the channels, a [C]."""
    a = np.abs(random("norm", 12)) * 2
    size, k, alpha, beta = 5, 2.0, 0.3, 0.75

    def lrn(values: NDArray[Any], size: int, alpha: float, k: float = k) -> tuple[NDArray[Any], NDArray[Any]]:
        x = np.ascontiguousarray(values, np.float64)[None, :, None, None]
        y, scale = reference("local_response_norm", x, size=size, k=k, alpha=alpha, beta=beta)
        return y[0, :, 0, 0], scale[0, :, 0, 0]

    truth, scale = lrn(a, size, alpha)
    own = a / (k + alpha * a**2) ** beta
    sums = (scale - k) / alpha
    everything = a / (k + alpha * (a**2).sum()) ** beta
    mistakes = [
        (lrn(a, size, alpha / size)[0], "here alpha is used as it is given, as in the paper's formula: do not "
         "divide it by n."),
        (own, "that uses each channel's own square only; add up the window's."),
        (everything, "that adds up all channels; only the window's count."),
        (a / (k + alpha * sums), "the exponent beta is missing."),
        (a * (k + alpha * sums) ** beta, "divide, do not multiply: large neighbours make it smaller."),
        (lrn(a, size, alpha, k=1.0)[0], "that has k = 1; use the k that is given."),
        (a / (alpha * sums) ** beta, "k is missing."),
    ]  # fmt: skip
    hint = "a[c] / (k + alpha · sum of squares in the window of c) ** beta."
    same_array(
        call(answer, a, size, k, alpha, beta), truth, "the normalised activities", mistakes, axes=("c",), hint=hint
    )
    return "as in the reference, edges included."


@exercise
def alpha_for_torch(answer: Any) -> str:
    """The alpha that a library which divides it by n = 5 must be given to compute the paper's printed formula."""
    printed = LocalResponseNorm("norm", alpha=1e-4, alpha_over_n=False)
    wanted = printed.coefficient / LocalResponseNorm("norm", alpha=1.0).coefficient
    mistakes = [
        (1e-4, "given 1e-4, such a library multiplies the sum with 2e-5."),
        (1e-4 / 5, "the wrong way around: that library divides, so give it more, not less."),
        (25e-4, "divided by n once, not twice."),
    ]
    same_number(answer, wanted, "alpha", mistakes)
    return f"{wanted:g}, of which it makes {printed.coefficient:g}."

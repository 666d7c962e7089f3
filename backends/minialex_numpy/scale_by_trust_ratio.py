"""Layer-wise adaptive rate scaling, LARS (You, Gitman and Ginsburg 2017): it makes very large batches possible."""

from __future__ import annotations

import numpy as np

from minialex_numpy.floats import Floats


def scale_by_trust_ratio(w: Floats, dw: Floats, *, trust_coefficient: float, weight_decay: float) -> Floats:
    """λ·(dw + decay·w) with λ = η·‖w‖ / (‖dw‖ + decay·‖w‖), or 1 if one of the norms is 0; η is the coefficient."""
    w_norm, dw_norm = (float(np.sqrt(np.sum(x * x))) for x in (w, dw))
    ratio = 1.0
    if w_norm != 0 and dw_norm != 0:
        ratio = trust_coefficient * w_norm / (dw_norm + weight_decay * w_norm)
    return ratio * (dw + weight_decay * w)

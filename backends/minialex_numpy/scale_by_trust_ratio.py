"""Layer-wise adaptive rate scaling, LARS (You, Gitman and Ginsburg 2017): what makes very large batches possible."""

from __future__ import annotations

import numpy as np

from minialex_numpy.floats import Floats


def scale_by_trust_ratio(w: Floats, dw: Floats, *, trust_coefficient: float, weight_decay: float) -> Floats:
    """λ·(dw + decay·w) with λ = η·‖w‖ / (‖dw‖ + decay·‖w‖), or 1 where one of the norms is 0; η: the coefficient."""
    w_norm, dw_norm = np.sqrt(np.sum(w * w)), np.sqrt(np.sum(dw * dw))
    if w_norm == 0 or dw_norm == 0:
        return dw + weight_decay * w
    return trust_coefficient * w_norm / (dw_norm + weight_decay * w_norm) * (dw + weight_decay * w)

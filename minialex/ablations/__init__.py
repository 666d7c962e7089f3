"""Ablations: what each innovation of the paper is worth, measured with several seeds and honest words.

A study is a small TOML file (`minialex.ablations.study`); its runs are ordinary run folders; its outcome is a short
JSON file from which the table, the words and the picture are made, here, in the notebooks and on the site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minialex.ablations.outcome import Outcome as Outcome
from minialex.ablations.outcome import recorded as recorded
from minialex.ablations.study import Arm as Arm
from minialex.ablations.study import Study as Study
from minialex.ablations.study import names as names
from minialex.ablations.study import study as study
from minialex.ablations.words import picture_text as picture_text
from minialex.ablations.words import provenance as provenance
from minialex.ablations.words import table as table
from minialex.ablations.words import verdict as verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture(outcome: Outcome) -> Figure:
    """Draw an outcome; see `minialex.ablations.drawing.picture`."""
    from minialex.ablations import drawing

    return drawing.picture(outcome)

"""Ablations: what each innovation of the paper is worth, measured with several seeds and stated honestly.

A study is a small TOML file (`minialex.studies.study`); its runs are ordinary run folders; its outcome is a short
JSON file from which the table, the text and the picture are made, here, in the notebooks and on the site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minialex.studies.outcome import Outcome as Outcome
from minialex.studies.outcome import recorded as recorded
from minialex.studies.search import searched as searched
from minialex.studies.study import Arm as Arm
from minialex.studies.study import Study as Study
from minialex.studies.study import names as names
from minialex.studies.study import study as study
from minialex.studies.words import picture_text as picture_text
from minialex.studies.words import provenance as provenance
from minialex.studies.words import shared as shared
from minialex.studies.words import table as table
from minialex.studies.words import tuning_text as tuning_text
from minialex.studies.words import verdict as verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture(outcome: Outcome) -> Figure:
    """Draw an outcome; see `minialex.studies.drawing.picture`."""
    from minialex.studies import drawing

    return drawing.picture(outcome)


def tuning_picture(outcome: Outcome) -> Figure | None:
    """Draw the search for learning rates; see `minialex.studies.drawing.tuning`."""
    from minialex.studies import drawing

    return drawing.tuning(outcome)

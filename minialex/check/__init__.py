"""Checks of the notebooks' exercises: ``check.NAME(answer)`` says whether an answer is right, and if not, what differs.

Truth is computed with the library's reference operations when a check is called; no answer is written down here.
"""

from __future__ import annotations

from minialex.check.feedback import Feedback as Feedback
from minialex.check.network import brighter as brighter
from minialex.check.network import one_column_parameters as one_column_parameters
from minialex.check.network import rows_after as rows_after

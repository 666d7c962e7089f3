"""Checks of the notebooks' exercises: ``check.NAME(answer)`` says whether an answer is right, and if not, what differs.

Truth is computed with the library's reference operations when a check is called; no answer is written down here.
"""

from __future__ import annotations

from minialex.check.convolution import shift_kernel as shift_kernel
from minialex.check.convolution import slope as slope
from minialex.check.convolution import weight_gradient as weight_gradient
from minialex.check.feedback import Feedback as Feedback
from minialex.check.initialisation import dead_share as dead_share
from minialex.check.initialisation import guessing_loss as guessing_loss
from minialex.check.initialisation import he_std as he_std
from minialex.check.network import brighter as brighter
from minialex.check.network import one_column_parameters as one_column_parameters
from minialex.check.network import rows_after as rows_after
from minialex.check.normalisation import alpha_for_torch as alpha_for_torch
from minialex.check.normalisation import normalise as normalise
from minialex.check.normalisation import window as window
from minialex.check.pooling import max_pool as max_pool
from minialex.check.pooling import pool_gradient as pool_gradient
from minialex.check.pooling import windows_of_a_pixel as windows_of_a_pixel
from minialex.check.relu import relu_gradient as relu_gradient
from minialex.check.relu import sigmoid_chain as sigmoid_chain
from minialex.check.relu import steps_to as steps_to

"""Checks of the notebooks' exercises: ``check.NAME(answer)`` says whether an answer is right, and if not, what differs.

Truth is computed with the library's reference operations when a check is called; no answer is written down here.
"""

from __future__ import annotations

from minialex.check.augmentation import count_views as count_views
from minialex.check.augmentation import reflect as reflect
from minialex.check.augmentation import ten_views as ten_views
from minialex.check.colour import colour_shift as colour_shift
from minialex.check.colour import covariance as covariance
from minialex.check.colour import first_share as first_share
from minialex.check.columns import column_parameters as column_parameters
from minialex.check.columns import conv3_bytes as conv3_bytes
from minialex.check.columns import owners_gradient as owners_gradient
from minialex.check.convolution import shift_kernel as shift_kernel
from minialex.check.convolution import slope as slope
from minialex.check.convolution import weight_gradient as weight_gradient
from minialex.check.depth import receptive_rows as receptive_rows
from minialex.check.depth import share_of_conv3 as share_of_conv3
from minialex.check.depth import without_conv4 as without_conv4
from minialex.check.dropout import geometric_mean as geometric_mean
from minialex.check.dropout import inverted_dropout as inverted_dropout
from minialex.check.dropout import silent_pairs as silent_pairs
from minialex.check.feedback import Feedback as Feedback
from minialex.check.initialisation import dead_share as dead_share
from minialex.check.initialisation import guessing_loss as guessing_loss
from minialex.check.initialisation import he_std as he_std
from minialex.check.learned import nearest_image as nearest_image
from minialex.check.learned import top_classes as top_classes
from minialex.check.machine import bytes_of_learning as bytes_of_learning
from minialex.check.machine import crossover_batch as crossover_batch
from minialex.check.machine import training_multiply_adds as training_multiply_adds
from minialex.check.network import brighter as brighter
from minialex.check.network import one_column_parameters as one_column_parameters
from minialex.check.network import rows_after as rows_after
from minialex.check.normalisation import alpha_for_torch as alpha_for_torch
from minialex.check.normalisation import normalise as normalise
from minialex.check.normalisation import window as window
from minialex.check.own_backend import repaired_norm as repaired_norm
from minialex.check.own_backend import tanh_gradient as tanh_gradient
from minialex.check.pooling import max_pool as max_pool
from minialex.check.pooling import pool_gradient as pool_gradient
from minialex.check.pooling import windows_of_a_pixel as windows_of_a_pixel
from minialex.check.relu import relu_gradient as relu_gradient
from minialex.check.relu import sigmoid_chain as sigmoid_chain
from minialex.check.relu import steps_to as steps_to
from minialex.check.table1 import averaged_error as averaged_error
from minialex.check.table1 import error_interval as error_interval
from minialex.check.update import final_velocity as final_velocity
from minialex.check.update import halving_steps as halving_steps
from minialex.check.update import paper_update as paper_update

"""Checks of the notebooks' exercises: ``check.NAME(answer)`` says whether an answer is right, and if not, what differs.

Truth is computed with the library's reference operations when a check is called; no answer is written down here.
"""

from __future__ import annotations

from minialex.course.checks.augmentation import count_views as count_views
from minialex.course.checks.augmentation import reflect as reflect
from minialex.course.checks.augmentation import ten_views as ten_views
from minialex.course.checks.colour import colour_shift as colour_shift
from minialex.course.checks.colour import covariance as covariance
from minialex.course.checks.colour import first_share as first_share
from minialex.course.checks.columns import column_parameters as column_parameters
from minialex.course.checks.columns import conv3_bytes as conv3_bytes
from minialex.course.checks.columns import owners_gradient as owners_gradient
from minialex.course.checks.convolution import shift_kernel as shift_kernel
from minialex.course.checks.convolution import slope as slope
from minialex.course.checks.convolution import weight_gradient as weight_gradient
from minialex.course.checks.depth import receptive_rows as receptive_rows
from minialex.course.checks.depth import share_of_conv3 as share_of_conv3
from minialex.course.checks.depth import without_conv4 as without_conv4
from minialex.course.checks.dropout import geometric_mean as geometric_mean
from minialex.course.checks.dropout import inverted_dropout as inverted_dropout
from minialex.course.checks.dropout import silent_pairs as silent_pairs
from minialex.course.checks.feedback import Feedback as Feedback
from minialex.course.checks.initialisation import dead_share as dead_share
from minialex.course.checks.initialisation import guessing_loss as guessing_loss
from minialex.course.checks.initialisation import he_std as he_std
from minialex.course.checks.learned import nearest_image as nearest_image
from minialex.course.checks.learned import top_classes as top_classes
from minialex.course.checks.machine import bytes_of_learning as bytes_of_learning
from minialex.course.checks.machine import crossover_batch as crossover_batch
from minialex.course.checks.machine import training_multiply_adds as training_multiply_adds
from minialex.course.checks.network import brighter as brighter
from minialex.course.checks.network import one_column_parameters as one_column_parameters
from minialex.course.checks.network import rows_after as rows_after
from minialex.course.checks.normalisation import alpha_for_torch as alpha_for_torch
from minialex.course.checks.normalisation import normalise as normalise
from minialex.course.checks.normalisation import window as window
from minialex.course.checks.own_backend import repaired_norm as repaired_norm
from minialex.course.checks.own_backend import tanh_gradient as tanh_gradient
from minialex.course.checks.pooling import max_pool as max_pool
from minialex.course.checks.pooling import pool_gradient as pool_gradient
from minialex.course.checks.pooling import windows_of_a_pixel as windows_of_a_pixel
from minialex.course.checks.relu import relu_gradient as relu_gradient
from minialex.course.checks.relu import sigmoid_chain as sigmoid_chain
from minialex.course.checks.relu import steps_to as steps_to
from minialex.course.checks.table1 import averaged_error as averaged_error
from minialex.course.checks.table1 import error_interval as error_interval
from minialex.course.checks.update import final_velocity as final_velocity
from minialex.course.checks.update import halving_steps as halving_steps
from minialex.course.checks.update import paper_update as paper_update

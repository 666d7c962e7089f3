"""Checks of the notebooks' exercises: ``check.NAME(answer)`` says whether an answer is right, and if not, what differs.

Truth is computed with the library's reference operations when a check is called; no answer is written down here.
"""

from __future__ import annotations

from minialex.course.checks.augmentation import count_views, reflect, ten_views
from minialex.course.checks.colour import colour_shift, covariance, first_share
from minialex.course.checks.columns import column_parameters, conv3_bytes, owners_gradient
from minialex.course.checks.convolution import shift_kernel, slope, weight_gradient
from minialex.course.checks.cost import answers_for_a_training, months_to_double
from minialex.course.checks.depth import receptive_rows, share_of_conv3, without_conv4
from minialex.course.checks.dropout import geometric_mean, inverted_dropout, silent_pairs
from minialex.course.checks.feedback import Feedback
from minialex.course.checks.films import frames_as_channels, mean_over_frames
from minialex.course.checks.initialisation import dead_share, guessing_loss, he_std
from minialex.course.checks.learned import nearest_image, top_classes
from minialex.course.checks.learning import logit_slopes, neuron_slopes, training_steps
from minialex.course.checks.machine import bytes_of_learning, crossover_batch, training_multiply_adds
from minialex.course.checks.memorising import label_bits, smallest_fit
from minialex.course.checks.network import brighter, one_column_parameters, rows_after
from minialex.course.checks.normalisation import alpha_for_torch, normalise, window
from minialex.course.checks.own_backend import repaired_norm, tanh_gradient
from minialex.course.checks.pictures import competition_error, points_per_doubling
from minialex.course.checks.pooling import max_pool, pool_gradient, windows_of_a_pixel
from minialex.course.checks.relu import relu_gradient, sigmoid_chain, steps_to
from minialex.course.checks.table1 import averaged_error, error_interval
from minialex.course.checks.update import final_velocity, halving_steps, paper_update

__all__ = [
    "Feedback", "alpha_for_torch", "answers_for_a_training", "averaged_error", "brighter", "bytes_of_learning",
    "colour_shift", "column_parameters", "competition_error", "conv3_bytes", "count_views", "covariance",
    "crossover_batch", "dead_share", "error_interval", "final_velocity", "first_share", "frames_as_channels",
    "geometric_mean", "guessing_loss", "halving_steps", "he_std", "inverted_dropout", "label_bits", "logit_slopes",
    "max_pool", "mean_over_frames", "months_to_double", "nearest_image", "neuron_slopes", "normalise",
    "one_column_parameters", "owners_gradient", "paper_update", "points_per_doubling", "pool_gradient",
    "receptive_rows", "reflect", "relu_gradient", "repaired_norm", "rows_after", "share_of_conv3", "shift_kernel",
    "sigmoid_chain", "silent_pairs", "slope", "smallest_fit", "steps_to", "tanh_gradient", "ten_views",
    "top_classes", "training_multiply_adds", "training_steps", "weight_gradient", "window", "windows_of_a_pixel",
    "without_conv4",
]  # fmt: skip

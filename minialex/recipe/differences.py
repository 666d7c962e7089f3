"""Where the paper and the original 2012 program differ, or the paper is silent, each point with its field.

The profiles are the recipes ``alexnet-2012`` and ``code145``. A point without a field offers no choice: an arithmetic
slip in the text, or something that can be done in only one way here; `note` says which.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One point.

    Attributes:
        number: number of the point, from 1
        topic, paper, program: what it is about, and what each says or does
        fields: the recipe fields that choose
        profiles_differ: whether the profiles ``alexnet-2012`` and ``code145`` choose differently
        note: the reason, if it is not obvious
    """

    number: int
    topic: str
    paper: str
    program: str
    fields: tuple[str, ...] = ()
    profiles_differ: bool = False
    note: str = ""


DIFFERENCES = (
    Difference(
        1,
        "input size",
        "224 × 224 gives 55 × 55",
        "sizes are rounded up: three rows of zeros to the right and below",
        ("crop", "conv1_padding"),
        note="both profiles pad on one side: nothing else gives 55 from 224 with 11/4",
    ),
    Difference(
        2, "neurons of layer 1", "253,440", "290,400", note="a slip in the paper (55·48·96); the summary counts 290,400"
    ),
    Difference(3, "parameters", "60 million", "60,965,224", note="the exact number is asserted in the tests"),
    Difference(
        4,
        "channels that inhibit each other",
        "all N kernels of the layer",
        "those of one column",
        ("norm_scope",),
        note="both profiles normalise within a column; 'all' is what Caffe does",
    ),
    Difference(
        5,
        "α of normalisation",
        "1e-4",
        "1e-4 / 5",
        ("norm_alpha", "norm_alpha_over_n"),
        note="both profiles divide; so do Caffe and PyTorch",
    ),
    Difference(
        6,
        "order in layer 1",
        "normalisation follows ReLU",
        "normalisation, then ReLU",
        ("norm_place",),
        profiles_differ=True,
    ),
    Difference(
        7, "spatial normalisation in layer 2", "none", "a second one, over 5 × 5 places", ("spatial_norm",), True
    ),
    Difference(
        8,
        "window of normalisation",
        "i − n/2 … i + n/2",
        "n channels from i − ⌊n/2⌋ on",
        ("norm_size",),
        note="the same for odd n; even n follows the program",
    ),
    Difference(9, "k of normalisation", "2", "2 across channels, 1 over places", ("norm_k",)),
    Difference(
        10, "initial weights", "standard deviation 0.01", "0.03 in conv3, conv4, conv5", ("std", "std_middle"), True
    ),
    Difference(
        11,
        "crops",
        "32 · 32 · 2 = 2048 of an image",
        "33 · 33 · 2, and 32 consecutive images share one",
        ("crop_positions", "crop_chunk"),
        True,
        "both profiles use all 33 offsets; the profile 'alexnet-2012' draws for each image",
    ),
    Difference(
        12,
        "mean",
        "subtracted at each pixel",
        "the centre crop of the mean image, wherever the crop was cut",
        ("mean",),
        True,
    ),
    Difference(
        13,
        "scale of the colour shift",
        "eigenvalues",
        "their square roots; then training images are divided by 1.1",
        ("colour", "colour_scale", "colour_divide"),
        True,
        "both profiles take the square roots; only code145 divides. 'eigenvalue' takes colours from 0 to 1, since on "
        "0 to 255 the shift would drown the image",
    ),
    Difference(
        14,
        "covariance of colours",
        "over the training set",
        "read from a file; how it was made is not released",
        note="minialex.data.statistics: over all pixels, centred per channel",
    ),
    Difference(
        15,
        "colour draws",
        "one an image each time it is used",
        "the same, but old draws when the thread was late",
        note="one an image and use; a race is not reproduced",
    ),
    Difference(
        16,
        "weight decay",
        "in the update rule, of w",
        "of weights, not of biases; a layer at rate 0 is skipped whole",
        ("weight_decay", "decay_biases", "layer_rates"),
        note="both profiles spare the biases",
    ),
    Difference(
        17,
        "learning rate of biases",
        "equal for all layers",
        "0.002 in the run of 2010's pictures, 0.02 in that of 2012's; not cut",
        ("bias_rate_factor", "bias_rate_fixed", "layer_rates"),
        True,
        "code145 follows the run whose errors are the paper's 37.5% and 17.0%: 0.002",
    ),
    Difference(
        18,
        "schedule",
        "divided by 10 when the validation error stops improving",
        "cut by hand at epochs 23, 51, 78; colour off at 68, conv1 frozen at 72",
        ("schedule", "patience", "cuts", "timeline", "epochs"),
        True,
    ),
    Difference(19, "scale of the input", "not stated", "0 … 255, centred", ("pixel_scale",), note="1 in both profiles"),
    Difference(
        20,
        "test",
        "mean of ten predictions",
        "the same",
        ("views",),
        note="minialex evaluate --views 10; 1 in training",
    ),
    Difference(21, "dropout at test time", "outputs times 0.5", "the same", ("dropout_mode",), note="paper in both"),
    Difference(
        22,
        "ties in pooling",
        "not stated",
        "not published; in cuda-convnet, before and after it, every tied maximum gets the gradient",
        ("pool_ties",),
        True,
    ),
    Difference(
        23,
        "ReLU's gradient at 0",
        "not stated",
        "0",
        note="0: the protocol fixes it (minialex.backend.protocol.Backend.relu_backward)",
    ),
    Difference(
        24,
        "size after pooling",
        "not stated",
        "rounded up, the last windows are cut",
        ("pool_ceil",),
        note="rounded up in both; 3/2 on 55, 27 and 13 is exact, 2/2 is not",
    ),
    Difference(
        25, "order of images", "not stated", "shuffled once, the same every epoch", ("shuffle",), profiles_differ=True
    ),
    Difference(
        26,
        "share of convolutional layers in the parameters",
        "none above 1%",
        "conv3 1.45%, conv4 1.09%",
        note="an overstatement in the paper; minialex summary shows the counts",
    ),
    Difference(27, "scale of gradients", "mean over the batch", "the same", note="the mean, by the cost's definition"),
)

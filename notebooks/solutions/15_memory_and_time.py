"""Answers to the exercises of notebook 15.

What to expect of the two open ones: GTX 580: the three full layers at 1, none at 128. H100 in bfloat16: all
but conv2 at 1; conv1 and the three full layers at 128. One weird trick: it sends the least at both, with 2.3
million gradients of the convolutions and, for each image, 15,360 values forward and as many back.
"""

PARAMETERS, FORWARD, CONV1, IMAGES = 60_965_224, 724_406_816, 105_415_200, 1_281_167
EPOCH = (3 * FORWARD - CONV1) * IMAGES
EACH_WAY = 13 * 13 * 128 + 6 * 6 * 128 + 2048 + 2048  # before conv3, fc6, fc7 and fc8
CROSSOVER = PARAMETERS / (2 * EACH_WAY)

RIGHT = {
    "bytes_of_learning": 3 * 4 * PARAMETERS,
    "training_multiply_adds": EPOCH,
    "crossover_batch": CROSSOVER,
}
WRONG = {
    "bytes_of_learning": [
        (4 * PARAMETERS, "weights alone"),
        (8 * PARAMETERS, "one of the three"),
        (3 * PARAMETERS, "four bytes"),
        (24 * PARAMETERS, "not eight"),
        (3e9, "too large"),
    ],
    "training_multiply_adds": [
        (FORWARD * IMAGES, "forward pass alone"),
        (3 * FORWARD * IMAGES, "two passes"),
        (2 * EPOCH, "floating-point operations"),
        (3 * FORWARD - CONV1, "one image"),
    ],
    "crossover_batch": [
        (2 * CROSSOVER, "count it twice"),
        (CROSSOVER / 128, "give images"),
        (2 * EACH_WAY, "divide the parameters"),
        (1, "too small"),
    ],
}

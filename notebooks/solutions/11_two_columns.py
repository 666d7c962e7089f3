"""Answers to the exercises of notebook 11.

What to expect of the two open ones: more: 35.8 MB instead of 22.2 MB, 1.6 times (27 × 27 × 96 numbers against
13 × 13 × 256). Silent half: conv1 of column 1 gets no gradient at all and never recovers, since its ReLUs
stay at 0; conv2 of column 1 gets none for its weights but one for its biases; from conv3 on all get some.
"""

C = 3  # channels of an owner in the check


def owners(readers):
    first, second = readers
    half = first.shape[1] // 2
    return first[:, :half] + second[:, :half], first[:, half:] + second[:, half:]


BYTES = 128 * 13 * 13 * 128 * 4
CONV4 = 384 * 192 * 3 * 3 + 384

RIGHT = {"conv3_bytes": BYTES, "owners_gradient": owners, "column_parameters": CONV4}
WRONG = {
    "conv3_bytes": [
        (BYTES // 4, "four bytes"),
        (BYTES // 128, "one image"),
        (2 * BYTES * 2, "only the other half"),
        (128 * 27 * 27 * 128 * 4, "13 rows"),
        (1000, "too small"),
    ],
    "owners_gradient": [
        (
            lambda readers: (readers[0][:, :C], readers[1][:, C:]),
            "the other's part is missing",
        ),
        (lambda readers: (readers[1][:, :C], readers[0][:, C:]), "add the column's own"),
        (lambda readers: [half / 2 for half in owners(readers)], "not averaged"),
        (lambda readers: owners(readers)[::-1], "swapped"),
        (lambda readers: readers[0], "two arrays"),
    ],
    "column_parameters": [
        (384 * 384 * 9 + 384, "one column"),
        (CONV4 - 384, "biases"),
        (CONV4 // 2, "half"),
        (1, "too small"),
    ],
}

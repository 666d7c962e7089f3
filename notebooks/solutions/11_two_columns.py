"""Answers to the exercises of notebook 11."""

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

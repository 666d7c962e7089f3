"""Answers to the exercises of notebook 19.

What to expect of the two open ones: at the same arithmetic a smaller network sees more pictures, so that
there is a best width for every bill, and it grows with it. A watt-hour meter: the processor's own counter
shows more than the arithmetic alone asks for, since memory and waiting cost, too.
"""

import math

FORWARD, LEARNING = 724_406_816, 2_067_805_248  # multiply-adds of a picture


def months_to_double(factor, years):
    return 12 * years / math.log2(factor)


RIGHT = {
    "answers_for_a_training": LEARNING * 1_281_167 * 90 / FORWARD,
    "months_to_double": months_to_double,
}
WRONG = {
    "answers_for_a_training": [
        (LEARNING * 1_281_167 / FORWARD, "one epoch's"),
        (1_281_167 * 90, "three times as much"),
        (3 * 1_281_167 * 90, "gradient of the image"),
        (LEARNING * 1_281_167 * 90, "divide"),
    ],
    "months_to_double": [
        (lambda factor, years: years / math.log2(factor), "in years"),
        (lambda factor, years: 12 * years / math.log(factor), "2.718"),
        (lambda factor, years: 12 * years / math.log10(factor), "grow by 10"),
        (lambda factor, years: 12 * years / factor, "doublings"),
    ],
}

"""The course: notebooks, checks of their exercises, grading."""

TOLERANCE = 1e-5
"""Of a number in an array that a student computed, as a fraction of the array's largest magnitude."""

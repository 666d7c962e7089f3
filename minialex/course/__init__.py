"""The course: notebooks, checks of their exercises, grading."""

TOLERANCE = 1e-5
"""Tolerance for the numbers in a student's array, as a fraction of the array's largest magnitude."""

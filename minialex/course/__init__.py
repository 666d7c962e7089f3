"""The course: notebooks, checks of their exercises, grading."""

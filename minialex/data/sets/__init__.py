"""Data sets, in the formats in which users have them."""

"""Training: the loop, its guards, and beginning from other weights."""

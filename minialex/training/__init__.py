"""Training: the loop, its guards, and starting from existing weights."""

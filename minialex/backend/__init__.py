"""The seam: what a backend is, its arrays and shape rules, and a step recorded as a list of operations."""

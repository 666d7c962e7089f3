"""The seam: what a backend is, how its arrays and shapes are, and a step as the operations that it is."""

"""The NumPy reference backend: one file per operation, forward above backward, with the equation in the docstring.

The same letters everywhere: N images, C input channels, H W input size, K kernels or output features, P Q output
size, R S kernel size, D input features.
"""

from minialex_numpy.backend import NumpyBackend as NumpyBackend

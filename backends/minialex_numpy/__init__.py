"""The NumPy reference backend: one file per operation, forward above backward, the equation in the docstring.

Letters everywhere: N images, C channels in, H W size in, K kernels or features out, P Q size out, R S size of a
kernel, D features in.
"""

from minialex_numpy.backend import NumpyBackend as NumpyBackend

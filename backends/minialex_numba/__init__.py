"""The Numba backend: the operations of `minialex.backend.protocol` for many CPU cores, and whole steps compiled.

Start with `backend`. Kernels work on flat arrays with offsets, channels last (`layout`); `vectors` has the three
innermost loops, `pool` the threads, `kernels` the compiler's cache.
"""

from minialex_numba.backend import NumbaBackend as NumbaBackend

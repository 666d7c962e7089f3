"""The Numba backend: the operations of `minialex.backend.protocol` for many CPU cores, and whole steps compiled.

Start with `backend`. `ops` has a file per operation, `conv` the convolutions built from matrix products, `compiler`
the code that turns a recorded program into one step, and `runtime` what all of them rest on: threads, the compiler's
cache, vectors, tiles, memory layouts. Imports go in this order, from `backend` down to `runtime`.
"""

from minialex_numba.backend import NumbaBackend as NumbaBackend

"""The Numba backend: the operations of `minialex.backend.protocol` for many CPU cores, and whole steps compiled.

Start with `backend`. `ops` has a file per operation, `conv` the convolutions that are made of matrix products,
`compiler` what makes one step of a recorded program, and `runtime` what all of them stand on: threads, the compiler's
cache, vectors, tiles, memory layouts. Imports go in this order, from `backend` down to `runtime`.
"""

from minialex_numba.backend import NumbaBackend as NumbaBackend

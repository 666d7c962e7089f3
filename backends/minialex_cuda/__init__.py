"""The CUDA backend: CuPy arrays and libraries, Numba CUDA kernels, one short file per operation.

Every change is tested with the conformance kit, on the processor and under Numba's CUDA simulator, and its kernels are
compiled for every GPU generation. Results from real devices are recorded in ``benchmarks/results/device``, which
docs/performance.md describes.

Importing this package loads neither CuPy nor a driver; creating a `CudaBackend` does.
"""

from minialex_cuda.backend import CudaBackend as CudaBackend

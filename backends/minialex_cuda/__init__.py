"""The CUDA backend: CuPy arrays and libraries, Numba CUDA kernels, one short file per operation.

On every change its kernels are tested by the conformance kit on the processor and under Numba's CUDA simulator, and
compiled for every generation of GPUs. What has run on a device is recorded in ``benchmarks/results/device``, which
docs/performance.md describes.

Importing this package imports neither CuPy nor a driver; making a `CudaBackend` does.
"""

from minialex_cuda.backend import CudaBackend as CudaBackend

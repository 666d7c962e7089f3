"""On the path, this puts the pretend driver under every Python that is started, whoever starts it.

What is measured with is small, since a processor does it.
"""

import pretend_devices  # noqa: F401

from minialex_cuda.diagnose import meter

meter.SIDE, meter.COPIED, meter.FROM_HOST, meter.SIZES = 64, 1 << 16, 1 << 16, (1, 4097)

try:
    import gpu_busy  # of benchmarks/, where that is on the path
except ImportError:
    pass
else:
    gpu_busy.HELD_UP = (2, 1 << 16)

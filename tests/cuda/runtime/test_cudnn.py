"""cuDNN has a deterministic plan for every convolution of the paper, in every precision: planned without a device.

cuDNN plans for a device that is described in a file. It needs its library (1 GB, with cuBLAS), its frontend 1.18, which
is the last that plans without a device, and a driver's library to link to, for which a stub will do. Where
``MINIALEX_CUDNN`` names no folder with all of them this is skipped; see the docstring of `planned` for how to make one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = os.environ.get("MINIALEX_CUDNN")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="MINIALEX_CUDNN names no folder with cuDNN to plan with")

H200 = {
    "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
    "multiProcessorCount": 132, "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "memoryBusWidth": 6144,
    "l2CacheSize": 62914560, "warpSize": 32, "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
    "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "pciDeviceId": 0, "maxCtasPerSM": 32,
    "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "isTccDriver": 0, "supportCoopLaunch": 1,
    "deviceName": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000, "totalGlobalMem": 150754820096,
    "cudaDeviceId": 0, "oversizedSharedMemoryPerBlock": 0, "version": 1, "isPageableMemoryAccess": 0,
}  # fmt: skip
"""Made up from what is published of the device, not read from one."""

CODE = """
import json, sys
import cudnn
from minialex_cuda.runtime.cudnn import Plan
from minialex_cuda.runtime.protocol import Convolution
where = {"device_property": cudnn.create_device_properties(sys.argv[1])}
LAYERS = {
    "conv1": (3, 224, 48, 11, 4, (0, 3)), "conv2": (48, 27, 128, 5, 1, (2, 2)), "conv3": (256, 13, 192, 3, 1, (1, 1)),
    "conv4": (192, 13, 192, 3, 1, (1, 1)), "conv5": (192, 13, 128, 3, 1, (1, 1)),
}
found = {}
for precision in ("float32", "tf32", "bfloat16"):
    for name, (C, H, K, R, stride, sides) in LAYERS.items():
        for kind in ("fprop", "dgrad", "wgrad"):
            if (name, kind) == ("conv1", "dgrad"):
                continue  # nothing before it learns
            P = (H + sum(sides) - R) // stride + 1
            C = 8 if precision == "bfloat16" and C == 3 else C
            asked = Convolution(kind, 128, C, H, H, K, R, R, P, P, stride, (sides, sides), precision)
            found[f"{precision} {name} {kind}"] = Plan(cudnn, asked, **where).workspace
print(json.dumps(found))
"""


def planned() -> dict[str, int]:
    """Bytes of scratch memory of every plan.

    The folder: ``pip install --no-deps --target FOLDER nvidia-cudnn-frontend==1.18.0 nvidia-cudnn-cu13``, the same of
    ``nvidia-cublas`` and ``nvidia-cuda-nvrtc`` into ``FOLDER/more``, and a ``libcuda.so.1`` that says that there is no
    device in ``FOLDER/stub``.
    """
    folder = Path(FOLDER or "")
    libraries = {
        where for where, _, names in os.walk(folder, followlinks=True) for name in names if name.startswith("lib")
    }
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
        "PYTHONPATH": ":".join([str(folder), *sys.path]),
    }
    command = [sys.executable, "-c", CODE, json.dumps(H200)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_layer_has_a_plan_with_little_scratch_memory() -> None:
    found = planned()
    assert len(found) == 3 * 14
    assert max(found.values()) < 256 << 20, found

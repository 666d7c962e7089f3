"""Which plans cuDNN has for the paper's convolutions, without a device: of its 9.19, its newest, or any other version.

    python benchmarks/cudnn_plans.py ~/cudnn 9.19.0.56        # another version: another folder
    python benchmarks/cudnn_plans.py ~/cudnn-newest           # the newest
    MINIALEX_CUDNN=~/cudnn python -m pytest tests/cuda/runtime/test_cudnn.py

The first two fill a folder that is not there yet by pip (some 1.5 GB with cuBLAS, a download of 1 GB) and print the
table; the last is the test. cuDNN plans for a device that is described, not there; its frontend 1.18 is the last that
can, and it links to a driver's library, for which one that says "no device" will do (made here; needs gcc).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

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

CALLED = """
CtxGetCurrent CtxGetLimit CtxPopCurrent CtxPushCurrent DeviceGet GetErrorName GetErrorString KernelGetAttribute
KernelGetFunction KernelSetAttribute LaunchCooperativeKernel LaunchKernel LaunchKernelEx LibraryGetKernel
LibraryLoadData LibraryLoadFromFile LibraryUnload LinkAddData LinkComplete LinkCreate LinkDestroy ModuleGetFunction
ModuleLoadData ModuleUnload OccupancyMaxPotentialClusterSize StreamGetCtx TensorMapEncodeIm2col TensorMapEncodeTiled
GetProcAddress GetProcAddress_v2 DeviceGetCount Init
"""
"""What cuDNN and CUDA's runtime expect of a driver's library (with ``cu`` before it)."""

CODE = """
import json, sys, time
import cudnn
from minialex_cuda.runtime.cudnn import Plans
sys.path.insert(0, {benchmarks!r})
from convolutions import KINDS, LAYERS, convolution
where = {{"device_property": cudnn.create_device_properties(sys.argv[1])}}
batch, found = int(sys.argv[2]), {{"version": cudnn.backend_version(), "frontend": cudnn.__version__, "plans": {{}}}}
for precision in sys.argv[3].split(","):
    for name in LAYERS:
        for kind in KINDS:
            if (asked := convolution(name, kind, batch, precision)) is None:
                continue
            began = time.perf_counter()
            try:
                made = Plans(cudnn, asked, **where)
                first = made.first_ready()
            except Exception as error:
                told = {{"error": " ".join(str(error).split())[:200] or type(error).__name__}}
            else:
                told = {{"plans": made.graph.get_execution_plan_count(), "workspace": first.workspace,
                        "plan": first.name}}
            told["seconds"] = round(time.perf_counter() - began, 2)
            found["plans"][f"{{precision}} {{name}} {{kind}}"] = told
print(json.dumps(found))
"""


def made(folder: Path, version: str | None) -> Path:
    """The folder, filled if it is not there: cuDNN with its frontend, cuBLAS and NVRTC in ``more``, a driver's stub."""
    if not (folder / "stub").is_dir():
        cudnn = "nvidia-cudnn-cu13" + (f"=={version}" if version else "")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, str(folder), "nvidia-cudnn-frontend==1.18.0", cudnn], check=True)
        subprocess.run([*pip, str(folder / "more"), "nvidia-cublas", "nvidia-cuda-nvrtc"], check=True)
        with tempfile.TemporaryDirectory() as place:
            source = Path(place) / "stub.c"
            text = [f"int cu{name}(void) {{ return 100; }}" for name in CALLED.split()]  # CUDA_ERROR_NO_DEVICE
            text.append("int cuDriverGetVersion(int* v) { *v = 13000; return 0; }")
            source.write_text("\n".join(text) + "\n")
            (folder / "stub").mkdir()
            out = str(folder / "stub" / "libcuda.so.1")
            subprocess.run(
                ["gcc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", out, str(source)], check=True
            )
    return folder


def planned(folder: Path, batch: int, precisions: str = "bfloat16,tf32,float32") -> dict[str, Any]:
    """Version, and by precision, layer and kind the plan, or the error where there is none."""
    libraries = {
        where for where, _, names in os.walk(folder, followlinks=True) for name in names if name.startswith("lib")
    }
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
        "PYTHONPATH": ":".join([str(folder), str(ROOT), str(ROOT / "backends"), *sys.path]),
    }
    code = CODE.format(benchmarks=str(ROOT / "benchmarks"))
    command = [sys.executable, "-c", code, json.dumps(H200), str(batch), precisions]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Which plan cuDNN has for each of the paper's convolutions.")
    parser.add_argument("folder", type=Path, help="with cuDNN; made, and cuDNN fetched (1 GB), if it is not there")
    parser.add_argument("version", nargs="?", help="of cuDNN, to be fetched; else the newest")
    options = parser.parse_args()
    where = made(options.folder.expanduser().absolute(), options.version)
    for size in (128, 1024):
        told = planned(where, size)
        print(f"cuDNN {told['version']}, frontend {told['frontend']}, batch {size}:\n")
        print("| convolution | plans, deselected too | scratch memory | plan | planned in |\n|---|---:|---:|---|---:|")
        for name, plan in told["plans"].items():
            cells = ["**none**", "–", plan["error"]] if "error" in plan else [plan["plans"]]
            cells += [] if "error" in plan else [f"{plan['workspace'] / 2**20:.1f} MiB", plan["plan"]]
            print("|", " | ".join(map(str, [name, *cells, f"{plan['seconds']} s"])), "|")
        print()

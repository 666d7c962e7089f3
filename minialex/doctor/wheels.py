"""The CUDA backend's packages: which are installed, in which versions, and whether they work together.

The rules are few and each has a reason: what was tried (CUDA.md in the project's notes) or what a package's
maintainers say. Versions come from package metadata; `probe` then loads the libraries, which needs no GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from minialex.doctor.checks import Check

CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
OTHERS = (
    "numpy", "numba", "numba-cuda", "nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cublas",
    "nvidia-cublas-cu12", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-nvvm", "cuda-toolkit",
)  # fmt: skip

OLDEST_CUDA = (13, 0)
"""CUDA that a driver must run at least, for the wheels of the extra ``cuda``: 13.0 came with driver 580."""

NEWER_DRIVER = "install driver 580 or newer: https://www.nvidia.com/drivers, then reboot"

INSTALL = 'pip install "minialex[cuda]"'
"""What brings everything that the backend needs but the driver, in versions that work together."""

CUDNN = 'pip install "nvidia-cudnn-frontend>=1.18,<1.30" nvidia-cudnn-cu{major}'


def installed() -> dict[str, str]:
    """Versions of the packages that are installed, by name."""
    found = {}
    for name in (*CUPY, *OTHERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def number(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 4, 6) of ``"2.4.6rc1"``."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def checks(found: Mapping[str, str], cuda: tuple[int, int] | None) -> list[Check]:
    """Whether the packages suit each other and the driver.

    Args:
        found: as `installed` gives
        cuda: what the driver runs, None where there is no driver
    """
    return [*_cupy(found, cuda), *_numba(found), *_toolkit(found, cuda), *_cudnn(found)]


def _cupy(found: Mapping[str, str], cuda: tuple[int, int] | None) -> list[Check]:
    here = [name for name in CUPY if name in found]
    if not here:
        return [Check("cuda", "CuPy", "problem", "not installed", INSTALL)]
    if len(here) > 1:
        text = " and ".join(f"{name} {found[name]}" for name in here)
        return [
            Check(
                "cuda", "CuPy", "problem", f"{text} are installed together and overwrite each other",
                f"pip uninstall -y {' '.join(here)} && {INSTALL}",
            )
        ]  # fmt: skip
    (name,) = here
    text = f"{name} {found[name]}"
    if number(found[name]) < (14,):
        return [Check("cuda", "CuPy", "problem", f"{text} is older than 14", INSTALL)]
    made_for = re.search(r"cuda(\d\d)x", name)
    if cuda is not None and made_for and int(made_for.group(1)) > cuda[0]:
        return [
            Check(
                "cuda", "CuPy", "problem",
                f"{text} needs CUDA {made_for.group(1)}, the driver runs {cuda[0]}.{cuda[1]}",
                NEWER_DRIVER,
            )
        ]  # fmt: skip
    return [Check("cuda", "CuPy", "ok", text)]


def _numba(found: Mapping[str, str]) -> list[Check]:
    if "numba-cuda" not in found:
        return [Check("cuda", "numba-cuda", "problem", "not installed", INSTALL)]
    text = f"numba-cuda {found['numba-cuda']} with NumPy {found.get('numpy', '(none)')}"
    if not (0, 30) <= number(found["numba-cuda"]) < (0, 31):
        return [
            Check(
                "cuda", "numba-cuda", "note", f"{text}: the backend was tried with numba-cuda 0.30",
                'pip install "numba-cuda>=0.30,<0.31"',
            )
        ]  # fmt: skip
    if number(found.get("numpy", "0")) >= (2, 5):
        return [
            Check(
                "cuda", "numba-cuda", "problem",
                f"{text}: numba-cuda 0.30 compiles nothing with NumPy 2.5 and newer (NVIDIA/numba-cuda#907)",
                'pip install "numpy<2.5"',
            )
        ]  # fmt: skip
    return [Check("cuda", "numba-cuda", "ok", text)]


def _toolkit(found: Mapping[str, str], cuda: tuple[int, int] | None) -> list[Check]:
    nvvm = number(found.get("nvidia-nvvm", ""))
    if cuda is None or nvvm[:1] != cuda[:1] or nvvm[:2] <= cuda:
        return []
    return [
        Check(
            "cuda", "CUDA toolkit", "note",
            f"nvidia-nvvm {found['nvidia-nvvm']} is newer than the driver's CUDA {cuda[0]}.{cuda[1]}: a driver refuses"
            " kernels in newer PTX (NVIDIA/numba-cuda#163); if one is refused:",
            f'pip install "cuda-toolkit=={cuda[0]}.{cuda[1]}.*"',
        )
    ]  # fmt: skip


def _cudnn(found: Mapping[str, str]) -> list[Check]:
    major = "12" if "cupy-cuda12x" in found and "cupy-cuda13x" not in found else "13"
    library = found.get(f"nvidia-cudnn-cu{major}")
    frontend = found.get("nvidia-cudnn-frontend")
    line = CUDNN.format(major=major)
    if frontend is None or library is None:
        missing = [
            name
            for name, there in (("nvidia-cudnn-frontend", frontend), (f"nvidia-cudnn-cu{major}", library))
            if there is None
        ]
        text = f"{' and '.join(missing)} not installed: convolutions take the readable, slower path"
        return [Check("cuda", "cuDNN", "note", text, line)]
    text = f"cuDNN {library} with frontend {frontend}"
    if not (1, 18) <= number(frontend) < (1, 30):
        return [Check("cuda", "cuDNN", "note", f"{text}: frontends from 1.18 to before 1.30 were tried", line)]
    return [Check("cuda", "cuDNN", "ok", text)]


def _load(name: str) -> object:
    """A library by its name in ``cupy.cuda``, which finds it among the wheels or in the system's toolkit."""
    return getattr(import_module("cupy.cuda"), name)


def probe(found: Mapping[str, str], load: Callable[[str], object] = _load) -> list[Check]:
    """Load the libraries that the backend calls; an import that fails says what is missing. Needs no GPU."""
    if not any(name in found for name in CUPY):
        return []
    made = []
    for topic, name in (("cuBLAS", "cublas"), ("NVRTC", "nvrtc")):
        try:
            load(name)
        except Exception as error:  # ImportError, OSError, or what the loader of NVIDIA's libraries raises
            reason = " ".join(str(error).split())
            made.append(Check("cuda", topic, "problem", f"cannot be loaded: {reason[:160]}", INSTALL))
        else:
            package = "nvidia-cublas" if topic == "cuBLAS" else "nvidia-cuda-nvrtc"
            known = found.get(package) or found.get(f"{package}-cu12")
            made.append(Check("cuda", topic, "ok", f"{package} {known}" if known else "of an installed CUDA toolkit"))
    return made

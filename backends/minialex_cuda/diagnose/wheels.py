"""The CUDA backend's packages: which are installed, in which versions, and whether they work together.

There are few rules, each with a reason: our own tests, or statements of a package's maintainers. Versions come from
package metadata; `libraries` then loads what the backend calls, which needs no GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from minialex.backend.findings import Check

CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
OTHERS = (
    "numpy", "numba", "numba-cuda", "nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cublas",
    "nvidia-cublas-cu12", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-nvvm", "cuda-toolkit",
)  # fmt: skip

Version = tuple[int, ...]

OLDEST_CUDA: Version = (13, 0)
"""The oldest CUDA that a driver may support, for the wheels of the extra ``cuda``: 13.0 came with driver 580."""

OLDEST_CUPY: Version = (14,)
NUMBA_CUDA: tuple[Version, Version] = (0, 30), (0, 31)
CUDNN_FRONTEND: tuple[Version, Version] = (1, 18), (1, 30)
"""Tested versions, from the first up to but excluding the second."""

NEWER_DRIVER = "install driver 580 or newer: https://www.nvidia.com/drivers, then reboot"

INSTALL = 'pip install "minialex[cuda]"'
"""Installs everything that the backend needs except the driver, in compatible versions."""

CUDNN = 'pip install "nvidia-cudnn-frontend>=1.18,<1.30" nvidia-cudnn-cu{major}'

finding = partial(Check, "cuda")


def installed() -> dict[str, str]:
    """Versions of the installed packages, by name."""
    found = {}
    for name in (*CUPY, *OTHERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def number(text: str) -> Version:
    """The leading numbers of a version: (2, 4, 6) of ``"2.4.6rc1"``."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def checks(found: Mapping[str, str], cuda: Version | None) -> list[Check]:
    """Check whether the packages fit each other and the driver.

    Args:
        found: as returned by `installed`
        cuda: the CUDA version that the driver supports; None if there is no driver
    """
    return [_cupy(found, cuda), _numba(found), *_toolkit(found, cuda), _cudnn(found)]


def _cupy(found: Mapping[str, str], cuda: Version | None) -> Check:
    here = [name for name in CUPY if name in found]
    if not here:
        return finding("CuPy", "problem", "not installed", INSTALL)
    if len(here) > 1:
        text = " and ".join(f"{name} {found[name]}" for name in here)
        mend = f"pip uninstall -y {' '.join(here)} && {INSTALL}"
        return finding("CuPy", "problem", f"{text} are installed together and overwrite each other", mend)
    (name,) = here
    text = f"{name} {found[name]}"
    if number(found[name]) < OLDEST_CUPY:
        return finding("CuPy", "problem", f"{text} is older than 14", INSTALL)
    made_for = re.search(r"cuda(\d\d)x", name)
    if cuda is not None and made_for and int(made_for.group(1)) > cuda[0]:
        text = f"{text} needs CUDA {made_for.group(1)}, the driver runs {cuda[0]}.{cuda[1]}"
        return finding("CuPy", "problem", text, NEWER_DRIVER)
    return finding("CuPy", "ok", text)


def _numba(found: Mapping[str, str]) -> Check:
    if "numba-cuda" not in found:
        return finding("numba-cuda", "problem", "not installed", INSTALL)
    text = f"numba-cuda {found['numba-cuda']} with NumPy {found.get('numpy', '(none)')}"
    first, beyond = NUMBA_CUDA
    if not first <= number(found["numba-cuda"]) < beyond:
        mend = 'pip install "numba-cuda>=0.30,<0.31"'
        return finding("numba-cuda", "note", f"{text}: the backend was tried with numba-cuda 0.30", mend)
    return finding("numba-cuda", "ok", text)


def _toolkit(found: Mapping[str, str], cuda: Version | None) -> list[Check]:
    nvvm = number(found.get("nvidia-nvvm", ""))
    if cuda is None or nvvm[:1] != cuda[:1] or nvvm[:2] <= cuda:
        return []
    text = (
        f"nvidia-nvvm {found['nvidia-nvvm']} is newer than the driver's CUDA {cuda[0]}.{cuda[1]}: a driver refuses "
        "kernels in newer PTX (NVIDIA/numba-cuda#163); if one is refused:"
    )
    return [finding("CUDA toolkit", "note", text, f'pip install "cuda-toolkit=={cuda[0]}.{cuda[1]}.*"')]


def _cudnn(found: Mapping[str, str]) -> Check:
    major = "12" if "cupy-cuda12x" in found and "cupy-cuda13x" not in found else "13"
    needed = ("nvidia-cudnn-frontend", f"nvidia-cudnn-cu{major}")
    mend = CUDNN.format(major=major)
    missing = [name for name in needed if name not in found]
    if missing:
        text = f"{' and '.join(missing)} not installed: convolutions use the readable, slower kernels"
        return finding("cuDNN", "note", text, mend)
    frontend, library = (found[name] for name in needed)
    text = f"cuDNN {library} with frontend {frontend}"
    first, beyond = CUDNN_FRONTEND
    if not first <= number(frontend) < beyond:
        return finding("cuDNN", "note", f"{text}: frontends from 1.18 to before 1.30 were tried", mend)
    return finding("cuDNN", "ok", text)


def _load(name: str) -> None:
    if name == "cupy":
        import_module(name)
    else:  # from the wheels or the system's toolkit, as CuPy and Numba find it
        import_module("cuda.pathfinder").load_nvidia_dynamic_lib(name)


def libraries(found: Mapping[str, str], load: Callable[[str], None] | None = None) -> list[Check]:
    """Load the libraries that the backend calls; a failed import says what is missing. Needs no GPU."""
    if not any(name in found for name in CUPY):
        return []
    made = []
    for topic, name, package in (
        ("CuPy", "cupy", None), ("cuBLAS", "cublas", "nvidia-cublas"), ("NVRTC", "nvrtc", "nvidia-cuda-nvrtc"),
    ):  # fmt: skip
        try:
            (load or _load)(name)
        except Exception as error:  # ImportError, OSError, or an exception of NVIDIA's loader
            reason = " ".join(str(error).split())
            made.append(finding(topic, "problem", f"cannot be loaded: {reason[:160]}", INSTALL))
        else:
            if package is not None:
                known = found.get(package) or found.get(f"{package}-cu12")
                text = f"{package} {known}" if known else "from an installed CUDA toolkit"
                made.append(finding(topic, "ok", text))
    return made

"""The data of the site's live parts: JSON for the light ones, and minialex as a pure wheel for Pyodide."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import __version__
from minialex.network.layers import Conv2d
from minialex.network.models import ALEXNET
from minialex.site import ROOT, live
from minialex.storage.atomic import write_bytes, write_json, write_text

PYODIDE = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/"
"""Where the page gets Pyodide from: ``made/live/settings.json`` in the built site has this address, and may have
another one; ``minialex docs --pyodide`` serves a different one without changing the site."""

WHEEL = f"minialex-{__version__}-py3-none-any.whl"

_NOT_LIVE = (
    "api", "cli", "conformance", "course", "doctor", "evaluation", "exchange", "figures", "look", "runs",
    "site", "speed", "studies", "training",
)  # fmt: skip
"""Packages of minialex that live parts do not use; `minialex.site.live` itself stays."""


def calculator() -> dict[str, Any]:
    """The calculator's initial values: the paper's conv1."""
    network = ALEXNET
    first = next(layer for layer in network.layers if isinstance(layer, Conv2d))
    channels, size, _ = network.input_shape
    before, after = first.padding[0]
    return {"defaults": {"channels": channels, "size": size, "kernels": first.kernels, "kernel": first.size,
                         "stride": first.stride, "before": before, "after": after}}  # fmt: skip


def first() -> dict[str, Any]:
    """What live parts show before anybody presses the button: the results of the first settings of operations.js.

    Of each its arguments without the picture, which is the drawn one, and what `minialex.site.live` makes of them.
    """
    size = 48
    picture = {"image": drawn(size).ravel(), "height": size, "width": size}
    edges = [-1, 0, 1, -2, 0, 2, -1, 0, 1]
    asked: dict[str, dict[str, Any]] = {
        "convolution": {"kernel": edges, "stride": 1, "padding": 1},
        "relu": {"kernel": edges, "bias": 0},
        "pooling": {"size": 3, "stride": 2},
    }
    return {
        name: {"args": settings, "result": _plain(live.call(name, {**picture, **settings}))}
        for name, settings in asked.items()
    }


def drawn(size: int) -> NDArray[np.float32]:
    """The drawn picture of live.js in grey, `sample(size, 1)` there, [size,size]."""
    i, j = np.mgrid[:size, :size].astype(np.float64)
    disc = np.hypot(i - 0.4 * size, j - 0.4 * size) < 0.26 * size
    bar = np.abs(i + j - 1.5 * size) < 0.08 * size
    ramp = 40 + 80 * j / size + (90 + 60 * i / size) + 170
    grey = np.where(disc, 220 + 60 + 40, np.where(bar, 250 + 210 + 60, ramp)) / 3
    return np.floor(grey + 0.5).astype(np.float32)


def _plain(value: Any) -> Any:
    """JSON values of a result; whole numbers have no decimal point, which halves the file."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return [int(x) if x == int(x) else round(float(x), 4) for x in value]
    return value


def wheel(without: Sequence[str] = _NOT_LIVE, requires: Sequence[str] = ()) -> bytes:
    """minialex and its reference backend as a pure Python wheel. The same sources give the same bytes.

    Args:
        without: packages of minialex to leave out; by default those that live parts do not use
        requires: what to install with it
    """
    files: dict[str, bytes] = {}
    for package, top in (("minialex", ROOT / "minialex"), ("minialex_numpy", ROOT / "backends" / "minialex_numpy")):
        for path in sorted(path for kind in ("py", "toml", "json") for path in top.rglob(f"*.{kind}")):
            within = path.relative_to(top)
            if within.parts[0] not in without or within.as_posix() in ("site/__init__.py", "site/live.py"):
                files[f"{package}/{within.as_posix()}"] = path.read_bytes()
    info = f"minialex-{__version__}.dist-info"
    needs = "".join(f"Requires-Dist: {name}\n" for name in requires)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: minialex\nVersion: {__version__}\n{needs}".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: minialex\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = b"[minialex.backends]\nnumpy = minialex_numpy:NumpyBackend\n"
    return pack(files, info)


def pack(content: Mapping[str, bytes], info: str) -> bytes:
    """Files and the folder that describes them (``NAME-VERSION.dist-info``) as a wheel."""
    files = {name: data for name, data in content.items() if name != f"{info}/RECORD"}
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def write(folder: Path) -> list[Path]:
    """Write the JSON files, ``lite.js`` (see `minialex.site.lite`) and the wheel; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"pyodide": PYODIDE, "wheel": WHEEL}
    parts = {"columns.json": live.wanted(), "calculator.json": calculator(), "settings.json": settings}
    for name, value in parts.items():
        write_json(folder / name, value)
    write_text(folder / "first.json", json.dumps(first(), separators=(",", ":")) + "\n")
    write_text(folder / "lite.js", "// `python -m minialex.site.lite` puts the links of the page of notebooks here\n")
    write_bytes(folder / WHEEL, wheel())
    return [*(folder / name for name in (*parts, "first.json", "lite.js")), folder / WHEEL]

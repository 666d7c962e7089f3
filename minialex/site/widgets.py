"""The data of the site's live parts: JSON for the light ones, and minialex as a pure wheel for Pyodide."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    write_text(folder / "lite.js", "// `python -m minialex.site.lite` puts the links of the page of notebooks here\n")
    write_bytes(folder / WHEEL, wheel())
    return [*(folder / name for name in (*parts, "lite.js")), folder / WHEEL]

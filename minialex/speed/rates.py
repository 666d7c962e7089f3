"""How fast machines are: matrix products, memory, and the link between two devices, known or measured.

The table has the manufacturers' figures (dense, without sparsity) or, where available, measurements; each entry says
which. ``minialex doctor --report FILE`` measures a user's own machine, and `read` reads its report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minialex.errors import ConfigurationError
from minialex.screen.formats import shell

PRECISIONS = {"float32": 4, "tf32": 4, "bfloat16": 2}
"""A recipe's precisions, and the bytes of an activation (and of an exchanged gradient) in each."""


@dataclass(frozen=True)
class Rates:
    """One device.

    Attributes:
        name: the device's name
        matrix: floating-point operations per second of a matrix product, by precision; missing ones are not supported
        copy: bytes per second through its memory, reads plus writes
        link: bytes per second to another such device, in one direction; None if there is no other
        memory: bytes of memory; None if unknown
        source: the source of the numbers
        watts: the stated maximum power (board or package); None if unknown
        watts_source: the source of that
    """

    name: str
    matrix: Mapping[str, float]
    copy: float
    link: float | None = None
    memory: int | None = None
    source: str = ""
    watts: float | None = None
    watts_source: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


LINKS = {"nvlink4": 450e9, "nvlink3": 300e9, "pcie5": 55e9, "pcie4": 25e9, "pcie3": 12.5e9, "pcie2": 6e9}
"""Bytes per second in one direction: NVLink as stated by NVIDIA, PCIe x16 at some 80 to 90 % of its raw rate."""

_HOPPER = "https://glennklockwood.com/garden/processors/h100 (from NVIDIA's data sheet)"
_AMPERE = "https://glennklockwood.com/garden/processors/A100 (from NVIDIA's data sheet)"

KNOWN: dict[str, Rates] = {
    "h200": Rates(
        "NVIDIA H200", {"float32": 67e12, "tf32": 394e12, "bfloat16": 788e12}, 4.3e12, LINKS["nvlink4"], 141 * 10**9,
        "bfloat16 and memory measured on one H200 (2026-11-23); tf32 taken as half of bfloat16; float32 and link as "
        f"stated, {_HOPPER}", 700, "https://hmc-tech.com/gpu/nvidia-h100-vs-nvidia-h200-sxm-vs-nvidia-gb200",
    ),
    "h100": Rates(
        "NVIDIA H100 SXM", {"float32": 51.9e12, "tf32": 405e12, "bfloat16": 761e12}, 2.95e12, LINKS["nvlink4"],
        80 * 10**9, "products and memory measured on one H100 80GB HBM3 (2026-11-27); link as stated, "
        f"{_HOPPER}", 700, "https://hawkvelt.id.au/post/2024-08-04-nvidia-h100",
    ),
    "a100": Rates(
        "NVIDIA A100 80GB SXM", {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12}, 2.039e12, LINKS["nvlink3"],
        80 * 10**9, f"as stated, {_AMPERE}",
    ),
    "l4": Rates(
        "NVIDIA L4", {"float32": 30.3e12, "tf32": 62.7e12, "bfloat16": 125.3e12}, 300e9, LINKS["pcie4"], 24 * 2**30,
        "as stated, https://hmc-tech.com/gpu/nvidia-l4-vs-nvidia-t4 and https://topcpu.net/en/gpu-c/l4-vs-tesla-t4",
        72, "https://acecloud.ai/blog/nvidia-h200-vs-h100-vs-a100-vs-l40s-vs-l4",
    ),
    "t4": Rates(
        "NVIDIA T4", {"float32": 8.14e12}, 320e9, LINKS["pcie3"], 16 * 2**30,
        "as stated, https://topcpu.net/en/gpu-c/l4-vs-tesla-t4; it has neither tf32 nor bfloat16",
    ),
    "rtx4090": Rates(
        "NVIDIA GeForce RTX 4090", {"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12}, 1008e9, LINKS["pcie4"],
        24 * 2**30, "as stated, https://waredb.com/processor/nvidia-geforce-rtx-4090",
        450, "https://bytebuys.com/power-consumption-of-the-rtx-4090-how-much-energy-does-the-gpu-use",
    ),
    "rtx3060": Rates(
        "NVIDIA GeForce RTX 3060", {"float32": 12.7e12}, 360e9, LINKS["pcie4"], 12 * 2**30,
        "as stated, https://sysrqmts.com (float32 and memory alone: no sound source for its tensor cores)",
    ),
    "gtx580": Rates(
        "NVIDIA GeForce GTX 580", {"float32": 1.581e12}, 192.4e9, LINKS["pcie2"], 3 * 2**30,
        "the paper's card with 3 GB: 512 cores at 1.544 GHz, "
        "https://bit-tech.net/reviews/tech/graphics/nvidia-geforce-gtx-580-review/2/; memory: "
        "http://grafikkartentest.net/nvidia-geforce-gtx-580/",
        244, "https://www.game-debate.com/hardware/index.php?gid=448&graphics=GeForce%20GTX%20580",
    ),
}  # fmt: skip
"""Devices by their short names for ``minialex plan --devices``."""


def link(text: str) -> float:
    """A link from its name, or from a number of gigabytes (10⁹) per second in one direction.

    Raises:
        ConfigurationError: If it is neither.
    """
    if text in LINKS:
        return LINKS[text]
    try:
        value = float(text) * 1e9
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(
            f"--link takes {', '.join(LINKS)} or a number of gigabytes a second in one direction, got '{text}'"
        )
    return value


def network(text: str) -> float:
    """Bytes per second from a node to others, from its ports: ``400g``, or ``8x400g`` for eight of them.

    A port carries some 90 % of its nominal rate.

    Raises:
        ConfigurationError: If it is something else.
    """
    found = re.fullmatch(r"(?:([1-9]\d{0,2})x)?([1-9]\d{0,4})g", text.strip().lower())
    if found is None:
        raise ConfigurationError(f"--network takes gigabits a second of a node's ports: 100g, 8x400g; got '{text}'")
    return int(found[1] or 1) * int(found[2]) * 0.9e9 / 8


def read(path: Path) -> dict[str, Rates]:
    """Measured rates by device name (``"cpu"``, ``"cuda:0"``, …) from a report of ``minialex doctor --report``.

    Raises:
        ConfigurationError: If the file is unreadable, is not such a report, or has a rate that is not positive.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read rates from {path}: {error}") from None
    table = report.get("rates") if isinstance(report, dict) else None
    if not isinstance(table, dict) or not table:
        raise ConfigurationError(
            f"{path} holds no measured rates; make it with `{shell('minialex', 'doctor', '--report', path)}` on the "
            "machine to plan for"
        )
    return {name: _checked(path, name, fields) for name, fields in table.items()}


def _checked(path: Path, name: str, fields: Any) -> Rates:
    def positive(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")

    sound = (
        isinstance(fields, dict)
        and set(fields) <= set(Rates.__dataclass_fields__)
        and isinstance(fields.get("matrix"), dict)
        and set(fields["matrix"]) <= set(PRECISIONS)
        and all(map(positive, fields["matrix"].values()))
        and positive(fields.get("copy"))
        and all(fields.get(key) is None or positive(fields[key]) for key in ("link", "memory", "watts"))
        and all(isinstance(fields.get(key, ""), str) for key in ("name", "source", "watts_source"))
    )
    if not sound:
        raise ConfigurationError(
            f"{path}: the rates of '{name}' are damaged: matrix (by precision) and copy must be positive numbers"
        )
    return Rates(**{"name": name, **fields})

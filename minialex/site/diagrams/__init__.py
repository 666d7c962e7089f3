"""The drawings of the tutorial, from the library's own numbers.

``python -m minialex.site.diagrams FOLDER`` writes them all as ``NAME.svg``, within a second or two. A page includes one
inline, in ``<figure class="diagram">``, so that ``docs/assets/diagrams.css`` can colour it for the page's palette.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minialex.site.diagrams import exchange, history, learning, maps, network, rooms, training, units
from minialex.site.diagrams.svg import Drawing
from minialex.storage.atomic import write_text

DRAWINGS: tuple[Callable[[], Drawing], ...] = (
    network.columns, network.shares, network.fields, network.depth,
    exchange.exchange, exchange.timeline,
    learning.wires, learning.step, learning.intervals,
    maps.image, maps.padding, maps.convolution, maps.patches, maps.pooling, maps.crops,
    units.relu, units.normalisation, units.dropout,
    training.signal, training.update, training.plateau, training.schedule,
    history.contest, history.folds,
    rooms.rooms,
)  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Draw all of them into a folder, which is created if needed; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {folder / f"{drawing.name}.svg": drawing.render() for drawing in (draw() for draw in DRAWINGS)}
    for path, text in drawings.items():
        write_text(path, text)
    return list(drawings)

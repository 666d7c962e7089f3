"""Drawings for single notebooks, kept here so that their cells contain the lesson and not the plotting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from minialex.course.notebooks.show import COLOURS, Picture
from minialex.figures import pictures
from minialex.look.units import receptive_field
from minialex.network.network import Network

Float = NDArray[np.floating]
MARKS = 600  # of the masks, in one panel


def mask_answers(networks: Mapping[str, tuple[Sequence[Float], Float, Float]]) -> Picture:
    """The outputs of dropout's networks, beside their geometric mean and the single network with halved outputs.

    Args:
        networks: title -> (the probabilities [K] that each mask gives, their geometric mean [K], those of the halved
            network [K]), one panel each
    """
    with pictures.style():
        figure = pictures.blank(7.2, 2.8)
        panels = figure.subplots(
            1, len(networks), squeeze=False, gridspec_kw={"left": 0.09, "bottom": 0.2, "right": 0.97}
        )
        for axes, (title, (answers, mean, halved)) in zip(panels[0], networks.items(), strict=True):
            for k, values in enumerate(np.array(answers)[:MARKS].T):
                places = k + (np.arange(len(values)) / len(values) - 0.5) * 0.6
                axes.plot(places, values, ".", color=pictures.GRID, markersize=2)
            axes.plot(mean, "o", color=COLOURS[0], markersize=9, fillstyle="none", label="geometric mean of all")
            axes.plot(halved, "x", color=COLOURS[1], markersize=7, label="neurons halved")
            axes.set(title=title, xlabel="class", ylim=(0, 1))
        panels[0, 0].set_ylabel("probability")
        panels[0, 0].legend(frameon=False, fontsize=8)
    return Picture(figure)


def descents(paths: Mapping[str, Float], curvatures: tuple[float, float]) -> Picture:
    """Paths of descent through a valley whose bottom is at 0.

    Args:
        paths: name -> points [steps + 1, 2]
        curvatures: (a, b) of the loss ½·a·x² + ½·b·y²
    """
    x, y = np.meshgrid(np.linspace(-10, 4, 141), np.linspace(-3, 3, 61))
    loss = (curvatures[0] * x**2 + curvatures[1] * y**2) / 2
    with pictures.style():
        figure = pictures.blank(7.4, 1.8 * len(paths))
        panels = figure.subplots(
            len(paths), 1, squeeze=False, gridspec_kw={"hspace": 0.6, "left": 0.07, "right": 0.98, "top": 0.93}
        )
        for colour, axes, (name, path) in zip(COLOURS, panels[:, 0], paths.items(), strict=False):
            axes.contour(x, y, loss, levels=14, colors=pictures.GRID, linewidths=0.8)
            axes.plot(*path.T, ".-", color=colour, linewidth=1.2, markersize=4)
            away = np.hypot(*path[-1])
            axes.set_title(f"{name}: after {len(path) - 1} steps {away:.2g} from the bottom", fontsize=9)
            axes.set(xlim=(-10, 4), ylim=(-3, 3))
    return Picture(figure)


def columns(network: Network) -> Picture:
    """What reads what in a two-column network: layers with weights as squares, exchanges as dashed lines."""
    shown = [stage for stage in network.stages(2) if stage.layer.name.startswith(("conv", "fc"))]
    with pictures.style():
        figure = pictures.blank(7.6, 3.0)
        axes = figure.add_axes((0.01, 0.02, 0.98, 0.9))
        axes.axis("off")
        for n, stage in enumerate(shown):
            whole = stage.columns == 1
            for reader in range(stage.columns):
                colour = pictures.INK if whole else COLOURS[reader]
                axes.plot(n, -reader, "s", color=colour, markersize=17)
                for owner in range(2) if n else ():
                    if owner == reader or stage.gathers or whole:
                        form = "-" if owner == reader else "--"
                        axes.plot([n - 0.82, n - 0.18], [-owner, -reader], form, color=COLOURS[owner], linewidth=1.5)
            axes.text(n, 0.42, stage.layer.name, ha="center")
        for card in range(2):
            axes.text(-0.95, -card, f"card {card + 1}", va="center")
        axes.set_title("Who reads whom: dashed lines cross from card to card", loc="left")
        axes.set(xlim=(-1.1, len(shown) - 0.4), ylim=(-1.5, 0.8))
    return Picture(figure)


def views(networks: Mapping[str, Network]) -> Picture:
    """The receptive field of one position of each convolution, as nested squares; one panel per network."""
    names = {
        key: [layer.name for layer in network.layers if layer.name.startswith("conv")]
        for key, network in networks.items()
    }
    colours = dict(zip(sorted(set().union(*names.values())), COLOURS, strict=False))
    with pictures.style():
        figure = pictures.blank(7.2, 3.5)
        panels = figure.subplots(1, len(networks), squeeze=False, gridspec_kw={"left": 0.02, "right": 0.98})
        for axes, (title, network) in zip(panels[0], networks.items(), strict=True):
            side = network.input_shape[1]
            axes.fill([0, side, side, 0], [0, 0, side, side], color=pictures.GRID)
            for name in names[title]:
                field = receptive_field(network, name)
                assert field is not None  # a convolution sees a part
                size = field[0].size
                low, high = (side - size) / 2, (side + size) / 2
                axes.plot([low, high, high, low, low], [low, low, high, high, low], color=colours[name], linewidth=1.8)
                small = size < 20  # too small for its own name
                x, y, align = (side / 2, low - 4, "center") if small else (high - 3, high - 4, "right")
                axes.text(x, y, f"{name}: {size}", ha=align, va="top", fontsize=7, color=colours[name])
            axes.set_title(f"What one place sees: {title}", fontsize=9)
            axes.set_aspect("equal")
            axes.axis("off")
    return Picture(figure)

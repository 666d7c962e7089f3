"""How the network learns: momentum, the plateau at the beginning, the learning rate of 2012."""

from __future__ import annotations

import math

import numpy as np

from minialex.backend import registry
from minialex.engine.schedule import epoch_rates
from minialex.recipe.toml import load
from minialex.site import plateau as recorded
from minialex.site import signal as measured
from minialex.site.diagrams.svg import WIDTH, Axes, Drawing

CURVATURE = np.array([1.0, 12.0])
"""Curvature of the valley that `descent` goes down: the loss is half the sum of curvature · w²."""
RATE, STEPS, BEGIN = 0.02, 60, (-9.0, 2.4)


def descent(momentum: float) -> list[tuple[float, float]]:
    """The weights after each step in the valley, by the library's own update."""
    backend = registry.load("numpy")
    w, v = (backend.to_device(np.array(array, float), "cpu:0") for array in (BEGIN, (0.0, 0.0)))
    path = [BEGIN]
    for _ in range(STEPS):
        gradient = backend.to_device(CURVATURE * backend.to_numpy(w), "cpu:0")
        backend.sgd_update(w, v, gradient, learning_rate=RATE, momentum=momentum, weight_decay=0.0)
        a, b = backend.to_numpy(w).tolist()
        path.append((a, b))
    return path


def update() -> Drawing:
    """Two descents of a long valley, with and without momentum."""
    momentum = load("alexnet-2012").momentum
    drawing = Drawing(
        "update",
        f"A long valley seen from above, and two paths of {STEPS} steps down from the same point at the same learning "
        f"rate. Without momentum the path creeps along the floor and stops short of the lowest point; with a momentum "
        f"of {momentum:g} it swings, and arrives.",
    )
    y = 14.0
    for role, words, m in (("two", "without momentum", 0.0), ("one", f"momentum {momentum:g}", momentum)):
        axes = Axes(drawing, 8, y + 10, WIDTH - 16, 128, -10.5, 6.5, -3.1, 3.1)
        drawing.text(8, y, words, role, 13, "start", bold=True)
        for level in (0.7, 3, 9, 20, 38):
            turns = np.linspace(0, 2 * math.pi, 80)
            xs, ys = (np.sqrt(2 * level / c) * f(turns) for c, f in zip(CURVATURE, (np.cos, np.sin), strict=True))
            places = [axes.at(a, b) for a, b in zip(xs.tolist(), ys.tolist(), strict=True)]
            inside = [p for p in places if 0 <= p[0] <= WIDTH and y + 8 <= p[1] <= y + 140]
            if len(inside) == len(places):
                drawing.path(places, "rule")
        path = descent(m)
        drawing.path([axes.at(a, b) for a, b in path], f"{role}-line", stroke_width=1.4)
        for a, b in path:
            drawing.disc(*axes.at(a, b), 2, role)
        drawing.disc(*axes.at(0, 0), 4, "ink")
        left = path[-1]
        loss = float(sum(CURVATURE * np.square(left)) / 2)
        drawing.text(WIDTH - 8, y, f"loss after {STEPS} steps: {loss:.2g}", "quiet", 12, "end")
        y += 160
    drawing.text(8, y - 6, "●  the lowest point", "ink", 12, "start")
    drawing.height = y + 2
    return drawing


def plateau() -> Drawing:
    """The loss of the first steps, from recorded runs: which initial weights leave the plateau."""
    curves = recorded.read()
    chance = math.log(recorded.CLASSES)
    drawing = Drawing(
        "plateau",
        f"Training loss over the first steps of three runs. Chance is {chance:.2f}. "
        + " ".join(f"{curve.name}: it ends at {curve.losses[-1]:.2f}." for curve in curves),
        360,
    )
    last = max(curve.steps[-1] for curve in curves)
    axes = Axes(drawing, 34, 34, WIDTH - 50, 230, 0, last, 1.0, 2.6)
    drawing.text(34, 18, "training loss, mean of 20 steps", "ink", 13, "start", bold=True)
    axes.frame(range(0, last + 1, 100), (1, 1.5, 2, 2.5))
    drawing.path([axes.at(0, chance), axes.at(last, chance)], "guide")
    for curve, role in zip(curves, ("two-line", "line", "one-line"), strict=True):
        axes.curve(curve.steps, curve.losses, role)
    drawing.text(*axes.at(last, chance + 0.06), f"chance: ln {recorded.CLASSES} = {chance:.3f}", "quiet", 11, "end")
    for line, (curve, role) in enumerate(zip(curves, ("two", "ink", "one"), strict=True)):
        _legend(drawing, 34, 306 + 18 * line, role, curve.name)
    drawing.text(34 + (WIDTH - 50) / 2, 288, "", "quiet")
    drawing.text(WIDTH - 16, 294, "step", "quiet", 11, "end")
    return drawing


def signal() -> Drawing:
    """How much of the differences between pictures passes through an untrained network, from recorded measurements."""
    lines = measured.read()
    drawing = Drawing(
        "signal",
        "How much the outputs of each layer differ from picture to picture, on a logarithmic scale. "
        + " ".join(f"{line.name}: {line.spread[0]:.2g} in conv1, {line.spread[-1]:.2g} in fc8." for line in lines),
    )
    powers = range(-5, 2)
    axes = Axes(drawing, 52, 34, WIDTH - 66, 220, 0, len(measured.LAYERS) - 1, powers[0], powers[-1] + 0.3)
    drawing.text(8, 18, "difference from picture to picture", "ink", 13, "start", bold=True)
    axes.frame()
    _powers(axes, powers)
    for place, layer in enumerate(measured.LAYERS):
        drawing.text(axes.at(place, 0)[0], 34 + 220 + 16, layer, "quiet", 10.5)
    for row, (line, role) in enumerate(zip(lines, ("two", "ink", "one"), strict=True)):
        places = [axes.at(place, math.log10(value)) for place, value in enumerate(line.spread)]
        drawing.path(places, {"ink": "line"}.get(role, f"{role}-line"))
        for x, y in places:
            drawing.disc(x, y, 3, role)
        _legend(drawing, 52, 288 + 18 * row, role, line.name)
    drawing.height = 288 + 18 * len(lines)
    return drawing


def _powers(axes: Axes, powers: range) -> None:
    """Lines at powers of ten on a logarithmic axis."""
    for power in powers:
        x, y = axes.at(axes.x0, power)
        axes.drawing.path([(x, y), (x + axes.width, y)], "rule")
        axes.drawing.text(x - 5, y + 4, f"{10.0**power:.{max(0, -power)}f}", "quiet", 11, "end")


def _legend(drawing: Drawing, x: float, y: float, role: str, words: str) -> None:
    drawing.path([(x, y), (x + 22, y)], "line" if role == "ink" else f"{role}-line")
    drawing.text(x + 28, y + 4, words, role, 12, "start")


def schedule() -> Drawing:
    """The learning rate of the run of 2012, epoch by epoch, as the recipe ``code145`` replays it."""
    recipe = load("code145")
    epochs = range(1, recipe.epochs + 1)
    rates = [epoch_rates(recipe, epoch, []).learning_rate for epoch in epochs]
    cuts = [epoch for epoch, a, b in zip(epochs, [rates[0], *rates], rates, strict=False) if b < a]
    drawing = Drawing(
        "schedule",
        f"The learning rate over {len(epochs)} epochs, on a logarithmic scale: from {rates[0]:g}, divided by ten at "
        f"epochs {', '.join(str(epoch) for epoch in cuts)}.",
        230,
    )
    axes = Axes(drawing, 52, 34, WIDTH - 66, 140, 1, len(epochs), -5.3, -1.7)
    drawing.text(52, 18, "learning rate of the run of 2012", "ink", 13, "start", bold=True)
    axes.frame([1, *cuts, len(epochs)])
    _powers(axes, range(-5, -1))
    points = []
    for epoch, rate in zip(epochs, rates, strict=True):
        points += [axes.at(epoch, math.log10(rate)), axes.at(min(epoch + 1, len(epochs)), math.log10(rate))]
    drawing.path(points, "one-line")
    drawing.text(WIDTH - 14, 212, "epoch", "quiet", 11, "end")
    return drawing

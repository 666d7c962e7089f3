"""How a network learns: the chain rule as numbers on wires, steps down a slope, and intervals of many experiments."""

from __future__ import annotations

import math

import numpy as np

from minialex import philox
from minialex.site.diagrams.svg import WIDTH, Axes, Drawing
from minialex.site.live import apply

START = {"w1": 0.5, "x1": 2.0, "w2": -1.5, "x2": -1.0, "b": 0.5, "t": 1.0}
"""The neuron of `wires`: two weights and their inputs, the bias, and the target."""
RATE = 0.1
STUDENT = 2.776
"""Student's 97.5% quantile with four degrees of freedom, for five values."""


def numbers(
    w1: float, x1: float, w2: float, x2: float, b: float, t: float
) -> tuple[dict[str, float], dict[str, float]]:
    """All numbers of a neuron with the loss ½ (y − t)², by the reference: forward, and the loss's slope along each."""
    x, w = np.array([[x1, x2]]), np.array([[w1, w2]])
    (z,) = apply("linear", x, w, np.array([b]))
    (y,) = apply("relu", z)
    (dz,) = apply("relu_backward", y - t, y)
    dx, dw, db = (array.ravel() for array in apply("linear_backward", dz, x, w, need_dx=True))
    forward = {
        "w1": w1, "x1": x1, "w2": w2, "x2": x2, "b": b, "t": t, "p1": w1 * x1, "p2": w2 * x2,
        "z": z.item(), "y": y.item(), "loss": (y.item() - t) ** 2 / 2,
    }  # fmt: skip
    back = {
        "w1": dw[0], "x1": dx[0], "w2": dw[1], "x2": dx[1], "b": db[0], "p1": dz.item(), "p2": dz.item(),
        "z": dz.item(), "y": y.item() - t, "loss": 1.0,
    }  # fmt: skip
    return forward, {name: float(value) for name, value in back.items()}


def shown(value: float) -> str:
    """A number as shown on a wire: at most two digits after the decimal point."""
    return f"{round(value, 2) + 0.0:g}".replace("-", "−")


def wires() -> Drawing:
    """One neuron and its loss: the numbers that flow forward, and the slopes that flow back."""
    forward, back = numbers(**START)
    drawing = Drawing(
        "wires",
        "One neuron as a plan of wires. Each weight is multiplied by its input, the products and the bias are added, "
        "max(0, z) bends the sum, and half the square of the distance to the target is the loss. On each wire stand "
        "the number that goes forward and the slope of the loss that comes back. "
        + " ".join(f"{name}: {shown(forward[name])}, slope {shown(back[name])}." for name in back),
        414,
    )

    def wire(x: float, y: float, name: str) -> None:
        drawing.text(x, y, shown(forward[name]), "one", 13, "start", bold=True, data_value=name)
        drawing.text(x, y + 15, f"∂ {shown(back[name])}", "two", 12, "start", data_slope=name)

    inputs = {"w1": ("w₁", 28.0), "x1": ("x₁", 96.0), "w2": ("w₂", 168.0), "x2": ("x₂", 236.0), "b": ("b", 304.0)}
    nodes = {
        "p1": (62.0, 122.0),
        "p2": (202.0, 122.0),
        "z": (191.0, 214.0),
        "y": (191.0, 286.0),
        "loss": (191.0, 358.0),
    }
    for name, (label, x) in inputs.items():
        target = {"1": "p1", "2": "p2"}.get(name[-1], "z")
        drawing.arrow([(x, 34), (x, 60), _towards(nodes[target], (x, 60))], "line", 6)
        drawing.rect(x - 16, 10, 32, 24, "one-soft" if name[0] in "wb" else "soft", 4)
        drawing.text(x, 27, label, "ink", 14, bold=True)
        wire(x + 5, 50, name)
    for name, target in (("p1", "z"), ("p2", "z"), ("z", "y"), ("y", "loss")):
        drawing.arrow([nodes[name], _towards(nodes[target], nodes[name])], "line", 6)
    drawing.arrow([nodes["loss"], (191, 408)], "line", 6)
    for name, words in (("p1", "×"), ("p2", "×"), ("z", "+"), ("y", "max(0, z)"), ("loss", "½ (y − t)²")):
        x, y = nodes[name]
        wide = 14.0 if len(words) == 1 else 42.0
        drawing.rect(x - wide, y - 14, 2 * wide, 28, "paper", 14)
        drawing.rect(x - wide, y - 14, 2 * wide, 28, "empty", 14)
        drawing.text(x, y + 5, words, "ink", 13)
    labels = {"p1": "w₁x₁", "p2": "w₂x₂", "z": "z", "y": "y", "loss": "loss"}
    for name, x, y, apart in (
        ("p1", 80.0, 178.0, 6), ("p2", 154.0, 158.0, 6), ("z", 200.0, 242.0, 18),
        ("y", 200.0, 314.0, 18), ("loss", 200.0, 388.0, 18)
    ):  # fmt: skip
        wire(x, y, name)
        drawing.text(x - apart, y, labels[name], "quiet", 12, "end")
    drawing.text(243, 363, f"target t = {shown(START['t'])}", "quiet", 12, "start")
    drawing.text(14, 296, "blue: the value,", "one", 12, "start")
    drawing.text(14, 311, "forward", "one", 12, "start")
    drawing.text(14, 336, "orange, ∂: the slope", "two", 12, "start")
    drawing.text(14, 351, "of the loss, back", "two", 12, "start")
    return drawing


def _towards(node: tuple[float, float], source: tuple[float, float]) -> tuple[float, float]:
    """Where a wire from `source` meets the round edge of a node."""
    x, y = node[0] - source[0], node[1] - source[1]
    far = math.hypot(x, y)
    return node[0] - 15 * x / far, node[1] - 15 * y / far


def step() -> Drawing:
    """The loss over one weight, its slope at the start, and steps down at three learning rates."""
    drawing = Drawing(
        "step",
        "The loss of the neuron over its weight w₁, all else fixed: a flat floor of silence on the left, then a "
        "parabola. From the same start, five steps with three learning rates: a small one creeps, a middle one "
        "arrives, one that is too large lands on the floor of silence, where the slope is zero, and stays there.",
    )
    xs = np.linspace(-1.8, 1.25, 123)

    def at(w1: float) -> tuple[float, float]:
        forward, back = numbers(**{**START, "w1": w1})
        return forward["loss"], back["w1"]

    y = 20.0
    for rate, role, words in (
        (0.03, "two", "creeps"),
        (0.2, "one", "arrives"),
        (0.52, "ink", "stops where it is silent"),
    ):
        axes = Axes(drawing, 34, y + 8, WIDTH - 50, 92, -1.8, 1.25, -0.2, 6.2)
        drawing.text(34, y, f"learning rate {rate:g}: {words}", role, 13, "start", bold=True)
        axes.frame((-1, 0, 1), (0, 3, 6))
        axes.curve(xs.tolist(), [at(float(x))[0] for x in xs], "guide")
        w, path = START["w1"], [START["w1"]]
        for _ in range(5):
            w -= rate * at(w)[1]
            path.append(w)
        drawing.path(
            [axes.at(w, at(w)[0]) for w in path], "line" if role == "ink" else f"{role}-line", stroke_width=1.3
        )
        for w in path:
            drawing.disc(*axes.at(w, at(w)[0]), 3, role)
        y += 146
    drawing.text(34 + (WIDTH - 50) / 2, y - 14, "weight w₁; upwards: the loss", "quiet", 12)
    drawing.height = y - 6
    return drawing


def experiments(count: int = 20, seeds: int = 5) -> list[tuple[float, float, float]]:
    """(mean, low, high) of `count` experiments, each with `seeds` differences around 0 with standard deviation 1."""
    found = []
    for number in range(count):
        values = philox.normal(philox.Stream(0, philox.purpose("site/intervals"), number), 1, seeds)[0]
        half = STUDENT * values.std(ddof=1) / math.sqrt(seeds)
        found.append((float(values.mean()), float(values.mean() - half), float(values.mean() + half)))
    return found


def intervals() -> Drawing:
    """Twenty experiments without an effect: their 95% intervals, and which of them miss the truth."""
    found = experiments()
    missed = sum(not low <= 0 <= high for _, low, high in found)
    drawing = Drawing(
        "intervals",
        f"{len(found)} experiments of five seeds each, in which the true difference is zero. Each is drawn as a "
        f"dot, its mean, with a bar, its 95% interval. {missed} of them do not include zero.",
        50 + 11 * len(found),
    )
    axes = Axes(drawing, 14, 30, WIDTH - 28, 11 * len(found), -2.6, 2.6, len(found), 0)
    drawing.text(14, 16, "20 experiments in which nothing is to be found", "ink", 13, "start", bold=True)
    drawing.path([axes.at(0, 0), axes.at(0, len(found))], "guide")
    for row, (mean, low, high) in enumerate(found):
        role = "one" if low <= 0 <= high else "two"
        ends = [axes.at(min(max(x, -2.6), 2.6), row + 0.5) for x in (low, high)]
        drawing.path(ends, f"{role}-line", stroke_width=2 if role == "one" else 4)
        drawing.disc(*axes.at(mean, row + 0.5), 3, role)
    drawing.text(axes.at(0, 0)[0], 46 + 11 * len(found), "true difference: 0", "quiet", 12)
    return drawing

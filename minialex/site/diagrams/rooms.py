"""How the library is laid out: one description, several backends, one kit that holds them to each other."""

from __future__ import annotations

from minialex.backend.protocol import MOVERS, OPERATIONS
from minialex.site.diagrams.svg import WIDTH, Drawing


def rooms() -> Drawing:
    """One network above, three backends below, and the conformance kit beneath them."""
    drawing = Drawing(
        "rooms",
        f"On top the network: layers and columns, which do no arithmetic. Under it the protocol: {len(OPERATIONS)} "
        f"operations and {len(MOVERS)} movers. Under that the backends NumPy, Numba, CUDA and yours; and under them "
        "the conformance kit, which compares each with the NumPy reference.",
        300,
    )
    drawing.rect(20, 10, WIDTH - 40, 50, "soft", 4)
    drawing.text(WIDTH / 2, 31, "minialex: what the network is", "ink", 13, bold=True)
    drawing.text(WIDTH / 2, 49, "layers, columns, training, data", "quiet", 12)
    drawing.arrow([(WIDTH / 2, 61), (WIDTH / 2, 83)])
    drawing.rect(20, 84, WIDTH - 40, 36, "two-soft", 4)
    drawing.text(WIDTH / 2, 107, f"the protocol: {len(OPERATIONS)} operations, {len(MOVERS)} movers", "ink", 13)
    names = (("NumPy", "to be read"), ("Numba", "for CPUs"), ("CUDA", "for GPUs"), ("yours", "a package"))
    width = (WIDTH - 40 - 3 * 10) / 4
    for place, (name, words) in enumerate(names):
        x = 20 + place * (width + 10)
        drawing.arrow([(x + width / 2, 121), (x + width / 2, 145)])
        drawing.rect(x, 146, width, 54, "one-soft" if place < 3 else "empty", 4)
        drawing.text(x + width / 2, 169, name, "ink", 13, bold=True)
        drawing.text(x + width / 2, 187, words, "quiet", 11)
        drawing.arrow([(x + width / 2, 245), (x + width / 2, 202)], "guide")
    drawing.rect(20, 246, WIDTH - 40, 44, "soft", 4)
    drawing.text(WIDTH / 2, 265, "the conformance kit", "ink", 13, bold=True)
    drawing.text(WIDTH / 2, 282, "each one held to the NumPy reference", "quiet", 12)
    return drawing

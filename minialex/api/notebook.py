"""What a notebook shows during a run: a progress bar in the page, and the curves if asked for."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from typing import Any

from minialex.screen.terminal import console
from minialex.training.display import TrainingDisplay

BAR_SECONDS, CURVE_SECONDS = 0.2, 2.0  # seconds between updates


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel (IPython's terminal has none)."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class NotebookDisplay(TrainingDisplay):
    """The terminal's display, with the bar and the curves in the notebook's page."""

    def __init__(self, live: bool = False) -> None:
        super().__init__(console())
        self.live = live
        self.records: list[Mapping[str, Any]] = []
        self.shown: dict[str, Any] = {}  # what is shown in the page, by kind
        self.drawn = {"bar": 0.0, "curves": 0.0}

    def __exit__(self, *_: object) -> None:
        if self.live and self.records:
            self.draw_curves()
        if "bar" in self.shown:
            self.show("bar", {"text/plain": "", "text/html": ""})

    def show(self, kind: str, data: dict[str, Any]) -> None:
        """Display something, or replace what was shown before."""
        from IPython.display import display

        if kind in self.shown:
            self.shown[kind].update(data, raw=True)
        else:
            self.shown[kind] = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        self.drawn[kind] = time.monotonic()

    def tell(self, what: str, done: int, total: int | None, note: str = "", unit: str = "steps") -> None:
        if done == total or time.monotonic() - self.drawn["bar"] > BAR_SECONDS:
            count = "" if total is None else f": {done:,} of {total:,} {unit}"
            text = ", ".join(filter(None, (what + count, note)))
            value = "" if total is None else f' value="{done}" max="{total}"'
            self.show("bar", {"text/plain": text, "text/html": f"<progress{value}></progress> {html.escape(text)}"})

    def recorded(self, record: Mapping[str, Any]) -> None:
        super().recorded(record)
        self.records.append(record)
        if self.live and time.monotonic() - self.drawn["curves"] > CURVE_SECONDS:
            self.draw_curves()

    def draw_curves(self) -> None:
        """Draw loss and errors so far."""
        from minialex.figures import pictures

        picture = pictures.png(pictures.curves(self.records, self.classes))
        self.show("curves", {"text/plain": "loss and errors so far", "image/png": picture})

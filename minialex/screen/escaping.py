"""Rich's console, so that nothing that came from outside can command the terminal: names, texts of errors, metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from minialex.screen.formats import LIKENESS, plain


class Console(rich.console.Console):
    """A console that escapes what a terminal would obey, and replaces what its encoding lacks.

    A text that is printed is one line: print several, or a `Text`, for more.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        """Print texts, each as one line, and whatever else Rich prints."""
        super().print(*(plain(item) if isinstance(item, str) else item for item in objects), **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """A text with its measure: what is escaped is longer."""
        return super().render_str(plain(text, keep="\n"), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The pieces of whatever is printed; Rich's own commands are marked as such, all else is text."""
        narrow = not self.encoding.startswith("utf")
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            text = plain(segment.text, keep="\n")
            if narrow:
                text = text.encode(self.encoding, LIKENESS).decode(self.encoding)
            yield segment if text == segment.text else Segment(text, segment.style)

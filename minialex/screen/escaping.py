"""Rich's console, hardened so that no outside text (names, error messages, metadata) can control the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from minialex.screen.formats import LIKENESS, plain


class Console(rich.console.Console):
    """A console that escapes control characters, and replaces characters that its encoding lacks.

    Each printed text is one line: print several, or a `Text`, for more.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        """Print texts, each as one line, and anything else that Rich prints."""
        super().print(*(plain(item) if isinstance(item, str) else item for item in objects), **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Escape a text before it is measured, since escaping makes it longer."""
        return super().render_str(plain(text, keep="\n"), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render segments; Rich's own control codes are marked as such, all else is text."""
        narrow = not self.encoding.startswith("utf")
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            text = plain(segment.text, keep="\n")
            if narrow:
                text = text.encode(self.encoding, LIKENESS).decode(self.encoding)
            yield segment if text == segment.text else Segment(text, segment.style)

"""Numbers and texts as people read them."""

from __future__ import annotations

import math
import unicodedata

TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of writing: what follows them may look like something else."""


def readable_size(count: int) -> str:
    """Return a number of bytes as people write it: ``readable_size(243_860_896) == '243.9 MB'``."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds in words: ``8 s``, ``1 min 20 s``, ``3 h 05 min``, ``4 days``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole / 86400:.1f} days"


def seconds(value: float) -> str:
    """A short time, in three digits of the unit that fits it: µs, ms or s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {unit}"
    return f"{three_digits(value * 1e6)} µs"


def long_time(value: float) -> str:
    """A long time in three digits of minutes, hours or days."""
    unit, size = next((pair for pair in (("days", 86400.0), ("h", 3600.0)) if value >= 2 * pair[1]), ("min", 60.0))
    return f"{three_digits(value / size)} {unit}"


def milliseconds(value: float) -> str:
    """Seconds as milliseconds in about three digits, without the unit: ``"0.12"``, ``"12.3"``, ``"1,230"``."""
    value *= 1000
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float, unit: str) -> str:
    """A number with k, M, G or T (powers of 1,000) before its unit."""
    for sign, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {sign}{unit}"
    return f"{three_digits(value)} {unit}"


def three_digits(value: float) -> str:
    """Three digits, or all there are before the point."""
    if value >= 99.95 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def percent(fraction: float, digits: int = 1) -> str:
    """Return a fraction as text, ``0.031`` as ``3.1 %`` with a space that does not break."""
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%" if math.isfinite(fraction) else "–"


def plural(count: float, word: str) -> str:
    """A number with its noun: ``1 column``, ``2 columns``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def clip(text: str, longest: int) -> str:
    """Return a text, its end replaced by … where it is too long."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def plain(text: str, keep: str = "") -> str:
    """Return a text that can be shown, drawn and encoded anywhere, whatever a stranger put into it.

    Class names come from folders and archives, messages from files: a control character in them could move a
    terminal's cursor or change its title. Control characters and line ends become spaces, halves of characters
    become U+FFFD, marks that turn the direction of writing go.

    Args:
        text: from outside
        keep: control characters that may stay, such as ``"\\n"``
    """
    kept = []
    for character in text:
        kind = unicodedata.category(character)
        if character in keep:
            kept.append(character)
        elif kind == "Cs" or (kind == "Cn" and ord(character) & 0xFFFE == 0xFFFE):
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif kind in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif character not in TURNING:
            kept.append(character)
    return "".join(kept)
